//! The requests of a session that couldn't be answered at once.
//!
//! A new request is begun when the session next polls, before any finished request is looked at. So a disk that has
//! just given its answers works on the next requests while these answers are sent.

use std::collections::VecDeque;
use std::task::{Context, Poll};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use super::slow::{Finished, SlowFuture};

/// Requests under way, in no order.
#[derive(Default)]
pub(super) struct Pending {
    /// Not polled yet. None of its work is done, apart from parts of a WRITE that were begun while its payload was
    /// received.
    new: VecDeque<SlowFuture>,
    begun: FuturesUnordered<SlowFuture>,
}

impl Pending {
    pub(super) fn push(&mut self, request: SlowFuture) {
        self.new.push_back(request);
    }

    pub(super) fn len(&self) -> usize {
        self.new.len() + self.begun.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.new.is_empty() && self.begun.is_empty()
    }

    /// Whether some have not been begun.
    pub(super) fn has_new(&self) -> bool {
        !self.new.is_empty()
    }

    /// Drops all requests.
    pub(super) fn clear(&mut self) {
        self.new.clear();
        self.begun.clear();
    }

    /// Begins those that are new, up to one that is finished at once; `None` when all are begun.
    pub(super) fn begin(&mut self, task: &mut Context<'_>) -> Option<Finished> {
        while let Some(mut request) = self.new.pop_front() {
            match request.as_mut().poll(task) {
                Poll::Ready(finished) => return Some(finished),
                // Polled once more there, so that it can wake up alone.
                Poll::Pending => self.begun.push(request),
            }
        }
        None
    }

    /// The next begun one that has finished; `Pending` also when none is under way.
    pub(super) fn poll_finished(&mut self, task: &mut Context<'_>) -> Poll<Finished> {
        match self.begun.poll_next_unpin(task) {
            Poll::Ready(Some(finished)) => Poll::Ready(finished),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests;
