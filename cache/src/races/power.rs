//! Requests during which the power is cut.

use std::future::Future as _;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use tokio::sync::oneshot;

use super::*;
use crate::add_lock::REGION_BYTES;
use crate::options::CacheMode;
use crate::testing::{Behaviour, interleave};

/// A power cut under way.
struct Cut {
    running: JoinHandle<()>,
    /// Ends it.
    over: oneshot::Sender<()>,
}

impl Race {
    /// Cuts the power, which stays off until [`Cut::end`].
    fn begin_cut(&self) -> Cut {
        let (over, off) = oneshot::channel();
        let (cache, backend) = (Arc::clone(&self.cache), Arc::clone(&self.backend));
        let running = tokio::spawn(async move {
            cache
                .lose_power(async move |_| {
                    backend.lose_power();
                    off.await.expect("it is ended");
                })
                .await;
        });
        Cut { running, over }
    }

    async fn cut(&self) {
        self.begin_cut().end().await;
    }
}

impl Cut {
    async fn end(self) {
        self.over.send(()).expect("it waits");
        self.running.await.expect("it doesn't panic");
    }
}

/// What makes the first page durable.
const PROMISES: [fn(&Race) -> Running<()>; 2] = [|race| race.flush(), |race| race.persist(0..PAGE)];

#[tokio::test(start_paused = true)]
async fn no_flush_succeeds_over_what_a_power_cut_has_lost() {
    for point in [
        "cache:flush:snapshot",
        "cache:flush:sync",
        "cache:sync:submit",
    ] {
        for promise in PROMISES {
            let race = Race::new(64, 7);
            done(race.write(0, &[1; PAGE_SIZE])).await;
            race.stop_next(point);
            let running = promise(&race);
            race.stopped(point).await;
            race.cut().await;
            race.go(point);
            assert_eq!(outcome(running).await, Err(Errno::EIO), "at {point}");
            assert_eq!(race.bytes(0..1).await, [7]);
            // A request that comes afterwards doesn't fail for it.
            done(promise(&race)).await;
            race.check_quiescent().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_flush_that_comes_during_a_power_cut_succeeds() {
    for promise in PROMISES {
        let race = Race::new(64, 7);
        done(race.write(0, &[1; PAGE_SIZE])).await;
        let cut = race.begin_cut();
        idle().await;
        let running = promise(&race);
        waits(&running, "a flush of what the cut holds").await;
        cut.end().await;
        assert_eq!(outcome(running).await, Err(Errno::EIO));
        assert_eq!(race.bytes(0..1).await, [7]);
        race.check_quiescent().await;
    }
}

#[tokio::test(start_paused = true)]
async fn in_writethrough_no_write_succeeds_that_a_power_cut_has_lost() {
    let options = CacheOptions {
        cache_bytes: MIN_CACHE_BYTES,
        mode: CacheMode::Writethrough,
        ..CacheOptions::default()
    };
    for point in ["cache:flush:snapshot", "cache:sync:submit"] {
        let race = Race::with(64 * PAGE, 7, &options);
        race.stop_next(point);
        let write = race.write(0, &[1; PAGE_SIZE]);
        race.stopped(point).await;
        race.cut().await;
        race.go(point);
        assert_eq!(outcome(write).await, Err(Errno::EIO), "at {point}");
        assert_eq!(race.bytes(0..1).await, [7]);
        race.check_quiescent().await;
    }
}

/// The store's power may be on again before the cut is over.
#[tokio::test(start_paused = true)]
async fn no_flush_that_ends_during_a_power_cut_succeeds() {
    for promise in PROMISES {
        let race = Race::new(64, 7);
        done(race.write(0, &[1; PAGE_SIZE])).await;
        race.stop_next("cache:flush:sync");
        let running = promise(&race);
        race.stopped("cache:flush:sync").await;
        let cut = race.begin_cut();
        idle().await;
        race.go("cache:flush:sync");
        assert_eq!(outcome(running).await, Err(Errno::EIO));
        cut.end().await;
        race.check_quiescent().await;
    }
}

/// A write that has done nothing yet is as good after the cut as before.
#[tokio::test(start_paused = true)]
async fn a_write_that_waits_over_a_power_cut_goes_on_after_it() {
    let race = Race::new(64, 7);
    let cut = race.begin_cut();
    idle().await;
    let write = race.write(0, &[1; PAGE_SIZE]);
    waits(&write, "a write during a power cut").await;
    cut.end().await;
    done(write).await;
    done(race.flush()).await;
    assert_eq!(race.backend.durable()[0], 1);
    race.check_quiescent().await;
}

#[tokio::test(start_paused = true)]
async fn a_write_of_which_a_power_cut_has_lost_a_part_fails() {
    let race = Race::new(64, 7);
    // The tail is gone when it is to be installed; the head is in the cache by then.
    race.faults
        .set_points("class cache:race func install after 1 times 1 enable")
        .unwrap();
    race.stop_next("cache:write:merge");
    let write = race.write(PAGE / 2, &[1; PAGE_SIZE]);
    race.stopped("cache:write:merge").await;
    let cut = race.begin_cut();
    idle().await;
    race.go("cache:write:merge");
    idle().await;
    assert!(
        !write.is_finished(),
        "it installs the tail in another round"
    );
    cut.end().await;
    assert_eq!(outcome(write).await, Err(Errno::EIO));
    race.check_quiescent().await;
}

#[tokio::test(start_paused = true)]
async fn no_read_returns_what_a_power_cut_has_lost() {
    let race = Race::new(64, 7);
    done(race.write(0, &[1; PAGE_SIZE])).await;
    race.stop_next("cache:fill:complete");
    let other = race.read(PAGE..2 * PAGE);
    race.stopped("cache:fill:complete").await;
    // It has the first page, and waits for the other's fill of the second.
    let context = race.context(RequestKinds::READ);
    let mut read = pin!(race.cache.read(&context, 0, 2 * PAGE_SIZE));
    let mut task = Context::from_waker(Waker::noop());
    assert!(read.as_mut().poll(&mut task).is_pending());
    let cut = race.begin_cut();
    race.go("cache:fill:complete");
    done(other).await;
    cut.end().await;
    let found = match read.as_mut().poll(&mut task) {
        Poll::Ready(found) => found,
        Poll::Pending => read.await,
    };
    let mut bytes = [0; 2 * PAGE_SIZE];
    found.unwrap().copy_to(&mut bytes);
    assert_eq!(bytes, [7; 2 * PAGE_SIZE]);
    race.check_quiescent().await;
}

#[tokio::test(start_paused = true)]
async fn a_power_cut_that_nobody_waits_for_any_more_comes_to_its_end() {
    let race = Race::new(64, 7);
    done(race.write(0, &[1; PAGE_SIZE])).await;
    let cut = race.begin_cut();
    idle().await;
    cut.running.abort();
    idle().await;
    cut.over.send(()).expect("it goes on");
    assert_eq!(race.bytes(0..1).await, [7]);
    race.check_quiescent().await;
}

/// Their parts are calls of their own: the cut comes before the last.
#[tokio::test(start_paused = true)]
async fn a_change_of_several_parts_fails_when_a_power_cut_comes_between_two() {
    let changes: [fn(&Race) -> Running<()>; 2] = [
        |race| race.zero(100..2 * PAGE + 100),
        |race| race.write_direct(100, &[1; 2 * PAGE_SIZE]),
    ];
    for change in changes {
        let race = Race::new(64, 7);
        race.faults
            .set_points("class cache:write:begin after 1 times 1 pause")
            .unwrap();
        let running = change(&race);
        race.stopped("cache:write:begin").await;
        race.cut().await;
        race.go("cache:write:begin");
        assert_eq!(outcome(running).await, Err(Errno::EIO));
        race.check_quiescent().await;
    }
}

#[tokio::test(start_paused = true)]
async fn no_direct_read_returns_what_a_power_cut_has_lost() {
    let race = Race::new(64, 7);
    for _ in 0..20 {
        done(race.write(0, &[1; PAGE_SIZE])).await;
        let context = race.context(RequestKinds::WRITEBACK);
        _ = race.cache.write_back(&context, 0..1, u64::MAX).await;
        race.backend.behave(Behaviour {
            delay_max: Some(Duration::from_millis(8)),
            ..Behaviour::default()
        });
        let (cache, context) = (Arc::clone(&race.cache), race.context(RequestKinds::READ));
        let read: Running<FrameRefs> =
            tokio::spawn(async move { cache.read_direct(&context, 0, PAGE_SIZE).await });
        tokio::time::sleep(Duration::from_millis(4)).await;
        // What the clock has released at the same moment comes first.
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        let before = read.is_finished();
        race.backend.behave(Behaviour::default());
        race.cut().await;
        let mut bytes = [0; PAGE_SIZE];
        done(read).await.copy_to(&mut bytes);
        assert_eq!(uniform(&bytes), Some(if before { 1 } else { 7 }));
    }
    race.check_quiescent().await;
}

/// The parts of different regions are one request: the cut comes when the first has been done.
#[tokio::test(start_paused = true)]
async fn a_change_of_several_regions_fails_when_a_power_cut_comes_between_two() {
    type Change = fn(&Race, Range<u64>) -> Running<()>;
    let changes: [Change; 2] = [Race::trim, Race::zero];
    let options = CacheOptions {
        cache_bytes: MIN_CACHE_BYTES,
        mode: CacheMode::Writethrough,
        ..CacheOptions::default()
    };
    for change in changes {
        let race = Race::with(REGION_BYTES + 16 * PAGE, 7, &options);
        race.stop_next("cache:discard:submit");
        let running = change(&race, REGION_BYTES - PAGE..REGION_BYTES + PAGE);
        race.stopped("cache:discard:submit").await;
        // Next in the queue, so it comes before the other part.
        let cut = race.begin_cut();
        idle().await;
        race.go("cache:discard:submit");
        idle().await;
        cut.end().await;
        assert_eq!(outcome(running).await, Err(Errno::EIO));
        let first = REGION_BYTES / PAGE - 1;
        assert_eq!(race.bytes(first..first + 1).await, [7], "it was lost");
    }
}

/// On another thread the power may be cut after the pages are there and before they are looked for.
#[tokio::test(start_paused = true)]
async fn in_writethrough_no_write_succeeds_whose_pages_a_power_cut_has_dropped() {
    let options = CacheOptions {
        cache_bytes: MIN_CACHE_BYTES,
        mode: CacheMode::Writethrough,
        ..CacheOptions::default()
    };
    let race = Race::with(64 * PAGE, 7, &options);
    let (cache, backend) = (Arc::clone(&race.cache), Arc::clone(&race.backend));
    interleave::set("write:installed", move || {
        let (cache, backend) = (Arc::clone(&cache), Arc::clone(&backend));
        let cut = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap();
            runtime.block_on(cache.lose_power(async move |_| backend.lose_power()));
        });
        cut.join().unwrap();
    });
    let write = outcome(race.write(0, &[1; PAGE_SIZE])).await;
    interleave::clear();
    assert_eq!(write, Err(Errno::EIO));
    assert_eq!(race.bytes(0..1).await, [7]);
    race.check_quiescent().await;
}

/// What is on its way to the store when the power fails is the store's until it has answered.
#[tokio::test(start_paused = true)]
async fn a_power_cut_waits_for_what_is_in_flight() {
    let race = Race::new(64, 7);
    done(race.write(0, &[1; PAGE_SIZE])).await;
    race.stop_next("cache:writeback:complete");
    let flush = race.flush();
    race.stopped("cache:writeback:complete").await;
    let cut = race.begin_cut();
    cut.over.send(()).expect("it waits");
    idle().await;
    assert!(!cut.running.is_finished(), "a page is in flight");
    race.go("cache:writeback:complete");
    cut.running.await.expect("it doesn't panic");
    assert_eq!(outcome(flush).await, Err(Errno::EIO));
    assert_eq!(race.bytes(0..1).await, [7]);
    race.check_quiescent().await;
}
