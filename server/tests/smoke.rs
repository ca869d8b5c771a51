//! The program as a whole: start, handshake, write, flush, stop, start again, read.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const IHAVEOPT: u64 = 0x4948_4156_454F_5054;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const OPT_EXPORT_NAME: u32 = 1;
const FIXED_NEWSTYLE_NO_ZEROES: u32 = 3;
const READ: u16 = 0;
const WRITE: u16 = 1;
const DISCONNECT: u16 = 2;
const FLUSH: u16 = 3;

/// A `weir serve` on a socket in `folder`; killed when dropped.
struct Server(Child);

impl Server {
    fn start(folder: &Path) -> Self {
        let socket = folder.join("s");
        let mut child = Command::new(env!("CARGO_BIN_EXE_weir"))
            .args([
                "serve",
                "disk.img",
                "--size",
                "1M",
                "--cache-size",
                "4M",
                "--no-admin",
            ])
            .arg("--listen")
            .arg(format!("unix:{}", socket.display()))
            .current_dir(folder)
            .stdout(Stdio::piped())
            .spawn()
            .expect("weir starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped"))
            .read_line(&mut line)
            .expect("a line");
        assert_eq!(
            line.trim_end(),
            format!("nbd+unix:///?socket={}", socket.display())
        );
        Self(child)
    }

    fn stop(mut self) -> ExitStatus {
        let pid = i32::try_from(self.0.id()).expect("a pid");
        kill(Pid::from_raw(pid), Signal::SIGTERM).expect("it runs");
        self.0.wait().expect("its status")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail after `stop`, which is as well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A client with simple replies.
struct Client(UnixStream);

impl Client {
    /// Connects to the default export; says its size.
    fn connect(folder: &Path) -> (Self, u64) {
        let mut client = Self(UnixStream::connect(folder.join("s")).expect("it listens"));
        assert_eq!(&client.take::<16>(), b"NBDMAGICIHAVEOPT");
        client.take::<2>();
        client.send(&FIXED_NEWSTYLE_NO_ZEROES.to_be_bytes());
        client.send(&IHAVEOPT.to_be_bytes());
        client.send(&OPT_EXPORT_NAME.to_be_bytes());
        client.send(&0_u32.to_be_bytes());
        let size = u64::from_be_bytes(client.take());
        client.take::<2>();
        (client, size)
    }

    fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).expect("the server reads");
    }

    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.read_exact(&mut bytes).expect("the server answers");
        bytes
    }

    fn request(&mut self, command: u16, offset: u64, length: u32, payload: &[u8]) {
        let mut request = Vec::new();
        request.extend(REQUEST_MAGIC.to_be_bytes());
        request.extend(0_u16.to_be_bytes());
        request.extend(command.to_be_bytes());
        request.extend(7_u64.to_be_bytes());
        request.extend(offset.to_be_bytes());
        request.extend(length.to_be_bytes());
        request.extend(payload);
        self.send(&request);
    }

    /// The reply's error, which must be none.
    fn expect_success(&mut self) {
        let reply = self.take::<16>();
        assert_eq!(reply[4..8], [0; 4], "no error");
        assert_eq!(reply[8..], 7_u64.to_be_bytes(), "the cookie");
    }
}

#[test]
fn what_was_flushed_is_there_after_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(folder.path());
    let (mut client, size) = Client::connect(folder.path());
    assert_eq!(size, 1 << 20);
    client.request(WRITE, 5000, 11, b"hello again");
    client.expect_success();
    client.request(READ, 4999, 13, b"");
    client.expect_success();
    assert_eq!(&client.take::<13>(), b"\0hello again\0");
    client.request(FLUSH, 0, 0, b"");
    client.expect_success();
    // Not flushed by the client: a clean stop keeps it too.
    client.request(WRITE, 0, 4, b"last");
    client.expect_success();
    client.request(DISCONNECT, 0, 0, b"");
    assert_eq!(server.stop().code(), Some(0));
    assert!(!folder.path().join("s").exists(), "the socket is removed");

    let server = Server::start(folder.path());
    let (mut client, _) = Client::connect(folder.path());
    client.request(READ, 0, 4, b"");
    client.expect_success();
    assert_eq!(&client.take::<4>(), b"last");
    client.request(READ, 5000, 11, b"");
    client.expect_success();
    assert_eq!(&client.take::<11>(), b"hello again");
    client.request(DISCONNECT, 0, 0, b"");
    assert_eq!(server.stop().code(), Some(0));
}

/// `weir serve 2>&1 | head` must not kill the server with what it logs next.
#[test]
fn nobody_has_to_read_what_it_says() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut child = Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(["serve", "memory:1M", "--cache-size", "4M", "--no-admin"])
        .args(["--run", "exit 7", "--listen", "unix:s"])
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("weir starts");
    drop((child.stdout.take(), child.stderr.take()));
    let status = child.wait().expect("its status");
    assert_eq!(status.code(), Some(7), "{status}");
}
