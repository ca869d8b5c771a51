//! Attending to signals while the server runs, and while it stops.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::time::Instant;

use super::Server;
use crate::cli::counted;
use crate::connection::ConnectionTable;
use crate::export::ExportTable;
use crate::limits::INSISTENCE_AFTER;
use crate::shutdown::dirty_bytes;
use crate::signals::{Sent, Signals};

/// Waits for the signal that matters, and does what the others ask for meanwhile.
#[derive(Debug)]
pub(super) struct Attendant {
    signals: Signals,
    config: Option<PathBuf>,
    exports: Arc<ExportTable>,
    connections: Arc<ConnectionTable>,
    /// When the first signal came that insists on a stop if it is repeated.
    asked: Option<Instant>,
}

impl Attendant {
    pub(super) fn new(signals: Signals, config: Option<&Path>, server: &Server) -> Self {
        Self {
            signals,
            config: config.map(Path::to_owned),
            exports: Arc::clone(&server.exports),
            connections: Arc::clone(&server.connections),
            asked: None,
        }
    }

    /// Waits until the server is told to stop. Returns the signal. Cancel safe.
    pub(super) async fn stop(&mut self) -> Cow<'static, str> {
        loop {
            match self.signals.next().await {
                Sent::Stop { signal, counts } => {
                    self.note(counts);
                    return signal;
                }
                other => self.attend(&other),
            }
        }
    }

    /// Waits until a server that is stopping is told to stop at once. Returns the signal. Cancel safe.
    pub(super) async fn insistence(&mut self) -> Cow<'static, str> {
        loop {
            match self.signals.next().await {
                Sent::Stop { signal, counts } if counts && self.insists() => return signal,
                Sent::Stop { signal, counts } => {
                    self.note(counts);
                    tracing::info!("{signal}: stopping already");
                }
                other => self.attend(&other),
            }
        }
    }

    fn note(&mut self, counts: bool) {
        if counts {
            self.asked.get_or_insert_with(Instant::now);
        }
    }

    /// Whether another signal means more than the first. A signal that comes together with the first is the same, sent
    /// twice.
    fn insists(&self) -> bool {
        self.asked
            .is_some_and(|asked| asked.elapsed() >= INSISTENCE_AFTER)
    }

    fn attend(&self, sent: &Sent) {
        match sent {
            Sent::Report => self.report(),
            Sent::Reload => {
                let file = self
                    .config
                    .as_deref()
                    .unwrap_or(Path::new("FILE"))
                    .display();
                tracing::warn!(
                    "SIGHUP: goes on with the configuration that it has, as {file} is read at the start only; try it with `weir config check {file}`, then stop this server with SIGTERM and start it again"
                );
            }
            Sent::Nothing(signal) => tracing::info!("{signal}: means nothing to this server"),
            Sent::Stop { .. } => unreachable!("whoever waits for one has it"),
        }
    }

    /// One line for each export and connection.
    fn report(&self) {
        for export in self.exports.iter() {
            let stats = export.cache.stats();
            tracing::info!(
                "state: export {:?}: {}, {} bytes, {} dirty, {} of {} frames free",
                export.name,
                export.source,
                export.cache.size(),
                dirty_bytes(&export.cache),
                stats.free_frames,
                stats.frames,
            );
        }
        let connections = self.connections.list();
        for connection in &connections {
            tracing::info!(
                "state: connection {}: {}, export {:?}, {}, {}, {} bytes received, {} sent",
                connection.id,
                connection.peer,
                connection.export.as_deref().unwrap_or("none yet"),
                counted(connection.counts.requests(), "request"),
                counted(connection.counts.errors(), "error"),
                connection.counts.received,
                connection.counts.sent,
            );
        }
        tracing::info!("state: {}", counted(connections.len(), "connection"));
    }
}
