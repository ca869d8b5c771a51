//! `soak [--hours H] [--seed S] [--runs N]`: the crash tests with ever new seeds.
//!
//! Prints how far it is now and then. At the first seed that fails it says how, makes the run smaller, says that too, and
//! ends with 1; `WEIR_CRASH_SEED=N cargo test -p weir-tests --test crash` plays it again.
//!
//! One core's work. For more, start more, each with a `--seed` of its own, far from the others'.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use weir_tests::crash::{Plan, run, shrink};

/// How often it says how far it is.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

#[derive(Debug, Parser)]
#[command(
    about = "Cuts the power of a cache, with ever new seeds, until one fails or the time is over"
)]
struct Arguments {
    /// How long.
    #[arg(long, default_value_t = 1.0)]
    hours: f64,
    /// The first seed; one follows another. Drawn if left out.
    #[arg(long)]
    seed: Option<u64>,
    /// No more than so many seeds.
    #[arg(long)]
    runs: Option<u64>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let first = arguments.seed.unwrap_or_else(weir_faults::rng::draw_seed);
    let begun = Instant::now();
    let most = Duration::from_secs_f64(arguments.hours * 3600.0);
    let mut reported = begun;
    let (mut runs, mut steps) = (0_u64, 0_usize);
    println!("from seed {first} on, for {most:?}");
    while begun.elapsed() < most && arguments.runs.is_none_or(|limit| runs < limit) {
        let plan = Plan::new(first.wrapping_add(runs));
        if let Err(failure) = run(&plan) {
            println!("seed {} fails: {failure}", plan.seed);
            println!("{}", shrink::report(&plan, failure));
            return ExitCode::FAILURE;
        }
        runs += 1;
        steps += plan.steps();
        if reported.elapsed() >= REPORT_INTERVAL {
            reported = Instant::now();
            println!(
                "{:?}: {runs} runs, {steps} steps, last seed {}",
                begun.elapsed(),
                plan.seed
            );
        }
    }
    println!(
        "{runs} runs, {steps} steps in {:?}, no promise broken",
        begun.elapsed()
    );
    ExitCode::SUCCESS
}
