//! nbdinfo: what the server says of itself and of its exports.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::stat::{major, minor};
use serde_json::Value;
use weir_tests::pattern;
use weir_tests::server::ServerBuilder;
use weir_tests::tools::{tool, tool_ok};

use crate::support::{Fixture, IMAGE_BYTES};

fn info(uri: &str) -> Value {
    let text = tool_ok("nbdinfo", ["--json", uri]);
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// What the system says of the disk under a file; a file system without one, such as tmpfs, doesn't spin.
fn is_on_a_spinning_disk(file: &Path) -> bool {
    let device = fs::metadata(file).expect("the image").dev();
    let folder = format!("/sys/dev/block/{}:{}", major(device), minor(device));
    // A partition has no queue, but lies in its disk's folder.
    ["queue/rotational", "../queue/rotational"]
        .iter()
        .find_map(|name| fs::read_to_string(Path::new(&folder).join(name)).ok())
        .is_some_and(|text| text.trim() == "1")
}

#[test]
#[ignore = "needs Debian packages; run by tests/run"]
fn an_export_has_its_size_and_every_capability() {
    let fixture = Fixture::new();
    let server = fixture.serve();
    let uri = server.uri("");

    assert_eq!(
        tool_ok("nbdinfo", ["--size", &uri]).trim(),
        IMAGE_BYTES.to_string()
    );
    for what in [
        "connect",
        "structured-reply",
        "write",
        "flush",
        "fua",
        "trim",
        "zero",
        "fast-zero",
        "df",
        "cache",
        "multi-conn",
    ] {
        tool("nbdinfo", ["--can", what, &uri]).expect_code(0);
    }
    // nbdinfo answers "no" with 2.
    let rotational = if is_on_a_spinning_disk(&fixture.image()) {
        0
    } else {
        2
    };
    tool("nbdinfo", ["--is", "read-only", &uri]).expect_code(2);
    tool("nbdinfo", ["--is", "rotational", &uri]).expect_code(rotational);
    tool("nbdinfo", ["--is", "tls", &uri]).expect_code(2);

    let json = info(&uri);
    assert_eq!(json["protocol"], "newstyle-fixed");
    assert_eq!(json["structured"], true);
    let export = &json["exports"][0];
    assert_eq!(export["block_size_minimum"], 1);
    assert_eq!(export["block_size_preferred"], 4096);
    assert_eq!(export["block_size_maximum"], 64 << 20);
    let contexts: Vec<&str> = export["contexts"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    assert!(
        contexts.contains(&"base:allocation") && contexts.contains(&"x-weir:cache"),
        "{contexts:?}"
    );
    server.stop_clean();
}

#[test]
#[ignore = "needs Debian packages; run by tests/run"]
fn a_read_only_export_says_so() {
    let fixture = Fixture::new();
    fixture.serve().stop_clean();
    let server = fixture.builder().arg("--read-only").start();
    let uri = server.uri("");
    tool("nbdinfo", ["--is", "read-only", &uri]).expect_code(0);
    for what in ["write", "trim", "zero", "fast-zero"] {
        tool("nbdinfo", ["--can", what, &uri]).expect_code(2);
    }
    server.stop_clean();
}

#[test]
#[ignore = "needs Debian packages; run by tests/run"]
fn several_exports_are_listed_with_their_descriptions() {
    let fixture = Fixture::new();
    let disk = |name: &str| fixture.path(name).display().to_string();
    let server = ServerBuilder::new(fixture.dir())
        .arg(fixture.image())
        .option("--size", "1M")
        .option(
            "--export",
            format!("one={},size=2M,description=The first", disk("one")),
        )
        .option(
            "--export",
            format!("zwei ä={},size=3M,read-only=false", disk("two")),
        )
        .start();

    let text = tool_ok("nbdinfo", ["--list", "--json", &server.uri("")]);
    let json: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
    let mut found: Vec<(String, u64, Option<String>)> = json["exports"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|e| {
            let name = e["export-name"].as_str().expect("a name").to_owned();
            let size = e["export-size"].as_u64().expect("a size");
            (name, size, e["description"].as_str().map(str::to_owned))
        })
        .collect();
    found.sort();
    assert_eq!(
        found
            .iter()
            .map(|f| (f.0.as_str(), f.1))
            .collect::<Vec<_>>(),
        [("", 1 << 20), ("one", 2 << 20), ("zwei ä", 3 << 20)]
    );
    assert_eq!(found[1].2.as_deref(), Some("The first"));
    assert_eq!(
        tool_ok("nbdinfo", ["--size", &server.uri("zwei%20%C3%A4")]).trim(),
        (3 << 20).to_string()
    );
    server.stop_clean();
}

#[test]
#[ignore = "needs Debian packages; run by tests/run"]
fn without_a_source_there_is_no_default_export() {
    let fixture = Fixture::new();
    let export = format!("only={},size=1M", fixture.path("only").display());
    let server = ServerBuilder::new(fixture.dir())
        .option("--export", export)
        .start();
    assert_eq!(
        tool_ok("nbdinfo", ["--size", &server.uri("only")]).trim(),
        (1 << 20).to_string()
    );
    let refused = tool("nbdinfo", ["--size", &server.uri("")]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(
        !fixture.path("weir.img").exists(),
        "nobody asked for weir.img"
    );
    server.stop_clean();
}

/// Offset, length and flags of each line of `nbdinfo --map`.
fn map(uri: &str, context: &str) -> Vec<(u64, u64, u32)> {
    let text = tool_ok("nbdinfo", ["--json", &format!("--map={context}"), uri]);
    let json: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
    let field = |line: &Value, name: &str| {
        line[name]
            .as_u64()
            .unwrap_or_else(|| panic!("{name} in {line}"))
    };
    json.as_array()
        .expect("a list")
        .iter()
        .map(|l| {
            (
                field(l, "offset"),
                field(l, "length"),
                u32::try_from(field(l, "type")).expect("flags fit u32"),
            )
        })
        .collect()
}

#[test]
#[ignore = "needs Debian packages; run by tests/run"]
fn the_allocation_map_shows_what_was_written_before_and_after_a_flush() {
    let fixture = Fixture::new();
    let server = fixture.serve();
    let uri = server.uri("");
    let hole = |from: u64, to: u64| (from, to - from, 3);
    let data = |from: u64, to: u64| (from, to - from, 0);
    assert_eq!(map(&uri, "base:allocation"), [hole(0, IMAGE_BYTES)]);

    let mut client = server.client();
    client
        .write(1 << 20, &pattern::bytes(1, 64 << 10))
        .expect("a write");
    let want = [
        hole(0, 1 << 20),
        data(1 << 20, (1 << 20) + (64 << 10)),
        hole((1 << 20) + (64 << 10), IMAGE_BYTES),
    ];
    assert_eq!(
        map(&uri, "base:allocation"),
        want,
        "dirty pages count as data"
    );
    client.flush().expect("a flush");
    assert_eq!(map(&uri, "base:allocation"), want, "and so they do on disk");

    client.trim(0, 1 << 20, 64 << 10).expect("a trim");
    assert_eq!(map(&uri, "base:allocation"), [hole(0, IMAGE_BYTES)]);
    client.disconnect();
    server.stop_clean();
}

#[test]
#[ignore = "needs Debian packages; run by tests/run"]
fn the_cache_map_shows_dirty_then_clean_pages() {
    let fixture = Fixture::new();
    let server = fixture.serve();
    let uri = server.uri("");
    let mut client = server.client();
    client
        .write(4096, &pattern::bytes(2, 4096))
        .expect("a write");
    let rest = (8192, IMAGE_BYTES - 8192, 0);
    assert_eq!(
        map(&uri, "x-weir:cache"),
        [(0, 4096, 0), (4096, 4096, 3), rest]
    );
    client.flush().expect("a flush");
    assert_eq!(
        map(&uri, "x-weir:cache"),
        [(0, 4096, 0), (4096, 4096, 1), rest]
    );
    client.disconnect();
    server.stop_clean();
}
