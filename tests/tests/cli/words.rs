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
    assert!(
        said.contains("its 1 connection keeps the old size:"),
        "{said}"
    );
    drop(client);
    fs::write(
        dir.path().join("events"),
        "time=1us rule=1 at=request export= conn=1 command=read offset=0 length=512 occurrence=1: error=EIO\n",
    )
    .expect("a file");
    drop(ok(&server, "fault replay events"));
    for (line, wanted) in [
        ("fault list", "replay: 1 of 1 requests are still to come"),
        ("status", "replay: 1 of 1 request is still to come"),
    ] {
        let text = ok(&server, line);
        assert!(text.contains(wanted), "{line}: {text}");
    }
    assert_eq!(ok(&server, "fault clear"), "1 removed\n");
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

/// `weir WORDS`, which must fail with 1 and one line.
#[track_caller]
fn refusal(dir: &Path, words: &[&str]) -> String {
    let done = weir_in(dir, words).expect_code(1);
    assert_eq!(done.stderr.lines().count(), 1, "{}", done.stderr);
    assert!(!done.stderr.contains("os error"), "{}", done.stderr);
    done.stderr
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_refusal_says_what_to_do_in_the_words_that_were_used() {
    let dir = folder();
    let quiet = ["--no-admin", "--listen", "127.0.0.1:0"];
    for (words, parts) in [
        (
            &["--export", "db=missing.img"][..],
            &["give size=SIZE (beside its source)"][..],
        ),
        (&["missing.img"], &["give --size SIZE"]),
        (
            &["no/such/x.img", "--size", "1M"],
            &["no folder no/such", "mkdir -p"],
        ),
        (
            &["memory:1M", "--listen", "unix:no/such/s"],
            &["no folder no/such", "mkdir -p", "--listen"],
        ),
        (
            &["--export", "db=memory:1M,cache-size=1"],
            &["export \"db\"", "too small"],
        ),
    ] {
        let words: Vec<_> = ["serve"]
            .iter()
            .chain(words)
            .chain(&quiet)
            .copied()
            .collect();
        let said = refusal(dir.path(), &words);
        for part in parts {
            assert!(said.contains(part), "{words:?}: {said}");
        }
        assert!(
            !words.contains(&"--export") || !said.contains("--size"),
            "{said}"
        );
    }
    for words in [
        &["connection", "kill", "x"][..],
        &["fault", "rm", "x"],
        &["serve", "memory:1M", "--max-connections", "x"],
    ] {
        let done = weir_in(dir.path(), words).expect_code(2);
        assert!(
            done.stderr.contains("\"x\" is no number"),
            "{}",
            done.stderr
        );
    }
    assert_eq!(fs::read_dir(dir.path()).expect("ours").count(), 0);
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn rules_and_sources_of_the_file_are_refused_with_their_line() {
    let dir = folder();
    let rest = "listen = [\"127.0.0.1:0\"]\nno-admin = true\n";
    for (text, wanted) in [
        (
            "source = \"memory:1M\"\nfault = [\"read delay=1s\",\n \"write error=EWHAT\"]",
            "weir.toml:5: fault \"write error=EWHAT\"",
        ),
        (
            "source = \"missing.img\"",
            "weir.toml:3: export \"\": missing.img",
        ),
        (
            "[[export]]\nname = \"a\"\nsource = \"memory:1M\"\n[[export]]\nname = \"b\"\nsource = \"no.img\"",
            "weir.toml:8: export \"b\": no.img doesn't exist; give size=SIZE",
        ),
    ] {
        for done in check_and_serve(dir.path(), &format!("{rest}{text}\n")) {
            assert_eq!(done.status.code(), Some(1), "{text}: {done:?}");
            assert!(done.stderr.contains(wanted), "{text}: {}", done.stderr);
        }
    }
    fs::write(
        dir.path().join("weir.toml"),
        format!("{rest}source = \"memory:1M\"\n"),
    )
    .expect("a file");
    let done = weir_in(dir.path(), ["config", "check", "weir.toml"]).expect_code(0);
    assert!(done.stdout.ends_with("good, 1 export\n"), "{}", done.stdout);
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_device_becomes_smaller_only_when_that_is_said() {
    let dir = folder();
    let server = server(dir.path());
    let client = server.client();
    let refused = server
        .control(["export", "resize", "", "4M"])
        .expect_code(1);
    for part in [
        "8388608 bytes (8M)",
        "4194304 (4M) would be lost",
        "--shrink",
    ] {
        assert!(refused.stderr.contains(part), "{}", refused.stderr);
    }
    assert_eq!(server.client().export().size, 8 << 20);
    let said = ok(&server, "export resize --shrink  4M");
    for part in [
        "export \"\" has 4194304 bytes now; what lay beyond is gone",
        "its 1 connection keeps the old size and gets errors beyond the end",
    ] {
        assert!(said.contains(part), "{said}");
    }
    drop(client);
    assert_eq!(server.client().export().size, 4 << 20);
    server.stop_clean();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn an_unknown_name_is_answered_with_the_nearest() {
    let dir = folder();
    let server = server(dir.path());
    for (words, part) in [
        (
            &["inject", "read_patr", "--", "true"][..],
            "did you mean read_part?",
        ),
        (
            &["point", "list", "func", "Nothing::like_it"],
            "`weir point list` shows all",
        ),
        (
            &["fault", "add", "write", "export=nobody", "error=EIO"],
            "there are \"\"",
        ),
    ] {
        let done = server.control(words.iter().copied()).expect_code(1);
        assert!(done.stderr.contains(part), "{words:?}: {}", done.stderr);
    }
    let status = ok(&server, "status");
    assert!(
        status.contains("faults: 0 rules, 0 points armed, 0 fired"),
        "{status}"
    );
    let first = status.lines().next().expect("a line");
    assert!(!first.contains("ns") && first.contains(", up "), "{first}");
    server.stop_clean();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn whoever_prints_dies_quietly_when_nobody_reads() {
    use std::os::unix::process::ExitStatusExt as _;
    let dir = folder();
    let server = server(dir.path());
    let admin = format!("unix:{}", dir.path().join("admin.sock").display());
    let toml = dir.path().join("weir.toml");
    fs::write(&toml, "source = \"memory:1M\"\n").expect("a file");
    let toml = toml.display().to_string();
    for words in [
        &["man"][..],
        &["completions", "bash"],
        &["fault", "help"],
        &["config", "check", &toml],
        &["status", "--admin", &admin],
        &["export", "list", "--admin", &admin, "--json"],
    ] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let done = Command::new(weir())
            .args(words)
            .stdout(writer)
            .output()
            .expect("a program");
        assert_eq!(
            done.status.signal(),
            Some(Signal::SIGPIPE as i32),
            "{words:?}: {done:?}"
        );
        assert!(done.stderr.is_empty(), "{words:?}: {done:?}");
    }
    server.stop_clean();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn several_servers_are_told_apart_by_process_and_exports() {
    let dir = folder();
    let start = |name: &str| {
        let mut command = Command::new(weir());
        command
            .args(["serve", "--export", &format!("{name}=memory:1M")])
            .args(["--listen", "127.0.0.1:0"])
            .env("XDG_RUNTIME_DIR", dir.path())
            .env_remove("RUNTIME_DIRECTORY");
        let mut process = Process::start(&mut command);
        process.line(SOON);
        process
    };
    let servers = [start("red"), start("blue")];
    let done = Command::new(weir())
        .arg("status")
        .env("XDG_RUNTIME_DIR", dir.path())
        .env_remove("RUNTIME_DIRECTORY")
        .env_remove("WEIR_ADMIN")
        .output()
        .expect("a program");
    let said = String::from_utf8_lossy(&done.stderr);
    for (server, name) in servers.iter().zip(["red", "blue"]) {
        let part = format!("(process {}, exports: \"{name}\")", server.pid());
        assert!(said.contains(&part), "{said}");
    }
    for server in servers {
        server.signal(Signal::SIGTERM);
        drop(server.wait(SOON).expect_code(0));
    }
}
