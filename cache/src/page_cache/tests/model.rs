//! The page cache against a flat vector, with everything at the same time.
//!
//! A [`Case`] is rounds of steps that run together, each as a request of a connection of its own: reads, writes, zeroes,
//! trims, flushes, cached and past the cache, on ranges that overlap or share pages, while the device may be resized or
//! shifted and its store fails. When all are answered, each byte must be what one of the steps put there, or what it was,
//! if none of them that was to change it has succeeded. What a FLUSH or a FUA has promised must be durable, and the quota
//! must add up.
//!
//! Steps are cut out of a failing case until it can't be made smaller. `WEIR_MODEL_SEED=N` runs that seed alone,
//! `WEIR_MODEL_SEEDS=N` so many, from 0 or from `WEIR_MODEL_SEED` on.
//! [`one_schedule`] is deterministic: one thread, paused time, and delays of the store drawn from the case's seed.
//! [`real_threads`] plays the same cases on four of them, in real time.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};
use weir_faults::{Errno, FaultContext, Faults, RequestKinds};

use crate::backend::ZeroMode;
use crate::frame::{FrameRefs, PAGE_BYTES};
use crate::options::{CacheMode, CacheOptions, MIN_CACHE_BYTES};
use crate::page_cache::{CloseError, PageCache};
use crate::testing::{Behaviour, TestBackend};

mod expected;

use expected::Expected;

/// A seed's cases; each takes some hundredths of a second.
const CASES: u32 = 24;
const SEEDS: u64 = 4;
/// Of the device to begin with: half as large again as the cache, and its last page is short.
const SIZE: u64 = (3 << 19) + 1234;
/// It never becomes larger than that by a resize.
const SIZE_MAX: u64 = 2 << 20;
/// In paused time: whatever takes longer waits for something that never comes.
const ROUND_LIMIT: Duration = Duration::from_secs(600);
/// How long a failing case is made smaller.
const SHRINK_MILLIS_MAX: u32 = 60_000;

#[derive(Clone, Debug)]
struct Case {
    setup: Setup,
    rounds: Vec<Round>,
}

#[derive(Clone, Debug)]
struct Setup {
    mode: CacheMode,
    direct_threshold: Option<u64>,
    quota_pages: Option<u64>,
    /// A failed sync loses pages. Then all changes go through the cache: of others nobody has a copy.
    forgets: bool,
    seed: u64,
}

#[derive(Clone, Debug)]
struct Round {
    steps: Vec<Step>,
    change: Option<(Change, u64)>,
    /// Which calls fail, out of a thousand.
    failures: Vec<(&'static str, u64)>,
    /// Flushed afterwards, with nothing failing.
    flush: bool,
}

#[derive(Clone, Debug)]
struct Step {
    start: u64,
    length: u64,
    action: Action,
    /// Before it.
    pause_micros: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Read { direct: bool },
    Write { direct: bool, fua: bool },
    Zero { mode: ZeroMode, fua: bool },
    Trim { fua: bool },
    Prefetch,
    Flush,
    DropClean,
}

/// What the operator does meanwhile.
#[derive(Clone, Copy, Debug)]
enum Change {
    Resize(u64),
    Insert { page: u64, pages: u64 },
    Collapse { page: u64, pages: u64 },
}

fn any_action() -> impl Strategy<Value = Action> {
    let direct = || prop::bool::weighted(0.2);
    let fua = || prop::bool::weighted(0.2);
    prop_oneof![
        5 => direct().prop_map(|direct| Action::Read { direct }),
        9 => (direct(), fua()).prop_map(|(direct, fua)| Action::Write { direct, fua }),
        2 => fua().prop_map(|fua| Action::Zero { mode: ZeroMode::MayPunch, fua }),
        1 => fua().prop_map(|fua| Action::Zero { mode: ZeroMode::KeepAllocated, fua }),
        2 => fua().prop_map(|fua| Action::Trim { fua }),
        1 => Just(Action::Prefetch),
        2 => Just(Action::Flush),
        1 => Just(Action::DropClean),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    let unit = prop_oneof![Just(1), Just(512), Just(PAGE_BYTES)];
    let length = prop_oneof![4 => 1..20_000_u64, 2 => 1..200_000_u64, 1 => 1..700_000_u64];
    // Half of them meet in a few places.
    let start = prop_oneof![0..SIZE_MAX, 0..100_000_u64, (SIZE - 50_000)..SIZE];
    (start, length, unit, any_action(), 0..4000_u64).prop_map(
        |(start, length, unit, action, pause)| Step {
            start: start - start % unit,
            length: u64::next_multiple_of(length, unit),
            action,
            pause_micros: pause,
        },
    )
}

fn any_change() -> impl Strategy<Value = Change> {
    let pages = SIZE / PAGE_BYTES;
    prop_oneof![
        1 => (1..SIZE_MAX).prop_map(Change::Resize),
        // Where half of the steps meet.
        5 => (SIZE - 50_000..SIZE + 50_000).prop_map(Change::Resize),
        1 => (0..pages, 1..40_u64).prop_map(|(page, pages)| Change::Insert { page, pages }),
        1 => (0..pages, 1..40_u64).prop_map(|(page, pages)| Change::Collapse { page, pages }),
    ]
}

fn any_round() -> impl Strategy<Value = Round> {
    let operation = prop::sample::select(vec![
        "read", "write", "zero", "discard", "sync", "resize", "shift",
    ]);
    let failures = prop_oneof![
        Just(Vec::new()),
        prop::collection::vec((operation, 1..400_u64), 1..4)
    ];
    (
        prop::collection::vec(any_step(), 1..12),
        prop::option::weighted(0.3, (any_change(), 0..4000_u64)),
        failures,
        prop::bool::weighted(0.3),
    )
        .prop_map(|(steps, change, failures, flush)| Round {
            steps,
            change,
            failures,
            flush,
        })
}

fn any_setup() -> impl Strategy<Value = Setup> {
    (
        prop_oneof![
            6 => Just(CacheMode::Writeback),
            1 => Just(CacheMode::Writethrough),
            1 => Just(CacheMode::None),
        ],
        prop::option::weighted(0.3, 20_000..200_000_u64),
        prop::option::weighted(0.4, 40..400_u64),
        prop::bool::weighted(0.3),
        any::<u64>(),
    )
        .prop_map(
            |(mode, direct_threshold, quota_pages, forgets, seed)| Setup {
                mode,
                direct_threshold,
                quota_pages,
                forgets: forgets && mode != CacheMode::None,
                seed,
            },
        )
}

fn any_case() -> impl Strategy<Value = Case> {
    (any_setup(), prop::collection::vec(any_round(), 1..12))
        .prop_map(|(setup, rounds)| Case { setup, rounds })
}

/// The cache under test, and what it must hold.
struct Bench {
    backend: Arc<TestBackend>,
    cache: Arc<PageCache>,
    context: FaultContext,
    setup: Setup,
    delay_max: Duration,
    model: Vec<u8>,
    /// What the next write writes.
    tag: u8,
}

impl Bench {
    fn open(setup: &Setup, delay_max: Duration) -> Self {
        let size = usize::try_from(SIZE).unwrap();
        let backend = Arc::new(TestBackend::new(size, setup.seed));
        let faults = Faults::new();
        let options = CacheOptions {
            cache_bytes: MIN_CACHE_BYTES,
            mode: setup.mode,
            direct_threshold: setup.direct_threshold.filter(|_| !setup.forgets),
            quota: setup.quota_pages.map(|pages| pages * PAGE_BYTES),
            ..CacheOptions::default()
        };
        let cache = PageCache::open(Arc::clone(&backend) as _, &options, &faults).unwrap();
        Self {
            backend,
            cache,
            context: faults.context(RequestKinds::READ),
            setup: setup.clone(),
            delay_max,
            model: vec![0; size],
            tag: 0,
        }
    }

    fn behave(&self, failures: &[(&'static str, u64)]) {
        self.backend.behave(Behaviour {
            delay_max: Some(self.delay_max),
            failures_per_mille: failures.iter().copied().collect(),
            forgets: self.setup.forgets,
            ..Behaviour::default()
        });
    }

    /// What of the step there is on this device, in this round.
    fn fitted(&mut self, step: &Step, end: u64) -> Option<(Action, Range<u64>, u8)> {
        let range = step.start..(step.start + step.length).min(end);
        let action = match step.action {
            Action::Zero { .. } | Action::Trim { .. } if self.setup.forgets => return None,
            Action::Write { fua, .. } if self.setup.forgets => Action::Write { direct: false, fua },
            // What is forgotten at once, past the cache, before the cache knows that the sync has failed.
            Action::Read { .. } if self.setup.forgets => Action::Read { direct: false },
            other => other,
        };
        self.tag = self.tag % u8::MAX + 1;
        (range.start < range.end).then_some((action, range, self.tag))
    }

    async fn round(&mut self, round: &Round) -> Result<(), String> {
        self.behave(&round.failures);
        let size = self.cache.size();
        // What is shifted moves, and with it what is written there meanwhile: only what lies before is.
        let end = match round.change {
            Some((Change::Insert { page, .. } | Change::Collapse { page, .. }, _)) => {
                size.min(page * PAGE_BYTES)
            }
            _ => size,
        };
        let mut running = Vec::new();
        for step in &round.steps {
            let Some((action, range, tag)) = self.fitted(step, end) else {
                continue;
            };
            let (cache, context) = (Arc::clone(&self.cache), self.context.clone());
            let (asked, pause) = (range.clone(), Duration::from_micros(step.pause_micros));
            let task = tokio::spawn(async move {
                tokio::time::sleep(pause).await;
                act(&cache, &context, action, asked, tag).await
            });
            running.push((action, range, tag, task));
        }
        let change = round.change.map(|(change, pause)| {
            let cache = Arc::clone(&self.cache);
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_micros(pause)).await;
                carry_out(&cache, change).await
            })
        });
        let mut expected = Expected::new(size, self.setup.mode, round.change.is_some());
        if let Some((Change::Resize(to), _)) = round.change {
            expected.may_end_at(to);
        }
        for (action, range, tag, task) in running {
            let outcome = task.await.map_err(|error| error.to_string())?;
            self.check_error(round, action, outcome.as_ref().err())?;
            expected.add(action, range, tag, outcome);
        }
        let changed = match change {
            None => None,
            Some(task) => Some(task.await.map_err(|error| error.to_string())?),
        };
        self.behave(&[]);
        let durable = self.backend.durable();
        expected.check_reads(&self.model)?;
        self.apply(round.change.map(|(change, _)| change), changed)?;
        let now = self.read_all().await?;
        expected.check(&self.model, &now, &durable)?;
        self.model = now;
        self.check_space()?;
        if round.flush {
            self.flush().await?;
        }
        Ok(())
    }

    /// Whether the request may have failed, and so.
    fn check_error(
        &self,
        round: &Round,
        action: Action,
        errno: Option<&Errno>,
    ) -> Result<(), String> {
        let allowed = match (errno, action) {
            (None, _) => true,
            (Some(&Errno::ENOSPC), Action::Write { .. } | Action::Zero { .. }) => {
                self.setup.quota_pages.is_some() || round.change.is_some()
            }
            (Some(&Errno::EINVAL), _) => round.change.is_some(),
            (Some(&Errno::EIO), _) => !round.failures.is_empty(),
            _ => false,
        };
        if allowed {
            Ok(())
        } else {
            Err(format!("{action:?} fails with {errno:?}"))
        }
    }

    /// Carries what the operator did over to the model.
    fn apply(
        &mut self,
        change: Option<Change>,
        outcome: Option<Result<(), Errno>>,
    ) -> Result<(), String> {
        if let (Some(change), Some(Ok(()))) = (change, outcome) {
            let bytes = |pages: u64| usize::try_from(pages * PAGE_BYTES).unwrap();
            match change {
                Change::Resize(size) => self.model.resize(usize::try_from(size).unwrap(), 0),
                Change::Insert { page, pages } => {
                    let at = bytes(page);
                    self.model
                        .splice(at..at, std::iter::repeat_n(0, bytes(pages)));
                }
                Change::Collapse { page, pages } => {
                    self.model.drain(bytes(page)..bytes(page + pages));
                }
            }
        }
        if self.cache.size() == self.model.len() as u64 {
            Ok(())
        } else {
            Err(format!(
                "after {change:?}, {outcome:?}, the device has {} bytes, not {}",
                self.cache.size(),
                self.model.len()
            ))
        }
    }

    async fn read_all(&self) -> Result<Vec<u8>, String> {
        let range = 0..self.cache.size();
        let read = read(&self.cache, &self.context, range, false).await;
        read.map_err(|errno| format!("a read fails on a healthy store: {errno}"))
    }

    /// The sum of the shards and what is charged is the quota, and what is allocated is charged.
    fn check_space(&self) -> Result<(), String> {
        let (Some(space), Some(stats)) = (&self.cache.space, self.cache.space()) else {
            return Ok(());
        };
        let counted = space.charged_units() * PAGE_BYTES;
        let pages = self.model.chunks(usize::try_from(PAGE_BYTES).unwrap());
        let data = pages.filter(|page| page.iter().any(|byte| *byte != 0));
        let needed = data.count() as u64 * PAGE_BYTES;
        if counted == stats.charged && needed <= stats.charged && stats.charged <= stats.quota {
            Ok(())
        } else {
            Err(format!(
                "{needed} bytes of data, {counted} are charged by the bits, and by the shards {stats:?}"
            ))
        }
    }

    async fn flush(&self) -> Result<(), String> {
        let flushed = self.cache.flush(&self.context).await;
        flushed.map_err(|errno| format!("a flush fails on a healthy store: {errno}"))?;
        if self.backend.durable() == self.model {
            Ok(())
        } else {
            Err("a flush left something behind".to_owned())
        }
    }

    /// Flushed and closed: all is durable and clean, and of the quota nothing is lost.
    async fn end(self) -> Result<(), String> {
        self.flush().await?;
        self.cache.count_space().await.unwrap();
        self.check_space()?;
        let closed = self.cache.close(ROUND_LIMIT).await;
        match closed {
            // Of direct writes and zeroes nobody has a copy, and connections, which would have been told, there are none.
            Ok(()) | Err(CloseError::Lost(_)) => {}
            Err(error) => return Err(error.to_string()),
        }
        let stats = self.cache.stats();
        let unclean = [
            stats.dirty_pages,
            stats.in_flight_pages,
            stats.held_pages,
            stats.unstable_pages,
        ];
        if unclean == [0; 4] && self.backend.durable() == self.model {
            Ok(())
        } else {
            Err(format!("after the end something is left: {stats:?}"))
        }
    }
}

async fn carry_out(cache: &Arc<PageCache>, change: Change) -> Result<(), Errno> {
    match change {
        Change::Resize(size) => cache.resize(size).await,
        Change::Insert { page, pages } => {
            let (at, length) = (page * PAGE_BYTES, pages * PAGE_BYTES);
            cache.insert_range(at, length).await
        }
        Change::Collapse { page, pages } => {
            let (at, length) = (page * PAGE_BYTES, pages * PAGE_BYTES);
            cache.collapse_range(at, length).await
        }
    }
}

/// Does a step as a session does; what was read, if anything.
async fn act(
    cache: &Arc<PageCache>,
    context: &FaultContext,
    action: Action,
    range: Range<u64>,
    tag: u8,
) -> Result<Option<Vec<u8>>, Errno> {
    let kept = range.clone();
    let fua = match action {
        Action::Read { direct } => return read(cache, context, range, direct).await.map(Some),
        Action::Write { direct, fua } => {
            write(cache, context, range, tag, direct).await?;
            fua
        }
        Action::Zero { mode, fua } => {
            cache.zero(context, range, mode, false).await?;
            fua
        }
        Action::Trim { fua } => {
            cache.trim(context, range).await?;
            fua
        }
        Action::Prefetch => {
            cache.prefetch(context, range).await;
            false
        }
        Action::Flush => {
            cache.flush(context).await?;
            false
        }
        Action::DropClean => {
            cache.drop_clean().await?;
            false
        }
    };
    if fua {
        cache.persist(context, kept).await?;
    }
    Ok(None)
}

async fn read(
    cache: &Arc<PageCache>,
    context: &FaultContext,
    range: Range<u64>,
    direct: bool,
) -> Result<Vec<u8>, Errno> {
    let direct = direct || cache.is_direct(range.end - range.start);
    let mut data = Vec::new();
    let mut at = range.start;
    while at < range.end {
        let length = cache.slice_at(at, range.end - at);
        let mut hit = FrameRefs::new(Arc::clone(cache.pool()));
        let refs = if direct {
            cache.read_direct(context, at, length).await?
        } else if cache.try_read(at, length, &mut hit) {
            hit
        } else {
            cache.read(context, at, length).await?
        };
        let start = data.len();
        data.resize(start + length, 0);
        refs.copy_to(&mut data[start..]);
        at += length as u64;
    }
    Ok(data)
}

async fn write(
    cache: &Arc<PageCache>,
    context: &FaultContext,
    range: Range<u64>,
    tag: u8,
    direct: bool,
) -> Result<(), Errno> {
    let direct = direct || cache.is_direct(range.end - range.start);
    let mut at = range.start;
    while at < range.end {
        let length = cache.slice_at(at, range.end - at);
        let data = vec![tag; length];
        if direct || length as u64 >= PAGE_BYTES || !cache.try_write(context, at, &data) {
            let mut payload = cache.payload(at, length).await;
            assert_eq!(payload.copy_from(&data), length);
            if direct {
                cache.write_direct(context, payload).await?;
            } else if let Err(payload) = cache.try_install(context, payload) {
                cache.write(context, payload).await?;
            }
        }
        at += length as u64;
    }
    Ok(())
}

async fn play(case: &Case, delay_max: Duration) -> Result<(), String> {
    let mut bench = Bench::open(&case.setup, delay_max);
    for (number, round) in case.rounds.iter().enumerate() {
        let played = tokio::time::timeout(ROUND_LIMIT, bench.round(round)).await;
        let ended = played.unwrap_or_else(|_| Err("it doesn't end".to_owned()));
        ended.map_err(|error| format!("round {number}: {error}"))?;
    }
    bench.end().await
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// Plays the cases of each seed.
fn check(runtime: impl Fn() -> tokio::runtime::Runtime, delay_max: Duration) {
    let first = number("WEIR_MODEL_SEED");
    let seeds = number("WEIR_MODEL_SEEDS").unwrap_or(first.map_or(SEEDS, |_| 1));
    for run in 0..seeds {
        let seed = first.unwrap_or(0).wrapping_add(run);
        let config = Config {
            cases: CASES,
            failure_persistence: None,
            max_shrink_time: SHRINK_MILLIS_MAX,
            ..Config::default()
        };
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let outcome = TestRunner::new_with_rng(config, rng).run(&any_case(), |case| {
            let played = runtime().block_on(play(&case, delay_max));
            played.map_err(TestCaseError::fail)
        });
        match outcome {
            Ok(()) => {}
            Err(TestError::Fail(reason, case)) => {
                panic!("WEIR_MODEL_SEED={seed} fails: {reason}\n{case:#?}")
            }
            Err(TestError::Abort(reason)) => panic!("WEIR_MODEL_SEED={seed} stops: {reason}"),
        }
    }
}

#[test]
fn one_schedule() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_time().start_paused(true).build().unwrap()
    };
    check(runtime, Duration::from_millis(5));
}

#[test]
fn real_threads() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(4).enable_time().build().unwrap()
    };
    check(runtime, Duration::from_micros(200));
}
