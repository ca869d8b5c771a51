//! The benchmark: Weir against other servers, and against what the socket costs, in the same run.
//!
//! An absolute figure means nothing on a machine that does other things too. So every contender takes its turn in every
//! round, and the results are medians of ratios. `bench --help` names the modes; each lives in a module of its own,
//! above a lean load generator (`connection`, `replies`, `load`) that shares nothing with Weir.

mod args;
mod connection;
mod contender;
mod count;
mod goals;
mod histogram;
mod load;
mod pattern;
mod process;
mod raw;
mod reference;
mod replies;
mod report;
mod rounds;
mod stream;
mod svg;
mod tables;
mod tails;
mod wire;

use std::fs;
use std::io;
use std::num::NonZero;
use std::process::ExitCode;
use std::thread;
use std::time::Instant;

use clap::Parser;
use serde_json::{Value, json};
use tempfile::TempDir;

use args::{Arguments, Reference};
use connection::Options;
use contender::{Contender, Kind, NAMES};
use load::{LOADS, Load, Temperature};
use pattern::Pattern;
use rounds::{Comparison, Scale};
use stream::Transport;
use wire::failure;

/// Any number will do: it tells the benchmark's data from other data on a disk.
const SEED: u64 = 0x7765_6972;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> io::Result<ExitCode> {
    match &arguments.server {
        Some(Reference::Ceiling(serve)) => reference::serve_ceiling(&serve.listen, serve.size)?,
        Some(Reference::TokioLoop(serve)) => {
            reference::serve_tokio_loop(&serve.listen, serve.size)?
        }
        None if arguments.list => list(),
        None if arguments.tails => run_tails(arguments)?,
        None if arguments.tables => run_tables(arguments)?,
        None if arguments.count => return run_count(arguments),
        None => return compare(arguments),
    }
    Ok(ExitCode::SUCCESS)
}

fn list() {
    println!("loads:");
    for load in &LOADS {
        println!("  {:<16} {}", load.name, load.title);
    }
    println!("loads of --count:");
    for name in count::names() {
        println!("  {name}");
    }
    println!("servers:");
    for (_, name) in NAMES {
        println!("  {name}");
    }
}

/// The loads that `--only` leaves.
fn chosen_loads(only: &[String]) -> io::Result<Vec<&'static Load>> {
    for name in only {
        if !LOADS.iter().any(|load| load.name == name) {
            return Err(failure(format!(
                "no load is called {name}; --list prints their names"
            )));
        }
    }
    Ok(LOADS
        .iter()
        .filter(|load| only.is_empty() || only.iter().any(|name| name == load.name))
        .collect())
}

/// The available contenders that `--servers` leaves. A line says why another one is missing.
fn chosen_contenders(arguments: &Arguments) -> io::Result<Vec<Contender>> {
    for name in &arguments.servers {
        if !NAMES.iter().any(|(_, known)| known == name) {
            return Err(failure(format!(
                "no server is called {name}; --list prints their names"
            )));
        }
    }
    let mut chosen = Vec::new();
    for (kind, name) in NAMES {
        if arguments.servers.is_empty() || arguments.servers.iter().any(|wanted| wanted == name) {
            match Contender::find(kind, name, &arguments.weir, arguments.baseline.as_deref()) {
                Ok(contender) => chosen.push(contender),
                Err(reason) => eprintln!("{name}: skipped: {reason}"),
            }
        }
    }
    Ok(chosen)
}

/// The same without a second Weir: an armed rule matters to throughput only.
fn distinct_contenders(arguments: &Arguments) -> io::Result<Vec<Contender>> {
    let mut contenders = chosen_contenders(arguments)?;
    contenders.retain(|contender| contender.kind != Kind::WeirArmed);
    Ok(contenders)
}

const fn options(arguments: &Arguments) -> Options {
    Options {
        export: String::new(),
        pattern: Pattern::new(SEED),
        structured: arguments.structured,
    }
}

fn folder(arguments: &Arguments) -> io::Result<TempDir> {
    tempfile::Builder::new()
        .prefix("weir-bench-")
        .tempdir_in(&arguments.dir)
}

fn write_json(arguments: &Arguments, report: &Value) -> io::Result<()> {
    match &arguments.json {
        Some(path) => fs::write(path, serde_json::to_vec_pretty(report)?),
        None => Ok(()),
    }
}

fn write_svg(arguments: &Arguments, draw: impl FnOnce() -> String) -> io::Result<()> {
    match &arguments.svg {
        Some(path) => fs::write(path, draw()),
        None => Ok(()),
    }
}

fn run_tails(arguments: &Arguments) -> io::Result<()> {
    let mut contenders = distinct_contenders(arguments)?;
    let folder = folder(arguments)?;
    let scale = tails::Scale::new(arguments.quick, arguments.rounds);
    let fairness = tails::fairness(&mut contenders, folder.path(), &options(arguments), &scale)?;
    let over_time = tails::over_time(&mut contenders, folder.path(), &options(arguments), &scale)?;
    tails::print(&fairness, &over_time);
    write_json(
        arguments,
        &json!({ "fairness": fairness, "over_time": over_time }),
    )?;
    write_svg(arguments, || {
        let title =
            "4 KiB random writes at QD8 through the dirty limits: 99th percentile of each 50 ms";
        svg::lines(
            title,
            "seconds since the first write",
            "microseconds",
            &tails::plot(&over_time),
        )
    })
}

fn run_tables(arguments: &Arguments) -> io::Result<()> {
    let mut contenders = distinct_contenders(arguments)?;
    let folder = folder(arguments)?;
    let costs = tables::measure(&mut contenders, folder.path(), &options(arguments))?;
    write_json(arguments, &json!({ "costs": costs }))
}

/// Counts for Weir, unless `--servers` names others.
fn run_count(arguments: &Arguments) -> io::Result<ExitCode> {
    let mut contenders = chosen_contenders(arguments)?;
    if arguments.servers.is_empty() {
        contenders.retain(|contender| matches!(contender.kind, Kind::Weir | Kind::Baseline));
    }
    let folder = folder(arguments)?;
    let lines = count::check(&contenders, folder.path(), &options(arguments), arguments)?;
    write_json(arguments, &json!({ "counts": lines }))?;
    Ok(if count::within(&lines) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Tells the reader of the figures how much they may swing.
fn print_machine() {
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let busy = load.split_whitespace().next().unwrap_or("unknown");
    println!("{processors} processors, load average before the start {busy}");
}

fn compare(arguments: &Arguments) -> io::Result<ExitCode> {
    let start = Instant::now();
    print_machine();
    let loads = chosen_loads(&arguments.only)?;
    let contenders = chosen_contenders(arguments)?;
    let folder = folder(arguments)?;
    let mut comparison = Comparison {
        scale: Scale::new(arguments.quick, arguments.rounds),
        options: options(arguments),
        folder: folder.path(),
        samples: Vec::new(),
        failures: Vec::new(),
    };
    for transport in arguments.transports() {
        let loads: Vec<&Load> = loads
            .iter()
            .copied()
            // Cold loads are about the disk: when time is short, one run is enough.
            .filter(|load| {
                !arguments.quick
                    || arguments.tcp
                    || transport == Transport::Unix
                    || load.temperature == Temperature::Hot
            })
            .collect();
        comparison.run(transport, &contenders, &loads, start)?;
    }
    let groups = report::groups(&comparison.samples, &loads);
    let verdicts = goals::verdicts(&comparison.samples);
    print!("{}{}", report::table(&groups), goals::table(&verdicts));
    println!(
        "\n{} samples in {:.0} s",
        comparison.samples.len(),
        start.elapsed().as_secs_f64()
    );
    let report = json!({
        "samples": comparison.samples,
        "groups": groups,
        "verdicts": verdicts,
        "failures": comparison.failures,
    });
    write_json(arguments, &report)?;
    write_svg(arguments, || svg::bars(&groups))?;
    // A peer may fail; Weir may not.
    let failed = comparison
        .failures
        .iter()
        .any(|failure| failure.contender == "weir");
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
