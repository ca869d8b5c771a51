//! Costs that must not depend on the size of a device.

use std::io;
use std::time::Instant;

use crate::connection::Connection;
use crate::contender::Contender;
use crate::pattern::Random;
use crate::wire::{Command, Request, failure};

use super::{GIB, PAGE, REPEATS, Tables, connections, gibibytes, is_memory, median, milliseconds};

const SIZES: [u64; 4] = [GIB, 32 * GIB, 1024 * GIB, 8192 * GIB];
/// What is read, at the end of the device.
const HOT: u64 = 64 << 20;
const DEPTH: usize = 32;
/// Bursts of [`DEPTH`] reads: tens of milliseconds.
const BURSTS: usize = 1000;
/// The longest a request can be, in whole blocks: 4 GiB less one block.
const TRIM_LENGTH: u32 = u32::MAX - 4095;
const TRIM_DEPTH: usize = 16;

/// Processor time of hits in the last pages.
pub(super) fn lookup(tables: &mut Tables<'_>, contender: &mut Contender) -> io::Result<()> {
    for size in SIZES {
        if is_memory(contender) {
            return Err(failure("keeps all of its export in memory"));
        }
        let server = tables.start(contender, size)?;
        let mut connection = Connection::open(server.address(), tables.options, DEPTH)?;
        connection.prefill_range(size - HOT, size)?;
        let mut times = Vec::new();
        for repeat in 0..REPEATS {
            let mut random = Random::new(repeat as u64);
            let before = server.usage();
            for _ in 0..BURSTS {
                let now = Instant::now();
                while connection.room() > 0 {
                    let page = random.below(HOT / u64::from(PAGE));
                    let offset = size - HOT + page * u64::from(PAGE);
                    connection.queue(
                        Request {
                            command: Command::Read,
                            offset,
                            length: PAGE,
                        },
                        now,
                    );
                }
                connection.send()?;
                connection.drain(|_| ())?;
            }
            let used = server
                .usage()
                .since(before)
                .ok_or_else(|| failure("the kernel doesn't say what it used"))?;
            times.push(used.as_secs_f64() * 1e6 / (BURSTS * DEPTH) as f64);
        }
        connection.close();
        tables.add(contender, gibibytes(size), median(times), "us of cpu");
    }
    Ok(())
}

/// From the start of the process to the end of the first handshake.
pub(super) fn start_up(tables: &mut Tables<'_>, contender: &mut Contender) -> io::Result<()> {
    if is_memory(contender) {
        return Err(failure("keeps all of its export in memory"));
    }
    for size in SIZES {
        let mut times = Vec::new();
        for _ in 0..REPEATS {
            let start = Instant::now();
            let server = tables.start(contender, size)?;
            connections::hold(tables, server.address())?;
            times.push(milliseconds(start.elapsed()));
        }
        tables.add(contender, gibibytes(size), median(times), "ms");
    }
    Ok(())
}

/// As few requests as cover the device.
pub(super) fn trim(tables: &mut Tables<'_>, contender: &mut Contender) -> io::Result<()> {
    if is_memory(contender) {
        return Err(failure("has no TRIM"));
    }
    for size in SIZES {
        let server = tables.start(contender, size)?;
        let mut connection = Connection::open(server.address(), tables.options, TRIM_DEPTH)?;
        let mut times = Vec::new();
        for _ in 0..REPEATS {
            let start = Instant::now();
            let mut offset = 0;
            while offset < size {
                let rest = size - offset;
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
                if connection.room() == 0 {
                    connection.send()?;
                    connection.receive(|_| ())?;
                }
            }
            connection.send()?;
            connection.drain(|_| ())?;
            times.push(milliseconds(start.elapsed()));
        }
        connection.close();
        tables.add(contender, gibibytes(size), median(times), "ms");
    }
    Ok(())
}
