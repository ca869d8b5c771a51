//! qemu-img and qemu-io.

use std::fs;

use serde_json::Value;
use weir_tests::server::ServerBuilder;
use weir_tests::tools::{bytes_on_disk, tool, tool_ok};

use crate::support::{Fixture, write_sparse_file};

#[test]
#[ignore = "needs Debian packages; run by tests/run"]
fn convert_and_compare_agree() {
    let fixture = Fixture::new();
    let (source, back) = (fixture.path("source"), fixture.path("back"));
    let size = write_sparse_file(&source, 5);
    let server = ServerBuilder::new(fixture.dir())
        .file(&fixture.image(), size)
        .option("--cache-size", "16M")
        .start();
    let uri = server.uri("");
    let source_text = source.display().to_string();

    tool_ok(
        "qemu-img",
        [
            "convert",
            "-n",
            "-f",
            "raw",
            "-O",
            "raw",
            "-m",
            "8",
            "-W",
            &source_text,
            &uri,
        ],
    );
    tool_ok(
        "qemu-img",
        ["compare", "-f", "raw", "-F", "raw", &source_text, &uri],
    );
    tool_ok(
        "qemu-img",
        [
            "convert",
            "-f",
            "raw",
            "-O",
            "qcow2",
            &uri,
            &back.display().to_string(),
        ],
    );
    tool_ok(
        "qemu-img",
        [
            "compare",
            "-f",
            "raw",
            "-F",
            "qcow2",
            &source_text,
            &back.display().to_string(),
        ],
    );

    let map: Value = serde_json::from_str(&tool_ok(
        "qemu-img",
        ["map", "--output=json", "-f", "raw", &uri],
    ))
    .expect("JSON");
    let data: u64 = map
        .as_array()
        .expect("a list")
        .iter()
        .filter(|extent| extent["data"] == true)
        .map(|extent| extent["length"].as_u64().expect("a length"))
        .sum();
    let kept = bytes_on_disk(&source);
    assert!(
        (3 << 20..=kept + (1 << 20)).contains(&data),
        "{data} bytes of data mapped, {kept} in the source: {map}"
    );
    server.stop_clean();
    assert!(
        fs::read(&source).expect("source") == fs::read(fixture.image()).expect("image"),
        "what the server stored"
    );
}

/// Runs qemu-io commands; panics unless each ends well. (qemu-io says what fails, and ends with 1.)
#[track_caller]
fn io(uri: &str, commands: &[&str]) -> String {
    let mut args = vec!["-f", "raw"];
    commands.iter().for_each(|c| args.extend(["-c", c]));
    args.push(uri);
    let output = tool_ok("qemu-io", args);
    assert!(
        !output.contains("failed") && !output.contains("differ"),
        "{output}"
    );
    output
}

#[test]
#[ignore = "needs Debian packages; run by tests/run"]
fn patterns_are_read_back_and_zeroes_after_discard() {
    let fixture = Fixture::new();
    let server = fixture.serve();
    let uri = server.uri("");
    io(
        &uri,
        &[
            "write -P 0xa5 0 8M",
            "write -P 0x5a 513k 1k",
            "read -P 0xa5 0 513k",
            "read -P 0x5a 513k 1k",
        ],
    );
    io(
        &uri,
        &["write -f -P 0x11 12M 64k", "flush", "read -P 0x11 12M 64k"],
    );
    io(
        &uri,
        &["discard 1M 1M", "read -P 0 1M 1M", "read -P 0xa5 2M 1M"],
    );
    io(
        &uri,
        &[
            "write -z 3M 1M",
            "write -z -u 4M 1M",
            "read -P 0 3M 2M",
            "read -P 0xa5 5M 1M",
        ],
    );
    io(&uri, &["write -z -n -u 5M 1M", "read -P 0 5M 1M"]);
    io(&uri, &["write -P 0x77 20M 12M", "read -P 0x77 20M 12M"]);
    io(
        &uri,
        &[
            "aio_write -P 1 24M 1M",
            "aio_write -P 2 25M 1M",
            "aio_write -P 3 26M 1M",
            "aio_flush",
        ],
    );
    io(
        &uri,
        &["read -P 1 24M 1M", "read -P 2 25M 1M", "read -P 3 26M 1M"],
    );
    io(&uri, &["writev -P 9 27M 4k 4k 8k", "readv -P 9 27M 8k 8k"]);
    // qemu-io must be able to say no, or the lines above say nothing.
    let wrong = tool("qemu-io", ["-f", "raw", "-c", "read -P 0x12 12M 64k", &uri]);
    assert!(
        wrong.status.code() != Some(0) || wrong.stdout.contains("failed"),
        "{wrong:?}"
    );
    server.stop_clean();
}

#[test]
#[ignore = "needs Debian packages; run by tests/run"]
fn qcow2_lives_on_an_export() {
    let fixture = Fixture::new();
    let server = fixture.serve();
    let uri = server.uri("");
    tool_ok("qemu-img", ["create", "-f", "qcow2", &uri, "100M"]);
    let args = [
        "-f",
        "qcow2",
        "-c",
        "write -P 0x33 90M 3M",
        "-c",
        "discard 91M 1M",
        "-c",
        "flush",
        &uri,
    ];
    tool_ok("qemu-io", args);
    tool_ok("qemu-img", ["check", "-f", "qcow2", &uri]);
    let out = tool_ok(
        "qemu-io",
        [
            "-f",
            "qcow2",
            "-c",
            "read -P 0x33 90M 1M",
            "-c",
            "read -P 0 91M 1M",
            &uri,
        ],
    );
    assert!(!out.contains("failed"), "{out}");
    server.stop_clean();
}
