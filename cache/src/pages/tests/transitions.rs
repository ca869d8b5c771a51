//! Every transition in every state, on a table without a cache: what it makes of the bits, the detail word, the
//! counters, the tags, the leaf's population, the references and the owner; and that it is refused where it is
//! forbidden.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crossbeam_epoch as epoch;
use weir_faults::rng::Rng;
use weir_faults::{Faults, RequestKinds};

use self::Detail::{Failed, FailedOldest, Kept, Number, Oldest};
use crate::pages::frame::{FrameId, FramePool, PrivateFrame};
use crate::pages::locked::Transition;
use crate::pages::state::{PageState, UNSTABLE};
use crate::pages::*;

const CLEAN: u64 = PRESENT;
const DIRTY_ONLY: u64 = PRESENT | DIRTY;
const REWRITTEN: u64 = PRESENT | DIRTY | IN_FLIGHT;
const WRITTEN_BACK: u64 = PRESENT | IN_FLIGHT;
const UNSYNCED: u64 = PRESENT | UNSTABLE;
const HELD_IN_FLIGHT: u64 = HELD | IN_FLIGHT;

/// All states that a page can be in.
pub(super) const STATES: [u64; 9] = [
    0,
    FILLING,
    CLEAN,
    DIRTY_ONLY,
    REWRITTEN,
    WRITTEN_BACK,
    UNSYNCED,
    HELD,
    HELD_IN_FLIGHT,
];

/// What becomes of the detail word.
#[derive(Clone, Copy, Debug)]
pub(super) enum Detail {
    /// It stays as it is, whether it means something or not.
    Kept,
    /// The number that comes with the transition: of the fill, the write's flush epoch or the completed write's
    /// generation.
    Number,
    /// The epoch stays, and is marked as failed.
    Failed,
    /// As old as can be, and marked as failed.
    FailedOldest,
    /// As old as can be.
    Oldest,
}

/// Where a transition leads to from each state in which it is allowed.
pub(super) fn allowed(transition: Transition) -> &'static [(u64, u64, Detail)] {
    match transition {
        Transition::BeginFill => &[(0, FILLING, Number)],
        Transition::FillLanded => &[(FILLING, CLEAN, Kept)],
        Transition::FillFailed => &[(FILLING, 0, Kept)],
        Transition::Publish => &[
            (0, DIRTY_ONLY, Number),
            (FILLING, DIRTY_ONLY, Number),
            (CLEAN, DIRTY_ONLY, Number),
            (DIRTY_ONLY, DIRTY_ONLY, Kept),
            (REWRITTEN, REWRITTEN, Kept),
            (WRITTEN_BACK, REWRITTEN, Number),
            (UNSYNCED, DIRTY_ONLY, Number),
        ],
        Transition::Submit => &[(DIRTY_ONLY, WRITTEN_BACK, Kept)],
        Transition::Completed => &[
            (WRITTEN_BACK, UNSYNCED, Number),
            (REWRITTEN, DIRTY_ONLY, Kept),
            (HELD_IN_FLIGHT, HELD, Kept),
        ],
        Transition::WriteFailed => &[
            (WRITTEN_BACK, DIRTY_ONLY, Failed),
            (REWRITTEN, DIRTY_ONLY, FailedOldest),
            (HELD_IN_FLIGHT, HELD, Kept),
        ],
        Transition::Synced => &[
            (0, 0, Kept),
            (FILLING, FILLING, Kept),
            (CLEAN, CLEAN, Kept),
            (DIRTY_ONLY, DIRTY_ONLY, Kept),
            (REWRITTEN, REWRITTEN, Kept),
            (WRITTEN_BACK, WRITTEN_BACK, Kept),
            (UNSYNCED, CLEAN, Kept),
            (HELD, HELD, Kept),
            (HELD_IN_FLIGHT, HELD_IN_FLIGHT, Kept),
        ],
        Transition::SyncFailed => &[
            (0, 0, Kept),
            (FILLING, FILLING, Kept),
            (CLEAN, CLEAN, Kept),
            (DIRTY_ONLY, DIRTY_ONLY, FailedOldest),
            (REWRITTEN, REWRITTEN, FailedOldest),
            (WRITTEN_BACK, WRITTEN_BACK, Oldest),
            (UNSYNCED, DIRTY_ONLY, FailedOldest),
            (HELD, HELD, Kept),
            (HELD_IN_FLIGHT, HELD_IN_FLIGHT, Oldest),
        ],
        Transition::Hold => &[
            (DIRTY_ONLY, HELD, Kept),
            (REWRITTEN, HELD_IN_FLIGHT, Kept),
            (WRITTEN_BACK, HELD_IN_FLIGHT, Kept),
            (UNSYNCED, HELD, Kept),
        ],
        Transition::Release => &[(HELD, 0, Kept)],
        Transition::PutBack | Transition::PutBackCut => &[(HELD, DIRTY_ONLY, Oldest)],
        Transition::Evict => &[(CLEAN, 0, Kept)],
    }
}

/// The first is `None`'s; each variant is in the chain, or this does not compile.
fn next(transition: Option<Transition>) -> Option<Transition> {
    let Some(transition) = transition else {
        return Some(Transition::BeginFill);
    };
    match transition {
        Transition::BeginFill => Some(Transition::FillLanded),
        Transition::FillLanded => Some(Transition::FillFailed),
        Transition::FillFailed => Some(Transition::Publish),
        Transition::Publish => Some(Transition::Submit),
        Transition::Submit => Some(Transition::Completed),
        Transition::Completed => Some(Transition::WriteFailed),
        Transition::WriteFailed => Some(Transition::Synced),
        Transition::Synced => Some(Transition::SyncFailed),
        Transition::SyncFailed => Some(Transition::Hold),
        Transition::Hold => Some(Transition::Release),
        Transition::Release => Some(Transition::PutBack),
        Transition::PutBack => Some(Transition::PutBackCut),
        Transition::PutBackCut => Some(Transition::Evict),
        Transition::Evict => None,
    }
}

/// Every transition.
pub(super) fn all() -> impl Iterator<Item = Transition> {
    std::iter::successors(next(None), |last| next(Some(*last)))
}

/// A page in a leaf of its own: the first leaf stays, whatever it counts.
pub(super) const PAGE: u64 = 600;
const FRAMES: u32 = 8;
/// Another page.
const OTHER: u64 = 1;

/// One page of a table, and what its transitions need from outside.
pub(super) struct Bench {
    pub(super) pool: Arc<FramePool>,
    pub(super) table: PageTable,
    /// The private frame of the fill, while there is one.
    token: Cell<Option<FrameId>>,
    /// Numbers for fills, epochs and generations, never the same twice.
    last_number: Cell<u64>,
    /// The fills that were told of a write.
    told: RefCell<Vec<u64>>,
}

impl Bench {
    pub(super) fn new() -> Self {
        let pool = FramePool::new(FRAMES).expect("memory");
        let faults = Faults::new().context(RequestKinds::WRITEBACK);
        let table = PageTable::new(Arc::clone(&pool), faults);
        drop(table.lock_or_create(0, &epoch::pin()).expect("memory"));
        Self {
            pool,
            table,
            token: Cell::new(None),
            last_number: Cell::new(1000),
            told: RefCell::default(),
        }
    }

    /// A bench whose page has gone through `steps`.
    pub(super) fn after(steps: &[Transition]) -> Self {
        let bench = Self::new();
        for step in steps {
            bench.make(*step);
        }
        bench
    }

    pub(super) fn state(&self) -> PageState {
        let state = self.table.state(PAGE, &epoch::pin());
        state.unwrap_or(PageState::EMPTY)
    }

    fn detail(&self) -> u64 {
        let pin = epoch::pin();
        self.table.slot(PAGE, &pin).map_or(0, PageSlot::detail)
    }

    /// Makes a transition with a new number, or with the present detail word where the transition compares.
    pub(super) fn make(&self, transition: Transition) {
        let number = match transition {
            Transition::Synced | Transition::SyncFailed => self.detail(),
            _ => self.last_number.get() + 1,
        };
        self.last_number.set(self.last_number.get() + 1);
        self.make_with(transition, number);
    }

    fn make_with(&self, transition: Transition, number: u64) {
        let state = self.state();
        let named = |frame: &FrameId| !state.is_empty() && *frame == state.frame();
        for frame in (0..FRAMES).filter(|frame| !named(frame)) {
            self.pool.set_owner(frame, OTHER);
        }
        let pin = epoch::pin();
        let slot = self.table.lock_or_create(PAGE, &pin).expect("memory");
        self.apply(slot, transition, number);
        // A fill that has ended, or was taken over, gives its frame back.
        if !self.state().has(FILLING)
            && let Some(token) = self.token.take()
        {
            self.pool.unref(token);
        }
    }

    fn apply(&self, mut slot: PageGuard<'_>, transition: Transition, number: u64) {
        let token = self.token.get().unwrap_or(slot.state().frame());
        let private = || PrivateFrame::alloc(&self.pool).expect("enough of them");
        match transition {
            Transition::BeginFill => {
                let token = private().into_id();
                slot.begin_fill(token, number);
                self.token.set(Some(token));
            }
            Transition::FillLanded => slot.fill_landed(token),
            Transition::FillFailed => slot.fill_failed(token),
            Transition::Publish => slot.publish(private(), number, |fill, frame| {
                assert_ne!(frame, token, "the write's own frame");
                self.told.borrow_mut().push(fill);
            }),
            Transition::Submit => slot.submit(),
            Transition::Completed => slot.completed(number),
            Transition::WriteFailed => _ = slot.write_failed(),
            Transition::Synced => slot.synced(number),
            Transition::SyncFailed => slot.sync_failed(number),
            Transition::Hold => slot.hold(),
            Transition::Release => slot.release(),
            Transition::PutBack => slot.put_back(),
            Transition::PutBackCut => slot.put_back_cut(private()),
            Transition::Evict => drop(slot.evict()),
        }
    }

    /// Asserts that all that goes with the state agrees with it.
    fn check(&self, what: &str) {
        let pin = epoch::pin();
        let state = self.state();
        let one = |bits| u64::from(state.has(bits));
        let counts = self.table.counts();
        assert_eq!(
            [
                counts.present(),
                counts.dirty(),
                counts.in_flight(),
                counts.held(),
                counts.unstable(),
                counts.unclean()
            ],
            [PRESENT, DIRTY, IN_FLIGHT, HELD, UNSTABLE, UNCLEAN].map(one),
            "the counts of {what}: {state:?}"
        );
        assert_eq!(
            self.table.tags(PAGE, &pin),
            [!state.is_empty(), state.has(DIRTY)],
            "the tags of {what}: {state:?}"
        );
        assert_eq!(
            self.table.slot(PAGE, &pin).is_none(),
            state.is_empty(),
            "the leaf is counted as long as {what} is something: {state:?}"
        );
        let found = |bit| state.has(bit).then_some(PAGE);
        let some = (!state.is_empty()).then_some(PAGE);
        assert_eq!(self.table.next_known(&(0..PAGE + 1), &pin), some);
        assert_eq!(self.table.next_dirty(&(0..PAGE + 1), &pin), found(DIRTY));
        assert_eq!(self.table.next_dirty(&(0..PAGE), &pin), None);
        assert_eq!(
            u64::from(FRAMES - self.pool.free_frames()),
            one(PRESENT | HELD) + u64::from(self.token.get().is_some()),
            "the frames in use for {what}: {state:?}"
        );
        if state.has(PRESENT) {
            let owner = self.pool.owner(state.frame());
            assert_eq!(owner, PAGE, "the owner of the frame of {what}: {state:?}");
        }
        if state.has(PRESENT | HELD) {
            let count = self.pool.count(state.frame());
            assert_eq!(count, 1, "the references to {what}: {state:?}");
        }
        let taken = self.table.take_present(PAGE, &pin);
        assert_eq!(taken.is_some(), state.has(PRESENT), "a hit on {what}");
        if let Some((frame, _)) = taken {
            assert_eq!(frame, state.frame());
            self.pool.unref(frame);
        }
    }
}

fn expected_detail(detail: Detail, before: u64, number: u64) -> u64 {
    const FAILED_BIT: u64 = 1 << 63;
    match detail {
        Kept => before,
        Number => number,
        Failed => before | FAILED_BIT,
        FailedOldest => OLDEST_EPOCH | FAILED_BIT,
        Oldest => OLDEST_EPOCH,
    }
}

/// Makes `transition` after `steps` and compares with the line of the table. Returns the new state's bits if it is
/// allowed.
fn try_out(steps: &[Transition], transition: Transition) -> Option<u64> {
    let bench = Bench::after(steps);
    let (from, before, frame) = (bench.state().bits(), bench.detail(), bench.state().frame());
    let what = format!("{transition:?} after {steps:?}");
    let line = allowed(transition).iter().find(|line| line.0 == from);
    let made = catch_unwind(AssertUnwindSafe(|| bench.make(transition)));
    let after = bench.state();
    let Some((_, to, detail)) = line else {
        assert!(made.is_err(), "{what} is forbidden, and led to {after:?}");
        assert_eq!(
            after.bits(),
            from,
            "{what} was refused, and led to {after:?}"
        );
        assert_eq!(bench.detail(), before, "{what} was refused");
        return None;
    };
    assert!(made.is_ok(), "{what} is allowed");
    assert_eq!(after.bits(), *to, "{what} led to {after:?}");
    if !after.is_empty() {
        let expected = expected_detail(*detail, before, bench.last_number.get());
        assert_eq!(bench.detail(), expected, "the detail word: {what}");
    }
    let new_frame = matches!(transition, Transition::Publish | Transition::PutBackCut);
    if from != 0 && *to != 0 {
        let swapped = after.frame() != frame;
        assert_eq!(swapped, new_frame, "whether {what} swaps frames");
    }
    let told = bench.told.borrow();
    if transition == Transition::Publish && from == FILLING {
        assert_eq!(*told, [before], "{what}: the fill is told");
    }
    bench.check(&what);
    Some(*to)
}

/// Each state that can be reached, by the shortest way.
pub(super) fn reachable() -> BTreeMap<u64, Vec<Transition>> {
    let mut ways = BTreeMap::from([(0, Vec::new())]);
    let mut to_try = VecDeque::from([0]);
    while let Some(from) = to_try.pop_front() {
        for transition in all() {
            let steps = ways[&from].clone();
            let Some(to) = try_out(&steps, transition) else {
                continue;
            };
            ways.entry(to).or_insert_with(|| {
                to_try.push_back(to);
                [steps, vec![transition]].concat()
            });
        }
    }
    ways
}

#[test]
fn each_transition_in_each_state_is_as_the_table_says() {
    let ways = reachable();
    let mut states = STATES;
    states.sort_unstable();
    assert!(ways.keys().eq(&states), "reached: {ways:?}");
    for transition in all() {
        let mut from: Vec<_> = allowed(transition).iter().map(|line| line.0).collect();
        from.sort_unstable();
        let lines = from.len();
        from.dedup();
        assert_eq!(
            lines,
            from.len(),
            "{transition:?} has two lines for a state"
        );
        assert!(from.iter().all(|state| STATES.contains(state)));
    }
}

/// A state that is reached in another way is the same state: tries longer random walks.
#[test]
fn no_walk_leaves_the_table() {
    const STEPS: u32 = 2000;
    for seed in 0..8 {
        let mut rng = Rng::new(seed);
        let bench = Bench::new();
        let mut fills = 0;
        for _ in 0..STEPS {
            let from = bench.state().bits();
            let lines: Vec<_> = all()
                .filter_map(|transition| {
                    let line = allowed(transition).iter().find(|line| line.0 == from)?;
                    Some((transition, line.1))
                })
                .collect();
            let index = rng.below(lines.len() as u64);
            let (transition, to) = lines[usize::try_from(index).unwrap()];
            fills += usize::from(from == FILLING && transition == Transition::Publish);
            bench.make(transition);
            assert_eq!(bench.state().bits(), to, "{transition:?} of {from:#x}");
            bench.check(&format!("{transition:?}, seed {seed}"));
        }
        assert_eq!(bench.told.borrow().len(), fills, "fills that were told");
    }
}

#[test]
fn a_sync_says_nothing_of_a_page_that_was_completed_after_it() {
    let ways = reachable();
    for (state, steps) in &ways {
        let bench = Bench::after(steps);
        let before = bench.detail();
        bench.make_with(Transition::Synced, before.wrapping_add(1));
        assert_eq!(bench.state().bits(), *state, "synced");
        assert_eq!(bench.detail(), before, "synced");
        bench.make_with(Transition::SyncFailed, before.wrapping_add(1));
        assert_eq!(bench.state().bits(), *state, "a failed sync");
        if *state == UNSYNCED {
            assert_eq!(bench.detail(), before, "a failed sync");
        }
        bench.check("a page that no sync was about");
    }
}

/// The fill before was taken over, and its page written back, evicted and filled again.
#[test]
fn a_fill_ends_only_in_a_slot_that_names_its_frame() {
    for transition in [Transition::FillLanded, Transition::FillFailed] {
        let bench = Bench::after(&[Transition::BeginFill]);
        let token = bench.token.get().expect("a fill is under way");
        bench.token.set(Some(token + 1));
        let ended = catch_unwind(AssertUnwindSafe(|| bench.make(transition)));
        assert!(ended.is_err(), "{transition:?} with another's token");
        assert!(bench.state().is_filled_by(token));
        assert!(!bench.state().is_filled_by(token + 1));
    }
    let landed = Bench::after(&[Transition::BeginFill, Transition::FillLanded]);
    assert!(!landed.state().is_filled_by(landed.state().frame()));
}

#[test]
fn only_the_detail_word_that_there_is_can_be_asked_for() {
    for (state, steps) in reachable() {
        let bench = Bench::after(&steps);
        let pin = epoch::pin();
        let ask = |question: fn(&PageGuard<'_>)| {
            let slot = bench.table.lock_or_create(PAGE, &pin).expect("memory");
            catch_unwind(AssertUnwindSafe(|| question(&slot))).is_ok()
        };
        let has = |bits| PageState::new(0, state).has(bits);
        assert_eq!(ask(|slot| _ = slot.fill_id()), has(FILLING));
        assert_eq!(ask(|slot| _ = slot.dirty_since()), has(DIRTY | IN_FLIGHT));
    }
}
