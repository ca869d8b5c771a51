//! What waits to be written to the log.
//!
//! The lock that guards it is never held during a write, so a thread that logs waits for a copy of a line at most. The
//! writer takes the whole batch that waits and leaves an empty one. Memory has a bound. A batch holds
//! [`super::kind::WAITING_BYTES_PER_KIND`] of each kind, and there are as many kinds as places in the code. Lines below
//! a warning also share [`CHATTER_BYTES`].

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tracing::callsite::Identifier;
use tracing::{Level, Metadata};

use super::kind::{Kind, line};

/// Waiting bytes of all lines below a warning: with `-vv` these have many kinds.
const CHATTER_BYTES: usize = 1 << 20;

/// The lines that wait, and the lock that guards them.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// There is something to write, or to report later.
    work: Condvar,
    /// Everything is written.
    idle: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    /// The number of `waiting`, which changes when the writer takes it.
    batch: u64,
    /// Bytes of `waiting` that are less than warnings.
    chatter_bytes: usize,
    kinds: HashMap<Identifier, Kind>,
    /// Lines that were dropped and not yet reported.
    dropped: u64,
    /// Lines that were ever dropped.
    dropped_total: u64,
    /// The writer has a batch in hand.
    writing: bool,
}

/// What the writer has in hand.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Whole lines.
    pub(super) bytes: Vec<u8>,
    /// How many of the lines are news, rather than reports of dropped lines.
    lines: u64,
    /// How many dropped lines the batch reports.
    dropped: u64,
}

impl Queue {
    /// Whether an event of that place may become a line now. If not, it is counted, and reported with `example`.
    pub(super) fn admit(
        &self,
        metadata: &Metadata<'_>,
        now: Instant,
        example: impl FnOnce() -> String,
    ) -> bool {
        let mut state = self.lock();
        let level = *metadata.level();
        let kind = state
            .kinds
            .entry(metadata.callsite())
            .or_insert_with(|| Kind::new(level, now));
        let summary = match kind.window_is_over(now) {
            true => kind.begin_window(now),
            false => None,
        };
        let waits_already = kind.due().is_some();
        let admitted = kind.admit(example);
        if let Some(summary) = summary {
            state.append(summary.as_bytes());
        }
        drop(state);
        // The writer has to report it if no line of the kind follows.
        if !admitted && !waits_already {
            self.work.notify_one();
        }
        admitted
    }

    /// Leaves a line, or counts it as dropped.
    pub(super) fn push(&self, kind: &Identifier, level: Level, line: &[u8]) {
        let mut state = self.lock();
        state.push(kind, level, line, Instant::now());
        drop(state);
        self.work.notify_one();
    }

    /// Leaves a line whatever waits already: for the few that end the process.
    pub(super) fn push_always(&self, line: &str) {
        self.lock().append(line.as_bytes());
        self.work.notify_one();
    }

    /// Waits for lines and puts them into `batch`, which was written. For the one thread that writes.
    pub(super) fn next(&self, batch: &mut Batch) {
        let mut state = self.lock();
        state.writing = false;
        loop {
            let now = Instant::now();
            state.sum_up(|kind| kind.window_is_over(now), now);
            if !state.waiting.is_empty() {
                break;
            }
            self.idle.notify_all();
            let due = state.kinds.values().filter_map(Kind::due).min();
            state = match due {
                Some(due) => {
                    let pause = due.saturating_duration_since(now);
                    let waited = self.work.wait_timeout(state, pause);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self
                    .work
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
            };
        }
        state.hand_over(batch);
    }

    /// Says that `batch` could not be written.
    pub(super) fn failed(&self, batch: &Batch) {
        let mut state = self.lock();
        // The report of these failed, too.
        state.dropped += batch.dropped;
        state.drop_lines(batch.lines);
    }

    /// Waits until everything is written, or for `deadline`.
    pub(super) fn finish(&self, deadline: Instant) {
        let mut state = self.lock();
        state.sum_up(|_| true, Instant::now());
        self.work.notify_one();
        while state.writing || !state.waiting.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.idle.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Lines that were ever dropped.
    pub(super) fn lines_dropped(&self) -> u64 {
        self.lock().dropped_total
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn push(&mut self, kind: &Identifier, level: Level, line: &[u8], now: Instant) {
        let chatter = level > Level::WARN;
        let fits = !chatter || self.chatter_bytes + line.len() <= CHATTER_BYTES;
        let batch = self.batch;
        let kind = self
            .kinds
            .entry(kind.clone())
            .or_insert_with(|| Kind::new(level, now));
        if !fits || !kind.reserve(line.len(), batch) {
            self.drop_lines(1);
            return;
        }
        if chatter {
            self.chatter_bytes += line.len();
        }
        self.append(line);
    }

    fn append(&mut self, line: &[u8]) {
        self.waiting.extend_from_slice(line);
    }

    fn drop_lines(&mut self, lines: u64) {
        self.dropped += lines;
        self.dropped_total += lines;
    }

    /// Says how many lines were left out of those kinds that `which` chooses.
    fn sum_up(&mut self, which: impl Fn(&Kind) -> bool, now: Instant) {
        for kind in self.kinds.values_mut() {
            if kind.due().is_some() && which(kind) {
                let summary = kind.begin_window(now).unwrap_or_default();
                self.waiting.extend_from_slice(summary.as_bytes());
            }
        }
    }

    /// Gives `waiting` to the writer, with a report behind it of what was dropped since it was full.
    fn hand_over(&mut self, batch: &mut Batch) {
        batch.bytes.clear();
        std::mem::swap(&mut batch.bytes, &mut self.waiting);
        let newlines = batch.bytes.iter().filter(|byte| **byte == b'\n').count();
        batch.lines = newlines as u64;
        batch.dropped = std::mem::take(&mut self.dropped);
        if batch.dropped > 0 {
            let text = format!(
                "{} lines of this log were dropped: nobody took them",
                batch.dropped
            );
            let notice = line(Level::WARN, &text);
            batch.bytes.extend_from_slice(notice.as_bytes());
        }
        self.batch += 1;
        self.chatter_bytes = 0;
        self.writing = true;
    }
}
