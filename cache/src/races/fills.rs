//! Fills against everything that changes what they read: rows 1, 2, 4, 20 and 22.

use super::*;
use crate::testing::Behaviour;

#[tokio::test(start_paused = true)]
async fn race_01_a_miss_reads_old_data_while_a_trim_completes() {
    let race = Race::new(64, 7);
    race.stop_next("cache:fill:complete");
    let reader = race.read(0..PAGE);
    race.stopped("cache:fill:complete").await;
    let trim = race.trim(0..2 * PAGE);
    let zero = race.zero(PAGE / 2..3 * PAGE);
    waits(&trim, "a trim of a page that is being filled").await;
    assert!(
        !zero.is_finished(),
        "a zero of the page's edge did not wait"
    );
    race.go("cache:fill:complete");
    assert_eq!(uniform(&done(reader).await), Some(7));
    done(trim).await;
    done(zero).await;
    assert_eq!(race.bytes(0..4).await, [0, 0, 0, 7]);
    race.check_quiescent().await;
}

#[tokio::test(start_paused = true)]
async fn race_02_zero_waits_for_readahead() {
    let race = Race::new(64, 7);
    let point = "cache:fill:complete within readahead";
    race.stop_next(point);
    // The second read continues the first: readahead from page 2 on.
    done(race.read(0..PAGE)).await;
    done(race.read(PAGE..2 * PAGE)).await;
    race.stopped("cache:fill:complete").await;
    let zero = race.zero(2 * PAGE..8 * PAGE);
    waits(&zero, "a zero of what is being read ahead").await;
    race.go("cache:fill:complete");
    done(zero).await;
    assert_eq!(race.bytes(2..9).await, [0, 0, 0, 0, 0, 0, 7]);
    race.check_quiescent().await;
}

#[tokio::test(start_paused = true)]
async fn race_02_readahead_does_not_wait_for_zero() {
    let race = Race::new(64, 7);
    race.stop_next("cache:discard:submit");
    let zero = race.zero(0..2 * PAGE);
    race.stopped("cache:discard:submit").await;
    // Advice that overlaps the zero is dropped rather than waited for; the readers do wait.
    let prefetch = {
        let (cache, context) = (Arc::clone(&race.cache), race.context(RequestKinds::CACHE));
        tokio::spawn(async move { cache.prefetch(&context, 4 * PAGE..8 * PAGE).await })
    };
    let readers = [race.read(0..PAGE), race.read(PAGE..2 * PAGE)];
    idle().await;
    assert!(prefetch.is_finished(), "advice waited for a blocker");
    assert!(readers.iter().all(|reader| !reader.is_finished()));
    race.go("cache:discard:submit");
    done(zero).await;
    for reader in readers {
        assert_eq!(uniform(&done(reader).await), Some(0));
    }
    assert_eq!(race.bytes(0..4).await, [0, 0, 7, 7]);
    race.check_quiescent().await;
}

#[tokio::test(start_paused = true)]
async fn race_04_a_partial_write_reads_the_old_page_while_it_is_zeroed() {
    let race = Race::new(64, 7);
    race.stop_next("cache:write:merge");
    let writer = race.write(100, &[9; 100]);
    race.stopped("cache:write:merge").await;
    let zero = race.zero(0..2 * PAGE);
    waits(&zero, "a zero of a page that is being merged").await;
    race.go("cache:write:merge");
    done(writer).await;
    done(zero).await;
    // Either order, but nothing of the old page.
    let page = done(race.read(0..PAGE)).await;
    assert!(
        page.iter().all(|byte| [0, 9].contains(byte)),
        "old bytes were merged back"
    );
    race.check_quiescent().await;
}

#[tokio::test(start_paused = true)]
async fn race_04_an_edge_of_a_zero_reads_the_old_page_while_it_is_trimmed() {
    let race = Race::new(64, 7);
    race.stop_next("cache:write:merge");
    let zero = race.zero(100..PAGE);
    race.stopped("cache:write:merge").await;
    let trim = race.trim(0..PAGE);
    waits(&trim, "a trim of a page that is being merged").await;
    race.go("cache:write:merge");
    done(zero).await;
    done(trim).await;
    assert_eq!(race.bytes(0..1).await, [0]);
    race.check_quiescent().await;
}

#[tokio::test(start_paused = true)]
async fn race_20_a_late_fill_does_not_overwrite_a_write() {
    let race = Race::new(64, 7);
    race.stop_next("cache:fill:complete");
    let reader = race.read(0..2 * PAGE);
    race.stopped("cache:fill:complete").await;
    done(race.write(0, &[9; PAGE_SIZE])).await;
    assert_eq!(race.cached(0..PAGE), Some(vec![9; PAGE_SIZE]));
    race.go("cache:fill:complete");
    let read = done(reader).await;
    assert_eq!(uniform(&read[PAGE_SIZE..]), Some(7));
    assert_eq!(race.cached(0..PAGE), Some(vec![9; PAGE_SIZE]));
    race.check_quiescent().await;
    assert_eq!(race.backend.durable()[..PAGE_SIZE], [9; PAGE_SIZE]);
}

/// The store takes the halves of each page of a read one after the other.
fn halves_apart(race: &Race, apart: Duration) {
    race.backend.behave(Behaviour {
        halves_apart: Some(apart).filter(|apart| !apart.is_zero()),
        ..Behaviour::default()
    });
}

#[tokio::test(start_paused = true)]
async fn race_20_a_page_that_is_written_while_the_store_reads_it_is_handed_over_whole() {
    for evicted in [false, true] {
        let race = Race::new(64, 7);
        halves_apart(&race, Duration::from_secs(600));
        let first = race.read(0..4 * PAGE);
        idle().await;
        let joined = race.read(PAGE..3 * PAGE);
        waits(&joined, "a read of pages that are being filled").await;
        halves_apart(&race, Duration::ZERO);
        // The store has read half of the page. Written back, it is in the other half.
        done(race.write(PAGE, &[9; PAGE_SIZE])).await;
        done(race.flush()).await;
        done(race.write(PAGE, &[8; PAGE_SIZE])).await;
        done(race.flush()).await;
        if evicted {
            race.evict_all();
            // It came after the write, and waits for no older fill.
            assert_eq!(race.bytes(1..2).await, [8]);
        }
        waits(&first, "a read that the store is at").await;
        for (reader, expected) in [(first, vec![7, 9, 7, 7]), (joined, vec![9, 7])] {
            let read = done(reader).await;
            let pages: Vec<_> = read.chunks(PAGE_SIZE).map(uniform).collect();
            let expected: Vec<_> = expected.into_iter().map(Some).collect();
            assert_eq!(pages, expected, "a page of two writes, or too old");
        }
        assert_eq!(race.bytes(0..4).await, [7, 8, 7, 7]);
        race.check_quiescent().await;
    }
}

#[tokio::test(start_paused = true)]
async fn race_20_readahead_hands_over_what_was_written_into_its_pages() {
    let race = Race::new(64, 7);
    done(race.read(0..PAGE)).await;
    halves_apart(&race, Duration::from_secs(600));
    // Continues the first: page 1 is its own fill, and from page 2 on it is read ahead.
    let reader = race.read(PAGE..2 * PAGE);
    idle().await;
    let joined = race.read(4 * PAGE..5 * PAGE);
    waits(&joined, "a read of a page that is read ahead").await;
    halves_apart(&race, Duration::ZERO);
    done(race.write(4 * PAGE, &[9; PAGE_SIZE])).await;
    done(race.flush()).await;
    done(reader).await;
    assert_eq!(uniform(&done(joined).await), Some(9));
    race.check_quiescent().await;
}

#[tokio::test(start_paused = true)]
async fn race_20_what_was_written_into_a_fill_that_fails_stays() {
    let race = Race::new(64, 7);
    race.faults
        .set_points("class cache:fill:complete oneshot pause error EIO")
        .unwrap();
    let reader = race.read(0..2 * PAGE);
    race.stopped("cache:fill:complete").await;
    done(race.write(0, &[9; PAGE_SIZE])).await;
    race.go("cache:fill:complete");
    assert_eq!(outcome(reader).await, Err(Errno::EIO));
    assert_eq!(race.bytes(0..2).await, [9, 7]);
    race.check_quiescent().await;
}

#[tokio::test(start_paused = true)]
async fn race_20_a_late_fill_does_not_finish_the_fill_after_it() {
    let race = Race::new(64, 7);
    race.stop_next("cache:fill:complete");
    let first = race.read(0..PAGE);
    race.stopped("cache:fill:complete").await;
    // Written, cleaned, evicted, and being filled again. The fill keeps the first write's page for its reader.
    done(race.write(0, &[8; PAGE_SIZE])).await;
    done(race.write(0, &[9; PAGE_SIZE])).await;
    done(race.flush()).await;
    race.evict_all();
    assert_eq!(race.cached(0..PAGE), None, "it was not evicted");
    race.stop_next("cache:fill:submit within read");
    let second = race.read(0..PAGE);
    race.stopped("cache:fill:submit").await;
    race.go("cache:fill:complete");
    assert_eq!(
        uniform(&done(first).await),
        Some(8),
        "it gets what took its slot over"
    );
    assert_eq!(
        race.cached(0..PAGE),
        None,
        "the late fill installed its data"
    );
    race.go("cache:fill:submit");
    assert_eq!(uniform(&done(second).await), Some(9));
    assert_eq!(race.bytes(0..1).await, [9]);
    race.check_quiescent().await;
}

#[tokio::test(start_paused = true)]
async fn race_22_readers_of_overlapping_ranges_do_not_wait_for_each_other() {
    let race = Race::new(64, 7);
    race.faults
        .set_points("class cache:fill:submit within read pause")
        .unwrap();
    // One holds page 1; the second fills 0 and 2 and needs 1; the third fills 3 and needs 1 and 2; the last needs all.
    let readers = [
        race.read(PAGE..2 * PAGE),
        race.read(0..3 * PAGE),
        race.read(PAGE..4 * PAGE),
        race.read(0..5 * PAGE),
    ];
    idle().await;
    // Pages 1, 0, 2 and 3; readahead may have come before the last reader.
    let submitted: usize = race
        .faults
        .points("class cache:fill:submit")
        .unwrap()
        .iter()
        .map(|point| point.paused)
        .sum();
    assert!(submitted >= 4, "someone waits with a fill still to submit");
    assert!(readers.iter().all(|reader| !reader.is_finished()));
    race.faults.release("class cache:fill:submit").unwrap();
    for reader in readers {
        assert_eq!(uniform(&done(reader).await), Some(7));
    }
    race.check_quiescent().await;
}

#[tokio::test(start_paused = true)]
async fn race_22_writers_of_overlapping_edges_do_not_wait_for_each_other() {
    // Each has its head where another has its tail: it finds the head filling, or has planned to fill it when it finds
    // the tail filling.
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let race = Race::new(64, 7);
        race.faults
            .set_points("class cache:fill:submit pause")
            .unwrap();
        let mut writers = Vec::new();
        for page in order {
            let byte = u8::try_from(page + 1).unwrap();
            let offset = page * PAGE + 100 * (page + 1);
            writers.push(race.write(offset, &[byte; PAGE_SIZE]));
            waits(&writers[writers.len() - 1], "a write of absent edges").await;
        }
        race.faults.reset_points();
        for writer in writers {
            done(writer).await;
        }
        let read = done(race.read(0..4 * PAGE)).await;
        let mut expected = vec![7; 4 * PAGE_SIZE];
        expected[100..PAGE_SIZE + 100].fill(1);
        expected[PAGE_SIZE + 200..2 * PAGE_SIZE + 200].fill(2);
        expected[2 * PAGE_SIZE + 300..3 * PAGE_SIZE + 300].fill(3);
        assert!(read == expected, "a disjoint part of a page was lost");
        race.check_quiescent().await;
    }
}
