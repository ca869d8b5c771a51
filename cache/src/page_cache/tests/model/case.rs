//! What a case is made of, and how one is drawn.

use proptest::prelude::*;

use crate::backend::ZeroMode;
use crate::frame::PAGE_BYTES;
use crate::options::CacheMode;

/// The size of the device to begin with: half as large again as the cache, with a short last page.
pub(super) const SIZE: u64 = (3 << 19) + 1234;
/// It never becomes larger than that by a resize.
const SIZE_MAX: u64 = 2 << 20;

#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) setup: Setup,
    pub(super) rounds: Vec<Round>,
}

#[derive(Clone, Debug)]
pub(super) struct Setup {
    pub(super) mode: CacheMode,
    pub(super) direct_threshold: Option<u64>,
    pub(super) quota_pages: Option<u64>,
    /// A failed sync loses pages. Then all changes go through the cache: there would be no copy of others.
    pub(super) forgets: bool,
    pub(super) seed: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Round {
    pub(super) steps: Vec<Step>,
    pub(super) change: Option<(Change, u64)>,
    /// Which calls fail, out of a thousand.
    pub(super) failures: Vec<(&'static str, u64)>,
    /// Flushed afterwards, with nothing failing.
    pub(super) flush: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) start: u64,
    pub(super) length: u64,
    pub(super) action: Action,
    /// Before it.
    pub(super) pause_micros: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Read { direct: bool },
    Write { direct: bool, fua: bool },
    Zero { mode: ZeroMode, fua: bool },
    Trim { fua: bool },
    Prefetch,
    Status,
    Flush,
    DropClean,
}

/// What the operator does meanwhile.
#[derive(Clone, Copy, Debug)]
pub(super) enum Change {
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
        1 => Just(Action::Status),
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
        2 => (0..pages, 1..40_u64).prop_map(|(page, pages)| Change::Insert { page, pages }),
        2 => (0..pages, 1..40_u64).prop_map(|(page, pages)| Change::Collapse { page, pages }),
    ]
}

fn any_round() -> impl Strategy<Value = Round> {
    let operation = prop::sample::select(vec![
        "read", "write", "zero", "discard", "sync", "resize", "shift", "extents",
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

pub(super) fn any_case() -> impl Strategy<Value = Case> {
    (any_setup(), prop::collection::vec(any_round(), 1..12))
        .prop_map(|(setup, rounds)| Case { setup, rounds })
}
