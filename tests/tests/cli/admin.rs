//! Where the admin port is when nobody says it, how the commands find it, and what it takes to change things.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use weir_tests::process::{Finished, Process, run};
use weir_tests::server::weir;

/// For what is waited for; far above what it takes.
const SOON: Duration = Duration::from_secs(20);

fn folder() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix("weir-cli-")
        .tempdir()
        .expect("a temporary folder")
}

/// `weir WORDS` as by a user whose session's folder is `dir`.
fn command(dir: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(weir());
    command
        .args(words)
        .env("XDG_RUNTIME_DIR", dir)
        .env_remove("RUNTIME_DIRECTORY")
        .env_remove("WEIR_ADMIN")
        .env_remove("WEIR_ADMIN_TOKEN_FILE")
        .current_dir(dir);
    command
}

fn control(dir: &Path, words: &[&str]) -> Finished {
    run(&mut command(dir, words), SOON)
}

/// A server, and what it says about its admin port.
fn serve(dir: &Path, words: &[&str]) -> (Process, String) {
    let words = [&["serve", "memory:1M", "--listen", "127.0.0.1:0"], words].concat();
    let mut process = Process::start(&mut command(dir, &words));
    assert!(process.line(SOON).starts_with("nbd://"));
    let line = process.line(SOON);
    let admin = line.strip_prefix("admin ");
    let admin = admin.unwrap_or_else(|| panic!("{line:?}")).to_owned();
    (process, admin)
}

fn stop(process: Process) {
    process.signal(Signal::SIGTERM);
    process.wait(SOON).expect_code(0);
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn servers_of_one_user_are_found_and_told_apart() {
    let dir = folder();
    let (first, one) = serve(dir.path(), &[]);
    let socket = dir.path().join("weir/admin.sock");
    assert_eq!(one, format!("unix:{}", socket.display()));
    let mode = |path: &Path| {
        fs::metadata(path)
            .expect("it is there")
            .permissions()
            .mode()
            & 0o7777
    };
    assert_eq!(mode(&socket), 0o600);
    assert_eq!(mode(&dir.path().join("weir")), 0o700);
    control(dir.path(), &["fault", "add", "read", "error=EIO"]).expect_code(0);
    control(dir.path(), &["fault", "clear"]).expect_code(0);

    let (second, two) = serve(dir.path(), &[]);
    let own = format!("weir/admin-{}.sock", second.pid());
    assert_eq!(two, format!("unix:{}", dir.path().join(own).display()));
    let done = control(dir.path(), &["status"]).expect_code(1);
    for part in [&one[..], &two, "--admin"] {
        assert!(done.stderr.contains(part), "{part}: {}", done.stderr);
    }
    let done = control(dir.path(), &["status", "--admin", &two]).expect_code(0);
    let pid = format!("process {}", second.pid());
    assert!(done.stdout.contains(&pid), "{}", done.stdout);

    // A killed one leaves a socket behind, which is neither asked nor in the way.
    first.signal(Signal::SIGKILL);
    drop(first.wait(SOON));
    assert!(socket.exists());
    let done = control(dir.path(), &["status"]).expect_code(0);
    assert!(done.stdout.contains(&pid), "{}", done.stdout);
    let (third, three) = serve(dir.path(), &[]);
    assert_eq!(three, one);
    stop(third);
    stop(second);
    // Where no other server is: this machine's may answer from the places that are looked at next.
    let Some(unshare) = crate::full_disk::unshare() else {
        println!("skipped: this machine gives users no namespaces, and this user isn't root");
        return;
    };
    let mut outside = Command::new(unshare[0]);
    outside
        .args([unshare[1], "sh", "-c"])
        .arg(r#"mount -t tmpfs none /run && exec "$0" status"#)
        .arg(weir())
        .env("XDG_RUNTIME_DIR", dir.path())
        .env_remove("RUNTIME_DIRECTORY")
        .env_remove("WEIR_ADMIN")
        .env_remove("WEIR_ADMIN_TOKEN_FILE");
    let done = run(&mut outside, SOON).expect_code(1);
    let folder = dir.path().join("weir").display().to_string();
    for part in [&folder[..], "--no-admin", "--admin"] {
        assert!(done.stderr.contains(part), "{part}: {}", done.stderr);
    }
    assert_eq!(done.stderr.lines().count(), 1, "{}", done.stderr);
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn the_service_managers_folder_comes_first() {
    let dir = folder();
    let folder = dir.path().join("service");
    fs::create_dir(&folder).expect("a folder");
    let words = ["serve", "memory:1M", "--listen", "127.0.0.1:0"];
    let mut service = command(dir.path(), &words);
    let mut process = Process::start(service.env("RUNTIME_DIRECTORY", &folder));
    process.line(SOON);
    let expected = format!("admin unix:{}", folder.join("admin.sock").display());
    assert_eq!(process.line(SOON), expected);
    let mut status = command(dir.path(), &["status"]);
    run(status.env("RUNTIME_DIRECTORY", &folder), SOON).expect_code(0);
    stop(process);
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn over_tcp_what_changes_something_takes_the_token() {
    let dir = folder();
    let (server, admin) = serve(dir.path(), &["--admin", "127.0.0.1:0"]);
    assert!(admin.starts_with("http://127.0.0.1:"), "{admin}");
    let at = ["--admin", &admin];
    let on_it = |words: &[&str]| control(dir.path(), &[words, &at].concat());
    on_it(&["status"]).expect_code(0);
    for words in [
        &["fault", "add", "any", "error=EIO"][..],
        &["fault", "clear"],
        &["export", "resize", "--shrink", "", "512k"],
        &["device", "offline", ""],
        &["point", "reset"],
        &["connection", "kill", "1"],
    ] {
        let done = on_it(words).expect_code(1);
        assert!(
            done.stderr.contains("--admin-token-file"),
            "{}",
            done.stderr
        );
    }
    let done = on_it(&["fault", "list", "--json"]).expect_code(0);
    assert_eq!(done.stdout.trim(), "[]");
    server.signal(Signal::SIGTERM);
    let done = server.wait(SOON).expect_code(0);
    assert!(
        done.stderr.contains("--admin-token-file"),
        "{}",
        done.stderr
    );

    let token = dir.path().join("token");
    fs::write(&token, "secret\n").expect("a file");
    fs::set_permissions(&token, Permissions::from_mode(0o600)).expect("a mode");
    let file = token.to_str().expect("a plain path");
    let words = ["--admin", "127.0.0.1:0", "--admin-token-file", file];
    let (server, admin) = serve(dir.path(), &words);
    let rule = ["fault", "add", "read", "error=EIO", "--admin", &admin];
    control(dir.path(), &rule).expect_code(1);
    run(
        command(dir.path(), &rule).env("WEIR_ADMIN_TOKEN_FILE", &token),
        SOON,
    )
    .expect_code(0);
    stop(server);
}
