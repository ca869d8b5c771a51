//! `weir status`: a server at a glance.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::client::AdminOptions;
use super::table::bytes;
use super::{connection, export};
use crate::admin::wire::{ExportReport, ReplayProgress, StatusReport, TroubleReport};
use crate::error::Error;
use crate::limits::HELD_BYTES_MAX;

/// `weir status`
#[derive(Args, Debug)]
pub struct StatusCommand {
    #[command(flatten)]
    admin: AdminOptions,
}

impl StatusCommand {
    /// Asks and prints.
    ///
    /// # Errors
    /// Whatever the server or standard output says.
    pub fn run(self) -> Result<ExitCode, Error> {
        self.admin.run(async |client| {
            let report: StatusReport = client.get("/v1/status").await?;
            Ok(client.show(&report, table))
        })
    }
}

fn table(report: &StatusReport) -> String {
    let up = Duration::from_secs(report.uptime_ms / 1000);
    let mut text = format!(
        "weir {}, process {}, up {up:?}\n\n",
        report.version, report.pid
    );
    text += &export::table(&report.exports);
    text.push('\n');
    text += &connection::table(&report.connections);
    let faults = report.faults;
    // Writing to a string can't fail.
    let _ = writeln!(
        text,
        "\nfaults: {} rules, {} points armed, {} fired",
        faults.rules, faults.points_armed, faults.events
    );
    if let Some(ReplayProgress { requests, left }) = faults.replay {
        let _ = writeln!(
            text,
            "replay: {left} of {requests} requests are still to come"
        );
    }
    if report.log_lines_dropped > 0 {
        let _ = writeln!(
            text,
            "{} lines of the log were dropped, as nobody reads the server's standard error",
            report.log_lines_dropped
        );
    }
    for export in &report.exports {
        if export.cache.losses > 0 {
            let _ = writeln!(
                text,
                "export {:?} may have lost acknowledged data: {} failed syncs of direct writes or zeroes",
                export.name, export.cache.losses
            );
        }
        if let Some(trouble) = &export.trouble {
            let _ = writeln!(text, "{}", in_trouble(export, trouble));
        }
        if export.held_bytes > 0 {
            let _ = writeln!(
                text,
                "export {:?}: rules and freezes keep {} of its clients' data, {} at most of WRITEs and as much of READs",
                export.name,
                bytes(export.held_bytes),
                bytes(HELD_BYTES_MAX as u64),
            );
        }
        let device = &export.device;
        let states = [
            ("offline", device.offline),
            ("frozen", device.frozen),
            ("read-only", device.read_only),
            ("with bad sectors", !device.bad.is_empty()),
        ];
        for (state, _) in states.iter().filter(|(_, set)| *set) {
            let _ = writeln!(text, "export {:?} is {state}", export.name);
        }
    }
    text
}

/// That the store takes nothing, in words.
fn in_trouble(export: &ExportReport, trouble: &TroubleReport) -> String {
    let cache = &export.cache;
    let waiting =
        cache.dirty_pages + cache.in_flight_pages + cache.held_pages + cache.unstable_pages;
    format!(
        "export {:?} can't {} its store: {}, {} times in {:?}; {} wait",
        export.name,
        if trouble.syncs { "sync" } else { "write to" },
        trouble.error,
        trouble.failures,
        Duration::from_secs(trouble.for_ms / 1000),
        bytes(waiting * weir_cache::PAGE_BYTES),
    )
}

#[cfg(test)]
mod tests;
