//! `weir export`: what is served.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::client::{AdminOptions, named};
use super::table::{Align, Table, bytes, counted, name, percent};
use crate::admin::wire::{Count, ExportAction, ExportReport};
use crate::error::Error;
use crate::size::Size;

/// `weir export`
#[derive(Args, Debug)]
pub struct ExportCommand {
    #[command(flatten)]
    admin: AdminOptions,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Shows the exports and their caches
    List,
    /// Makes everything that was written durable
    Flush {
        /// The export; "" is the default one
        name: String,
    },
    /// Writes back, then drops every page of the cache
    DropCache {
        /// The export; "" is the default one
        name: String,
    },
    /// Changes the size of the device, while it is in use
    ///
    /// Clients that are connected keep the size that they were told: one that is mounted sees a larger device when it
    /// is attached anew, and gets errors beyond the end of one that has become smaller.
    Resize {
        /// The export; "" is the default one
        name: String,
        /// The new size: 512k, 10G
        size: Size,
        /// Lets the device become smaller; what lies beyond the new end is lost
        #[arg(long)]
        shrink: bool,
    },
    /// Inserts zeroes; what follows moves up and the device grows
    InsertRange {
        /// The export; "" is the default one
        name: String,
        /// Where
        offset: Size,
        /// How much
        length: Size,
    },
    /// Removes bytes; what follows moves down and the device shrinks
    CollapseRange {
        /// The export; "" is the default one
        name: String,
        /// Where
        offset: Size,
        /// How much
        length: Size,
    },
}

impl Action {
    /// What it asks, and of which export; `None` for the list.
    fn request(self) -> Option<(String, ExportAction)> {
        Some(match self {
            Self::List => return None,
            Self::Flush { name } => (name, ExportAction::Flush),
            Self::DropCache { name } => (name, ExportAction::DropCache),
            Self::Resize { name, size, shrink } => {
                let size = size.0;
                (name, ExportAction::Resize { size, shrink })
            }
            Self::InsertRange {
                name,
                offset: Size(offset),
                length: Size(length),
            } => (name, ExportAction::InsertRange { offset, length }),
            Self::CollapseRange {
                name,
                offset: Size(offset),
                length: Size(length),
            } => (name, ExportAction::CollapseRange { offset, length }),
        })
    }
}

impl ExportCommand {
    /// Asks and prints.
    ///
    /// # Errors
    /// Whatever the server or standard output reports.
    pub fn run(self) -> Result<ExitCode, Error> {
        let request = self.action.request();
        self.admin.run(async |client| match &request {
            None => {
                let reports: Vec<ExportReport> = client.get("/v1/exports").await?;
                Ok(client.show(&reports, |reports| table(reports)))
            }
            Some((name, action)) => {
                let path = named("/v1/exports", name);
                let before: ExportReport = client.get(&path).await?;
                let count: Count = client.post(&path, action).await?;
                if matches!(action, ExportAction::Flush | ExportAction::DropCache) {
                    return Ok(client.show(&count, |_| String::new()));
                }
                let now: ExportReport = client.get(&path).await?;
                Ok(client.show(&count, |_| resized(&before, &now)))
            }
        })
    }
}

/// What attached clients don't know, and what is gone.
fn resized(before: &ExportReport, now: &ExportReport) -> String {
    let shrunk = now.size < before.size;
    if now.connections == 0 && !shrunk {
        return String::new();
    }
    let mut text = format!("export {:?} has {} bytes now", now.name, now.size);
    if shrunk {
        text += "; what lay beyond is gone";
    }
    if now.connections > 0 {
        let (keep, errors) = match (now.connections, shrunk) {
            (1, false) => ("keeps", ""),
            (1, true) => ("keeps", " and gets errors beyond the end"),
            (_, false) => ("keep", ""),
            (_, true) => ("keep", " and get errors beyond the end"),
        };
        text += &format!(
            "; its {} {keep} the old size{errors}: unmount, detach (nbd-client -d), attach and mount again to see it",
            counted(now.connections, "connection")
        );
    }
    text + "\n"
}

/// One line per export.
pub(super) fn table(reports: &[ExportReport]) -> String {
    let mut table = Table::new([
        ("export", Align::Left),
        ("size", Align::Right),
        ("mode", Align::Left),
        ("used of quota", Align::Right),
        ("free", Align::Right),
        ("clients", Align::Right),
        ("requests", Align::Right),
        ("errors", Align::Right),
        ("cached", Align::Right),
        ("dirty", Align::Right),
        ("hits", Align::Right),
        ("source", Align::Left),
    ]);
    for report in reports {
        let cache = &report.cache;
        let pages = |pages: u64| bytes(pages * weir_cache::PAGE_BYTES);
        let unclean =
            cache.dirty_pages + cache.in_flight_pages + cache.held_pages + cache.unstable_pages;
        let mode = match (report.read_only, report.power_cut) {
            (true, _) => "ro",
            (false, true) => "rw,power-cut",
            (false, false) => "rw",
        };
        let (used, free) = match &report.space {
            Some(space) => {
                let used = format!("{} of {}", bytes(space.used), bytes(space.quota));
                (used, bytes(space.free))
            }
            None => ("-".to_owned(), "-".to_owned()),
        };
        table.row([
            name(&report.name),
            bytes(report.size),
            mode.to_owned(),
            used,
            free,
            report.connections.to_string(),
            report.traffic.requests.to_string(),
            report.traffic.errors.to_string(),
            pages(cache.resident_pages),
            pages(unclean),
            percent(cache.hits, cache.hits + cache.misses),
            report.source.clone(),
        ]);
    }
    table.text()
}

#[cfg(test)]
pub(super) mod tests;
