//! Which request is told of which failure.
//!
//! A FLUSH, a FUA and a direct read wait for pages that other requests write back or hold, and must know whether these
//! pages came out well. They are told of what concerns them and of nothing else: a page that can't be written fails the
//! requests that cover *it*. So each of them registers a [`Watch`] with its pages and its flush epoch. Code that makes
//! pages dirty again looks for watches that cover them.
//!
//! # Evidence
//! A page that failed by itself has failed. A page that failed in a run together with others may be sound. It is
//! marked, and the next run that it is in goes in halves until the bad page stands alone (see
//! [`halves`](super::halves)). [`Tries`] counts the two kinds apart. The second failure of the first kind ends a FLUSH.
//! A failure of the second kind only makes the FLUSH look again. A page that fails only because a sync has failed
//! meanwhile is of the second kind: the sync has been counted.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard};

use slab::Slab;
use weir_faults::Errno;

use crate::pages::OLDEST_EPOCH;

/// How often a FLUSH looks again because pages that it covers have failed in runs with others. Once is enough for a
/// page that is not written again, since the next run goes in halves. A page that is written anew each time may need
/// more.
const TOGETHER_MAX: u32 = 16;

/// All requests that wait for pages to be durable.
#[derive(Debug, Default)]
pub(crate) struct Failures(Mutex<Slab<Watched>>);

/// What one request waits for, and what became of it.
#[derive(Debug)]
struct Watched {
    pages: Range<u64>,
    /// Pages dirtied in this flush epoch or before.
    covered: u64,
    seen: Seen,
    last: Errno,
    replaced_lost: bool,
}

impl Watched {
    /// Whether it covers any of `pages`, which are in order.
    fn covers_any(&self, pages: &[(u64, u64)]) -> bool {
        let from = pages.partition_point(|(page, _)| *page < self.pages.start);
        pages[from..]
            .iter()
            .take_while(|(page, _)| *page < self.pages.end)
            .any(|(_, epoch)| *epoch <= self.covered)
    }
}

/// How often covered pages became dirty again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// For reasons of their own.
    alone: u64,
    /// In a run with others.
    together: u64,
}

#[cfg(test)]
impl Seen {
    /// For reasons of their own, and in a run with others.
    pub(crate) fn counts(self) -> (u64, u64) {
        (self.alone, self.together)
    }
}

/// Why pages are dirty again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// Each of them has failed.
    Alone,
    /// One of them has failed, or several, or none: a sync has failed, or a change that succeeded has put them back.
    Together,
}

impl Failures {
    /// From now on, what happens to `pages` that were dirtied in epoch `covered` or before is noted for the caller.
    pub(crate) fn watch(&self, pages: Range<u64>, covered: u64) -> Watch<'_> {
        let key = self.watched().insert(Watched {
            pages,
            covered,
            seen: Seen::default(),
            last: Errno::EIO,
            replaced_lost: false,
        });
        Watch {
            failures: self,
            key,
        }
    }

    /// `pages`, in order and each with the epoch in which it became dirty, are dirty again.
    pub(crate) fn note(&self, pages: &[(u64, u64)], errno: Errno, evidence: Evidence) {
        if pages.is_empty() {
            return;
        }
        for (_, watched) in self.watched().iter_mut() {
            if watched.covers_any(pages) {
                watched.last = errno;
                match evidence {
                    Evidence::Alone => watched.seen.alone += 1,
                    Evidence::Together => watched.seen.together += 1,
                }
            }
        }
    }

    /// As [`Failures::note`], for pages that have been held. It isn't known any more when they became dirty.
    pub(crate) fn note_held(&self, pages: &[u64], errno: Errno, evidence: Evidence) {
        let pages: Vec<_> = pages.iter().map(|page| (*page, OLDEST_EPOCH)).collect();
        self.note(&pages, errno, evidence);
    }

    /// A change of `pages` is lost, and dirty pages that were dropped for it may be lost with it.
    pub(crate) fn note_replaced(&self, pages: &Range<u64>) {
        for (_, watched) in self.watched().iter_mut() {
            if watched.pages.start < pages.end && pages.start < watched.pages.end {
                watched.replaced_lost = true;
            }
        }
    }

    fn watched(&self) -> MutexGuard<'_, Slab<Watched>> {
        self.0.lock().expect("not poisoned")
    }
}

/// What became of certain pages since this was made.
#[derive(Debug)]
pub(crate) struct Watch<'a> {
    failures: &'a Failures,
    key: usize,
}

impl Watch<'_> {
    pub(crate) fn seen(&self) -> Seen {
        self.failures.watched()[self.key].seen
    }

    /// Why they became dirty again the last time that they did.
    fn last(&self) -> Errno {
        self.failures.watched()[self.key].last
    }

    /// Whether one of them may have been dropped for a change that is lost.
    pub(crate) fn replaced_lost(&self) -> bool {
        self.failures.watched()[self.key].replaced_lost
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.failures.watched().remove(self.key);
    }
}

/// How often a FLUSH has looked again because others made pages dirty again behind it.
///
/// A FLUSH retries once, because nobody has retried on its behalf yet. It reports the second failure: the cause may be
/// permanent, and the data that this FLUSH covers is among what failed.
#[derive(Debug, Default)]
pub(crate) struct Tries {
    alone: bool,
    together: u32,
}

impl Tries {
    /// What `watch` had seen `before` is no longer all.
    ///
    /// # Errors
    /// The last failure's, if it has been tried often enough.
    pub(crate) fn again(&mut self, watch: &Watch<'_>, before: Seen) -> Result<(), Errno> {
        let now = watch.seen();
        if now.alone != before.alone && std::mem::replace(&mut self.alone, true) {
            return Err(watch.last());
        }
        if now.together != before.together {
            self.together += 1;
            if self.together > TOGETHER_MAX {
                return Err(watch.last());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
