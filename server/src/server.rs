//! A running server: what it serves, its clients, and its injected faults.
//!
//! [`serve`](crate::serve) makes one and brings it to its end. Sessions and the admin port work on its parts.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use weir_faults::Faults;

use crate::connection::ConnectionTable;
use crate::descriptors;
use crate::error::Error;
use crate::export::{self, ExportTable, OpenExportError};
use crate::listener::{Admission, AllowList, Listener, accept_loop};
use crate::resources::MachineMemory;
use crate::session::SessionContext;
use crate::settings::{AdminPort, Settings};
use crate::size::Size;

mod remarks;

/// A running server: what its sessions and its admin port work on.
#[derive(Debug)]
pub struct Server {
    /// What is served.
    pub exports: Arc<ExportTable>,
    /// Injected faults.
    pub faults: Faults,
    /// The open connections.
    pub connections: Arc<ConnectionTable>,
    /// Cancelled when the server is to stop.
    pub stop: CancellationToken,
}

impl Server {
    /// Opens the exports. It logs nothing before all are open, so a refusal is one line.
    ///
    /// # Errors
    /// The first export that can't be opened, and why.
    pub async fn open(settings: &Settings, faults: Faults) -> Result<Self, Error> {
        let mut exports = Vec::new();
        for settings in &settings.exports {
            let refused = |source| Error::Export {
                name: settings.name.clone(),
                keys: settings.keys,
                source,
            };
            let export = export::open(settings, &faults).await.map_err(refused)?;
            let counted = export.cache.count_space().await;
            counted.map_err(|errno| refused(OpenExportError::Space(errno)))?;
            exports.push(export);
        }
        let exports: Arc<ExportTable> = Arc::new(exports.into_iter().collect());
        report(settings, &exports);
        Ok(Self {
            exports,
            faults,
            connections: Arc::default(),
            stop: CancellationToken::new(),
        })
    }

    /// Lets clients in, each of them a task of `sessions`. The returned tasks end when the server is to stop.
    pub fn accept(
        &self,
        settings: &Settings,
        listeners: Vec<Listener>,
        sessions: &TaskTracker,
    ) -> TaskTracker {
        let has_admin_port = settings.admin != AdminPort::Closed;
        let (connections_max, remark) =
            descriptors::connections_max(settings.max_connections, has_admin_port);
        if let Some(remark) = remark {
            tracing::warn!("{remark}");
        }
        let admission = Arc::new(Admission::new(
            AllowList::new(settings.allow.clone()),
            connections_max,
        ));
        let context = Arc::new(SessionContext {
            exports: Arc::clone(&self.exports),
            faults: self.faults.clone(),
            timeouts: settings.timeouts,
            connections: Arc::clone(&self.connections),
            shutdown: self.stop.clone(),
        });
        let acceptors = TaskTracker::new();
        for listener in listeners {
            acceptors.spawn(accept_loop(
                listener,
                Arc::clone(&admission),
                Arc::clone(&context),
                sessions.clone(),
                self.stop.clone(),
            ));
        }
        acceptors
    }
}

/// Logs what was opened, and what the user should know about it.
fn report(settings: &Settings, exports: &ExportTable) {
    if let Some(memory) = settings.memory {
        tracing::info!(
            "--cache-size defaults to a share of {} MiB of memory",
            memory.bytes >> 20
        );
    }
    if let Some(remark) = remarks::of_memory(&settings.exports, MachineMemory::detect()) {
        tracing::warn!("{remark}");
    }
    for settings in &settings.exports {
        let Some(export) = exports.get(&settings.name) else {
            continue;
        };
        let size = export.cache.size();
        tracing::info!(
            "export {:?}: {}, {size} bytes ({}), cache {} MiB ({:?})",
            export.name,
            export.source,
            Size(size),
            settings.cache_bytes >> 20,
            settings.mode,
        );
        for remark in remarks::of(size, export.cache.quota())
            .iter()
            .chain(&export.remarks)
        {
            tracing::warn!("{}: {remark}", export.source);
        }
    }
}
