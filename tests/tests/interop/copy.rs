//! nbdcopy, both ways, sparse.

use std::fs;

use weir_tests::pattern::assert_same;
use weir_tests::server::ServerBuilder;
use weir_tests::tools::{bytes_on_disk, tool_ok};

use crate::support::{Fixture, write_sparse_file};

#[test]
#[ignore = "needs Debian packages; run by tests/run"]
fn a_sparse_image_goes_in_and_comes_out_the_same() {
    let fixture = Fixture::new();
    let (source, image, back) = (
        fixture.path("source"),
        fixture.image(),
        fixture.path("back"),
    );
    let size = write_sparse_file(&source, 3);
    let server = ServerBuilder::new(fixture.dir())
        .file(&image, size)
        .option("--cache-size", "16M")
        .start();
    let uri = server.uri("");

    tool_ok(
        "nbdcopy",
        ["--flush".as_ref(), source.as_os_str(), uri.as_ref()],
    );
    tool_ok("nbdcopy", [uri.as_ref(), back.as_os_str()]);
    server.stop_clean();

    let want = fs::read(&source).expect("the source");
    assert_same(&fs::read(&back).expect("the copy"), &want, "what came back");
    assert_same(
        &fs::read(&image).expect("the image"),
        &want,
        "what the server stored",
    );
    let (kept, stored) = (bytes_on_disk(&source), bytes_on_disk(&image));
    assert!(
        stored <= kept + (1 << 20),
        "{stored} bytes stored for a file of {kept}"
    );
}

#[test]
#[ignore = "needs Debian packages; run by tests/run"]
fn one_server_copies_to_another_without_holes_filling_up() {
    let (from, to) = (Fixture::new(), Fixture::new());
    let size = write_sparse_file(&from.image(), 4);
    let source = ServerBuilder::new(from.dir())
        .file(&from.image(), size)
        .start();
    let target = ServerBuilder::new(to.dir()).file(&to.image(), size).start();
    tool_ok(
        "nbdcopy",
        [
            "--destination-is-zero",
            "--connections=4",
            "--requests=64",
            &source.uri(""),
            &target.uri(""),
        ],
    );
    target.stop_clean();
    source.stop_clean();
    let want = fs::read(from.image()).expect("the source");
    assert_same(
        &fs::read(to.image()).expect("the target"),
        &want,
        "the copy",
    );
    let (kept, stored) = (bytes_on_disk(&from.image()), bytes_on_disk(&to.image()));
    assert!(
        stored <= kept + (1 << 20),
        "{stored} bytes stored for a file of {kept}"
    );
}
