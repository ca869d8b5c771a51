//! What a round's steps may have left behind, and what they may have seen.

use std::ops::Range;

use weir_faults::Errno;

use super::case::Action;
use crate::frame::PAGE_BYTES;
use crate::options::CacheMode;

/// What a step has put where.
#[derive(Clone, Debug)]
struct Effect {
    range: Range<u64>,
    value: u8,
    /// It was answered with success: the bytes are no longer what they were.
    done: bool,
    /// With FUA, or in a way that promises the same.
    durable: bool,
}

/// What a step has seen.
#[derive(Debug)]
struct Read {
    range: Range<u64>,
    data: Vec<u8>,
    /// Past the cache: a write that runs at the same time may be seen in part.
    direct: bool,
}

/// What is expected of one round.
#[derive(Debug)]
pub(super) struct Expected {
    size: u64,
    mode: CacheMode,
    /// The device was resized or shifted meanwhile.
    changes: bool,
    /// Requests of so many bytes bypass the cache.
    direct_threshold: u64,
    effects: Vec<Effect>,
    reads: Vec<Read>,
    /// Where there were holes: zero for a hole.
    statuses: Vec<(Range<u64>, Vec<u8>)>,
    /// A FLUSH has succeeded: what was there before the round is durable.
    flushed: bool,
}

impl Expected {
    /// For a round on a device of that size to begin with.
    pub(super) fn new(size: u64, mode: CacheMode, changes: bool, direct_threshold: u64) -> Self {
        Self {
            size,
            mode,
            changes,
            direct_threshold,
            effects: Vec::new(),
            reads: Vec::new(),
            statuses: Vec::new(),
            flushed: false,
        }
    }

    /// The device is resized meanwhile. A direct read that passes the new end takes no lock, and may see it already.
    pub(super) fn may_end_at(&mut self, size: u64) {
        self.effects.push(Effect {
            range: size..self.size.max(size),
            value: 0,
            done: false,
            durable: false,
        });
    }

    /// A step has ended like that.
    pub(super) fn add(
        &mut self,
        action: Action,
        range: Range<u64>,
        tag: u8,
        outcome: Result<Option<Vec<u8>>, Errno>,
    ) {
        let done = outcome.is_ok();
        let mut effect = |range: Range<u64>, value, done, fua| {
            self.effects.push(Effect {
                range,
                value,
                done,
                durable: done && (fua || self.mode == CacheMode::Writethrough),
            });
        };
        match action {
            Action::Read { direct } => {
                let direct = direct || range.end - range.start >= self.direct_threshold;
                let read = outcome.ok().flatten();
                self.reads.extend(read.map(|data| Read {
                    range,
                    data,
                    direct,
                }));
            }
            Action::Write { fua, .. } => effect(range, tag, done, fua),
            Action::Zero { fua, .. } => effect(range, 0, done, fua),
            Action::Trim { fua } => {
                // A trim leaves its edges as they are. The device's short last page is no edge while it is the last.
                let start = range.start.next_multiple_of(PAGE_BYTES);
                let whole = range.end - range.end % PAGE_BYTES;
                if start < whole {
                    effect(start..whole, 0, done, fua);
                }
                if range.end == self.size && start.max(whole) < range.end {
                    effect(start.max(whole)..range.end, 0, done && !self.changes, fua);
                }
            }
            Action::Flush | Action::DropClean => self.flushed |= done,
            Action::Status => {
                let known = outcome.ok().flatten();
                self.statuses.extend(known.map(|known| (range, known)));
            }
            Action::Prefetch => {}
        }
    }

    /// Cuts `range` where effects begin and end, and also at the borders of pages if two effects overlap.
    fn pieces(&self, range: Range<u64>) -> Vec<(Range<u64>, Vec<&Effect>)> {
        let ends = self
            .effects
            .iter()
            .flat_map(|effect| [effect.range.start, effect.range.end]);
        let inside = ends.filter(|at| range.contains(at));
        let mut marks: Vec<u64> = inside.chain([range.start, range.end]).collect();
        marks.sort_unstable();
        marks.dedup();
        let mut pieces = Vec::new();
        for pair in marks.windows(2) {
            let covers =
                |effect: &&Effect| effect.range.start <= pair[0] && pair[1] <= effect.range.end;
            let effects: Vec<_> = self.effects.iter().filter(covers).collect();
            let mut at = pair[0];
            while at < pair[1] {
                let page_end = (at - at % PAGE_BYTES + PAGE_BYTES).min(pair[1]);
                let end = if effects.is_empty() {
                    pair[1]
                } else {
                    page_end
                };
                pieces.push((at..end, effects.clone()));
                at = end;
            }
        }
        pieces
    }

    /// What was read is what was there before, or what a step put there: page by page.
    pub(super) fn check_reads(&self, before: &[u8]) -> Result<(), String> {
        for read in &self.reads {
            let range = &read.range;
            for (piece, effects) in self.pieces(range.clone()) {
                let seen = &read.data[span(&piece, range.start)];
                let old = &before[span(&piece, 0)];
                let of_one = |effect: &&Effect| seen.iter().all(|byte| *byte == effect.value);
                let fits = if effects.is_empty() || !read.direct {
                    seen == old || effects.iter().any(of_one)
                } else {
                    let either = |(seen, old): (&u8, &u8)| {
                        seen == old || effects.iter().any(|effect| effect.value == *seen)
                    };
                    seen.iter().zip(old).all(either)
                };
                if !fits {
                    return Err(format!(
                        "a read of {range:?} saw something else in {piece:?}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// What was reported as a hole was zeroes before, or was made zeroes.
    pub(super) fn check_statuses(&self, before: &[u8]) -> Result<(), String> {
        for (range, known) in &self.statuses {
            for (piece, effects) in self.pieces(range.start..range.start + known.len() as u64) {
                let (known, before) = (&known[span(&piece, range.start)], &before[span(&piece, 0)]);
                let mut bytes = known.iter().zip(before);
                let was_data = bytes.any(|(known, before)| *known == 0 && *before != 0);
                if was_data && effects.iter().all(|effect| effect.value != 0) {
                    return Err(format!("a status of {range:?} has a hole in {piece:?}"));
                }
            }
        }
        Ok(())
    }

    /// Compares what is there now with `before`, which has been resized and shifted, and what is durable.
    pub(super) fn check(&self, before: &[u8], now: &[u8], durable: &[u8]) -> Result<(), String> {
        assert_eq!(before.len(), now.len());
        for (piece, effects) in self.pieces(0..now.len() as u64) {
            let (old, new) = (&before[span(&piece, 0)], &now[span(&piece, 0)]);
            let kept = effects.iter().all(|effect| !effect.done) && new == old;
            let of_one = |effect: &&Effect| new.iter().all(|byte| *byte == effect.value);
            if !kept && !effects.iter().any(of_one) {
                return Err(format!(
                    "{piece:?} begins with {:?}, was {:?}, after {effects:?}",
                    &new[..new.len().min(8)],
                    &old[..old.len().min(8)]
                ));
            }
            // The durable image is of the device as it was at the last sync.
            let promised = match effects[..] {
                [] => self.flushed,
                [effect] => effect.durable,
                _ => false,
            };
            if promised && !self.changes && &durable[span(&piece, 0)] != new {
                return Err(format!(
                    "{piece:?} was promised and isn't durable: {effects:?}"
                ));
            }
        }
        Ok(())
    }
}

fn span(range: &Range<u64>, origin: u64) -> Range<usize> {
    let index = |at: u64| usize::try_from(at - origin).unwrap();
    index(range.start)..index(range.end)
}
