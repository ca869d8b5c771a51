//! What each signal does to a real server, and what it keeps of the data.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use weir_tests::client::wire::{CMD_READ, CMD_WRITE};
use weir_tests::pattern::bytes;
use weir_tests::process::{eventually, run};
use weir_tests::server::{Server, ServerBuilder, weir_in};

/// How long a log line may take.
const SOON: Duration = Duration::from_secs(20);
/// Where the data of these tests lies, and how much it is.
const OFFSET: u64 = 12_345;
const LENGTH: usize = 1 << 20;

/// Signals 32 and 33 are glibc's own; its `posix_spawn` has children ignore them.
const GLIBC_OWN: u64 = 0b11 << 31;

/// Starts what follows with every disposition at its default: whoever runs the tests may ignore some.
const DEFAULTS: [&str; 2] = ["env", "--default-signal"];

fn folder() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix("weir-cli-")
        .tempdir()
        .expect("a temporary folder")
}

fn builder(dir: &Path) -> ServerBuilder {
    ServerBuilder::new(dir)
        .wrapper(DEFAULTS)
        .file(&dir.join("x.img"), "4M")
}

/// Writes what no FLUSH covers, and leaves the client attached.
#[track_caller]
fn write(server: &Server) -> weir_tests::client::Client {
    let mut client = server.client();
    client.write(OFFSET, &bytes(1, LENGTH)).expect("a write");
    client
}

#[track_caller]
fn assert_written(dir: &Path) {
    let image = fs::read(dir.join("x.img")).expect("the image");
    let at = usize::try_from(OFFSET).expect("small");
    assert!(
        image[at..][..LENGTH] == bytes(1, LENGTH),
        "acknowledged data is lost"
    );
}

#[track_caller]
fn wait_for_log(server: &Server, text: &str) {
    eventually(text, SOON, || server.log().contains(text));
}

/// A field of `/proc/PID/status` that is a set of signals.
fn signal_set(status: &str, name: &str) -> u64 {
    let text = status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .unwrap_or_else(|| panic!("{name} in {status:?}"));
    u64::from_str_radix(text.trim_start_matches(':').trim(), 16).expect("hexadecimal")
}

fn bit(signal: Signal) -> u64 {
    1 << (signal as i32 - 1)
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn every_signal_that_ends_a_server_flushes_first() {
    for signal in [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGHUP,
        Signal::SIGPWR,
        Signal::SIGXCPU,
    ] {
        let dir = folder();
        let server = builder(dir.path()).start();
        let _client = write(&server);
        server.signal(signal);
        let done = server.wait().expect_code(0);
        assert!(
            done.stderr.contains(&format!("{signal}: stopping")),
            "{}",
            done.stderr
        );
        assert_written(dir.path());
    }
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn no_other_signal_ends_a_server() {
    let dir = folder();
    let server = builder(dir.path()).start();
    let mut client = write(&server);
    let silent = [Signal::SIGXFSZ, Signal::SIGPIPE];
    let logged = [
        Signal::SIGUSR2,
        Signal::SIGALRM,
        Signal::SIGVTALRM,
        Signal::SIGPROF,
        Signal::SIGIO,
        Signal::SIGSTKFLT,
    ];
    for signal in silent.into_iter().chain(logged) {
        server.signal(signal);
    }
    for signal in logged {
        wait_for_log(&server, &format!("{signal}: means nothing"));
    }
    for number in [0, 1, 15, 30] {
        let script = format!("kill -s RTMIN+{number} {}", server.pid());
        // A shell that counts from RTMAX names the upper half so.
        let script = match number {
            0 => script.replace("+0", ""),
            30 => script.replace("RTMIN+30", "RTMAX"),
            _ => script,
        };
        run(Command::new("bash").args(["-c", &script]), SOON).expect_code(0);
        wait_for_log(&server, &format!("SIGRTMIN+{number}: means nothing"));
    }
    assert_eq!(
        client
            .read(OFFSET, u32::try_from(LENGTH).expect("small"))
            .expect("it serves"),
        bytes(1, LENGTH)
    );
    server.stop_clean();
    assert_written(dir.path());
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn usr1_tells_the_log_what_is_served_dirty_and_connected() {
    let dir = folder();
    let server = builder(dir.path()).start();
    let mut client = server.client();
    client.write(0, &bytes(1, 3 * 4096)).expect("a write");
    server.signal(Signal::SIGUSR1);
    wait_for_log(&server, "state: 1 connection");
    let log = server.log();
    let export = log
        .lines()
        .find(|line| line.contains("state: export"))
        .unwrap_or_else(|| panic!("{log}"));
    assert!(
        export.contains("x.img") && export.contains(" 12288 dirty"),
        "{export}"
    );
    assert!(log.contains("state: connection 1: "), "{log}");
    server.stop_clean();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn hup_with_a_configuration_file_stops_nothing_and_says_what_to_do() {
    let dir = folder();
    fs::write(dir.path().join("weir.toml"), "cache = \"writeback\"\n").expect("a file");
    let server = builder(dir.path()).option("--config", "weir.toml").start();
    let _client = write(&server);
    server.signal(Signal::SIGHUP);
    wait_for_log(
        &server,
        "SIGHUP: goes on with the configuration that it has",
    );
    wait_for_log(&server, "weir config check weir.toml");
    server.assert_serving();
    server.stop_clean();
    assert_written(dir.path());
}

/// As `nohup` does it for what is to outlive a terminal.
#[test]
#[ignore = "needs the release build; run by tests/run"]
fn what_was_ignored_at_the_start_stays_ignored() {
    let dir = folder();
    let server = builder(dir.path())
        .wrapper(["env", "--default-signal", "--ignore-signal=HUP,USR1"])
        .start();
    let _client = write(&server);
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("it runs");
    let ignored = signal_set(&status, "SigIgn");
    for signal in [Signal::SIGHUP, Signal::SIGUSR1] {
        assert!(ignored & bit(signal) != 0, "{signal} is handled: {status}");
        server.signal(signal);
    }
    server.assert_serving();
    server.stop_clean();
    assert_written(dir.path());
}

/// A script ignores them for what it starts in the background, so that a terminal's keys don't reach it.
#[test]
#[ignore = "needs the release build; run by tests/run"]
fn who_sends_one_by_its_number_means_the_server() {
    for signal in [Signal::SIGINT, Signal::SIGQUIT] {
        let dir = folder();
        let server = builder(dir.path())
            .wrapper(["env", "--ignore-signal=INT,QUIT"])
            .start();
        let _client = write(&server);
        server.signal(signal);
        server.wait().expect_code(0);
        assert_written(dir.path());
    }
}

/// The Linux kernel hands ESHUTDOWN up as an I/O error, and has no use for a reset either.
#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_stop_answers_what_was_received_and_closes_without_a_word() {
    for address in ["127.0.0.1:0", "unix:s"] {
        let dir = folder();
        let server = builder(dir.path())
            .listen(address)
            .admin()
            .option("--fault", "read delay=1s")
            .option("--fault", "write delay=1s")
            .start();
        let mut client = server.client();
        let mut cookies = Vec::new();
        for at in 0..16 {
            let data = bytes(at, 4096);
            cookies.push(client.send(CMD_WRITE, 0, at * 4096, 4096, &data));
            cookies.push(client.send(CMD_READ, 0, (2 << 20) + at * 4096, 4096, &[]));
        }
        eventually("all is received", SOON, || {
            let list = server.control(["connection", "list", "--json"]);
            let list: serde_json::Value = serde_json::from_str(&list.stdout).expect("JSON");
            list[0]["traffic"]["received"].as_u64().expect("a number") >= 16 * 4096 + 32 * 28
        });
        server.signal(Signal::SIGTERM);
        wait_for_log(&server, "SIGTERM: stopping");
        // Too late to be answered.
        client.send(CMD_READ, 0, 0, 512, &[]);
        for (cookie, reply) in client.receive_all(&cookies) {
            assert_eq!(reply.error, None, "{cookie:#x}");
        }
        client.socket().expect_closed();
        server.wait().expect_code(0);
        let image = fs::read(dir.path().join("x.img")).expect("the image");
        assert!((0..16_usize).all(|at| image[at * 4096..][..4096] == bytes(at as u64, 4096)));
    }
}

/// A closing terminal sends HUP from its shell and from the kernel, and a session manager TERM on top.
#[test]
#[ignore = "needs the release build; run by tests/run"]
fn only_a_second_signal_of_a_person_stops_at_once() {
    let dir = folder();
    let server = builder(dir.path())
        .option("--fault", "write at=backend delay=1h")
        .start();
    let _client = write(&server);
    server.signal(Signal::SIGHUP);
    wait_for_log(&server, "SIGHUP: stopping");
    for signal in [Signal::SIGHUP, Signal::SIGXCPU, Signal::SIGTERM] {
        server.signal(signal);
        wait_for_log(&server, &format!("{signal}: stopping already"));
    }
    // At once it is the same one sent twice, as by timeout(1); later it is a second one.
    server.signal(Signal::SIGTERM);
    let twice = || server.log().matches("SIGTERM: stopping already").count() == 2;
    eventually("the same one is told as such", SOON, twice);
    eventually("a later one ends it", SOON, || {
        server.signal(Signal::SIGTERM);
        server.log().contains("stopped at once")
    });
    let done = server.wait().expect_code(1);
    let said = done
        .stderr
        .lines()
        .any(|line| line.contains("a second SIGTERM") && line.contains("not durable"));
    assert!(said, "{}", done.stderr);
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_command_starts_with_the_dispositions_that_the_server_started_with() {
    let dir = folder();
    for (ignored, expected) in [
        ("--default-signal", 0),
        ("--ignore-signal=USR2", bit(Signal::SIGUSR2)),
    ] {
        let server = [
            "serve",
            "memory:1M",
            "--no-admin",
            "--listen",
            "unix:s",
            "--run",
            "exec cat /proc/self/status",
        ];
        let mut command = Command::new("env");
        command
            .args(["--default-signal", ignored])
            .arg(weir_tests::server::weir())
            .args(server)
            .current_dir(dir.path());
        let done = run(&mut command, SOON).expect_code(0);
        let ignored = signal_set(&done.stdout, "SigIgn") & !GLIBC_OWN;
        assert_eq!(ignored, expected, "{}", done.stdout);
        assert_eq!(signal_set(&done.stdout, "SigBlk"), 0, "{}", done.stdout);
        assert_eq!(signal_set(&done.stdout, "SigCgt"), 0, "{}", done.stdout);
    }
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn the_help_says_what_signals_do() {
    let done = weir_in(folder().path(), ["serve", "--help"]).expect_code(0);
    for word in ["SIGTERM", "SIGHUP", "SIGUSR1"] {
        assert!(done.stdout.contains(word), "{word} in {}", done.stdout);
    }
}
