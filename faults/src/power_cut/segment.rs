//! A run of bytes with one history, and the pieces that come of it.

use std::sync::Arc;

/// What some bytes hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Bytes from index `at` on.
    Data {
        /// A write's data, shared by its pieces.
        bytes: Arc<[u8]>,
        /// Where in it the piece begins.
        at: usize,
    },
    /// Zeroes that were asked for.
    Zero,
    /// Nothing: trimmed; reads as zeroes.
    Trim,
}

impl Content {
    /// What is left of it after the first `bytes` bytes.
    pub(super) fn skip(&self, skipped: u64) -> Self {
        match self {
            Self::Data { bytes, at } => {
                let skipped = usize::try_from(skipped).expect("inside data in memory");
                Self::Data {
                    bytes: Arc::clone(bytes),
                    at: at + skipped,
                }
            }
            Self::Zero => Self::Zero,
            Self::Trim => Self::Trim,
        }
    }

    /// Whether `next` is what comes after `length` bytes of this.
    fn goes_on_as(&self, length: u64, next: &Self) -> bool {
        match (self, next) {
            (
                Self::Data { bytes, at },
                Self::Data {
                    bytes: next_bytes,
                    at: next_at,
                },
            ) => Arc::ptr_eq(bytes, next_bytes) && *at as u64 + length == *next_at as u64,
            (Self::Zero, Self::Zero) | (Self::Trim, Self::Trim) => true,
            _ => false,
        }
    }
}

/// Some bytes of the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The first byte.
    pub offset: u64,
    /// How many bytes.
    pub length: u64,
    /// What they hold.
    pub content: Content,
}

impl Piece {
    /// The bytes, if it is data.
    #[must_use]
    pub fn data(&self) -> Option<&[u8]> {
        match &self.content {
            Content::Data { bytes, at } => {
                let length = usize::try_from(self.length).expect("data in memory");
                Some(&bytes[*at..*at + length])
            }
            Content::Zero | Content::Trim => None,
        }
    }

    /// Copies what the piece holds into `buffer`, which holds the device's bytes from `offset` on, as far as the two
    /// overlap.
    pub fn copy_into(&self, offset: u64, buffer: &mut [u8]) {
        let end = offset
            .saturating_add(buffer.len() as u64)
            .min(self.offset + self.length);
        let start = offset.max(self.offset);
        if start >= end {
            return;
        }
        let index = |distance: u64| usize::try_from(distance).expect("inside a slice in memory");
        let target = &mut buffer[index(start - offset)..index(end - offset)];
        match self.data() {
            Some(data) => {
                target.copy_from_slice(&data[index(start - self.offset)..index(end - self.offset)])
            }
            None => target.fill(0),
        }
    }
}

/// Joins neighbours that continue each other. They come in ascending order.
pub(super) fn merged(pieces: impl Iterator<Item = Piece>) -> Vec<Piece> {
    let mut merged: Vec<Piece> = Vec::new();
    for piece in pieces {
        match merged.last_mut() {
            Some(last)
                if last.offset + last.length == piece.offset
                    && last.content.goes_on_as(last.length, &piece.content) =>
            {
                last.length += piece.length;
            }
            _ => merged.push(piece),
        }
    }
    merged
}

/// One state of a segment.
#[derive(Clone, Debug)]
pub(super) struct Version {
    /// The number of the mutation that made it.
    pub(super) number: u64,
    pub(super) content: Content,
}

/// A run of bytes that share their history.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    /// The byte after the last.
    pub(super) end: u64,
    /// Mutations up to this number are durable by promise.
    pub(super) covered: u64,
    /// Oldest first; never empty while it is in the map.
    pub(super) versions: Vec<Version>,
}

impl Segment {
    pub(super) fn newest(&self) -> &Version {
        self.versions.last().expect("a segment has a version")
    }

    /// The newest version up to that mutation.
    pub(super) fn newest_until(&self, number: u64) -> Option<&Version> {
        self.versions
            .iter()
            .rev()
            .find(|version| version.number <= number)
    }

    /// What it holds of written data, in bytes, when it begins at `start`.
    pub(super) fn held_bytes(&self, start: u64) -> u64 {
        let data = |version: &&Version| matches!(version.content, Content::Data { .. });
        self.versions.iter().filter(data).count() as u64 * (self.end - start)
    }

    /// Makes its newest version up to that mutation durable by promise. Older versions can't come back and are
    /// forgotten.
    pub(super) fn cover(&mut self, number: u64) {
        self.covered = self.covered.max(number);
        let until = self
            .versions
            .partition_point(|version| version.number <= self.covered);
        self.versions.drain(..until.saturating_sub(1));
    }

    /// Keeps only the newest version up to that mutation, if there is one.
    pub(super) fn cut_at(&mut self, number: u64) {
        let until = self
            .versions
            .partition_point(|version| version.number <= number);
        self.versions.truncate(until);
        self.versions.drain(..until.saturating_sub(1));
    }

    /// Splits after `length` bytes, at the device's byte `at`, and returns the right part.
    pub(super) fn split_off(&mut self, length: u64, at: u64) -> Self {
        let skip = |version: &Version| Version {
            number: version.number,
            content: version.content.skip(length),
        };
        let right = Self {
            end: self.end,
            covered: self.covered,
            versions: self.versions.iter().map(skip).collect(),
        };
        self.end = at;
        right
    }
}
