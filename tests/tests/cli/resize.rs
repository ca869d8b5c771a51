//! A device whose size changes under its clients: `weir export resize`, `insert-range` and `collapse-range`.

use std::fs;
use std::path::Path;
use std::process::Command;

use weir_tests::client::wire::{EINVAL, ENOSPC};
use weir_tests::client::{Client, Errno};
use weir_tests::pattern::{assert_same, bytes};
use weir_tests::process::Finished;
use weir_tests::server::{Server, ServerBuilder, weir_in};

const MIB: u64 = 1 << 20;

fn folder() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix("weir-cli-")
        .tempdir()
        .expect("a temporary folder")
}

/// Serves `x.img`, of `size` bytes where it is new.
fn serve(dir: &Path, size: u64) -> Server {
    ServerBuilder::new(dir)
        .file(&dir.join("x.img"), size)
        .option("--cache-size", "2M")
        .admin()
        .start()
}

/// `weir export ...`, which must succeed.
#[track_caller]
fn export(server: &Server, words: &[&str]) {
    let done = server.control(["export"].iter().chain(words));
    drop(done.expect_code(0));
}

/// `weir export ...`, which must be refused in one line with each of `parts` in it.
#[track_caller]
fn refused(server: &Server, words: &[&str], parts: &[&str]) {
    let done: Finished = server.control(["export"].iter().chain(words));
    let done = done.expect_code(1);
    assert_eq!(done.stderr.lines().count(), 1, "one line:\n{}", done.stderr);
    for part in parts {
        assert!(done.stderr.contains(part), "no {part:?}: {}", done.stderr);
    }
}

#[track_caller]
fn assert_zero(client: &mut Client, offset: u64, len: u32) {
    let data = client.read(offset, len).expect("a read");
    let first = data.iter().position(|byte| *byte != 0);
    assert_eq!(first, None, "not zeroes from {offset} on");
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_connected_client_goes_on_when_the_device_shrinks_and_grows() {
    let dir = folder();
    let server = serve(dir.path(), 8 * MIB);
    let mut client = server.client();
    let data = bytes(1, 1 << 20);
    for mib in 0..8 {
        client.write(mib * MIB, &data).expect("a write");
    }
    // Inside a page, and with dirty pages on both sides.
    let cut = 5 * MIB + 1000;
    export(&server, &["resize", "--shrink", "", &cut.to_string()]);
    assert_eq!(server.client().export().size, cut, "what a new client sees");
    let short = u32::try_from(MIB).expect("32 bit");
    for offset in [cut - 1, cut, 7 * MIB] {
        let place = format!("{offset}");
        assert_eq!(client.write(offset, &[7; 2]), Err(Errno(ENOSPC)), "{place}");
        assert_eq!(
            client.write_zeroes(0, offset, short),
            Err(Errno(ENOSPC)),
            "{place}"
        );
        assert_eq!(
            client.read(offset, short).err(),
            Some(Errno(EINVAL)),
            "{place}"
        );
        assert_eq!(client.trim(0, offset, short), Err(Errno(EINVAL)), "{place}");
    }
    let read = client.read(5 * MIB, 1000).expect("up to the end");
    assert_same(&read, &data[..1000], "before the new end");
    client.write(cut - 2, &[7; 2]).expect("up to the end");
    client.flush().expect("a flush");

    export(&server, &["resize", "", "8M"]);
    assert_eq!(server.client().export().size, 8 * MIB);
    assert_zero(&mut client, cut, short);
    assert_zero(&mut client, 7 * MIB, short);
    assert_eq!(client.read(cut - 2, 2), Ok(vec![7; 2]));
    client.write(8 * MIB - 5, &[9; 5]).expect("a write");
    let read = client.read(3 * MIB, short).expect("a read");
    assert_same(&read, &data, "what lies before is as it was");
    refused(&server, &["resize", "", "0"], &["resize", "one byte"]);
    server.stop_clean();
    let image = fs::read(dir.path().join("x.img")).expect("the image");
    assert_eq!(image.len() as u64, 8 * MIB);
    assert_eq!(image[image.len() - 5..], [9; 5]);
    drop(client);
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn after_a_resize_the_old_size_is_refused_at_the_start() {
    let dir = folder();
    let server = serve(dir.path(), 2 * MIB);
    export(&server, &["resize", "", "3M"]);
    server.stop_clean();
    let listen = format!("unix:{}", dir.path().join("s").display());
    let words = [
        "serve",
        "x.img",
        "--size",
        "2M",
        "--listen",
        &listen,
        "--no-admin",
    ];
    let done = weir_in(dir.path(), words).expect_code(1);
    for part in ["x.img", "3M", "2M", "leave --size out"] {
        assert!(done.stderr.contains(part), "no {part:?}: {}", done.stderr);
    }
    assert_eq!(done.stderr.lines().count(), 1, "{}", done.stderr);
    // Told so, it serves what there is.
    let server = ServerBuilder::new(dir.path()).arg("x.img").start();
    assert_eq!(server.client().export().size, 3 * MIB);
    server.stop_clean();
}

/// Whether the file system can move what follows a range.
fn can_shift(dir: &Path) -> bool {
    let probe = dir.join("probe");
    fs::write(&probe, vec![1; 1 << 20]).expect("a file");
    let shifted = Command::new("fallocate")
        .args(["--insert-range", "--offset", "65536", "--length", "65536"])
        .arg(&probe)
        .output();
    shifted.is_ok_and(|output| output.status.success())
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn ranges_are_inserted_and_removed_under_a_connected_client() {
    let dir = folder();
    let server = serve(dir.path(), 4 * MIB + 512);
    if !can_shift(dir.path()) {
        refused(
            &server,
            &["insert-range", "", "0", "64k"],
            &["can't do that"],
        );
        server.stop_clean();
        return;
    }
    let mut client = server.client();
    let length = 4 * (1 << 20) + 512;
    let data = bytes(3, length);
    client.write(0, &data).expect("a write");
    // What was never flushed moves, too.
    export(&server, &["insert-range", "", "1M", "64k"]);
    assert_eq!(server.client().export().size, 4 * MIB + 512 + (64 << 10));
    let moved = client.read(MIB + (64 << 10), 3 << 20).expect("a read");
    assert_same(&moved, &data[1 << 20..4 << 20], "moved up");
    assert_zero(&mut client, MIB, 64 << 10);
    let read = client.read(0, 1 << 20).expect("a read");
    assert_same(&read, &data[..1 << 20], "before it");

    export(&server, &["collapse-range", "", "1M", "64k"]);
    assert_eq!(server.client().export().size, 4 * MIB + 512);
    let read = client.read(0, u32::try_from(length).expect("small"));
    assert_same(&read.expect("a read"), &data, "as it was");

    for action in ["insert-range", "collapse-range"] {
        for figures in [["1000", "64k"], ["64k", "1000"], ["64k", "0"]] {
            let words = [action, "", figures[0], figures[1]];
            refused(&server, &words, &[action, "multiples of"]);
        }
        refused(&server, &[action, "", "5M", "64k"], &[action, "device"]);
    }
    assert_eq!(server.client().export().size, 4 * MIB + 512);
    client.disconnect();
    server.stop_clean();
    assert!(fs::read(dir.path().join("x.img")).expect("the image") == data);
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn memory_can_be_resized_and_not_shifted() {
    let dir = folder();
    let server = ServerBuilder::new(dir.path())
        .arg("memory:4M")
        .admin()
        .start();
    let mut client = server.client();
    client.write(3 * MIB, &[5; 4096]).expect("a write");
    export(&server, &["resize", "--shrink", "", "1M"]);
    export(&server, &["resize", "", "6M"]);
    assert_zero(&mut client, MIB, 5 << 20);
    for action in ["insert-range", "collapse-range"] {
        refused(&server, &[action, "", "0", "64k"], &[action, "can't"]);
    }
    client.disconnect();
    server.stop_clean();
}
