//! Logs, on standard error.
//!
//! # No thread waits for the log
//! A reader of standard error may stop reading, and a pipe or a terminal that is full makes a write wait for ever. So a
//! thread that logs only leaves a line in a [`Queue`] with a bound, and one other thread writes. A line that doesn't
//! fit is dropped and counted. The count appears in the log once the log is read again, in `weir status` and in the
//! metrics. At the end the process waits for the thread for [`FINISH_TIMEOUT`] at most.
//!
//! # Floods
//! A failing store, or clients that come and go, can cause thousands of lines a second. Of each kind, which is a place
//! in the code, a few a second are written and the rest is counted: `... and 3977 more like "..." in the last second`.
//! Kinds share neither that allowance nor room in the queue, so a flood of one never hides another. Lines that only
//! `-v` asks for aren't limited that way.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::{EnvFilter, Registry};

mod kind;
mod queue;
mod writer;

use queue::Queue;

/// How long the end of the process may wait for the writing of what was logged. A live reader takes milliseconds.
const FINISH_TIMEOUT: Duration = Duration::from_secs(1);

/// The log of this process, once it was started.
static QUEUE: OnceLock<Queue> = OnceLock::new();

/// Logs what `RUST_LOG` says; without it, what `-v` and `-q` (each counted) say.
///
/// # Errors
/// The thread that writes can't be started.
pub fn start(verbose: u8, quiet: u8) -> io::Result<()> {
    let filter = std::env::var("RUST_LOG")
        .ok()
        .and_then(|text| EnvFilter::try_new(text).ok());
    let filter = filter.unwrap_or_else(|| EnvFilter::new(directives(verbose, quiet)));
    let queue = QUEUE.get_or_init(Queue::default);
    thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || writer::run(queue, io::stderr()))?;
    let subscriber = subscriber(queue, filter, verbose > 0, io::stderr().is_terminal());
    // Only a second start in one process could be refused, and then the first one logs.
    let _ = tracing::subscriber::set_global_default(subscriber);
    Ok(())
}

fn subscriber(
    queue: &'static Queue,
    filter: EnvFilter,
    with_target: bool,
    in_colour: bool,
) -> impl Subscriber + Send + Sync {
    let lines = tracing_subscriber::fmt::layer()
        .with_target(with_target)
        .with_ansi(in_colour)
        .with_writer(Log(queue))
        // If standard error has gone, it would report that on standard error, and panic.
        .log_internal_errors(false);
    Registry::default()
        .with(filter)
        .with(FloodGate(queue))
        .with(lines)
}

/// Writes `text` as the last line, behind all that was logged, whatever the level. Waits for that as [`finish`] does.
pub fn last_words(text: &str) {
    match QUEUE.get() {
        Some(queue) => {
            queue.push_always(&format!("{text}\n"));
            finish();
        }
        None => {
            // A failure doesn't matter: the exit status says the same.
            let _ = writeln!(io::stderr(), "{text}");
        }
    }
}

/// Waits until everything is written, [`FINISH_TIMEOUT`] at most.
pub fn finish() {
    if let Some(queue) = QUEUE.get() {
        queue.finish(Instant::now() + FINISH_TIMEOUT);
    }
}

/// Whether [`start`] was called, so that nothing else may write to standard error.
pub fn is_started() -> bool {
    QUEUE.get().is_some()
}

/// Lines dropped so far because standard error wasn't read, or because it can't be written.
#[must_use]
pub fn lines_dropped() -> u64 {
    QUEUE.get().map_or(0, Queue::lines_dropped)
}

/// Detail is wanted of Weir, not of the libraries below it.
fn directives(verbose: u8, quiet: u8) -> &'static str {
    match (verbose, quiet) {
        (_, 2..) => "error",
        (_, 1) => "warn",
        (0, 0) => "info",
        (1, 0) => "info,weir=debug,weir_cache=debug,weir_faults=debug,weir_protocol=debug",
        (2.., 0) => "info,weir=trace,weir_cache=trace,weir_faults=trace,weir_protocol=trace",
    }
}

/// Holds back excess lines before any work is done for them.
struct FloodGate(&'static Queue);

impl<S: Subscriber> Layer<S> for FloodGate {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        // Only `-v` asks for more detail than that.
        if *metadata.level() > Level::INFO {
            return true;
        }
        self.0
            .admit(metadata, Instant::now(), || Message::of(event))
    }
}

/// The text of an event without its fields.
#[derive(Default)]
struct Message(String);

impl Message {
    fn of(event: &Event<'_>) -> String {
        let mut message = Self::default();
        event.record(&mut message);
        message.0
    }
}

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            // Writing to a string can't fail.
            let _ = write!(self.0, "{value:?}");
        }
    }
}

/// Where formatted lines go.
struct Log(&'static Queue);

impl<'a> MakeWriter<'a> for Log {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        unreachable!("every line belongs to an event")
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Line {
        Line {
            queue: self.0,
            kind: metadata.callsite(),
            level: *metadata.level(),
        }
    }
}

/// One line on its way into the queue.
struct Line {
    queue: &'static Queue,
    kind: Identifier,
    level: Level,
}

impl io::Write for Line {
    /// Takes a whole line, as the formatter hands it over.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.queue.push(&self.kind, self.level, line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
