//! The conductor of the soak, as a program, with a stand-in for cargo: how it ends, and what it says then.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use weir_tests::process::{Finished, Process, run};

const TIMEOUT: Duration = Duration::from_secs(60);

/// The program, with turns that end as `turns` says.
fn soak(turns: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_soak"));
    let cargo = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/soak/cargo.sh");
    command
        .env("CARGO", cargo)
        .env("SOAK_TEST", turns)
        .env("WEIR_BIN", "/nowhere")
        .args(["--seed", "7"])
        .args(arguments);
    command
}

fn expect(finished: &Finished, said: &[&str]) {
    for said in said {
        assert!(
            finished.stdout.contains(said),
            "no {said:?} in {finished:?}"
        );
    }
}

#[test]
fn a_turn_that_fails_ends_it_with_the_command_that_repeats_it() {
    let finished = run(&mut soak("fail", &["--only", "crash"]), TIMEOUT).expect_code(1);
    expect(
        &finished,
        &[
            "from seed 7 on\nit breaks\n",
            "crash, seeds 7 to 506: FAILED, exit status: 101\n",
            "to repeat it: WEIR_CRASH_SEED=7 WEIR_CRASH_RUNS=500 cargo test --workspace --locked --test crash ",
            "one turn has FAILED",
        ],
    );
}

#[test]
fn a_turn_that_runs_no_test_fails() {
    let finished = run(&mut soak("nothing", &["--only", "model"]), TIMEOUT).expect_code(1);
    expect(&finished, &["model, seed 7: FAILED, not one test has run"]);
}

#[test]
fn when_the_time_is_over_it_says_what_has_run() {
    let arguments = ["--only", "crash,model", "--time", "1s"];
    let finished = run(&mut soak("pass", &arguments), TIMEOUT).expect_code(0);
    expect(
        &finished,
        &[
            "crash, seeds 507 to 1006: ok",
            "model, seed 8: ok",
            "the time is over, nothing has failed\n",
            " turns, seeds 7 to ",
        ],
    );
}

#[test]
fn a_part_that_cannot_run_is_named() {
    let finished = run(&mut soak("pass", &["--only", "crash,kill"]), TIMEOUT).expect_code(2);
    expect(&finished, &["kill can't run here: no program /nowhere;"]);
    let finished = run(&mut soak("pass", &["--time", "1s"]), TIMEOUT).expect_code(0);
    expect(&finished, &["fuzz can't run here: ", "  crash: "]);
    let finished = run(&mut soak("pass", &["--list"]), TIMEOUT).expect_code(0);
    expect(&finished, &["power-cut", "can't run here: no program"]);
}

/// A soak in its first turn, which waits until its pipe is written to.
fn waiting(pipe: &Path) -> Process {
    mkfifo(pipe, Mode::S_IRWXU).expect("a pipe");
    let soak = Process::start(soak("wait", &["--only", "crash"]).env("SOAK_PIPE", pipe));
    let turn = fs::read_to_string(pipe).expect("the turn's number");
    assert!(turn.trim().parse::<u32>().is_ok(), "{turn:?}");
    soak
}

const ASKED: &str = "ends after this turn; asked once more, at once";

fn ask(soak: &mut Process) {
    soak.signal(Signal::SIGINT);
    while soak.line(TIMEOUT) != ASKED {}
}

#[test]
fn asked_to_end_it_lets_the_turn_end() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let pipe = folder.path().join("pipe");
    let mut soak = waiting(&pipe);
    ask(&mut soak);
    fs::write(&pipe, "go on\n").expect("somebody reads");
    let finished = soak.wait(TIMEOUT).expect_code(0);
    expect(
        &finished,
        &[
            "asked to end, nothing has failed\n",
            "  crash: 1 turns, seeds 7 to 506, ",
        ],
    );
}

#[test]
fn asked_twice_it_ends_at_once() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut soak = waiting(&folder.path().join("pipe"));
    ask(&mut soak);
    soak.signal(Signal::SIGTERM);
    let finished = soak.wait(TIMEOUT).expect_code(0);
    expect(&finished, &["asked to end, nothing has failed\n"]);
    assert!(!finished.stdout.contains("crash: "), "{finished:?}");
}
