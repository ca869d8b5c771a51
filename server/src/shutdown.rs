//! Stopping: in good order when asked once, at once when asked twice.
//!
//! The order: the server stops accepting connections; sessions answer what they have received, then close; every export
//! is flushed and closed. Each step has a deadline ([`crate::limits`]), so a client that doesn't read and a disk that
//! doesn't answer delay the end but don't prevent it. If something isn't durable at the end, the server reports it and
//! exits with status 1.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use futures_util::future::join_all;
use tokio_util::task::TaskTracker;
use weir_cache::{CloseError, PageCache};
use weir_faults::Errno;

use crate::cli::counted;
use crate::connection::ConnectionTable;
use crate::export::{Export, ExportTable};
use crate::limits::{DRAIN_TIMEOUT, FINAL_FLUSH_TIMEOUT};
use crate::size::Size;

mod waiting;

/// Why a stop wasn't clean.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// Some exports could not be flushed.
    #[error("{0}; what was written since the last flush that succeeded may be lost{hint}", hint = .0.hint())]
    Close(Failures),
    /// A second signal came.
    #[error("stopped at once by a second {signal}; {dirty}")]
    Forced {
        /// Its name.
        signal: Cow<'static, str>,
        /// What was dirty.
        dirty: Dirty,
    },
}

/// Exports that could not be closed, each with its reason.
#[derive(Debug)]
pub struct Failures(Vec<(String, CloseError)>);

impl Failures {
    /// What to do before the next stop, where a hint is possible.
    fn hint(&self) -> &'static str {
        let full = self.0.iter().any(|(_, error)| {
            matches!(
                error,
                CloseError::Flush {
                    errno: Errno::ENOSPC | Errno::EDQUOT,
                    ..
                }
            )
        });
        if full {
            ". Make room where the image lies; before a server is stopped, `weir export flush NAME` says whether that is enough, and \
             nothing is lost while it runs"
        } else {
            ""
        }
    }
}

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, error)) in self.0.iter().enumerate() {
            let separator = if index > 0 { "; " } else { "" };
            write!(f, "{separator}export {name:?}: {error}")?;
        }
        Ok(())
    }
}

/// What isn't durable, by export: bytes of pages, and whether the store has taken something since its last sync.
#[derive(Debug)]
pub struct Dirty(Vec<(String, u64, bool)>);

impl Dirty {
    fn of(exports: &ExportTable) -> Self {
        let dirty = exports.iter().map(|export| {
            let (name, cache) = (export.name.clone(), &export.cache);
            (name, dirty_bytes(cache), !cache.is_synced())
        });
        Self(
            dirty
                .filter(|(_, bytes, unsynced)| *bytes > 0 || *unsynced)
                .collect(),
        )
    }
}

impl fmt::Display for Dirty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("nothing was dirty");
        }
        f.write_str("not durable:")?;
        for (index, (name, bytes, _)) in self.0.iter().enumerate() {
            let separator = if index > 0 { "," } else { "" };
            match bytes {
                // It has no pages that could be counted.
                0 => write!(
                    f,
                    "{separator} what the store of export {name:?} has taken since its last sync"
                )?,
                bytes => write!(
                    f,
                    "{separator} {bytes} bytes ({}) of export {name:?}",
                    Size(*bytes)
                )?,
            }
        }
        Ok(())
    }
}

/// The bytes of an export that aren't durable.
pub(crate) fn dirty_bytes(cache: &PageCache) -> u64 {
    let stats = cache.stats();
    let pages = stats.dirty_pages + stats.in_flight_pages + stats.held_pages + stats.unstable_pages;
    pages * weir_cache::PAGE_SIZE as u64
}

/// Waits for `sessions`, which were told to end, then flushes and closes `exports`. It ends at once when `insistence`
/// is ready, which gives the name of the second signal.
///
/// # Errors
/// Something isn't durable.
pub async fn finish(
    sessions: &TaskTracker,
    connections: &ConnectionTable,
    exports: &ExportTable,
    insistence: impl Future<Output = Cow<'static, str>>,
) -> Result<(), StopError> {
    tokio::select! {
        outcome = finish_in_order(sessions, connections, exports) => outcome,
        signal = insistence => Err(StopError::Forced { signal, dirty: Dirty::of(exports) }),
        never = waiting::report(connections, exports) => match never {},
    }
}

async fn finish_in_order(
    sessions: &TaskTracker,
    connections: &ConnectionTable,
    exports: &ExportTable,
) -> Result<(), StopError> {
    sessions.close();
    if tokio::time::timeout(DRAIN_TIMEOUT, sessions.wait())
        .await
        .is_err()
    {
        // No connection may be served once the exports are closed: its answers would be untrue.
        let killed = connections.kill_all();
        tracing::warn!(
            "closing {} that didn't end within {} s",
            counted(killed, "connection"),
            DRAIN_TIMEOUT.as_secs()
        );
        sessions.wait().await;
    }
    let closing = exports.iter().map(|export| close(Arc::clone(export)));
    let failures: Vec<_> = join_all(closing).await.into_iter().flatten().collect();
    if failures.is_empty() {
        Ok(())
    } else {
        Err(StopError::Close(Failures(failures)))
    }
}

async fn close(export: Arc<Export>) -> Option<(String, CloseError)> {
    match export.cache.close(FINAL_FLUSH_TIMEOUT).await {
        Ok(()) => {
            tracing::info!("export {:?}: flushed and closed", export.name);
            None
        }
        Err(error) => Some((export.name.clone(), error)),
    }
}

#[cfg(test)]
mod tests;
