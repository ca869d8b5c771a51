//! What a FLUSH promises while pages move: rows 5, 6, 13, 14, 19 and 21.

use super::*;
use crate::backend::{BackendExtent, ExtentKind};
use crate::durability::writeback::Pass;
use crate::testing::Behaviour;
use std::collections::BTreeMap;

impl Race {
    /// Writes everything dirty back, without a sync.
    async fn write_back(&self) -> Pass {
        let context = self.context(RequestKinds::WRITEBACK);
        let pages = 0..self.cache.size().div_ceil(PAGE);
        self.cache.write_back(&context, pages, u64::MAX).await
    }

    fn fail(&self, operation: &'static str) {
        self.backend.behave(Behaviour {
            failures_per_mille: BTreeMap::from([(operation, 1000)]),
            ..Behaviour::default()
        });
    }

    /// The first byte of a page in the durable image.
    fn durable(&self, page: usize) -> u8 {
        self.backend.durable()[page * PAGE_SIZE]
    }
}

#[tokio::test(start_paused = true)]
async fn race_05_a_page_is_rewritten_while_its_writeback_completes() {
    for point in ["cache:writeback:submit", "cache:writeback:complete"] {
        let race = Race::new(64, 7);
        done(race.write(0, &[1; PAGE_SIZE])).await;
        race.stop_next(point);
        let flush = race.flush();
        race.stopped(point).await;
        done(race.write(0, &[2; PAGE_SIZE])).await;
        race.go(point);
        done(flush).await;
        assert_eq!(race.durable(0), 1, "what the flush covered");
        assert_eq!(race.cache.stats().dirty_pages, 1, "the rewrite was lost");
        done(race.flush()).await;
        assert_eq!(race.durable(0), 2, "at {point}");
        race.check_quiescent().await;
    }
}

#[tokio::test(start_paused = true)]
async fn race_06_a_page_in_flight_is_not_submitted_again() {
    let race = Race::new(64, 7);
    done(race.write(0, &[1; PAGE_SIZE])).await;
    race.stop_next("cache:writeback:submit");
    let first = race.flush();
    race.stopped("cache:writeback:submit").await;
    done(race.write(0, &[2; PAGE_SIZE])).await;
    let second = race.flush();
    waits(
        &second,
        "a flush of a page whose older version is in flight",
    )
    .await;
    assert_eq!(
        race.backend.writes(),
        [],
        "the newer version overtook the older"
    );
    race.go("cache:writeback:submit");
    done(first).await;
    done(second).await;
    assert_eq!(race.durable(0), 2);
    assert_eq!(race.backend.writes().len(), 2);
    race.check_quiescent().await;
}

#[tokio::test(start_paused = true)]
async fn race_13_a_page_written_again_after_the_snapshot_is_still_covered() {
    let race = Race::new(64, 7);
    done(race.write(0, &[1; PAGE_SIZE])).await;
    race.stop_next("cache:flush:snapshot");
    let flush = race.flush();
    race.stopped("cache:flush:snapshot").await;
    done(race.write(0, &[2; PAGE_SIZE])).await;
    done(race.write(PAGE, &[3; PAGE_SIZE])).await;
    race.go("cache:flush:snapshot");
    done(flush).await;
    assert!(
        [1, 2].contains(&race.durable(0)),
        "an acknowledged write was missed"
    );
    race.check_quiescent().await;
    assert_eq!([race.durable(0), race.durable(1)], [2, 3]);
}

#[tokio::test(start_paused = true)]
async fn race_13_a_flush_waits_for_what_another_has_submitted() {
    let race = Race::new(64, 7);
    done(race.write(0, &[1; PAGE_SIZE])).await;
    race.stop_next("cache:writeback:submit");
    let first = race.flush();
    race.stopped("cache:writeback:submit").await;
    let second = race.flush();
    waits(
        &second,
        "a flush of a page that another flush has submitted",
    )
    .await;
    race.go("cache:writeback:submit");
    done(second).await;
    assert_eq!(race.durable(0), 1, "replied to and not durable");
    done(first).await;
    race.check_quiescent().await;
}

#[tokio::test(start_paused = true)]
async fn race_13_a_flush_sees_that_anothers_run_failed() {
    let race = Race::new(64, 7);
    done(race.write(0, &[1; PAGE_SIZE])).await;
    race.stop_next("cache:writeback:submit");
    let first = race.flush();
    race.stopped("cache:writeback:submit").await;
    let second = race.flush();
    waits(
        &second,
        "a flush of a page that another flush has submitted",
    )
    .await;
    race.fail("write");
    race.go("cache:writeback:submit");
    assert_eq!(outcome(first).await, Err(Errno::EIO));
    assert_eq!(outcome(second).await, Err(Errno::EIO), "it is not durable");
    race.backend.behave(Behaviour::default());
    done(race.flush()).await;
    assert_eq!(race.durable(0), 1);
    race.check_quiescent().await;
}

#[tokio::test(start_paused = true)]
async fn race_13_a_flush_sees_that_anothers_sync_failed() {
    let race = Race::new(64, 7);
    done(race.write(0, &[1; PAGE_SIZE])).await;
    race.fail("sync");
    race.stop_next("cache:sync:complete");
    let first = race.flush();
    race.stopped("cache:sync:complete").await;
    // Its own sync would succeed, over pages that the failed one has made dirty again.
    let second = race.flush();
    waits(&second, "a flush whose turn to sync has not come").await;
    race.backend.behave(Behaviour::default());
    let writes = race.backend.writes().len();
    race.go("cache:sync:complete");
    assert_eq!(outcome(first).await, Err(Errno::EIO));
    done(second).await;
    assert_eq!(race.durable(0), 1);
    assert!(
        race.backend.writes().len() > writes,
        "a flush trusted pages over which a sync had failed"
    );
    race.check_quiescent().await;
}

/// As above, and the page has been written again since the second FLUSH came: the page is younger than the FLUSH, but
/// what it was written over isn't durable.
#[tokio::test(start_paused = true)]
async fn race_13_a_flush_sees_that_anothers_sync_failed_over_what_was_written_again() {
    for in_flight in [false, true] {
        let race = Race::new(64, 7);
        done(race.write(0, &[1; PAGE_SIZE])).await;
        // Written again while it is in flight, or while it waits for the sync.
        let run = in_flight.then(|| {
            race.stop_next("cache:writeback:complete");
            let (cache, context) = (Arc::clone(&race.cache), race.context(RequestKinds::FLUSH));
            tokio::spawn(async move { cache.write_back(&context, 0..1, u64::MAX).await })
        });
        if run.is_some() {
            race.stopped("cache:writeback:complete").await;
        } else {
            let context = race.context(RequestKinds::WRITEBACK);
            _ = race.cache.write_back(&context, 0..1, u64::MAX).await;
        }
        race.stop_next("cache:flush:snapshot");
        let flush = race.flush();
        race.stopped("cache:flush:snapshot").await;
        done(race.write(0, &[2; PAGE_SIZE])).await;
        if let Some(run) = run {
            race.go("cache:writeback:complete");
            run.await.unwrap();
        }
        race.fail("sync");
        let context = race.context(RequestKinds::FLUSH);
        assert_eq!(race.cache.sync(&context).await, Err(Errno::EIO));
        race.backend.behave(Behaviour::default());
        let writes = race.backend.writes().len();
        race.go("cache:flush:snapshot");
        done(flush).await;
        assert!(
            race.backend.writes().len() > writes,
            "a flush trusted a page over which a sync had failed"
        );
        race.check_quiescent().await;
    }
}

/// As above, and the newer version is on its way already: in flight, so that it fails too, or held by a change.
#[tokio::test(start_paused = true)]
async fn race_13_a_flush_sees_that_anothers_sync_failed_over_what_is_replaced_at_that_moment() {
    for (point, held) in [
        ("cache:flush:snapshot", false),
        ("cache:flush:sync", false),
        ("cache:flush:sync", true),
    ] {
        let race = Race::new(64, 7);
        done(race.write(0, &[1; PAGE_SIZE])).await;
        race.write_back().await;
        race.stop_next(point);
        let flush = race.flush();
        race.stopped(point).await;
        let end = if held {
            "cache:discard:complete"
        } else {
            "cache:writeback:complete"
        };
        race.stop_next(end);
        let replaces = if held {
            race.zero(0..PAGE)
        } else {
            done(race.write(0, &[2; PAGE_SIZE])).await;
            race.written_back()
        };
        race.stopped(end).await;
        race.fail("sync");
        let context = race.context(RequestKinds::WRITEBACK);
        assert_eq!(race.cache.sync(&context).await, Err(Errno::EIO));
        race.backend.behave(Behaviour::default());
        let writes = race.backend.writes().len();
        race.go(point);
        waits(&flush, "a flush of a page that may be lost").await;
        race.go(end);
        assert_eq!(outcome(replaces).await, Err(Errno::EIO));
        done(flush).await;
        assert!(
            race.backend.writes().len() > writes,
            "a flush trusted a page over which a sync had failed, held {held}, at {point}"
        );
        race.check_quiescent().await;
    }
}

#[tokio::test(start_paused = true)]
async fn race_14_status_asks_the_backend_while_writeback_completes() {
    let race = Race::new(64, 0);
    done(race.write(0, &[1; PAGE_SIZE])).await;
    race.stop_next("cache:status:overlay");
    let (cache, context) = (Arc::clone(&race.cache), race.context(RequestKinds::STATUS));
    let status: Running<Vec<BackendExtent>> =
        tokio::spawn(async move { cache.allocation(&context, 0..2 * PAGE, 8).await });
    race.stopped("cache:status:overlay").await;
    done(race.flush()).await;
    race.go("cache:status:overlay");
    let extents = done(status).await;
    let told: Vec<_> = extents.iter().map(|extent| extent.kind).collect();
    assert_eq!(told, [ExtentKind::Data, ExtentKind::Hole]);
    race.check_quiescent().await;
}

#[tokio::test(start_paused = true)]
async fn race_19_a_sync_covers_only_what_completed_before_it() {
    let race = Race::new(64, 7);
    done(race.write(0, &[1; PAGE_SIZE])).await;
    race.stop_next("cache:sync:complete");
    let flush = race.flush();
    race.stopped("cache:sync:complete").await;
    // The backend's sync is over; what completes now is not covered by it.
    done(race.write(PAGE, &[2; PAGE_SIZE])).await;
    assert_eq!(race.write_back().await.pages, 1);
    race.go("cache:sync:complete");
    done(flush).await;
    assert_eq!([race.durable(0), race.durable(1)], [1, 7]);
    assert_eq!(
        race.cache.stats().unstable_pages,
        1,
        "a sync marked a page clean that it did not cover"
    );
    done(race.flush()).await;
    assert_eq!(race.durable(1), 2);
    race.check_quiescent().await;
}

#[tokio::test(start_paused = true)]
async fn race_19_a_failed_sync_leaves_what_completed_during_it_dirty() {
    let race = Race::new(64, 7);
    done(race.write(0, &[1; PAGE_SIZE])).await;
    race.fail("sync");
    race.stop_next("cache:sync:complete");
    let flush = race.flush();
    race.stopped("cache:sync:complete").await;
    race.backend.behave(Behaviour::default());
    done(race.write(PAGE, &[2; PAGE_SIZE])).await;
    assert_eq!(race.write_back().await.pages, 1);
    race.go("cache:sync:complete");
    assert_eq!(outcome(flush).await, Err(Errno::EIO));
    assert_eq!(race.cache.stats().dirty_pages, 2);
    race.check_quiescent().await;
}

#[tokio::test(start_paused = true)]
async fn race_19_a_run_that_is_in_flight_when_a_sync_fails_is_written_again() {
    let race = Race::new(64, 7);
    // So that there is something to sync.
    done(race.trim(32 * PAGE..33 * PAGE)).await;
    done(race.write(0, &[1; PAGE_SIZE])).await;
    race.stop_next("cache:writeback:complete");
    let flush = race.flush();
    race.stopped("cache:writeback:complete").await;
    // The backend has the page, and forgets it when Weir's own sync fails.
    race.fail("sync");
    let context = race.context(RequestKinds::WRITEBACK);
    assert_eq!(race.cache.sync(&context).await, Err(Errno::EIO));
    race.backend.behave(Behaviour::default());
    race.go("cache:writeback:complete");
    assert_eq!(outcome(flush).await, Err(Errno::EIO), "it is not durable");
    assert_eq!(
        race.cache.stats().dirty_pages,
        1,
        "a page is taken as stored that a failed sync has covered"
    );
    let writes = race.backend.writes().len();
    done(race.flush()).await;
    assert_eq!(race.backend.writes().len(), writes + 1);
    race.check_quiescent().await;
}

#[tokio::test(start_paused = true)]
async fn a_flush_beside_zeroes_that_keep_failing_tries_again_once_and_says_so() {
    let race = Race::new(64, 7);
    done(race.write(0, &[9; PAGE_SIZE])).await;
    race.fail("zero");
    race.faults
        .set_points("class cache:flush:sync pause")
        .unwrap();
    let flush = race.flush();
    for _ in 0..2 {
        race.stopped("cache:flush:sync").await;
        // It puts back what the FLUSH has just written, and it is not known what the store has of that.
        assert_eq!(outcome(race.zero(0..PAGE)).await, Err(Errno::EIO));
        race.go("cache:flush:sync");
    }
    assert_eq!(
        outcome(flush).await,
        Err(Errno::EIO),
        "a flush goes on for as long as zeroes fail"
    );
    race.backend.behave(Behaviour::default());
    race.check_quiescent().await;
}

/// Each puts back the page that the end cuts, and nothing has failed.
#[tokio::test(start_paused = true)]
async fn a_flush_beside_changes_of_size_that_succeed_succeeds() {
    let race = Race::sized(8 * PAGE + 512, 7);
    done(race.write(8 * PAGE, &[9; 512])).await;
    race.faults
        .set_points("class cache:flush:sync pause")
        .unwrap();
    let flush = race.flush();
    for round in 2..6 {
        race.stopped("cache:flush:sync").await;
        race.cache.resize(8 * PAGE + 512 * round).await.unwrap();
        race.go("cache:flush:sync");
    }
    race.stopped("cache:flush:sync").await;
    race.go("cache:flush:sync");
    done(flush).await;
    race.faults.reset_points();
    assert_eq!(race.durable(8), 9);
    race.check_quiescent().await;
}

/// A page is written again while another request has it in flight, after the snapshot of a FLUSH that covers what was
/// submitted.
#[tokio::test(start_paused = true)]
async fn race_13_a_flush_sees_that_what_it_covers_failed_in_anothers_run_and_was_written_again() {
    let race = Race::new(64, 7);
    done(race.write(0, &[1; PAGE_SIZE])).await;
    race.faults
        .set_points("class cache:writeback:complete oneshot pause error EIO")
        .unwrap();
    let (cache, context) = (
        Arc::clone(&race.cache),
        race.context(RequestKinds::WRITEBACK),
    );
    let run = tokio::spawn(async move { cache.write_back(&context, 0..64, u64::MAX).await });
    race.stopped("cache:writeback:complete").await;
    race.stop_next("cache:flush:snapshot");
    let flush = race.flush();
    race.stopped("cache:flush:snapshot").await;
    done(race.write(0, &[2; PAGE_SIZE])).await;
    race.go("cache:flush:snapshot");
    waits(&flush, "a FLUSH of a page that is in flight").await;
    race.go("cache:writeback:complete");
    assert_eq!(run.await.unwrap().error, Some(Errno::EIO));
    done(flush).await;
    assert_eq!(race.backend.durable()[0], 2);
    race.check_quiescent().await;
}
