//! The service manager's watchdog: it kills and restarts a service that doesn't report in time that it is alive.
//!
//! The server reports from its start to its very end, the final flush included, at half of the time that the manager
//! allows (`WATCHDOG_USEC`). It reports only while it works: before each report a task must get its turn to run, and
//! the table of connections, which every session enters, must be free. A runtime whose workers are all stuck reports
//! nothing. A store that hangs is no reason to kill the server: dirty data would be lost.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::MissedTickBehavior;

use crate::connection::ConnectionTable;

/// Feeds the watchdog, if there is one, for as long as the runtime lives.
pub(super) fn start(connections: &Arc<ConnectionTable>) {
    let Some(limit) = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero()) else {
        return;
    };
    let connections = Arc::clone(connections);
    tokio::spawn(feed(
        limit / 2,
        async move || {
            let connections = Arc::clone(&connections);
            let answer = tokio::spawn(async move { connections.len() });
            answer.await.expect("a panic aborts the process");
        },
        async || {
            // It may wait for the service manager to read.
            let said = tokio::task::spawn_blocking(|| sd_notify::notify(&[NotifyState::Watchdog]));
            if let Err(error) = said.await.expect("a panic aborts the process") {
                tracing::debug!("the watchdog can't be told: {error}");
            }
        },
    ));
}

/// Reports at the end of each `period`, once `answers` has finished.
async fn feed(period: Duration, answers: impl AsyncFn(), say: impl AsyncFn()) {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        answers().await;
        say().await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// The reports within so many seconds, at a limit of 10 s.
    async fn said(seconds: u64, answers: impl AsyncFn()) -> u32 {
        let said = Cell::new(0);
        let feeding = feed(Duration::from_secs(5), answers, async || {
            said.set(said.get() + 1);
        });
        let outcome = tokio::time::timeout(Duration::from_secs(seconds), feeding).await;
        assert!(outcome.is_err(), "it never ends");
        said.get()
    }

    #[tokio::test(start_paused = true)]
    async fn twice_in_the_time_allowed() {
        assert_eq!(said(31, async || ()).await, 7);
    }

    #[tokio::test(start_paused = true)]
    async fn only_while_it_answers() {
        let left = Cell::new(3);
        let answers = async || {
            if left.replace(left.get() - 1) == 0 {
                std::future::pending::<()>().await;
            }
        };
        assert_eq!(said(1000, answers).await, 3);
    }
}
