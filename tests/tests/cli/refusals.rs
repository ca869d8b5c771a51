//! Words and things that `weir serve` can't work with.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use tempfile::TempDir;
use weir_tests::pattern::bytes;
use weir_tests::process::Finished;
use weir_tests::server::{ServerBuilder, weir_in};

/// For what the words themselves say.
const USAGE: i32 = 2;
/// For what is found out afterwards.
const REFUSED: i32 = 1;

fn folder() -> TempDir {
    tempfile::Builder::new()
        .prefix("weir-cli-")
        .tempdir()
        .expect("a temporary folder")
}

/// Runs `weir serve ...` in `dir`, on a socket of its own and without an admin port.
#[track_caller]
fn serve(dir: &Path, args: &[&str]) -> Finished {
    let listen = format!("unix:{}", dir.join("refused.sock").display());
    let words = ["serve"]
        .iter()
        .chain(args)
        .copied()
        .chain(["--listen", &listen, "--no-admin"]);
    weir_in(dir, words)
}

/// One line on stderr, with each of `parts` in it; nothing on stdout.
#[track_caller]
fn assert_refused(done: &Finished, code: i32, parts: &[&str]) {
    assert_eq!(done.status.code(), Some(code), "{done:?}");
    assert_eq!(done.stdout, "", "{done:?}");
    if code == REFUSED {
        assert_eq!(done.stderr.lines().count(), 1, "one line:\n{}", done.stderr);
    }
    for part in parts {
        assert!(
            done.stderr.contains(part),
            "nothing of {part:?} in:\n{}",
            done.stderr
        );
    }
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_missing_file_without_a_size() {
    let dir = folder();
    assert_refused(
        &serve(dir.path(), &["missing.img"]),
        REFUSED,
        &["missing.img", "--size"],
    );
    assert!(!dir.path().join("missing.img").exists());
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn no_size_at_all_creates_nothing_and_an_empty_file_is_told_as_such() {
    let dir = folder();
    let refused = serve(dir.path(), &["x.img", "--size", "0"]);
    assert_refused(&refused, REFUSED, &["x.img", "--size above 0"]);
    assert!(!dir.path().join("x.img").exists());
    fs::write(dir.path().join("x.img"), []).expect("an empty file");
    for words in [&["x.img", "--size", "1G"][..], &["x.img"]] {
        assert_refused(&serve(dir.path(), words), REFUSED, &["empty", "remove it"]);
    }
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_cache_that_no_machine_has() {
    let dir = folder();
    let words = ["memory:1M", "--cache-size", "100T"];
    assert_refused(&serve(dir.path(), &words), REFUSED, &["100T", "at most"]);
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_file_in_a_folder_that_is_missing() {
    let dir = folder();
    assert_refused(
        &serve(dir.path(), &["no/such/x.img", "--size", "1M"]),
        REFUSED,
        &["no/such"],
    );
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_size_that_differs_from_the_file() {
    let dir = folder();
    let image = dir.path().join("x.img");
    let data = bytes(1, 1 << 20);
    fs::write(&image, &data).expect("an image");
    for size in ["2M", "512k"] {
        assert_refused(
            &serve(dir.path(), &["x.img", "--size", size]),
            REFUSED,
            &["x.img", "1048576"],
        );
        assert!(
            fs::read(&image).expect("the image") == data,
            "a refusal has changed the image"
        );
    }
    // The same size is fine, whatever its unit.
    ServerBuilder::new(dir.path())
        .file(&image, "1024k")
        .start()
        .stop_clean();
    assert!(fs::read(&image).expect("the image") == data);
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn size_words_that_are_none() {
    let dir = folder();
    for size in [
        "",
        "x",
        "-1",
        "1X",
        "1.5",
        "10GG",
        "99999999999999999999",
        "16E1",
        "18446744073709551615T",
    ] {
        assert_refused(
            &serve(dir.path(), &["x.img", &format!("--size={size}")]),
            USAGE,
            &["--size"],
        );
    }
    assert_refused(
        &serve(dir.path(), &["x.img", "--size=1M", "--cache-size=plenty"]),
        USAGE,
        &["--cache-size", "plenty"],
    );
    assert!(!dir.path().join("x.img").exists());
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn unknown_options_and_values() {
    let dir = folder();
    assert_refused(
        &serve(dir.path(), &["x.img", "--sise", "1M"]),
        USAGE,
        &["--sise"],
    );
    assert_refused(
        &serve(dir.path(), &["x.img", "--size=1M", "--cache", "sometimes"]),
        USAGE,
        &["sometimes"],
    );
    assert_refused(
        &serve(
            dir.path(),
            &["x.img", "--size=1M", "--handshake-timeout", "soon"],
        ),
        USAGE,
        &["soon"],
    );
    assert_refused(
        &serve(
            dir.path(),
            &["x.img", "--size=1M", "--max-connections", "-3"],
        ),
        USAGE,
        &["-3"],
    );
    assert_refused(
        &serve(
            dir.path(),
            &["x.img", "--size=1M", "--export", "a=a.img,colour=red"],
        ),
        USAGE,
        &["colour"],
    );
    assert_refused(&weir_in(dir.path(), ["surf"]), USAGE, &["surf"]);
    let nothing = weir_in(dir.path(), Vec::<&str>::new());
    assert_eq!(nothing.status.code(), Some(USAGE), "{nothing:?}");
    assert!(
        !dir.path().join("x.img").exists(),
        "a refusal has left a file"
    );
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn addresses_that_are_none() {
    let dir = folder();
    for address in [
        "127.0.0.1",
        "127.0.0.1:99999",
        "tcp://127.0.0.1:1",
        "unix:",
        ":::",
    ] {
        let done = weir_in(
            dir.path(),
            ["serve", "memory:1M", "--no-admin", "--listen", address],
        );
        assert_refused(&done, USAGE, &[]);
    }
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_busy_port() {
    let dir = folder();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let done = weir_in(
        dir.path(),
        ["serve", "memory:1M", "--no-admin", "--listen", &address],
    );
    assert_refused(&done, REFUSED, &[&address]);
    let done = weir_in(
        dir.path(),
        [
            "serve",
            "memory:1M",
            "--listen",
            "127.0.0.1:0",
            "--admin",
            &address,
        ],
    );
    assert_refused(&done, REFUSED, &[&address]);
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_live_unix_socket_is_refused_and_a_stale_one_replaced() {
    let dir = folder();
    let builder = || ServerBuilder::new(dir.path()).arg("memory:1M");
    let server = builder().start();
    let socket = dir.path().join("weir.sock").display().to_string();
    let done = weir_in(
        dir.path(),
        [
            "serve",
            "memory:1M",
            "--no-admin",
            "--listen",
            &format!("unix:{socket}"),
        ],
    );
    assert_refused(&done, REFUSED, &[&socket]);
    server.assert_serving();
    server.kill();
    let server = builder().start();
    server.assert_serving();
    server.stop_clean();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_file_where_the_socket_should_be_is_kept() {
    let dir = folder();
    fs::write(dir.path().join("refused.sock"), "mine").expect("a file");
    assert_refused(
        &serve(dir.path(), &["memory:1M"]),
        REFUSED,
        &["refused.sock"],
    );
    assert_eq!(
        fs::read(dir.path().join("refused.sock")).expect("the file"),
        b"mine"
    );
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn an_export_named_twice() {
    let dir = folder();
    let done = serve(
        dir.path(),
        &[
            "--export",
            "db=a.img,size=1M",
            "--export",
            "db=b.img,size=1M",
        ],
    );
    assert_refused(&done, REFUSED, &["db", "twice"]);
    assert!(
        !dir.path().join("a.img").exists() && !dir.path().join("b.img").exists(),
        "a refusal has left a file"
    );
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn one_file_for_two_exports() {
    let dir = folder();
    let done = serve(
        dir.path(),
        &[
            "--export",
            "a=x.img,size=1M",
            "--export",
            "b=./x.img,size=1M",
        ],
    );
    assert_refused(&done, REFUSED, &["x.img"]);
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_folder_as_source() {
    let dir = folder();
    fs::create_dir(dir.path().join("folder")).expect("a folder");
    assert_refused(&serve(dir.path(), &["folder"]), REFUSED, &["folder"]);
    assert_refused(
        &serve(dir.path(), &["folder", "--size", "1M"]),
        REFUSED,
        &["folder"],
    );
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_device_that_is_no_disk() {
    let dir = folder();
    assert_refused(&serve(dir.path(), &["/dev/null"]), REFUSED, &["/dev/null"]);
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_file_that_another_weir_serves() {
    let dir = folder();
    let image = dir.path().join("x.img");
    let server = ServerBuilder::new(dir.path()).file(&image, "1M").start();
    assert_refused(&serve(dir.path(), &["x.img"]), REFUSED, &["x.img"]);
    server
        .client()
        .write(0, &bytes(2, 4096))
        .expect("the first goes on serving");
    server.stop_clean();
    assert!(fs::read(&image).expect("the image")[..4096] == bytes(2, 4096));
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn several_may_serve_one_file_read_only() {
    let dir = folder();
    let image = dir.path().join("x.img");
    fs::write(&image, bytes(3, 1 << 20)).expect("an image");
    let listen = format!("unix:{}", dir.path().join("second.sock").display());
    let one = ServerBuilder::new(dir.path())
        .arg(&image)
        .arg("--read-only")
        .start();
    let two = ServerBuilder::new(dir.path())
        .arg(&image)
        .arg("--read-only")
        .listen(listen)
        .start();
    two.assert_serving();
    one.assert_serving();
    assert_refused(&serve(dir.path(), &["x.img"]), REFUSED, &["x.img"]);
    one.stop_clean();
    two.stop_clean();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_file_that_may_not_be_read_or_written() {
    let dir = folder();
    let image = dir.path().join("x.img");
    fs::write(&image, bytes(4, 1 << 20)).expect("an image");
    if fs::metadata("/proc/self").expect("/proc").uid() == 0 {
        // Root may read anything by its mode, so take what nobody may write: a file of the kernel's.
        assert_refused(
            &serve(dir.path(), &["/proc/version", "--size", "1M"]),
            REFUSED,
            &["/proc/version"],
        );
        return;
    }
    for (mode, flag) in [(0o000, None), (0o444, None), (0o000, Some("--read-only"))] {
        fs::set_permissions(&image, fs::Permissions::from_mode(mode)).expect("the file is ours");
        let args: Vec<&str> = ["x.img"].into_iter().chain(flag).collect();
        assert_refused(&serve(dir.path(), &args), REFUSED, &["x.img"]);
    }
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn faults_that_are_none() {
    let dir = folder();
    for rule in [
        "write",
        "write error=EWHAT",
        "chew error=EIO",
        "read p=200% error=EIO",
        "flush tear=512",
        "read lose",
    ] {
        let done = serve(dir.path(), &["memory:1M", "--fault", rule]);
        assert!(
            matches!(done.status.code(), Some(USAGE | REFUSED)),
            "{rule}: {done:?}"
        );
        assert!(!done.stderr.is_empty(), "{rule}");
    }
    assert_refused(
        &serve(
            dir.path(),
            &["memory:1M", "--fault", "read export=nobody error=EIO"],
        ),
        REFUSED,
        &["nobody"],
    );
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_configuration_that_is_none() {
    let dir = folder();
    fs::write(dir.path().join("bad.toml"), "sise = 1\n").expect("a file");
    assert_refused(
        &serve(dir.path(), &["--config", "bad.toml"]),
        REFUSED,
        &["bad.toml", "sise"],
    );
    assert_refused(
        &serve(dir.path(), &["--config", "missing.toml"]),
        REFUSED,
        &["missing.toml"],
    );
    let done = weir_in(dir.path(), ["config", "check", "bad.toml"]);
    assert_refused(&done, REFUSED, &["bad.toml", "sise"]);
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_control_command_without_a_server() {
    let dir = folder();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    drop(taken);
    let done = weir_in(dir.path(), ["status", "--admin", &address]);
    assert_refused(&done, REFUSED, &[&address]);
}
