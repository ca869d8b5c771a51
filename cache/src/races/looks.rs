//! Second looks: what was seen without a lock is looked at again before it is relied on. Each test puts a whole request
//! of another client between the two looks.

use std::cell::Cell;
use std::rc::Rc;

use super::*;
use crate::frame::{FrameBuf, FrameId};
use crate::requests::fill::{FillPurpose, PlannedFills};
use crate::testing::interleave;
use crate::transfer::carry;

/// Runs `step` the first time that this thread comes to `place` during `run`.
fn between<T>(place: &'static str, step: impl FnOnce() + 'static, run: impl FnOnce() -> T) -> T {
    let step = Cell::new(Some(step));
    let taken = Rc::new(Cell::new(false));
    let note = Rc::clone(&taken);
    interleave::set(place, move || {
        if let Some(step) = step.take() {
            step();
            note.set(true);
        }
    });
    let outcome = run();
    interleave::clear();
    assert!(taken.get(), "nobody came by {place}");
    outcome
}

/// Carries a request out on another thread, from beginning to end.
fn elsewhere<T: Send>(request: impl Future<Output = T> + Send) -> T {
    std::thread::scope(|scope| {
        let run = || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(request)
        };
        scope.spawn(run).join().unwrap()
    })
}

impl Race {
    fn frame_of(&self, page: u64) -> FrameId {
        let pin = epoch::pin();
        let state = self.cache.table.state(page, &pin).expect("it has a slot");
        assert!(state.has(PRESENT));
        state.frame()
    }

    /// A hit on page 0, which `step` takes its frame from between the two looks.
    fn hit_after(&self, step: impl FnOnce(&Self) + 'static) -> Option<Vec<u8>> {
        let race = self.another();
        let step = move || step(&race);
        between("hit:looked", step, || self.cached(0..PAGE))
    }

    fn another(&self) -> Self {
        Self {
            backend: Arc::clone(&self.backend),
            faults: self.faults.clone(),
            cache: Arc::clone(&self.cache),
        }
    }

    /// A small write that nothing keeps from being done at once.
    fn write_now(&self, page: u64, byte: u8) {
        let context = self.context(RequestKinds::WRITE);
        let data = [byte; PAGE_SIZE];
        assert!(self.cache.try_write(&context, page * PAGE, &data));
    }
}

#[tokio::test(start_paused = true)]
async fn a_hit_does_not_take_a_frame_that_has_become_another_page() {
    let race = Race::new(64, 7);
    done(race.read(0..PAGE)).await;
    let frame = race.frame_of(0);
    let hit = race.hit_after(move |race| {
        race.evict_all();
        race.write_now(1, 9);
        assert_eq!(race.frame_of(1), frame, "the frame is used again");
    });
    assert_eq!(hit, None, "page 0 is no longer cached");
    assert_eq!(race.bytes(0..2).await, [7, 9]);
    race.check_quiescent().await;
}

#[tokio::test(start_paused = true)]
async fn a_hit_follows_its_page_into_another_frame() {
    let race = Race::new(64, 7);
    done(race.read(0..PAGE)).await;
    let frame = race.frame_of(0);
    let hit = race.hit_after(move |race| {
        race.write_now(0, 8);
        race.write_now(1, 9);
        assert_eq!(race.frame_of(1), frame, "the frame is used again");
    });
    assert_eq!(hit, Some(vec![8; PAGE_SIZE]));
    race.check_quiescent().await;
}

#[tokio::test(start_paused = true)]
async fn a_hit_leaves_a_frame_that_nobody_has() {
    let race = Race::new(64, 7);
    done(race.read(0..PAGE)).await;
    let free = race.cache.stats().free_frames;
    assert_eq!(race.hit_after(Race::evict_all), None);
    assert_eq!(race.cache.stats().free_frames, free + 1);
    race.check_quiescent().await;
}

/// The page is evicted and filled again, by chance into the same frame: its number is the fill's token, and not yet a
/// page.
#[tokio::test(start_paused = true)]
async fn a_hit_does_not_take_a_frame_that_its_page_is_read_into() {
    let race = Race::new(64, 7);
    done(race.read(0..PAGE)).await;
    let frame = race.frame_of(0);
    let begun = Rc::new(Cell::new(None));
    let begin = Rc::clone(&begun);
    let hit = race.hit_after(move |race| {
        race.evict_all();
        let cache = &race.cache;
        let guard = cache.add_lock.try_add(0..PAGE).expect("nobody blocks");
        let mut frames = FrameBuf::new(Arc::clone(cache.pool()));
        assert!(frames.grow_to(1));
        let mut planned = PlannedFills::new();
        let pin = epoch::pin();
        let mut slot = cache.table.lock_or_create(0, &pin).unwrap();
        assert!(cache.plan_page(0, &mut slot, &mut frames, &mut planned));
        assert_eq!(slot.state().frame(), frame, "the frame is used again");
        drop(slot);
        begin.set(Some((guard, planned)));
    });
    assert_eq!(hit, None, "page 0 is being read");
    let (guard, planned) = begun.take().expect("the fill was begun");
    let (context, guard) = (race.context(RequestKinds::READ), Arc::new(guard));
    let start = |run| {
        race.cache
            .start_fill(&context, Arc::clone(&guard), run, FillPurpose::Demand)
    };
    let fills = planned.into_iter().map(start).collect();
    drop(guard);
    carry(fills).await;
    assert_eq!(race.cached(0..PAGE), Some(vec![7; PAGE_SIZE]));
    race.check_quiescent().await;
}

/// The session has checked the range against the old size, and so has every request that waits for its guard.
#[tokio::test(start_paused = true)]
async fn a_write_at_once_meets_a_shrink_before_it_has_the_guard() {
    for received in [false, true] {
        let race = Race::new(64, 7);
        let context = race.context(RequestKinds::WRITE);
        let offset = 40 * PAGE;
        let mut payload = race.cache.payload(offset, PAGE_SIZE).await;
        payload.copy_from(&[9; PAGE_SIZE]);
        let cache = Arc::clone(&race.cache);
        let shrink = move || elsewhere(cache.resize(32 * PAGE)).expect("the device shrinks");
        let is_done = between("write:unguarded", shrink, || match received {
            true => race.cache.try_install(&context, payload).is_ok(),
            false => race.cache.try_write(&context, offset, &[9; PAGE_SIZE]),
        });
        assert!(!is_done, "written past the end; received: {received}");
        assert_eq!(race.cache.stats().dirty_pages, 0);
        done(race.resize(64 * PAGE)).await;
        assert_eq!(race.bytes(31..42).await, [7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        race.check_quiescent().await;
    }
}

/// The slot was missing at first. The request that makes it finds another's page there, and the leaf counts the page
/// once.
#[tokio::test(start_paused = true)]
async fn a_slot_is_made_once_by_two_who_missed_it() {
    const FAR: u64 = 2000;
    let race = Race::new(2048, 7);
    // The first leaf is the root, which stays whatever it counts.
    race.write_now(0, 8);
    let rival = race.another();
    let write = move || rival.write_now(FAR, 9);
    between("slot:missing", write, || {
        let pin = epoch::pin();
        let slot = race.cache.table.lock_or_create(FAR, &pin).unwrap();
        assert!(slot.state().has(DIRTY), "another's page was not seen");
    });
    done(race.flush()).await;
    race.evict_all();
    let leaf_is_gone = race.cache.table.state(FAR, &epoch::pin()).is_none();
    assert!(leaf_is_gone, "the leaf counts a page that is not there");
    assert_eq!(race.bytes(FAR..FAR + 2).await, [9, 7]);
    race.check_quiescent().await;
}

#[tokio::test(start_paused = true)]
async fn reclaim_leaves_a_page_whose_next_reader_comes_just_now() {
    let race = Race::new(64, 7);
    done(race.read(0..PAGE)).await;
    race.cache.evict(1);
    if race.cached(0..PAGE).is_none() {
        done(race.read(0..PAGE)).await;
    }
    let reader = Rc::new(std::cell::RefCell::new(FrameRefs::new(Arc::clone(
        race.cache.pool(),
    ))));
    let (rival, refs) = (race.another(), Rc::clone(&reader));
    let read = move || assert!(rival.cache.try_read(0, PAGE_SIZE, &mut refs.borrow_mut()));
    let evicted = between("reclaim:chosen", read, || race.cache.evict(1));
    assert_eq!(evicted, 0, "nothing is gained by a page that is in use");
    assert!(race.cached(0..PAGE).is_some());
    drop(reader);
    race.check_quiescent().await;
}
