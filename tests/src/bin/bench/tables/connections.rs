//! Memory: of idle connections, and of cached data.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::connection::Connection;
use crate::contender::Contender;
use crate::stream::{Address, Stream};
use crate::wire::{self, failure};

use super::Tables;

const CONNECTIONS: [usize; 4] = [0, 10, 100, 1000];
/// Descriptors for the connections, on both sides, and some more.
const DESCRIPTORS: u64 = 4096;
const SIZE: u64 = 256 << 20;

pub(super) fn idle(tables: &mut Tables<'_>, contender: &mut Contender) -> io::Result<()> {
    let server = tables.start(contender, SIZE)?;
    let mut held = Vec::new();
    for count in CONNECTIONS {
        while held.len() < count {
            let connected = hold(tables, server.address());
            held.push(connected.map_err(|error| {
                failure(format!("connection {} refused: {error}", held.len() + 1))
            })?);
        }
        let resident = server.resident_bytes()? as f64 / 1e6;
        tables.add(contender, format!("{count} connections"), resident, "MB");
    }
    Ok(())
}

/// A connection without the generator's buffers.
pub(super) fn hold(tables: &Tables<'_>, address: &Address) -> io::Result<Stream> {
    let mut stream = address.connect()?;
    stream.bound_waits()?;
    wire::negotiate(
        &mut stream,
        &tables.options.export,
        tables.options.structured,
    )?;
    Ok(stream)
}

/// Resident bytes for each byte that is written once and fits in the cache.
pub(super) fn cached(tables: &mut Tables<'_>, contender: &mut Contender) -> io::Result<()> {
    let server = tables.start(contender, SIZE)?;
    let before = server.resident_bytes()?;
    let mut connection = Connection::open(server.address(), tables.options, 4)?;
    connection.prefill(SIZE)?;
    let grown = server.resident_bytes()?.saturating_sub(before);
    connection.close();
    let case = format!("{} MiB written", SIZE >> 20);
    tables.add(
        contender,
        case,
        grown as f64 / SIZE as f64,
        "bytes per byte",
    );
    Ok(())
}

/// The servers inherit it.
pub(super) fn raise_descriptor_limit() -> io::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = DESCRIPTORS.min(hard);
    if soft < wanted {
        setrlimit(Resource::RLIMIT_NOFILE, wanted, hard)?;
    }
    Ok(())
}
