//! One transfer as the ring's list keeps it: what the kernel works on, and its outcome.
//!
//! The operation owns the memory that the kernel is told of, and gives it up only when the kernel has completed the
//! transfer.
#![expect(unsafe_code, reason = "memory that the kernel reads and writes")]

use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use io_uring::{opcode, squeue, types};
use nix::libc;
use smallvec::SmallVec;
use weir_cache::{FrameBuf, FrameRefs};

use crate::backend::file::OpenFile;

/// One transfer: what the kernel works on, and its outcome.
pub(super) struct Operation {
    pub(super) memory: Memory,
    pub(super) vectors: Vectors,
    pub(super) file: Arc<OpenFile>,
    pub(super) offset: u64,
    /// When it was submitted.
    pub(super) since: Option<Instant>,
    /// Its place in the order of pushes, from 1.
    pub(super) number: u64,
    /// It was reported for taking long.
    pub(super) reported: bool,
    pub(super) outcome: Option<i32>,
    pub(super) waiter: Option<Waker>,
    /// No task waits for it any more.
    pub(super) abandoned: bool,
}

/// Where the data goes or comes from.
#[derive(Debug)]
pub(super) enum Memory {
    Read(FrameBuf),
    Write(FrameRefs),
}

/// What the kernel is told of the memory; neighbouring frames are one piece. A single piece is passed by itself. So
/// whatever the kernel may look at later, a list, lies on the heap and stays where it is.
pub(super) struct Vectors(pub(super) SmallVec<[libc::iovec; 1]>);

// SAFETY: the pointers lead into frames that the operation owns beside them and that nothing touches meanwhile (a
// FrameBuf's are private, a FrameRefs' are immutable); which thread hands them to the kernel makes no difference.
unsafe impl Send for Vectors {}

impl Operation {
    /// What the kernel is to do.
    ///
    /// # Safety
    /// The operation must stay as it is, though it may be moved, until the kernel has completed the entry.
    pub(super) unsafe fn entry(&self, key: usize) -> squeue::Entry {
        let direct = self
            .file
            .direct
            .as_ref()
            .expect("only for direct transfers");
        let descriptor = types::Fd(direct.as_raw_fd());
        let vectors = &self.vectors.0;
        let entry = match (&self.memory, vectors.as_slice()) {
            (Memory::Read(_), [one]) => {
                opcode::Read::new(descriptor, one.iov_base.cast(), length_of(one))
                    .offset(self.offset)
                    .build()
            }
            (Memory::Write(_), [one]) => {
                opcode::Write::new(descriptor, one.iov_base.cast(), length_of(one))
                    .offset(self.offset)
                    .build()
            }
            (Memory::Read(_), many) => {
                opcode::Readv::new(descriptor, many.as_ptr(), count_of(many))
                    .offset(self.offset)
                    .build()
            }
            (Memory::Write(_), many) => {
                opcode::Writev::new(descriptor, many.as_ptr(), count_of(many))
                    .offset(self.offset)
                    .build()
            }
        };
        entry.user_data(key as u64)
    }
}

impl Vectors {
    /// The pieces in order, with adjacent ones merged.
    pub(super) fn merged(pieces: impl Iterator<Item = libc::iovec>) -> Self {
        let mut vectors = SmallVec::<[libc::iovec; 1]>::new();
        for piece in pieces {
            match vectors.last_mut() {
                Some(last) if last.iov_base as usize + last.iov_len == piece.iov_base as usize => {
                    last.iov_len += piece.iov_len;
                }
                _ => vectors.push(piece),
            }
        }
        Self(vectors)
    }

    pub(super) fn bytes(&self) -> usize {
        self.0.iter().map(|vector| vector.iov_len).sum()
    }
}

fn length_of(vector: &libc::iovec) -> u32 {
    u32::try_from(vector.iov_len).expect("at most a slice of the cache")
}

fn count_of(vectors: &[libc::iovec]) -> u32 {
    u32::try_from(vectors.len()).expect("at most IO_SLICES_MAX")
}
