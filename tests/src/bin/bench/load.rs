//! The loads, and how one is driven over the connections of one server.

use std::io;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use crate::connection::{Completed, Connection, Options};
use crate::histogram::Histogram;
use crate::pattern::Random;
use crate::stream::Address;
use crate::wire::{Command, Request, failure};

/// A run that exceeds this time is given up.
const CELL_TIME_MAX: Duration = Duration::from_secs(20);

/// What a load asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    RandomRead,
    RandomWrite,
    /// Reads and writes in equal parts.
    Mixed,
    SequentialRead,
    /// As many writes as the depth, then a FLUSH, each waited for.
    WritesThenFlush,
}

/// What the server has in memory when it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Temperature {
    /// The working set is in memory and nothing must be written back.
    Hot,
    /// A fresh server, with the kernel's page cache dropped. Each block at most once.
    Cold,
    /// Writes over four times the cache, each block once, with the FLUSH at the end in the time.
    Overflow,
}

/// One row of the comparison.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) kind: Kind,
    pub(crate) temperature: Temperature,
    pub(crate) block: u32,
    pub(crate) depth: usize,
    pub(crate) connections: usize,
}

impl Load {
    const fn hot(
        name: &'static str,
        title: &'static str,
        kind: Kind,
        block: u32,
        depth: usize,
    ) -> Self {
        Self {
            name,
            title,
            kind,
            temperature: Temperature::Hot,
            block,
            depth,
            connections: 1,
        }
    }
}

const SMALL: u32 = 4 << 10;
const LARGE: u32 = 128 << 10;

/// Fills a cache: everything once, in order.
pub(crate) static FILL: Load = Load {
    temperature: Temperature::Cold,
    ..Load::hot("fill", "sequential read", Kind::SequentialRead, LARGE, 8)
};

/// Every load, in the order of the table.
pub(crate) static LOADS: [Load; 11] = [
    Load::hot(
        "read-qd1",
        "random read 4 KiB QD1",
        Kind::RandomRead,
        SMALL,
        1,
    ),
    Load::hot(
        "read",
        "random read 4 KiB QD32",
        Kind::RandomRead,
        SMALL,
        32,
    ),
    Load::hot(
        "write",
        "random write 4 KiB QD32",
        Kind::RandomWrite,
        SMALL,
        32,
    ),
    Load::hot("mixed", "mixed 4 KiB QD32", Kind::Mixed, SMALL, 32),
    Load::hot(
        "read-large",
        "random read 128 KiB QD16",
        Kind::RandomRead,
        LARGE,
        16,
    ),
    Load::hot(
        "write-large",
        "random write 128 KiB QD16",
        Kind::RandomWrite,
        LARGE,
        16,
    ),
    Load {
        connections: 4,
        ..Load::hot(
            "read-x4",
            "random read 4 KiB QD32 x 4 connections",
            Kind::RandomRead,
            SMALL,
            32,
        )
    },
    Load::hot(
        "write-flush",
        "32 random writes 4 KiB, then FLUSH",
        Kind::WritesThenFlush,
        SMALL,
        32,
    ),
    Load {
        temperature: Temperature::Cold,
        ..Load::hot(
            "cold-read",
            "cold random read 4 KiB QD32",
            Kind::RandomRead,
            SMALL,
            32,
        )
    },
    Load {
        temperature: Temperature::Cold,
        ..Load::hot(
            "cold-sequential",
            "cold sequential read 128 KiB QD8",
            Kind::SequentialRead,
            LARGE,
            8,
        )
    },
    Load {
        temperature: Temperature::Overflow,
        ..Load::hot(
            "overflow",
            "random writes 4 KiB QD32 over 4x the cache, FLUSH",
            Kind::RandomWrite,
            SMALL,
            32,
        )
    },
];

/// How far and how long a load goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent {
    /// Offsets lie from here on,
    pub(crate) start: u64,
    /// and this far.
    pub(crate) span: u64,
    /// When it stops, if it doesn't run out of blocks.
    pub(crate) duration: Duration,
    pub(crate) seed: u64,
}

/// What a load achieved on one server.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outcome {
    pub(crate) requests: u64,
    pub(crate) bytes: u64,
    pub(crate) elapsed: Duration,
    pub(crate) latency: Histogram,
}

impl Outcome {
    pub(crate) fn requests_per_second(&self) -> f64 {
        self.requests as f64 / self.elapsed.as_secs_f64()
    }

    pub(crate) fn bytes_per_second(&self) -> f64 {
        self.bytes as f64 / self.elapsed.as_secs_f64()
    }

    pub(crate) fn count(&mut self, completed: &Completed, now: Instant) {
        self.requests += 1;
        self.bytes += u64::from(completed.request.length);
        self.latency
            .record(now.saturating_duration_since(completed.queued));
    }

    fn merge(&mut self, other: &Self) {
        self.requests += other.requests;
        self.bytes += other.bytes;
        self.elapsed = self.elapsed.max(other.elapsed);
        self.latency.merge(&other.latency);
    }
}

/// The next request of a load.
pub(crate) struct Source<'load> {
    load: &'load Load,
    random: Random,
    start: u64,
    blocks: u64,
    /// Each block once; empty where blocks may come twice.
    order: Vec<u64>,
    issued: u64,
}

impl<'load> Source<'load> {
    pub(crate) fn new(load: &'load Load, extent: &Extent, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let blocks = extent.span / u64::from(load.block);
        let once = load.temperature != Temperature::Hot && load.kind != Kind::SequentialRead;
        let order = if once {
            random.permutation(blocks)
        } else {
            Vec::new()
        };
        Self {
            load,
            random,
            start: extent.start,
            blocks,
            order,
            issued: 0,
        }
    }

    pub(crate) fn next(&mut self) -> Option<Request> {
        let command = match self.load.kind {
            Kind::RandomRead | Kind::SequentialRead => Command::Read,
            Kind::RandomWrite | Kind::WritesThenFlush => Command::Write,
            Kind::Mixed if self.random.next() & 1 == 0 => Command::Read,
            Kind::Mixed => Command::Write,
        };
        let bounded = self.load.temperature != Temperature::Hot;
        if bounded && self.issued == self.blocks {
            return None;
        }
        let block = if self.load.kind == Kind::SequentialRead {
            self.issued
        } else if bounded {
            self.order[usize::try_from(self.issued).expect("an index")]
        } else {
            self.random.below(self.blocks)
        };
        self.issued += 1;
        Some(Request {
            command,
            offset: self.start + block * u64::from(self.load.block),
            length: self.load.block,
        })
    }
}

/// Runs `load` on connections of its own. `started` is called when all connections are open. `ended` is called when all
/// are done and still open. The server's work for the load lies between the two.
pub(crate) fn run<T>(
    address: &Address,
    options: &Options,
    load: &Load,
    extent: &Extent,
    sample: impl Fn() -> T,
) -> io::Result<(Outcome, T, T)> {
    let mut connections = Vec::new();
    for _ in 0..load.connections {
        let connection = Connection::open(address, options, load.depth)?;
        let end = extent.start + extent.span;
        if connection.size() < end {
            return Err(failure(format!(
                "the export has {} bytes, not {end}",
                connection.size(),
            )));
        }
        connections.push(connection);
    }
    // Drawing a permutation takes a while and must not count as any contender's time.
    let mut sources: Vec<Source<'_>> = (0..load.connections as u64)
        .map(|index| Source::new(load, extent, extent.seed ^ (index << 32)))
        .collect();
    let before = sample();
    let gate = Barrier::new(load.connections);
    let outcomes: Vec<io::Result<Outcome>> = thread::scope(|scope| {
        let threads: Vec<_> = connections
            .iter_mut()
            .zip(&mut sources)
            .map(|(connection, source)| {
                let gate = &gate;
                scope.spawn(move || {
                    gate.wait();
                    drive(connection, source, extent.duration)
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("a load doesn't panic"))
            .collect()
    });
    let after = sample();
    let mut total = Outcome::default();
    for outcome in outcomes {
        total.merge(&outcome?);
    }
    for mut connection in connections {
        // The server then starts the next load with nothing to write back.
        if matches!(load.kind, Kind::RandomWrite | Kind::Mixed)
            && load.temperature == Temperature::Hot
        {
            connection.call(Request::FLUSH)?;
        }
        connection.close();
    }
    Ok((total, before, after))
}

fn drive(
    connection: &mut Connection,
    source: &mut Source<'_>,
    duration: Duration,
) -> io::Result<Outcome> {
    if source.load.kind == Kind::WritesThenFlush {
        return drive_with_flushes(connection, source, duration);
    }
    let overflow = source.load.temperature == Temperature::Overflow;
    let limit = if overflow { CELL_TIME_MAX } else { duration };
    let mut outcome = Outcome::default();
    let start = Instant::now();
    let mut now = start;
    while now - start < limit {
        // One look at the clock for all that one read brought.
        while connection.room() > 0
            && let Some(request) = source.next()
        {
            connection.queue(request, now);
        }
        if connection.in_flight() == 0 {
            break;
        }
        connection.send()?;
        now = receive(connection, &mut outcome)?;
    }
    while connection.in_flight() > 0 {
        receive(connection, &mut outcome)?;
    }
    if overflow {
        connection.call(Request::FLUSH)?;
    }
    outcome.elapsed = start.elapsed();
    Ok(outcome)
}

/// Receives once and looks at the clock once. A request's time runs up to the end of the read.
fn receive(connection: &mut Connection, outcome: &mut Outcome) -> io::Result<Instant> {
    let mut now = None;
    connection
        .receive(|completed| outcome.count(&completed, *now.get_or_insert_with(Instant::now)))?;
    Ok(now.unwrap_or_else(Instant::now))
}

fn drive_with_flushes(
    connection: &mut Connection,
    source: &mut Source<'_>,
    duration: Duration,
) -> io::Result<Outcome> {
    let mut outcome = Outcome::default();
    let start = Instant::now();
    while start.elapsed() < duration {
        let now = Instant::now();
        while connection.room() > 0
            && let Some(request) = source.next()
        {
            connection.queue(request, now);
        }
        connection.send()?;
        while connection.in_flight() > 0 {
            receive(connection, &mut outcome)?;
        }
        connection.call(Request::FLUSH)?;
    }
    outcome.elapsed = start.elapsed();
    Ok(outcome)
}
