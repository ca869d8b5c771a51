//! The page cache against a flat vector, with everything at the same time.
//!
//! A [`Case`] is rounds of steps that run together, each as a request of a connection of its own: reads, writes,
//! zeroes, trims, flushes, cached and past the cache, on ranges that overlap or share pages, while the device may be
//! resized or shifted and its store fails. When all are answered, each byte must be what one of the steps put there. It
//! may also be what it was before, if no step that was to change it has succeeded. What a FLUSH or a FUA has promised
//! must be durable, and the quota must add up.
//!
//! Steps are cut out of a failing case until it can't be made smaller. `WEIR_MODEL_SEED=N` runs that seed alone,
//! `WEIR_MODEL_SEEDS=N` so many, from 0 or from `WEIR_MODEL_SEED` on. [`one_schedule`] is deterministic: one thread,
//! paused time, and delays of the store drawn from the case's seed. [`real_threads`] plays the same cases on four of
//! them, in real time. [`points`] plays some with an error injected at each point of the code in turn.

use std::time::Duration;

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use weir_faults::Faults;

mod act;
mod bench;
mod case;
mod expected;
mod points;

use bench::{Bench, Injection, ROUND_LIMIT};
use case::{Case, any_case};

/// A seed's cases; each takes some hundredths of a second.
const CASES: u32 = 24;
const SEEDS: u64 = 4;
/// How long a failing case is made smaller.
const SHRINK_MILLIS_MAX: u32 = 60_000;

async fn play(
    case: &Case,
    delay_max: Duration,
    faults: &Faults,
    injection: Option<&Injection>,
) -> Result<(), String> {
    let mut bench = Bench::open(&case.setup, delay_max, faults, injection);
    for (number, round) in case.rounds.iter().enumerate() {
        let played = tokio::time::timeout(ROUND_LIMIT, bench.round(round)).await;
        let ended = played.unwrap_or_else(|_| Err("it doesn't end".to_owned()));
        ended.map_err(|error| format!("round {number}: {error}"))?;
    }
    bench.end().await
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// Draws and plays the cases of a seed, and makes one that fails smaller.
fn runner(seed: u64) -> TestRunner {
    let config = Config {
        cases: CASES,
        failure_persistence: None,
        max_shrink_time: SHRINK_MILLIS_MAX,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    TestRunner::new_with_rng(config, rng)
}

/// The seeds that are asked for, or so many from 0 on.
fn seeds(most: u64) -> impl Iterator<Item = u64> {
    let first = number("WEIR_MODEL_SEED");
    let seeds = number("WEIR_MODEL_SEEDS").unwrap_or(first.map_or(most, |_| 1));
    (0..seeds).map(move |run| first.unwrap_or(0).wrapping_add(run))
}

/// Plays the cases of each seed.
fn check(runtime: impl Fn() -> tokio::runtime::Runtime, delay_max: Duration) {
    for seed in seeds(SEEDS) {
        let outcome = runner(seed).run(&any_case(), |case| {
            let faults = Faults::new();
            let played = play(&case, delay_max, &faults, None);
            runtime().block_on(played).map_err(TestCaseError::fail)
        });
        match outcome {
            Ok(()) => {}
            Err(TestError::Fail(reason, case)) => {
                panic!("WEIR_MODEL_SEED={seed} fails: {reason}\n{case:#?}")
            }
            Err(TestError::Abort(reason)) => panic!("WEIR_MODEL_SEED={seed} stops: {reason}"),
        }
    }
}

/// One thread and paused time.
fn paused() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().unwrap()
}

/// What a store may take for a call in paused time.
const DELAY_MAX: Duration = Duration::from_millis(5);

#[test]
fn one_schedule() {
    check(paused, DELAY_MAX);
}

#[test]
fn real_threads() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(4).enable_time().build().unwrap()
    };
    check(runtime, Duration::from_micros(200));
}
