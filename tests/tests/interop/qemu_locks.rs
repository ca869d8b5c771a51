//! One image, Weir and QEMU's programs: whoever comes second is told to keep off, unless both only read.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use weir_tests::process::{Finished, Process, eventually};
use weir_tests::server::weir_in;
use weir_tests::tools::{find, tool, tool_ok};

use crate::support::Fixture;

const SOON: Duration = Duration::from_secs(20);

/// An image that exists, as one for a virtual machine does.
fn image() -> Fixture {
    let fixture = Fixture::new();
    let file = fs::File::create(fixture.image()).expect("a file");
    file.set_len(crate::support::IMAGE_BYTES).expect("a length");
    fixture
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// A qemu-nbd that serves the image until it is dropped.
#[track_caller]
fn qemu_nbd(fixture: &Fixture, options: &[&str]) -> Process {
    let socket = fixture.path("qemu.sock");
    let mut command = Command::new(find("qemu-nbd"));
    command
        .args(["-t", "-f", "raw", "-k", &text(&socket)])
        .args(options)
        .arg(fixture.image());
    let process = Process::start(&mut command);
    eventually("qemu-nbd listens", SOON, || socket.exists());
    process
}

#[track_caller]
fn end(process: Process, fixture: &Fixture) {
    process.signal(Signal::SIGTERM);
    process.wait(SOON).expect_code(0);
    let _ = fs::remove_file(fixture.path("qemu.sock"));
}

/// qemu-io on the image itself.
fn io(fixture: &Fixture, command: &str) -> Finished {
    tool(
        "qemu-io",
        ["-f", "raw", "-c", command, &text(&fixture.image())],
    )
}

#[track_caller]
fn assert_refused(done: &Finished, lock: &str) {
    assert!(
        done.status.code() != Some(0) && done.stderr.contains(lock),
        "{done:?}"
    );
}

#[track_caller]
fn assert_weir_refused(fixture: &Fixture, options: &[&str], reason: &str) {
    let image = text(&fixture.image());
    let mut words = vec!["serve", &image, "--no-admin", "--listen", "unix:weir.sock"];
    words.extend(options);
    let done = weir_in(fixture.dir(), words).expect_code(1);
    let mut lines = done.stderr.lines();
    let (line, rest) = (lines.next().unwrap_or_default(), lines.next());
    assert!(
        rest.is_none() && line.contains(&image) && line.contains(reason),
        "{}",
        done.stderr
    );
}

#[test]
#[ignore = "needs Debian packages; run by tests/run"]
fn qemu_keeps_off_an_image_that_weir_serves() {
    let fixture = image();
    let (path, copy) = (text(&fixture.image()), text(&fixture.path("copy")));
    let server = fixture.serve();
    let write = r#"Failed to get "write" lock"#;
    assert_refused(&io(&fixture, "write 0 512"), write);
    assert_refused(
        &tool("qemu-img", ["resize", "-f", "raw", &path, "+1M"]),
        write,
    );
    let socket = text(&fixture.path("qemu.sock"));
    assert_refused(
        &tool("qemu-nbd", ["-f", "raw", "-k", &socket, &path]),
        write,
    );
    let convert = ["convert", "-f", "raw", "-O", "raw", &path, &copy];
    let shared = r#"Failed to get shared "write" lock"#;
    assert_refused(&tool("qemu-img", convert), shared);
    tool_ok("qemu-img", ["info", "-f", "raw", &path]);
    // That they looked has given nothing away.
    assert_refused(&io(&fixture, "write 0 512"), write);
    server.stop_clean();
    io(&fixture, "write 0 512").expect_code(0);
    tool_ok("qemu-img", convert);
}

#[test]
#[ignore = "needs Debian packages; run by tests/run"]
fn weir_keeps_off_an_image_that_qemu_writes() {
    let fixture = image();
    let qemu = qemu_nbd(&fixture, &[]);
    for options in [&[][..], &["--read-only"], &["--cache", "none"]] {
        assert_weir_refused(&fixture, options, "being written by QEMU");
    }
    end(qemu, &fixture);
    fixture.serve().stop_clean();
}

#[test]
#[ignore = "needs Debian packages; run by tests/run"]
fn readers_share_an_image() {
    let fixture = image();
    let path = text(&fixture.image());
    let server = fixture.builder().arg("--read-only").start();
    let qemu = qemu_nbd(&fixture, &["-r"]);
    server.assert_serving();
    let copy = text(&fixture.path("copy"));
    tool_ok(
        "qemu-img",
        ["convert", "-f", "raw", "-O", "raw", &path, &copy],
    );
    assert_refused(
        &io(&fixture, "write 0 512"),
        r#"Failed to get "write" lock"#,
    );
    server.stop_clean();

    // The other way round.
    assert_weir_refused(&fixture, &[], "being read by QEMU");
    let server = fixture.builder().arg("--read-only").start();
    server.assert_serving();
    end(qemu, &fixture);
    server.stop_clean();
}
