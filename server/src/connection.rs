//! The connections that are open, for the admin port and for statistics.
//!
//! A session counts in plain variables and publishes them once per batch into its own [`Connection`], whose counters
//! have one writer: a relaxed load and store each, no locked instruction, no line shared with another session. A reader
//! sums them up. When a connection ends, its counts are added to the totals of its export under the table's lock, so
//! that a reader under the same lock sees every request exactly once.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::SystemTime;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

mod counts;

pub(crate) use counts::Counters;
pub use counts::{CommandCounts, Counts, LATENCY_BUCKETS};

/// One open connection.
#[derive(Debug)]
pub struct Connection {
    id: u64,
    peer: String,
    since: SystemTime,
    /// The export's name, once the handshake has chosen one.
    export: OnceLock<String>,
    counters: Counters,
    /// Wakes the session up: it was killed, or the server is shutting down.
    stop: CancellationToken,
    /// Cancelled (before `stop`) when the session is to stop without another word.
    kill: CancellationToken,
}

impl Connection {
    /// Its number, unique in the life of the server, from 1.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The client's address, as text.
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// Cancelled when the session is to stop, for whatever reason.
    pub(crate) fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Whether it is to stop at once, answering nothing more.
    pub(crate) fn is_killed(&self) -> bool {
        self.kill.is_cancelled()
    }

    /// Cancelled when the session is to stop at once. Separate from [`Self::stop`], because a kill may follow a
    /// shutdown.
    pub(crate) fn kill_token(&self) -> &CancellationToken {
        &self.kill
    }

    /// The export's name, once the handshake has chosen one.
    pub(crate) fn export(&self) -> Option<&str> {
        self.export.get().map(String::as_str)
    }

    /// What it has done so far, at most one batch behind.
    pub(crate) fn counts(&self) -> Counts {
        self.counters.load()
    }

    /// Tells the table which export the client chose.
    pub(crate) fn set_export(&self, name: &str) {
        // A session chooses once; a second call would be ignored.
        let _ = self.export.set(name.to_owned());
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    fn kill(&self) {
        self.kill.cancel();
        self.stop.cancel();
    }

    fn info(&self) -> ConnectionInfo {
        ConnectionInfo {
            id: self.id,
            peer: self.peer.clone(),
            export: self.export.get().cloned(),
            since: self.since,
            under_way: self.counters.under_way(),
            counts: self.counters.load(),
        }
    }
}

/// What can be said about a connection at one moment.
#[derive(Clone, Debug)]
pub struct ConnectionInfo {
    /// Its number.
    pub id: u64,
    /// The client's address.
    pub peer: String,
    /// The export's name, once the handshake has chosen one.
    pub export: Option<String>,
    /// When it was accepted.
    pub since: SystemTime,
    /// Requests that are being worked on.
    pub under_way: usize,
    /// What it has done so far, at most one batch behind.
    pub counts: Counts,
}

/// All open connections of a server, and what the closed ones have done.
#[derive(Debug, Default)]
pub struct ConnectionTable {
    next_id: AtomicU64,
    inner: Mutex<Inner>,
    /// Raised whenever one leaves the table.
    departures: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Inner {
    open: BTreeMap<u64, Arc<Connection>>,
    /// What closed connections have done, by export.
    closed: HashMap<String, Counts>,
}

impl ConnectionTable {
    /// No connections.
    pub fn new() -> Self {
        Self::default()
    }

    /// Enters a connection, which leaves the table when the guard is dropped. `shutdown` is the server's.
    pub fn open(self: &Arc<Self>, peer: String, shutdown: &CancellationToken) -> ConnectionGuard {
        let connection = Arc::new(Connection {
            id: self.next_id.fetch_add(1, Ordering::Relaxed) + 1,
            peer,
            since: SystemTime::now(),
            export: OnceLock::new(),
            counters: Counters::default(),
            stop: shutdown.child_token(),
            kill: CancellationToken::new(),
        });
        self.lock()
            .open
            .insert(connection.id, Arc::clone(&connection));
        ConnectionGuard {
            table: Arc::clone(self),
            connection,
        }
    }

    /// How many connections are open.
    pub fn len(&self) -> usize {
        self.lock().open.len()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every open connection, oldest first.
    pub fn list(&self) -> Vec<ConnectionInfo> {
        self.lock()
            .open
            .values()
            .map(|connection| connection.info())
            .collect()
    }

    /// Closes a connection at once, answering nothing more; says whether there was one of that number.
    pub fn kill(&self, id: u64) -> bool {
        let connection = self.lock().open.get(&id).cloned();
        connection.inspect(|connection| connection.kill()).is_some()
    }

    /// Closes every connection at once; says how many there were.
    pub fn kill_all(&self) -> usize {
        let open: Vec<_> = self.lock().open.values().cloned().collect();
        open.iter().for_each(|connection| connection.kill());
        open.len()
    }

    /// Closes every connection to `export` at once and waits until they have left the table; says how many there were.
    /// Cancel safe: the connections are closed in any case.
    pub async fn close_export(&self, export: &str) -> usize {
        let mut departures = self.departures.subscribe();
        let ours: Vec<_> = {
            let inner = self.lock();
            let ours = inner
                .open
                .values()
                .filter(|connection| connection.export() == Some(export));
            ours.cloned().collect()
        };
        ours.iter().for_each(|connection| connection.kill());
        while ours
            .iter()
            .any(|connection| self.lock().open.contains_key(&connection.id))
        {
            // The sender lives in `self`: this can only be a departure.
            drop(departures.changed().await);
        }
        ours.len()
    }

    /// What all connections to an export have done, open and closed.
    pub fn export_counts(&self, export: &str) -> Counts {
        let inner = self.lock();
        let mut counts = inner.closed.get(export).cloned().unwrap_or_default();
        let ours = inner
            .open
            .values()
            .filter(|connection| connection.export.get().is_some_and(|name| name == export));
        ours.for_each(|connection| counts.add(&connection.counters.load()));
        counts
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self, connection: &Connection) {
        let mut inner = self.lock();
        inner.open.remove(&connection.id);
        if let Some(export) = connection.export.get() {
            inner
                .closed
                .entry(export.clone())
                .or_default()
                .add(&connection.counters.load());
        }
        drop(inner);
        self.departures.send_modify(|count| *count += 1);
    }
}

/// Keeps a connection in its table.
#[derive(Debug)]
pub struct ConnectionGuard {
    table: Arc<ConnectionTable>,
    connection: Arc<Connection>,
}

impl std::ops::Deref for ConnectionGuard {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.table.close(&self.connection);
    }
}

#[cfg(test)]
mod tests;
