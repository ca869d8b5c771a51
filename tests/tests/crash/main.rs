//! The power fails while clients write: see [`weir_tests::crash`].
//!
//! `WEIR_CRASH_SEED=N` runs that seed alone and says what happened; `WEIR_CRASH_RUNS=N` runs so many seeds.

use std::env;

use weir_tests::crash::{Plan, run, shrink};

/// A quarter of the time that the crash tests may take, in a debug build on two cores.
const RUNS: u64 = 2000;

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is no number")),
    )
}

fn check(seed: u64) {
    let plan = Plan::new(seed);
    if let Err(failure) = run(&plan) {
        panic!("{}", shrink::report(&plan, failure));
    }
}

#[test]
fn no_power_cut_breaks_a_promise() {
    if let Some(seed) = number("WEIR_CRASH_SEED") {
        println!("{}", shrink::describe(&Plan::new(seed)));
        check(seed);
        println!(
            "{}",
            run(&Plan::new(seed)).expect("it passed").trace.join("\n")
        );
        return;
    }
    for seed in 0..number("WEIR_CRASH_RUNS").unwrap_or(RUNS) {
        check(seed);
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
