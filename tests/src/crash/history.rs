//! What the clients were told, and what follows from that.
//!
//! Every change has an interval: from its request to its answer. If the intervals of two changes to a cell overlap,
//! either may be the last. Otherwise their order is known. A change that failed may have happened or not.
//!
//! The same is true of an abandoned change: its client has gone, and no client is told of the outcome. It may still
//! happen, until a younger change to the same cell is answered. A younger change that is requested after that client
//! had gone is the last of the two: its client can't know of the abandoned change, and finds its own data. A change
//! that was requested before may have come first.
//!
//! So a version may be seen exactly if no change that *binds* was begun after it was answered. A change binds if it was
//! answered with success: for a read, before the read was begun; after a power cut, before a successful FLUSH was
//! begun, or with FUA; after a cut that keeps everything, at any time.
//!
//! Some changes go to the disk past the cache (direct writes, zeroes, trims). No other copy exists of them, nor of what
//! they replaced: a sync that fails may lose both ([`History::shaken`]), and the FLUSH that was told so can't bring
//! them back. Data written through the cache stays bound: it has to be written again.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::content::{GARBAGE, Version, ZERO, cells};

/// A change that a client has asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChangeId(usize);

/// When something happened: later is larger, no two are equal.
pub type Moment = u64;

/// How a change ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It was answered with success.
    Done,
    /// It was answered with success, and is durable: FUA.
    Durable,
    /// It may have happened or not.
    Failed,
}

/// Where the data of a change is kept until it is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copy {
    /// The cache.
    Kept,
    /// In the cache for pages that are changed in part; for other pages on the disk alone.
    Partly,
    /// On the disk alone.
    None,
}

/// Which changes bind a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// Those that were answered before this moment.
    AnsweredBefore(Moment),
    /// Those that were answered.
    Answered,
    /// Those that are durable by promise.
    Covered,
}

#[derive(Clone, Debug)]
struct Change {
    what: String,
    version: Version,
    copy: Copy,
    begun: Moment,
    /// `Moment::MAX` while it runs.
    answered: Moment,
    done: bool,
    covered: bool,
    /// The moment when its client went away.
    abandoned: Option<Moment>,
    cells: Range<usize>,
}

#[derive(Clone, Debug, Default)]
struct Cell {
    /// What the cell held when the phase began; durable.
    base: Version,
    changes: Vec<ChangeId>,
    /// Changes that a failed sync may have lost here: they bind no reader.
    shaken: BTreeSet<ChangeId>,
    /// Abandoned changes that can't happen any more here, with the last moment at which they could.
    over: BTreeMap<ChangeId, Moment>,
}

/// What happened to a device.
#[derive(Clone, Debug)]
pub struct History {
    now: Moment,
    changes: Vec<Change>,
    cells: Vec<Cell>,
    /// Changes that are done and not covered yet: all that the next FLUSH can cover.
    uncovered: BTreeMap<ChangeId, Moment>,
    /// When the last sync that succeeded was submitted.
    synced: Moment,
    /// Whether a sync has ever failed.
    sync_failed: bool,
}

impl History {
    /// A device of that many cells, all zero and durable.
    #[must_use]
    pub fn new(cells: usize) -> Self {
        Self {
            now: 0,
            changes: Vec::new(),
            cells: vec![Cell::default(); cells],
            uncovered: BTreeMap::new(),
            synced: 0,
            sync_failed: false,
        }
    }

    /// This moment; the next one is later.
    pub fn moment(&mut self) -> Moment {
        self.now += 1;
        self.now
    }

    /// A version that no change has written yet.
    #[must_use]
    pub fn next_version(&self) -> Version {
        Version::try_from(self.changes.len() + 1).expect("a short run")
    }

    /// A client asks for `range` to become `version`.
    pub fn begin(
        &mut self,
        what: String,
        version: Version,
        copy: Copy,
        range: &Range<u64>,
    ) -> ChangeId {
        let begun = self.moment();
        let id = ChangeId(self.changes.len());
        self.changes.push(Change {
            what,
            version,
            copy,
            begun,
            answered: Moment::MAX,
            done: false,
            covered: false,
            abandoned: None,
            cells: cells(range),
        });
        for cell in cells(range) {
            self.cells[cell].changes.push(id);
        }
        id
    }

    /// The client of a change goes away without an answer.
    pub fn abandon(&mut self, id: ChangeId) {
        let now = self.moment();
        self.changes[id.0].abandoned = Some(now);
        let changes = &self.changes;
        let abandoned = &changes[id.0];
        for cell in &mut self.cells[abandoned.cells.clone()] {
            let younger = |of: &ChangeId| {
                let change = &changes[of.0];
                change.done && change.begun > abandoned.begun
            };
            if cell.changes.iter().any(younger) {
                cell.over.insert(id, now);
            }
        }
    }

    /// `id` was answered: older abandoned changes can't happen any more.
    fn end_abandoned(&mut self, id: ChangeId) {
        let (now, changes) = (self.now, &self.changes);
        let answered = &changes[id.0];
        for cell in &mut self.cells[answered.cells.clone()] {
            for of in &cell.changes {
                let older = &changes[of.0];
                let Some(gone) = older.abandoned.filter(|_| older.begun < answered.begun) else {
                    continue;
                };
                let last = if gone < answered.begun {
                    answered.begun - 1
                } else {
                    now
                };
                cell.over
                    .entry(*of)
                    .and_modify(|known| *known = last.min(*known))
                    .or_insert(last);
            }
        }
    }

    /// A change is answered.
    pub fn end(&mut self, id: ChangeId, ending: Ending) {
        let now = self.moment();
        let change = &mut self.changes[id.0];
        change.answered = now;
        change.done = ending != Ending::Failed;
        change.covered = ending == Ending::Durable;
        if ending == Ending::Done {
            self.uncovered.insert(id, now);
        }
        if ending != Ending::Failed {
            self.end_abandoned(id);
        }
    }

    /// A FLUSH that was begun at that moment has succeeded.
    pub fn flushed(&mut self, begun: Moment) {
        let covered = self
            .uncovered
            .extract_if(.., |_, answered| *answered < begun);
        for (id, _) in covered {
            self.changes[id.0].covered = true;
        }
    }

    /// A sync that was submitted at that moment has succeeded.
    pub fn synced(&mut self, submitted: Moment) {
        self.synced = submitted;
    }

    /// A sync has failed. Data without another copy may be lost, and so may what that data has replaced.
    pub fn shaken(&mut self) {
        self.sync_failed = true;
        let now = self.moment();
        let (changes, synced) = (&self.changes, self.synced);
        let at_risk = |id: &ChangeId| {
            let change = &changes[id.0];
            // A change with a copy in the cache may have been written back after that sync, and may then have lost its
            // copy.
            let settled = change.covered || change.copy == Copy::None && change.answered < synced;
            (!settled).then_some(change)
        };
        for cell in &mut self.cells {
            let uncopied = cell
                .changes
                .iter()
                .filter_map(at_risk)
                .filter(|change| change.copy != Copy::Kept);
            // A change that was begun later found it done, and is in the cache.
            let Some(until) = uncopied.map(|change| change.answered.min(now)).max() else {
                continue;
            };
            let lost = cell
                .changes
                .iter()
                .filter(|id| at_risk(id).is_some_and(|change| change.begun < until));
            cell.shaken.extend(lost);
        }
    }

    /// Whether a failed sync may have lost anything at all.
    #[must_use]
    pub fn may_have_lost(&self) -> bool {
        self.sync_failed
    }

    /// Whether a failed sync may have lost what this cell held.
    #[must_use]
    pub fn may_be_forgotten(&self, cell: usize) -> bool {
        !self.cells[cell].shaken.is_empty()
    }

    /// Checks that cell `cell` may be seen as `version`.
    ///
    /// # Errors
    /// The error says what is wrong.
    pub fn check(&self, cell: usize, version: Version, binding: Binding) -> Result<(), String> {
        let Cell {
            base,
            changes,
            shaken,
            over,
        } = &self.cells[cell];
        if changes.is_empty() && version == *base && version != GARBAGE {
            return Ok(());
        }
        let binds = |change: &&Change| match binding {
            Binding::AnsweredBefore(moment) => change.done && change.answered < moment,
            Binding::Answered => change.done,
            Binding::Covered => change.covered,
        };
        let newest = changes
            .iter()
            .filter(|id| !shaken.contains(id))
            .map(|id| &self.changes[id.0])
            .filter(binds)
            .max_by_key(|change| change.begun);
        let since = newest.map_or(0, |change| change.begun);
        let of_base = version == *base && since == 0;
        let of_change = |id: &ChangeId| {
            let change = &self.changes[id.0];
            let last = over.get(id).copied().unwrap_or(Moment::MAX);
            change.version == version && change.answered.min(last) >= since
        };
        if version != GARBAGE && (of_base || changes.iter().any(of_change)) {
            return Ok(());
        }
        let known = changes
            .iter()
            .map(|id| &self.changes[id.0])
            .map(|change| format!("\n    {change}"))
            .collect::<String>();
        Err(format!(
            "{} though {}; known:\n    {} since the last cut{known}",
            named(version),
            newest.map_or(
                "nothing but the last cut binds".to_owned(),
                |change| format!("this binds: {change}")
            ),
            named(*base)
        ))
    }

    /// The power was cut, and this is what is left, `ZERO` where there is no device any more. It is durable, and
    /// whatever was running has ended.
    pub fn restart(&mut self, left: &[Version]) {
        for (cell, version) in self.cells.iter_mut().zip(left) {
            cell.base = *version;
            cell.changes.clear();
            cell.shaken.clear();
            cell.over.clear();
        }
        self.uncovered.clear();
    }
}

fn named(version: Version) -> String {
    match version {
        ZERO => "zeroes".to_owned(),
        GARBAGE => "GARBAGE".to_owned(),
        _ => format!("version {version}"),
    }
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            what,
            version,
            copy: _,
            begun,
            answered,
            done,
            covered,
            abandoned,
            cells: _,
        } = self;
        let ending = match (*answered, done, covered) {
            (Moment::MAX, ..) => match abandoned {
                Some(gone) => format!("abandoned at {gone}"),
                None => "running".to_owned(),
            },
            (_, false, _) => format!("failed at {answered}"),
            (_, true, false) => format!("done at {answered}"),
            (_, true, true) => format!("done at {answered}, covered"),
        };
        write!(
            f,
            "{} by {what}, begun at {begun}, {ending}",
            named(*version)
        )
    }
}

#[cfg(test)]
mod tests;
