//! The contenders: Weir, the references, the peers that are installed, and how each is started.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::load::{Load, Temperature};
use crate::process::{self, Server};
use crate::stream::{Address, Transport};

/// What runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Ceiling,
    TokioLoop,
    NbdkitMemory,
    NbdkitFile,
    NbdkitCache,
    QemuWriteback,
    QemuNone,
    Weir,
    /// Weir with a fault rule that never matches.
    WeirArmed,
    Baseline,
    /// Not a server: threads with positional `O_DIRECT` I/O on the file itself.
    RawThreads,
    /// Not a server: fio's io_uring engine with `O_DIRECT` on the file itself.
    RawUring,
}

/// One column of the comparison.
#[derive(Debug, Clone)]
pub(crate) struct Contender {
    pub(crate) kind: Kind,
    pub(crate) name: &'static str,
    program: PathBuf,
    /// qemu-nbd's I/O engine, once it is known which one works here.
    aio: &'static str,
}

/// Names for `--servers`.
pub(crate) const NAMES: [(Kind, &str); 12] = [
    (Kind::Ceiling, "ceiling"),
    (Kind::TokioLoop, "tokio-loop"),
    (Kind::NbdkitMemory, "nbdkit-memory"),
    (Kind::NbdkitFile, "nbdkit-file"),
    (Kind::NbdkitCache, "nbdkit-cache"),
    (Kind::QemuWriteback, "qemu-writeback"),
    (Kind::QemuNone, "qemu-none"),
    (Kind::RawThreads, "raw-threads"),
    (Kind::RawUring, "raw-uring"),
    (Kind::Weir, "weir"),
    (Kind::WeirArmed, "weir-armed"),
    (Kind::Baseline, "baseline"),
];

/// A rule about every command, but at offsets that no device of the benchmark reaches.
pub(crate) const UNMATCHED_RULE: &str = "any offset=1P..2P error=EIO";

/// More than any mode opens, for servers that limit them.
const CONNECTIONS_MAX: &str = "2000";

/// What a server gets to serve.
#[derive(Debug, Clone)]
pub(crate) struct Place<'place> {
    /// For sockets and what a peer keeps on disk.
    pub(crate) folder: &'place Path,
    pub(crate) file: &'place Path,
    pub(crate) size: u64,
    pub(crate) cache_size: u64,
    pub(crate) transport: Transport,
}

impl Contender {
    /// The contender of that name, or the reason why it can't take part.
    pub(crate) fn find(
        kind: Kind,
        name: &'static str,
        weir: &Path,
        baseline: Option<&Path>,
    ) -> Result<Self, String> {
        let on_path = |program: &str| {
            process::find(program).ok_or_else(|| format!("{program} isn't installed"))
        };
        let build = |path: &Path| match path.is_file() {
            true => Ok(path.to_path_buf()),
            false => Err(format!("{} isn't built", path.display())),
        };
        let program = match kind {
            Kind::Ceiling | Kind::TokioLoop => {
                std::env::current_exe().map_err(|error| error.to_string())
            }
            Kind::NbdkitMemory | Kind::NbdkitFile | Kind::NbdkitCache => on_path("nbdkit"),
            Kind::QemuWriteback | Kind::QemuNone => on_path("qemu-nbd"),
            Kind::RawUring => on_path("fio"),
            Kind::RawThreads => Ok(PathBuf::new()),
            Kind::Weir | Kind::WeirArmed => build(weir),
            Kind::Baseline => baseline.map_or_else(|| Err("no --baseline given".into()), build),
        }?;
        Ok(Self {
            kind,
            name,
            program,
            aio: "io_uring",
        })
    }

    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// Whether it understands fault rules.
    pub(crate) const fn is_weir(&self) -> bool {
        matches!(self.kind, Kind::Weir | Kind::WeirArmed | Kind::Baseline)
    }

    /// Whether it works on the file without a server.
    pub(crate) const fn is_raw(&self) -> bool {
        matches!(self.kind, Kind::RawThreads | Kind::RawUring)
    }

    /// Whether `load` is meaningful for it: memory is never cold, and raw access is the reference for disks only.
    pub(crate) fn takes(&self, load: &Load) -> bool {
        match self.kind {
            Kind::Ceiling | Kind::TokioLoop => load.temperature == Temperature::Hot,
            Kind::NbdkitMemory | Kind::WeirArmed => load.temperature == Temperature::Hot,
            Kind::RawThreads | Kind::RawUring => load.temperature != Temperature::Hot,
            _ => true,
        }
    }

    /// Starts the server and waits until it accepts connections.
    pub(crate) fn start(&mut self, place: &Place<'_>) -> io::Result<Server> {
        let started = self.start_once(place);
        if started.is_err()
            && self.aio == "io_uring"
            && matches!(self.kind, Kind::QemuWriteback | Kind::QemuNone)
        {
            eprintln!("{}: no io_uring here, so threads", self.name);
            self.aio = "threads";
            return self.start_once(place);
        }
        started
    }

    fn start_once(&self, place: &Place<'_>) -> io::Result<Server> {
        let address = match place.transport {
            // The same path is never used twice: another server of this contender may still listen on the last one.
            Transport::Unix => {
                static STARTED: AtomicU32 = AtomicU32::new(0);
                let number = STARTED.fetch_add(1, Ordering::Relaxed);
                Address::Unix(place.folder.join(format!("{}-{number}.sock", self.name)))
            }
            Transport::Tcp => Address::free_port()?,
        };
        let mut command = self.command(place, &address);
        command.stderr(Stdio::null());
        Server::start(&mut command, address)
    }

    /// The command line that serves `place` at `address`.
    pub(crate) fn command(&self, place: &Place<'_>, address: &Address) -> Command {
        let mut command = process::command(&self.program);
        self.arguments(&mut command, place, address);
        command
    }

    /// Everything behind the program's name.
    pub(crate) fn arguments(&self, command: &mut Command, place: &Place<'_>, address: &Address) {
        let size = place.size.to_string();
        match self.kind {
            Kind::Ceiling => reference("ceiling", command, &size, address),
            Kind::TokioLoop => reference("tokio-loop", command, &size, address),
            Kind::NbdkitMemory => nbdkit(command, address, &["memory", &size]),
            Kind::NbdkitFile => {
                nbdkit(command, address, &["file"]);
                command.arg(place.file);
            }
            Kind::NbdkitCache => {
                nbdkit(command, address, &["--filter=cache", "file"]);
                command.arg(place.file).arg("cache=writeback");
                command
                    .arg(format!("cache-max-size={}", place.cache_size))
                    .env("TMPDIR", place.folder);
            }
            Kind::QemuWriteback => self.qemu(command, place, address, "writeback"),
            Kind::QemuNone => self.qemu(command, place, address, "none"),
            Kind::Weir | Kind::WeirArmed | Kind::Baseline => {
                command
                    .arg("serve")
                    .arg(place.file)
                    .args(["--size", &size, "--no-admin"])
                    .args(["--max-connections", CONNECTIONS_MAX]);
                command.args(["--listen", &address.to_string()]);
                command.args(["--cache-size", &place.cache_size.to_string()]);
                if self.kind == Kind::WeirArmed {
                    command.args(["--fault", UNMATCHED_RULE]);
                }
            }
            Kind::RawThreads | Kind::RawUring => unreachable!("raw access has no server"),
        }
    }

    fn qemu(&self, command: &mut Command, place: &Place<'_>, address: &Address, cache: &str) {
        match address {
            Address::Unix(path) => command.arg("-k").arg(path),
            Address::Tcp(address) => command.args([
                "-b",
                &address.ip().to_string(),
                "-p",
                &address.port().to_string(),
            ]),
        };
        command.args(["-f", "raw", "-t", "-e", CONNECTIONS_MAX, "--discard=unmap"]);
        command
            .arg(format!("--cache={cache}"))
            .arg(format!("--aio={}", self.aio))
            .arg(place.file);
    }
}

fn reference(subcommand: &str, command: &mut Command, size: &str, address: &Address) {
    command.args([subcommand, "--size", size, "--listen", &address.to_string()]);
}

fn nbdkit(command: &mut Command, address: &Address, plugin: &[&str]) {
    match address {
        Address::Unix(path) => command.arg("-f").arg("-U").arg(path),
        Address::Tcp(address) => command.args([
            "-f",
            "-i",
            &address.ip().to_string(),
            "-p",
            &address.port().to_string(),
        ]),
    };
    command.args(plugin);
}
