//! `/metrics`: figures in Prometheus' text format, gathered when they are asked for.

use std::fmt;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use weir_cache::PAGE_BYTES;

use super::aside::aside;
use super::wire::{CacheReport, SpaceReport};
use super::{AdminState, ApiError};
use crate::commands::COMMANDS;
use crate::connection::{CommandCounts, Counts, LATENCY_BUCKETS};
use crate::logging;

/// The type of the text: Prometheus asks for it by this name.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(super) async fn scrape(State(state): State<Arc<AdminState>>) -> Result<Response, ApiError> {
    let text = aside(move || text(state)).await.map_err(|_| {
        let message = "the figures can't be written as text";
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    })?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response())
}

/// All figures as text.
fn text(state: Arc<AdminState>) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("weir");
    registry.register_collector(Box::new(Figures(state)));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Figures(Arc<AdminState>);

/// One figure: its name, what it means, and how to take it.
type Figure<T> = (&'static str, &'static str, fn(&T) -> u64);

#[rustfmt::skip]
const CACHE_GAUGES: &[Figure<CacheReport>] = &[
    ("cache_limit_bytes", "What the cache may hold", |cache| cache.frames * PAGE_BYTES),
    ("cache_resident_bytes", "What is in the cache", |cache| cache.resident_pages * PAGE_BYTES),
    ("cache_dirty_bytes", "What is newer than what was submitted", |cache| cache.dirty_pages * PAGE_BYTES),
    ("cache_in_flight_bytes", "What is on its way to the store", |cache| cache.in_flight_pages * PAGE_BYTES),
    ("cache_held_bytes", "What trims, zeroes and direct writes hold", |cache| cache.held_pages * PAGE_BYTES),
    ("cache_unstable_bytes", "What was written and not synced", |cache| cache.unstable_pages * PAGE_BYTES),
    ("cache_metadata_bytes", "Bookkeeping of the cache", |cache| cache.metadata_bytes),
];

#[rustfmt::skip]
const SPACE_GAUGES: &[Figure<SpaceReport>] = &[
    ("quota_bytes", "What an export with a quota may allocate", |space| space.quota),
    ("quota_used_bytes", "What it has allocated or promised", |space| space.used),
    ("quota_free_bytes", "What is left of it", |space| space.free),
];

#[rustfmt::skip]
const CACHE_COUNTERS: &[Figure<CacheReport>] = &[
    ("cache_hits", "Pages that readers found", |cache| cache.hits),
    ("cache_misses", "Pages that readers waited for", |cache| cache.misses),
    ("cache_evictions", "Clean pages given up for others", |cache| cache.evictions),
    ("cache_writeback_bytes", "What was written back", |cache| cache.writeback_pages * PAGE_BYTES),
    ("cache_writeback_runs", "Writes that did so", |cache| cache.writeback_runs),
    ("cache_writeback_errors", "Those that failed", |cache| cache.writeback_errors),
    ("cache_syncs", "Syncs of the store", |cache| cache.syncs),
    ("cache_losses", "Failed syncs that may have lost acknowledged data", |cache| cache.losses),
    ("cache_readahead_pages", "Pages read ahead", |cache| cache.readahead_pages),
    ("cache_readahead_used_pages", "Those that were asked for afterwards", |cache| cache.readahead_used),
    ("cache_readahead_wasted_pages", "Those that never were", |cache| cache.readahead_wasted),
    ("cache_throttled", "Writes slowed or stopped because too much was dirty", |cache| cache.throttled),
    ("cache_memory_waits", "Requests that waited for memory", |cache| cache.memory_waits),
    ("cache_lock_waits", "Requests that waited for an add lock", |cache| cache.lock_waits),
];

#[rustfmt::skip]
const COMMAND_COUNTERS: &[Figure<CommandCounts>] = &[
    ("requests", "Requests answered", |counts| counts.requests),
    ("request_bytes", "Bytes that answered requests asked for", |counts| counts.bytes),
    ("request_errors", "Requests answered with an error", |counts| counts.errors),
];

/// One value per export.
type ByExport<T> = Vec<(String, T)>;

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let state = &*self.0;
        let exports = || state.exports.iter().map(|export| &**export);
        let counts: ByExport<Counts> = exports()
            .map(|export| {
                let counts = state.connections.export_counts(&export.name);
                (export.name.clone(), counts)
            })
            .collect();
        let caches: ByExport<CacheReport> = exports()
            .map(|export| (export.name.clone(), export.cache.stats().into()))
            .collect();
        commands(&mut encoder, &counts)?;
        latencies(&mut encoder, &counts)?;
        for (name, help, value) in CACHE_GAUGES {
            let family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            per_export(family, &caches, |one, cache| gauge(one, value(cache)))?;
        }
        let spaces: ByExport<SpaceReport> = exports()
            .filter_map(|export| Some((export.name.clone(), export.cache.quota()?.into())))
            .collect();
        for (name, help, value) in SPACE_GAUGES {
            let family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            per_export(family, &spaces, |one, space| gauge(one, value(space)))?;
        }
        for (name, help, value) in CACHE_COUNTERS {
            let family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            per_export(family, &caches, |one, cache| counter(one, value(cache)))?;
        }
        let help = "What fault rules and freezes keep of clients' data beside the cache";
        let held: ByExport<u64> = exports()
            .map(|export| (export.name.clone(), export.held.bytes() as u64))
            .collect();
        let family = encoder.encode_descriptor("held_bytes", help, None, MetricType::Gauge)?;
        per_export(family, &held, |one, bytes| gauge(one, *bytes))?;
        let help = "Open connections";
        let one = encoder.encode_descriptor("connections", help, None, MetricType::Gauge)?;
        gauge(one, state.connections.len() as u64)?;
        let help = "Fault rules in force";
        let one = encoder.encode_descriptor("fault_rules", help, None, MetricType::Gauge)?;
        gauge(one, state.faults.rules().len() as u64)?;
        let help = "Lines of the log that nobody took";
        let one =
            encoder.encode_descriptor("log_lines_dropped", help, None, MetricType::Counter)?;
        counter(one, logging::lines_dropped())?;
        let help = "Firings of fault rules and points";
        let one = encoder.encode_descriptor("faults_fired", help, None, MetricType::Counter)?;
        counter(one, state.faults.newest_event())
    }
}

fn commands(encoder: &mut DescriptorEncoder<'_>, counts: &ByExport<Counts>) -> fmt::Result {
    for (name, help, value) in COMMAND_COUNTERS {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        each_command(&mut family, counts, |one, command| {
            counter(one, value(command))
        })?;
    }
    Ok(())
}

fn latencies(encoder: &mut DescriptorEncoder<'_>, counts: &ByExport<Counts>) -> fmt::Result {
    let help = "Time from a request's arrival to its answer";
    let kind = MetricType::Histogram;
    let mut family = encoder.encode_descriptor("request_seconds", help, None, kind)?;
    each_command(&mut family, counts, |mut one, command| {
        let buckets = buckets(command);
        #[expect(
            clippy::cast_precision_loss,
            reason = "nanoseconds of months are exact"
        )]
        let sum = command.latency_sum as f64 / 1e9;
        one.encode_histogram::<NoLabelSet>(sum, command.requests, &buckets, None)
    })
}

/// Upper bounds in seconds, with the requests of each bucket.
fn buckets(command: &CommandCounts) -> Vec<(f64, u64)> {
    let bound = |bucket: usize| match bucket {
        // The last one holds the rest.
        last if last == LATENCY_BUCKETS - 1 => f64::INFINITY,
        bucket => f64::from(1_u32 << bucket) / 1e6,
    };
    let counts = command.latency.iter().enumerate();
    counts
        .map(|(bucket, count)| (bound(bucket), *count))
        .collect()
}

/// Calls `encode`, with labels, for every command that clients have used.
fn each_command(
    family: &mut MetricEncoder<'_>,
    counts: &ByExport<Counts>,
    encode: impl Fn(MetricEncoder<'_>, &CommandCounts) -> fmt::Result,
) -> fmt::Result {
    for (export, counts) in counts {
        for (row, command) in COMMANDS.iter().zip(&counts.commands) {
            if command.requests > 0 {
                let labels = [("export", export.as_str()), ("command", row.name)];
                encode(family.encode_family(&labels)?, command)?;
            }
        }
    }
    Ok(())
}

fn per_export<T>(
    mut family: MetricEncoder<'_>,
    values: &ByExport<T>,
    encode: impl Fn(MetricEncoder<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    for (export, value) in values {
        encode(family.encode_family(&[("export", export.as_str())])?, value)?;
    }
    Ok(())
}

fn counter(mut encoder: MetricEncoder<'_>, value: u64) -> fmt::Result {
    encoder.encode_counter::<NoLabelSet, u64, f64>(&value, None)
}

/// Gauges are signed.
fn gauge(mut encoder: MetricEncoder<'_>, value: u64) -> fmt::Result {
    encoder.encode_gauge(&i64::try_from(value).unwrap_or(i64::MAX))
}
