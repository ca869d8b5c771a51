use weir_cache::{CacheOptions, PageCache};
use weir_faults::{Faults, RequestKinds};

use super::*;
use crate::backend::MemoryBackend;

const PAGES: u64 = 4096;

/// A cache with something in every page.
fn full_cache() -> Arc<PageCache> {
    let faults = Faults::new();
    let size = PAGES * PAGE_SIZE as u64;
    let options = CacheOptions {
        cache_bytes: 16 * size,
        ..CacheOptions::default()
    };
    let backend = Arc::new(MemoryBackend::new(size));
    let cache = PageCache::open(backend, &options, &faults).expect("a cache");
    let context = faults.context(RequestKinds::WRITE);
    for page in 0..PAGES {
        assert!(cache.try_write(&context, page * PAGE_SIZE as u64, &[1; PAGE_SIZE]));
    }
    cache
}

/// Memory outside the cache that an output holds.
fn memory(output: &Output) -> usize {
    let queues = [&output.sending, &output.held];
    let bytes = queues.map(|queue| {
        queue.bytes.capacity()
            + queue.segments.capacity() * size_of::<Segment>()
            + queue.pages.len() * size_of::<weir_cache::PageSlice>()
    });
    bytes.iter().sum()
}

/// Replies to READs of `length` bytes, each in another page, until no more requests are taken.
fn flood(cache: &Arc<PageCache>, length: usize, copies: bool, hold: bool) -> (Output, usize) {
    let mut output = Output::new(cache.pool());
    if hold {
        output.hold();
    }
    let mut replies = 0;
    while !output.is_full() {
        let offset = replies as u64 % PAGES * PAGE_SIZE as u64;
        let queue = output.queue();
        let pieces = queue.staging().len();
        assert!(cache.try_read(offset, length, queue.staging()));
        queue.push_bytes(&[7; 16]);
        if copies {
            queue.commit_copied(pieces);
        } else {
            queue.commit_pages(length);
        }
        replies += 1;
        assert!(replies < 1_000_000, "there is no limit");
    }
    (output, replies)
}

#[tokio::test]
async fn unread_replies_are_kept_within_limits_however_small_they_are() {
    let cache = full_cache();
    for hold in [false, true] {
        for (length, copies) in [
            (1, true),
            (COPIED_BYTES_MAX, true),
            (2000, false),
            (1, false),
        ] {
            let (output, replies) = flood(&cache, length, copies, hold);
            assert!(
                memory(&output) <= 2 * REPLY_BYTES_MAX + PAGE_SIZE,
                "{length}: {} bytes for {replies}",
                memory(&output)
            );
            let pinned = output.sending.pages.len() + output.held.pages.len();
            assert!(
                pinned * PAGE_SIZE <= PINNED_BYTES_MAX,
                "{length}: {pinned} pages"
            );
            assert_eq!(copies, pinned == 0);
        }
    }
}

#[tokio::test]
async fn what_is_copied_is_sent_in_order() {
    let cache = full_cache();
    let (ours, theirs) = tokio::net::UnixStream::pair().expect("a socket pair");
    let stream = Socket::Unix(theirs);
    let mut output = Output::new(cache.pool());
    let mut expected = Vec::new();
    for round in 0..10_u8 {
        let queue = output.queue();
        queue.push_bytes(&[round]);
        assert!(cache.try_read(100, 5000, queue.staging()));
        queue.commit_pages(5000);
        let pieces = queue.staging().len();
        assert!(cache.try_read(4000, 200, queue.staging()));
        queue.commit_copied(pieces);
        queue.commit_zeroes(70_000 * usize::from(round == 9));
        expected.push(round);
        expected.resize(expected.len() + 5200, 1);
    }
    expected.resize(expected.len() + 70_000, 0);
    let mut received = Vec::new();
    while received.len() < expected.len() {
        output.flush(&stream).expect("connected");
        ours.readable().await.expect("connected");
        _ = ours.try_read_buf(&mut received);
        std::future::poll_fn(|task| stream.poll_write_ready(task))
            .await
            .expect("connected");
    }
    assert!(received == expected && output.pending() == 0);
}
