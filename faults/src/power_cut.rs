//! What a disk with a volatile cache may lose when the power fails: everything since the last covering sync.
//!
//! This is pure data. The server wraps it in a decorator between cache and backend, which does the I/O.
//!
//! # Use
//! - A write, trim or zero goes to [`PowerCut::record`] and not to the backend.
//! - A read takes [`PowerCut::overlay`] *first*, then reads the backend, then copies the overlay over it. In that order
//!   a sync that applies and drops pieces in between does no harm.
//! - For a FLUSH or FUA, [`PowerCut::begin_sync`] notes what it covers. [`PowerCut::complete_sync`] makes that durable
//!   by promise, on the range that it is about, and returns what the backend lacks. The decorator applies it, syncs the
//!   backend, and calls [`PowerCut::applied`]: one batch at a time, in the order in which they were returned. A batch
//!   that failed is just dropped: its pieces stay, and the next sync returns them again.
//! - For a cut, [`PowerCut::cut`] raises the incarnation, so that older work changes nothing, and returns a batch: what
//!   the disk turns out to hold. A sync that was completed but not applied counts as complete; one that was only begun
//!   does not. The cut must not run while a batch is being applied.
//!
//! # How
//! The device is cut into segments in which every byte has the same history: a list of versions, oldest first, each
//! with the number of its mutation. In each segment, everything up to some number is covered. A segment needs no
//! version older than its newest covered one, so memory is in proportion to what is not applied. A trim of the whole
//! device is one segment.
//!
//! The survivors of a cut are chosen by *cutoff*. For each sector the cutoff is the covered number or that of a later
//! mutation that touched the sector. Each byte takes its newest version up to the cutoff. So a sector is always what it
//! was at one moment, also if mutations began in its middle.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use thiserror::Error;

use crate::device::SECTOR;
use crate::rng::Rng;

mod options;
mod segment;

pub(crate) use options::POWER_CUT_WORDS;
pub use options::{Keep, PowerCutOptions};
pub use segment::{Content, Piece};
use segment::{Segment, Version};

/// How many choices one segment gets at most, so that a trim of 2^60 bytes doesn't mean 2^51 of them: beyond,
/// neighbouring sectors share one.
const CHOICES_MAX: u64 = 1 << 16;

/// A change to the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// These bytes were written.
    Write(Arc<[u8]>),
    /// So many bytes were zeroed.
    Zero(u64),
    /// So many bytes were trimmed; they read as zeroes.
    Trim(u64),
}

/// The work belongs to a time before the last power cut, and changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the power was cut since (incarnation {0}, not {1})")]
pub struct Stale(pub u64, pub u64);

/// A sync that was begun: it covers what was recorded before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncToken {
    incarnation: u64,
    through: u64,
}

/// What the backend lacks of what is durable by promise. The pieces don't overlap, and are in ascending order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    incarnation: u64,
    /// The ranges, each with the mutation up to which the pieces hold it: first byte, byte after the last, number.
    through: Vec<(u64, u64, u64)>,
    /// To be applied.
    pub pieces: Vec<Piece>,
}

/// The volatile cache of one device.
#[derive(Debug, Default)]
pub struct PowerCut {
    incarnation: u64,
    /// The number of the newest mutation.
    newest: u64,
    /// By their first byte; they neither overlap nor are empty, and each has a version.
    segments: BTreeMap<u64, Segment>,
    held_bytes: u64,
}

impl PowerCut {
    /// A device of which everything is durable.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How often the power was cut. Work brings along the one that it began under.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// How many bytes of written data are held, an upper bound: sync when it grows too large.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// Whether the backend has everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Records a change that begins at byte `offset`. It is complete when this returns.
    ///
    /// # Errors
    /// [`Stale`] if it belongs to an older incarnation; then nothing was changed.
    ///
    /// # Panics
    /// If it reaches past 2^64 bytes.
    pub fn record(
        &mut self,
        incarnation: u64,
        offset: u64,
        mutation: Mutation,
    ) -> Result<(), Stale> {
        self.current(incarnation)?;
        let (length, content) = match mutation {
            Mutation::Write(bytes) => (bytes.len() as u64, Content::Data { bytes, at: 0 }),
            Mutation::Zero(length) => (length, Content::Zero),
            Mutation::Trim(length) => (length, Content::Trim),
        };
        if length == 0 {
            return Ok(());
        }
        let end = offset
            .checked_add(length)
            .expect("a mutation past 2^64 bytes");
        self.newest += 1;
        if matches!(content, Content::Data { .. }) {
            self.held_bytes += length;
        }
        let number = self.newest;
        let version = |start: u64| Version {
            number,
            content: content.skip(start - offset),
        };
        self.split(offset);
        self.split(end);
        let mut gaps = Vec::new();
        let mut reached = offset;
        for (start, segment) in self.segments.range_mut(offset..end) {
            gaps.extend((reached < *start).then_some(reached..*start));
            segment.versions.push(version(*start));
            reached = segment.end;
        }
        gaps.extend((reached < end).then_some(reached..end));
        for gap in gaps {
            self.segments.insert(
                gap.start,
                Segment {
                    end: gap.end,
                    covered: 0,
                    versions: vec![version(gap.start)],
                },
            );
        }
        Ok(())
    }

    /// What reads of these bytes find here, newest first in effect: pieces that don't overlap, in ascending order. What
    /// lies between them is the backend's.
    #[must_use]
    pub fn overlay(&self, offset: u64, length: u64) -> Vec<Piece> {
        let end = offset.saturating_add(length);
        let before = self
            .segments
            .range(..offset)
            .next_back()
            .filter(|(_, segment)| segment.end > offset);
        let within = self.segments.range(offset..end).filter(|_| length > 0);
        let found = before.into_iter().filter(|_| length > 0).chain(within);
        segment::merged(found.map(|(start, segment)| {
            let newest = segment.newest();
            let (from, to) = ((*start).max(offset), segment.end.min(end));
            Piece {
                offset: from,
                length: to - from,
                content: newest.content.skip(from - start),
            }
        }))
    }

    /// Begins a sync: it covers what was recorded before this.
    ///
    /// # Errors
    /// [`Stale`] if it belongs to an older incarnation.
    pub fn begin_sync(&self, incarnation: u64) -> Result<SyncToken, Stale> {
        self.current(incarnation)?;
        Ok(SyncToken {
            incarnation,
            through: self.newest,
        })
    }

    /// Completes a sync of `range` (in bytes): what it covers there is durable by promise from here on. Returns what
    /// the backend lacks of that, and of what was covered before.
    ///
    /// # Errors
    /// [`Stale`] if the power was cut since it was begun; then it has covered nothing.
    pub fn complete_sync(&mut self, token: SyncToken, range: Range<u64>) -> Result<Batch, Stale> {
        self.current(token.incarnation)?;
        self.split(range.start);
        self.split(range.end);
        for (_, segment) in self.segments.range_mut(range) {
            segment.cover(token.through);
        }
        Ok(self.batch())
    }

    /// Says that the backend has, durably, all that the batch holds. One of an older incarnation changes nothing.
    pub fn applied(&mut self, batch: &Batch) {
        if batch.incarnation != self.incarnation {
            return;
        }
        // Segments are split and never joined, so each lies in one of the batch's or in none.
        for &(start, end, through) in &batch.through {
            for (_, segment) in self.segments.range_mut(start..end) {
                segment.versions.retain(|version| version.number > through);
            }
        }
        self.segments
            .retain(|_, segment| !segment.versions.is_empty());
        self.held_bytes = self
            .segments
            .iter()
            .map(|(start, segment)| segment.held_bytes(*start))
            .sum();
    }

    /// Forgets what lies at or past `size` bytes: the device was shrunk.
    pub fn truncate(&mut self, size: u64) {
        self.split(size);
        drop(self.segments.split_off(&size));
    }

    /// Cuts the power. Returns what the disk holds now and the backend lacks; until it is applied, reads see it here.
    pub fn cut(&mut self, options: PowerCutOptions) -> Batch {
        match options.keep {
            Keep::None => self.choose(|_, _, covered| covered),
            Keep::All => self.choose(|_, _, _| u64::MAX),
            Keep::Random => self.cut_at_random(options),
        }
        self.incarnation += 1;
        for segment in self.segments.values_mut() {
            segment.cover(self.newest);
        }
        self.batch()
    }

    /// Makes every segment what it was at the cutoff that `cutoff(start, segment, covered)` says.
    fn choose(&mut self, cutoff: impl Fn(u64, &Segment, u64) -> u64) {
        self.segments.retain(|start, segment| {
            let cutoff = cutoff(*start, segment, segment.covered);
            segment.cut_at(cutoff);
            !segment.versions.is_empty()
        });
    }

    fn cut_at_random(&mut self, options: PowerCutOptions) {
        let unit = options.tear;
        self.split_at_choices(unit);
        // Every segment is now one choice by itself, or a part of one unit.
        let mut candidates: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
        for (start, segment) in &self.segments {
            let later = segment
                .versions
                .iter()
                .map(|version| version.number)
                .filter(|number| *number > segment.covered);
            let unit = candidates.entry(start / unit).or_default();
            unit.insert(segment.covered);
            unit.extend(later);
        }
        self.choose(|start, _, covered| {
            let candidates = &candidates[&(start / unit)];
            let chosen =
                Rng::of(options.seed, "power-cut", start / unit).below(candidates.len() as u64);
            // The number of candidates is that of a set in memory.
            candidates
                .iter()
                .copied()
                .nth(usize::try_from(chosen).unwrap_or(0))
                // A part of the unit may be covered further than the rest.
                .map_or(covered, |number| number.max(covered))
        });
    }

    /// Splits segments at the units that they begin and end in, and splits the whole units into choices.
    fn split_at_choices(&mut self, unit: u64) {
        let mut points = BTreeSet::new();
        for (start, segment) in &self.segments {
            let first_whole = start.div_ceil(unit).saturating_mul(unit);
            let last_whole = segment.end / unit * unit;
            if first_whole >= last_whole {
                // At most two units, and whole in neither: split where one ends.
                points.extend([first_whole, last_whole]);
                continue;
            }
            let units = (last_whole - first_whole) / unit;
            let stride = units.div_ceil(CHOICES_MAX) * unit;
            let mut point = first_whole;
            while point < last_whole {
                points.insert(point);
                point = point.saturating_add(stride);
            }
            points.insert(last_whole);
        }
        for point in points {
            self.split(point);
        }
    }

    /// What is covered and still here.
    fn batch(&self) -> Batch {
        let covered = |(start, segment): (&u64, &Segment)| (*start, segment.end, segment.covered);
        let pieces = self.segments.iter().filter_map(|(start, segment)| {
            let version = segment.newest_until(segment.covered)?;
            Some(Piece {
                offset: *start,
                length: segment.end - start,
                content: version.content.clone(),
            })
        });
        Batch {
            incarnation: self.incarnation,
            through: self.segments.iter().map(covered).collect(),
            pieces: segment::merged(pieces),
        }
    }

    /// Makes `at` a boundary between segments, if it lies inside one.
    fn split(&mut self, at: u64) {
        let Some((start, segment)) = self
            .segments
            .range_mut(..at)
            .next_back()
            .filter(|(_, segment)| segment.end > at)
        else {
            return;
        };
        let right = segment.split_off(at - start, at);
        self.segments.insert(at, right);
    }

    fn current(&self, incarnation: u64) -> Result<(), Stale> {
        if incarnation == self.incarnation {
            Ok(())
        } else {
            Err(Stale(self.incarnation, incarnation))
        }
    }
}

impl Batch {
    /// The incarnation that it belongs to.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }
}

/// The smallest unit of survival.
pub(crate) const TEAR_MIN: u64 = SECTOR;

#[cfg(test)]
mod tests;
