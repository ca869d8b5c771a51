//! Where the admin port is by default: a socket in a folder that belongs to its owner alone.
//!
//! | order | folder | |
//! | --- | --- | --- |
//! | 1 | `$RUNTIME_DIRECTORY` | made by the service manager |
//! | 2 | `$XDG_RUNTIME_DIR/weir` | of the user that is logged in |
//! | 3 | `/run/weir` | root's |
//! | 4 | `/tmp/weir-UID` | anybody's |
//!
//! A server takes the first folder that it can have. Commands look in all of them, in this order, and take the first
//! sockets that they find. The socket is called `admin.sock`; a server that finds a live one there takes the name
//! `admin-PID.sock`.
//!
//! # Which folders are trusted
//! A user that may write a folder can put a socket there, which would answer commands and be told their token. So a
//! server uses no folder of another user, and a command looks into none. Folders in `/run` are the exception, because
//! only root makes any there: a service's folder belongs to the service's user. Every user can make folders in `/tmp`,
//! so a folder there must also be closed to others.
//!
//! # Two at a time
//! Finding that a socket is stale, removing it and listening in its place are several steps, and a socket that is bound
//! and doesn't listen yet looks stale. Servers take these steps under a lock on a file that others can't open.

use std::env;
use std::ffi::OsStr;
use std::fs::{DirBuilder, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::unistd::Uid;

use crate::listener::{Address, BindError, Listener, SocketState, socket_state};

/// The socket of the only server in a folder, or of the first.
const SOCKET: &str = "admin.sock";
/// What the sockets of others are called: this, their process' number, and [`OTHERS_END`].
const OTHERS_BEGIN: &str = "admin-";
/// See [`OTHERS_BEGIN`].
const OTHERS_END: &str = ".sock";
/// The file that servers lock while they look for a name.
const LOCK: &str = "admin.lock";

/// What the places depend on.
#[derive(Debug)]
pub(crate) struct Surroundings {
    runtime_directory: Option<PathBuf>,
    xdg_runtime_dir: Option<PathBuf>,
    run: PathBuf,
    tmp: PathBuf,
    uid: u32,
}

/// Whose folder it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// `$RUNTIME_DIRECTORY`
    Service,
    /// In `$XDG_RUNTIME_DIR`
    Session,
    /// In `/run`
    System,
    /// In `/tmp`
    Shared,
}

/// A folder where sockets may be.
#[derive(Debug)]
struct Place {
    folder: PathBuf,
    kind: Kind,
    uid: u32,
}

/// Sockets on which a server listens, in the first folder that has any.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The only one.
    One(Address),
    /// More than one.
    Several(Vec<Address>),
    /// None, in all of these folders.
    Nothing(Vec<PathBuf>),
}

impl Surroundings {
    /// The places of this process.
    pub(crate) fn of_process() -> Self {
        let folder = |name| env::var_os(name).map(PathBuf::from);
        Self {
            // Several are separated by colons; the first is as good as any.
            runtime_directory: env::var("RUNTIME_DIRECTORY")
                .ok()
                .and_then(|list| list.split(':').next().map(PathBuf::from)),
            xdg_runtime_dir: folder("XDG_RUNTIME_DIR"),
            run: "/run".into(),
            tmp: "/tmp".into(),
            uid: Uid::effective().as_raw(),
        }
    }

    fn places(&self) -> Vec<Place> {
        let absolute = |path: &Option<PathBuf>| path.clone().filter(|path| path.is_absolute());
        let service = absolute(&self.runtime_directory).map(|path| (path, Kind::Service));
        let session =
            absolute(&self.xdg_runtime_dir).map(|path| (path.join("weir"), Kind::Session));
        let system = (self.uid == 0).then(|| (self.run.join("weir"), Kind::System));
        let shared = (self.tmp.join(format!("weir-{}", self.uid)), Kind::Shared);
        let places = [service, session, system, Some(shared)].into_iter();
        let places = places.flatten().map(|(folder, kind)| Place {
            folder,
            kind,
            uid: self.uid,
        });
        places.collect()
    }

    /// Listens, by means of `bind`, in the first folder that can be had.
    ///
    /// # Errors
    /// The last folder can't be had either; the error says why.
    pub(crate) async fn bind(
        &self,
        bind: impl AsyncFn(&Address) -> Result<Listener, BindError>,
    ) -> Result<Listener, (PathBuf, String)> {
        let mut refused = None;
        for place in self.places() {
            match place.bind(&bind).await {
                Ok(listener) => return Ok(listener),
                Err(reason) => {
                    tracing::debug!("no admin port in {}: {reason}", place.folder.display());
                    refused = Some((place.folder, reason));
                }
            }
        }
        Err(refused.expect("there is always a place"))
    }

    /// Looks for servers.
    pub(crate) fn find(&self) -> Found {
        let mut folders = Vec::new();
        for place in self.places() {
            let mut live = place.live();
            match live.len() {
                0 => folders.push(place.folder),
                1 => return Found::One(live.remove(0)),
                _ => return Found::Several(live),
            }
        }
        Found::Nothing(folders)
    }
}

impl Place {
    async fn bind(
        &self,
        bind: &impl AsyncFn(&Address) -> Result<Listener, BindError>,
    ) -> Result<Listener, String> {
        self.make().map_err(|error| error.to_string())?;
        let _lock = self.lock().map_err(|error| format!("{LOCK}: {error}"))?;
        for path in self.others() {
            if socket_state(&path) == SocketState::Stale {
                // A server that was killed has left it behind. At worst it stays.
                let _ = std::fs::remove_file(path);
            }
        }
        let outcome = match bind(&Address::Unix(self.folder.join(SOCKET))).await {
            Err(BindError::Live { .. }) => {
                let own = format!("{OTHERS_BEGIN}{}{OTHERS_END}", std::process::id());
                bind(&Address::Unix(self.folder.join(own))).await
            }
            outcome => outcome,
        };
        outcome.map_err(|error| error.to_string())
    }

    /// Makes the folder where it is missing, and checks its owner.
    fn make(&self) -> io::Result<()> {
        if self.kind == Kind::Session {
            // By its definition it must be this user's; after su(1) it often isn't.
            let parent = self.folder.parent().expect("a name was joined to it");
            self.check_owner(&std::fs::metadata(parent)?)?;
        }
        if self.kind != Kind::Service {
            match DirBuilder::new().mode(0o700).create(&self.folder) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                outcome => outcome?,
            }
        }
        let metadata = self.metadata()?;
        self.check_owner(&metadata)?;
        self.check_mode(&metadata)
    }

    fn metadata(&self) -> io::Result<Metadata> {
        match self.kind {
            // The service manager may make it a link to a private folder.
            Kind::Service => std::fs::metadata(&self.folder),
            Kind::Session | Kind::System | Kind::Shared => std::fs::symlink_metadata(&self.folder),
        }
    }

    fn check_owner(&self, metadata: &Metadata) -> io::Result<()> {
        if !metadata.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        if metadata.uid() != self.uid {
            let text = format!("it belongs to user {}", metadata.uid());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        Ok(())
    }

    fn check_mode(&self, metadata: &Metadata) -> io::Result<()> {
        let closed = match self.kind {
            // Its group is the administrator's choice.
            Kind::Service => 0o002,
            Kind::Session | Kind::System => 0o022,
            Kind::Shared => 0o077,
        };
        if metadata.mode() & closed != 0 {
            let text = format!("its mode {:o} lets others in", metadata.mode() & 0o7777);
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        Ok(())
    }

    /// Waits for other servers that are about to listen here.
    fn lock(&self) -> io::Result<Flock<std::fs::File>> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(OFlag::O_NOFOLLOW.bits())
            .open(self.folder.join(LOCK))?;
        Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error.into())
    }

    /// The sockets here whose names have a process number.
    fn others(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten();
        let mut paths: Vec<_> = entries
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_socket()))
            .filter(|entry| is_others(&entry.file_name()))
            .map(|entry| entry.path())
            .collect();
        paths.sort();
        paths
    }

    /// The sockets here on which a server listens, if the folder can be trusted.
    fn live(&self) -> Vec<Address> {
        let trusted = self.metadata().and_then(|metadata| {
            if self.kind != Kind::System {
                self.check_owner(&metadata)?;
            }
            self.check_mode(&metadata)
        });
        if trusted.is_err() {
            return Vec::new();
        }
        let paths = [self.folder.join(SOCKET)].into_iter().chain(self.others());
        paths
            .filter(|path| socket_state(path) == SocketState::Live)
            .map(Address::Unix)
            .collect()
    }
}

fn is_others(name: &OsStr) -> bool {
    let name = name.to_str();
    let number = name
        .and_then(|name| name.strip_prefix(OTHERS_BEGIN))
        .and_then(|name| name.strip_suffix(OTHERS_END));
    number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests;
