//! Beside a change that the store never completes: a request that doesn't overlap it goes on, and one that does waits.

use super::*;
use crate::add_lock::REGION_BYTES;
use crate::options::CacheMode;

const MIB: u64 = 1 << 20;
/// The pages that the store hangs on, in the middle of a region.
const STALLED: Range<u64> = 4 * MIB..4 * MIB + 4 * PAGE;
/// Where others work: before and behind these pages in their region.
const BESIDE: [u64; 4] = [
    STALLED.start - MIB,
    STALLED.start - PAGE,
    STALLED.end,
    STALLED.end + MIB,
];

/// A change that hangs in the store until [`Race::go`] at this point.
const HANGS: &str = "cache:discard:submit";

type Change = fn(&Race, Range<u64>) -> Running<()>;

const CHANGES: [Change; 3] = [
    |race, range| {
        let length = usize::try_from(range.end - range.start).unwrap();
        race.write_direct(range.start, &vec![8; length])
    },
    |race, range| race.zero(range),
    |race, range| race.trim(range),
];

async fn stalled(change: Change) -> (Race, Running<()>) {
    let race = Race::new(8 * MIB / PAGE, 7);
    assert!(race.cache.size() < REGION_BYTES, "all in one region");
    race.stop_next(HANGS);
    let running = change(&race, STALLED);
    race.stopped(HANGS).await;
    (race, running)
}

async fn end(race: Race, running: Running<()>) {
    waits(&running, "a change that hangs").await;
    race.go(HANGS);
    done(running).await;
    race.check_quiescent().await;
}

#[tokio::test(start_paused = true)]
async fn a_cold_read_goes_on_beside_a_stalled_change() {
    for change in CHANGES {
        let (race, running) = stalled(change).await;
        for at in BESIDE {
            assert_eq!(race.bytes(at / PAGE..at / PAGE + 1).await, [7]);
        }
        for overlapping in [
            STALLED.start..STALLED.start + 1,
            STALLED.end - 1..STALLED.end + PAGE,
        ] {
            let read = race.read(overlapping);
            waits(&read, "a read of what is being changed").await;
            read.abort();
        }
        end(race, running).await;
    }
}

/// Small ones from the session's buffer, payloads that were received in place, and those that have an edge to read.
#[tokio::test(start_paused = true)]
async fn a_cached_write_goes_on_beside_a_stalled_change() {
    for change in CHANGES {
        let (race, running) = stalled(change).await;
        let context = race.context(RequestKinds::WRITE);
        for at in BESIDE {
            assert!(race.cache.try_write(&context, at, &[1; PAGE_SIZE]));
            let mut payload = race.cache.payload(at, PAGE_SIZE).await;
            payload.copy_from(&[2; PAGE_SIZE]);
            assert!(race.cache.try_install(&context, payload).is_ok());
            done(race.write(at, &[3; PAGE_SIZE])).await;
        }
        // Two cold edges.
        done(race.write(STALLED.end + 2 * MIB + 100, &[4; PAGE_SIZE])).await;
        assert!(
            !race
                .cache
                .try_write(&context, STALLED.start, &[1; PAGE_SIZE])
        );
        let mut payload = race.cache.payload(STALLED.end - PAGE, PAGE_SIZE).await;
        payload.copy_from(&[2; PAGE_SIZE]);
        assert!(race.cache.try_install(&context, payload).is_err());
        let write = race.write(STALLED.end - 1, &[5; 2]);
        waits(&write, "a write to what is being changed").await;
        race.go(HANGS);
        done(running).await;
        done(write).await;
        for at in [BESIDE[0], BESIDE[1], BESIDE[3]] {
            assert_eq!(race.bytes(at / PAGE..at / PAGE + 1).await, [3]);
        }
        race.check_quiescent().await;
    }
}

#[tokio::test(start_paused = true)]
async fn another_change_goes_on_beside_a_stalled_one() {
    for change in CHANGES {
        for other in CHANGES {
            let (race, running) = stalled(change).await;
            for at in BESIDE {
                done(other(&race, at..at + PAGE)).await;
            }
            let over = other(&race, STALLED.end - PAGE..STALLED.end + PAGE);
            waits(&over, "a change of what is being changed").await;
            race.go(HANGS);
            done(running).await;
            done(over).await;
            race.check_quiescent().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn advice_and_readahead_go_on_beside_a_stalled_change() {
    for change in CHANGES {
        let (race, running) = stalled(change).await;
        let context = race.context(RequestKinds::CACHE);
        race.cache.prefetch(&context, MIB..MIB + 8 * PAGE).await;
        assert!(race.cached(MIB..MIB + 8 * PAGE).is_some());
        // Two reads in a row make a stream.
        done(race.read(2 * MIB..2 * MIB + PAGE)).await;
        done(race.read(2 * MIB + PAGE..2 * MIB + 2 * PAGE)).await;
        idle().await;
        assert!(
            race.cached(2 * MIB + 2 * PAGE..2 * MIB + 8 * PAGE)
                .is_some()
        );
        // Advice is dropped rather than waited for.
        let advice = race.cache.prefetch(&context, STALLED);
        let taken = tokio::time::timeout(settle_time(), advice).await;
        taken.expect("advice waited for a change");
        assert_eq!(race.cached(STALLED.start..STALLED.start + PAGE), None);
        end(race, running).await;
    }
}

/// The other way round: a fill that hangs keeps only changes that overlap it from the store.
#[tokio::test(start_paused = true)]
async fn a_change_goes_on_beside_a_stalled_fill() {
    for change in CHANGES {
        let race = Race::new(8 * MIB / PAGE, 7);
        race.stop_next("cache:fill:submit");
        let read = race.read(STALLED);
        race.stopped("cache:fill:submit").await;
        for at in BESIDE {
            done(change(&race, at..at + PAGE)).await;
        }
        let over = change(&race, STALLED.end - PAGE..STALLED.end + PAGE);
        waits(&over, "a change of what is being read").await;
        // No request overtakes one that waits, and no request waits for one that waits elsewhere.
        let behind = race.read(STALLED.end..STALLED.end + PAGE);
        waits(&behind, "a read of what is to be changed").await;
        assert_eq!(race.bytes(0..1).await, [7]);
        race.go("cache:fill:submit");
        assert_eq!(uniform(&done(read).await), Some(7));
        done(over).await;
        done(behind).await;
        race.check_quiescent().await;
    }
}

/// Without a cache every write is direct, and every edge is a cached write between direct ones.
#[tokio::test(start_paused = true)]
async fn edges_go_on_beside_a_stalled_change_without_a_cache() {
    let options = CacheOptions {
        cache_bytes: MIN_CACHE_BYTES,
        mode: CacheMode::None,
        ..CacheOptions::default()
    };
    let race = Race::with(8 * MIB, 7, &options);
    race.stop_next(HANGS);
    let running = race.write_direct(STALLED.start, &[8; PAGE_SIZE]);
    race.stopped(HANGS).await;
    done(race.write_direct(STALLED.start + MIB + 100, &[9; 2 * PAGE_SIZE])).await;
    // Its head is in a page that no other request changes, and its tail in the page that hangs.
    let over = race.write_direct(STALLED.start - PAGE + 100, &[9; PAGE_SIZE]);
    waits(&over, "the edge in the page that is being changed").await;
    race.go(HANGS);
    done(running).await;
    done(over).await;
    race.check_quiescent().await;
}

/// With a quota, a write that has failed has its range counted again, which takes block.
#[tokio::test(start_paused = true)]
async fn counting_what_a_failed_write_has_holds_nobody_up_elsewhere() {
    let options = CacheOptions {
        cache_bytes: MIN_CACHE_BYTES,
        quota: Some(16 * MIB),
        ..CacheOptions::default()
    };
    let race = Race::with(8 * MIB, 7, &options);
    race.cache.count_space().await.unwrap();
    race.stop_next(HANGS);
    let running = race.write_direct(STALLED.start, &[8; PAGE_SIZE]);
    race.stopped(HANGS).await;
    let fails = "class cache:write:merge oneshot error EIO";
    race.faults.set_points(fails).unwrap();
    let failed = outcome(race.write(MIB, &[1; PAGE_SIZE])).await;
    assert_eq!(failed, Err(Errno::EIO));
    idle().await;
    assert_eq!(race.bytes(0..1).await, [7]);
    done(race.write(2 * MIB, &[3; PAGE_SIZE])).await;
    // It is counted when the requests that take space have ended.
    let counted = race.read(MIB..MIB + PAGE);
    waits(&counted, "a read of what is to be counted").await;
    race.go(HANGS);
    done(running).await;
    done(counted).await;
    race.check_quiescent().await;
}
