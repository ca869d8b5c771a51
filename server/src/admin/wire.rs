//! What goes over the admin port, in JSON: the server writes it and the `weir` program reads it, using the same types.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use weir_cache::{CacheStats, QuotaStats, WritebackTrouble};
use weir_faults::DeviceListing;

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReport {
    /// One line.
    pub error: String,
}

/// A server at a glance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusReport {
    /// Weir's version.
    pub version: String,
    /// The server's process number.
    pub pid: u32,
    /// Milliseconds since the admin port opened.
    pub uptime_ms: u64,
    /// All exports.
    pub exports: Vec<ExportReport>,
    /// All open connections.
    pub connections: Vec<ConnectionReport>,
    /// What is set to go wrong.
    pub faults: FaultSummary,
    /// Lines of the log that no reader took.
    #[serde(default)]
    pub log_lines_dropped: u64,
}

/// What is set to go wrong, counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultSummary {
    /// Rules in force.
    pub rules: usize,
    /// Requests of a replay, and those of them that have not come yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay: Option<ReplayProgress>,
    /// Points that are armed.
    pub points_armed: usize,
    /// Firings so far.
    pub events: u64,
}

/// How far a replay is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayProgress {
    /// Requests that it is about.
    pub requests: u64,
    /// Those that have not come yet.
    pub left: u64,
}

/// What the store refuses at present.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TroubleReport {
    /// The last error's name.
    pub error: String,
    /// Whether syncs fail; else writes do.
    pub syncs: bool,
    /// Milliseconds since it began.
    pub for_ms: u64,
    /// How often it has failed.
    pub failures: u64,
}

impl From<WritebackTrouble> for TroubleReport {
    fn from(trouble: WritebackTrouble) -> Self {
        Self {
            error: trouble.errno.to_string(),
            syncs: trouble.syncs,
            for_ms: u64::try_from(trouble.lasting.as_millis()).unwrap_or(u64::MAX),
            failures: trouble.failures,
        }
    }
}

/// One export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportReport {
    /// What clients ask for; empty for the default export.
    pub name: String,
    /// A text for people.
    pub description: String,
    /// Where the data is.
    pub source: String,
    /// Bytes.
    pub size: u64,
    /// Whether it was opened for reading only.
    pub read_only: bool,
    /// Whether `weir device power-cut` is possible.
    pub power_cut: bool,
    /// What its store refuses, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<TroubleReport>,
    /// Open connections to it.
    pub connections: usize,
    /// What was done on all connections, closed ones too.
    pub traffic: Traffic,
    /// Its quota; `null` without one.
    pub space: Option<SpaceReport>,
    /// Its cache.
    pub cache: CacheReport,
    /// Bytes that fault rules and freezes keep of its clients' data, beside the cache.
    #[serde(default)]
    pub held_bytes: u64,
    /// What was set for it as a device.
    pub device: DeviceListing,
}

/// What an export may allocate, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpaceReport {
    /// What it may allocate.
    pub quota: u64,
    /// What it has allocated or promised. This exceeds the quota if it was higher from the start.
    pub used: u64,
    /// What is left.
    pub free: u64,
}

impl From<QuotaStats> for SpaceReport {
    fn from(stats: QuotaStats) -> Self {
        Self {
            quota: stats.quota,
            used: stats.charged,
            free: stats.quota.saturating_sub(stats.charged),
        }
    }
}

/// What was done for clients.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Requests answered.
    pub requests: u64,
    /// Requests answered with an error.
    pub errors: u64,
    /// Bytes received, headers included.
    pub received: u64,
    /// Bytes sent, headers included.
    pub sent: u64,
    /// By command; those never asked for are left out.
    pub commands: BTreeMap<String, CommandTraffic>,
}

/// What was done for one command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandTraffic {
    /// Requests answered.
    pub requests: u64,
    /// Bytes that they asked for.
    pub bytes: u64,
    /// Requests answered with an error.
    pub errors: u64,
}

/// One open connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionReport {
    /// Its number.
    pub id: u64,
    /// The client's address.
    pub peer: String,
    /// The export that it uses, once it has chosen one.
    pub export: Option<String>,
    /// When it was accepted, in milliseconds since 1970.
    pub since_ms: u64,
    /// What was done on it.
    pub traffic: Traffic,
}

/// How many were concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// How many.
    pub count: usize,
}

/// A rule to add.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewRule {
    /// Its words.
    pub rule: String,
}

/// A rule that was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleAdded {
    /// Its number.
    pub id: u64,
}

/// Events to feed back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplayScript {
    /// In their text form, one on a line.
    pub script: String,
}

/// What a script comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayReport {
    /// Requests that will meet their fates again.
    pub requests: usize,
    /// Events that identify no request.
    pub skipped: usize,
}

/// What to do to an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "kebab-case", deny_unknown_fields)]
pub enum ExportAction {
    /// Make everything durable.
    Flush,
    /// Write back, then drop every page.
    DropCache,
    /// Change its size.
    Resize {
        /// In bytes.
        size: u64,
        /// It may become smaller; what lies beyond is lost then.
        #[serde(default)]
        shrink: bool,
    },
    /// Insert zeroes; what follows moves up.
    InsertRange {
        /// In bytes.
        offset: u64,
        /// In bytes.
        length: u64,
    },
    /// Remove bytes; what follows moves down.
    CollapseRange {
        /// In bytes.
        offset: u64,
        /// In bytes.
        length: u64,
    },
}

/// What to do to points.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "kebab-case", deny_unknown_fields)]
pub enum PointAction {
    /// Obey a query.
    Set {
        /// Its words.
        query: String,
    },
    /// Release requests that are paused or delayed.
    Release {
        /// At which points; all without words.
        #[serde(default)]
        query: String,
    },
    /// Disarm all.
    Reset,
}

/// What to do to an export as a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "kebab-case", deny_unknown_fields)]
pub enum DeviceAction {
    /// Lose what no flush has covered.
    PowerCut {
        /// The words after the name.
        #[serde(default)]
        options: String,
    },
    /// Every request fails.
    Offline,
    /// The end of that.
    Online,
    /// Every request waits.
    Freeze,
    /// The end of that.
    Thaw,
    /// Bad sectors.
    BadAdd {
        /// `A..B`, in bytes.
        range: String,
    },
    /// Good ones again.
    BadRm {
        /// `A..B`, in bytes.
        range: String,
    },
    /// Whether requests that would change it fail.
    ReadOnly {
        /// Whether they fail.
        on: bool,
    },
}

/// What a power cut has done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PowerCutReport {
    /// The words that do the same again, seed included.
    pub options: String,
    /// Connections that were closed.
    pub closed: usize,
}

macro_rules! cache_report {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// A cache's figures; pages are 4 KiB.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub struct CacheReport {
            $($(#[$doc])* pub $name: u64,)+
        }

        impl From<CacheStats> for CacheReport {
            fn from(stats: CacheStats) -> Self {
                Self { $($name: stats.$name,)+ }
            }
        }
    };
}

cache_report! {
    /// Pages that it may hold.
    frames,
    /// Those that are free.
    free_frames,
    /// Bytes of bookkeeping.
    metadata_bytes,
    /// Pages present.
    resident_pages,
    /// Pages newer than what was submitted.
    dirty_pages,
    /// Pages submitted and not completed.
    in_flight_pages,
    /// Pages held by a trim, zero or direct write.
    held_pages,
    /// Pages written and not synced.
    unstable_pages,
    /// Pages that readers found present.
    hits,
    /// Pages that readers waited for.
    misses,
    /// Clean pages given up for others.
    evictions,
    /// Pages written back.
    writeback_pages,
    /// Writes that did so.
    writeback_runs,
    /// Those that failed.
    writeback_errors,
    /// Syncs of the store.
    syncs,
    /// Failed syncs that may have lost acknowledged data.
    losses,
    /// Pages read ahead.
    readahead_pages,
    /// Those that were asked for afterwards.
    readahead_used,
    /// Those that never were.
    readahead_wasted,
    /// Writes slowed or stopped because too much was dirty.
    throttled,
    /// Requests that waited for memory.
    memory_waits,
    /// Requests that waited for an add lock.
    lock_waits,
}
