//! `weir inject`: one function fails while a command runs, and no longer, however that ends.

use std::time::Duration;

use nix::sys::signal::Signal;
use weir_tests::client::Errno;
use weir_tests::client::wire::{EIO, ENOSPC};
use weir_tests::process::Process;
use weir_tests::server::weir;

use crate::support::{Rig, SOON};

const FUNCTION: &str = "FaultedBackend::flush";

#[track_caller]
fn assert_disarmed(rig: &Rig) {
    let listed = rig.ok("point list kind function");
    for line in listed.lines() {
        assert!(line.ends_with(" state=off"), "{line}");
    }
    rig.client().flush().expect("a flush");
}

/// `weir inject FUNCTION OPTIONS -- sh -c SCRIPT`; `$weir` is the program.
fn inject(rig: &Rig, options: &[&str], script: &str) -> Process {
    let mut words = vec!["inject", FUNCTION];
    words.extend(options);
    words.extend(["--", "sh", "-c", script]);
    let mut command = rig.server.control_command(words);
    Process::start_group(command.env("weir", weir()))
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn it_fails_while_the_command_runs_and_the_status_is_passed_on() {
    let rig = Rig::new();
    let script = r#""$weir" point list kind function; echo ready; exit 7"#;
    let done = inject(&rig, &["--error", "ENOSPC"], script)
        .wait(SOON)
        .expect_code(7);
    let armed: Vec<_> = done
        .stdout
        .lines()
        .filter(|line| line.contains("state=") && !line.ends_with(" state=off"))
        .collect();
    assert_eq!(armed.len(), 1, "{armed:?}");
    assert!(armed[0].ends_with("state=error ENOSPC"), "{armed:?}");
    assert!(armed[0].contains("faulted_backend.rs"), "{armed:?}");
    assert_disarmed(&rig);
    inject(&rig, &[], "true").wait(SOON).expect_code(0);
    assert_disarmed(&rig);
    rig.finish();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_client_meets_the_error_meanwhile() {
    let rig = Rig::new();
    for (options, expected) in [
        (&[][..], Err(Errno(EIO))),
        (&["--error", "ENOSPC"], Err(Errno(ENOSPC))),
        (&["--within", "flush"], Err(Errno(EIO))),
        (&["--within", "read"], Ok(())),
    ] {
        let mut running = inject(&rig, options, "echo ready; exec sleep 600");
        assert_eq!(running.line(SOON), "ready");
        let mut client = rig.client();
        client.write(0, &[1; 4096]).expect("a write");
        assert_eq!(client.flush(), expected, "{options:?}");
        running.signal(Signal::SIGTERM);
        // As a shell has it: 128 and the signal that ended the command.
        running.wait(SOON).expect_code(128 + 15);
        assert_disarmed(&rig);
    }
    rig.finish();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn it_is_disarmed_however_the_command_ends() {
    let rig = Rig::new();
    for (signal, number) in [(Signal::SIGINT, 2), (Signal::SIGHUP, 1)] {
        let mut running = inject(&rig, &[], "echo ready; exec sleep 600");
        assert_eq!(running.line(SOON), "ready");
        running.signal(signal);
        running.wait(SOON).expect_code(128 + number);
        assert_disarmed(&rig);
    }
    inject(&rig, &[], "kill -9 $$")
        .wait(SOON)
        .expect_code(128 + 9);
    assert_disarmed(&rig);
    inject(&rig, &["--timeout", "50ms"], "exec sleep 600")
        .wait(SOON)
        .expect_code(124);
    assert_disarmed(&rig);
    // One that won't listen is killed, and has the status of that.
    let stubborn = "trap '' TERM; echo ready; exec sleep 600";
    let patience = ["--timeout", "200ms", "--kill-after", "50ms"];
    let mut running = inject(&rig, &patience, stubborn);
    assert_eq!(running.line(SOON), "ready");
    running.wait(SOON).expect_code(128 + 9);
    assert_disarmed(&rig);
    // A delay lets it succeed late.
    let begun = std::time::Instant::now();
    let mut running = inject(&rig, &["--delay", "50ms"], "echo ready; exec sleep 600");
    assert_eq!(running.line(SOON), "ready");
    let mut client = rig.client();
    client.write(0, &[1; 4096]).expect("a write");
    client.flush().expect("late, but well");
    assert!(begun.elapsed() >= Duration::from_millis(50));
    running.signal(Signal::SIGTERM);
    running.wait(SOON).expect_code(128 + 15);
    rig.refused(
        &format!("inject {FUNCTION} -- no-such-program"),
        &["no-such-program"],
    );
    assert_disarmed(&rig);
    rig.finish();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn every_function_can_be_meant_as_the_list_prints_it() {
    let rig = Rig::new();
    let points = rig.json("point list kind function");
    let points = points.as_array().expect("an array");
    for point in points {
        let function = point["function"].as_str().expect("a name");
        rig.ok(&format!("inject {function} -- true"));
    }
    assert!(points.len() >= 5, "{points:?}");
    rig.refused(
        "inject flush -- true",
        &["2 functions", "/flush.rs", "faulted_backend.rs"],
    );
    assert_disarmed(&rig);
    rig.finish();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn what_cannot_be_injected_is_refused_and_the_command_never_runs() {
    let rig = Rig::new();
    for (words, part) in [
        ("inject nothing -- touch ran", "nothing"),
        (
            "inject FaultedBackend::flush --error ENOENT -- touch ran",
            "ENOENT",
        ),
        (
            "inject FaultedBackend::flush --error EWHAT -- touch ran",
            "EWHAT",
        ),
        (
            "inject FaultedBackend::flush --within surf -- touch ran",
            "surf",
        ),
        (
            "inject FaultedBackend::flush --delay soon -- touch ran",
            "soon",
        ),
    ] {
        rig.refused(words, &[part]);
    }
    for words in [
        &["inject", FUNCTION][..],
        &[
            "inject",
            FUNCTION,
            "--timeout",
            "soon",
            "--",
            "touch",
            "ran",
        ],
    ] {
        rig.server.control(words).expect_code(2);
    }
    assert!(!rig.folder().join("ran").exists());
    assert_disarmed(&rig);
    rig.finish();
}
