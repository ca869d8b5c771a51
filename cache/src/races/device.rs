//! Changes of size, direct writes, and the end of the device: rows 7 to 10, 17, 18 and 23.

use super::*;
use crate::frame::FrameBuf;
use crate::testing::{Behaviour, interleave};
use std::collections::BTreeMap;

impl Race {
    pub(super) fn resize(&self, size: u64) -> Running<()> {
        let cache = Arc::clone(&self.cache);
        tokio::spawn(async move { cache.resize(size).await })
    }

    fn read_direct(&self, range: Range<u64>) -> Running<Vec<u8>> {
        let (cache, context) = (Arc::clone(&self.cache), self.context(RequestKinds::READ));
        tokio::spawn(async move {
            let length = usize::try_from(range.end - range.start).unwrap();
            let pages = cache.read_direct(&context, range.start, length).await?;
            let mut bytes = vec![0; length];
            pages.copy_to(&mut bytes);
            Ok(bytes)
        })
    }

    pub(super) fn write_direct(&self, offset: u64, data: &[u8]) -> Running<()> {
        let (cache, context) = (Arc::clone(&self.cache), self.context(RequestKinds::WRITE));
        let data = data.to_vec();
        tokio::spawn(async move {
            let mut payload = cache.payload(offset, data.len()).await;
            assert_eq!(payload.copy_from(&data), data.len());
            cache.write_direct(&context, payload).await
        })
    }
}

#[tokio::test(start_paused = true)]
async fn race_07_shrink_while_a_fill_past_the_end_is_under_way() {
    let race = Race::new(64, 7);
    race.stop_next("cache:fill:complete");
    let reader = race.read(40 * PAGE..41 * PAGE);
    race.stopped("cache:fill:complete").await;
    let shrink = race.resize(32 * PAGE);
    waits(&shrink, "a shrink over a fill").await;
    race.go("cache:fill:complete");
    done(reader).await;
    done(shrink).await;
    assert_eq!(
        outcome(race.read(40 * PAGE..41 * PAGE)).await,
        Err(Errno::EINVAL)
    );
    done(race.resize(64 * PAGE)).await;
    assert_eq!(race.bytes(31..42).await, [7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    race.check_quiescent().await;
}

/// The store has its new shape, and the cache doesn't know it yet.
#[tokio::test(start_paused = true)]
async fn race_07_a_direct_read_meets_a_store_that_changes_its_shape() {
    for shift in [false, true] {
        let race = Race::new(64, 7);
        done(race.write(40 * PAGE, &[9; PAGE_SIZE])).await;
        done(race.flush()).await;
        race.backend.behave(Behaviour {
            delay_max: Some(Duration::from_secs(600)),
            ..Behaviour::default()
        });
        let change = if shift {
            let cache = Arc::clone(&race.cache);
            tokio::spawn(async move { cache.collapse_range(0, PAGE).await })
        } else {
            race.resize(32 * PAGE)
        };
        waits(&change, "a change whose store takes its time").await;
        assert_ne!(race.backend.volatile().len(), 64 * PAGE_SIZE);
        race.backend.behave(Behaviour::default());
        let reader = race.read_direct(40 * PAGE..41 * PAGE);
        waits(&reader, "a direct read of a store between two shapes").await;
        done(change).await;
        let read = outcome(reader).await.map(|bytes| uniform(&bytes));
        // The page above has moved here, or there is nothing here any more.
        assert_eq!(
            read,
            if shift {
                Ok(Some(7))
            } else {
                Err(Errno::EINVAL)
            }
        );
        race.check_quiescent().await;
    }
}

#[tokio::test(start_paused = true)]
async fn race_07_a_shrink_forgets_the_end_of_the_page_that_it_cuts() {
    for dirty in [false, true] {
        let race = Race::new(64, 7);
        if dirty {
            done(race.write(8 * PAGE, &[9; 4 * PAGE_SIZE])).await;
        } else {
            done(race.read(8 * PAGE..12 * PAGE)).await;
        }
        let end = 8 * PAGE + 100;
        done(race.resize(end)).await;
        done(race.resize(64 * PAGE)).await;
        let page = done(race.read(8 * PAGE..10 * PAGE)).await;
        assert_eq!(page[..100], [if dirty { 9 } else { 7 }; 100]);
        assert_eq!(uniform(&page[100..]), Some(0), "old data showed again");
        race.check_quiescent().await;
    }
}

/// Whenever the resize lets go of a slot, writeback, which takes no guard, does all that it can; so does reclaim.
#[tokio::test(start_paused = true)]
async fn race_07_the_page_that_a_shrink_cuts_is_written_and_evicted_as_it_is_put_back() {
    let race = Race::new(64, 7);
    done(race.write(8 * PAGE, &[9; PAGE_SIZE])).await;
    let (cache, context) = (Arc::clone(&race.cache), race.context(RequestKinds::FLUSH));
    let evicted = std::rc::Rc::new(std::cell::Cell::new(0));
    let count = std::rc::Rc::clone(&evicted);
    interleave::set("page:unlocked", move || {
        let before = cache.stats().evictions;
        let (cache, context) = (Arc::clone(&cache), context.clone());
        // A step can't wait, but a thread of its own can.
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            runtime.unwrap().block_on(async {
                _ = cache.write_back(&context, 8..9, u64::MAX).await;
                cache.sync(&context).await.unwrap();
                cache.evict(usize::MAX);
                cache.evict(usize::MAX);
            });
            cache.stats().evictions
        });
        count.set(count.get() + thread.join().unwrap() - before);
    });
    done(race.resize(8 * PAGE + 100)).await;
    interleave::clear();
    assert_eq!(evicted.get(), 1, "the page that is cut was not evicted");
    done(race.resize(64 * PAGE)).await;
    let page = done(race.read(8 * PAGE..10 * PAGE)).await;
    assert_eq!(page[..100], [9; 100]);
    assert_eq!(uniform(&page[100..]), Some(0), "old data showed again");
    race.check_quiescent().await;
}

#[tokio::test(start_paused = true)]
async fn race_08_grow_while_the_tail_is_read_ahead() {
    let race = Race::sized(8 * PAGE + 100, 7);
    done(race.read(0..PAGE)).await;
    race.stop_next("cache:fill:complete within readahead");
    done(race.read(PAGE..2 * PAGE)).await;
    race.stopped("cache:fill:complete").await;
    let grow = race.resize(16 * PAGE);
    waits(&grow, "a grow over a fill of the tail").await;
    race.go("cache:fill:complete");
    done(grow).await;
    // Another party writes to the backend's new part: only what is not cached shows it.
    assert!(
        race.cached(8 * PAGE..9 * PAGE).is_none(),
        "a zero tail is cached"
    );
    done(race.write(8 * PAGE + 200, &[9; 100])).await;
    let page = done(race.read(8 * PAGE..9 * PAGE)).await;
    assert_eq!((page[99], page[100], page[200], page[300]), (7, 0, 9, 0));
    race.check_quiescent().await;
}

#[tokio::test(start_paused = true)]
async fn race_08_grow_while_a_write_of_the_short_tail_waits() {
    let race = Race::sized(8 * PAGE + 100, 7);
    race.stop_next("cache:write:begin");
    // Prepared for a device that ends with it: the rest of its page is to be zero.
    let late = race.write(8 * PAGE, &[1; 100]);
    race.stopped("cache:write:begin").await;
    done(race.resize(16 * PAGE)).await;
    done(race.write(8 * PAGE + 100, &[2; 100])).await;
    race.go("cache:write:begin");
    done(late).await;
    let page = done(race.read(8 * PAGE..9 * PAGE)).await;
    assert_eq!((page[0], page[99]), (1, 1));
    assert_eq!(page[100..200], [2; 100], "acknowledged data was zeroed");
    race.check_quiescent().await;
}

#[tokio::test(start_paused = true)]
async fn race_08_grow_while_a_blocker_of_the_short_tail_waits() {
    for direct in [false, true] {
        let race = Race::sized(8 * PAGE + 100, 7);
        let hold = race.cache.add_lock.add(0..PAGE).await;
        let grow = race.resize(16 * PAGE);
        idle().await;
        // Behind the grow, in this order: data past the old end, and what was cut for a device that ends there.
        let writer = race.write(8 * PAGE + 100, &[2; 100]);
        idle().await;
        let blocker = if direct {
            race.write_direct(8 * PAGE, &[1; 100])
        } else {
            race.zero(8 * PAGE..8 * PAGE + 100)
        };
        idle().await;
        drop(hold);
        done(grow).await;
        done(blocker).await;
        done(writer).await;
        let page = done(race.read(8 * PAGE..9 * PAGE)).await;
        assert_eq!(page[100..200], [2; 100], "acknowledged data is gone");
        assert_eq!(uniform(&page[..100]), Some(u8::from(direct)));
        race.check_quiescent().await;
    }
}

#[tokio::test(start_paused = true)]
async fn race_09_shrink_while_writeback_past_the_new_end_is_in_flight() {
    for point in ["cache:writeback:submit", "cache:writeback:complete"] {
        let race = Race::new(64, 7);
        done(race.write(30 * PAGE, &[9; 4 * PAGE_SIZE])).await;
        race.stop_next(point);
        let flush = race.flush();
        race.stopped(point).await;
        let shrink = race.resize(32 * PAGE);
        waits(&shrink, "a shrink over writeback").await;
        race.go(point);
        done(shrink).await;
        done(flush).await;
        assert_eq!(race.backend.volatile().len(), 32 * PAGE_SIZE);
        done(race.resize(64 * PAGE)).await;
        assert_eq!(race.bytes(29..35).await, [7, 9, 9, 0, 0, 0]);
        race.check_quiescent().await;
    }
}

#[tokio::test(start_paused = true)]
async fn race_09_shrink_while_a_direct_write_past_the_new_end_is_in_flight() {
    let race = Race::new(64, 7);
    race.stop_next("cache:discard:submit");
    let writer = race.write_direct(40 * PAGE, &[9; 2 * PAGE_SIZE]);
    race.stopped("cache:discard:submit").await;
    let shrink = race.resize(32 * PAGE);
    waits(&shrink, "a shrink over a direct write").await;
    let late = race.write_direct(50 * PAGE, &[9; 2 * PAGE_SIZE]);
    idle().await;
    race.go("cache:discard:submit");
    done(writer).await;
    done(shrink).await;
    assert_eq!(outcome(late).await, Err(Errno::ENOSPC));
    assert_eq!(race.backend.volatile().len(), 32 * PAGE_SIZE);
    race.check_quiescent().await;
}

#[tokio::test(start_paused = true)]
async fn a_shrink_needs_no_memory_that_is_not_there() {
    let race = Race::new(512, 7);
    done(race.write(8 * PAGE, &[9; PAGE_SIZE])).await;
    let free = usize::try_from(race.cache.stats().free_frames).unwrap();
    let mut hoard = FrameBuf::new(Arc::clone(race.cache.pool()));
    assert!(hoard.grow_to(free));
    let shrink = race.resize(8 * PAGE + 100);
    idle().await;
    let reader = race.read(0..PAGE);
    waits(&reader, "a read without memory").await;
    drop(hoard);
    done(shrink).await;
    done(reader).await;
    race.check_quiescent().await;
}

#[tokio::test(start_paused = true)]
async fn race_10_a_fill_waits_for_a_direct_write() {
    for (point, gone) in [
        ("cache:discard:submit", false),
        ("cache:discard:submit", true),
        ("cache:discard:complete", true),
    ] {
        let race = Race::new(64, 7);
        race.stop_next(point);
        let writer = race.write_direct(0, &[9; 2 * PAGE_SIZE]);
        race.stopped(point).await;
        if gone {
            // Its client has gone: the write runs on, and keeps its guards.
            writer.abort();
            idle().await;
        }
        let reader = race.read(0..2 * PAGE);
        waits(&reader, "a fill of what is being written directly").await;
        race.go(point);
        assert_eq!(uniform(&done(reader).await), Some(9), "old data was cached");
        if !gone {
            done(writer).await;
        }
        assert_eq!(race.bytes(0..3).await, [9, 9, 7]);
        race.check_quiescent().await;
    }
}

#[tokio::test(start_paused = true)]
async fn race_17_a_flush_waits_for_what_a_direct_write_holds() {
    let race = Race::new(64, 7);
    done(race.write(0, &[9; PAGE_SIZE])).await;
    race.stop_next("cache:discard:submit");
    let writer = race.write_direct(0, &[8; PAGE_SIZE]);
    race.stopped("cache:discard:submit").await;
    let flush = race.flush();
    waits(&flush, "a flush of a page that is held").await;
    race.go("cache:discard:submit");
    done(flush).await;
    let durable = race.backend.durable()[0];
    assert!([8, 9].contains(&durable), "{durable} after a flush");
    done(writer).await;
    race.check_quiescent().await;
}

#[tokio::test(start_paused = true)]
async fn race_18_a_failed_direct_write_puts_back_what_it_shot_down() {
    let race = Race::new(64, 7);
    done(race.write(0, &[9; PAGE_SIZE])).await;
    race.backend.behave(Behaviour {
        failures_per_mille: BTreeMap::from([("write", 1000)]),
        ..Behaviour::default()
    });
    let written = outcome(race.write_direct(0, &[8; 2 * PAGE_SIZE])).await;
    assert_eq!(written, Err(Errno::EIO));
    race.backend.behave(Behaviour::default());
    assert_eq!(race.bytes(0..2).await, [9, 7]);
    race.check_quiescent().await;
}

#[tokio::test(start_paused = true)]
async fn race_23_two_direct_writes_to_halves_of_a_page_both_survive() {
    let race = Race::new(64, 7);
    race.faults
        .set_points("class cache:fill:submit pause")
        .unwrap();
    // Each has a whole page, and half of page 2.
    let lower = race.write_direct(PAGE, &[1; PAGE_SIZE + 2048]);
    let upper = race.write_direct(2 * PAGE + 2048, &[2; PAGE_SIZE + 2048]);
    idle().await;
    race.faults.reset_points();
    done(lower).await;
    done(upper).await;
    let read = done(race.read(0..5 * PAGE)).await;
    let mut expected = vec![7; 5 * PAGE_SIZE];
    expected[PAGE_SIZE..2 * PAGE_SIZE + 2048].fill(1);
    expected[2 * PAGE_SIZE + 2048..4 * PAGE_SIZE].fill(2);
    assert!(read == expected, "half of a page was lost");
    race.check_quiescent().await;
}

#[tokio::test(start_paused = true)]
async fn changes_reach_the_end_of_a_device_that_ends_inside_a_page() {
    let size = 8 * PAGE + 100;
    for change in 0..3 {
        let race = Race::sized(size, 7);
        done(race.write(7 * PAGE, &[9; PAGE_SIZE + 100])).await;
        let running = match change {
            0 => race.trim(7 * PAGE..size),
            1 => race.zero(7 * PAGE..size),
            _ => race.write_direct(7 * PAGE, &[0; PAGE_SIZE + 100]),
        };
        done(running).await;
        let read = done(race.read(6 * PAGE..size)).await;
        assert_eq!(uniform(&read[..PAGE_SIZE]), Some(7));
        assert_eq!(uniform(&read[PAGE_SIZE..]), Some(0));
        race.cache.drop_clean().await.unwrap();
        race.check_quiescent().await;
    }
}

/// A client's request for what the device had: another's shrink has come before it.
#[tokio::test(start_paused = true)]
async fn what_is_past_the_end_of_a_device_is_not_brought_in() {
    let race = Race::new(64, 7);
    race.cache.resize(32 * PAGE).await.unwrap();
    let context = race.context(RequestKinds::CACHE);
    race.cache.prefetch(&context, 32 * PAGE..64 * PAGE).await;
    assert_eq!(race.cache.stats().resident_pages, 0);
    // A page that is there already would hide what is moved to its place.
    race.cache.insert_range(0, PAGE).await.unwrap();
    assert_eq!(race.bytes(32..33).await, [7]);
    race.check_quiescent().await;
}

/// The frame for the page that a shrink cuts has held something else before.
#[tokio::test(start_paused = true)]
async fn nothing_shows_behind_the_end_that_a_shrink_made() {
    let race = Race::new(1024, 7);
    // All of the memory has been in use.
    done(race.read(0..1024 * PAGE)).await;
    race.evict_all();
    done(race.write(10 * PAGE, &[1; PAGE_SIZE])).await;
    done(race.resize(10 * PAGE + 100)).await;
    done(race.resize(64 * PAGE)).await;
    let page = done(race.read(10 * PAGE..11 * PAGE)).await;
    assert_eq!(page[..100], [1; 100]);
    assert_eq!(page[100..], [0; PAGE_SIZE - 100]);
    race.check_quiescent().await;
}

#[tokio::test(start_paused = true)]
async fn a_device_of_no_bytes_can_be_flushed_and_dropped() {
    let race = Race::new(2, 7);
    done(race.read(0..2 * PAGE)).await;
    race.cache.resize(0).await.unwrap();
    race.cache.drop_clean().await.unwrap();
    race.cache.lose_power(async |_| ()).await;
    race.check_quiescent().await;
}
