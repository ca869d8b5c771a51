//! The README's chapter on faults: its commands work, and its table is the program's.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use weir_tests::process::run;
use weir_tests::server::weir;

use crate::support::{Rig, SOON};

fn chapter() -> String {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = fs::read_to_string(readme).expect("the README");
    let (_, rest) = readme
        .split_once("\n## Break it on purpose\n")
        .expect("the chapter");
    let end = rest.find("\n## ").unwrap_or(rest.len());
    rest[..end].to_owned()
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn its_table_is_what_the_program_prints() {
    let rig = Rig::new();
    let table = format!("```\n{}```\n", rig.ok("fault help"));
    assert!(
        chapter().contains(&table),
        "the README's table isn't what `weir fault help` prints"
    );
    rig.finish();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn its_commands_work_word_for_word() {
    let rig = Rig::with(|builder| builder.arg("--power-cut"));
    let programs = rig.folder().join("bin");
    fs::create_dir(&programs).expect("a folder");
    symlink(weir(), programs.join("weir")).expect("a link");
    let path = std::env::var("PATH").expect("a PATH");
    let path = format!("{}:{path}", programs.display());
    let mut count = 0;
    for line in chapter().lines() {
        if !line.starts_with("weir ") || line.starts_with("weir serve") {
            continue;
        }
        // The disk is mounted in the kernel's tests; what is armed for it is seen here without.
        let line = line.replace("sync -f /mnt", "true");
        let mut shell = Command::new("sh");
        shell
            .args(["-c", &line])
            .env("PATH", &path)
            .env("WEIR_ADMIN", rig.server.admin())
            .current_dir(rig.folder());
        let done = run(&mut shell, SOON);
        assert_eq!(done.status.code(), Some(0), "{line}: {}", done.stderr);
        count += 1;
    }
    assert!(count >= 15, "only {count} commands");
    rig.finish();
}
