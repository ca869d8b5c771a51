//! What a newcomer reads after a mistake, and in the log: what to do next, and nothing that isn't so.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::{fs, iter};

use weir_tests::process::{Finished, run};
use weir_tests::server::{Server, ServerBuilder, weir, weir_in};

use crate::folder;

/// Longer than any of it takes.
const SOON: Duration = Duration::from_secs(30);

/// Of `nobody`, who owns nothing.
const NOBODY: u32 = 65534;

fn server(dir: &Path) -> Server {
    ServerBuilder::new(dir)
        .file(&dir.join("x.img"), "8M")
        .admin_at(format!("unix:{}", dir.join("admin.sock").display()))
        .start()
}

/// `weir serve SOURCE` without any port that others use.
fn serve(dir: &Path, words: &[&str]) -> Finished {
    let listen = ["--no-admin", "--listen", "127.0.0.1:0"];
    weir_in(dir, iter::once(&"serve").chain(words).chain(&listen))
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_misspelt_kind_of_source_is_not_taken_for_a_missing_file_alone() {
    let dir = folder();
    for (words, hint) in [
        (&["memroy:1M"][..], true),
        (&["--export", "db=memroy:1M"], true),
        (&["file:a.img"], false),
        (&["./a:b.img"], false),
    ] {
        let said = serve(dir.path(), words).expect_code(1).stderr;
        assert!(said.contains("doesn't exist"), "{said}");
        assert_eq!(said.contains("memory:SIZE"), hint, "{words:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    assert_eq!(fs::read_dir(dir.path()).expect("ours").count(), 0);
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_socket_path_that_is_too_long_is_refused_with_the_limit() {
    let dir = folder();
    let listen = format!("unix:{}", dir.path().join("x".repeat(120)).display());
    let words = ["serve", "memory:1M", "--no-admin", "--listen", &listen];
    let said = weir_in(dir.path(), words).expect_code(1).stderr;
    assert!(said.contains("107 bytes at most"), "{said}");
    assert!(!said.contains("SUN_LEN"), "{said}");
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn what_another_user_may_not_do_is_refused_with_what_would_help() {
    if fs::metadata("/proc/self").expect("/proc").uid() != 0 {
        // Only root can become another user.
        return;
    }
    let dir = folder();
    let image = dir.path().join("x.img");
    fs::write(&image, [0; 4096]).expect("an image");
    // The program may be where nobody else can go.
    let program = dir.path().join("weir");
    fs::copy(weir(), &program).expect("a copy");
    for (path, mode) in [(dir.path(), 0o755), (&*image, 0o600), (&*program, 0o755)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("ours");
    }
    for (words, hint) in [
        (
            &["new.img", "--size", "1M"][..],
            "change who may write its folder",
        ),
        (&["x.img", "--read-only"], "change who may read it"),
        (&["x.img"], "change who may write it"),
    ] {
        let mut command = Command::new(&program);
        command
            .arg("serve")
            .args(words)
            .args(["--no-admin", "--listen", "127.0.0.1:0"])
            .current_dir(dir.path())
            .uid(NOBODY)
            .gid(NOBODY);
        let said = run(&mut command, SOON).expect_code(1).stderr;
        assert!(said.contains("Permission denied"), "{said}");
        assert!(said.contains(hint), "{words:?}: {said}");
    }
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn the_log_says_what_was_done_to_a_device_and_no_more() {
    let dir = folder();
    let server = server(dir.path());
    let told = |words: &[&str]| server.control(words.iter().copied());
    let refused = told(&["device", "bad", "", "add", "8M..9M"])
        .expect_code(1)
        .stderr;
    assert!(refused.contains("beyond the end"), "{refused}");
    assert!(refused.contains("8388608 bytes (8M)"), "{refused}");
    drop(told(&["device", "bad", "", "add", "7M..9M"]).expect_code(0));
    drop(told(&["device", "freeze", ""]).expect_code(0));
    drop(told(&["device", "thaw", ""]).expect_code(0));
    drop(told(&["fault", "add", "write", "error=EIO"]).expect_code(0));
    drop(told(&["fault", "rm", "1"]).expect_code(0));
    drop(told(&["fault", "clear"]).expect_code(0));
    drop(told(&["point", "set", "class", "nonsense", "enable"]).expect_code(1));
    let set = told(&["point", "set", "class", "cache:flush:snapshot", "enable"]).expect_code(0);
    assert_eq!(set.stdout, "1 point set\n");
    drop(told(&["point", "reset"]).expect_code(0));
    let log = server.stop_clean().stderr;
    for part in [
        "export \"\": bad sectors 7M..9M",
        "export \"\": frozen, and its clients wait",
        "export \"\": thawed",
        "fault rule 1: removed",
        "fault rules: all 0 removed",
        "fault points: class cache:flush:snapshot enable (1 concerned)",
    ] {
        assert!(log.contains(part), "{part}: {log}");
    }
    for part in ["8M..9M", "nonsense"] {
        assert!(!log.contains(part), "{part}: {log}");
    }
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_quota_that_is_used_up_is_in_the_log_of_the_start() {
    let dir = folder();
    fs::write(dir.path().join("x.img"), vec![7; 4 << 20]).expect("an image");
    for (quota, pointed_out) in [("1M", true), ("8M", false)] {
        let builder = ServerBuilder::new(dir.path()).arg(dir.path().join("x.img"));
        let log = builder.option("--quota", quota).start().stop_clean().stderr;
        let said = log.contains("are allocated already, and the quota is");
        assert_eq!(said, pointed_out, "{quota}: {log}");
    }
}
