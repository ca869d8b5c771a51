//! What is said of what goes wrong, or could.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use weir_tests::client::{Client, Options, Socket};
use weir_tests::pattern::bytes;
use weir_tests::process::{Finished, Process, eventually};
use weir_tests::server::{Server, ServerBuilder, weir, weir_in};

use crate::folder;

/// Longer than any of it takes.
const SOON: Duration = Duration::from_secs(30);

fn server(dir: &Path) -> Server {
    ServerBuilder::new(dir)
        .file(&dir.join("x.img"), "8M")
        .option("--cache-size", "4M")
        .admin_at(format!("unix:{}", dir.join("admin.sock").display()))
        .start()
}

/// `weir LINE`, which must succeed.
#[track_caller]
fn ok(server: &Server, line: &str) -> String {
    server.control(line.split(' ')).expect_code(0).stdout
}

/// What `weir config check` and then `weir serve` say of a file with this text.
fn check_and_serve(dir: &Path, text: &str) -> [Finished; 2] {
    fs::write(dir.join("weir.toml"), text).expect("a file");
    let check = weir_in(dir, ["config", "check", "weir.toml"]);
    [check, weir_in(dir, ["serve", "--config", "weir.toml"])]
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn config_check_refuses_what_serve_refuses_in_the_same_words() {
    let dir = folder();
    fs::write(dir.path().join("x.img"), bytes(1, 1 << 20)).expect("an image");
    let rest = "listen = [\"127.0.0.1:0\"]\nno-admin = true\n";
    for (text, part) in [
        (
            "source = \"memory:1M\"\nfault = [\"write error=EWHAT\"]",
            "EWHAT",
        ),
        (
            "source = \"memory:1M\"\nfault = [\"write export=no error=EIO\"]",
            "no",
        ),
        (
            "source = \"memory:1M\"\nfault = [\"write misdirect=1M\"]",
            "beyond the end",
        ),
        ("source = \"missing.img\"", "missing.img"),
        ("source = \"x.img\"\nsize = \"2M\"", "1048576"),
        (
            "source = \"/dev/weir-no-such-disk\"\nsize = \"1M\"",
            "check the device's name",
        ),
        ("source = \"/dev/null\"", "/dev/null"),
        ("source = \"memory:0\"", "memory:0"),
        ("source = \"memory:1M\"\ncache-size = 1", "--cache-size"),
        (
            "size = \"1M\"\n[[export]]\nname = \"a\"\nsource = \"x.img\"",
            "NAME=SOURCE,size=1M",
        ),
        ("sise = 1", "did you mean \"size\""),
    ] {
        let [check, serve] = check_and_serve(dir.path(), &format!("{rest}{text}\n"));
        for done in [&check, &serve] {
            assert_eq!(done.status.code(), Some(1), "{text}: {done:?}");
            assert!(done.stderr.contains(part), "{text}: {}", done.stderr);
        }
        assert_eq!(check.stderr, serve.stderr, "{text}");
    }
    for (address, part) in [
        ("192.0.2.1:1", "192.0.2.1"),
        ("unix:no/such/s", "no/such"),
        ("unix:x.img", "no socket"),
    ] {
        let text = format!("source = \"memory:1M\"\nno-admin = true\nlisten = [\"{address}\"]\n");
        let [check, serve] = check_and_serve(dir.path(), &text);
        for done in [&check, &serve] {
            assert_eq!(done.status.code(), Some(1), "{text}: {done:?}");
            assert!(done.stderr.contains(part), "{text}: {}", done.stderr);
        }
    }
    assert_eq!(fs::read_dir(dir.path()).expect("ours").count(), 2);
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn no_file_is_created_among_the_devices() {
    let dir = folder();
    let name = format!("/dev/weir-no-such-disk-{}", std::process::id());
    for words in [&["serve", &name, "--size", "1M"][..], &["serve", &name]] {
        let listen = ["--no-admin", "--listen", "127.0.0.1:0"];
        let done = weir_in(dir.path(), words.iter().chain(&listen)).expect_code(1);
        let created = Path::new(&name).exists();
        drop(fs::remove_file(&name));
        assert!(!created, "{words:?}");
        assert!(!done.stderr.contains("--size"), "{}", done.stderr);
    }
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn what_is_odd_about_an_image_is_pointed_out_in_one_line() {
    for (head, size, wanted) in [
        (&b"QFI\xfb\0\0\0\x03"[..], 2 << 20, "this is a qcow2 image"),
        (b"vhdxfile", 2 << 20, "this is a VHDX image"),
        (b"", 10, "the device has 10 bytes only"),
        (b"LUKS\xba\xbe", 2 << 20, ""),
    ] {
        let dir = folder();
        let image = dir.path().join("x.img");
        fs::write(&image, head).expect("an image");
        let file = fs::File::options().write(true).open(&image);
        file.and_then(|file| file.set_len(size)).expect("ours");
        let builder = ServerBuilder::new(dir.path()).arg(&image);
        let done = builder.start().stop_clean();
        let warnings: Vec<_> = done
            .stderr
            .lines()
            .filter(|line| line.contains(" WARN ") && line.contains("x.img"))
            .filter(|line| !line.contains("direct I/O") && !line.contains("this file system"))
            .collect();
        match wanted {
            "" => assert!(warnings.is_empty(), "{warnings:?}"),
            _ => assert!(
                warnings.len() == 1 && warnings[0].contains(wanted),
                "{wanted}: {}",
                done.stderr
            ),
        }
    }
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_replay_a_power_cut_and_a_resize_can_be_seen() {
    let dir = folder();
    let server = ServerBuilder::new(dir.path())
        .file(&dir.path().join("x.img"), "8M")
        .arg("--power-cut")
        .admin_at(format!("unix:{}", dir.path().join("admin.sock").display()))
        .start();
    let client = server.client();
    let said = ok(&server, "export resize  16M");
    assert!(said.contains("1 connections keep the old size"), "{said}");
    drop(client);
    fs::write(
        dir.path().join("events"),
        "time=1us rule=1 at=request export= conn=1 command=read offset=0 length=512 occurrence=1: error=EIO\n",
    )
    .expect("a file");
    drop(ok(&server, "fault replay events"));
    let wanted = "replay: 1 of 1 requests are still to come";
    for line in ["fault list", "status"] {
        let text = ok(&server, line);
        assert!(text.contains(wanted), "{line}: {text}");
    }
    drop(ok(&server, "fault clear"));
    assert!(!ok(&server, "status").contains("replay"));
    drop(ok(&server, "device power-cut  keep=random seed=7"));
    let events = ok(&server, "fault events");
    let cut = events.lines().last().expect("an event");
    assert!(cut.contains(" device=: power-cut keep=random"), "{events}");
    assert!(cut.contains("seed=7"), "{events}");
    let refused = server.control(["fault", "add", "write", "misdirect=16M"]);
    assert!(refused.expect_code(1).stderr.contains("beyond the end"));
    server.stop_clean();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_store_that_refuses_everything_is_in_the_status() {
    let dir = folder();
    let server = server(dir.path());
    assert!(!ok(&server, "status").contains("can't write"));
    drop(ok(&server, "fault add write at=backend error=EIO"));
    let mut client = server.client();
    client.write(0, &bytes(1, 8192)).expect("in memory");
    client.flush().expect_err("the store refuses");
    let status = ok(&server, "status");
    assert!(
        status.contains("export \"\" can't write to its store: EIO, ")
            && status.contains("; 8K wait"),
        "{status}"
    );
    drop(ok(&server, "fault clear"));
    client.flush().expect("the store is well");
    let status = ok(&server, "status");
    assert!(!status.contains("can't write"), "{status}");
    server.stop_clean();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_stop_that_waits_says_for_what_and_how_to_end_it() {
    let dir = folder();
    let listen = format!("unix:{}", dir.path().join("s").display());
    let mut command = Command::new(weir());
    command
        .args([
            "serve",
            "x.img",
            "--size",
            "1M",
            "--no-admin",
            "--listen",
            &listen,
        ])
        .args(["--fault", "write at=backend hang"])
        .current_dir(dir.path());
    let mut process = Process::start(&mut command);
    let uri = process.line(SOON);
    let mut client = Client::negotiate(Socket::connect(&uri), &Options::default());
    client.write(0, &bytes(1, 8192)).expect("in memory");
    drop(client);
    process.signal(Signal::SIGTERM);
    let wanted = "still stopping: export \"\" (x.img) has 0 requests of clients to answer and 8192 bytes (8K) to make durable";
    eventually("it says what it waits for", SOON, || {
        process.stderr().contains(wanted)
    });
    assert!(
        process
            .stderr()
            .contains("a second SIGTERM or Ctrl-C ends it at once")
    );
    process.signal(Signal::SIGTERM);
    let done = process.wait(SOON).expect_code(1);
    let last = done.stderr.lines().last().expect("a line");
    assert!(
        last.contains("stopped at once by a second SIGTERM") && last.contains("8192 bytes"),
        "{last}"
    );
}
