//! The tests that have seeds, for hours: see [`weir_tests::soak`].

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use clap::builder::PossibleValuesParser;
use weir_tests::soak::{Conductor, Outcome, PARTS, Part, Turns, weir};
use weir_tests::tools::installed;

/// Runs the tests that have seeds with ever new ones, until one fails or the time is over.
///
/// The parts take turns of some 10 to 40 s each. At the first turn that fails it prints what that has printed, the
/// seeds, and the command that repeats it, and ends with status 1. In the end it says what has run: turns, seeds and
/// time of each part. Ctrl-C ends it after the present turn, and a second one at once.
///
/// The parts that need the program `weir` run $WEIR_BIN or else target/release/weir, which they don't build. A part
/// that can't run here is named, with the reason; if it was asked for by --only, nothing runs and the status is 2.
///
/// Each turn is a run of `cargo test`, so don't change the sources meanwhile.
#[derive(Debug, Parser)]
#[command(name = "soak")]
struct Arguments {
    /// How long, such as 90s, 30m or 8h; the turn that is running then is the last.
    #[arg(long, default_value = "1h", value_parser = weir_faults::words::duration)]
    time: Duration,
    /// These parts and no others, by name, with commas between them.
    #[arg(long, value_delimiter = ',', value_name = "PART", value_parser = PossibleValuesParser::new(PARTS.iter().map(|part| part.name)))]
    only: Vec<String>,
    /// The first seed of each part. Drawn if left out.
    #[arg(long)]
    seed: Option<u32>,
    /// Names the parts and says which can't run here, and why.
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let soak = std::env::current_exe().expect("a running program has a path");
    let weir = weir(std::env::var_os("WEIR_BIN").map(PathBuf::from), &soak);
    let obstacle = |part: &Part| part.obstacle(&weir, |name| installed(name).is_some());
    if arguments.list {
        for part in &PARTS {
            println!("{:10} {}", part.name, part.about);
            if let Some(why) = obstacle(part) {
                println!("{:10} can't run here: {why}", "");
            }
        }
        return ExitCode::SUCCESS;
    }

    let mut parts = Vec::new();
    let mut left_out = false;
    let is_wanted = |part: &&Part| {
        arguments.only.is_empty() || arguments.only.iter().any(|name| *name == part.name)
    };
    for part in PARTS.iter().filter(is_wanted) {
        match obstacle(part) {
            None => parts.push(part),
            Some(why) => {
                println!("{} can't run here: {why}", part.name);
                left_out = true;
            }
        }
    }
    if left_out && !arguments.only.is_empty() {
        return ExitCode::from(2);
    }
    let drawn = || u32::try_from(weir_faults::rng::draw_seed()).expect("it has 32 bits");
    let seed = arguments.seed.unwrap_or_else(drawn);
    println!("for {:?}, from seed {seed} on", arguments.time);
    match run(Turns::new(parts, seed, weir.ok()), arguments.time) {
        Ok(Outcome::TimeOver | Outcome::Interrupted) => ExitCode::SUCCESS,
        Ok(Outcome::Failed) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("soak: {error}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn run(turns: Turns, time: Duration) -> std::io::Result<Outcome> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let workspace = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let mut conductor = Conductor::new(cargo, PathBuf::from(workspace))?;
    match conductor.build().await? {
        Some(outcome) => Ok(outcome),
        None => conductor.run(turns, time).await,
    }
}
