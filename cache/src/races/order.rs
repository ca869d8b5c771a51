//! Older requests and younger ones of the same bytes: no part of the older takes effect after the younger was
//! acknowledged.

use super::*;
use crate::add_lock::REGION_BYTES;
use crate::options::CacheMode;

/// A change of page 0 behind the cache, which leaves the byte beside it there.
type Change = (fn(&Race) -> Running<()>, u8);

const CHANGES: [Change; 3] = [
    (|race| race.write_direct(0, &[8; PAGE_SIZE]), 8),
    (|race| race.zero(0..PAGE), 0),
    (|race| race.trim(0..PAGE), 0),
];

fn uncached() -> Race {
    let options = CacheOptions {
        cache_bytes: MIN_CACHE_BYTES,
        mode: CacheMode::None,
        ..CacheOptions::default()
    };
    Race::with(64 * PAGE, 7, &options)
}

/// The store is slow with the older one, and its client goes away meanwhile.
#[tokio::test(start_paused = true)]
async fn a_younger_change_waits_for_what_an_older_one_has_with_the_store() {
    for point in ["cache:discard:submit", "cache:discard:complete"] {
        for (older, _) in CHANGES {
            for (younger, left) in CHANGES {
                let race = uncached();
                race.stop_next(point);
                let old = older(&race);
                race.stopped(point).await;
                old.abort();
                let young = younger(&race);
                waits(&young, "a change of pages that an older one is changing").await;
                // It doesn't affect neighbours.
                done(race.write_direct(PAGE, &[6; PAGE_SIZE])).await;
                race.go(point);
                done(young).await;
                done(race.flush()).await;
                assert_eq!(race.backend.durable()[0], left, "at {point}");
                assert_eq!(race.bytes(0..2).await, [left, 6]);
                race.check_quiescent().await;
            }
        }
    }
}

/// As above for what a client writes through the cache: the older change has the pages blocked.
#[tokio::test(start_paused = true)]
async fn a_younger_cached_write_waits_for_what_an_older_change_has_with_the_store() {
    for (older, _) in CHANGES {
        let race = Race::new(64, 7);
        race.stop_next("cache:discard:submit");
        let old = older(&race);
        race.stopped("cache:discard:submit").await;
        old.abort();
        let young = race.write(0, &[9; PAGE_SIZE]);
        waits(&young, "a write of pages that an older change is changing").await;
        race.go("cache:discard:submit");
        done(young).await;
        done(race.flush()).await;
        assert_eq!(race.backend.durable()[0], 9);
        race.check_quiescent().await;
    }
}

/// Three of the same page: the second waits for its turn when its client goes.
#[tokio::test(start_paused = true)]
async fn who_goes_while_it_waits_for_its_turn_changes_nothing_any_more() {
    for (second, _) in CHANGES {
        let race = uncached();
        race.stop_next("cache:discard:submit");
        let first = race.write_direct(0, &[1; PAGE_SIZE]);
        race.stopped("cache:discard:submit").await;
        let gone = second(&race);
        waits(&gone, "the second change").await;
        let third = race.write_direct(0, &[3; PAGE_SIZE]);
        waits(&third, "the third change").await;
        gone.abort();
        race.go("cache:discard:submit");
        done(first).await;
        done(third).await;
        others_have_run().await;
        assert_eq!(race.bytes(0..1).await, [3]);
        assert_eq!(race.cache.changes.len(), 0);
        race.check_quiescent().await;
    }
}

/// Waiting for a block guard is waiting as well.
#[tokio::test(start_paused = true)]
async fn who_goes_while_it_waits_for_a_guard_changes_nothing_any_more() {
    for (second, _) in CHANGES {
        let race = uncached();
        let guard = race.cache.add_lock.add(0..PAGE).await;
        let gone = second(&race);
        waits(&gone, "a change of pages that someone adds to").await;
        let young = race.write_direct(0, &[3; PAGE_SIZE]);
        waits(&young, "a change behind it").await;
        gone.abort();
        drop(guard);
        done(young).await;
        others_have_run().await;
        assert_eq!(race.bytes(0..1).await, [3]);
        race.check_quiescent().await;
    }
}

/// One after the other in the order in which they came, all of their clients being there.
#[tokio::test(start_paused = true)]
async fn changes_of_one_page_are_served_in_the_order_of_arrival() {
    let race = uncached();
    race.stop_next("cache:discard:submit");
    let mut running = vec![race.write_direct(0, &[1; PAGE_SIZE])];
    race.stopped("cache:discard:submit").await;
    for byte in 2..20 {
        running.push(if byte % 3 == 0 {
            race.zero(0..PAGE)
        } else {
            race.write_direct(0, &[byte; PAGE_SIZE])
        });
        idle().await;
    }
    race.go("cache:discard:submit");
    for change in running {
        done(change).await;
    }
    assert_eq!(race.bytes(0..1).await, [19], "the last one to come");
    race.check_quiescent().await;
}

/// A change of several regions, the client of which goes away when the first region is changed: no other region is
/// changed.
#[tokio::test(start_paused = true)]
async fn a_change_that_is_dropped_comes_to_no_further_region() {
    let race = Race::sized(REGION_BYTES + 16 * PAGE, 7);
    let range = REGION_BYTES - PAGE..REGION_BYTES + PAGE;
    done(race.write(REGION_BYTES, &[5; PAGE_SIZE])).await;
    race.stop_next("cache:discard:submit");
    let zero = race.zero(range);
    race.stopped("cache:discard:submit").await;
    zero.abort();
    // Its whole range is its own until what is under way has ended.
    let young = race.write_direct(REGION_BYTES, &[6; PAGE_SIZE]);
    waits(&young, "a change of a range that an older one has").await;
    race.go("cache:discard:submit");
    done(young).await;
    others_have_run().await;
    let page = REGION_BYTES / PAGE;
    assert_eq!(race.bytes(page..page + 1).await, [6]);
    assert_eq!(race.cache.changes.len(), 0);
}
