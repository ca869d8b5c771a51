//! Ranges within one region: those that overlap wait, in the order of arrival, and no others wait.

use std::sync::atomic::AtomicBool;
use std::task::Wake;

use proptest::prelude::*;

use super::*;

fn pages(pages: Range<u64>) -> Range<u64> {
    pages.start * PAGE..pages.end * PAGE
}

fn add(
    lock: &Arc<AddLock>,
    range: Range<u64>,
) -> std::pin::Pin<Box<dyn Future<Output = AddGuard>>> {
    let lock = Arc::clone(lock);
    Box::pin(async move { lock.add(pages(range)).await })
}

fn block(
    lock: &Arc<AddLock>,
    range: Range<u64>,
) -> std::pin::Pin<Box<dyn Future<Output = BlockGuard>>> {
    let lock = Arc::clone(lock);
    Box::pin(async move { lock.block(pages(range)).await })
}

#[test]
fn who_does_not_overlap_does_not_wait() {
    let lock = new_lock();
    let stalled = lock.try_block(pages(4..8)).unwrap();
    for beside in [0..4, 8..9, 1000..1001] {
        drop(now(add(&lock, beside.clone())));
        drop(now(block(&lock, beside.clone())));
        drop(lock.try_add(pages(beside.clone())).unwrap());
        drop(lock.try_add_briefly(pages(beside.clone())).unwrap());
        drop(lock.try_block(pages(beside)).unwrap());
    }
    for over in [0..5, 4..8, 5..6, 7..9, 0..100] {
        assert!(lock.try_add(pages(over.clone())).is_none(), "{over:?}");
        assert!(
            lock.try_add_briefly(pages(over.clone())).is_none(),
            "{over:?}"
        );
        assert_waits(add(&lock, over.clone()).as_mut());
        drop(now(block(&lock, over)));
    }
    drop(stalled);
    let filling = lock.try_add(pages(4..8)).unwrap();
    for beside in [0..4, 8..9] {
        drop(now(block(&lock, beside)));
    }
    for over in [0..5, 5..6, 7..9] {
        assert!(lock.try_block(pages(over.clone())).is_none(), "{over:?}");
        assert_waits(block(&lock, over.clone()).as_mut());
        drop(now(add(&lock, over)));
    }
    drop(filling);
    assert_idle(&lock);
}

/// Each overlaps the one before and the one after it: none may go before the one before it.
#[test]
fn opponents_are_served_in_the_order_of_arrival() {
    let lock = new_lock();
    let held = lock.try_add(pages(0..10)).unwrap();
    let mut second = block(&lock, 5..15);
    assert_waits(second.as_mut());
    let mut third = add(&lock, 14..20);
    assert_waits(third.as_mut());
    let mut fourth = block(&lock, 18..30);
    assert_waits(fourth.as_mut());
    // Neither overlaps an opponent.
    drop(now(add(&lock, 0..5)));
    drop(now(block(&lock, 20..40)));
    drop(held);
    assert_waits(fourth.as_mut());
    assert_waits(third.as_mut());
    let second_guard = now(second.as_mut());
    assert_waits(third.as_mut());
    drop(second_guard);
    let third_guard = now(third.as_mut());
    assert_waits(fourth.as_mut());
    drop(third_guard);
    drop(now(fourth.as_mut()));
    drop((second, third, fourth));
    assert_idle(&lock);
}

/// The range of a brief add is not known, so a blocker of the region waits for it, but not for brief adds that come
/// later.
#[test]
fn a_blocker_waits_for_brief_adds_that_were_in_before_it() {
    let lock = new_lock();
    let brief = lock.try_add_briefly(pages(0..1)).unwrap();
    assert_eq!(lock.region_of(0).lock.counts(), (0, 0, true), "by the word");
    assert!(lock.try_block(pages(4..5)).is_none());
    let mut blocker = block(&lock, 4..5);
    assert_waits(blocker.as_mut());
    let later = lock.try_add_briefly(pages(0..1)).unwrap();
    assert_waits(blocker.as_mut());
    assert!(lock.try_add_briefly(pages(4..5)).is_none(), "overtakes");
    drop(brief);
    let blocked = now(blocker.as_mut());
    drop((blocked, later));
    drop(blocker);
    // Open again.
    let brief = lock.try_add_briefly(pages(0..1)).unwrap();
    assert_eq!(lock.region_of(0).lock.counts(), (0, 0, true));
    drop(brief);
    assert_idle(&lock);
}

#[test]
fn a_blocker_that_gives_up_opens_the_region_again() {
    let lock = new_lock();
    let filling = lock.try_add(pages(0..1)).unwrap();
    let brief = lock.try_add_briefly(pages(0..1)).unwrap();
    let mut blockers = vec![block(&lock, 0..2), block(&lock, 1..9)];
    for blocker in &mut blockers {
        assert_waits(blocker.as_mut());
    }
    let mut behind = add(&lock, 1..2);
    assert_waits(behind.as_mut());
    while blockers.pop().is_some() {
        let by_range = lock.try_add_briefly(pages(20..21)).unwrap();
        let counts = lock.region_of(0).lock.counts();
        let expected = if blockers.is_empty() { 2 } else { 4 };
        assert_eq!(counts.0, expected, "{counts:?}");
        drop(by_range);
    }
    drop(now(behind.as_mut()));
    drop((filling, brief, behind));
    assert_idle(&lock);
}

/// A blocker that gives back its guard while another blocker is there leaves the region closed for brief adds.
#[test]
fn the_region_stays_closed_while_any_blocker_is_there() {
    let lock = new_lock();
    let one = lock.try_block(pages(0..1)).unwrap();
    let other = lock.try_block(pages(4..5)).unwrap();
    drop(one);
    assert!(lock.try_add_briefly(pages(4..5)).is_none());
    drop(lock.try_add_briefly(pages(0..1)).unwrap());
    drop(other);
    assert_idle(&lock);
}

/// More waiters than a region's queue has slots for.
#[test]
fn a_crowd_keeps_the_order_too() {
    let lock = new_lock();
    let mut adders: Vec<_> = (0..200)
        .map(|page| now(add(&lock, page..page + 1)))
        .collect();
    let mut blockers: Vec<_> = (0..200).map(|page| block(&lock, page..page + 1)).collect();
    for blocker in &mut blockers {
        assert_waits(blocker.as_mut());
    }
    let mut late = add(&lock, 0..200);
    assert_waits(late.as_mut());
    while let (Some(adder), Some(mut blocker)) = (adders.pop(), blockers.pop()) {
        assert_waits(blocker.as_mut());
        drop(adder);
        drop(now(blocker.as_mut()));
    }
    drop(now(late.as_mut()));
    drop(late);
    assert_idle(&lock);
}

#[derive(Default)]
struct Bell(AtomicBool);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A guard of either kind.
type Guard = Box<dyn std::any::Any>;

type Waiting = std::pin::Pin<Box<dyn Future<Output = Guard>>>;

/// One of the property's parties.
struct Party {
    side: Side,
    range: Range<u64>,
    /// None once it has its guard.
    future: Option<Waiting>,
    guard: Option<Guard>,
    bell: Arc<Bell>,
    /// By the word, so that its range is not known.
    brief: bool,
}

impl Party {
    fn new(lock: &Arc<AddLock>, side: Side, range: Range<u64>) -> Self {
        let future: Waiting = match side {
            Side::Add => {
                let add = add(lock, range.clone());
                Box::pin(async move { Box::new(add.await) as Guard })
            }
            Side::Block => {
                let block = block(lock, range.clone());
                Box::pin(async move { Box::new(block.await) as Guard })
            }
        };
        Self {
            side,
            range,
            future: Some(future),
            guard: None,
            bell: Arc::new(Bell(AtomicBool::new(true))),
            brief: false,
        }
    }

    /// A brief adder that is in.
    fn brief(range: Range<u64>, guard: BriefAddGuard, brief: bool) -> Self {
        Self {
            side: Side::Add,
            range,
            future: None,
            guard: Some(Box::new(guard)),
            bell: Arc::default(),
            brief,
        }
    }

    fn keeps_waiting(&self, later: &Self) -> bool {
        self.side != later.side
            && (self.brief
                || self.range.start < later.range.end && later.range.start < self.range.end)
    }

    /// Polls if it was woken.
    fn poll(&mut self) {
        if let Some(future) = &mut self.future
            && self.bell.0.swap(false, Ordering::Relaxed)
        {
            let waker = Waker::from(Arc::clone(&self.bell));
            if let Poll::Ready(guard) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                self.guard = Some(guard);
                self.future = None;
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Wait(Side, Range<u64>),
    Try(Side, Range<u64>),
    Briefly(Range<u64>),
    Leave(prop::sample::Index),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let side = || prop_oneof![Just(Side::Add), Just(Side::Block)];
    let range = || (0_u64..20, 1_u64..6).prop_map(|(start, length)| start..start + length);
    let step = prop_oneof![
        3 => (side(), range()).prop_map(|(side, range)| Step::Wait(side, range)),
        1 => (side(), range()).prop_map(|(side, range)| Step::Try(side, range)),
        1 => range().prop_map(Step::Briefly),
        4 => any::<prop::sample::Index>().prop_map(Step::Leave),
    ];
    prop::collection::vec(step, 1..120)
}

proptest! {
    /// A party with no opponent before it is woken and goes on, and all others wait. A party that leaves, as a holder
    /// or a waiter, leaves no trace.
    #[test]
    fn as_the_definition_says(steps in steps()) {
        let lock = new_lock();
        let mut parties: Vec<Party> = Vec::new();
        for step in steps {
            match step {
                Step::Wait(side, range) => parties.push(Party::new(&lock, side, range)),
                Step::Try(side, range) => {
                    let party = Party::new(&lock, side, range.clone());
                    let free = !parties.iter().any(|other| other.keeps_waiting(&party));
                    let got = match side {
                        Side::Add => lock.try_add(pages(range)).is_some(),
                        Side::Block => lock.try_block(pages(range)).is_some(),
                    };
                    prop_assert_eq!(got, free);
                }
                Step::Briefly(range) => {
                    let blocked = parties.iter().any(|other| other.side == Side::Block);
                    let met = parties.iter().any(|other| {
                        other.side == Side::Block && other.range.start < range.end && range.start < other.range.end
                    });
                    let guard = lock.try_add_briefly(pages(range.clone()));
                    prop_assert_eq!(guard.is_none(), met);
                    if let Some(guard) = guard {
                        parties.push(Party::brief(range, guard, !blocked));
                    }
                }
                Step::Leave(index) if !parties.is_empty() => drop(parties.remove(index.index(parties.len()))),
                Step::Leave(_) => {}
            }
            // A party may let the next one go on only when it leaves. A second look must not change anything.
            for _ in 0..2 {
                parties.iter_mut().for_each(Party::poll);
            }
            for (i, party) in parties.iter().enumerate() {
                let free = !parties[..i].iter().any(|other| other.keeps_waiting(party));
                prop_assert_eq!(party.guard.is_some(), free, "{:?} {:?}", party.side, &party.range);
            }
        }
        drop(parties);
        assert_idle(&lock);
    }
}
