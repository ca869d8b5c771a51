use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Weak;

use weir_cache::FramePool;

use super::*;
use crate::backend::file::open;
use crate::backend::file::{Access, Engine, FileOptions};
use crate::backend::testing::pattern;

const PAGE_BYTES: u64 = PAGE_SIZE as u64;
const FRAMES: u32 = 1024;

/// A file of that many pages, on a file system with direct I/O; `None`, with a message, where there is none or no
/// io_uring.
fn bench(pages: usize) -> Option<(tempfile::TempDir, Arc<OpenFile>, Ring, Arc<FramePool>)> {
    let ring = match Ring::start() {
        Ok(ring) => ring,
        Err(error) => {
            eprintln!("skipped: no io_uring here: {error}");
            return None;
        }
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("device.img");
    std::fs::write(&path, pattern(3, pages * PAGE_SIZE)).unwrap();
    let file = open_file(&path);
    if file.direct.is_none() {
        eprintln!("skipped: no direct I/O here");
        return None;
    }
    Some((folder, file, ring, FramePool::new(FRAMES).unwrap()))
}

fn open_file(path: &Path) -> Arc<OpenFile> {
    let options = FileOptions {
        size: None,
        access: Access::ReadWrite,
        engine: Engine::Auto,
    };
    Arc::new(open::open(path, &options).unwrap())
}

/// A file whose direct descriptor is a pipe: reads wait until something is written to the other end.
fn stalled(file: Arc<OpenFile>) -> (Arc<OpenFile>, File) {
    let (reading, writing) = nix::unistd::pipe().unwrap();
    let mut file = Arc::into_inner(file).expect("nobody else has it");
    file.direct = Some(File::from(reading));
    (Arc::new(file), File::from(writing))
}

fn frames(pool: &Arc<FramePool>, pages: usize) -> FrameBuf {
    let mut buffer = FrameBuf::new(Arc::clone(pool));
    assert!(buffer.grow_to(pages));
    buffer
}

fn poll_once<T>(future: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[tokio::test]
async fn more_transfers_than_the_ring_is_deep() {
    let pages = 3 * RING_DEPTH as usize;
    let Some((_folder, file, ring, pool)) = bench(pages) else {
        return;
    };
    let expected = pattern(3, pages * PAGE_SIZE);
    let reads = (0..pages).map(|page| {
        let (ring, file, buffer) = (&ring, &file, frames(&pool, 1));
        async move { ring.read(file, page as u64 * PAGE_BYTES, buffer).await }
    });
    let read = futures_util::future::join_all(reads).await;
    for (page, (buffer, whole)) in read.iter().enumerate() {
        assert!(whole);
        let at = page * PAGE_SIZE;
        assert!(buffer.page(0)[..] == expected[at..at + PAGE_SIZE]);
    }
    assert!(ring.shared.lock().operations.is_empty());
}

#[tokio::test]
async fn a_batch_is_submitted_by_who_completes_it_and_the_rest_on_request() {
    let pages = SUBMIT_BATCH + 3;
    let Some((_folder, file, ring, pool)) = bench(pages) else {
        return;
    };
    let mut reads: Vec<_> = (0..pages)
        .map(|page| Box::pin(ring.read(&file, page as u64 * PAGE_BYTES, frames(&pool, 1))))
        .collect();
    let count = || {
        let state = ring.shared.lock();
        (state.under_way, state.queued.len())
    };
    // There is no await, so the driver has no turn.
    for read in &mut reads[..SUBMIT_BATCH - 1] {
        assert!(poll_once(read.as_mut()).is_pending());
    }
    assert_eq!(count(), (0, SUBMIT_BATCH - 1));
    assert!(poll_once(reads[SUBMIT_BATCH - 1].as_mut()).is_pending());
    assert_eq!(count(), (SUBMIT_BATCH, 0));
    for read in &mut reads[SUBMIT_BATCH..] {
        assert!(poll_once(read.as_mut()).is_pending());
    }
    assert_eq!(count(), (SUBMIT_BATCH, 3));
    ring.submit();
    assert_eq!(count(), (pages, 0));
    for read in reads {
        assert!(read.await.1);
    }
    assert_eq!(count(), (0, 0));
}

/// Refused once to the caller that completes a batch and then to the driver, which tries again by itself.
#[tokio::test]
async fn what_the_kernel_refuses_at_first_is_submitted_later() {
    let Some((_folder, file, ring, pool)) = bench(SUBMIT_BATCH) else {
        return;
    };
    tokio::task::yield_now().await;
    ring.shared.refusals.store(3, Ordering::SeqCst);
    let reads = (0..SUBMIT_BATCH).map(|page| {
        let (ring, file, buffer) = (&ring, &file, frames(&pool, 1));
        async move { ring.read(file, page as u64 * PAGE_BYTES, buffer).await }
    });
    // Long before the driver looks at the clock for another reason.
    let reads = futures_util::future::join_all(reads);
    let reads = tokio::time::timeout(crate::limits::IO_REPORT_AFTER / 4, reads).await;
    for (_, whole) in reads.expect("it tries again soon") {
        assert!(whole);
    }
    assert_eq!(ring.shared.refusals.load(Ordering::SeqCst), 0);
}

/// If a thread's pushed entry isn't taken, the driver submits it although nothing is queued.
#[tokio::test]
async fn the_driver_submits_what_another_has_pushed() {
    let Some((_folder, file, ring, pool)) = bench(1) else {
        return;
    };
    let mut read = Box::pin(ring.read(&file, 0, frames(&pool, 1)));
    assert!(poll_once(read.as_mut()).is_pending());
    assert!(ring.shared.push(&mut ring.shared.lock()));
    assert!(ring.shared.lock().queued.is_empty());
    assert!(read.await.1);
}

/// Several workers enter, submit, abandon and complete at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_tasks_share_a_ring() {
    const TASKS: usize = 8;
    const ROUNDS: usize = 200;
    let pages = 64;
    let Some((_folder, file, ring, pool)) = bench(pages) else {
        return;
    };
    let expected = Arc::new(pattern(3, pages * PAGE_SIZE));
    let ring = Arc::new(ring);
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let (ring, file, pool) = (Arc::clone(&ring), Arc::clone(&file), Arc::clone(&pool));
            let expected = Arc::clone(&expected);
            tokio::spawn(async move {
                for round in 0..ROUNDS {
                    let page = (task * 31 + round * 7) % pages;
                    let at = page as u64 * PAGE_BYTES;
                    // Some alone, some in batches, each with one that no task waits for.
                    let batch = 1 + (task + round) % (2 * SUBMIT_BATCH);
                    let mut reads: Vec<_> = (0..batch)
                        .map(|_| Box::pin(ring.read(&file, at, frames(&pool, 1))))
                        .collect();
                    for read in &mut reads {
                        assert!(poll_once(read.as_mut()).is_pending());
                    }
                    if round % 2 == 0 {
                        ring.submit();
                    }
                    drop(reads.pop());
                    for read in reads {
                        let (buffer, whole) = read.await;
                        assert!(whole);
                        assert!(buffer.page(0)[..] == expected[page * PAGE_SIZE..][..PAGE_SIZE]);
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    while pool.free_frames() < FRAMES {
        tokio::task::yield_now().await;
    }
    let state = ring.shared.lock();
    assert!(state.operations.is_empty() && state.under_way == 0 && state.queued.is_empty());
}

#[tokio::test]
async fn what_is_written_is_read() {
    let Some((_folder, file, ring, pool)) = bench(64) else {
        return;
    };
    let bytes = pattern(9, 40 * PAGE_SIZE);
    let mut buffer = frames(&pool, 40);
    for (page, chunk) in bytes.chunks(PAGE_SIZE).enumerate() {
        buffer.page_mut(page).copy_from_slice(chunk);
    }
    let (_, whole) = ring
        .write(&file, 8 * PAGE_BYTES, buffer.freeze(bytes.len()))
        .await;
    assert!(whole);
    // Into frames that lie apart, too: every other one of a run.
    let mut apart = frames(&pool, 80);
    let mut odd = FrameBuf::new(Arc::clone(&pool));
    for _ in 0..40 {
        odd.append(apart.split_off(apart.len() - 1));
        drop(apart.split_off(apart.len() - 1));
    }
    for buffer in [odd, frames(&pool, 40)] {
        let (buffer, whole) = ring.read(&file, 8 * PAGE_BYTES, buffer).await;
        assert!(whole);
        for (page, chunk) in bytes.chunks(PAGE_SIZE).enumerate() {
            assert!(buffer.page(page)[..] == *chunk, "page {page}");
        }
    }
}

#[tokio::test]
async fn what_is_cut_short_or_refused_is_handed_back() {
    let Some((_folder, file, ring, pool)) = bench(4) else {
        return;
    };
    // Past the end: two pages of four, then none.
    for (page, pages) in [(2, 4), (9, 1)] {
        let (buffer, whole) = ring
            .read(&file, page * PAGE_BYTES, frames(&pool, pages))
            .await;
        assert!(!whole);
        assert_eq!(buffer.len(), pages);
    }
    let (buffer, whole) = ring.read(&file, 100, frames(&pool, 1)).await;
    assert!(!whole, "misaligned");
    drop(buffer);
    assert_eq!(pool.free_frames(), FRAMES);
}

#[tokio::test]
async fn memory_stays_with_a_transfer_that_nobody_waits_for() {
    let Some((_folder, file, ring, pool)) = bench(4) else {
        return;
    };
    let (file, mut other_end) = stalled(file);
    let mut read = Box::pin(ring.read(&file, 0, frames(&pool, 1)));
    assert!(poll_once(read.as_mut()).is_pending());
    // Once before the kernel has it, once after.
    tokio::task::yield_now().await;
    let mut unsubmitted = Box::pin(ring.read(&file, 0, frames(&pool, 1)));
    assert!(poll_once(unsubmitted.as_mut()).is_pending());
    drop(unsubmitted);
    drop(read);
    assert_eq!(pool.free_frames(), FRAMES - 2);
    other_end.write_all(&[7; 2 * PAGE_SIZE]).unwrap();
    while pool.free_frames() < FRAMES {
        tokio::task::yield_now().await;
    }
    assert!(ring.shared.lock().operations.is_empty());
}

#[tokio::test]
async fn a_closed_ring_completes_what_is_under_way_and_ends() {
    let Some((_folder, file, ring, pool)) = bench(4) else {
        return;
    };
    let (file, mut other_end) = stalled(file);
    let shared = Arc::clone(&ring.shared);
    let driver_gone = {
        let shared = Arc::downgrade(&ring.shared);
        move || Weak::strong_count(&shared) == 1
    };
    let mut read = Box::pin(ring.read(&file, 0, frames(&pool, 1)));
    assert!(poll_once(read.as_mut()).is_pending());
    tokio::task::yield_now().await;
    ring.close();
    tokio::task::yield_now().await;
    assert_eq!(shared.lock().operations.len(), 1);
    other_end.write_all(&[7; PAGE_SIZE]).unwrap();
    let (buffer, whole) = read.as_mut().await;
    assert!(whole && buffer.page(0) == &[7; PAGE_SIZE]);
    drop(read);
    drop(ring);
    while !driver_gone() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_takes_long_is_reported() {
    let Some((_folder, file, ring, pool)) = bench(4) else {
        return;
    };
    let (file, mut other_end) = stalled(file);
    let mut read = Box::pin(ring.read(&file, 0, frames(&pool, 1)));
    assert!(poll_once(read.as_mut()).is_pending());
    tokio::task::yield_now().await;
    // The age is by the real clock: pretend that the transfer is old.
    let begun = Instant::now().checked_sub(crate::limits::IO_REPORT_AFTER);
    ring.shared.lock().operations[0].since = begun;
    tokio::time::sleep(crate::limits::IO_REPORT_AFTER).await;
    assert!(ring.shared.lock().operations[0].reported);
    other_end.write_all(&[7; PAGE_SIZE]).unwrap();
    assert!(read.await.1);
}

#[test]
fn a_runtime_that_ends_in_the_middle_frees_no_memory() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let Some((_folder, file, ring, pool)) = runtime.block_on(async { bench(4) }) else {
        return;
    };
    let (file, _other_end) = stalled(file);
    runtime.block_on(async {
        let mut read = Box::pin(ring.read(&file, 0, frames(&pool, 1)));
        assert!(poll_once(read.as_mut()).is_pending());
        tokio::task::yield_now().await;
    });
    drop(runtime);
    drop(ring);
    assert_eq!(
        pool.free_frames(),
        FRAMES - 1,
        "the kernel may still write there"
    );
}

#[test]
fn neighbours_are_one_piece() {
    let memory = [0_u8; 64];
    let base = memory.as_ptr().cast_mut();
    let pieces = [(0, 8), (8, 8), (24, 8), (32, 8), (48, 16)];
    let vectors = Vectors::merged(pieces.into_iter().map(|(start, length)| libc::iovec {
        iov_base: base.wrapping_add(start).cast(),
        iov_len: length,
    }));
    let merged: Vec<_> = vectors
        .0
        .iter()
        .map(|vector| (vector.iov_base as usize - base as usize, vector.iov_len))
        .collect();
    assert_eq!(merged, [(0, 16), (24, 16), (48, 16)]);
    assert_eq!(vectors.bytes(), 48);
}

/// Unexpected errors end the ring, and nothing else.
#[tokio::test]
async fn a_ring_that_breaks_hands_everything_back() {
    let pages = 2 * SUBMIT_BATCH + 3;
    let Some((_folder, file, ring, pool)) = bench(pages) else {
        return;
    };
    let mut abandoned = Box::pin(ring.read(&file, 0, frames(&pool, 1)));
    assert!(poll_once(abandoned.as_mut()).is_pending());
    drop(abandoned);
    ring.shared.refusal.store(libc::EPERM, Ordering::SeqCst);
    ring.shared.refusals.store(1, Ordering::SeqCst);
    for _ in 0..2 {
        let reads = (0..pages).map(|page| {
            let (ring, file, buffer) = (&ring, &file, frames(&pool, 1));
            async move { ring.read(file, page as u64 * PAGE_BYTES, buffer).await }
        });
        let reads = futures_util::future::join_all(reads);
        let reads = tokio::time::timeout(crate::limits::IO_REPORT_AFTER / 4, reads).await;
        // The kernel would take them again, but what is given up stays so.
        assert!(reads.expect("handed back").iter().all(|(_, whole)| !whole));
    }
    {
        let state = ring.shared.lock();
        assert!(state.operations.is_empty() && state.queued.is_empty());
        assert_eq!((state.under_way, state.telling), (0, 0));
    }
    let shared = Arc::downgrade(&ring.shared);
    drop(ring);
    while shared.upgrade().is_some() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_the_kernel_has_taken_completes_in_a_broken_ring() {
    let Some((folder, file, ring, pool)) = bench(2) else {
        return;
    };
    let other = folder.path().join("other.img");
    std::fs::write(&other, [0; PAGE_SIZE]).unwrap();
    let (slow_file, mut other_end) = stalled(open_file(&other));
    let mut taken = Box::pin(ring.read(&slow_file, 0, frames(&pool, 1)));
    assert!(poll_once(taken.as_mut()).is_pending());
    ring.submit();
    assert_eq!(ring.shared.lock().under_way, 1);
    ring.shared.refusal.store(libc::EBADF, Ordering::SeqCst);
    ring.shared.refusals.store(1, Ordering::SeqCst);
    let (_, whole) = ring.read(&file, 0, frames(&pool, 1)).await;
    assert!(!whole);
    assert!(poll_once(taken.as_mut()).is_pending());
    assert_eq!(ring.shared.lock().under_way, 1);
    other_end.write_all(&[7; PAGE_SIZE]).unwrap();
    let (buffer, whole) = taken.await;
    assert!(whole && buffer.page(0)[..] == [7; PAGE_SIZE]);
}

/// Transfers that came while a thread was told that the ring is broken.
#[tokio::test]
async fn what_is_queued_when_a_ring_breaks_is_handed_back() {
    let Some((_folder, file, ring, pool)) = bench(2) else {
        return;
    };
    let mut first = Box::pin(ring.read(&file, 0, frames(&pool, 1)));
    assert!(poll_once(first.as_mut()).is_pending());
    assert!(ring.shared.push_to_tell(&mut ring.shared.lock()));
    let mut second = Box::pin(ring.read(&file, PAGE_BYTES, frames(&pool, 1)));
    assert!(poll_once(second.as_mut()).is_pending());
    ring.shared.refusal.store(libc::EPERM, Ordering::SeqCst);
    ring.shared.refusals.store(1, Ordering::SeqCst);
    assert!(ring.shared.tell_kernel());
    for read in [first.as_mut(), second.as_mut()] {
        assert!(matches!(poll_once(read), Poll::Ready((_, false))));
    }
}

/// One thread is told that the ring is broken while another is in the kernel, which takes the entries of both: those
/// may not be handed back.
#[tokio::test]
async fn nothing_is_handed_back_under_somebody_in_the_kernel() {
    let Some((_folder, file, ring, pool)) = bench(2) else {
        return;
    };
    let mut first = Box::pin(ring.read(&file, 0, frames(&pool, 1)));
    assert!(poll_once(first.as_mut()).is_pending());
    assert!(ring.shared.push_to_tell(&mut ring.shared.lock()));
    let mut second = Box::pin(ring.read(&file, PAGE_BYTES, frames(&pool, 1)));
    assert!(poll_once(second.as_mut()).is_pending());
    assert!(ring.shared.push_to_tell(&mut ring.shared.lock()));
    ring.shared.refusal.store(libc::EPERM, Ordering::SeqCst);
    ring.shared.refusals.store(1, Ordering::SeqCst);
    assert!(ring.shared.tell_kernel());
    assert!(ring.shared.lock().broken);
    for read in [first.as_mut(), second.as_mut()] {
        assert!(poll_once(read).is_pending());
    }
    assert!(ring.shared.tell_kernel());
    assert!(first.await.1 && second.await.1);
}

/// The ring breaks while several workers are in the kernel: each read is whole and right, or handed back.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_ring_that_breaks_among_many_tasks() {
    let pages = 64;
    for round in 0..50 {
        let Some((_folder, file, ring, pool)) = bench(pages) else {
            return;
        };
        let expected = Arc::new(pattern(3, pages * PAGE_SIZE));
        let ring = Arc::new(ring);
        let tasks: Vec<_> = (0..4)
            .map(|task| {
                let (ring, file, pool) = (Arc::clone(&ring), Arc::clone(&file), Arc::clone(&pool));
                let expected = Arc::clone(&expected);
                tokio::spawn(async move {
                    for step in 0..20 {
                        if task == 0 && step == 1 + round % 15 {
                            ring.shared.refusal.store(libc::EPERM, Ordering::SeqCst);
                            ring.shared.refusals.store(1, Ordering::SeqCst);
                        }
                        let page = (task * 31 + step * 7) % pages;
                        let at = page as u64 * PAGE_BYTES;
                        let reads =
                            (0..SUBMIT_BATCH + 2).map(|_| ring.read(&file, at, frames(&pool, 1)));
                        for (buffer, whole) in futures_util::future::join_all(reads).await {
                            let start = page * PAGE_SIZE;
                            let right = &expected[start..start + PAGE_SIZE];
                            assert!(!whole || buffer.page(0)[..] == *right);
                        }
                    }
                })
            })
            .collect();
        let all = futures_util::future::join_all(tasks);
        let all = tokio::time::timeout(crate::limits::IO_REPORT_AFTER, all).await;
        for outcome in all.expect("nobody waits for ever") {
            outcome.unwrap();
        }
        let state = ring.shared.lock();
        assert!(state.broken && state.operations.is_empty());
        assert_eq!((state.under_way, state.telling), (0, 0));
    }
}
