use std::io::IoSlice;
use std::sync::Arc;

use super::*;

/// Private frames, each filled with its number.
fn numbered(pool: &Arc<FramePool>, frames: usize) -> FrameBuf {
    let mut buffer = FrameBuf::new(Arc::clone(pool));
    assert!(buffer.grow_to(frames));
    for i in 0..frames {
        buffer
            .page_mut(i)
            .fill(u8::try_from(i).expect("few frames"));
    }
    buffer
}

/// The lengths of the runs that `refs` is handed out in, `most` bytes at a time, and all their bytes.
fn runs(refs: &FrameRefs, most: usize) -> (Vec<usize>, Vec<u8>) {
    let mut runs = refs.io_runs();
    let (mut lengths, mut bytes) = (Vec::new(), Vec::new());
    while bytes.len() < refs.bytes() {
        let run: IoSlice<'_> = runs.next_run(most);
        lengths.push(run.len());
        bytes.extend_from_slice(&run);
    }
    (lengths, bytes)
}

fn copied(refs: &FrameRefs) -> Vec<u8> {
    let mut bytes = vec![0; refs.bytes()];
    refs.copy_to(&mut bytes);
    bytes
}

#[test]
fn neighbours_are_one_run() {
    let pool = FramePool::new(8).unwrap();
    // The first piece begins and the last one ends within its page.
    let refs = numbered(&pool, 4).into_refs(100, 3 * PAGE_SIZE);
    assert_eq!(
        runs(&refs, usize::MAX),
        (vec![3 * PAGE_SIZE], copied(&refs))
    );
}

#[test]
fn a_run_keeps_to_its_limit() {
    let pool = FramePool::new(8).unwrap();
    let refs = numbered(&pool, 4).freeze(4 * PAGE_SIZE);
    let (lengths, bytes) = runs(&refs, 3 * PAGE_SIZE - 1);
    assert_eq!(lengths, [2 * PAGE_SIZE; 2]);
    assert_eq!(bytes, copied(&refs));
}

#[test]
fn what_does_not_touch_in_memory_is_not_joined() {
    let pool = FramePool::new(8).unwrap();
    let mut buffer = numbered(&pool, 6);
    let tail = buffer.split_off(3);
    // Later frames first; then the end of one page and the beginning of the next, with a gap between them.
    let mut refs = tail.freeze(2 * PAGE_SIZE);
    let mut other = buffer.freeze(3 * PAGE_SIZE);
    refs.push_from(&other, 0, 0, 10);
    refs.push_from(&other, 1, 0, 10);
    refs.push_from(&other, 1, 5, PAGE_SIZE - 5);
    refs.push_from(&other, 2, 1, 7);
    let (lengths, bytes) = runs(&refs, usize::MAX);
    assert_eq!(lengths, [2 * PAGE_SIZE, 10, 10, PAGE_SIZE - 5, 7]);
    assert_eq!(bytes, copied(&refs));
    other.truncate(0);
}

#[test]
fn frames_that_were_freed_in_order_are_neighbours_again() {
    let pool = FramePool::new(8).unwrap();
    drop(numbered(&pool, 8));
    let mut buffer = numbered(&pool, 8);
    let slices: Vec<_> = buffer
        .io_slices_mut(10, 8 * PAGE_SIZE - 10, usize::MAX)
        .collect();
    assert_eq!(slices.len(), 1);
    assert_eq!(slices[0].len(), 8 * PAGE_SIZE - 20);
}

#[test]
fn a_buffer_with_gaps_has_a_slice_for_each_run() {
    let pool = FramePool::new(8).unwrap();
    let mut first = numbered(&pool, 8);
    let mut buffer = first.split_off(6);
    let middle = first.split_off(3);
    buffer.append(first);
    // Frames 6, 7, 0, 1, 2.
    let slices: Vec<_> = buffer.io_slices_mut(0, 5 * PAGE_SIZE, usize::MAX).collect();
    let lengths: Vec<usize> = slices.iter().map(|slice| slice.len()).collect();
    assert_eq!(lengths, [2 * PAGE_SIZE, 3 * PAGE_SIZE]);
    assert!(slices[0][PAGE_SIZE..].iter().all(|byte| *byte == 7));
    assert!(slices[1][2 * PAGE_SIZE..].iter().all(|byte| *byte == 2));
    assert_eq!(buffer.io_slices_mut(0, 5 * PAGE_SIZE, 1).count(), 1);
    drop(middle);
}
