//! The comparison: every contender once per round, in an order that rotates, so that other work of the machine affects
//! them all alike.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::connection::{Connection, Options};
use crate::contender::{Contender, Kind, Place};
use crate::load::{self, Extent, Load, Outcome, Temperature};
use crate::process::{Server, Usage};
use crate::raw;
use crate::stream::Transport;

/// Requests in flight while an export is filled.
const PREFILL_DEPTH: usize = 4;

/// Reading as much as a cache holds takes a second at most, on a slow disk ten.
const FILL_TIME_MAX: Duration = Duration::from_secs(30);

/// How much of everything.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    pub(crate) rounds: u32,
    /// The time of a load on one contender in one round.
    pub(crate) hot_time: Duration,
    pub(crate) cold_time: Duration,
    /// No round starts a load after that time.
    pub(crate) total_time: Duration,
    pub(crate) hot_size: u64,
    /// At most a tenth of the hot cache.
    pub(crate) hot_span: u64,
    pub(crate) hot_cache: u64,
    pub(crate) cold_size: u64,
    /// The cache of a cold load; what fills it first lies behind `cold_size`.
    pub(crate) cold_cache: u64,
    /// A quarter of what the overflow load writes.
    pub(crate) overflow_cache: u64,
}

impl Scale {
    pub(crate) fn new(quick: bool, rounds: Option<u32>) -> Self {
        let full = Self {
            rounds: rounds.unwrap_or(5),
            hot_time: Duration::from_millis(600),
            cold_time: Duration::from_secs(1),
            total_time: Duration::from_secs(1800),
            hot_size: 1 << 30,
            hot_span: 96 << 20,
            hot_cache: 1 << 30,
            cold_size: 1 << 30,
            cold_cache: 64 << 20,
            overflow_cache: 64 << 20,
        };
        if !quick {
            return full;
        }
        Self {
            rounds: rounds.unwrap_or(3),
            hot_time: Duration::from_millis(150),
            cold_time: Duration::from_millis(300),
            total_time: Duration::from_secs(100),
            cold_size: 256 << 20,
            cold_cache: 32 << 20,
            overflow_cache: 16 << 20,
            ..full
        }
    }
}

impl Scale {
    fn cold_file_size(&self) -> u64 {
        self.cold_size + self.cold_cache
    }
}

/// What one contender achieved with one load in one round.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Sample {
    pub(crate) transport: String,
    pub(crate) load: &'static str,
    pub(crate) contender: &'static str,
    pub(crate) round: u32,
    pub(crate) requests_per_second: f64,
    pub(crate) bytes_per_second: f64,
    /// Of the server's processor time, user and system.
    pub(crate) processor_us_per_request: Option<f64>,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
}

impl Sample {
    fn new(
        transport: Transport,
        load: &Load,
        contender: &Contender,
        round: u32,
        measured: &Measured,
    ) -> Self {
        let outcome = &measured.outcome;
        let micros = |per_mille| outcome.latency.per_mille(per_mille).as_secs_f64() * 1e6;
        Self {
            transport: transport.to_string(),
            load: load.name,
            contender: contender.name,
            round,
            requests_per_second: outcome.requests_per_second(),
            bytes_per_second: outcome.bytes_per_second(),
            processor_us_per_request: measured
                .processor
                .map(|used| used.as_secs_f64() * 1e6 / outcome.requests as f64),
            p50_us: micros(500),
            p99_us: micros(990),
            p999_us: micros(999),
        }
    }
}

struct Measured {
    outcome: Outcome,
    processor: Option<Duration>,
}

/// A contender that failed: its name, the load, the reason.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Failure {
    pub(crate) contender: &'static str,
    pub(crate) load: &'static str,
    pub(crate) error: String,
}

/// A comparison in progress.
pub(crate) struct Comparison<'run> {
    pub(crate) scale: Scale,
    pub(crate) options: Options,
    pub(crate) folder: &'run Path,
    pub(crate) samples: Vec<Sample>,
    pub(crate) failures: Vec<Failure>,
}

impl Comparison<'_> {
    /// Runs `loads` over `transport`. Contenders that don't start are reported and left out.
    pub(crate) fn run(
        &mut self,
        transport: Transport,
        contenders: &[Contender],
        loads: &[&Load],
        start: Instant,
    ) -> io::Result<()> {
        let cold_file = self.folder.join("cold.img");
        if loads
            .iter()
            .any(|load| load.temperature != Temperature::Hot)
            && !cold_file.exists()
        {
            raw::create(
                &cold_file,
                self.scale.cold_file_size(),
                self.options.pattern,
            )?;
        }
        let mut contenders = contenders.to_vec();
        let hot = loads
            .iter()
            .any(|load| load.temperature == Temperature::Hot);
        let mut servers: Vec<Option<Server>> = Vec::new();
        for contender in &mut contenders {
            let started =
                (hot && !contender.is_raw()).then(|| self.start_hot(contender, transport));
            servers.push(match started.transpose() {
                Ok(server) => server,
                Err(error) => {
                    self.fail(contender, "start", &error);
                    None
                }
            });
        }
        for round in 0..self.scale.rounds {
            for load in loads {
                for turn in 0..contenders.len() {
                    if start.elapsed() > self.scale.total_time {
                        eprintln!(
                            "out of time in round {} of {}",
                            round + 1,
                            self.scale.rounds
                        );
                        return Ok(());
                    }
                    let index = (turn + round as usize) % contenders.len();
                    let contender = &mut contenders[index];
                    if !contender.takes(load) {
                        continue;
                    }
                    let measured = match load.temperature {
                        Temperature::Hot => match &servers[index] {
                            Some(server) => self.hot(server, load, round),
                            None => continue,
                        },
                        _ => self.cold(contender, transport, load, round, &cold_file),
                    };
                    match measured {
                        Ok(measured) => {
                            let sample = Sample::new(transport, load, contender, round, &measured);
                            self.samples.push(sample);
                        }
                        Err(error) => self.fail(contender, load.name, &error),
                    }
                }
            }
        }
        Ok(())
    }

    fn fail(&mut self, contender: &Contender, load: &'static str, error: &io::Error) {
        eprintln!("{}: {load}: {error}", contender.name);
        self.failures.push(Failure {
            contender: contender.name,
            load,
            error: error.to_string(),
        });
    }

    fn start_hot(&self, contender: &mut Contender, transport: Transport) -> io::Result<Server> {
        let file = self.folder.join(format!("{}.img", contender.name));
        std::fs::File::create(&file)?.set_len(self.scale.hot_size)?;
        let place = Place {
            folder: self.folder,
            file: &file,
            size: self.scale.hot_size,
            cache_size: self.scale.hot_cache,
            transport,
        };
        let server = contender.start(&place)?;
        let mut connection = Connection::open(server.address(), &self.options, PREFILL_DEPTH)?;
        connection.prefill(self.scale.hot_span)?;
        connection.close();
        Ok(server)
    }

    fn hot(&self, server: &Server, load: &Load, round: u32) -> io::Result<Measured> {
        let extent = Extent {
            start: 0,
            span: self.scale.hot_span,
            duration: self.scale.hot_time,
            seed: u64::from(round),
        };
        self.measure(server, load, &extent)
    }

    fn measure(&self, server: &Server, load: &Load, extent: &Extent) -> io::Result<Measured> {
        let (outcome, before, after): (Outcome, Usage, Usage) =
            load::run(server.address(), &self.options, load, extent, || {
                server.usage()
            })?;
        Ok(Measured {
            outcome,
            processor: after.since(before),
        })
    }

    fn cold(
        &self,
        contender: &mut Contender,
        transport: Transport,
        load: &Load,
        round: u32,
        file: &Path,
    ) -> io::Result<Measured> {
        let overflow = load.temperature == Temperature::Overflow;
        let span = if overflow {
            4 * self.scale.overflow_cache
        } else {
            self.scale.cold_size
        };
        let extent = Extent {
            start: 0,
            span,
            duration: self.scale.cold_time,
            seed: u64::from(round),
        };
        raw::drop_page_cache(file)?;
        if contender.is_raw() {
            let outcome = match contender.kind {
                Kind::RawUring => {
                    raw::with_uring(contender.program(), file, &self.scratch()?, load, &extent)?
                }
                _ => raw::with_threads(file, load, &extent, self.options.pattern)?,
            };
            return Ok(Measured {
                outcome,
                processor: None,
            });
        }
        let cache_size = if overflow {
            self.scale.overflow_cache
        } else {
            self.scale.cold_cache
        };
        let place = Place {
            folder: self.folder,
            file,
            size: self.scale.cold_file_size(),
            cache_size,
            transport,
        };
        let server = contender.start(&place)?;
        if !overflow {
            self.fill_cache(&server)?;
            raw::drop_page_cache(file)?;
        }
        self.measure(&server, load, &extent)
    }

    /// Reads other data, as much as the server's cache holds. A server that has just started pays once in its life for
    /// the first use of its memory, and on a virtual machine that costs more than the disk.
    fn fill_cache(&self, server: &Server) -> io::Result<()> {
        let other = Extent {
            start: self.scale.cold_size,
            span: self.scale.cold_cache,
            duration: FILL_TIME_MAX,
            seed: 0,
        };
        self.measure(server, &load::FILL, &other)?;
        Ok(())
    }

    /// A file for writes that don't keep the pattern, as large as the overflow and allocated on the disk.
    fn scratch(&self) -> io::Result<PathBuf> {
        let path = self.folder.join("scratch.img");
        if !path.exists() {
            raw::create(&path, 4 * self.scale.overflow_cache, self.options.pattern)?;
        }
        raw::drop_page_cache(&path)?;
        Ok(path)
    }
}
