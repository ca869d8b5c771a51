//! What is promised to be durable reaches the disk: seen at the system calls, by strace.
//!
//! A sync that isn't called looks like one that is, until the power fails. So strace counts the calls; and it makes
//! them fail, of which whoever relies on them must hear. `-D` keeps the server the test's own child.

use std::fs;
use std::path::Path;

use weir_tests::client::wire::{CMD_FLAG_FUA, EIO};
use weir_tests::client::{Client, Errno};
use weir_tests::pattern::bytes;
use weir_tests::process::run;
use weir_tests::server::{Server, ServerBuilder, weir};
use weir_tests::tools::find;

/// How the server does its I/O.
const ENGINES: [&str; 2] = ["auto", "threads"];
const IMAGE_BYTES: u64 = 8 << 20;

fn folder() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix("weir-cli-")
        .tempdir()
        .expect("a temporary folder")
}

/// The words that run a program under strace, with these options.
fn strace(dir: &Path, options: &[&str]) -> Vec<String> {
    let mut words = vec![find("strace").display().to_string()];
    words.extend(["-D", "-f", "-qq", "-y", "-o"].map(str::to_owned));
    words.push(trace(dir));
    words.extend(options.iter().map(|&word| word.to_owned()));
    words
}

fn trace(dir: &Path) -> String {
    dir.join("trace").display().to_string()
}

/// A server over an image that exists, under strace with these injections.
#[track_caller]
fn traced(dir: &Path, engine: &str, inject: &[&str], options: &[&str]) -> Server {
    let image = dir.join("x.img");
    fs::File::create(&image)
        .and_then(|file| file.set_len(IMAGE_BYTES))
        .expect("an image");
    let mut words = vec!["-e", "trace=fdatasync,fsync"];
    words.extend(inject);
    let builder = ServerBuilder::new(dir)
        .wrapper(strace(dir, &words))
        .arg(&image)
        .option("--io-engine", engine);
    options
        .iter()
        .fold(builder, ServerBuilder::arg)
        .admin()
        .start()
}

/// Makes every sync fail.
const FAILING: [&str; 2] = ["-e", "inject=fdatasync,fsync:error=EIO"];

/// How many syncs have succeeded so far. strace writes the line before the call returns.
#[track_caller]
fn syncs(dir: &Path) -> usize {
    let calls = fs::read_to_string(trace(dir)).expect("the trace");
    calls
        .lines()
        .filter(|line| line.contains("fdatasync") && line.ends_with("= 0"))
        .count()
}

/// What changes the image, and leaves something for a FLUSH to cover.
type Change = fn(&Server, &mut Client) -> Result<(), Errno>;
const CHANGES: [(&str, Change); 6] = [
    ("a write", |_, client| client.write(0, &bytes(1, 4096))),
    ("a part of a page", |_, client| {
        client.write(100, &bytes(1, 512))
    }),
    ("a trim", |_, client| client.trim(0, 1 << 20, 1 << 20)),
    ("zeroes", |_, client| {
        client.write_zeroes(0, 1 << 20, 1 << 20)
    }),
    ("a larger size", |server, _| {
        let resize = ["export", "resize", "", "16M"];
        server.control(resize).expect_code(0);
        Ok(())
    }),
    ("a smaller size", |server, _| {
        let resize = ["export", "resize", "--shrink", "", "4M"];
        server.control(resize).expect_code(0);
        Ok(())
    }),
];

#[test]
#[ignore = "needs Debian packages; run by tests/run"]
fn a_flush_syncs_whatever_changed_the_image() {
    for engine in ENGINES {
        for mode in ["writeback", "none"] {
            let dir = folder();
            let server = traced(dir.path(), engine, &[], &["--cache", mode]);
            let mut client = server.client();
            // The first one syncs in any case.
            client.flush().expect("a flush");
            for (what, change) in CHANGES {
                let before = syncs(dir.path());
                change(&server, &mut client).unwrap_or_else(|error| panic!("{what}: {error:?}"));
                client.flush().expect("a flush");
                let after = syncs(dir.path());
                assert!(after > before, "{engine}, {mode}: no sync after {what}");
            }
            server.stop_clean();
        }
    }
}

#[test]
#[ignore = "needs Debian packages; run by tests/run"]
fn fua_and_writethrough_sync_before_they_answer() {
    for engine in ENGINES {
        for (mode, flags) in [
            ("writeback", CMD_FLAG_FUA),
            ("none", CMD_FLAG_FUA),
            ("writethrough", 0),
        ] {
            let dir = folder();
            let server = traced(dir.path(), engine, &[], &["--cache", mode]);
            let mut client = server.client();
            let expect = |what: &str, request: &mut dyn FnMut() -> Result<(), Errno>| {
                let before = syncs(dir.path());
                request().unwrap_or_else(|error| panic!("{what}: {error:?}"));
                let after = syncs(dir.path());
                assert!(after > before, "{engine}, {mode}: no sync by {what}");
            };
            client.flush().expect("a flush");
            let data = bytes(1, 4096);
            expect("a write", &mut || client.write_flags(flags, 0, &data));
            expect("a part", &mut || {
                client.write_flags(flags, 9000, &data[..9])
            });
            expect("a trim", &mut || client.trim(flags, 1 << 20, 1 << 20));
            expect("zeroes", &mut || {
                client.write_zeroes(flags, 2 << 20, 1 << 20)
            });
            server.stop_clean();
        }
    }
}

#[test]
#[ignore = "needs Debian packages; run by tests/run"]
fn a_stop_syncs_whatever_changed_the_image() {
    for (what, change) in CHANGES {
        let dir = folder();
        let server = traced(dir.path(), "auto", &[], &[]);
        let mut client = server.client();
        client.flush().expect("a flush");
        let before = syncs(dir.path());
        change(&server, &mut client).unwrap_or_else(|error| panic!("{what}: {error:?}"));
        drop(client);
        server.stop_clean();
        assert!(syncs(dir.path()) > before, "no sync after {what}");
    }
}

#[test]
#[ignore = "needs Debian packages; run by tests/run"]
fn whoever_relies_on_a_sync_hears_that_it_failed() {
    for engine in ENGINES {
        for mode in ["writeback", "none"] {
            let dir = folder();
            let server = traced(dir.path(), engine, &FAILING, &["--cache", mode]);
            let mut client = server.client();
            let data = bytes(1, 4096);
            client.write(0, &data).expect("a write");
            assert_eq!(client.flush(), Err(Errno(EIO)), "{engine}, {mode}");
            let fua = client.write_flags(CMD_FLAG_FUA, 0, &data);
            assert_eq!(fua, Err(Errno(EIO)), "{engine}, {mode}");
            drop(client);
            server.stop().expect_code(1);
        }
    }
}

/// Of a server whose first client only reads and flushes: what an earlier process wrote need not be on the disk.
#[test]
#[ignore = "needs Debian packages; run by tests/run"]
fn the_first_flush_syncs_what_was_there_before_the_server() {
    let dir = folder();
    let server = traced(dir.path(), "auto", &[], &[]);
    let mut client = server.client();
    client.read(0, 4096).expect("a read");
    client.flush().expect("a flush");
    assert_eq!(syncs(dir.path()), 1);
    client.flush().expect("a flush");
    assert_eq!(syncs(dir.path()), 1, "nothing has changed since");
    drop(client);
    server.stop_clean();
}

/// The name of a created image, its size, and the folder: `weir serve` says no rather than promise one that may vanish.
#[test]
#[ignore = "needs Debian packages; run by tests/run"]
fn an_image_is_created_durably_or_not_at_all() {
    for (what, inject) in [
        ("the file", "inject=fsync:error=EIO:when=1"),
        ("its folder", "inject=fsync:error=EIO:when=2"),
    ] {
        let dir = folder();
        let mut words = strace(dir.path(), &["-e", "trace=fsync", "-e", inject]);
        words.push(weir().display().to_string());
        let mut command = std::process::Command::new(&words[0]);
        command
            .args(&words[1..])
            .args(["serve", "new.img", "--size", "1M", "--no-admin"])
            .args(["--listen", "unix:s", "--run", "true"])
            .current_dir(dir.path());
        let done = run(&mut command, std::time::Duration::from_secs(20)).expect_code(1);
        assert!(
            done.stderr.contains("new.img can't be created"),
            "{what}: {}",
            done.stderr
        );
        assert!(!dir.path().join("new.img").exists(), "{what}");
    }
}

/// In which order: a size that follows its sync, or a name that precedes it, would be durable by luck.
#[test]
#[ignore = "needs Debian packages; run by tests/run"]
fn a_created_image_has_its_size_before_it_is_synced_and_then_its_name() {
    let dir = folder();
    let server = ServerBuilder::new(dir.path())
        .wrapper(strace(dir.path(), &["-e", "trace=ftruncate,fsync"]))
        .file(&dir.path().join("new.img"), "1M")
        .start();
    server.stop_clean();
    let calls = fs::read_to_string(trace(dir.path())).expect("the trace");
    let folder = format!("{}>)", dir.path().display());
    let kinds: Vec<_> = calls
        .lines()
        .filter_map(|line| match line {
            _ if line.contains("ftruncate(") && line.contains("new.img>, 1048576)") => Some("size"),
            _ if line.contains("fsync(") && line.contains("new.img>)") => Some("file"),
            _ if line.contains("fsync(") && line.contains(&folder) => Some("folder"),
            _ => None,
        })
        .collect();
    assert!(kinds.starts_with(&["size", "file", "folder"]), "{calls}");
}
