//! What the disk itself does under a cold load: the reference for servers that must read from it.
//!
//! It is measured in two ways, because each has its flaw. Threads with positional `O_DIRECT` I/O (one per request in
//! flight) need nothing installed and are checked against the pattern, but pay for context switches. fio's io_uring
//! engine doesn't pay for them, but fio must be installed. Sequential reads go in 1 MiB pieces, as a server that reads
//! ahead would.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{OFlag, PosixFadviseAdvice, posix_fadvise};

use crate::load::{Extent, Kind, Load, Outcome, Source, Temperature};
use crate::pattern::Pattern;
use crate::process;
use crate::wire::{Command, failure};

/// What `O_DIRECT` wants of addresses; enough for every disk.
const ALIGNMENT: usize = 4096;
/// Pieces of sequential reads.
const SEQUENTIAL_PIECE: u32 = 1 << 20;

/// Creates `path` with `size` bytes of the pattern, on the disk.
pub(crate) fn create(path: &Path, size: u64, pattern: Pattern) -> io::Result<()> {
    let file = File::create(path)?;
    let mut piece = vec![0; SEQUENTIAL_PIECE as usize];
    let mut offset = 0;
    while offset < size {
        pattern.fill(offset, &mut piece);
        file.write_all_at(&piece, offset)?;
        offset += piece.len() as u64;
    }
    file.sync_all()
}

/// Puts all of `path` on the disk and out of the kernel's page cache.
pub(crate) fn drop_page_cache(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.sync_all()?;
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
    Ok(())
}

/// A buffer whose part at `start..` is aligned.
struct Aligned {
    bytes: Vec<u8>,
    start: usize,
    length: usize,
}

impl Aligned {
    fn new(length: usize) -> Self {
        let bytes = vec![0; length + ALIGNMENT];
        let start = bytes.as_ptr().align_offset(ALIGNMENT);
        Self {
            bytes,
            start,
            length,
        }
    }

    fn slice(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.length]
    }
}

/// Runs `load` with a thread for each request in flight.
pub(crate) fn with_threads(
    path: &Path,
    load: &Load,
    extent: &Extent,
    pattern: Pattern,
) -> io::Result<Outcome> {
    let load = &pieces_of(load);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlag::O_DIRECT.bits())
        .open(path)?;
    let source = Mutex::new(Source::new(load, extent, extent.seed));
    let overflow = load.temperature == Temperature::Overflow;
    let start = Instant::now();
    let outcomes: Vec<io::Result<Outcome>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..load.depth)
            .map(|_| {
                scope.spawn(|| {
                    let mut outcome = Outcome::default();
                    let mut buffer = Aligned::new(load.block as usize);
                    while overflow || start.elapsed() < extent.duration {
                        let Some(request) = source.lock().expect("nobody panics").next() else {
                            break;
                        };
                        let begun = Instant::now();
                        let target = buffer.slice();
                        if request.command == Command::Write {
                            pattern.fill(request.offset, target);
                            file.write_all_at(target, request.offset)?;
                        } else {
                            file.read_exact_at(target, request.offset)?;
                            if !pattern.holds(request.offset, target) {
                                return Err(failure(format!(
                                    "wrong data on the disk at {}",
                                    request.offset
                                )));
                            }
                        }
                        outcome.requests += 1;
                        outcome.bytes += u64::from(request.length);
                        outcome.latency.record(begun.elapsed());
                    }
                    Ok(outcome)
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("a load doesn't panic"))
            .collect()
    });
    if overflow {
        file.sync_data()?;
    }
    let mut total = Outcome::default();
    for outcome in outcomes {
        let outcome = outcome?;
        total.requests += outcome.requests;
        total.bytes += outcome.bytes;
        total.latency.merge(&outcome.latency);
    }
    total.elapsed = start.elapsed();
    Ok(total)
}

/// Runs `load` with fio's io_uring engine. Writes go to `scratch`: they don't keep the pattern.
pub(crate) fn with_uring(
    fio: &Path,
    path: &Path,
    scratch: &Path,
    load: &Load,
    extent: &Extent,
) -> io::Result<Outcome> {
    let load = &pieces_of(load);
    let overflow = load.temperature == Temperature::Overflow;
    let mode = match load.kind {
        Kind::SequentialRead => "read",
        _ if overflow => "randwrite",
        _ => "randread",
    };
    let mut command = process::command(fio);
    command.args([
        "--name=raw",
        "--ioengine=io_uring",
        "--direct=1",
        "--output-format=json",
        "--norandommap=0",
    ]);
    command.arg(format!(
        "--filename={}",
        if overflow { scratch } else { path }.display()
    ));
    command
        .arg(format!("--rw={mode}"))
        .arg(format!("--bs={}", load.block));
    command
        .arg(format!("--iodepth={}", load.depth))
        .arg(format!("--size={}", extent.span));
    command.arg(format!("--randseed={}", extent.seed));
    if overflow {
        command.arg("--end_fsync=1");
    } else {
        command.arg(format!("--runtime={}ms", extent.duration.as_millis()));
    }
    let output = command.output()?;
    if !output.status.success() {
        return Err(failure(format!("fio ended with {}", output.status)));
    }
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let job = &report["jobs"][0];
    let side = &job[if overflow { "write" } else { "read" }];
    let field = |value: &serde_json::Value| {
        value
            .as_u64()
            .ok_or_else(|| failure("fio's report lacks a figure"))
    };
    // The job's time includes the final fsync; the direction's time doesn't.
    let milliseconds = field(if overflow {
        &job["job_runtime"]
    } else {
        &side["runtime"]
    })?;
    Ok(Outcome {
        requests: field(&side["total_ios"])?,
        bytes: field(&side["io_bytes"])?,
        elapsed: Duration::from_millis(milliseconds.max(1)),
        ..Outcome::default()
    })
}

fn pieces_of(load: &Load) -> Load {
    let sequential = load.kind == Kind::SequentialRead;
    Load {
        block: if sequential {
            SEQUENTIAL_PIECE
        } else {
            load.block
        },
        ..*load
    }
}
