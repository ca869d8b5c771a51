//! The background task: what it must not wait for, and when it tries again.

use super::*;
use crate::frame::FrameBuf;
use crate::options::TICK;
use crate::testing::Behaviour;
use std::collections::BTreeMap;

/// Longer than a page may stay dirty.
const AGED: Duration = Duration::from_secs(8);

impl Race {
    fn failing(&self, operations: &[&'static str]) {
        let failures = operations.iter().map(|operation| (*operation, 1000));
        self.backend.behave(Behaviour {
            failures_per_mille: failures.collect::<BTreeMap<_, _>>(),
            ..Behaviour::default()
        });
    }

    /// A page is dirty, its background write has begun, and the store never completes it.
    async fn hang_a_write(&self, page: u64) {
        self.stop_next("cache:writeback:submit within writeback");
        done(self.write(page * PAGE, &[9; PAGE_SIZE])).await;
        tokio::time::sleep(AGED).await;
        self.stopped("cache:writeback:submit").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_that_hangs_holds_up_no_other_page() {
    let race = Race::new(4096, 7);
    race.hang_a_write(0).await;
    done(race.write(10 * PAGE, &[1; PAGE_SIZE])).await;
    done(race.write(0, &[8; PAGE_SIZE])).await;
    assert_eq!(race.bytes(0..2).await, [8, 7]);
    tokio::time::sleep(AGED).await;
    assert_eq!(
        race.backend.writes(),
        vec![10 * PAGE..11 * PAGE],
        "one transfer holds up the background task"
    );
    race.go("cache:writeback:submit");
    race.check_quiescent().await;
    assert_eq!(race.backend.durable()[0], 8);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_hangs_leaves_the_rest_of_the_cache_to_others() {
    let race = Race::new(4096, 7);
    race.hang_a_write(0).await;
    // Several times what may be dirty: it takes writeback and syncs to let all of it in.
    done(race.write(PAGE, &vec![1; 2000 * PAGE_SIZE])).await;
    assert_eq!(race.bytes(3000..3010).await, [7; 10]);
    assert_eq!(race.cache.stats().in_flight_pages, 1, "the one that hangs");
    race.go("cache:writeback:submit");
    race.check_quiescent().await;
}

#[tokio::test(start_paused = true)]
async fn a_sync_that_hangs_does_not_hold_up_writeback() {
    let race = Race::new(4096, 7);
    race.stop_next("cache:sync:submit within writeback");
    // An eighth of the cache, so that Weir syncs by itself.
    done(race.write(0, &vec![1; 60 * PAGE_SIZE])).await;
    tokio::time::sleep(AGED).await;
    race.stopped("cache:sync:submit").await;
    done(race.write(100 * PAGE, &[2; PAGE_SIZE])).await;
    tokio::time::sleep(AGED).await;
    assert_eq!(
        race.cache.stats().dirty_pages,
        0,
        "a sync holds writeback up"
    );
    race.go("cache:sync:submit");
    race.check_quiescent().await;
}

#[tokio::test(start_paused = true)]
async fn a_permit_that_is_given_back_is_used_at_once() {
    // So large that nothing else wakes the task up: no sync is due, and no writer is slowed.
    let options = CacheOptions {
        cache_bytes: 4 * MIN_CACHE_BYTES,
        ..CacheOptions::default()
    };
    let race = Race::with(4096 * PAGE, 7, &options);
    // One run doesn't end, so no pass does; and there are more dirty pages than permits.
    race.hang_a_write(0).await;
    race.backend.behave(Behaviour {
        delay_max: Some(Duration::from_millis(10)),
        ..Behaviour::default()
    });
    const PAGES: u64 = 110;
    for page in 1..=PAGES {
        done(race.write(page * 2 * PAGE, &[1; PAGE_SIZE])).await;
    }
    // Long before the next tick.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(race.backend.writes().len() as u64, PAGES);
    race.backend.behave(Behaviour::default());
    race.go("cache:writeback:submit");
    race.check_quiescent().await;
}

/// It must poll those that it has while it waits for a permit for the next.
#[tokio::test(start_paused = true)]
async fn a_flush_of_more_runs_than_there_are_permits_ends() {
    // So large that the background task has nothing to do.
    let options = CacheOptions {
        cache_bytes: 32 * MIN_CACHE_BYTES,
        ..CacheOptions::default()
    };
    let race = Race::with(4096 * PAGE, 7, &options);
    let runs = 3 * crate::options::WRITEBACK_RUNS as u64;
    for page in 0..runs {
        done(race.write(page * 2 * PAGE, &[1; PAGE_SIZE])).await;
    }
    assert!(race.backend.writes().is_empty());
    race.backend.behave(Behaviour {
        delay_max: Some(Duration::from_millis(10)),
        ..Behaviour::default()
    });
    done(race.flush()).await;
    race.backend.behave(Behaviour::default());
    assert_eq!(race.backend.writes().len() as u64, runs);
    race.check_quiescent().await;
}

#[tokio::test(start_paused = true)]
async fn what_fails_is_tried_again_ever_more_seldom() {
    let race = Race::new(64, 7);
    done(race.write(0, &[9; PAGE_SIZE])).await;
    race.failing(&["write"]);
    tokio::time::sleep(AGED).await;
    let errors = || race.cache.stats().writeback_errors;
    // 0.1, 0.3, 0.7, 1.5, 3.1, 6.3 s after the first, which came after 5 or 6 s; then every 5 s.
    assert!((4..=7).contains(&errors()), "{} at first", errors());
    tokio::time::sleep(Duration::from_secs(60)).await;
    let before = errors();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(errors() - before, 12, "in a minute, every 5 s");
    race.backend.behave(Behaviour::default());
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(
        race.cache.stats().dirty_pages,
        0,
        "it was never tried again"
    );
    // The store is well again: the next failure counts as a first one.
    done(race.write(0, &[8; PAGE_SIZE])).await;
    tokio::time::sleep(AGED).await;
    race.failing(&["write"]);
    done(race.write(0, &[7; PAGE_SIZE])).await;
    let before = errors();
    tokio::time::sleep(AGED).await;
    assert!(
        errors() - before >= 4,
        "{} after it was well",
        errors() - before
    );
    race.backend.behave(Behaviour::default());
    race.check_quiescent().await;
}

#[tokio::test(start_paused = true)]
async fn a_page_that_keeps_failing_holds_up_no_other() {
    let race = Race::new(4096, 7);
    race.backend.behave(Behaviour {
        bad: 0..PAGE,
        ..Behaviour::default()
    });
    done(race.write(0, &[9; PAGE_SIZE])).await;
    tokio::time::sleep(AGED).await;
    let start = tokio::time::Instant::now();
    // Behind the bad page in the order of writeback, and several times what may be dirty.
    done(race.write(2 * PAGE, &vec![1; 2000 * PAGE_SIZE])).await;
    assert_eq!(race.bytes(2000..2003).await, [1, 1, 7]);
    assert_eq!(race.bytes(0..1).await, [9]);
    let took = start.elapsed();
    assert!(took < Duration::from_secs(60), "it took {took:?}");
    race.backend.behave(Behaviour::default());
    race.check_quiescent().await;
}

/// A permit is given to a FLUSH that goes away at this moment: the background task, which wants one, gets it.
#[tokio::test(start_paused = true)]
async fn a_permit_that_comes_too_late_is_passed_on() {
    let race = Race::new(64, 7);
    let mut permits = Vec::new();
    while let Some(permit) = race.cache.writeback.try_permit() {
        permits.push(permit);
    }
    done(race.write(0, &[1; 64 * PAGE_SIZE])).await;
    idle().await;
    let context = race.context(RequestKinds::FLUSH);
    let mut pass = Box::pin(race.cache.write_back(&context, 0..64, u64::MAX));
    let mut task = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(pass.as_mut().poll(&mut task).is_pending());
    permits.pop();
    drop(pass);
    // Before its next tick.
    idle().await;
    assert!(!race.backend.writes().is_empty(), "nobody has it");
    drop(permits);
    race.check_quiescent().await;
}

/// A page that is written back again and again is one unsynced page, but a new entry of the list each time.
#[tokio::test(start_paused = true)]
async fn the_list_of_what_waits_for_a_sync_has_an_end() {
    let race = Race::new(64, 7);
    let context = race.context(RequestKinds::WRITEBACK);
    for round in 0..=race.cache.limits.frames {
        done(race.write(0, &[(round % 251) as u8; PAGE_SIZE])).await;
        _ = race.cache.write_back(&context, 0..1, u64::MAX).await;
    }
    assert_eq!(race.backend.syncs(), 0);
    // The background task looks once a tick.
    tokio::time::sleep(2 * TICK).await;
    assert_eq!(race.cache.generations.listed(), 0);
    race.check_quiescent().await;
}

/// Memory is short, and a sync would make a page evictable. It is due when the last run has ended, not at the next
/// tick.
#[tokio::test(start_paused = true)]
async fn a_sync_that_memory_waits_for_follows_the_last_run() {
    let race = Race::new(512, 7);
    done(race.write(8 * PAGE, &[9; PAGE_SIZE])).await;
    let free = usize::try_from(race.cache.stats().free_frames).unwrap();
    let mut hoard = FrameBuf::new(Arc::clone(race.cache.pool()));
    assert!(hoard.grow_to(free));
    race.stop_next("cache:writeback:complete within writeback");
    let reader = race.read(0..PAGE);
    race.stopped("cache:writeback:complete").await;
    waits(&reader, "a read without memory").await;
    let begun = tokio::time::Instant::now();
    race.go("cache:writeback:complete");
    done(reader).await;
    assert!(begun.elapsed() < TICK / 2, "it waited for a tick");
    drop(hoard);
    race.check_quiescent().await;
}
