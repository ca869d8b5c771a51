//! What is counted per connection, by command.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_utils::CachePadded;
use weir_protocol::Command;

use crate::commands::{COMMAND_ROWS, row_of};

/// Latencies are counted in powers of two of a microsecond: bucket `n` holds those below `2^n` us, the last one the
/// rest (eight seconds and more).
pub const LATENCY_BUCKETS: usize = 24;

/// The bucket that a latency belongs to.
pub(super) fn latency_bucket(latency: Duration) -> usize {
    let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
    let bits = usize::try_from(u64::BITS - micros.leading_zeros()).unwrap_or(LATENCY_BUCKETS);
    bits.min(LATENCY_BUCKETS - 1)
}

/// What was done for one command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommandCounts {
    /// Requests answered.
    pub requests: u64,
    /// Bytes that the answered requests asked for.
    pub bytes: u64,
    /// Requests answered with an error.
    pub errors: u64,
    /// Answered requests by latency, in powers of two of a microsecond.
    pub latency: [u64; LATENCY_BUCKETS],
    /// Their latencies together, in nanoseconds.
    pub latency_sum: u64,
}

impl CommandCounts {
    fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.bytes += other.bytes;
        self.errors += other.errors;
        self.latency_sum += other.latency_sum;
        self.latency
            .iter_mut()
            .zip(other.latency)
            .for_each(|(sum, count)| *sum += count);
    }
}

/// What was done on a connection or an export.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Bytes received, headers included.
    pub received: u64,
    /// Bytes sent, headers included.
    pub sent: u64,
    /// By the command's row.
    pub commands: [CommandCounts; COMMAND_ROWS],
}

impl Counts {
    /// Requests answered, of all commands.
    pub fn requests(&self) -> u64 {
        self.commands.iter().map(|command| command.requests).sum()
    }

    /// Requests answered with an error, of all commands.
    pub fn errors(&self) -> u64 {
        self.commands.iter().map(|command| command.errors).sum()
    }

    /// What was done for `command`, or for all unknown commands if it is unknown.
    pub fn command(&self, command: Command) -> &CommandCounts {
        &self.commands[row_of(command)]
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.received += other.received;
        self.sent += other.sent;
        self.commands
            .iter_mut()
            .zip(&other.commands)
            .for_each(|(sum, counts)| sum.add(counts));
    }
}

/// [`Counts`] with one writer and any number of readers.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    cells: CachePadded<Cells>,
}

#[derive(Debug, Default)]
struct Cells {
    received: AtomicU64,
    sent: AtomicU64,
    under_way: AtomicUsize,
    commands: [CommandCells; COMMAND_ROWS],
}

#[derive(Debug, Default)]
struct CommandCells {
    requests: AtomicU64,
    bytes: AtomicU64,
    errors: AtomicU64,
    latency: [AtomicU64; LATENCY_BUCKETS],
    latency_sum: AtomicU64,
}

/// Adds to a cell that has no other writer.
#[inline]
fn bump(cell: &AtomicU64, by: u64) {
    cell.store(
        cell.load(Ordering::Relaxed).wrapping_add(by),
        Ordering::Relaxed,
    );
}

impl Counters {
    /// Sets the bytes transferred so far. Called by the connection's session only, as is [`Self::count`].
    #[inline]
    pub(crate) fn set_bytes(&self, received: u64, sent: u64) {
        self.cells.received.store(received, Ordering::Relaxed);
        self.cells.sent.store(sent, Ordering::Relaxed);
    }

    /// Sets how many requests are being worked on.
    #[inline]
    pub(crate) fn set_under_way(&self, requests: usize) {
        self.cells.under_way.store(requests, Ordering::Relaxed);
    }

    pub(super) fn under_way(&self) -> usize {
        self.cells.under_way.load(Ordering::Relaxed)
    }

    /// Counts `requests` answered requests, each of which took `latency`.
    #[inline]
    pub(crate) fn count(
        &self,
        row: usize,
        requests: u64,
        bytes: u64,
        errors: u64,
        latency: Duration,
    ) {
        let cells = &self.cells.commands[row];
        bump(&cells.requests, requests);
        bump(&cells.bytes, bytes);
        if errors > 0 {
            bump(&cells.errors, errors);
        }
        bump(&cells.latency[latency_bucket(latency)], requests);
        // It can hold 584 years of waiting.
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        bump(&cells.latency_sum, nanos.saturating_mul(requests));
    }

    pub(super) fn load(&self) -> Counts {
        let commands = self.cells.commands.each_ref().map(|cells| CommandCounts {
            requests: cells.requests.load(Ordering::Relaxed),
            bytes: cells.bytes.load(Ordering::Relaxed),
            errors: cells.errors.load(Ordering::Relaxed),
            latency: cells
                .latency
                .each_ref()
                .map(|cell| cell.load(Ordering::Relaxed)),
            latency_sum: cells.latency_sum.load(Ordering::Relaxed),
        });
        Counts {
            received: self.cells.received.load(Ordering::Relaxed),
            sent: self.cells.sent.load(Ordering::Relaxed),
            commands,
        }
    }
}
