//! What the store refuses at present, for an operator to see.
//!
//! Writes that fail are tried again for as long as it takes, and a FLUSH reports the failure to clients only. So the
//! last failure is remembered until the pages concerned are written or a sync succeeds. Runs that succeed look at one
//! word.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;
use weir_faults::Errno;

/// What fails, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WritebackTrouble {
    /// The last error.
    pub errno: Errno,
    /// Whether syncs fail; else writes do.
    pub syncs: bool,
    /// How long ago that began.
    pub lasting: Duration,
    /// How often it has failed.
    pub failures: u64,
}

#[derive(Clone, Copy, Debug)]
struct Failing {
    errno: Errno,
    since: Instant,
    failures: u64,
}

/// Failures that may still last.
#[derive(Debug, Default)]
pub(crate) struct Troubles {
    /// Whether `known` has any failures.
    any: AtomicBool,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// With the pages that failed last.
    writes: Option<(Failing, Range<u64>)>,
    syncs: Option<Failing>,
}

impl Troubles {
    /// These pages could not be written.
    pub(crate) fn failed(&self, pages: &Range<u64>, errno: Errno) {
        let mut known = self.known();
        let before = known.writes.take().map(|(failing, _)| failing);
        known.writes = Some((again(before, errno), pages.clone()));
        self.any.store(true, Ordering::Relaxed);
    }

    /// These pages were written.
    pub(crate) fn written(&self, pages: &Range<u64>) {
        if !self.any.load(Ordering::Relaxed) {
            return;
        }
        let mut known = self.known();
        known
            .writes
            .take_if(|(_, failed)| failed.start < pages.end && pages.start < failed.end);
        self.forget_if_over(&known);
    }

    /// A sync has ended with `outcome`.
    pub(crate) fn synced(&self, outcome: Result<(), Errno>) {
        let mut known = self.known();
        known.syncs = match outcome {
            Ok(()) => None,
            Err(errno) => Some(again(known.syncs, errno)),
        };
        match outcome {
            Ok(()) => self.forget_if_over(&known),
            Err(_) => self.any.store(true, Ordering::Relaxed),
        }
    }

    /// The failure to report. Failed writes are over when no page waits any more, whatever became of the pages.
    pub(crate) fn worst(&self, pages_wait: bool) -> Option<WritebackTrouble> {
        let known = self.known();
        let writes = known.writes.as_ref().filter(|_| pages_wait);
        let writes = writes.map(|(failing, _)| (*failing, false));
        let (failing, syncs) = writes.or(known.syncs.map(|failing| (failing, true)))?;
        Some(WritebackTrouble {
            errno: failing.errno,
            syncs,
            lasting: failing.since.elapsed(),
            failures: failing.failures,
        })
    }

    fn forget_if_over(&self, known: &Known) {
        let any = known.writes.is_some() || known.syncs.is_some();
        self.any.store(any, Ordering::Relaxed);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("not poisoned")
    }
}

fn again(before: Option<Failing>, errno: Errno) -> Failing {
    Failing {
        errno,
        since: before.map_or_else(Instant::now, |failing| failing.since),
        failures: before.map_or(0, |failing| failing.failures) + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn failures_last_until_the_pages_are_written() {
        let troubles = Troubles::default();
        assert_eq!(troubles.worst(true), None);
        troubles.failed(&(0..8), Errno::EIO);
        tokio::time::advance(Duration::from_secs(5)).await;
        troubles.failed(&(0..8), Errno::ENOSPC);
        troubles.written(&(8..9));
        let told = troubles.worst(true).expect("it fails");
        assert_eq!(
            (
                told.errno,
                told.syncs,
                told.lasting.as_secs(),
                told.failures
            ),
            (Errno::ENOSPC, false, 5, 2)
        );
        assert_eq!(troubles.worst(false), None, "the pages were dropped");
        troubles.written(&(7..9));
        assert_eq!(troubles.worst(true), None);
        assert!(!troubles.any.load(Ordering::Relaxed));
    }

    #[tokio::test(start_paused = true)]
    async fn syncs_fail_until_one_succeeds() {
        let troubles = Troubles::default();
        troubles.synced(Err(Errno::EIO));
        troubles.written(&(0..1));
        assert!(troubles.worst(false).expect("it fails").syncs);
        troubles.synced(Ok(()));
        assert_eq!(troubles.worst(true), None);
    }
}
