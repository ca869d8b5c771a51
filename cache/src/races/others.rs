//! Failures of others: a request fails for what it covers and for nothing else.

use std::collections::BTreeMap;

use super::*;
use crate::options::CacheMode;
use crate::testing::Behaviour;

impl Race {
    /// Writes that touch `pages` fail.
    fn bad(&self, pages: Range<u64>) {
        self.backend.behave(Behaviour {
            bad: bytes_of(&pages),
            ..Behaviour::default()
        });
    }

    /// A FUA write of one page, as a session does it.
    async fn write_fua(&self, page: u64, byte: u8) -> Result<(), Errno> {
        done(self.write(page * PAGE, &[byte; PAGE_SIZE])).await;
        outcome(self.persist(bytes_of(&(page..page + 1)))).await
    }

    pub(super) fn written_back(&self) -> Running<()> {
        let (cache, context) = (
            Arc::clone(&self.cache),
            self.context(RequestKinds::WRITEBACK),
        );
        tokio::spawn(async move {
            let pass = cache.write_back(&context, 0..64, u64::MAX).await;
            pass.error.map_or(Ok(()), Err)
        })
    }
}

/// One client has a bad page, which its FLUSHes try again and again. Another client writes pages beside it with FUA.
#[tokio::test(start_paused = true)]
async fn a_page_that_cant_be_written_fails_nobody_elses_fua() {
    for mode in [CacheMode::Writeback, CacheMode::Writethrough] {
        let options = CacheOptions {
            cache_bytes: MIN_CACHE_BYTES,
            mode,
            ..CacheOptions::default()
        };
        let race = Race::with(64 * PAGE, 7, &options);
        race.bad(9..10);
        let bad = tokio::spawn({
            let (cache, context) = (Arc::clone(&race.cache), race.context(RequestKinds::WRITE));
            async move {
                loop {
                    let written = write(&cache, &context, 9 * PAGE, &[1; PAGE_SIZE]).await;
                    let flushed = cache.flush(&context).await;
                    assert_eq!(written.and(flushed), Err(Errno::EIO));
                    tokio::task::yield_now().await;
                }
            }
        });
        for round in 0..200 {
            // Its neighbours too: they go along in one run.
            for page in [8, 10, 40] {
                let written = race.write_fua(page, round).await;
                assert_eq!(written, Ok(()), "page {page}, round {round}, {mode:?}");
                let at = usize::try_from(page * PAGE).unwrap();
                assert_eq!(race.backend.durable()[at], round);
            }
        }
        bad.abort();
        race.backend.behave(Behaviour::default());
        race.check_quiescent().await;
    }
}

/// As above, at the worst moments: whenever the FUA looks whether anything has failed, a page of another client has.
#[tokio::test(start_paused = true)]
async fn a_fua_doesnt_care_how_often_others_fail_while_it_runs() {
    for direct in [false, true] {
        let race = Race::new(64, 7);
        race.bad(9..10);
        done(race.write(9 * PAGE, &[1; PAGE_SIZE])).await;
        let data = [3; PAGE_SIZE];
        if direct {
            done(race.write_direct(10 * PAGE, &data)).await;
        } else {
            done(race.write(10 * PAGE, &data)).await;
        }
        race.faults
            .set_points("class cache:flush:sync pause")
            .unwrap();
        let fua = race.persist(bytes_of(&(10..11)));
        for _ in 0..4 {
            idle().await;
            if fua.is_finished() {
                break;
            }
            race.stopped("cache:flush:sync").await;
            assert_eq!(outcome(race.written_back()).await, Err(Errno::EIO));
            race.go("cache:flush:sync");
        }
        assert_eq!(outcome(fua).await, Ok(()), "direct {direct}");
        race.backend.behave(Behaviour::default());
        race.check_quiescent().await;
    }
}

/// A direct read of a page that fails in another's run, together with a bad one.
#[tokio::test(start_paused = true)]
async fn a_direct_read_sees_what_failed_to_be_written_in_anothers_run() {
    let race = Race::new(64, 7);
    race.bad(9..10);
    done(race.write(9 * PAGE, &[1; 2 * PAGE_SIZE])).await;
    race.stop_next("cache:writeback:submit");
    let run = race.written_back();
    race.stopped("cache:writeback:submit").await;
    let (cache, context) = (Arc::clone(&race.cache), race.context(RequestKinds::READ));
    let read: Running<FrameRefs> =
        tokio::spawn(async move { cache.read_direct(&context, 10 * PAGE, PAGE_SIZE).await });
    waits(&read, "a direct read of a page in flight").await;
    race.go("cache:writeback:submit");
    assert_eq!(outcome(run).await, Err(Errno::EIO));
    let mut data = [0; PAGE_SIZE];
    done(read).await.copy_to(&mut data);
    assert_eq!(data, [1; PAGE_SIZE], "it read what the store had before");
    race.backend.behave(Behaviour::default());
    race.check_quiescent().await;
}

/// A store that forgets what it had when a sync fails, between the halves of a direct read.
#[tokio::test(start_paused = true)]
async fn a_direct_read_sees_that_anothers_sync_has_lost_what_it_reads() {
    let race = Race::new(64, 7);
    done(race.write(0, &[1; 16 * PAGE_SIZE])).await;
    assert_eq!(outcome(race.written_back()).await, Ok(()));
    race.backend.behave(Behaviour {
        halves_apart: Some(Duration::from_millis(10)),
        failures_per_mille: BTreeMap::from([("sync", 1000)]),
        forgets: true,
        ..Behaviour::default()
    });
    let (cache, context) = (Arc::clone(&race.cache), race.context(RequestKinds::READ));
    let read: Running<FrameRefs> =
        tokio::spawn(async move { cache.read_direct(&context, 0, 16 * PAGE_SIZE).await });
    waits(&read, "a direct read of a slow store").await;
    let context = race.context(RequestKinds::WRITEBACK);
    assert_eq!(race.cache.sync(&context).await, Err(Errno::EIO));
    race.backend.behave(Behaviour::default());
    let mut data = vec![0; 16 * PAGE_SIZE];
    done(read).await.copy_to(&mut data);
    assert!(
        data == [1; 16 * PAGE_SIZE],
        "it read what the store had before"
    );
    race.check_quiescent().await;
}

/// What a page's failure says of the page: nothing, in a run with others; all, when it stands alone.
#[tokio::test(start_paused = true)]
async fn a_page_is_not_blamed_for_its_run() {
    let race = Race::new(64, 7);
    race.bad(9..10);
    done(race.write(9 * PAGE, &[1; 2 * PAGE_SIZE])).await;
    let [bad, sound] =
        [9..10, 10..11].map(|pages| race.cache.writeback.failures.watch(pages, u64::MAX));
    let counts = || [bad.seen().counts(), sound.seen().counts()];
    assert_eq!(outcome(race.written_back()).await, Err(Errno::EIO));
    assert_eq!(counts(), [(0, 1), (0, 1)], "together");
    assert_eq!(outcome(race.written_back()).await, Err(Errno::EIO));
    assert_eq!(counts(), [(1, 1), (0, 1)], "alone");
    drop((bad, sound));
    race.backend.behave(Behaviour::default());
    race.check_quiescent().await;
}

/// Pages that a FUA covers and that others fail to write are written by themselves. The FUA fails only for its own
/// pages.
#[tokio::test(start_paused = true)]
async fn a_fua_writes_its_page_itself_when_it_failed_in_anothers_run() {
    for own in [false, true] {
        let race = Race::new(64, 7);
        race.bad(if own { 10..11 } else { 9..10 });
        done(race.write(9 * PAGE, &[1; 2 * PAGE_SIZE])).await;
        race.stop_next("cache:writeback:submit");
        let run = race.written_back();
        race.stopped("cache:writeback:submit").await;
        let fua = race.persist(bytes_of(&(10..11)));
        waits(&fua, "a FUA of a page that is in another's run").await;
        race.go("cache:writeback:submit");
        assert_eq!(outcome(run).await, Err(Errno::EIO));
        let expected = if own { Err(Errno::EIO) } else { Ok(()) };
        assert_eq!(outcome(fua).await, expected);
        race.backend.behave(Behaviour::default());
        race.check_quiescent().await;
    }
}

/// A younger page can't be written: one that goes along with what a FLUSH covers, or one by itself.
#[tokio::test(start_paused = true)]
async fn a_flush_doesnt_fail_for_a_younger_page() {
    for younger in [9, 20] {
        let race = Race::new(64, 7);
        race.bad(younger..younger + 1);
        done(race.write(8 * PAGE, &[1; PAGE_SIZE])).await;
        race.stop_next("cache:flush:snapshot");
        let flush = race.flush();
        race.stopped("cache:flush:snapshot").await;
        done(race.write(younger * PAGE, &[2; PAGE_SIZE])).await;
        race.go("cache:flush:snapshot");
        done(flush).await;
        assert_eq!(race.backend.durable()[8 * PAGE_SIZE], 1);
        assert_eq!(
            outcome(race.flush()).await,
            Err(Errno::EIO),
            "now it is covered"
        );
        race.backend.behave(Behaviour::default());
        race.check_quiescent().await;
    }
}

/// A FLUSH doesn't fail for a younger page that fails in another request's run while the FLUSH waits for its own pages.
#[tokio::test(start_paused = true)]
async fn a_flush_doesnt_fail_for_younger_pages_that_others_write_back() {
    let race = Race::new(64, 7);
    race.bad(9..10);
    done(race.write(0, &[1; PAGE_SIZE])).await;
    race.stop_next("cache:flush:sync");
    let flush = race.flush();
    race.stopped("cache:flush:sync").await;
    for _ in 0..4 {
        done(race.write(9 * PAGE, &[2; PAGE_SIZE])).await;
        assert_eq!(outcome(race.written_back()).await, Err(Errno::EIO));
    }
    race.go("cache:flush:sync");
    done(flush).await;
    race.backend.behave(Behaviour::default());
    race.check_quiescent().await;
}

/// Bad sectors anywhere in a run: the FLUSH after the one that has reported them leaves nothing but these dirty.
#[tokio::test(start_paused = true)]
async fn bad_pages_keep_no_neighbour_from_becoming_durable() {
    for bad in [0..1, 31..32, 13..14, 7..9, 0..32, 4..28] {
        let race = Race::new(64, 7);
        race.bad(bad.clone());
        done(race.write(0, &[1; 32 * PAGE_SIZE])).await;
        assert_eq!(outcome(race.flush()).await, Err(Errno::EIO));
        assert_eq!(outcome(race.flush()).await, Err(Errno::EIO));
        // The sync that a failed FLUSH doesn't come to.
        let context = race.context(RequestKinds::WRITEBACK);
        race.cache.sync(&context).await.unwrap();
        let stats = race.cache.stats();
        assert_eq!(stats.dirty_pages, bad.end - bad.start, "{bad:?}");
        for page in 0..32 {
            let at = usize::try_from(page * PAGE).unwrap();
            let expected = if bad.contains(&page) { 7 } else { 1 };
            assert_eq!(
                race.backend.durable()[at],
                expected,
                "page {page}, bad {bad:?}"
            );
        }
        race.backend.behave(Behaviour::default());
        race.check_quiescent().await;
    }
}

/// What is written while a run is halved is not lost, and the blocker decides about what it holds meanwhile.
#[tokio::test(start_paused = true)]
async fn pages_change_while_their_run_is_halved() {
    let race = Race::new(64, 7);
    race.bad(5..6);
    done(race.write(0, &[1; 8 * PAGE_SIZE])).await;
    assert_eq!(outcome(race.flush()).await, Err(Errno::EIO));
    race.backend.behave(Behaviour {
        bad: bytes_of(&(5..6)),
        delay_max: Some(Duration::from_millis(4)),
        ..Behaviour::default()
    });
    let flush = race.flush();
    idle().await;
    done(race.write(PAGE, &[2; PAGE_SIZE])).await;
    done(race.zero(3 * PAGE..4 * PAGE)).await;
    done(race.zero(5 * PAGE..6 * PAGE)).await;
    _ = outcome(flush).await;
    race.backend.behave(Behaviour::default());
    assert_eq!(race.bytes(0..8).await, [1, 2, 1, 0, 1, 0, 1, 1]);
    race.check_quiescent().await;
    assert_eq!(race.backend.durable()[PAGE_SIZE], 2);
}

/// A store that takes long to fail is not asked for every page of a run.
#[tokio::test(start_paused = true)]
async fn halving_ends_on_a_store_that_takes_long_to_fail() {
    let race = Race::new(512, 7);
    race.bad(0..512);
    done(race.write(0, &[1; 56 * PAGE_SIZE])).await;
    assert_eq!(outcome(race.flush()).await, Err(Errno::EIO));
    race.backend.behave(Behaviour {
        bad: bytes_of(&(0..512)),
        delay_max: Some(Duration::from_secs(2)),
        ..Behaviour::default()
    });
    let begun = tokio::time::Instant::now();
    assert_eq!(outcome(race.flush()).await, Err(Errno::EIO));
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(20), "{took:?}");
    race.backend.behave(Behaviour::default());
    race.check_quiescent().await;
}

/// With such a store there is no time to halve a run, but a sound page among bad ones is not left dirty for ever.
#[tokio::test(start_paused = true)]
async fn a_sound_page_among_bad_ones_is_written_though_the_store_takes_long_to_fail() {
    let race = Race::new(64, 7);
    race.bad(0..7);
    done(race.write(0, &[1; 8 * PAGE_SIZE])).await;
    race.backend.behave(Behaviour {
        bad: bytes_of(&(0..7)),
        delay_max: Some(Duration::from_secs(600)),
        ..Behaviour::default()
    });
    for _ in 0..50 {
        assert_eq!(race.written_back().await.unwrap(), Err(Errno::EIO));
    }
    assert_eq!(race.backend.volatile()[7 * PAGE_SIZE], 1);
    race.backend.behave(Behaviour::default());
    race.check_quiescent().await;
}
