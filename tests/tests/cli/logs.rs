//! The log: nobody waits for it, and no flood fills it.

use std::io::{PipeReader, Read as _};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use weir_tests::client::{Client, Options, Socket};
use weir_tests::process::eventually;
use weir_tests::server::{ServerBuilder, weir};

use crate::folder;

/// A pipe that is full after a few lines.
const PIPE_BYTES: i32 = 4096;
/// More lines than such a pipe and all that is buffered hold: each connection logs two.
const CONNECTIONS: usize = 400;
/// Longer than a start, a stop and a reply take.
const SOON: Duration = Duration::from_secs(30);

/// A child that dies with the test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A server whose standard error is a pipe that nobody reads.
fn unread(dir: &Path, level: &str) -> (Killed, String, PipeReader) {
    let (stderr, pipe) = std::io::pipe().expect("a pipe");
    fcntl(pipe.as_fd(), FcntlArg::F_SETPIPE_SZ(PIPE_BYTES)).expect("a small pipe");
    let socket = dir.join("s").display().to_string();
    let child = Command::new(weir())
        .args(["serve", "memory:1M", "--listen", &format!("unix:{socket}")])
        .args(["--admin", &format!("unix:{}", dir.join("admin").display())])
        .env("RUST_LOG", level)
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(pipe)
        .spawn()
        .expect("weir");
    let child = Killed(child);
    let uri = format!("nbd+unix:///?socket={socket}");
    eventually("the server listens", SOON, || {
        std::os::unix::net::UnixStream::connect(&socket).is_ok()
    });
    (child, uri, stderr)
}

/// Waits for the end of `child`; panics when it doesn't come.
fn end_of(mut child: Killed) -> std::process::ExitStatus {
    let mut ended = None;
    eventually("SIGTERM is obeyed", SOON, || {
        ended = child.0.try_wait().expect("our child");
        ended.is_some()
    });
    ended.expect("it has ended")
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_standard_error_that_nobody_reads_holds_up_neither_clients_nor_the_admin_port_nor_a_stop() {
    let dir = folder();
    let (child, uri, mut stderr) = unread(dir.path(), "info,weir=trace");
    for _ in 0..CONNECTIONS {
        let mut client = Client::negotiate(Socket::connect(&uri), &Options::default());
        client.read(0, 512).expect("a READ");
        client.disconnect();
    }
    let admin = format!("unix:{}", dir.path().join("admin").display());
    let status = weir_tests::server::weir_in(dir.path(), ["status", "--admin", &admin]);
    let status = status.expect_code(0).stdout;
    kill(Pid::from_raw(child.0.id().cast_signed()), Signal::SIGTERM).expect("our child");
    assert_eq!(end_of(child).code(), Some(0));
    let mut text = String::new();
    stderr.read_to_string(&mut text).expect("what fitted");
    assert!(text.lines().count() > 1, "{text}");
    assert!(status.contains("memory:1M"), "{status}");
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_crowd_of_connections_is_some_lines_and_a_count() {
    let dir = folder();
    let server = ServerBuilder::new(dir.path()).arg("memory:1M").start();
    for _ in 0..CONNECTIONS {
        server.client().disconnect();
    }
    let done = server.stop_clean();
    let opened = done.stderr.matches("connection opened connection=").count();
    assert!((1..CONNECTIONS).contains(&opened), "{opened} lines");
    let counts = done.stderr.lines().filter_map(|line| {
        let count = line.split_once("... and ")?.1;
        let count = count.split_once(" more like \"connection opened\"")?.0;
        count.parse::<usize>().ok()
    });
    assert_eq!(
        opened + counts.sum::<usize>(),
        CONNECTIONS,
        "{}",
        done.stderr
    );
    assert!(done.stderr.contains("SIGTERM: stopping"), "{}", done.stderr);
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_refusal_is_one_line_and_the_last() {
    let dir = folder();
    for quiet in ["-v", "-qq"] {
        let words = [
            "serve",
            "missing.img",
            "--no-admin",
            "--listen",
            "127.0.0.1:0",
        ];
        let done = weir_tests::server::weir_in(dir.path(), words.into_iter().chain([quiet]));
        let done = done.expect_code(1);
        let last = done.stderr.lines().last().expect("a line");
        assert!(
            last.starts_with("weir: ") && last.contains("missing.img"),
            "{}",
            done.stderr
        );
    }
}
