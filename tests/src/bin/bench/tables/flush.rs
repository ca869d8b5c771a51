//! The cost of a FLUSH, by dirty data and by clean data.

use std::io;
use std::time::Instant;

use crate::connection::Connection;
use crate::contender::Contender;
use crate::pattern::Random;
use crate::wire::{Command, Request};

use super::{PAGE, REPEATS, Tables, median, milliseconds};

const SIZE: u64 = 256 << 20;
const DEPTH: usize = 32;
const DIRTY_PAGES: [u64; 6] = [0, 1, 16, 256, 4096, 16384];
/// Beside these clean bytes, [`FEW_PAGES`] are dirty.
const CLEAN_BYTES: [u64; 4] = [0, 16 << 20, 64 << 20, 256 << 20];
const FEW_PAGES: u64 = 16;

pub(super) fn dirty(tables: &mut Tables<'_>, contender: &mut Contender) -> io::Result<()> {
    let server = tables.start(contender, SIZE)?;
    let mut connection = Connection::open(server.address(), tables.options, DEPTH)?;
    connection.prefill(SIZE)?;
    for pages in DIRTY_PAGES {
        let time = flush_time(&mut connection, pages)?;
        tables.add(contender, format!("{pages} pages"), time, "ms");
    }
    connection.close();
    Ok(())
}

pub(super) fn clean(tables: &mut Tables<'_>, contender: &mut Contender) -> io::Result<()> {
    for bytes in CLEAN_BYTES {
        let server = tables.start(contender, SIZE)?;
        let mut connection = Connection::open(server.address(), tables.options, DEPTH)?;
        connection.prefill(bytes)?;
        let time = flush_time(&mut connection, FEW_PAGES)?;
        let case = format!("{} MiB clean", bytes >> 20);
        tables.add(contender, case, time, "ms");
        connection.close();
    }
    Ok(())
}

/// The time of a FLUSH after `pages` random writes, each to a page of its own.
fn flush_time(connection: &mut Connection, pages: u64) -> io::Result<f64> {
    let mut times = Vec::new();
    for repeat in 0..REPEATS {
        let order = Random::new(repeat as u64).permutation(SIZE / u64::from(PAGE));
        for page in order
            .into_iter()
            .take(usize::try_from(pages).expect("a small number"))
        {
            connection.queue(
                Request {
                    command: Command::Write,
                    offset: page * u64::from(PAGE),
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
    Ok(median(times))
}
