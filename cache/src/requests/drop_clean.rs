//! Dropping what is clean, so that the next reads ask the store.

use std::ops::Range;
use std::sync::Arc;

use crossbeam_epoch as epoch;
use weir_faults::{Errno, RequestKinds};

use crate::add_lock::BlockGuard;
use crate::frame::PAGE_BYTES;
use crate::pace::{Pace, STEPS_AT_ONCE};
use crate::page_cache::{PageCache, bytes_of};

impl PageCache {
    /// Writes everything back and drops every page that is clean then. Cancel safe.
    ///
    /// # Errors
    /// What kept the flush from succeeding; then nothing is dropped.
    pub async fn drop_clean(self: &Arc<Self>) -> Result<(), Errno> {
        self.flush(&self.background.within(RequestKinds::DROP))
            .await?;
        let pages = 0..self.size().div_ceil(PAGE_BYTES);
        if pages.is_empty() {
            return Ok(());
        }
        let guard = self.add_lock.block_whole(bytes_of(&pages)).await;
        self.drop_clean_pages(&guard, &pages).await;
        drop(guard);
        Ok(())
    }

    async fn drop_clean_pages(&self, guard: &BlockGuard, pages: &Range<u64>) {
        guard.assert_covers(pages.start * PAGE_BYTES..pages.end * PAGE_BYTES);
        let mut pace = Pace::default();
        let mut next = pages.start;
        loop {
            pace.ask(STEPS_AT_ONCE).await;
            match self.drop_some_clean_pages(next..pages.end) {
                Some(at) => next = at,
                None => return,
            }
        }
    }

    /// Goes as far as one turn allows. Returns where to go on, if not all is done.
    fn drop_some_clean_pages(&self, pages: Range<u64>) -> Option<u64> {
        let mut next = pages.start;
        for _ in 0..STEPS_AT_ONCE {
            let pin = epoch::pin();
            let page = self.table.next_known(&(next..pages.end), &pin)?;
            next = page + 1;
            if let Some(slot) = self.table.lock(page, &pin)
                && slot.state().is_clean()
            {
                drop(slot.evict());
            }
        }
        Some(next)
    }
}
