//! The power fails while clients write: see [`weir_tests::crash`].
//!
//! `WEIR_CRASH_SEED=N` runs that seed alone and says what happened; `WEIR_CRASH_RUNS=N` runs so many seeds, from 0 or
//! from `WEIR_CRASH_SEED` on.

use weir_tests::crash::{Plan, run, shrink};
use weir_tests::environment::number;

/// A quarter of the time that the crash tests may take, in a debug build on two cores.
const RUNS: u64 = 2000;

fn check(seed: u64) {
    let plan = Plan::new(seed);
    if let Err(failure) = run(&plan) {
        panic!("{}", shrink::report(&plan, failure));
    }
}

#[test]
fn no_power_cut_breaks_a_promise() {
    let (first, runs) = (number("WEIR_CRASH_SEED"), number("WEIR_CRASH_RUNS"));
    if let (Some(seed), None) = (first, runs) {
        println!("{}", shrink::describe(&Plan::new(seed)));
        check(seed);
        println!(
            "{}",
            run(&Plan::new(seed)).expect("it passed").trace.join("\n")
        );
        return;
    }
    let first = first.unwrap_or(0);
    for run in 0..runs.unwrap_or(RUNS) {
        check(first.wrapping_add(run));
    }
}

#[test]
fn one_seed_is_one_schedule() {
    for seed in 0..20 {
        let digests = [0; 2].map(|_| {
            let outcome = run(&Plan::new(seed));
            outcome
                .unwrap_or_else(|failure| panic!("seed {seed}: {failure}"))
                .digest
        });
        assert_eq!(digests[0], digests[1], "seed {seed}");
    }
}
