//! A host that has no room: the client hears of it, the server lives, and nothing that was flushed is lost.
//!
//! No room is made with RLIMIT_FSIZE on the server, which any user may set: writes past it fail with EFBIG. A small
//! tmpfs in a mount namespace of its own gives the real ENOSPC.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use weir_tests::client::Errno;
use weir_tests::client::wire::{EIO, ENOSPC};
use weir_tests::pattern::{assert_same, bytes};
use weir_tests::process::run;
use weir_tests::server::{Server, ServerBuilder};

/// The export's size: far above either limit.
const EXPORT_BYTES: u64 = 64 << 20;
/// How much the host has room for.
const ROOM_BYTES: u64 = 8 << 20;

fn folder() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix("weir-cli-")
        .tempdir()
        .expect("a temporary folder")
}

/// A server over an image that was made without a limit: even its length would be past it.
fn limited(dir: &Path) -> Server {
    let image = dir.join("x.img");
    fs::File::create(&image)
        .and_then(|f| f.set_len(EXPORT_BYTES))
        .expect("an image");
    ServerBuilder::new(dir)
        .arg(&image)
        .option("--cache-size", "16M")
        .file_size_limit(ROOM_BYTES)
        .start()
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_flush_that_fails_says_so_and_what_was_flushed_stays() {
    let dir = folder();
    let server = limited(dir.path());
    let mut client = server.client();
    let kept = bytes(1, 1 << 20);
    client.write(0, &kept).expect("a write");
    client.flush().expect("there is room for this");

    let failed = client
        .write(ROOM_BYTES + (1 << 20), &bytes(2, 1 << 20))
        .and_then(|()| client.flush());
    let error = failed.expect_err("there is no room for this");
    assert!([Errno(EIO), Errno(ENOSPC)].contains(&error), "{error:?}");
    assert!(client.flush().is_err(), "it is still not durable");
    assert_same(
        &client.read(0, 1 << 20).expect("a read"),
        &kept,
        "what was flushed",
    );
    server.assert_serving();
    server.kill();
    assert!(fs::read(dir.path().join("x.img")).expect("the image")[..1 << 20] == kept);
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_trim_of_what_can_not_be_written_makes_the_flush_true_again() {
    let dir = folder();
    let server = limited(dir.path());
    let mut client = server.client();
    let at = ROOM_BYTES + (1 << 20);
    let failed = client
        .write(at, &bytes(3, 1 << 20))
        .and_then(|()| client.flush());
    failed.expect_err("there is no room for this");
    client.trim(0, at, 1 << 20).expect("a trim");
    client.flush().expect("nothing is left that could fail");
    client.disconnect();
    server.stop_clean();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_final_flush_that_fails_ends_with_1_and_says_what_is_dirty() {
    let dir = folder();
    let server = limited(dir.path());
    let mut client = server.client();
    client.write(0, &bytes(4, 4096)).expect("a write");
    client.flush().expect("there is room for this");
    client
        .write(ROOM_BYTES + (1 << 20), &bytes(5, 8192))
        .expect("a write that only the cache takes");
    let done = server.stop().expect_code(1);
    let last = done.stderr.lines().last().unwrap_or_default();
    assert!(
        last.contains("x.img") || last.contains("export"),
        "it names the export: {last:?}"
    );
    assert!(
        last.contains("8192") || last.contains("8 KiB") || last.contains("2 pages"),
        "and how much is dirty: {last:?}"
    );
    assert!(fs::read(dir.path().join("x.img")).expect("the image")[..4096] == bytes(4, 4096));
}

/// The words that start a program where it may mount what it likes: in a mount namespace of its own for root, in a user
/// namespace too for anybody else. None where the machine gives users none.
pub(crate) fn unshare() -> Option<[&'static str; 2]> {
    let root = fs::metadata("/proc/self").expect("/proc").uid() == 0;
    let words = ["unshare", if root { "-m" } else { "-rm" }];
    let mut command = Command::new(words[0]);
    command.args([words[1], "mount", "-t", "tmpfs", "none", "/mnt"]);
    let done = run(&mut command, Duration::from_secs(10));
    // Root can be kept from mounting as well, but such a machine is no place for these tests.
    assert!(!root || done.status.success(), "{done:?}");
    done.status.success().then_some(words)
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_full_file_system_is_no_space_until_there_is_room_again() {
    let Some(unshare) = unshare() else {
        println!("skipped: this machine gives users no namespaces, and this user isn't root");
        return;
    };
    let dir = folder();
    fs::create_dir(dir.path().join("small")).expect("a folder");
    let script = format!("mount -t tmpfs -o size={ROOM_BYTES} none small && exec \"$@\"");
    let server = ServerBuilder::new(dir.path())
        .wrapper(unshare.into_iter().chain(["sh", "-c", &script, "sh"]))
        .arg("small/x.img")
        .option("--size", EXPORT_BYTES)
        .option("--cache-size", "16M")
        .start();
    let mut client = server.client();
    let kept = bytes(6, 1 << 20);
    client.write(0, &kept).expect("a write");
    client.flush().expect("there is room for this");

    let data = bytes(7, 1 << 20);
    let mut failed = None;
    // Less than the room and what the cache would take before it makes writers wait: FLUSH has to say it.
    for at in 2..12_u64 {
        if let Err(error) = client.write(at << 20, &data).and_then(|()| client.flush()) {
            failed = Some(error);
            break;
        }
    }
    assert_eq!(failed, Some(Errno(ENOSPC)), "11 MiB don't fit into 8");
    assert_same(
        &client.read(0, 1 << 20).expect("a read"),
        &kept,
        "what was flushed",
    );

    client.trim(0, 2 << 20, 30 << 20).expect("a trim");
    client.flush().expect("there is room again");
    client.write(40 << 20, &data).expect("a write");
    client.flush().expect("there is room again");
    assert_same(
        &client.read(40 << 20, 1 << 20).expect("a read"),
        &data,
        "what was written since",
    );
    client.disconnect();
    server.stop_clean();
}
