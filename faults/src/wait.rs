//! Waits that injected faults impose, and what ends them early: a release, a rule removed, a device interrupted.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::watch;

/// The ends of one wait. Whichever is reached first ends it for good.
///
/// Each is a watch on an epoch, subscribed when the fault was decided: an epoch raised between the decision and the
/// wait is not missed. A sender that has gone ends the wait, too.
#[derive(Debug)]
pub(crate) struct Ends {
    release: watch::Receiver<u64>,
    interrupt: Option<watch::Receiver<u64>>,
    over: bool,
}

impl Ends {
    pub(crate) fn new(
        release: watch::Receiver<u64>,
        interrupt: Option<watch::Receiver<u64>>,
    ) -> Self {
        Self {
            release,
            interrupt,
            over: false,
        }
    }

    /// Waits for an end.
    pub(crate) async fn reached(&mut self) {
        if self.over {
            return;
        }
        match &mut self.interrupt {
            None => drop(self.release.changed().await),
            Some(interrupt) => either(self.release.changed(), interrupt.changed()).await,
        }
        self.over = true;
    }

    /// Waits for an end, for `delay` at most.
    pub(crate) async fn within(&mut self, delay: Duration) {
        // Both outcomes mean that the delay is over.
        drop(tokio::time::timeout(delay, self.reached()).await);
    }
}

/// Waits for the first of two futures.
async fn either<A: Future, B: Future>(first: A, second: B) {
    let (mut first, mut second) = (pin!(first), pin!(second));
    poll_fn(|cx| {
        if first.as_mut().poll(cx).is_ready() || second.as_mut().poll(cx).is_ready() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}
