//! Reclaim, tags and memory: rows 12 and 21, and waits for memory.

use super::*;
use crate::add_lock::REGION_BYTES;
use crate::options::Limits;
use crate::pressure::memory::MemoryLine;
use crate::testing::interleave;
use crate::testing::sparse::SparseBackend;

#[tokio::test(start_paused = true)]
async fn race_12_a_page_is_dirtied_when_reclaim_has_chosen_it() {
    let race = Race::new(64, 7);
    done(race.read(0..PAGE)).await;
    race.cache.evict(1);
    done(race.read(0..PAGE)).await;
    let (cache, context) = (Arc::clone(&race.cache), race.context(RequestKinds::WRITE));
    let written = std::rc::Rc::new(std::cell::Cell::new(0));
    let count = std::rc::Rc::clone(&written);
    // Part of a page: it stays in the same slot, in another frame, while reclaim holds the old frame's number.
    interleave::set("reclaim:chosen", move || {
        assert!(
            cache.try_write(&context, 8, &[9; 8]),
            "nothing is in the way"
        );
        count.set(count.get() + 1);
    });
    race.evict_all();
    interleave::clear();
    assert!(written.get() > 0, "reclaim chose nothing");
    let page = race.cached(0..PAGE).expect("a dirty page was evicted");
    assert_eq!(page[8..16], [9; 8]);
    race.check_quiescent().await;
    assert_eq!(race.backend.durable()[8..16], [9; 8]);
}

#[tokio::test(start_paused = true)]
async fn race_12_reclaim_leaves_what_is_not_clean() {
    let race = Race::new(64, 7);
    // More clean pages than others, so that reclaim has a reason to look.
    done(race.read(16 * PAGE..32 * PAGE)).await;
    // Unsynced, in flight, held, dirty.
    done(race.write(3 * PAGE, &[4; PAGE_SIZE])).await;
    let context = race.context(RequestKinds::WRITEBACK);
    _ = race.cache.write_back(&context, 3..4, u64::MAX).await;
    done(race.write(PAGE, &[2; PAGE_SIZE])).await;
    race.stop_next("cache:writeback:complete");
    let flush = race.flush();
    race.stopped("cache:writeback:complete").await;
    done(race.write(2 * PAGE, &[3; PAGE_SIZE])).await;
    done(race.write(4 * PAGE, &[5; PAGE_SIZE])).await;
    race.stop_next("cache:discard:submit");
    let zero = race.zero(2 * PAGE..3 * PAGE);
    race.stopped("cache:discard:submit").await;
    let unclean = |race: &Race| {
        let stats = race.cache.stats();
        [
            stats.unstable_pages,
            stats.in_flight_pages,
            stats.held_pages,
            stats.dirty_pages,
        ]
    };
    assert_eq!(unclean(&race), [1; 4]);
    race.evict_all();
    assert!(race.cache.stats().evictions >= 16, "reclaim took nothing");
    assert_eq!(
        unclean(&race),
        [1; 4],
        "reclaim took a page that is not clean"
    );
    race.go("cache:writeback:complete");
    race.go("cache:discard:submit");
    done(flush).await;
    done(zero).await;
    assert_eq!(race.bytes(0..6).await, [7, 2, 0, 4, 5, 7]);
    race.check_quiescent().await;
}

#[tokio::test(start_paused = true)]
async fn race_12_reclaim_leaves_a_frame_that_has_moved_on() {
    let race = Race::new(64, 7);
    done(race.read(0..PAGE)).await;
    // The page moves to another frame; the old one still names its page, and is handed to another request.
    done(race.write(0, &[9; PAGE_SIZE])).await;
    done(race.flush()).await;
    let free = usize::try_from(race.cache.stats().free_frames).unwrap();
    let hoard = race.cache.reserve(free).await;
    // Referred to, so that the page itself stays.
    let context = race.context(RequestKinds::READ);
    let reader = race.cache.read(&context, 0, PAGE_SIZE).await.unwrap();
    race.evict_all();
    assert_eq!(
        race.cached(0..PAGE),
        Some(vec![9; PAGE_SIZE]),
        "reclaim went by a frame's old owner"
    );
    drop((hoard, reader));
    race.check_quiescent().await;
}

#[tokio::test(start_paused = true)]
async fn race_21_a_page_is_dirtied_while_a_tag_above_it_is_cleared() {
    // Far enough apart for two leaves.
    let race = Race::new(2048, 7);
    done(race.write(0, &[1; PAGE_SIZE])).await;
    done(race.write(2000 * PAGE, &[1; PAGE_SIZE])).await;
    let (cache, context) = (Arc::clone(&race.cache), race.context(RequestKinds::WRITE));
    let written = std::rc::Rc::new(std::cell::Cell::new(0));
    let count = std::rc::Rc::clone(&written);
    interleave::set("tags:seen empty", move || {
        for page in [0, 2000] {
            assert!(cache.try_write(&context, page * PAGE, &[2; PAGE_SIZE]));
        }
        count.set(count.get() + 1);
    });
    done(race.flush()).await;
    interleave::clear();
    assert!(written.get() > 0, "no tag was cleared");
    assert_eq!(race.cache.stats().dirty_pages, 2);
    done(race.flush()).await;
    let durable = race.backend.durable();
    assert_eq!(
        [durable[0], durable[2000 * PAGE_SIZE]],
        [2, 2],
        "a flush missed a page under a cleared tag"
    );
    race.check_quiescent().await;
}

#[tokio::test(start_paused = true)]
async fn memory_is_handed_on_when_a_reader_lets_go_of_a_page_in_the_cache() {
    let race = Race::new(512, 7);
    let context = race.context(RequestKinds::READ);
    let mut held = Vec::new();
    let mut page = 0;
    // Readers, such as slow clients, refer to every page that fits in.
    while race.cache.stats().free_frames > 0 {
        let read = race.cache.read(&context, page * PAGE, PAGE_SIZE).await;
        held.push(read.unwrap());
        page += 2;
    }
    let reader = race.read(511 * PAGE..512 * PAGE);
    waits(&reader, "a read without memory").await;
    held.pop();
    others_have_run().await;
    assert!(
        reader.is_finished(),
        "a page became evictable, and nobody was told"
    );
    done(reader).await;
    drop(held);
    race.check_quiescent().await;
}

#[tokio::test(start_paused = true)]
async fn a_writer_short_of_memory_for_its_edges_leaves_no_fill_behind() {
    let race = Race::new(64, 7);
    race.stop_next("cache:fill:submit within read");
    let reader = race.read(PAGE..2 * PAGE);
    race.stopped("cache:fill:submit").await;
    // Fills its head, installs it, waits for its tail, which the reader fills.
    let writer = race.write(100, &[9; PAGE_SIZE]);
    waits(&writer, "a partial write of a page that is being filled").await;
    assert_eq!(race.cache.stats().dirty_pages, 1, "the head is installed");
    // Takes both away before the writer comes again, with memory for one fill only.
    let trim = race.trim(0..2 * PAGE);
    waits(&trim, "a trim of a page that is being filled").await;
    race.go("cache:fill:submit");
    done(reader).await;
    done(trim).await;
    done(writer).await;
    let read = done(race.read(0..2 * PAGE)).await;
    assert_eq!(read[PAGE_SIZE..PAGE_SIZE + 100], [9; 100]);
    assert_eq!(uniform(&read[PAGE_SIZE + 100..]), Some(0));
    race.check_quiescent().await;
}

#[tokio::test(start_paused = true)]
async fn the_locks_of_regions_count_within_the_cache() {
    const TOUCHED: u64 = 300;
    let backend = Arc::new(SparseBackend::new(TOUCHED * REGION_BYTES));
    let options = CacheOptions {
        cache_bytes: MIN_CACHE_BYTES,
        ..CacheOptions::default()
    };
    let faults = Faults::new();
    let cache = PageCache::open(backend, &options, &faults).unwrap();
    let context = faults.context(RequestKinds::READ);
    for region in 0..TOUCHED {
        let offset = region * REGION_BYTES;
        drop(cache.read(&context, offset, PAGE_SIZE).await.unwrap());
    }
    // The leaves of the tree go with their pages; what stays is what the locks take.
    cache.evict(usize::MAX);
    cache.evict(usize::MAX);
    drop(cache.reserve(1).await);
    let stats = cache.stats();
    assert_eq!(stats.resident_pages, 0);
    let locks = cache.add_lock.bytes() as u64;
    assert!(locks > 6 * PAGE, "{locks} bytes");
    let beyond = (stats.metadata_bytes).saturating_sub(stats.frames * 16);
    assert!(stats.metadata_bytes >= locks);
    assert_eq!(
        stats.frames - stats.free_frames,
        beyond.div_ceil(PAGE),
        "{stats:?}"
    );
    assert!(beyond > 0, "{stats:?}");
}

/// Clients' reads wait in lines, and they are the ones that touch new places.
#[tokio::test]
async fn reads_in_a_line_set_memory_for_metadata_aside() {
    const TOUCHED: u64 = 300;
    let backend = Arc::new(SparseBackend::new(TOUCHED * REGION_BYTES));
    let options = CacheOptions {
        cache_bytes: MIN_CACHE_BYTES,
        ..CacheOptions::default()
    };
    let faults = Faults::new();
    let cache = PageCache::open(backend, &options, &faults).unwrap();
    let context = faults.context(RequestKinds::READ);
    let line = MemoryLine::default();
    for region in 0..TOUCHED {
        let offset = region * REGION_BYTES;
        let pages = cache.read_in(Some(&line), &context, offset, PAGE_SIZE);
        drop(pages.await.unwrap());
    }
    cache.evict(usize::MAX);
    cache.evict(usize::MAX);
    let stats = cache.stats();
    assert_eq!(stats.resident_pages, 0);
    assert!(stats.free_frames < stats.frames, "{stats:?}");
}

/// Memory that has just come free goes to the request that waits for it, however quickly another asks.
#[tokio::test(start_paused = true)]
async fn nobody_overtakes_who_waits_for_memory() {
    let race = Race::new(64, 7);
    let all = race.cache.reserve(race.cache.limits.frames as usize).await;
    let reader = race.read(0..PAGE);
    waits(&reader, "a miss without memory").await;
    drop(all);
    let context = race.context(RequestKinds::WRITE);
    assert!(!race.cache.try_write(&context, PAGE, &[1; PAGE_SIZE]));
    assert!(race.cache.try_payload(PAGE, PAGE_SIZE).is_none());
    done(reader).await;
    assert!(race.cache.try_write(&context, PAGE, &[1; PAGE_SIZE]));
    race.check_quiescent().await;
}

/// What clients may hold in payloads leaves memory for all other requests.
#[tokio::test(start_paused = true)]
async fn payloads_have_a_budget() {
    let race = Race::new(64, 7);
    let mut hoard = Vec::new();
    while let Some(payload) = race.cache.try_payload(0, PAGE_SIZE) {
        hoard.push(payload);
    }
    assert_eq!(hoard.len(), race.cache.limits.payload_frames as usize);
    let waiting = race.write(0, &[1; PAGE_SIZE]);
    waits(&waiting, "a write without a share of the budget").await;
    assert_eq!(race.bytes(0..1).await, [7]);
    hoard.pop();
    done(waiting).await;
    drop(hoard);
    race.check_quiescent().await;
}

/// Whatever memory is held for data that is still to come, and however it is cut, payloads that have arrived go on. So
/// do readers, with more than half of the smallest cache.
#[tokio::test(start_paused = true)]
async fn memory_for_data_to_come_keeps_nobody_waiting() {
    let slice = usize::try_from(Limits::new(MIN_CACHE_BYTES).slice_pages).unwrap() * PAGE_SIZE;
    for (offset, length) in [
        (0, slice),
        (0, PAGE_SIZE),
        (PAGE - 1, 2),
        (100, slice - 200),
    ] {
        let race = Race::new(64, 7);
        let before = race.cache.stats().free_frames;
        let mut hoard = Vec::new();
        while let Some(payload) = race.cache.try_payload_ahead(offset, length) {
            hoard.push(payload);
        }
        assert_eq!(race.cache.payloads_refused(), 1);
        let held = before - race.cache.stats().free_frames;
        assert!(!hoard.is_empty() && held <= u64::from(race.cache.limits.frames / 8));
        let arrived = race.cache.try_payload(0, slice);
        assert!(arrived.is_some(), "what has arrived waits for a client");
        drop(arrived);
        done(race.write(0, &[1; PAGE_SIZE])).await;
        done(race.write(PAGE + 8, &[2; 8])).await;
        assert_eq!(race.bytes(2..64).await, [7; 62]);
        done(race.flush()).await;
        drop(hoard);
        race.check_quiescent().await;
    }
}

/// The other way round: a payload that is refused memory ahead isn't told to wait for it.
#[tokio::test(start_paused = true)]
async fn memory_for_data_to_come_is_not_taken_from_what_has_arrived() {
    let race = Race::new(64, 7);
    let arrived: Vec<_> = std::iter::from_fn(|| race.cache.try_payload(0, PAGE_SIZE)).collect();
    let ahead: Vec<_> = std::iter::from_fn(|| race.cache.try_payload_ahead(0, PAGE_SIZE)).collect();
    assert_eq!(ahead.len(), race.cache.limits.payload_ahead_frames as usize);
    assert_eq!(arrived.len(), race.cache.limits.payload_frames as usize);
    drop((arrived, ahead));
    race.check_quiescent().await;
}

#[tokio::test(start_paused = true)]
async fn direct_writes_that_the_store_keeps_leave_memory_for_others() {
    let options = CacheOptions {
        cache_bytes: MIN_CACHE_BYTES,
        mode: crate::options::CacheMode::None,
        ..CacheOptions::default()
    };
    let race = Race::with(4096 * PAGE, 7, &options);
    race.faults.set_points("class backend:write pause").unwrap();
    let length = race.cache.slice_at(0, u64::MAX);
    let slice = length as u64;
    let many = race.cache.stats().frames * PAGE / slice + 1;
    let writers: Vec<_> = (0..many)
        .map(|i| {
            let (cache, context) = (Arc::clone(&race.cache), race.context(RequestKinds::WRITE));
            tokio::spawn(async move {
                let mut payload = cache.payload(i * slice, length).await;
                payload.copy_from(&vec![9; length]);
                cache.write_direct(&context, payload).await
            })
        })
        .collect();
    idle().await;
    let (cache, context) = (Arc::clone(&race.cache), race.context(RequestKinds::READ));
    let read = tokio::spawn(async move {
        let read = cache.read_direct(&context, 4095 * PAGE, PAGE_SIZE).await;
        read.map(drop)
    });
    others_have_run().await;
    let finished = read.is_finished();
    race.faults.reset_points();
    for writer in writers {
        done(writer).await;
    }
    done(read).await;
    race.check_quiescent().await;
    assert!(finished, "a read waited for memory that direct writes have");
}

/// A client whose requests came first, and that takes its replies one at a time, doesn't get all of the memory before
/// others get some.
#[tokio::test(start_paused = true)]
async fn a_client_with_one_request_waits_for_one_of_each_other() {
    const HOGS: u64 = 100;
    let race = Race::new(2048, 7);
    let free = usize::try_from(race.cache.stats().free_frames).unwrap();
    let hoard = race.cache.reserve(free - 1).await;
    // Replies that were read are kept here, until the client takes them.
    let (replies, mut taken) = tokio::sync::mpsc::channel(1);
    let line = MemoryLine::default();
    let mut hogs = Vec::new();
    for i in 0..HOGS {
        let (cache, context) = (Arc::clone(&race.cache), race.context(RequestKinds::READ));
        let (line, replies) = (line.clone(), replies.clone());
        hogs.push(tokio::spawn(async move {
            let pages = cache
                .read_in(Some(&line), &context, i * PAGE, PAGE_SIZE)
                .await;
            replies.send(pages.unwrap()).await.unwrap();
        }));
    }
    while race.cache.stats().memory_waits == 0 {
        tokio::task::yield_now().await;
    }
    let neighbour = {
        let (cache, context) = (Arc::clone(&race.cache), race.context(RequestKinds::READ));
        tokio::spawn(async move {
            let own = MemoryLine::default();
            cache
                .read_in(Some(&own), &context, 1000 * PAGE, PAGE_SIZE)
                .await
                .map(drop)
        })
    };
    let mut before = 0;
    while !neighbour.is_finished() {
        // The clock stands still: this lets everything happen that can.
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        if !neighbour.is_finished() {
            drop(taken.recv().await.expect("the hogs are not through"));
            before += 1;
        }
    }
    assert!(
        before <= 3,
        "{before} requests of the other client went first"
    );
    neighbour.await.unwrap().unwrap();
    drop(replies);
    while let Some(pages) = taken.recv().await {
        drop(pages);
    }
    for hog in hogs {
        hog.await.unwrap();
    }
    drop(hoard);
    race.check_quiescent().await;
}
