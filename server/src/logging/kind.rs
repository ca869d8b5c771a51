//! What one place in the code has logged lately, and how much more it may.

use std::time::{Duration, Instant};

use tracing::Level;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

/// The time over which lines of one kind are counted.
pub(super) const WINDOW: Duration = Duration::from_secs(1);
/// How many lines of one kind are written in that time: more than one failure of a store or the connections of one
/// client cause, and still few enough to read in passing.
pub(super) const LINES_PER_WINDOW: u32 = 20;
/// Bytes of one kind that may wait in the queue: a few hundred lines.
pub(super) const WAITING_BYTES_PER_KIND: usize = 64 << 10;

/// The lines of one place in the code.
#[derive(Debug)]
pub(super) struct Kind {
    level: Level,
    window_start: Instant,
    /// Lines written in this window.
    lines: u32,
    /// Lines beyond those in this window.
    left_out: u64,
    /// What the first of these said.
    example: String,
    /// The batch of the queue that `waiting_bytes` belong to.
    batch: u64,
    waiting_bytes: usize,
}

impl Kind {
    pub(super) fn new(level: Level, now: Instant) -> Self {
        Self {
            level,
            window_start: now,
            lines: 0,
            left_out: 0,
            example: String::new(),
            batch: 0,
            waiting_bytes: 0,
        }
    }

    /// Whether one more line may be written; if not, it is counted. Must be called within the window.
    pub(super) fn admit(&mut self, example: impl FnOnce() -> String) -> bool {
        if self.lines < LINES_PER_WINDOW {
            self.lines += 1;
            return true;
        }
        if self.left_out == 0 {
            self.example = example();
        }
        self.left_out += 1;
        false
    }

    /// When the lines that were left out are due to be reported; `None` when there are none.
    pub(super) fn due(&self) -> Option<Instant> {
        (self.left_out > 0).then(|| self.window_start + WINDOW)
    }

    pub(super) fn window_is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.window_start) >= WINDOW
    }

    /// Begins a new window. Returns a line about what was left out of the old one, if anything was.
    pub(super) fn begin_window(&mut self, now: Instant) -> Option<String> {
        let past = now.saturating_duration_since(self.window_start);
        let left_out = std::mem::take(&mut self.left_out);
        self.window_start = now;
        self.lines = 0;
        (left_out > 0).then(|| {
            let time = match past.as_secs() {
                0 | 1 => "second".to_owned(),
                seconds => format!("{seconds} seconds"),
            };
            let example = std::mem::take(&mut self.example);
            let text = format!("... and {left_out} more like {example:?} in the last {time}");
            line(self.level, &text)
        })
    }

    /// Takes room for `bytes` in the queue's batch of that number; `false` when this kind has used up its share.
    pub(super) fn reserve(&mut self, bytes: usize, batch: u64) -> bool {
        if self.batch != batch {
            self.batch = batch;
            self.waiting_bytes = 0;
        }
        let fits = self.waiting_bytes + bytes <= WAITING_BYTES_PER_KIND;
        if fits {
            self.waiting_bytes += bytes;
        }
        fits
    }
}

/// A line of the log's own, in the form of the others.
pub(super) fn line(level: Level, text: &str) -> String {
    let mut line = String::new();
    // Writing to a string can't fail.
    let _ = SystemTime.format_time(&mut Writer::new(&mut line));
    line + &format!(" {:>5} {text}\n", level.as_str())
}

#[cfg(test)]
mod tests;
