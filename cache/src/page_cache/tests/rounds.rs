//! Rounds of operations that run at a time, on ranges that don't touch, against a flat model.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use weir_faults::rng::Rng;
use weir_faults::{Errno, FaultContext, Faults};

use super::Bench;
use crate::backend::ZeroMode;
use crate::frame::{FrameRefs, PAGE_BYTES};
use crate::page_cache::{CloseError, PageCache};
use crate::testing::{Behaviour, read, write};

/// One round's operation on a range that no other operation of the round touches.
#[derive(Clone, Debug)]
enum Step {
    Read,
    Write(u8),
    Zero(ZeroMode),
    Trim,
    Prefetch,
    Flush,
}

fn pick(rng: &mut Rng) -> Step {
    match rng.below(100) {
        0..30 => Step::Read,
        30..70 => Step::Write(u8::try_from(rng.below(255) + 1).unwrap()),
        70..78 => Step::Zero(ZeroMode::MayPunch),
        78..82 => Step::Zero(ZeroMode::KeepAllocated),
        82..92 => Step::Trim,
        92..96 => Step::Prefetch,
        _ => Step::Flush,
    }
}

/// Disjoint byte ranges, unaligned, so that neighbours share pages.
fn cut(rng: &mut Rng, size: u64) -> Vec<Range<u64>> {
    let mut marks: Vec<u64> = (0..12)
        .map(|_| {
            let at = rng.below(size + 1);
            if rng.below(2) == 0 {
                at - at % PAGE_BYTES
            } else {
                at
            }
        })
        .collect();
    marks.sort_unstable();
    let close = |pair: &[u64]| pair[0]..pair[1].min(pair[0] + 300_000);
    marks
        .windows(2)
        .map(close)
        .filter(|range| !range.is_empty())
        .collect()
}

/// Runs rounds of concurrent operations on disjoint ranges against a flat model.
async fn model_run(seed: u64, failing: bool) {
    model_run_under(&Faults::new(), seed, failing).await;
}

/// The same on a cache of that registry.
pub(super) async fn model_run_under(faults: &Faults, seed: u64, failing: bool) {
    const SIZE: usize = (3 << 19) + 1234;
    const ROUNDS: usize = 40;
    let mut rng = Rng::new(seed);
    let bench = Bench::under(SIZE, faults);
    let delays = |failures: &[(&'static str, u64)]| Behaviour {
        delay_max: Some(Duration::from_millis(5)),
        failures_per_mille: failures.iter().copied().collect(),
        ..Behaviour::default()
    };
    let rough = [
        ("read", 50),
        ("write", 100),
        ("zero", 200),
        ("discard", 200),
        ("sync", 100),
    ];
    let mut model = vec![0_u8; SIZE];
    for round in 0..ROUNDS {
        bench
            .backend
            .behave(delays(if failing { &rough } else { &[] }));
        let mut running = Vec::new();
        for range in cut(&mut rng, SIZE as u64) {
            let step = pick(&mut rng);
            let (cache, context, kept) = (
                Arc::clone(&bench.cache),
                bench.context.clone(),
                range.clone(),
            );
            let task = tokio::spawn({
                let step = step.clone();
                async move {
                    match step {
                        Step::Read => return read_any_way(&cache, &context, range).await.map(Some),
                        Step::Write(byte) => {
                            let data =
                                vec![byte; usize::try_from(range.end - range.start).unwrap()];
                            write_any_way(&cache, &context, range.start, &data).await
                        }
                        Step::Zero(mode) => cache.zero(&context, range, mode, false).await,
                        Step::Trim => cache.trim(&context, range).await,
                        Step::Prefetch => {
                            cache.prefetch(&context, range).await;
                            Ok(())
                        }
                        Step::Flush => cache.flush(&context).await,
                    }
                    .map(|()| None)
                }
            });
            running.push((step, kept, task));
        }
        for (step, range, task) in running {
            let outcome = task.await.unwrap();
            settle(&bench, &mut model, &step, &range, outcome, (seed, round)).await;
        }
        bench.backend.behave(delays(&[]));
        if rng.below(4) == 0 {
            bench.cache.flush(&bench.context).await.unwrap();
            assert!(
                bench.backend.durable() == model,
                "seed {seed} round {round}: a flush left something behind"
            );
        }
    }
    let read = bench.read(0..SIZE as u64).await.unwrap();
    assert!(
        read == model,
        "seed {seed}: the cache differs from the model at the end"
    );
    let closed = bench.cache.close(Duration::from_secs(60)).await;
    // A failed sync after zeroes is reported as a loss, whatever this backend has kept.
    assert!(
        matches!(closed, Ok(())) || failing && matches!(closed, Err(CloseError::Lost(_))),
        "seed {seed}: {closed:?}"
    );
    assert!(
        bench.backend.durable() == model,
        "seed {seed}: the backend differs from the model at the end"
    );
    let stats = bench.cache.stats();
    assert_eq!(
        (
            stats.dirty_pages,
            stats.in_flight_pages,
            stats.held_pages,
            stats.unstable_pages
        ),
        (0, 0, 0, 0),
        "seed {seed}: {stats:?}"
    );
}

/// Reads as a session does: at once, if all of it is there.
async fn read_any_way(
    cache: &Arc<PageCache>,
    context: &FaultContext,
    range: Range<u64>,
) -> Result<Vec<u8>, Errno> {
    let length = usize::try_from(range.end - range.start).unwrap();
    let mut out = FrameRefs::new(Arc::clone(cache.pool()));
    if !cache.try_read(range.start, length, &mut out) {
        return read(cache, context, range).await;
    }
    let mut data = vec![0xee; length];
    out.copy_to(&mut data);
    Ok(data)
}

/// Writes as a session does: at once, if the data is small and nothing is in the way.
async fn write_any_way(
    cache: &Arc<PageCache>,
    context: &FaultContext,
    offset: u64,
    data: &[u8],
) -> Result<(), Errno> {
    if cache.slice_at(offset, data.len() as u64) < data.len() {
        return write(cache, context, offset, data).await;
    }
    if cache.try_write(context, offset, data) {
        return Ok(());
    }
    let Some(mut payload) = cache.try_payload(offset, data.len()) else {
        return write(cache, context, offset, data).await;
    };
    payload.copy_from(data);
    match cache.try_install(context, payload) {
        Ok(()) => Ok(()),
        Err(payload) => cache.write(context, payload).await,
    }
}

/// Checks one operation's outcome and carries it over to the model.
async fn settle(
    bench: &Bench,
    model: &mut [u8],
    step: &Step,
    range: &Range<u64>,
    outcome: Result<Option<Vec<u8>>, Errno>,
    place: (u64, usize),
) {
    let span = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
    let after = match step {
        Step::Write(byte) => vec![*byte; span.len()],
        Step::Zero(_) => vec![0; span.len()],
        Step::Trim => {
            let mut after = model[span.clone()].to_vec();
            let start = span.start.next_multiple_of(4096);
            let end = if span.end == model.len() {
                span.end
            } else {
                span.end / 4096 * 4096
            };
            if start < end {
                after[start - span.start..end - span.start].fill(0);
            }
            after
        }
        Step::Read | Step::Prefetch | Step::Flush => model[span.clone()].to_vec(),
    };
    match outcome {
        Ok(Some(read)) => assert!(
            read == model[span],
            "{place:?}: {step:?} of {range:?} returned something else"
        ),
        Ok(None) => model[span].copy_from_slice(&after),
        Err(_) => {
            // Refused half-way: each byte is the old or the new one.
            bench.backend.behave(Behaviour::default());
            let now = bench.read(range.clone()).await.unwrap();
            for (i, byte) in now.iter().enumerate() {
                let (old, new) = (model[span.start + i], after[i]);
                assert!(
                    *byte == old || *byte == new,
                    "{place:?}: failed {step:?} of {range:?} left {byte} at {i}"
                );
            }
            model[span].copy_from_slice(&now);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn model() {
    for seed in 0..20 {
        model_run(seed, false).await;
    }
}

#[tokio::test(start_paused = true)]
async fn model_with_a_failing_backend() {
    for seed in 100..120 {
        model_run(seed, true).await;
    }
}
