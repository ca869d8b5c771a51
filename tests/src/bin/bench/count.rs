//! A check for regressions that counts instead of timing, so that it says the same on a busy machine.
//!
//! Each load sends batches in lockstep (all of a batch in one write, then all its answers), so what the server reads
//! at once doesn't depend on who is faster. It runs twice against a fresh server, the second time with more batches;
//! the difference leaves out the start-up, the handshake and the end. System calls are counted by strace,
//! instructions by valgrind's callgrind: neither needs privileges or hardware counters.

mod limits;

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command as Program, Stdio};
use std::time::Instant;

use crate::connection::{Connection, Options};
use crate::contender::{Contender, Place};
use crate::pattern::Random;
use crate::process::{self, Server};
use crate::stream::{Address, Transport};
use crate::wire::{Command, Request, failure};

use limits::Limits;

/// What is counted: everything stays in memory and below every dirty limit.
const SPAN: u64 = 4 << 20;
const SIZE: u64 = 64 << 20;
const CACHE_SIZE: u64 = 64 << 20;
const BLOCK: u32 = 4096;
/// Requests of the short and of the long run: enough of them that a stray wake-up is below a per cent.
const FEW: u64 = 2048;
const MANY: u64 = 3 * FEW;

/// A load that is counted.
struct Counted {
    name: &'static str,
    command: Command,
    depth: usize,
}

const COUNTED: [Counted; 3] = [
    Counted {
        name: "read-qd1",
        command: Command::Read,
        depth: 1,
    },
    Counted {
        name: "read",
        command: Command::Read,
        depth: 32,
    },
    Counted {
        name: "write",
        command: Command::Write,
        depth: 32,
    },
];

/// Who counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counter {
    SystemCalls,
    Instructions,
}

/// Counts every load on `contenders`. True if all of them are within `limits`.
pub(crate) fn check(
    contenders: &[Contender],
    folder: &Path,
    options: &Options,
    limits: Option<&Path>,
) -> io::Result<bool> {
    let limits = match limits {
        Some(path) => Limits::parse(&fs::read_to_string(path)?),
        None => Limits::parse(include_str!("count/limits.txt")),
    }
    .map_err(failure)?;
    if contenders.is_empty() {
        return Err(failure(
            "there is nothing to count: none of the servers asked for is here",
        ));
    }
    let mut within = true;
    println!(
        "{:<14}{:<10}{:>20}{:>12}{:>20}{:>12}",
        "", "", "syscalls/request", "limit", "instr/request", "limit"
    );
    for contender in contenders {
        for counted in &COUNTED {
            let limit = limits
                .of(counted.name)
                .ok_or_else(|| failure(format!("no limit for {}", counted.name)))?;
            let system_calls =
                per_request(contender, counted, Counter::SystemCalls, folder, options)?;
            let instructions =
                per_request(contender, counted, Counter::Instructions, folder, options)?;
            let over = system_calls > limit.system_calls || instructions > limit.instructions;
            println!(
                "{:<14}{:<10}{system_calls:>20.3}{:>12.3}{instructions:>20.0}{:>12.0}{}",
                contender.name,
                counted.name,
                limit.system_calls,
                limit.instructions,
                if over { "  OVER THE LIMIT" } else { "" }
            );
            within &= !over;
        }
    }
    Ok(within)
}

fn per_request(
    contender: &Contender,
    counted: &Counted,
    counter: Counter,
    folder: &Path,
    options: &Options,
) -> io::Result<f64> {
    let few = count(contender, counted, counter, FEW, folder, options)?;
    let many = count(contender, counted, counter, MANY, folder, options)?;
    Ok((many as f64 - few as f64) / (MANY - FEW) as f64)
}

/// What a fresh server used for `requests` requests, its start and its end.
fn count(
    contender: &Contender,
    counted: &Counted,
    counter: Counter,
    requests: u64,
    folder: &Path,
    options: &Options,
) -> io::Result<u64> {
    let file = folder.join("count.img");
    fs::File::create(&file)?.set_len(SIZE)?;
    let report = folder.join("count.txt");
    let socket = folder.join(format!(
        "count-{}-{requests}-{counter:?}.sock",
        counted.name
    ));
    let address = Address::Unix(socket);
    let place = Place {
        folder,
        file: &file,
        size: SIZE,
        cache_size: CACHE_SIZE,
        transport: Transport::Unix,
    };
    let mut command = counting(counter, contender.program(), &report)?;
    contender.arguments(&mut command, &place, &address);
    // The tool holds the other end for as long as it or the server runs.
    command.stderr(Stdio::piped());
    let mut server = Server::start(&mut command, address)?;
    let stderr = server.take_stderr();
    let drained = std::thread::spawn(move || {
        let mut text = String::new();
        let _partial = stderr.map(|mut stderr| stderr.read_to_string(&mut text));
        text
    });
    drive(&server, counted, requests, options)?;
    server.stop()?;
    let said = drained.join().expect("reading doesn't panic");
    let report = fs::read_to_string(&report)?;
    let total = match counter {
        Counter::SystemCalls => calls_of(&report),
        Counter::Instructions => instructions_of(&report),
    };
    total.ok_or_else(|| {
        failure(format!(
            "{counter:?} of {} weren't counted: {said}{report}",
            contender.name
        ))
    })
}

/// `program` under the tool that counts. Both tools leave the server as our child, with its process ID.
fn counting(counter: Counter, program: &Path, report: &Path) -> io::Result<Program> {
    let tool = |name: &str| -> io::Result<PathBuf> {
        process::find(name)
            .ok_or_else(|| failure(format!("--count needs {name}, which isn't installed")))
    };
    let mut command = match counter {
        Counter::SystemCalls => {
            let mut command = process::command(&tool("strace")?);
            command
                .args(["-D", "-f", "-q", "-c", "-U", "calls,name", "-o"])
                .arg(report)
                .arg("--");
            command
        }
        Counter::Instructions => {
            let mut command = process::command(&tool("valgrind")?);
            command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
            command.arg(format!("--log-file={}", report.display()));
            command
        }
    };
    command.arg(program);
    Ok(command)
}

fn drive(server: &Server, counted: &Counted, requests: u64, options: &Options) -> io::Result<()> {
    /// Requests in flight while the span is filled.
    const PREFILL_DEPTH: usize = 4;
    let mut filler = Connection::open(server.address(), options, PREFILL_DEPTH)?;
    filler.prefill(SPAN)?;
    filler.close();
    let mut connection = Connection::open(server.address(), options, counted.depth)?;
    let mut random = Random::new(1);
    for _ in 0..requests / counted.depth as u64 {
        let now = Instant::now();
        for _ in 0..counted.depth {
            let offset = random.below(SPAN / u64::from(BLOCK)) * u64::from(BLOCK);
            connection.queue(
                Request {
                    command: counted.command,
                    offset,
                    length: BLOCK,
                },
                now,
            );
        }
        connection.send()?;
        connection.drain(|_| ())?;
    }
    connection.close();
    Ok(())
}

/// The total of strace's summary.
fn calls_of(report: &str) -> Option<u64> {
    let line = report
        .lines()
        .find(|line| line.trim_end().ends_with("total"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The total of callgrind's log.
fn instructions_of(report: &str) -> Option<u64> {
    report.lines().find_map(|line| {
        line.split_once("Collected : ")?
            .1
            .split_whitespace()
            .next()?
            .parse()
            .ok()
    })
}

#[cfg(test)]
mod tests;
