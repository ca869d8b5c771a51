//! What is under way between the cache and the backend: the list under the scan lock, and the permits that limit it.
//!
//! Beginning an operation returns an [`UnderWay`], and the operation is listed as long as that lives. It is dropped
//! when the states of the operation's pages have been settled. So a page that is not durable is always found, dirty or
//! listed.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::durability::writeback::failures::Failures;
use crate::durability::writeback::trouble::Troubles;
use crate::options::WRITEBACK_RUNS;
use crate::primitives::event::Event;

/// What an operation does with the pages of its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OperationKind {
    /// Writes them back.
    Run,
    /// Holds those that were not clean.
    Blocker,
}

/// Something under way that a FLUSH must wait for.
#[derive(Debug)]
pub(crate) struct Operation {
    pub(crate) kind: OperationKind,
    pub(crate) pages: Range<u64>,
    pub(crate) done: Event,
}

impl Operation {
    fn overlaps(&self, pages: &Range<u64>) -> bool {
        self.pages.start < pages.end && pages.start < self.pages.end
    }
}

/// The operations under way.
#[derive(Debug, Default)]
struct Operations(Mutex<Vec<Arc<Operation>>>);

impl Operations {
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Operation>>> {
        self.0.lock().expect("not poisoned")
    }
}

/// An operation that is listed. Dropping it ends the operation: the states of its pages have been settled.
#[derive(Debug)]
pub(crate) struct UnderWay {
    list: Arc<Operations>,
    operation: Arc<Operation>,
}

impl std::ops::Deref for UnderWay {
    type Target = Operation;

    fn deref(&self) -> &Operation {
        &self.operation
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut operations = self.list.lock();
        let position = operations
            .iter()
            .position(|other| Arc::ptr_eq(other, &self.operation));
        operations.swap_remove(position.expect("listed as long as this lives"));
        drop(operations);
        self.operation.done.set();
    }
}

/// The scan lock, held.
pub(super) struct ScanLock<'a> {
    list: &'a Arc<Operations>,
    operations: MutexGuard<'a, Vec<Arc<Operation>>>,
}

impl ScanLock<'_> {
    /// Begins an operation. The lock must be given back before the operation ends.
    pub(super) fn begin(&mut self, kind: OperationKind, pages: Range<u64>) -> UnderWay {
        let operation = Arc::new(Operation {
            kind,
            pages,
            done: Event::default(),
        });
        self.operations.push(Arc::clone(&operation));
        UnderWay {
            list: Arc::clone(self.list),
            operation,
        }
    }

    /// What is under way.
    pub(super) fn operations(&self) -> &[Arc<Operation>] {
        &self.operations
    }
}

/// The scan lock and what is under way.
#[derive(Debug)]
pub(crate) struct Writeback {
    operations: Arc<Operations>,
    /// How many runs may still be submitted.
    pub(super) runs: Arc<Semaphore>,
    /// The background task found no permit, and is to be woken up when there is one.
    pub(super) permit_wanted: AtomicBool,
    /// The requests that are to be told when pages become dirty again.
    pub(crate) failures: Failures,
    /// What fails at present, for people.
    pub(crate) troubles: Troubles,
    /// Runs that were written in halves.
    halvings: AtomicU64,
}

impl Default for Writeback {
    fn default() -> Self {
        Self {
            operations: Arc::default(),
            runs: Arc::new(Semaphore::new(WRITEBACK_RUNS)),
            permit_wanted: AtomicBool::new(false),
            failures: Failures::default(),
            troubles: Troubles::default(),
            halvings: AtomicU64::new(0),
        }
    }
}

impl Writeback {
    pub(super) fn scan(&self) -> ScanLock<'_> {
        ScanLock {
            list: &self.operations,
            operations: self.operations.lock(),
        }
    }

    /// A permit for a run, if there is one at once. Otherwise the background task is woken up when one is given back.
    pub(crate) fn try_permit(&self) -> Option<OwnedSemaphorePermit> {
        // Before the attempt: a task that gives a permit back after the attempt sees this.
        self.permit_wanted.store(true, Ordering::SeqCst);
        let permit = Arc::clone(&self.runs).try_acquire_owned().ok()?;
        self.permit_wanted.store(false, Ordering::SeqCst);
        Some(permit)
    }

    /// Begins an operation.
    pub(crate) fn begin(&self, kind: OperationKind, pages: Range<u64>) -> UnderWay {
        self.scan().begin(kind, pages)
    }

    /// The operations under way that touch `pages`.
    pub(crate) fn under_way(&self, pages: &Range<u64>) -> Vec<Arc<Operation>> {
        self.operations
            .lock()
            .iter()
            .filter(|operation| operation.overlaps(pages))
            .cloned()
            .collect()
    }

    /// One of `pages`, which are written in halves. It is another page each time, so that each page is drawn sooner or
    /// later.
    pub(super) fn draw_page(&self, pages: &Range<u64>) -> u64 {
        let drawn = self.halvings.fetch_add(1, Ordering::Relaxed);
        // Multiples of the golden ratio, as a fraction: spread evenly, also if every so many draws are another run's.
        let fraction = drawn.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let length = pages.end - pages.start;
        let index = (u128::from(fraction) * u128::from(length)) >> u64::BITS;
        pages.start + u64::try_from(index).expect("less than the length")
    }
}
