//! A log of what a stop waits for, if it takes long.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::time::Duration;

use crate::cli::counted;
use crate::connection::ConnectionTable;
use crate::export::ExportTable;
use crate::size::Size;

use super::dirty_bytes;

/// After this time a stop says what it waits for. Clients have less time to leave by themselves.
const FIRST_AFTER: Duration = Duration::from_secs(1);
/// It repeats that after each of these.
const AGAIN_AFTER: Duration = Duration::from_secs(10);

/// Logs it for as long as it is polled.
pub(super) async fn report(connections: &ConnectionTable, exports: &ExportTable) -> Infallible {
    let mut pause = FIRST_AFTER;
    loop {
        tokio::time::sleep(pause).await;
        pause = AGAIN_AFTER;
        tracing::warn!(
            "still stopping: {}; a second SIGTERM or Ctrl-C ends it at once, and what isn't durable is lost",
            what(connections, exports)
        );
    }
}

/// What is left to do for each export.
fn what(connections: &ConnectionTable, exports: &ExportTable) -> String {
    let connections = connections.list();
    let mut text = String::new();
    for export in exports.iter() {
        let ours = connections
            .iter()
            .filter(|connection| connection.export.as_ref() == Some(&export.name));
        let requests: usize = ours.map(|connection| connection.under_way).sum();
        let bytes = dirty_bytes(&export.cache);
        if requests > 0 || bytes > 0 {
            let separator = if text.is_empty() { "" } else { "; " };
            // Writing to a string can't fail.
            let _ = write!(
                text,
                "{separator}export {:?} ({}) has {} of clients to answer and {bytes} bytes ({}) to make durable",
                export.name,
                export.source,
                counted(requests, "request"),
                Size(bytes)
            );
        }
    }
    if text.is_empty() {
        text = format!(
            "{} {} ended, or a store hasn't answered its last sync",
            counted(connections.len(), "connection"),
            if connections.len() == 1 {
                "hasn't"
            } else {
                "haven't"
            }
        );
    }
    text
}

#[cfg(test)]
mod tests;
