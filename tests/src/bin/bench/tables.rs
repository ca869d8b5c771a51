//! What things cost that no throughput shows: idle connections, a start, a trim of everything, a flush, many exports.
//!
//! Each table asks every server that can answer; a server that fails gets a line that says why.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::Serialize;

use crate::connection::{Connection, Options};
use crate::contender::{Contender, Kind, Place};
use crate::load::{Extent, LOADS, Load, run};
use crate::pattern::Random;
use crate::process::{self, Server};
use crate::report::Spread;
use crate::stream::{Address, Stream, Transport};
use crate::wire::{self, Command, Request, failure};

const IDLE_CONNECTIONS: u32 = 1000;
/// Descriptors for those, on both sides, and some more.
const DESCRIPTORS: u64 = 4096;
const HUGE_SIZE: u64 = 1 << 40;
const SMALL_SIZE: u64 = 256 << 20;
/// Room for all of a small export.
const CACHE_SIZE: u64 = 512 << 20;
/// The longest a request can be, in whole blocks: 4 GiB less one block.
const TRIM_LENGTH: u32 = u32::MAX - 4095;
const TRIM_DEPTH: usize = 16;
/// How often what is short is repeated.
const REPEATS: usize = 5;
const DIRTY_PAGES: [u64; 6] = [0, 1, 16, 256, 4096, 16384];
const PAGE: u32 = 4096;
const EXPORTS: [usize; 3] = [1, 16, 256];
/// Of the exports, how many are read at the same time.
const ACTIVE_EXPORTS: usize = 4;
const EXPORT_SIZE: u64 = 16 << 20;

/// One cell of a table.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Cost {
    pub(crate) table: &'static str,
    pub(crate) contender: &'static str,
    pub(crate) case: String,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
}

/// Collects and prints the cells.
struct Tables {
    folder: PathBuf,
    options: Options,
    costs: Vec<Cost>,
}

/// Every table for every contender that is a server.
pub(crate) fn measure(
    contenders: &mut [Contender],
    folder: &Path,
    options: &Options,
) -> io::Result<Vec<Cost>> {
    raise_descriptor_limit()?;
    let mut tables = Tables {
        folder: folder.to_owned(),
        options: options.clone(),
        costs: Vec::new(),
    };
    type Measure = fn(&mut Tables, &mut Contender) -> io::Result<()>;
    let all: [(&'static str, Measure); 6] = [
        ("idle connections", Tables::idle),
        ("start-up on 1 TiB", Tables::start_up),
        ("trim of 1 TiB untouched", Tables::trim),
        ("memory for what is cached", Tables::memory),
        ("flush of dirty pages", Tables::flush),
        ("exports", Tables::exports),
    ];
    for (title, measure) in all {
        println!("\n{title}");
        for contender in contenders
            .iter_mut()
            .filter(|contender| !contender.is_raw())
        {
            if let Err(error) = measure(&mut tables, contender) {
                println!("  {:<16} {error}", contender.name);
            }
        }
    }
    Ok(tables.costs)
}

impl Tables {
    fn add(
        &mut self,
        table: &'static str,
        contender: &Contender,
        case: String,
        value: f64,
        unit: &'static str,
    ) {
        println!("  {:<16} {case:<28} {value:>12.2} {unit}", contender.name);
        self.costs.push(Cost {
            table,
            contender: contender.name,
            case,
            value,
            unit,
        });
    }

    fn start(&self, contender: &mut Contender, size: u64) -> io::Result<Server> {
        let file = self.folder.join("tables.img");
        File::create(&file)?.set_len(size)?;
        let transport = Transport::Unix;
        contender.start(&Place {
            folder: &self.folder,
            file: &file,
            size,
            cache_size: CACHE_SIZE,
            transport,
        })
    }

    fn idle(&mut self, contender: &mut Contender) -> io::Result<()> {
        let server = self.start(contender, SMALL_SIZE)?;
        let before = server.resident_bytes()?;
        let mut held = Vec::new();
        for number in 0..IDLE_CONNECTIONS {
            let connected = self.hold(server.address());
            held.push(
                connected
                    .map_err(|error| failure(format!("connection {number} refused: {error}")))?,
            );
        }
        let after = server.resident_bytes()?;
        let table = "idle connections";
        self.add(
            table,
            contender,
            "idle server".into(),
            before as f64 / 1e6,
            "MB",
        );
        let each = after.saturating_sub(before) as f64 / f64::from(IDLE_CONNECTIONS) / 1e3;
        self.add(
            table,
            contender,
            format!("each of {IDLE_CONNECTIONS} connections"),
            each,
            "kB",
        );
        Ok(())
    }

    /// A connection without the generator's buffers.
    fn hold(&self, address: &Address) -> io::Result<Stream> {
        let mut stream = address.connect()?;
        stream.bound_waits()?;
        wire::negotiate(&mut stream, &self.options.export, self.options.structured)?;
        Ok(stream)
    }

    /// Resident bytes for each byte that is written once and fits in the cache.
    fn memory(&mut self, contender: &mut Contender) -> io::Result<()> {
        let server = self.start(contender, SMALL_SIZE)?;
        let before = server.resident_bytes()?;
        let mut connection = Connection::open(server.address(), &self.options, 4)?;
        connection.prefill(SMALL_SIZE)?;
        let grown = server.resident_bytes()?.saturating_sub(before);
        connection.close();
        let case = format!("{} MiB written", SMALL_SIZE >> 20);
        self.add(
            "memory",
            contender,
            case,
            grown as f64 / SMALL_SIZE as f64,
            "bytes per byte",
        );
        Ok(())
    }

    fn start_up(&mut self, contender: &mut Contender) -> io::Result<()> {
        if matches!(contender.kind, Kind::Ceiling | Kind::TokioLoop) {
            return Err(failure("keeps all of its export in memory"));
        }
        let mut times = Vec::new();
        for _ in 0..REPEATS {
            let start = Instant::now();
            let server = self.start(contender, HUGE_SIZE)?;
            self.hold(server.address())?;
            times.push(milliseconds(start.elapsed()));
        }
        let spread = Spread::of(times).expect("some repeats");
        self.add(
            "start-up on 1 TiB",
            contender,
            "to the first handshake".into(),
            spread.median,
            "ms",
        );
        Ok(())
    }

    fn trim(&mut self, contender: &mut Contender) -> io::Result<()> {
        if matches!(contender.kind, Kind::Ceiling | Kind::TokioLoop) {
            return Err(failure("has no TRIM"));
        }
        let server = self.start(contender, HUGE_SIZE)?;
        let mut connection = Connection::open(server.address(), &self.options, TRIM_DEPTH)?;
        let start = Instant::now();
        let (mut offset, mut requests) = (0, 0);
        while offset < HUGE_SIZE {
            let rest = HUGE_SIZE - offset;
            let length = u32::try_from(rest).unwrap_or(TRIM_LENGTH).min(TRIM_LENGTH);
            connection.queue(
                Request {
                    command: Command::Trim,
                    offset,
                    length,
                },
                start,
            );
            offset += u64::from(length);
            requests += 1;
            if connection.room() == 0 {
                connection.send()?;
                connection.receive(|_| ())?;
            }
        }
        connection.send()?;
        connection.drain(|_| ())?;
        let elapsed = milliseconds(start.elapsed());
        connection.close();
        self.add(
            "trim of 1 TiB untouched",
            contender,
            format!("{requests} requests"),
            elapsed,
            "ms",
        );
        Ok(())
    }

    fn flush(&mut self, contender: &mut Contender) -> io::Result<()> {
        let server = self.start(contender, SMALL_SIZE)?;
        let mut connection = Connection::open(server.address(), &self.options, 32)?;
        connection.prefill(SMALL_SIZE)?;
        for pages in DIRTY_PAGES {
            let mut times = Vec::new();
            for repeat in 0..REPEATS {
                let order = Random::new(repeat as u64).permutation(SMALL_SIZE / u64::from(PAGE));
                for page in order
                    .into_iter()
                    .take(usize::try_from(pages).expect("a small number"))
                {
                    let offset = page * u64::from(PAGE);
                    connection.queue(
                        Request {
                            command: Command::Write,
                            offset,
                            length: PAGE,
                        },
                        Instant::now(),
                    );
                    connection.send()?;
                    if connection.room() == 0 {
                        connection.receive(|_| ())?;
                    }
                }
                connection.drain(|_| ())?;
                let start = Instant::now();
                connection.call(Request::FLUSH)?;
                times.push(milliseconds(start.elapsed()));
            }
            let spread = Spread::of(times).expect("some repeats");
            self.add(
                "flush of dirty pages",
                contender,
                format!("{pages} pages"),
                spread.median,
                "ms",
            );
        }
        connection.close();
        Ok(())
    }

    fn exports(&mut self, contender: &mut Contender) -> io::Result<()> {
        if !matches!(contender.kind, Kind::Weir | Kind::Baseline) {
            return Err(failure("serves one export only"));
        }
        for count in EXPORTS {
            let address = Address::Unix(
                self.folder
                    .join(format!("{}-exports-{count}.sock", contender.name)),
            );
            let mut command = process::command(contender.program());
            command.args([
                "serve",
                "--no-admin",
                "--cache-size",
                "32M",
                "--listen",
                &address.to_string(),
            ]);
            for number in 0..count {
                command
                    .arg("--export")
                    .arg(format!("e{number}=memory:{EXPORT_SIZE}"));
            }
            command.stderr(std::process::Stdio::null());
            let server = Server::start(&mut command, address)?;
            let active = count.min(ACTIVE_EXPORTS);
            let rate = self.read_exports(&server, active)?;
            let case = format!("{count} exports, {active} read");
            self.add("exports", contender, case, rate / 1e3, "k requests/s");
        }
        Ok(())
    }

    /// Reads the first `active` exports at the same time and returns requests per second of all.
    fn read_exports(&self, server: &Server, active: usize) -> io::Result<f64> {
        let load: &'static Load = LOADS
            .iter()
            .find(|load| load.name == "read")
            .expect("a load of that name");
        let extent = Extent {
            start: 0,
            span: EXPORT_SIZE,
            duration: Duration::from_millis(500),
            seed: 1,
        };
        let options: Vec<Options> = (0..active)
            .map(|number| Options {
                export: format!("e{number}"),
                ..self.options.clone()
            })
            .collect();
        for options in &options {
            let mut connection = Connection::open(server.address(), options, 4)?;
            connection.prefill(EXPORT_SIZE)?;
            connection.close();
        }
        let rates: Vec<io::Result<f64>> = std::thread::scope(|scope| {
            let threads: Vec<_> = options
                .iter()
                .map(|options| {
                    scope.spawn(|| {
                        run(server.address(), options, load, &extent, || ())
                            .map(|(outcome, (), ())| outcome.requests_per_second())
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("a load doesn't panic"))
                .collect()
        });
        rates.into_iter().sum()
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// The servers inherit it.
fn raise_descriptor_limit() -> io::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = DESCRIPTORS.min(hard);
    if soft < wanted {
        setrlimit(Resource::RLIMIT_NOFILE, wanted, hard)?;
    }
    Ok(())
}
