use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::{Process, run};

const SOON: Duration = Duration::from_secs(10);

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg(script);
    command
}

#[test]
fn output_and_status_are_captured() {
    let done = run(&mut shell("echo out; echo err >&2; exit 3"), SOON).expect_code(3);
    assert_eq!(
        (done.stdout.as_str(), done.stderr.as_str()),
        ("out\n", "err\n")
    );
}

#[test]
fn lines_come_in_order_and_the_signal_ends_it() {
    let mut child = Process::start(&mut shell("echo one; echo two; exec sleep 600"));
    assert_eq!(child.line(SOON), "one");
    assert_eq!(child.line(SOON), "two");
    assert!(child.is_running());
    assert!(child.memory_kib().resident_kib > 0);
    child.signal(Signal::SIGTERM);
    assert_eq!(child.wait(SOON).status.code(), None);
}

#[test]
#[should_panic(expected = "still running after")]
fn a_wait_has_a_deadline() {
    drop(Process::start(&mut shell("exec sleep 600")).wait(Duration::from_millis(50)));
}

#[test]
fn a_drop_leaves_no_grandchild() {
    let mut child = Process::start_group(&mut shell("sleep 600 & echo $!; wait"));
    let grandchild = nix::unistd::Pid::from_raw(child.line(SOON).parse().expect("a pid"));
    drop(child);
    super::eventually("the grandchild is gone", SOON, || {
        let stat = std::fs::read_to_string(format!("/proc/{grandchild}/stat")).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    });
}
