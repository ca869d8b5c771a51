//! `weir status`: a server at a glance.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::client::AdminOptions;
use super::table::{bytes, counted};
use super::time::Time;
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
    /// Whatever the server or standard output reports.
    pub fn run(self) -> Result<ExitCode, Error> {
        self.admin.run(async |client| {
            let report: StatusReport = client.get("/v1/status").await?;
            Ok(client.show(&report, table))
        })
    }
}

fn table(report: &StatusReport) -> String {
    let up = Time(Duration::from_secs(report.uptime_ms / 1000));
    let mut text = format!(
        "weir {}, process {}, up {up}\n\n",
        report.version, report.pid
    );
    text += &export::table(&report.exports);
    text.push('\n');
    text += &connection::table(&report.connections);
    let faults = report.faults;
    // Writing to a string can't fail.
    let _ = writeln!(
        text,
        "\nfaults: {}, {} armed, {} fired",
        counted(faults.rules, "rule"),
        counted(faults.points_armed, "point"),
        faults.events
    );
    if let Some(ReplayProgress { requests, left }) = faults.replay {
        let _ = writeln!(
            text,
            "replay: {left} of {} {} still to come",
            counted(requests, "request"),
            if requests == 1 { "is" } else { "are" }
        );
    }
    if report.log_lines_dropped > 0 {
        let _ = writeln!(
            text,
            "{} of the log {} dropped, as nobody reads the server's standard error",
            counted(report.log_lines_dropped, "line"),
            if report.log_lines_dropped == 1 {
                "was"
            } else {
                "were"
            }
        );
    }
    for export in &report.exports {
        if export.cache.losses > 0 {
            let _ = writeln!(
                text,
                "export {:?} may have lost acknowledged data: {} of direct writes or zeroes",
                export.name,
                counted(export.cache.losses, "failed sync")
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

/// Says in words that the store takes nothing.
fn in_trouble(export: &ExportReport, trouble: &TroubleReport) -> String {
    let cache = &export.cache;
    let waiting =
        cache.dirty_pages + cache.in_flight_pages + cache.held_pages + cache.unstable_pages;
    format!(
        "export {:?} can't {} its store: {}, {} in {}; {} wait",
        export.name,
        if trouble.syncs { "sync" } else { "write to" },
        trouble.error,
        counted(trouble.failures, "time"),
        Time(Duration::from_secs(trouble.for_ms / 1000)),
        bytes(waiting * weir_cache::PAGE_BYTES),
    )
}

#[cfg(test)]
mod tests;
