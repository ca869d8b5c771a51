//! A check for regressions that counts instead of timing, so it gives the same result on a busy machine.
//!
//! Each load sends bursts in lockstep: all of a burst in one write, then all its answers. A burst of writes fits into
//! one buffer of the socket, so the server finds all or nothing of it, whichever side is faster. A load runs twice
//! against a fresh server, the second time with more bursts, and leaves the same pages dirty both times. The difference
//! leaves out the start, the handshake and the end. System calls (all but waits) are counted by strace, instructions
//! and allocations by valgrind's callgrind: neither needs privileges or hardware counters.
//!
//! Cold reads come from the disk, through io_uring, and each page is read once. The server's cache is smaller than what
//! it has read by then, so each read also evicts a page. The disk decides which of a burst complete together, so these
//! figures vary more.
//!
//! The server's other work (its ticks, a worker that goes to sleep) can only add to a count, and does so by chance. So
//! the least of several counts is taken.

mod callgrind;
mod limits;
mod server;
mod strace;

use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;

use crate::args::Arguments;
use crate::connection::Options;
use crate::contender::{Contender, Kind, UNMATCHED_RULE};
use crate::wire::{Command, failure};

use limits::Limits;
use server::{Counted, Source};

/// How many counts the least is taken from.
const REPEATS: usize = 3;

const SMALL: u32 = 4 << 10;

/// Everything in memory, no rule.
const HOT: Counted = Counted {
    name: "",
    command: Command::Read,
    block: SMALL,
    burst: 1,
    rule: None,
    source: Source::Memory,
};

const COUNTED: [Counted; 8] = [
    Counted {
        name: "read-qd1",
        ..HOT
    },
    Counted {
        name: "read",
        burst: 32,
        ..HOT
    },
    Counted {
        name: "read-armed",
        burst: 32,
        rule: Some(UNMATCHED_RULE),
        ..HOT
    },
    Counted {
        name: "read-armed-conn",
        burst: 32,
        rule: Some("any conn=1000000 error=EIO"),
        ..HOT
    },
    Counted {
        name: "read-large",
        block: 128 << 10,
        ..HOT
    },
    Counted {
        name: "read-cold",
        burst: 32,
        source: Source::Disk,
        ..HOT
    },
    Counted {
        name: "write",
        command: Command::Write,
        burst: 8,
        ..HOT
    },
    // The smallest payload of whole pages that is received in place rather than copied.
    Counted {
        name: "write-large",
        command: Command::Write,
        block: 36 << 10,
        ..HOT
    },
];

/// What one request costs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Cost {
    system_calls: f64,
    instructions: f64,
    allocations: f64,
}

impl Cost {
    fn least(self, other: Self) -> Self {
        Self {
            system_calls: self.system_calls.min(other.system_calls),
            instructions: self.instructions.min(other.instructions),
            allocations: self.allocations.min(other.allocations),
        }
    }

    fn figures(self) -> [f64; 3] {
        [self.system_calls, self.instructions, self.allocations]
    }
}

/// A line of the result.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Line {
    contender: &'static str,
    load: &'static str,
    cost: Cost,
    limit: Cost,
    within: bool,
}

/// The loads, as `--only` takes them.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    COUNTED.iter().map(|counted| counted.name)
}

/// Counts the loads chosen on `contenders`.
pub(crate) fn check(
    contenders: &[Contender],
    folder: &Path,
    options: &Options,
    arguments: &Arguments,
) -> io::Result<Vec<Line>> {
    let limits = match &arguments.limits {
        Some(path) => Limits::parse(&fs::read_to_string(path)?),
        None => Limits::parse(include_str!("count/limits.txt")),
    }
    .map_err(failure)?;
    let contenders: Vec<&Contender> = contenders
        .iter()
        .filter(|contender| contender.kind != Kind::WeirArmed)
        .collect();
    if contenders.is_empty() {
        return Err(failure(
            "there is nothing to count: none of the servers asked for is here",
        ));
    }
    let only = &arguments.only;
    if let Some(unknown) = only.iter().find(|name| names().all(|known| known != *name)) {
        return Err(failure(format!(
            "no load of --count is called {unknown}; --list prints their names"
        )));
    }
    if let Some(profiles) = &arguments.profiles {
        fs::create_dir_all(profiles)?;
    }
    println!(
        "{:<10}{:<16}{:>14}{:>8}{:>20}{:>8}{:>19}{:>8}",
        "",
        "per request:",
        "system calls",
        "limit",
        "instructions",
        "limit",
        "allocations",
        "limit"
    );
    let mut lines = Vec::new();
    for contender in contenders {
        for counted in COUNTED
            .iter()
            .filter(|counted| only.is_empty() || only.iter().any(|name| name == counted.name))
        {
            let limit = limits
                .of(counted.name)
                .ok_or_else(|| failure(format!("no limit for {}", counted.name)))?;
            if let Some(reason) = server::why_not(contender, counted, folder, options)? {
                println!(
                    "{:<10}{:<16}skipped: {reason}",
                    contender.name, counted.name
                );
                continue;
            }
            let cost = cost(contender, counted, folder, options)?;
            if let Some(profiles) = &arguments.profiles {
                server::keep_reports(
                    folder,
                    profiles,
                    &format!("{}-{}", contender.name, counted.name),
                )?;
            }
            let line = judge(contender.name, counted.name, cost, limit);
            println!("{}", show(&line));
            lines.push(line);
        }
    }
    Ok(lines)
}

/// Whether all of `lines` keep their limits.
pub(crate) fn within(lines: &[Line]) -> bool {
    lines.iter().all(|line| line.within)
}

fn judge(contender: &'static str, load: &'static str, cost: Cost, limit: Cost) -> Line {
    let within = cost
        .figures()
        .iter()
        .zip(limit.figures())
        .all(|(cost, limit)| *cost <= limit);
    Line {
        contender,
        load,
        cost,
        limit,
        within,
    }
}

fn show(line: &Line) -> String {
    format!(
        "{:<10}{:<14}{:>14.3}{:>8.3}{:>20.0}{:>8.0}{:>19.4}{:>8.2}{}",
        line.contender,
        line.load,
        line.cost.system_calls,
        line.limit.system_calls,
        line.cost.instructions,
        line.limit.instructions,
        line.cost.allocations,
        line.limit.allocations,
        if line.within { "" } else { "  OVER THE LIMIT" }
    )
}

fn cost(
    contender: &Contender,
    counted: &Counted,
    folder: &Path,
    options: &Options,
) -> io::Result<Cost> {
    let mut least: Option<Cost> = None;
    let (bursts_few, bursts_many) = counted.source.bursts();
    for _ in 0..REPEATS {
        let few = server::totals(contender, counted, bursts_few, folder, options)?;
        let many = server::totals(contender, counted, bursts_many, folder, options)?;
        let requests = (bursts_many - bursts_few) * counted.burst as u64;
        let per_request = |few: u64, many: u64| (many as f64 - few as f64) / requests as f64;
        let cost = Cost {
            system_calls: per_request(few.system_calls, many.system_calls),
            instructions: per_request(few.instructions, many.instructions),
            allocations: per_request(few.allocations, many.allocations),
        };
        least = Some(least.map_or(cost, |least| least.least(cost)));
    }
    Ok(least.expect("counted at least once"))
}

#[cfg(test)]
mod tests;
