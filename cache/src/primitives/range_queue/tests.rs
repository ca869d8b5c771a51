//! The queue against a list, with few in it and with more than its slots hold.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Wake;

use proptest::prelude::*;

use super::*;
use crate::testing::interleave;

/// Notes its number, behind those that were woken before.
struct Bell {
    number: u64,
    rung: Arc<Mutex<Vec<u64>>>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.rung.lock().unwrap().push(self.number);
    }
}

fn leave(queue: &mut RangeQueue, place: Place, range: &Range<u64>) {
    if let Some(woken) = queue.leave(place, range) {
        woken.wake();
    }
}

/// One in the queue, as the list has it.
struct Listed {
    number: u64,
    side: Side,
    range: Range<u64>,
    place: Place,
    /// The number of the one that it waits for.
    ahead: Option<u64>,
    waker: Waker,
}

/// The queue, and those in it by arrival.
#[derive(Default)]
struct Both {
    queue: RangeQueue,
    list: Vec<Listed>,
    arrived: u64,
    rung: Arc<Mutex<Vec<u64>>>,
}

impl Both {
    fn enter(&mut self, side: Side, range: Range<u64>) {
        self.arrived += 1;
        let meets = self.list.iter().any(|other| other.opposes(side, &range));
        assert_eq!(self.queue.meets(side.opponent(), &range), meets);
        let bell = Bell {
            number: self.arrived,
            rung: Arc::clone(&self.rung),
        };
        self.list.push(Listed {
            number: self.arrived,
            side,
            place: self.queue.enter(side, &range),
            range,
            ahead: None,
            waker: Arc::new(bell).into(),
        });
    }

    /// The one at `index` looks which one it waits for.
    fn look(&mut self, index: usize) {
        let (earlier, rest) = self.list.split_at_mut(index);
        let own = &mut rest[0];
        let before = |other: &&Listed| other.opposes(own.side, &own.range);
        let expected = earlier.iter().rev().find(before);
        let found = self
            .queue
            .latest_before(own.side.opponent(), &own.range, &own.place);
        assert_eq!(found, expected.map(|other| other.place.ticket));
        own.ahead = expected.map(|other| other.number);
        self.queue.wait(&mut own.place, found, &own.waker).wake();
        assert!(self.rung.lock().unwrap().is_empty(), "nobody has left");
    }

    fn leave(&mut self, index: usize) {
        let gone = self.list.remove(index);
        leave(&mut self.queue, gone.place, &gone.range);
        // Those that came first come first.
        let mut waited = Vec::new();
        for other in &mut self.list {
            if other.ahead == Some(gone.number) {
                other.ahead = None;
                waited.push(other.number);
            }
        }
        assert_eq!(std::mem::take(&mut *self.rung.lock().unwrap()), waited);
    }

    fn check(&self) {
        let waiting = self.list.iter().filter(|own| own.ahead.is_some()).count();
        assert_eq!(self.queue.counts(), (self.list.len(), waiting));
        for side in [Side::Add, Side::Block] {
            let there = self.list.iter().any(|own| own.side == side);
            assert_eq!(self.queue.has(side), there);
        }
        if let Some(crowd) = &self.queue.crowd {
            assert!(!crowd.is_empty(), "kept for nothing");
            crowd.trees.iter().for_each(RangeTree::check);
        }
    }
}

impl Listed {
    fn opposes(&self, side: Side, range: &Range<u64>) -> bool {
        self.side != side && self.range.start < range.end && range.start < self.range.end
    }
}

#[derive(Clone, Debug)]
enum Step {
    Enter(Side, Range<u64>),
    Look(prop::sample::Index),
    Leave(prop::sample::Index),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let side = prop_oneof![Just(Side::Add), Just(Side::Block)];
    // Pages of one place, and of a wide one.
    let start = prop_oneof![0_u64..24, 0_u64..10_000];
    let length = prop_oneof![1_u64..6, 1_u64..3000];
    let enter = (side, start, length)
        .prop_map(|(side, start, length)| Step::Enter(side, start..start + length));
    let step = prop_oneof![
        4 => enter,
        2 => any::<prop::sample::Index>().prop_map(Step::Look),
        2 => any::<prop::sample::Index>().prop_map(Step::Leave),
    ];
    prop::collection::vec(step, 1..400)
}

proptest! {
    #[test]
    fn it_knows_what_a_list_knows(steps in steps()) {
        let mut both = Both::default();
        for step in steps {
            match step {
                Step::Enter(side, range) => both.enter(side, range),
                Step::Look(index) if !both.list.is_empty() => both.look(index.index(both.list.len())),
                Step::Leave(index) if !both.list.is_empty() => both.leave(index.index(both.list.len())),
                Step::Look(_) | Step::Leave(_) => {}
            }
            both.check();
        }
        while !both.list.is_empty() {
            both.leave(both.list.len() / 2);
        }
        both.check();
        prop_assert!(both.queue.crowd.is_none());
        prop_assert!(both.queue.slots.capacity() <= SLOTS as usize);
    }
}

/// Starts that only grow, and starts that only fall: either would make a tree without balance deep.
#[test]
fn sorted_arrivals_keep_the_tree_flat() {
    for up in [true, false] {
        let mut both = Both::default();
        for i in 0..1000 {
            let start = if up { i } else { 1000 - i };
            both.enter(Side::Add, start..start + 1);
        }
        both.check();
        for _ in 0..900 {
            both.leave(0);
        }
        both.check();
    }
}

/// A look leaves out what ends too early, and what came before the one that it has found: it grows with the depth of
/// the tree.
#[test]
fn a_look_leaves_out_what_can_not_be_it() {
    const CROWD: u64 = 2000;
    let apart = |i| 2 * i..2 * i + 1;
    let beyond = 2 * CROWD..2 * CROWD + 1;
    let nested = |i| i..2 * CROWD;
    // Each start once, in no order.
    let scrambled = |i| i * 7919 % CROWD..2 * CROWD;
    let last = 2 * CROWD - 1..2 * CROWD;
    let cases: [(&dyn Fn(u64) -> Range<u64>, _, _); 3] = [
        (&apart, beyond, NO_TICKET),
        (&nested, last.clone(), CROWD),
        (&scrambled, last, CROWD),
    ];
    for (case, (range_of, looked_for, latest)) in cases.into_iter().enumerate() {
        let mut tree = RangeTree::default();
        for i in 0..CROWD {
            let range = range_of(i);
            let ticket = i + 1;
            tree.insert(Entry { range, ticket });
        }
        let looks = Rc::new(Cell::new(0));
        let count = Rc::clone(&looks);
        interleave::set("tree:looked", move || count.set(count.get() + 1));
        let found = tree.latest(&looked_for, u64::MAX, NO_TICKET);
        interleave::clear();
        assert_eq!(found, latest, "{case}");
        // Two children a level, and no tree of so many has more than 16 levels.
        assert!(
            (1..=32).contains(&looks.get()),
            "{case}: {} looks",
            looks.get()
        );
    }
}

/// Every waiter has asked one other to wake it, and a departure wakes one of a pile.
#[test]
fn a_pile_is_a_chain() {
    const PILE: usize = 300;
    let woken = Arc::new(AtomicUsize::new(0));
    struct Count(Arc<AtomicUsize>);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let waker = Waker::from(Arc::new(Count(Arc::clone(&woken))));
    let mut queue = RangeQueue::default();
    let mut places = Vec::new();
    for _ in 0..PILE {
        let mut place = queue.enter(Side::Block, &(0..1));
        let ahead = queue.latest_before(Side::Block, &(0..1), &place);
        queue.wait(&mut place, ahead, &waker).wake();
        places.push(place);
    }
    assert_eq!(queue.counts(), (PILE, PILE - 1));
    for (left, place) in places.into_iter().enumerate() {
        leave(&mut queue, place, &(0..1));
        assert_eq!(woken.load(Ordering::Relaxed), (left + 1).min(PILE - 1));
    }
    assert_eq!(queue.counts(), (0, 0));
}

/// A burst of the usual size needs memory once; a larger one gives the memory back.
#[test]
fn what_is_kept_is_bounded() {
    let mut queue = RangeQueue::default();
    let entry = size_of::<Entry>();
    for (burst, kept) in [
        (1, 4),
        (SLOTS_KEPT, SLOTS_KEPT),
        (1, SLOTS_KEPT),
        (1000, SLOTS_KEPT),
    ] {
        let places: Vec<_> = (0..burst)
            .map(|_| queue.enter(Side::Add, &(0..1)))
            .collect();
        for place in places {
            leave(&mut queue, place, &(0..1));
        }
        assert!(queue.kept_bytes() <= kept * entry, "after {burst}");
        assert!(queue.crowd.is_none());
    }
}

#[test]
#[should_panic(expected = "was left before")]
fn a_place_is_left_once() {
    let mut queue = RangeQueue::default();
    let place = queue.enter(Side::Add, &(0..1));
    let again = Place { ..place };
    leave(&mut queue, place, &(0..1));
    leave(&mut queue, again, &(0..1));
}

/// A future that has moved to another task is woken there.
#[test]
fn the_last_waker_is_the_one_that_counts() {
    let rung = Arc::new(Mutex::new(Vec::new()));
    let bell = |number| {
        let rung = Arc::clone(&rung);
        Waker::from(Arc::new(Bell { number, rung }))
    };
    let mut queue = RangeQueue::default();
    let first = queue.enter(Side::Block, &(0..1));
    let mut second = queue.enter(Side::Block, &(0..1));
    for number in [1, 2] {
        let ahead = queue.latest_before(Side::Block, &(0..1), &second);
        queue.wait(&mut second, ahead, &bell(number)).wake();
    }
    leave(&mut queue, first, &(0..1));
    assert_eq!(*rung.lock().unwrap(), [2]);
    leave(&mut queue, second, &(0..1));
}
