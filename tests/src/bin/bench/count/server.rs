//! One run of a load against a fresh server under a tool that counts.

use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::Instant;

use nix::fcntl::OFlag;

use crate::connection::{Connection, Options};
use crate::contender::{Contender, Place};
use crate::pattern::Random;
use crate::process::Server;
use crate::raw;
use crate::stream::{Address, Transport};
use crate::wire::{Command, Request, failure};

use super::{callgrind, strace};

/// Where pages come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// Everything stays in memory and below every dirty limit.
    Memory,
    /// Nothing is in memory, and the cache is soon full.
    Disk,
}

/// With its header it fits into one buffer of a Unix socket (48 KiB), so it arrives whole.
const FILL_BLOCK: u32 = 32 << 10;

impl Source {
    /// The export's size.
    const fn size(self) -> u64 {
        match self {
            Self::Memory => 64 << 20,
            Self::Disk => self.span(),
        }
    }

    /// What is asked for.
    const fn span(self) -> u64 {
        match self {
            Self::Memory => 4 << 20,
            // As much as the longer run reads in bursts of 32 pages.
            Self::Disk => 44 << 20,
        }
    }

    const fn cache_size(self) -> u64 {
        match self {
            Self::Memory => 64 << 20,
            // It is full before the shorter run ends.
            Self::Disk => 8 << 20,
        }
    }

    /// Bursts of the shorter and the longer run. The shorter run touches every page of the span at least once, so that
    /// both leave the same, or reads more than the cache holds. The longer run costs far more than the start and the
    /// end.
    pub(super) const fn bursts(self) -> (u64, u64) {
        match self {
            Self::Memory => (256, 2304),
            Self::Disk => (96, 352),
        }
    }
}

/// A load that is counted.
#[derive(Debug)]
pub(super) struct Counted {
    pub(super) name: &'static str,
    pub(super) command: Command,
    pub(super) block: u32,
    /// Requests sent at once.
    pub(super) burst: usize,
    /// A fault rule that never matches.
    pub(super) rule: Option<&'static str>,
    pub(super) source: Source,
}

/// What a server used from its start to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) system_calls: u64,
    pub(super) instructions: u64,
    pub(super) allocations: u64,
}

/// The tool that counts.
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

/// Why a load can't be counted here, if it can't.
pub(super) fn why_not(
    contender: &Contender,
    counted: &Counted,
    folder: &Path,
    options: &Options,
) -> io::Result<Option<String>> {
    if counted.rule.is_some() && !contender.is_weir() {
        return Ok(Some("it has no fault rules".to_owned()));
    }
    if counted.source == Source::Memory {
        return Ok(None);
    }
    let file = prepare(counted.source, folder, options)?;
    let direct = OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_DIRECT.bits())
        .open(file);
    if let Err(error) = direct {
        let folder = folder.display();
        return Ok(Some(format!("no O_DIRECT in {folder}: {error}")));
    }
    let report = run(contender, counted, Counter::Strace, 1, folder, options)?;
    let refused = strace::refusal_of_io_uring(&fs::read_to_string(report)?);
    Ok(refused.map(|call| format!("the kernel refuses io_uring: {call} fails")))
}

/// The file to serve.
fn prepare(source: Source, folder: &Path, options: &Options) -> io::Result<PathBuf> {
    match source {
        Source::Memory => {
            let file = folder.join("count.img");
            fs::File::create(&file)?.set_len(source.size())?;
            Ok(file)
        }
        Source::Disk => {
            let file = folder.join("count-cold.img");
            // No run writes to it.
            if !file.exists() {
                raw::create(&file, source.size(), options.pattern)?;
            }
            raw::drop_page_cache(&file)?;
            Ok(file)
        }
    }
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
    let file = prepare(counted.source, folder, options)?;
    let report = counter.report_in(folder);
    let address = Address::Unix(folder.join(format!("count-{counter:?}.sock")));
    let place = Place {
        folder,
        file: &file,
        size: counted.source.size(),
        cache_size: counted.source.cache_size(),
        transport: Transport::Unix,
    };
    let mut command = match counter {
        Counter::Strace => strace::command(contender.program(), &report)?,
        Counter::Callgrind => callgrind::command(contender.program(), &report)?,
    };
    contender.arguments(&mut command, &place, &address);
    if let Some(rule) = counted.rule {
        command.args(["--fault", rule]);
    }
    // The tool holds the other end for as long as it or the server runs. Once that end is closed, the report is
    // written.
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
    let span = counted.source.span();
    if counted.source == Source::Memory {
        for offset in (0..span).step_by(FILL_BLOCK as usize) {
            connection.call(Request {
                command: Command::Write,
                offset,
                length: FILL_BLOCK,
            })?;
        }
        connection.call(Request::FLUSH)?;
    }
    let block = u64::from(counted.block);
    // In a fixed order, again and again if there are more bursts than blocks.
    let order = Random::new(1).permutation(span / block);
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
