//! As a service of a service manager: sockets that are handed over, and the watchdog.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use weir_tests::process::{Process, run};
use weir_tests::server::weir;

/// For what is waited for; far above what it takes.
const SOON: Duration = Duration::from_secs(20);

/// Becomes the program behind `--`, with descriptors from 3 on as the words before it say: NAME=unix:MODE:PATH,
/// NAME=pair (a connected stream), NAME=datagram:PATH, NAME=file:PATH or NAME=unbound.
const HAND_OVER: &str = r#"
import fcntl, os, socket, sys
end = sys.argv.index("--")
kept, names = [], []
for word in sys.argv[1:end]:
    name, what = word.split("=", 1)
    kind, *rest = what.split(":")
    if kind == "unix":
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.bind(rest[1])
        os.chmod(rest[1], int(rest[0], 8))
        made.listen(8)
    elif kind == "pair":
        made, other = socket.socketpair()
        kept.append(other)
    elif kind == "unbound":
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    elif kind == "datagram":
        made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        made.bind(rest[0])
    else:
        made = open(rest[0], "w")
    names.append((name, fcntl.fcntl(made.fileno(), fcntl.F_DUPFD, 100)))
for index, (_, descriptor) in enumerate(names):
    os.dup2(descriptor, 3 + index, inheritable=True)
os.environ["LISTEN_PID"] = str(os.getpid())
os.environ["LISTEN_FDS"] = str(len(names))
os.environ["LISTEN_FDNAMES"] = ":".join(name for name, _ in names)
os.execv(sys.argv[end + 1], sys.argv[end + 1:])
"#;

fn folder() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix("weir-cli-")
        .tempdir()
        .expect("a temporary folder")
}

/// `weir serve WORDS` with these sockets.
fn service(dir: &Path, sockets: &[&str], words: &[&str]) -> Command {
    let mut command = Command::new("/usr/bin/python3");
    command
        .args(["-c", HAND_OVER])
        .args(sockets)
        .arg("--")
        .arg(weir())
        .arg("serve")
        .args(words)
        .env("XDG_RUNTIME_DIR", dir)
        .env_remove("RUNTIME_DIRECTORY")
        .env_remove("WEIR_ADMIN")
        .current_dir(dir);
    command
}

fn control(dir: &Path, admin: &str, words: &[&str]) -> Command {
    let mut command = Command::new(weir());
    command
        .args(words)
        .args(["--admin", admin])
        .current_dir(dir);
    command
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_socket_called_admin_is_the_admin_port() {
    for (mode, changes) in [("600", true), ("660", true), ("666", false)] {
        let dir = folder();
        let admin = format!("admin=unix:{mode}:{}", dir.path().join("a").display());
        let nbd = format!("disks=unix:600:{}", dir.path().join("n").display());
        let mut process = Process::start(&mut service(dir.path(), &[&admin, &nbd], &["memory:1M"]));
        let uri = process.line(SOON);
        assert!(
            uri.starts_with("nbd+unix://") && uri.ends_with("/n"),
            "{uri}"
        );
        let line = process.line(SOON);
        let at = line.strip_prefix("admin ").expect("an admin line");
        assert_eq!(at, format!("unix:{}", dir.path().join("a").display()));
        run(&mut control(dir.path(), at, &["status"]), SOON).expect_code(0);
        let rule = ["fault", "add", "read", "error=EIO"];
        let done = run(&mut control(dir.path(), at, &rule), SOON);
        assert_eq!(done.status.success(), changes, "{mode}: {}", done.stderr);
        process.signal(Signal::SIGTERM);
        process.wait(SOON).expect_code(0);
        // They are the service manager's.
        assert!(dir.path().join("a").exists() && dir.path().join("n").exists());
    }
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn wrong_descriptors_are_refused_before_an_export_is_open() {
    let dir = folder();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let good = format!("disks=unix:600:{}", path("n"));
    let admin = format!("admin=unix:600:{}", path("a"));
    let again = format!("admin=unix:600:{}", path("b"));
    let datagram = format!("admin=datagram:{}", path("d"));
    let file = format!("x=file:{}", path("f"));
    for (sockets, words, part) in [
        (&[&good[..], "c=pair"][..], &[][..], "doesn't listen"),
        (&["admin=pair"], &[], "doesn't listen"),
        (&["x=unbound"], &[], "doesn't listen"),
        (&[&datagram], &[], "socket unit"),
        (&[&file], &[], "socket unit"),
        (&[&admin, &again], &[], "two sockets"),
        (&[&admin], &["--no-admin"], "--no-admin"),
        (&[&admin], &["--admin", "127.0.0.1:0"], "--admin"),
    ] {
        let done = run(&mut service(dir.path(), sockets, words), SOON).expect_code(1);
        assert!(done.stderr.contains(part), "{sockets:?}: {}", done.stderr);
        assert_eq!(done.stderr.lines().count(), 1, "{}", done.stderr);
        assert!(!dir.path().join("weir.img").exists());
        for name in ["n", "a", "b", "d", "f"] {
            drop(std::fs::remove_file(dir.path().join(name)));
        }
    }
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn the_watchdog_is_fed_from_the_start_to_the_end() {
    let dir = folder();
    let socket = UnixDatagram::bind(dir.path().join("notify")).expect("a socket");
    socket.set_read_timeout(Some(SOON)).expect("a timeout");
    let limit = Duration::from_secs(2);
    let mut command = Command::new(weir());
    command
        .args([
            "serve",
            "memory:1M",
            "--no-admin",
            "--listen",
            "127.0.0.1:0",
        ])
        .env("NOTIFY_SOCKET", dir.path().join("notify"))
        .env("WATCHDOG_USEC", limit.as_micros().to_string())
        .env_remove("WATCHDOG_PID")
        .current_dir(dir.path());
    let process = Process::start(&mut command);
    let next = || {
        let mut text = [0; 256];
        let length = socket.recv(&mut text).expect("a word");
        String::from_utf8_lossy(&text[..length]).trim().to_owned()
    };
    let mut fed = 0;
    let mut ready = false;
    let mut last = Instant::now();
    while fed < 4 {
        match &next()[..] {
            "READY=1" => ready = true,
            "WATCHDOG=1" => {
                // The very first may come before the start is over.
                assert!(fed == 0 || last.elapsed() < limit, "too late");
                last = Instant::now();
                fed += 1;
            }
            word => panic!("{word}"),
        }
    }
    assert!(ready);
    process.signal(Signal::SIGTERM);
    while next() != "STOPPING=1" {}
    process.wait(SOON).expect_code(0);
}
