//! Requests to be counted, noted by a connection without a lock.
//!
//! A request that no rule could match on its connection is counted all the same if others like it could be matched, so
//! that they are numbered as a script will number them. Its own number is never asked for, only those of later requests
//! that fire. So the connection only notes it, in a ring that it alone writes. A request that needs a number first adds
//! up what all rings of the export have.
//!
//! That is as good as counting each request at once. Additions commute, a note is there before its request is answered,
//! and of requests that are in flight together either may be called the first. Rings are added up under the rules'
//! mutex. A connection whose ring is full adds up its own, many notes at a time. That costs a request less than a look
//! at a table that has left the processor's cache.
//!
//! A tally belongs to one beginning. When everything is counted anew, the registry forgets the tallies with the counts.
//! A connection that hasn't seen it yet may still note requests, and they belong to what was before.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::occurrences::RequestKey;
use crate::kind::RequestKind;

/// How many requests a connection notes before it has them added up: two kilobytes, a small part of a processor's first
/// cache.
pub(super) const TALLY_LENGTH: usize = 128;

/// Lengths below this can be noted; the protocol's are below 2^32.
const LENGTH_END: u64 = 1 << (u64::BITS - KIND_BITS);
/// The command's part of a note's second word.
const KIND_BITS: u32 = u8::BITS;

/// The notes of one connection.
#[derive(Debug)]
pub(super) struct Tally {
    /// The place of the connection's export.
    export: u32,
    notes: Box<[Note; TALLY_LENGTH]>,
    /// How many were noted; written by the connection alone.
    noted: AtomicUsize,
    /// How many of them were added up; written under the rules' mutex alone.
    added: AtomicUsize,
}

/// A request: where it begins, and its length and command.
#[derive(Debug, Default)]
struct Note {
    offset: AtomicU64,
    length_and_kind: AtomicU64,
}

impl Tally {
    pub(super) fn new(export: u32) -> Self {
        Self {
            export,
            notes: Box::new(std::array::from_fn(|_| Note::default())),
            noted: AtomicUsize::new(0),
            added: AtomicUsize::new(0),
        }
    }

    pub(super) fn export(&self) -> u32 {
        self.export
    }

    /// Notes a request; `false` if there is no room or it is too long. For the connection alone.
    #[inline]
    pub(super) fn note(&self, kind: RequestKind, offset: u64, length: u64) -> bool {
        let noted = self.noted.load(Ordering::Relaxed);
        // Acquire: what lay in this place has been read.
        let room = noted.wrapping_sub(self.added.load(Ordering::Acquire)) < TALLY_LENGTH;
        if !room || length >= LENGTH_END {
            return false;
        }
        let note = &self.notes[noted % TALLY_LENGTH];
        note.offset.store(offset, Ordering::Relaxed);
        note.length_and_kind
            .store(length << KIND_BITS | kind as u64, Ordering::Relaxed);
        // Release: a thread that sees this figure sees the note.
        self.noted.store(noted.wrapping_add(1), Ordering::Release);
        true
    }

    /// Takes the notes. For the holder of the rules' mutex alone.
    #[inline]
    pub(super) fn take(&self, add: impl FnMut(RequestKey)) {
        let added = self.added.load(Ordering::Relaxed);
        let noted = self.noted.load(Ordering::Acquire);
        if added != noted {
            self.take_range(added, noted, add);
        }
    }

    /// Out of line: of many tallies most have nothing new.
    #[inline(never)]
    fn take_range(&self, mut added: usize, noted: usize, mut add: impl FnMut(RequestKey)) {
        while added != noted {
            let note = &self.notes[added % TALLY_LENGTH];
            let length_and_kind = note.length_and_kind.load(Ordering::Relaxed);
            let kind = usize::from(length_and_kind.to_le_bytes()[0]);
            add(RequestKey {
                export: self.export,
                kind: RequestKind::NAMED[kind].1,
                offset: note.offset.load(Ordering::Relaxed),
                length: length_and_kind >> KIND_BITS,
            });
            added = added.wrapping_add(1);
        }
        self.added.store(added, Ordering::Release);
    }
}

#[cfg(test)]
mod tests;
