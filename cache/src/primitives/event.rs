//! An event that happens once.

use tokio::sync::Notify;

use std::sync::atomic::{AtomicBool, Ordering};

/// Happens once; any number of tasks wait for it, before or after.
#[derive(Debug, Default)]
pub(crate) struct Event {
    happened: AtomicBool,
    notify: Notify,
}

impl Event {
    /// Lets it happen.
    pub(crate) fn set(&self) {
        self.happened.store(true, Ordering::Release);
        self.notify.notify_waiters();
    }

    /// Completes once it has happened. Cancel safe.
    pub(crate) async fn wait(&self) {
        while !self.happened.load(Ordering::Acquire) {
            let notified = self.notify.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if self.happened.load(Ordering::Acquire) {
                return;
            }
            notified.await;
        }
    }
}
