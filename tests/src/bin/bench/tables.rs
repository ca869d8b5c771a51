//! Costs that no throughput shows, each over sizes that it must not grow with: idle connections, a lookup, a start, a
//! trim of untouched data, a flush, more exports.
//!
//! Each table asks every server that can answer, and a server that fails gets a line with the reason.

mod connections;
mod exports;
mod flush;
mod size;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use crate::connection::Options;
use crate::contender::{Contender, Kind, Place};
use crate::process::Server;
use crate::report::Spread;
use crate::stream::Transport;

const GIB: u64 = 1 << 30;
/// Room for all that a table touches.
const CACHE_SIZE: u64 = 512 << 20;
/// How often short measurements are repeated.
const REPEATS: usize = 5;
const PAGE: u32 = 4096;

/// One cell of a table.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Cost {
    pub(crate) table: &'static str,
    pub(crate) contender: &'static str,
    pub(crate) case: String,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
}

/// Collects and prints the cells of one table after the other.
struct Tables<'run> {
    folder: PathBuf,
    options: &'run Options,
    table: &'static str,
    costs: Vec<Cost>,
}

/// Every table for every contender that is a server.
pub(crate) fn measure(
    contenders: &mut [Contender],
    folder: &Path,
    options: &Options,
) -> io::Result<Vec<Cost>> {
    connections::raise_descriptor_limit()?;
    let mut tables = Tables {
        folder: folder.to_owned(),
        options,
        table: "",
        costs: Vec::new(),
    };
    type Measure = fn(&mut Tables<'_>, &mut Contender) -> io::Result<()>;
    let all: [(&'static str, Measure); 8] = [
        ("memory with idle connections", connections::idle),
        ("memory for what is cached", connections::cached),
        ("random read 4 KiB QD32 by device size", size::lookup),
        ("start-up by device size", size::start_up),
        ("trim of all of an untouched device", size::trim),
        ("flush of dirty pages", flush::dirty),
        ("flush of 16 dirty pages beside clean ones", flush::clean),
        ("reads from one export beside others", exports::beside),
    ];
    for (title, measure) in all {
        println!("\n{title}");
        tables.table = title;
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

impl Tables<'_> {
    fn add(&mut self, contender: &Contender, case: String, value: f64, unit: &'static str) {
        println!("  {:<16} {case:<28} {value:>12.2} {unit}", contender.name);
        self.costs.push(Cost {
            table: self.table,
            contender: contender.name,
            case,
            value,
            unit,
        });
    }

    /// A server of a new sparse file.
    fn start(&self, contender: &mut Contender, size: u64) -> io::Result<Server> {
        let file = self.folder.join("tables.img");
        File::create(&file)?.set_len(size)?;
        contender.start(&Place {
            folder: &self.folder,
            file: &file,
            size,
            cache_size: CACHE_SIZE,
            transport: Transport::Unix,
        })
    }
}

/// Whether all of the export would lie in memory, which isn't possible for a huge one.
fn is_memory(contender: &Contender) -> bool {
    matches!(contender.kind, Kind::Ceiling | Kind::TokioLoop)
}

fn median(values: Vec<f64>) -> f64 {
    Spread::of(values).expect("some repeats").median
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn gibibytes(size: u64) -> String {
    format!("{} GiB", size / GIB)
}
