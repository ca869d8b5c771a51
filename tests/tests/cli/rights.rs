//! Who may do what: the modes of what is made, and what commands inherit.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use weir_tests::process::{Finished, run};
use weir_tests::server::{ServerBuilder, weir, weir_in};

/// For what is waited for; far above what it takes.
const SOON: Duration = Duration::from_secs(20);

fn folder() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix("weir-cli-")
        .tempdir()
        .expect("a temporary folder")
}

fn mode(path: &Path) -> u32 {
    let metadata = fs::metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    metadata.permissions().mode() & 0o7777
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn an_image_is_its_owners_and_a_socket_whose_it_is_said_to_be() {
    let dir = folder();
    let socket = dir.path().join("weir.sock");
    for said in ["0660", "0600", "0666"] {
        let builder = ServerBuilder::new(dir.path()).option("--socket-mode", said);
        let server = builder.admin().start();
        assert_eq!(format!("{:04o}", mode(&socket)), said);
        assert_eq!(mode(&dir.path().join("admin.sock")), 0o600);
        server.assert_serving();
        server.stop_clean();
    }
    assert_eq!(mode(&dir.path().join("weir.img")), 0o600);
    let words = ["serve", "memory:1M", "--socket-mode", "rw"];
    let done = weir_in(dir.path(), words).expect_code(2);
    assert!(done.stderr.contains("0660"), "{}", done.stderr);
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_token_that_everybody_can_read_is_refused_by_both_ends() {
    let dir = folder();
    let token = dir.path().join("token");
    fs::write(&token, "secret\n").expect("a file");
    fs::set_permissions(&token, Permissions::from_mode(0o644)).expect("a mode");
    let file = token.to_str().expect("a plain path");
    for words in [
        &[
            "serve",
            "memory:1M",
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
        ][..],
        &["status", "--admin", "127.0.0.1:1"],
    ] {
        let words = [words, &["--admin-token-file", file]].concat();
        let done = weir_in(dir.path(), words).expect_code(1);
        assert!(done.stderr.contains("chmod 600"), "{}", done.stderr);
        assert_eq!(done.stderr.lines().count(), 1, "{}", done.stderr);
    }
}

/// What a command tells of itself.
const TELL: &str =
    "grep -E '^Sig(Blk|Ign)' /proc/self/status; env | grep -E '^(NOTIFY|WATCHDOG|LISTEN)'; true";

/// As a service is started.
fn as_a_service(command: &mut Command) -> &mut Command {
    command
        .env("NOTIFY_SOCKET", "/nonexistent/notify")
        .env("WATCHDOG_USEC", "60000000")
        .env("WATCHDOG_PID", "1")
        .env("LISTEN_FDNAMES", "admin")
}

#[track_caller]
fn assert_like_at_home(done: &Finished, home: &Finished) {
    let told = |done: &Finished| {
        let lines = done.stdout.lines();
        let told: Vec<_> = lines
            .filter(|line| {
                ["Sig", "NOTIFY", "WATCHDOG", "LISTEN"]
                    .iter()
                    .any(|word| line.starts_with(word))
            })
            .map(str::to_owned)
            .collect();
        told
    };
    assert_eq!(told(home).len(), 2, "{}", home.stdout);
    assert_eq!(told(done), told(home));
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn commands_inherit_nothing_that_is_the_servers_own() {
    let dir = folder();
    let home = run(Command::new("sh").args(["-c", TELL]), SOON).expect_code(0);
    let listen = format!("unix:{}", dir.path().join("s").display());
    let mut serve = Command::new(weir());
    serve
        .args(["serve", "memory:1M", "--no-admin", "--listen", &listen])
        .args(["--run", TELL])
        .current_dir(dir.path());
    let done = run(as_a_service(&mut serve), SOON).expect_code(0);
    assert_like_at_home(&done, &home);

    let server = ServerBuilder::new(dir.path())
        .arg("memory:1M")
        .admin()
        .start();
    let words = ["inject", "PageCache::flush", "--", "sh", "-c", TELL];
    let mut inject = server.control_command(words);
    let done = run(as_a_service(&mut inject), SOON).expect_code(0);
    assert_like_at_home(&done, &home);
    server.stop_clean();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn clients_leave_descriptors_for_the_admin_port() {
    let dir = folder();
    let limit = ["sh", "-c", "ulimit -n 400; exec \"$@\"", "sh"];
    let server = ServerBuilder::new(dir.path())
        .arg("memory:1M")
        .option("--max-connections", 5000)
        .wrapper(limit)
        .admin()
        .start();
    // All that the process may have, if it gave that away.
    let clients: Vec<_> = (0..400).map(|_| server.socket()).collect();
    for _ in 0..3 {
        server.control(["status"]).expect_code(0);
    }
    assert!(server.open_files() < 400 - 100, "{}", server.open_files());
    drop(clients);
    let done = server.stop_clean();
    for part in ["--max-connections", "LimitNOFILE"] {
        assert!(done.stderr.contains(part), "{part}: {}", done.stderr);
    }
}
