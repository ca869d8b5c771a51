//! Unix sockets: a stale one is replaced, a live one refused, the server's own removed at the end.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{AccessFlags, faccessat};
use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use tokio::net::{UnixListener, UnixStream};

use super::{Address, BindError};
use crate::limits::SEND_BUFFER_BYTES;

/// A socket in the file system that belongs to this process. Dropping it removes the file, unless another was put in
/// its place.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if std::fs::symlink_metadata(&self.path).is_ok_and(|now| identity(&now) == self.identity) {
            // At worst a stale socket stays, and the next start replaces it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Listens on `path`.
pub(super) fn bind(
    path: &Path,
    option: &'static str,
) -> Result<(UnixListener, SocketFile), BindError> {
    let failed = |source| refused(path, option, source);
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            remove_stale(path, option)?;
            UnixListener::bind(path).map_err(failed)?
        }
        outcome => outcome.map_err(failed)?,
    };
    // The path is absolute, in case the process changes its folder.
    let path = std::path::absolute(path).map_err(failed)?;
    let identity = identity(&std::fs::symlink_metadata(&path).map_err(failed)?);
    Ok((listener, SocketFile { path, identity }))
}

/// The reason why `path` can't be listened on.
fn refused(path: &Path, option: &'static str, source: io::Error) -> BindError {
    let address = Address::Unix(path.to_owned());
    match path.parent() {
        Some(folder)
            if source.kind() == io::ErrorKind::NotFound
                && !folder.as_os_str().is_empty()
                && !folder.exists() =>
        {
            let folder = folder.to_owned();
            BindError::NoFolder {
                address,
                option,
                folder,
            }
        }
        _ if SockAddr::unix(path).is_err() => {
            let path = path.to_owned();
            BindError::LongPath { path, option }
        }
        _ => BindError::Bind {
            address,
            option,
            source,
        },
    }
}

/// Large replies go out in few pieces. If the administrator has set a larger buffer, it stays.
pub(super) fn tune(stream: &UnixStream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    if socket.send_buffer_size()? < SEND_BUFFER_BYTES {
        socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    }
    Ok(())
}

/// What is at the path of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SocketState {
    /// Nothing.
    Missing,
    /// A socket on which no process listens.
    Stale,
    /// A process listens, or may listen.
    Live,
}

/// Whether a process listens on `path`. It doesn't wait.
pub(crate) fn socket_state(path: &Path) -> SocketState {
    let connected = SockAddr::unix(path).and_then(|address| {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // Otherwise the call would wait for a listener whose queue is full, which a stopped process's queue may be.
        socket.set_nonblocking(true)?;
        socket.connect(&address)
    });
    match connected {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => SocketState::Stale,
        Err(error) if error.kind() == io::ErrorKind::NotFound => SocketState::Missing,
        // It is connected, or not allowed to connect, or the queue is full: a process is there.
        _ => SocketState::Live,
    }
}

/// Whether `path` could be listened on if no live process were there.
pub(super) fn check(path: &Path, option: &'static str) -> Result<(), BindError> {
    if let Ok(metadata) = std::fs::symlink_metadata(path)
        && !metadata.file_type().is_socket()
    {
        let path = path.to_owned();
        return Err(BindError::NotASocket { path, option });
    }
    examine_path(path).map_err(|source| refused(path, option, source))
}

fn examine_path(path: &Path) -> io::Result<()> {
    // The path's length, and what it may not contain.
    std::os::unix::net::SocketAddr::from_pathname(path)?;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let wanted = AccessFlags::W_OK | AccessFlags::X_OK;
    if !folder.metadata()?.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    Ok(faccessat(AT_FDCWD, folder, wanted, AtFlags::AT_EACCESS)?)
}

/// Removes a socket on which no process listens.
fn remove_stale(path: &Path, option: &'static str) -> Result<(), BindError> {
    let path = path.to_owned();
    match std::fs::symlink_metadata(&path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(BindError::NotASocket { path, option });
        }
        _ => {}
    }
    match socket_state(&path) {
        SocketState::Stale => {}
        SocketState::Missing => return Ok(()),
        SocketState::Live => return Err(BindError::Live { path, option }),
    }
    std::fs::remove_file(&path).map_err(|source| BindError::Bind {
        address: Address::Unix(path),
        option,
        source,
    })
}
