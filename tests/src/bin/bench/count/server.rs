//! One run of a load against a fresh server under a tool that counts.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::Instant;

use crate::connection::{Connection, Options};
use crate::contender::{Contender, Kind, Place};
use crate::pattern::Random;
use crate::process::Server;
use crate::stream::{Address, Transport};
use crate::wire::{Command, Request, failure};

use super::{callgrind, strace};

/// What is counted: everything stays in memory and below every dirty limit.
const SPAN: u64 = 4 << 20;
const SIZE: u64 = 64 << 20;
const CACHE_SIZE: u64 = 64 << 20;
/// With its header it fits into one buffer of a Unix socket (48 KiB), so it arrives whole.
const FILL_BLOCK: u32 = 32 << 10;

/// A load that is counted.
#[derive(Debug)]
pub(super) struct Counted {
    pub(super) name: &'static str,
    pub(super) command: Command,
    pub(super) block: u32,
    /// Requests sent at once.
    pub(super) burst: usize,
    /// With a fault rule that never matches.
    pub(super) armed: bool,
}

/// What a server used from its start to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) system_calls: u64,
    pub(super) instructions: u64,
    pub(super) allocations: u64,
}

/// Who counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counter {
    Strace,
    Callgrind,
}

impl Counter {
    fn report_in(self, folder: &Path) -> PathBuf {
        folder.join(format!("count.{self:?}"))
    }
}

/// Keeps what the tools said of the last run, which is a long one, in `target`.
pub(super) fn keep_reports(folder: &Path, target: &Path, name: &str) -> io::Result<()> {
    for (counter, extension) in [
        (Counter::Strace, "strace"),
        (Counter::Callgrind, "callgrind"),
    ] {
        let kept = target.join(format!("{name}.{extension}"));
        fs::copy(counter.report_in(folder), kept)?;
    }
    Ok(())
}

/// What `bursts` of a load take, with the start and the end of the server.
pub(super) fn totals(
    contender: &Contender,
    counted: &Counted,
    bursts: u64,
    folder: &Path,
    options: &Options,
) -> io::Result<Totals> {
    let run = |counter| run(contender, counted, counter, bursts, folder, options);
    let calls = run(Counter::Strace)?;
    let profile = run(Counter::Callgrind)?;
    let missing = |what: &str, report: &Path| {
        failure(format!(
            "{what} of {} weren't counted, see {}",
            contender.name,
            report.display()
        ))
    };
    let system_calls = strace::calls_of(&fs::read_to_string(&calls)?)
        .ok_or_else(|| missing("system calls", &calls))?;
    let text = fs::read_to_string(&profile)?;
    let instructions =
        callgrind::instructions_of(&text).ok_or_else(|| missing("instructions", &profile))?;
    let allocations =
        callgrind::allocations_of(&text).ok_or_else(|| missing("allocations", &profile))?;
    Ok(Totals {
        system_calls,
        instructions,
        allocations,
    })
}

/// Runs the load and returns where the tool's report is.
fn run(
    contender: &Contender,
    counted: &Counted,
    counter: Counter,
    bursts: u64,
    folder: &Path,
    options: &Options,
) -> io::Result<PathBuf> {
    let file = folder.join("count.img");
    fs::File::create(&file)?.set_len(SIZE)?;
    let report = counter.report_in(folder);
    let address = Address::Unix(folder.join(format!("count-{counter:?}.sock")));
    let place = Place {
        folder,
        file: &file,
        size: SIZE,
        cache_size: CACHE_SIZE,
        transport: Transport::Unix,
    };
    let mut command = match counter {
        Counter::Strace => strace::command(contender.program(), &report)?,
        Counter::Callgrind => callgrind::command(contender.program(), &report)?,
    };
    let contender = if counted.armed && contender.kind != Kind::WeirArmed {
        &contender.armed()
    } else {
        contender
    };
    contender.arguments(&mut command, &place, &address);
    // The tool holds the other end for as long as it or the server runs: once it is closed, the report is written.
    command.stderr(Stdio::piped());
    let mut server = Server::start(&mut command, address)?;
    let stderr = server.take_stderr();
    let drained = thread::spawn(move || {
        let mut text = String::new();
        let _partial = stderr.map(|mut stderr| stderr.read_to_string(&mut text));
        text
    });
    drive(&server, counted, bursts, options)?;
    let status = server.stop()?;
    let said = drained.join().expect("reading doesn't panic");
    if !status.success() {
        return Err(failure(format!("the server ended with {status}: {said}")));
    }
    Ok(report)
}

fn drive(server: &Server, counted: &Counted, bursts: u64, options: &Options) -> io::Result<()> {
    let mut connection = Connection::open(server.address(), options, counted.burst)?;
    for offset in (0..SPAN).step_by(FILL_BLOCK as usize) {
        connection.call(Request {
            command: Command::Write,
            offset,
            length: FILL_BLOCK,
        })?;
    }
    connection.call(Request::FLUSH)?;
    let block = u64::from(counted.block);
    // In a fixed order, again and again: whatever the number of bursts, in the end every page has been touched.
    let order = Random::new(1).permutation(SPAN / block);
    let mut blocks = order.iter().cycle();
    for _ in 0..bursts {
        let now = Instant::now();
        for offset in blocks.by_ref().take(counted.burst) {
            connection.queue(
                Request {
                    command: counted.command,
                    offset: offset * block,
                    length: counted.block,
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
