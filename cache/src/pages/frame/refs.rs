//! References to published pages.
#![expect(unsafe_code, reason = "slices of frames that a reference keeps")]

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;

use super::{FrameId, FramePool, PAGE_SIZE};

/// A piece of one published page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageSlice {
    frame: FrameId,
    start: u16,
    length: u16,
    /// The page is known to hold zeroes only.
    pub zero: bool,
}

impl PageSlice {
    /// Bytes in this piece, 1 to [`PAGE_SIZE`].
    pub fn len(&self) -> usize {
        usize::from(self.length)
    }

    /// Never: a piece has at least one byte.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }
}

/// References to published pages, in order: what a read returns and what a reply or a backend write is sent from.
///
/// A queue: pieces are appended at the end and consumed from the front. Dropping it gives the references back.
#[derive(Debug)]
pub struct FrameRefs {
    pool: Arc<FramePool>,
    slices: VecDeque<PageSlice>,
    bytes: usize,
}

impl FrameRefs {
    /// No pages yet.
    pub fn new(pool: Arc<FramePool>) -> Self {
        Self {
            pool,
            slices: VecDeque::new(),
            bytes: 0,
        }
    }

    /// Takes over a reference that the caller holds to published `frame`.
    pub(crate) fn push(&mut self, frame: FrameId, start: usize, length: usize, zero: bool) {
        assert!(length > 0 && start + length <= PAGE_SIZE);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "at most PAGE_SIZE by the assertion"
        )]
        self.slices.push_back(PageSlice {
            frame,
            start: start as u16,
            length: length as u16,
            zero,
        });
        self.bytes += length;
    }

    /// Appends a further reference to the page of piece `i` of `other`.
    pub(crate) fn push_from(&mut self, other: &Self, i: usize, start: usize, length: usize) {
        let frame = other.slices[i].frame;
        let taken = self.pool.add_ref(frame);
        self.push(frame, start, length, taken.zero);
    }

    /// Total bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many pieces there are.
    pub fn len(&self) -> usize {
        self.slices.len()
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.slices.is_empty()
    }

    /// The pieces in order.
    pub fn iter(&self) -> impl Iterator<Item = &PageSlice> {
        self.slices.iter()
    }

    /// The bytes of piece `i`.
    #[inline]
    pub fn slice(&self, i: usize) -> &[u8] {
        self.piece(self.slices[i])
    }

    #[inline]
    fn piece(&self, slice: PageSlice) -> &[u8] {
        let (start, end) = (
            usize::from(slice.start),
            usize::from(slice.start + slice.length),
        );
        // SAFETY: every piece in the queue owns a reference to a published frame, which `&self` keeps alive.
        unsafe { &self.pool.bytes(slice.frame)[start..end] }
    }

    /// All pieces as slices to write from.
    pub fn io_slices(&self) -> impl Iterator<Item = IoSlice<'_>> {
        self.slices
            .iter()
            .map(|slice| IoSlice::new(self.piece(*slice)))
    }

    /// The same, with pieces that are neighbours in memory as one slice.
    pub fn io_runs(&self) -> IoRuns<'_> {
        IoRuns {
            refs: self,
            next: 0,
        }
    }

    /// Drops pieces beyond the first `pieces`: undoes pushes.
    pub fn truncate(&mut self, pieces: usize) {
        while self.slices.len() > pieces {
            let slice = self.slices.pop_back().expect("longer than `pieces`");
            self.bytes -= slice.len();
            self.pool.unref(slice.frame);
        }
    }

    /// Consumes `count` bytes from the front.
    pub fn advance(&mut self, count: usize) {
        assert!(count <= self.bytes, "{count} of {} bytes", self.bytes);
        self.bytes -= count;
        let mut left = count;
        while left > 0 {
            let front = self.slices.front_mut().expect("counted in `bytes`");
            if left < usize::from(front.length) {
                #[expect(clippy::cast_possible_truncation, reason = "less than front.length")]
                let left = left as u16;
                front.start += left;
                front.length -= left;
                return;
            }
            left -= usize::from(front.length);
            let frame = front.frame;
            self.slices.pop_front();
            self.pool.unref(frame);
        }
    }

    /// Moves all pieces of `other` behind its own.
    pub fn append(&mut self, mut other: Self) {
        assert!(Arc::ptr_eq(&self.pool, &other.pool), "frames of two pools");
        self.bytes += std::mem::take(&mut other.bytes);
        self.slices.append(&mut other.slices);
    }

    /// Copies everything into `out`, which must be exactly as long.
    pub fn copy_to(&self, out: &mut [u8]) {
        assert_eq!(out.len(), self.bytes);
        let mut at = 0;
        for slice in &self.slices {
            out[at..at + slice.len()].copy_from_slice(self.piece(*slice));
            at += slice.len();
        }
    }

    /// The pool that the frames belong to.
    pub fn pool(&self) -> &Arc<FramePool> {
        &self.pool
    }
}

/// Hands out the pieces of a [`FrameRefs`] in order, as few slices. See [`FrameRefs::io_runs`].
#[derive(Debug)]
pub struct IoRuns<'a> {
    refs: &'a FrameRefs,
    next: usize,
}

impl<'a> IoRuns<'a> {
    /// The next piece and those that follow it in memory, as far as they have at most `most` bytes together.
    ///
    /// Pages that were written in one go mostly lie in neighbouring frames, and every slice costs the kernel something.
    #[inline]
    pub fn next_run(&mut self, most: usize) -> IoSlice<'a> {
        let pieces = &self.refs.slices;
        let first = pieces[self.next];
        self.next += 1;
        let (mut last, mut length) = (first, first.len());
        while usize::from(last.start + last.length) == PAGE_SIZE
            && let Some(piece) = pieces.get(self.next)
            && piece.frame == last.frame + 1
            && piece.start == 0
            && length + piece.len() <= most
        {
            length += piece.len();
            last = *piece;
            self.next += 1;
        }
        // SAFETY: each piece owns a reference to a published frame, which the borrow of `refs` keeps alive, and each
        // begins in memory where the one before it ends.
        IoSlice::new(unsafe { self.refs.pool.run(first.frame, first.start.into(), length) })
    }
}

impl Drop for FrameRefs {
    fn drop(&mut self) {
        for slice in self.slices.drain(..) {
            self.pool.unref(slice.frame);
        }
    }
}
