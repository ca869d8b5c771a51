//! What is lost when a sync fails, and what isn't.

use super::*;
use crate::options::CacheMode;
use crate::page_cache::CloseError;
use crate::testing::Behaviour;
use std::collections::BTreeMap;

impl Race {
    /// Weir's own sync, which fails.
    async fn fail_own_sync(&self) {
        self.backend.behave(Behaviour {
            failures_per_mille: BTreeMap::from([("sync", 1000)]),
            ..Behaviour::default()
        });
        let context = self.context(RequestKinds::WRITEBACK);
        assert_eq!(self.cache.sync(&context).await, Err(Errno::EIO));
        self.backend.behave(Behaviour::default());
    }

    /// The errors that are reported to a connection that begins now.
    fn told(&self) -> Option<Errno> {
        let mut cursor = self.cache.lost_data().sample();
        self.cache.lost_data().check_and_advance(&mut cursor)
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_sync_loses_what_no_page_can_repeat() {
    type Change = fn(&Race) -> Running<()>;
    let changes: [(&str, Change, bool); 4] = [
        (
            "a cached write",
            |race| race.write(0, &[1; PAGE_SIZE]),
            false,
        ),
        ("a trim", |race| race.trim(0..PAGE), false),
        ("a zero", |race| race.zero(0..PAGE), true),
        (
            "a direct write",
            |race| race.write_direct(0, &[1; PAGE_SIZE]),
            true,
        ),
    ];
    for (what, change, lost) in changes {
        let race = Race::new(64, 7);
        done(race.trim(32 * PAGE..33 * PAGE)).await;
        done(change(&race)).await;
        let context = race.context(RequestKinds::WRITEBACK);
        _ = race.cache.write_back(&context, 0..64, u64::MAX).await;
        race.fail_own_sync().await;
        // Once: the second sync has nothing more to lose.
        race.fail_own_sync().await;
        assert_eq!(race.cache.stats().losses, u64::from(lost), "{what}");
        done(race.flush()).await;
        assert_eq!(race.told(), lost.then_some(Errno::EIO), "{what}");
        assert_eq!(race.told(), None, "{what} was told twice");
        race.check_quiescent().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_sync_has_covered_is_not_lost_by_a_later_one() {
    let race = Race::new(64, 7);
    done(race.zero(0..PAGE)).await;
    done(race.flush()).await;
    done(race.trim(0..PAGE)).await;
    race.fail_own_sync().await;
    assert_eq!(race.told(), None);
}

#[tokio::test(start_paused = true)]
async fn a_change_in_flight_when_a_sync_fails_fails_too() {
    for direct in [false, true] {
        let race = Race::new(64, 7);
        done(race.trim(32 * PAGE..33 * PAGE)).await;
        done(race.write(0, &[9; PAGE_SIZE])).await;
        race.stop_next("cache:discard:complete");
        let running = if direct {
            race.write_direct(0, &[8; PAGE_SIZE])
        } else {
            race.zero(0..PAGE)
        };
        race.stopped("cache:discard:complete").await;
        race.fail_own_sync().await;
        race.go("cache:discard:complete");
        assert_eq!(outcome(running).await, Err(Errno::EIO), "it may be undone");
        assert_eq!(race.told(), None, "nothing was acknowledged");
        assert_eq!(race.bytes(0..1).await, [9]);
        race.check_quiescent().await;
        assert_eq!(race.backend.durable()[0], 9);
    }
}

#[tokio::test(start_paused = true)]
async fn who_stops_the_server_is_told_what_nobody_else_was() {
    for told in [false, true] {
        let race = Race::new(64, 7);
        done(race.zero(0..PAGE)).await;
        race.fail_own_sync().await;
        if told {
            assert_eq!(race.told(), Some(Errno::EIO));
        }
        let closed = race.cache.close(Duration::from_secs(60)).await;
        assert_eq!(
            matches!(closed, Err(CloseError::Lost(Errno::EIO))),
            !told,
            "{closed:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_power_cut_is_no_loss_to_be_told() {
    let race = Race::new(64, 7);
    done(race.zero(0..PAGE)).await;
    race.fail_own_sync().await;
    done(race.zero(PAGE..2 * PAGE)).await;
    race.cache.lose_power(async |_| ()).await;
    race.fail_own_sync().await;
    assert_eq!(race.told(), None);
}

fn writethrough() -> Race {
    let options = CacheOptions {
        cache_bytes: MIN_CACHE_BYTES,
        mode: CacheMode::Writethrough,
        ..CacheOptions::default()
    };
    Race::with(64 * PAGE, 7, &options)
}

/// What changes the first page behind the cache.
const CHANGES: [fn(&Race) -> Running<()>; 2] = [
    |race| race.zero(0..PAGE),
    |race| race.write_direct(0, &[8; PAGE_SIZE]),
];

/// What writethrough acknowledges is durable: a request that may have lost something is still waiting for its answer.
#[tokio::test(start_paused = true)]
async fn in_writethrough_a_loss_is_its_own_requests_error_and_nobody_elses() {
    for change in CHANGES {
        // The request's own sync fails, or another's that comes between the change and its own.
        for own in [true, false] {
            let race = writethrough();
            race.stop_next("cache:flush:snapshot");
            let running = change(&race);
            race.stopped("cache:flush:snapshot").await;
            if own {
                race.backend.behave(Behaviour {
                    failures_per_mille: BTreeMap::from([("sync", 1000)]),
                    ..Behaviour::default()
                });
            } else {
                race.fail_own_sync().await;
            }
            race.go("cache:flush:snapshot");
            assert_eq!(outcome(running).await, Err(Errno::EIO), "own {own}");
            race.backend.behave(Behaviour::default());
            assert_eq!(race.told(), None, "own {own}");
            assert_eq!(race.cache.stats().losses, 0);
            done(change(&race)).await;
            race.check_quiescent().await;
            race.cache.close(Duration::from_secs(60)).await.unwrap();
        }
    }
}

/// The zero or direct write has replaced its page, and is undone by another's sync: neither is in the store then.
#[tokio::test(start_paused = true)]
async fn in_writethrough_a_write_whose_page_was_dropped_shares_the_fate_of_what_dropped_it() {
    for change in CHANGES {
        for lost in [true, false] {
            let race = writethrough();
            race.stop_next("cache:flush:snapshot");
            let write = race.write(0, &[9; PAGE_SIZE]);
            race.stopped("cache:flush:snapshot").await;
            race.stop_next("cache:flush:sync");
            let replacing = change(&race);
            race.stopped("cache:flush:sync").await;
            if lost {
                race.fail_own_sync().await;
            }
            race.go("cache:flush:sync");
            let expected = if lost { Err(Errno::EIO) } else { Ok(()) };
            assert_eq!(outcome(replacing).await, expected);
            if !lost {
                // What a sync has covered is not lost by a later one.
                race.stop_next("cache:flush:sync");
                let trim = race.trim(32 * PAGE..33 * PAGE);
                race.stopped("cache:flush:sync").await;
                race.fail_own_sync().await;
                race.go("cache:flush:sync");
                done(trim).await;
            }
            race.go("cache:flush:snapshot");
            assert_eq!(outcome(write).await, expected);
            assert_eq!(
                race.told(),
                None,
                "who has lost something is told by its answer"
            );
            done(race.write(0, &[9; PAGE_SIZE])).await;
            race.check_quiescent().await;
            assert_eq!(race.backend.durable()[0], 9);
        }
    }
}

/// The same, and the write is of another page.
#[tokio::test(start_paused = true)]
async fn in_writethrough_a_write_beside_a_lost_change_does_not_share_its_fate() {
    for change in CHANGES {
        let race = writethrough();
        race.stop_next("cache:flush:sync");
        let beside = race.write(PAGE, &[9; PAGE_SIZE]);
        race.stopped("cache:flush:sync").await;
        race.stop_next("cache:flush:snapshot");
        let dropped = race.write(0, &[9; PAGE_SIZE]);
        race.stopped("cache:flush:snapshot").await;
        race.backend.behave(Behaviour {
            failures_per_mille: BTreeMap::from([("sync", 1000)]),
            ..Behaviour::default()
        });
        assert_eq!(outcome(change(&race)).await, Err(Errno::EIO));
        race.backend.behave(Behaviour::default());
        race.go("cache:flush:sync");
        race.go("cache:flush:snapshot");
        assert_eq!(outcome(dropped).await, Err(Errno::EIO));
        done(beside).await;
        assert_eq!(race.backend.durable()[PAGE_SIZE], 9);
        race.check_quiescent().await;
    }
}

#[tokio::test(start_paused = true)]
async fn in_writethrough_a_shift_can_still_be_lost() {
    let race = writethrough();
    race.cache.insert_range(0, PAGE).await.unwrap();
    race.fail_own_sync().await;
    assert_eq!(race.told(), Some(Errno::EIO));
}

#[tokio::test(start_paused = true)]
async fn a_final_flush_that_fails_says_what_it_is_about() {
    let failing = || Behaviour {
        failures_per_mille: BTreeMap::from([("sync", 1000)]),
        ..Behaviour::default()
    };
    for (direct, wanted) in [
        (false, "4096 bytes are not durable"),
        (
            true,
            "what the store has taken since its last sync is not durable",
        ),
    ] {
        let race = Race::new(64, 7);
        assert!(race.cache.is_synced());
        match direct {
            true => done(race.write_direct(0, &[1; PAGE_SIZE])).await,
            false => done(race.write(0, &[1; PAGE_SIZE])).await,
        }
        race.backend.behave(failing());
        let closed = race.cache.close(Duration::from_secs(60)).await;
        let told = closed.expect_err("it fails").to_string();
        assert!(told.ends_with(wanted), "{told}");
        assert!(!race.cache.is_synced());
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_refuses_is_known_until_it_takes_what_waits() {
    let race = Race::new(64, 7);
    for operation in ["write", "sync"] {
        assert_eq!(race.cache.trouble(), None);
        race.backend.behave(Behaviour {
            failures_per_mille: BTreeMap::from([(operation, 1000)]),
            ..Behaviour::default()
        });
        done(race.write(0, &[1; PAGE_SIZE])).await;
        let context = race.context(RequestKinds::FLUSH);
        assert_eq!(race.cache.flush(&context).await, Err(Errno::EIO));
        let trouble = race.cache.trouble().expect("it fails");
        assert_eq!(
            (trouble.errno, trouble.syncs),
            (Errno::EIO, operation == "sync")
        );
        assert!(trouble.failures > 0);
        race.backend.behave(Behaviour::default());
        done(race.flush()).await;
    }
    assert_eq!(race.cache.trouble(), None);
    race.check_quiescent().await;
}
