//! What a user meets first: starting without arguments, `--run`, and a clean stop.

use std::time::Duration;

use nix::sys::signal::Signal;
use weir_tests::pattern::bytes;
use weir_tests::process::Process;
use weir_tests::server::{ServerBuilder, weir, weir_in};

fn folder() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix("weir-cli-")
        .tempdir()
        .expect("a temporary folder")
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn without_a_source_weir_img_is_served() {
    let dir = folder();
    let server = ServerBuilder::new(dir.path()).start();
    assert_eq!(server.client().export().size, 1 << 30);
    server.stop_clean();
    let image = dir.path().join("weir.img");
    assert_eq!(std::fs::metadata(&image).expect("weir.img").len(), 1 << 30);
    assert_eq!(weir_tests::tools::bytes_on_disk(&image), 0, "sparse");
    // And again, as it is.
    ServerBuilder::new(dir.path()).start().stop_clean();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn the_first_lines_are_uris_then_admin_then_how_to_attach() {
    let dir = folder();
    let mut command = std::process::Command::new(weir());
    command
        .args([
            "serve",
            "memory:1M",
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
        ])
        .current_dir(dir.path());
    let mut process = Process::start(&mut command);
    let soon = Duration::from_secs(20);
    assert!(process.line(soon).starts_with("nbd://127.0.0.1:"));
    assert!(process.line(soon).starts_with("admin http://127.0.0.1:"));
    process.signal(Signal::SIGINT);
    let done = process.wait(Duration::from_secs(20)).expect_code(0);
    assert!(
        done.stdout.contains("nbd-client") && done.stdout.contains("modprobe nbd"),
        "{}",
        done.stdout
    );
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn run_passes_the_uri_and_ends_with_the_commands_status() {
    let dir = folder();
    let listen = format!("unix:{}", dir.path().join("s").display());
    let script = "test -S s && echo \"uri=$uri admin=$admin\" && exit 7";
    let words = [
        "serve",
        "memory:1M",
        "--listen",
        &listen,
        "--admin",
        "127.0.0.1:0",
        "--run",
        script,
    ];
    let done = weir_in(dir.path(), words).expect_code(7);
    // The command's output alone, so that it can be used.
    assert_eq!(done.stdout.lines().count(), 1, "{}", done.stdout);
    assert!(
        done.stdout.starts_with("uri=nbd+unix:///?socket="),
        "{}",
        done.stdout
    );
    assert!(
        done.stdout.contains(" admin=http://127.0.0.1:"),
        "{}",
        done.stdout
    );
    assert!(
        !dir.path().join("s").exists(),
        "the socket goes with the server"
    );
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn the_version_is_the_packages() {
    let done = weir_in(folder().path(), ["--version"]).expect_code(0);
    assert_eq!(done.stdout, format!("weir {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn both_signals_flush_and_end_with_0() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let dir = folder();
        let image = dir.path().join("x.img");
        let listen = format!("unix:{}", dir.path().join("s").display());
        let mut command = std::process::Command::new(weir());
        let image_text = image.display().to_string();
        command
            .args([
                "serve",
                &image_text,
                "--size",
                "4M",
                "--no-admin",
                "--listen",
                &listen,
            ])
            .current_dir(dir.path());
        let mut process = Process::start(&mut command);
        let uri = process.line(Duration::from_secs(20));
        let socket = weir_tests::client::Socket::connect(&uri);
        let mut client =
            weir_tests::client::Client::negotiate(socket, &weir_tests::client::Options::default());
        client.write(12_345, &bytes(1, 1 << 20)).expect("a write");
        process.signal(signal);
        process.wait(Duration::from_secs(30)).expect_code(0);
        assert!(
            std::fs::read(&image).expect("the image")[12_345..][..1 << 20] == bytes(1, 1 << 20)
        );
        assert!(
            !dir.path().join("s").exists(),
            "the socket goes with the server"
        );
    }
}

/// A shell that starts a server with `words`, says that it runs and waits for its input's end.
fn shell(dir: &std::path::Path, words: &str) -> std::process::Child {
    let script = format!(
        "'{}' serve x.img --size 1M --no-admin {words} & read -r line; exit 0",
        weir().display()
    );
    std::process::Command::new("sh")
        .args(["-c", &script])
        .current_dir(dir)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("a shell")
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn with_its_parent_a_server_ends_and_releases_the_image() {
    use std::io::{BufRead as _, BufReader, Read as _};
    // Asked to, or killed without a word.
    for killed in [false, true] {
        let dir = folder();
        let listen = format!("--listen unix:{}", dir.path().join("s").display());
        let mut parent = shell(dir.path(), &format!("{listen} --exit-with-parent"));
        let mut output = BufReader::new(parent.stdout.take().expect("piped"));
        let mut uri = String::new();
        output.read_line(&mut uri).expect("a URI");
        let socket = weir_tests::client::Socket::connect(uri.trim_end());
        let mut client =
            weir_tests::client::Client::negotiate(socket, &weir_tests::client::Options::default());
        client.write(0, &bytes(1, 4096)).expect("a write");
        if killed {
            parent.kill().expect("our child");
        } else {
            drop(parent.stdin.take());
        }
        parent.wait().expect("our child");
        // The server has the other end of this pipe until it is gone.
        let mut rest = String::new();
        let (ended, end) = std::sync::mpsc::channel();
        std::thread::spawn(move || ended.send(output.read_to_string(&mut rest).is_ok()));
        let soon = Duration::from_secs(20);
        assert_eq!(end.recv_timeout(soon), Ok(true), "the server lives on");
        let image = std::fs::read(dir.path().join("x.img")).expect("the image");
        assert!(image[..4096] == bytes(1, 4096), "it stopped in order");
        ServerBuilder::new(dir.path())
            .file(&dir.path().join("x.img"), "1M")
            .start()
            .stop_clean();
    }
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_second_export_may_have_another_size() {
    let dir = folder();
    let (a, b) = (dir.path().join("a.img"), dir.path().join("b.img"));
    std::fs::write(&b, bytes(1, 2 << 20)).expect("an image");
    let server = ServerBuilder::new(dir.path())
        .file(&a, "1M")
        .option("--export", format!("b={}", b.display()))
        .start();
    assert_eq!(server.client().export().size, 1 << 20);
    server.stop_clean();
}
