//! What a median hides: the latency of a small reader beside a streaming writer, and latency over time while the cache
//! overflows.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::connection::{Connection, Options};
use crate::contender::{Contender, Kind, Place};
use crate::histogram::Histogram;
use crate::pattern::Random;
use crate::process::Server;
use crate::stream::Transport;
use crate::svg::Line;
use crate::wire::{Command, Request};

/// What the streaming connection writes at once, and how much of that is in flight.
const STREAM_BLOCK: u32 = 1 << 20;
const STREAM_DEPTH: usize = 4;
/// What the reader reads, and what the cache is made to overflow with.
const SMALL_BLOCK: u32 = 4 << 10;
/// In flight while the cache overflows.
const OVERFLOW_DEPTH: usize = 8;
/// A point of the plot over time.
const WINDOW: Duration = Duration::from_millis(50);

/// How large and how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    pub(crate) fairness_time: Duration,
    pub(crate) overflow_time: Duration,
    pub(crate) size: u64,
    /// Its dirty limits (a quarter, a half) are reached after a few windows, so that the plot shows the way there.
    pub(crate) overflow_cache: u64,
    pub(crate) rounds: u32,
}

impl Scale {
    pub(crate) fn new(quick: bool, rounds: Option<u32>) -> Self {
        Self {
            fairness_time: Duration::from_millis(if quick { 500 } else { 3000 }),
            overflow_time: Duration::from_secs(if quick { 2 } else { 10 }),
            size: 256 << 20,
            overflow_cache: 128 << 20,
            rounds: rounds.unwrap_or(if quick { 2 } else { 3 }),
        }
    }
}

/// A reader's latency in microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Tail {
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) longest_us: f64,
}

impl Tail {
    fn of(histogram: &Histogram) -> Self {
        let micros = |duration: Duration| duration.as_secs_f64() * 1e6;
        Self {
            p50_us: micros(histogram.per_mille(500)),
            p99_us: micros(histogram.per_mille(990)),
            p999_us: micros(histogram.per_mille(999)),
            longest_us: micros(histogram.longest()),
        }
    }
}

/// A small reader on one contender, alone and beside the stream.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Fairness {
    pub(crate) contender: &'static str,
    pub(crate) round: u32,
    pub(crate) alone: Tail,
    pub(crate) beside: Tail,
    pub(crate) stream_megabytes_per_second: f64,
}

/// One window of the load that overflows the cache.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Window {
    pub(crate) end_seconds: f64,
    pub(crate) requests_per_second: f64,
    pub(crate) tail: Tail,
}

/// Latency over time on one contender.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct OverTime {
    pub(crate) contender: &'static str,
    pub(crate) windows: Vec<Window>,
    /// Windows in which nothing at all was answered.
    pub(crate) silent_windows: usize,
}

fn place<'place>(
    folder: &'place Path,
    file: &'place Path,
    size: u64,
    cache_size: u64,
) -> io::Result<Place<'place>> {
    std::fs::File::create(file)?.set_len(size)?;
    Ok(Place {
        folder,
        file,
        size,
        cache_size,
        transport: Transport::Unix,
    })
}

/// Every contender once per round.
pub(crate) fn fairness(
    contenders: &mut [Contender],
    folder: &Path,
    options: &Options,
    scale: &Scale,
) -> io::Result<Vec<Fairness>> {
    let file = folder.join("fairness.img");
    let mut results = Vec::new();
    for round in 0..scale.rounds {
        for contender in contenders
            .iter_mut()
            .filter(|contender| !contender.is_raw())
        {
            let result = place(folder, &file, scale.size, 4 * scale.size)
                .and_then(|place| contender.start(&place))
                .and_then(|server| fairness_of(&server, contender.name, round, options, scale));
            match result {
                Ok(result) => results.push(result),
                Err(error) => eprintln!("{}: fairness: {error}", contender.name),
            }
        }
    }
    Ok(results)
}

fn fairness_of(
    server: &Server,
    contender: &'static str,
    round: u32,
    options: &Options,
    scale: &Scale,
) -> io::Result<Fairness> {
    let mut stream = Connection::open(server.address(), options, STREAM_DEPTH)?;
    let mut reader = Connection::open(server.address(), options, 1)?;
    stream.prefill(scale.size)?;
    let alone = read_for(&mut reader, scale, u64::from(round))?;
    let stop = AtomicBool::new(false);
    let (written, beside) = thread::scope(|scope| {
        let writer = scope.spawn(|| stream_until(&mut stream, &stop, scale.size));
        let beside = read_for(&mut reader, scale, u64::from(round));
        stop.store(true, Ordering::Relaxed);
        (writer.join().expect("a load doesn't panic"), beside)
    });
    stream.close();
    reader.close();
    Ok(Fairness {
        contender,
        round,
        alone,
        beside: beside?,
        stream_megabytes_per_second: written? / 1e6,
    })
}

fn read_for(reader: &mut Connection, scale: &Scale, seed: u64) -> io::Result<Tail> {
    let mut random = Random::new(seed);
    let mut histogram = Histogram::default();
    let start = Instant::now();
    while start.elapsed() < scale.fairness_time {
        let block = random.below(scale.size / u64::from(SMALL_BLOCK));
        let begun = Instant::now();
        let offset = block * u64::from(SMALL_BLOCK);
        reader.call(Request {
            command: Command::Read,
            offset,
            length: SMALL_BLOCK,
        })?;
        histogram.record(begun.elapsed());
    }
    Ok(Tail::of(&histogram))
}

/// Returns bytes per second.
fn stream_until(stream: &mut Connection, stop: &AtomicBool, size: u64) -> io::Result<f64> {
    let start = Instant::now();
    let (mut offset, mut written) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        while stream.room() > 0 {
            stream.queue(
                Request {
                    command: Command::Write,
                    offset,
                    length: STREAM_BLOCK,
                },
                Instant::now(),
            );
            offset = (offset + u64::from(STREAM_BLOCK)) % size;
        }
        stream.send()?;
        stream.receive(|completed| written += u64::from(completed.request.length))?;
    }
    stream.drain(|completed| written += u64::from(completed.request.length))?;
    Ok(written as f64 / start.elapsed().as_secs_f64())
}

/// Random writes through the dirty limits of a small cache, once per contender with a file behind it.
pub(crate) fn over_time(
    contenders: &mut [Contender],
    folder: &Path,
    options: &Options,
    scale: &Scale,
) -> io::Result<Vec<OverTime>> {
    let file = folder.join("overflow.img");
    let mut results = Vec::new();
    let in_memory = [Kind::Ceiling, Kind::TokioLoop, Kind::NbdkitMemory];
    let with_file =
        |contender: &&mut Contender| !contender.is_raw() && !in_memory.contains(&contender.kind);
    for contender in contenders.iter_mut().filter(with_file) {
        let result = place(folder, &file, scale.size, scale.overflow_cache)
            .and_then(|place| contender.start(&place))
            .and_then(|server| write_over_time(&server, options, scale));
        match result {
            Ok(windows) => {
                let silent_windows = windows
                    .iter()
                    .filter(|window| window.requests_per_second == 0.0)
                    .count();
                results.push(OverTime {
                    contender: contender.name,
                    windows,
                    silent_windows,
                });
            }
            Err(error) => eprintln!("{}: over time: {error}", contender.name),
        }
    }
    Ok(results)
}

fn write_over_time(server: &Server, options: &Options, scale: &Scale) -> io::Result<Vec<Window>> {
    let mut connection = Connection::open(server.address(), options, OVERFLOW_DEPTH)?;
    let mut random = Random::new(0);
    let mut histograms = vec![Histogram::default()];
    let start = Instant::now();
    let mut now = start;
    while now - start < scale.overflow_time {
        while connection.room() > 0 {
            let offset = random.below(scale.size / u64::from(SMALL_BLOCK)) * u64::from(SMALL_BLOCK);
            connection.queue(
                Request {
                    command: Command::Write,
                    offset,
                    length: SMALL_BLOCK,
                },
                now,
            );
        }
        connection.send()?;
        connection.receive(|completed| {
            now = Instant::now();
            let window =
                usize::try_from((now - start).as_nanos() / WINDOW.as_nanos()).expect("a short run");
            histograms.resize_with(histograms.len().max(window + 1), Histogram::default);
            histograms[window].record(now - completed.queued);
        })?;
    }
    connection.drain(|_| ())?;
    connection.call(Request::FLUSH)?;
    connection.close();
    // The last window is cut short.
    histograms.truncate(
        usize::try_from(scale.overflow_time.as_nanos() / WINDOW.as_nanos())
            .map_err(io::Error::other)?,
    );
    let windows = histograms
        .iter()
        .enumerate()
        .map(|(index, histogram)| Window {
            end_seconds: WINDOW.as_secs_f64() * (index + 1) as f64,
            requests_per_second: histogram.total() as f64 / WINDOW.as_secs_f64(),
            tail: Tail::of(histogram),
        });
    Ok(windows.collect())
}

/// Both results as text.
pub(crate) fn print(fairness: &[Fairness], over_time: &[OverTime]) {
    println!(
        "\n4 KiB reads at QD1, alone and beside 1 MiB writes at QD4 on another connection (us)"
    );
    println!(
        "{:<16}{:>6}{:>10}{:>10}{:>10}{:>12}{:>10}{:>10}{:>10}{:>14}",
        "", "round", "p50", "p99", "p99.9", "beside p50", "p99", "p99.9", "longest", "stream MB/s"
    );
    for line in fairness {
        println!(
            "{:<16}{:>6}{:>10.0}{:>10.0}{:>10.0}{:>12.0}{:>10.0}{:>10.0}{:>10.0}{:>14.0}",
            line.contender,
            line.round,
            line.alone.p50_us,
            line.alone.p99_us,
            line.alone.p999_us,
            line.beside.p50_us,
            line.beside.p99_us,
            line.beside.p999_us,
            line.beside.longest_us,
            line.stream_megabytes_per_second
        );
    }
    println!(
        "\n4 KiB random writes at QD8 through the dirty limits: windows of {} ms",
        WINDOW.as_millis()
    );
    println!(
        "{:<16}{:>14}{:>14}{:>14}{:>14}{:>9}",
        "", "least req/s", "median req/s", "worst p99 us", "longest us", "silent"
    );
    for line in over_time {
        let mut rates: Vec<f64> = line
            .windows
            .iter()
            .map(|window| window.requests_per_second)
            .collect();
        rates.sort_unstable_by(f64::total_cmp);
        let worst = |figure: fn(&Tail) -> f64| {
            line.windows
                .iter()
                .map(|w| figure(&w.tail))
                .fold(0.0, f64::max)
        };
        println!(
            "{:<16}{:>14.0}{:>14.0}{:>14.0}{:>14.0}{:>9}",
            line.contender,
            rates.first().copied().unwrap_or_default(),
            rates.get(rates.len() / 2).copied().unwrap_or_default(),
            worst(|tail| tail.p99_us),
            worst(|tail| tail.longest_us),
            line.silent_windows
        );
    }
}

/// Lines for a plot: the 99th percentile of each window that has one. Requests that a silent window kept waiting show
/// in the next window.
pub(crate) fn plot(over_time: &[OverTime]) -> Vec<Line> {
    let line = |result: &OverTime| Line {
        name: result.contender.to_owned(),
        points: result
            .windows
            .iter()
            .filter(|window| window.requests_per_second > 0.0)
            .map(|window| (window.end_seconds, window.tail.p99_us))
            .collect(),
    };
    over_time.iter().map(line).collect()
}
