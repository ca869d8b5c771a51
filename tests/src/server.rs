//! Starting `weir serve`: the one place that knows where the program is and what it prints.
//!
//! The program is `$WEIR_BIN`, or `weir` beside the folder of the running test (`target/<profile>/weir`).

use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::client::{Client, Options, Socket};
use crate::process::{Finished, Memory, Process, run};

/// How long a server may take until it listens; it only has to open its files.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a clean stop may take, flush included.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// The program under test.
///
/// # Panics
/// When there is none: it says how to make one.
#[must_use]
pub fn weir() -> PathBuf {
    let path = std::env::var_os("WEIR_BIN").map_or_else(
        || {
            let test = std::env::current_exe().expect("the running test has a path");
            test.ancestors()
                .nth(2)
                .expect("target/<profile>/deps/<test>")
                .join("weir")
        },
        PathBuf::from,
    );
    assert!(
        path.is_file(),
        "{} is missing: run tests/run, or build weir and set WEIR_BIN",
        path.display()
    );
    path.canonicalize().expect("it exists")
}

/// Runs `weir` with these arguments to its end, in `dir`.
#[track_caller]
pub fn weir_in<A: AsRef<OsStr>>(dir: &Path, args: impl IntoIterator<Item = A>) -> Finished {
    run(
        Command::new(weir()).args(args).current_dir(dir),
        START_TIMEOUT,
    )
}

/// What to serve and how. Without [`ServerBuilder::listen`] it is a Unix socket in the server's own folder.
#[derive(Debug)]
pub struct ServerBuilder {
    dir: PathBuf,
    args: Vec<OsString>,
    listen: Vec<String>,
    admin: Option<String>,
    file_size_limit: Option<u64>,
    wrapper: Vec<OsString>,
}

impl ServerBuilder {
    /// A server with its working folder and socket in `dir`.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            args: Vec::new(),
            listen: Vec::new(),
            admin: None,
            file_size_limit: None,
            wrapper: Vec::new(),
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds an option and its value.
    #[must_use]
    pub fn option(self, name: &str, value: impl Display) -> Self {
        self.arg(name).arg(value.to_string())
    }

    /// Serves `path` as the default export, created with `size` where it is missing.
    #[must_use]
    pub fn file(self, path: &Path, size: impl Display) -> Self {
        self.arg(path).option("--size", size)
    }

    /// Listens on `address` too (`127.0.0.1:0`, `unix:PATH`).
    #[must_use]
    pub fn listen(mut self, address: impl Display) -> Self {
        self.listen.push(address.to_string());
        self
    }

    /// Opens the admin port, on a Unix socket in the server's own folder.
    #[must_use]
    pub fn admin(self) -> Self {
        let socket = self.dir.join("admin.sock");
        self.admin_at(format!("unix:{}", socket.display()))
    }

    /// Opens the admin port at `address`.
    #[must_use]
    pub fn admin_at(mut self, address: impl Display) -> Self {
        self.admin = Some(address.to_string());
        self
    }

    /// Makes writes past `bytes` in any file fail with EFBIG, as RLIMIT_FSIZE does; the server has to deal with the
    /// SIGXFSZ that comes with it.
    #[must_use]
    pub fn file_size_limit(mut self, bytes: u64) -> Self {
        self.file_size_limit = Some(bytes);
        self
    }

    /// Runs the server through another program, for example `unshare -rm sh -c '...; exec "$@"' sh`.
    #[must_use]
    pub fn wrapper<A: AsRef<OsStr>>(mut self, words: impl IntoIterator<Item = A>) -> Self {
        self.wrapper = words.into_iter().map(|w| w.as_ref().to_owned()).collect();
        self
    }

    /// Starts it and waits until it says that it listens.
    ///
    /// # Panics
    /// When it does not listen in time.
    #[track_caller]
    #[must_use]
    pub fn start(mut self) -> Server {
        if self.listen.is_empty() {
            self.listen
                .push(format!("unix:{}", self.dir.join("weir.sock").display()));
        }
        let mut process = Process::start(&mut self.command());
        let uris: Vec<String> = self
            .listen
            .iter()
            .map(|address| {
                let line = process.line(START_TIMEOUT);
                let uri = line
                    .split_whitespace()
                    .next()
                    .unwrap_or_default()
                    .to_owned();
                let scheme = if address.starts_with("unix:") {
                    "nbd+unix://"
                } else {
                    "nbd://"
                };
                assert!(
                    uri.starts_with(scheme),
                    "no {scheme} URI at the start of {line:?}"
                );
                uri
            })
            .collect();
        let admin = self.admin.map(|_| {
            let line = process.line(START_TIMEOUT);
            let url = line
                .strip_prefix("admin ")
                .and_then(|rest| rest.split_whitespace().next());
            url.unwrap_or_else(|| panic!("not an admin line: {line:?}"))
                .to_owned()
        });
        Server {
            process,
            uris,
            admin,
            dir: self.dir,
        }
    }

    fn command(&self) -> Command {
        let mut words: Vec<OsString> = Vec::new();
        if let Some(bytes) = self.file_size_limit {
            // The shell's unit is 512 bytes.
            let script = format!("ulimit -f {}; exec \"$@\"", bytes / 512);
            words.extend(["sh", "-c", &script, "sh"].map(OsString::from));
        }
        words.extend(self.wrapper.iter().cloned());
        words.push(weir().into_os_string());
        words.push("serve".into());
        words.extend(self.args.iter().cloned());
        for address in &self.listen {
            words.extend([OsString::from("--listen"), address.into()]);
        }
        match &self.admin {
            Some(address) => words.extend([OsString::from("--admin"), address.into()]),
            None => words.push("--no-admin".into()),
        }
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).current_dir(&self.dir);
        command
    }
}

/// A running `weir serve`. Dropping it kills it.
#[derive(Debug)]
pub struct Server {
    process: Process,
    uris: Vec<String>,
    admin: Option<String>,
    dir: PathBuf,
}

impl Server {
    /// The URI of an export on the first address.
    #[must_use]
    pub fn uri(&self, export: &str) -> String {
        self.uri_at(0, export)
    }

    /// The URI of an export on the address with this index.
    ///
    /// # Panics
    /// When there is no such address.
    #[must_use]
    pub fn uri_at(&self, index: usize, export: &str) -> String {
        let uri = &self.uris[index];
        match uri.split_once('?') {
            Some((base, query)) => format!(
                "{}/{export}?{query}",
                base.strip_suffix('/').unwrap_or(base)
            ),
            None => format!("{}/{export}", uri.strip_suffix('/').unwrap_or(uri)),
        }
    }

    /// The TCP port of the first address.
    ///
    /// # Panics
    /// When that is not a TCP address.
    #[must_use]
    pub fn port(&self) -> u16 {
        let (_, port) = self.uris[0]
            .trim_end_matches('/')
            .rsplit_once(':')
            .expect("a TCP address");
        port.parse()
            .unwrap_or_else(|e| panic!("{}: {e}", self.uris[0]))
    }

    /// `http://HOST:PORT` or `unix:PATH` of the admin port.
    ///
    /// # Panics
    /// When the server was started without one.
    #[must_use]
    pub fn admin(&self) -> &str {
        self.admin.as_deref().expect("started with an admin port")
    }

    /// Runs a `weir` subcommand against this server's admin port.
    #[track_caller]
    pub fn control<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Finished {
        run(&mut self.control_command(args), START_TIMEOUT)
    }

    /// A `weir` subcommand against this server's admin port, not started yet.
    #[must_use]
    pub fn control_command<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new(weir());
        command
            .args(args)
            .env("WEIR_ADMIN", self.admin())
            .current_dir(&self.dir);
        command
    }

    /// A connected socket that has sent and read nothing.
    ///
    /// # Panics
    /// When it can't connect.
    #[track_caller]
    #[must_use]
    pub fn socket(&self) -> Socket {
        Socket::connect(&self.uris[0])
    }

    /// A client of the default export, with structured replies.
    #[track_caller]
    #[must_use]
    pub fn client(&self) -> Client {
        self.client_with(&Options::default())
    }

    /// A client that negotiates `options`.
    #[track_caller]
    #[must_use]
    pub fn client_with(&self, options: &Options) -> Client {
        Client::negotiate(self.socket(), options)
    }

    /// Resident memory of the server.
    #[must_use]
    pub fn memory(&self) -> Memory {
        self.process.memory_kib()
    }

    /// How many descriptors the server has open.
    #[must_use]
    pub fn open_files(&self) -> usize {
        self.process.open_files()
    }

    /// Panics unless the server runs and serves a new client.
    #[track_caller]
    pub fn assert_serving(&self) {
        assert!(
            self.process.is_running(),
            "the server is gone:\n{}",
            self.process.stderr()
        );
        let mut client = self.client();
        client
            .read(0, 512)
            .unwrap_or_else(|e| panic!("a READ of the first sector failed: {e:?}"));
        client.disconnect();
    }

    /// The server's process id.
    #[must_use]
    pub fn pid(&self) -> nix::unistd::Pid {
        self.process.pid()
    }

    /// What the server has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.stderr()
    }

    /// Sends it a signal.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(self) -> Finished {
        self.process.wait(STOP_TIMEOUT)
    }

    /// SIGTERM, and waits for the end.
    #[track_caller]
    pub fn stop(self) -> Finished {
        self.signal(Signal::SIGTERM);
        self.wait()
    }

    /// SIGTERM; panics unless the server then ends with 0.
    #[track_caller]
    pub fn stop_clean(self) -> Finished {
        self.stop().expect_code(0)
    }

    /// SIGKILL, and waits until it is gone.
    #[track_caller]
    pub fn kill(self) {
        self.process.signal(Signal::SIGKILL);
        drop(self.process.wait(STOP_TIMEOUT));
    }
}
