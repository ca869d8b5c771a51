use std::io::{BufRead as _, BufReader};
use std::time::Duration;

use super::*;

/// Longer than any of this takes.
const SOON: Duration = Duration::from_secs(20);

/// A log of its own, which lives for ever as the process' does, and what is to be logged to it.
fn log_to(queue: &'static Queue, level: &str, work: impl FnOnce()) {
    let subscriber = subscriber(queue, EnvFilter::new(level), false, false);
    tracing::subscriber::with_default(subscriber, work);
}

fn queue() -> &'static Queue {
    Box::leak(Box::default())
}

/// Everything that is written from `queue` until it is empty.
fn written(queue: &'static Queue) -> String {
    let (reader, writer) = io::pipe().unwrap();
    thread::spawn(move || writer::run(queue, writer));
    let mut lines = BufReader::new(reader);
    let mut text = String::new();
    queue.push_always("the end\n");
    while !text.contains("the end\n") {
        assert!(lines.read_line(&mut text).unwrap() > 0);
    }
    text
}

#[test]
fn lines_come_in_order_and_whole() {
    let queue = queue();
    log_to(queue, "info", || {
        tracing::info!(answer = 42, "first");
        tracing::debug!("not asked for");
        tracing::warn!("second");
    });
    let text = written(queue);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines[0].ends_with("  INFO first answer=42"), "{text}");
    assert!(lines[1].ends_with("  WARN second"), "{text}");
}

#[test]
fn a_log_that_nobody_reads_holds_nobody_up_and_says_what_it_dropped() {
    let queue = queue();
    let (reader, pipe) = io::pipe().unwrap();
    thread::spawn(move || writer::run(queue, pipe));
    const LINES: u64 = 20_000;
    log_to(queue, "debug", || {
        for number in 0..LINES {
            tracing::debug!(number, "{:200}", "");
        }
    });
    // Not a byte has been read. The end doesn't wait for a reader either.
    queue.finish(Instant::now() + Duration::from_millis(50));
    let dropped = queue.lines_dropped();
    assert!(dropped > 0, "this is more than a pipe and the queue hold");
    log_to(queue, "debug", || tracing::warn!("still there"));
    let mut reader = BufReader::new(reader);
    let (mut written, mut said, mut other_kind) = (0, 0, false);
    while said < dropped || !other_kind {
        let mut line = String::new();
        assert!(reader.read_line(&mut line).unwrap() > 0);
        written += u64::from(line.contains(" DEBUG "));
        other_kind |= line.contains("still there");
        let notice = line.split_once(" lines of this log were dropped");
        if let Some(count) = notice.and_then(|(before, _)| before.rsplit(' ').next()) {
            said += count.parse::<u64>().unwrap();
        }
    }
    assert_eq!(said, dropped);
    assert_eq!(written + dropped, LINES, "each is written or counted");
    queue.finish(Instant::now() + SOON);
}

#[test]
fn a_flood_of_one_kind_hides_no_other() {
    let queue = queue();
    const LINES: u64 = 1000;
    log_to(queue, "info", || {
        for number in 0..LINES {
            tracing::warn!(number, "the store fails");
        }
        tracing::warn!("the store is full");
    });
    queue.finish(Instant::now());
    let text = written(queue);
    let left_out = |line: &str| -> Option<u64> {
        let (count, _) = line
            .split_once("... and ")?
            .1
            .split_once(" more like \"the store fails\"")?;
        count.parse().ok()
    };
    let left_out: u64 = text.lines().filter_map(left_out).sum();
    let written = text.matches("the store fails number=").count() as u64;
    assert_eq!(written + left_out, LINES, "{text}");
    // The allowance of one second, or of a few more on a machine that stands still.
    assert!(written < LINES / 2, "{written} lines");
    assert!(text.contains("the store is full"), "{text}");
}

#[test]
fn what_was_left_out_is_said_although_nothing_follows() {
    let queue = queue();
    let (reader, pipe) = io::pipe().unwrap();
    thread::spawn(move || writer::run(queue, pipe));
    log_to(queue, "info", || {
        for _ in 0..2 * kind::LINES_PER_WINDOW {
            tracing::info!("again");
        }
    });
    let mut text = String::new();
    let mut reader = BufReader::new(reader);
    while !text.contains(" more like \"again\" in the last second") {
        assert!(reader.read_line(&mut text).unwrap() > 0);
    }
}

#[test]
fn a_reader_that_has_gone_costs_the_lines_alone() {
    let queue = queue();
    let (reader, pipe) = io::pipe().unwrap();
    drop(reader);
    thread::spawn(move || writer::run(queue, pipe));
    log_to(queue, "info", || tracing::warn!("into the void"));
    queue.finish(Instant::now() + SOON);
    assert_eq!(queue.lines_dropped(), 1);
    log_to(queue, "info", || tracing::warn!("again"));
    queue.finish(Instant::now() + SOON);
    assert_eq!(queue.lines_dropped(), 2, "the count itself isn't news");
}

#[test]
fn last_words_find_room() {
    let queue = queue();
    log_to(queue, "trace", || {
        for _ in 0..20_000 {
            tracing::trace!("{:200}", "");
        }
    });
    queue.push_always("weir: it is over\n");
    assert!(written(queue).contains("\nweir: it is over\n"));
}
