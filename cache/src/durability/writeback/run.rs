//! One run, from its submission to the states that its pages end in.
//!
//! At completion a page becomes `UNSTABLE`, or `DIRTY` again if it could not be written. All pages of a run are settled
//! under one hold of the ledger: a sync that is submitted afterwards covers them all, an earlier one covers none.
//! Requests that watch a page that is dirty again are told.

use std::ops::Range;

use crossbeam_epoch as epoch;
use weir_faults::{Errno, FaultContext, pause_point};

use super::halves::Failed;
use super::{Evidence, Run};
use crate::durability::generations::Submitted;
use crate::frame::{FrameRefs, PAGE_BYTES};
use crate::pace::Pace;
use crate::page_cache::{PageCache, bytes_of};
use crate::pages::HELD;

/// How a run went.
#[derive(Clone, Copy, Debug)]
pub(super) struct RunEnd {
    /// For the pages that its pass covers.
    pub(super) covered: Result<(), Errno>,
    /// For all of them.
    pub(super) all: Result<(), Errno>,
}

impl PageCache {
    /// Writes a run and settles the states of its pages.
    pub(super) async fn carry_out(&self, context: &FaultContext, run: Run) -> RunEnd {
        let Run {
            operation,
            data,
            young,
            retry,
        } = run;
        let pages = &operation.pages;
        let submitted = self.generations.submitted();
        let may_halve = retry || !young.is_empty();
        let failed = self
            .write_run(context, pages.clone(), data, may_halve)
            .await;
        Pace::default().ask(pages.clone().count()).await;
        let RunPages {
            failed,
            unwritten,
            known,
        } = self.complete_run(submitted, pages, failed);
        let end = RunEnd {
            all: failed.first().map_or(Ok(()), |(_, errno)| Err(*errno)),
            covered: failed
                .iter()
                .find(|(part, _)| part.clone().any(|page| !young.contains(&page)))
                .map_or(Ok(()), |(_, errno)| Err(*errno)),
        };
        self.counters.writeback_runs.add(1);
        let failed_pages: u64 = failed.iter().map(|(part, _)| part.end - part.start).sum();
        self.counters
            .writeback_pages
            .add(pages.end - pages.start - failed_pages);
        if failed.is_empty() {
            self.writeback.troubles.written(pages);
        }
        for (part, errno) in &failed {
            self.counters.writeback_errors.add(1);
            self.writeback.troubles.failed(part, *errno);
            // A sync that has failed is counted by itself. It doesn't say of any page that it can't be stored.
            let evidence = if part.end - part.start == 1 && known {
                Evidence::Alone
            } else {
                Evidence::Together
            };
            let from = unwritten.partition_point(|(page, _)| *page < part.start);
            let until = unwritten.partition_point(|(page, _)| *page < part.end);
            self.writeback
                .failures
                .note(&unwritten[from..until], *errno, evidence);
            let range = bytes_of(part);
            tracing::warn!(%errno, start = range.start, end = range.end, "writeback failed; the pages are kept");
        }
        drop(operation);
        self.throttle.written(end.all);
        if self.table.counts().unstable() >= self.limits.unstable_sync {
            self.kick.notify_one();
        }
        end
    }

    /// Gives the backend a run. Returns the pages that the backend doesn't have afterwards.
    async fn write_run(
        &self,
        context: &FaultContext,
        pages: Range<u64>,
        data: FrameRefs,
        may_halve: bool,
    ) -> Failed {
        let submit = pause_point!(context, "cache:writeback:submit", [EIO, ENOSPC, ENOMEM]).await;
        let written = match submit {
            Ok(()) => {
                self.backend
                    .write(context, pages.start * PAGE_BYTES, data)
                    .await
            }
            Err(errno) => Err(errno),
        };
        let failed = match written {
            Ok(()) => Failed::new(),
            Err(errno) if may_halve && submit.is_ok() => {
                self.write_in_halves(context, pages.clone(), errno).await
            }
            Err(errno) => vec![(pages.clone(), errno)],
        };
        match pause_point!(context, "cache:writeback:complete", [EIO, ENOSPC]).await {
            Ok(()) => failed,
            Err(errno) => vec![(pages, errno)],
        }
    }

    /// Settles the pages of a run that has ended.
    fn complete_run(&self, submitted: Submitted, pages: &Range<u64>, failed: Failed) -> RunPages {
        // After the backend's completion, before the pages show it: a sync submitted from here on covers the write.
        let mut completed = self.generations.completed_run(submitted);
        let known = completed.known;
        let failed = match failed.first() {
            None if !known => vec![(pages.clone(), Errno::EIO)],
            Some((_, errno)) if !known => vec![(pages.clone(), *errno)],
            _ => failed,
        };
        let mut parts = failed.iter().map(|(part, _)| part).peekable();
        let mut unwritten = Vec::new();
        for page in pages.clone() {
            parts.next_if(|part| part.end <= page);
            let written = !parts.peek().is_some_and(|part| part.contains(&page));
            match self.complete_page(page, written, completed.generation) {
                Completed::Unstable => completed.unstable(page),
                Completed::Dirty(epoch) => unwritten.push((page, epoch)),
                Completed::Held => {}
            }
        }
        RunPages {
            failed,
            unwritten,
            known,
        }
    }

    /// Settles the state of one page of a run.
    fn complete_page(&self, page: u64, written: bool, generation: u64) -> Completed {
        let pin = epoch::pin();
        let mut slot = self
            .table
            .lock(page, &pin)
            .expect("a page in flight stays in its slot");
        if !written {
            return slot
                .write_failed()
                .map_or(Completed::Held, Completed::Dirty);
        }
        slot.completed(generation);
        if slot.state().has(HELD) {
            Completed::Held
        } else {
            Completed::Unstable
        }
    }
}

/// What became of the pages of a run.
struct RunPages {
    /// The parts that have failed.
    failed: Failed,
    /// The pages of these parts that are dirty again, in order, each with the epoch since which it is dirty.
    unwritten: Vec<(u64, u64)>,
    /// No sync has failed meanwhile.
    known: bool,
}

/// What became of a page of a run.
enum Completed {
    /// What was written waits for a sync, though the page may be dirty again.
    Unstable,
    /// It is dirty, since this epoch.
    Dirty(u64),
    /// Its blocker decides.
    Held,
}
