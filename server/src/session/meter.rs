//! Counting answered requests without a clock read or a shared write per request.
//!
//! Requests that arrive in one batch share the time of the batch's wake-up. Those that are answered in it share the
//! time after its flush. That makes two clock reads per batch. [`Meter::publish`] then hands the sums to the
//! connection's counters.

use std::time::Instant;

use super::Ticket;
use crate::commands::{COMMAND_ROWS, row_of};
use crate::connection::Counters;

/// What was answered since the last publication.
#[derive(Debug)]
pub(super) struct Meter {
    /// When the current batch began.
    batch: Instant,
    /// Requests of the current batch, by command.
    prompt: [Sum; COMMAND_ROWS],
    /// A bit for each row that `prompt` has something of.
    touched: u16,
    /// Requests of earlier batches.
    late: Vec<(Ticket, bool)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    requests: u64,
    bytes: u64,
    errors: u64,
}

impl Meter {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            batch: now,
            prompt: [Sum::default(); COMMAND_ROWS],
            touched: 0,
            late: Vec::new(),
        }
    }

    /// A batch begins.
    pub(super) fn begin(&mut self, now: Instant) {
        self.batch = now;
    }

    /// When the current batch began.
    #[inline]
    pub(super) fn batch(&self) -> Instant {
        self.batch
    }

    /// A request was answered.
    #[inline]
    pub(super) fn answered(&mut self, ticket: &Ticket, failed: bool) {
        if ticket.arrived != self.batch {
            self.late.push((*ticket, failed));
            return;
        }
        let row = row_of(ticket.request.command);
        let sum = &mut self.prompt[row];
        sum.requests += 1;
        sum.bytes += u64::from(ticket.request.length);
        sum.errors += u64::from(failed);
        self.touched |= 1 << row;
    }

    /// Hands over what was counted, if anything was.
    pub(super) fn publish(&mut self, counters: &Counters) {
        if self.touched == 0 && self.late.is_empty() {
            return;
        }
        let now = Instant::now();
        let latency = now - self.batch;
        while self.touched != 0 {
            let row = self.touched.trailing_zeros() as usize;
            self.touched &= self.touched - 1;
            let sum = std::mem::take(&mut self.prompt[row]);
            counters.count(row, sum.requests, sum.bytes, sum.errors, latency);
        }
        for (ticket, failed) in self.late.drain(..) {
            let request = ticket.request;
            counters.count(
                row_of(request.command),
                1,
                request.length.into(),
                failed.into(),
                now - ticket.arrived,
            );
        }
    }
}
