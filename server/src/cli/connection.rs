//! `weir connection`: the open connections.

use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};

use super::client::AdminOptions;
use super::table::{Align, Table, bytes, name};
use crate::admin::wire::{ConnectionReport, Count};
use crate::error::Error;

/// `weir connection`
#[derive(Args, Debug)]
pub struct ConnectionCommand {
    #[command(flatten)]
    admin: AdminOptions,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Shows the open connections
    List,
    /// Closes one at once; nothing more is answered on it
    Kill {
        /// Its number, as the list shows it
        #[arg(value_parser = super::parse_number::<u64>)]
        id: u64,
    },
}

impl ConnectionCommand {
    /// Asks and prints.
    ///
    /// # Errors
    /// Whatever the server or standard output reports.
    pub fn run(self) -> Result<ExitCode, Error> {
        let action = self.action;
        self.admin.run(async |client| match action {
            Action::List => {
                let reports: Vec<ConnectionReport> = client.get("/v1/connections").await?;
                Ok(client.show(&reports, |reports| table(reports)))
            }
            Action::Kill { id } => {
                let path = format!("/v1/connections/{id}");
                let count: Count = client.delete(&path).await?;
                Ok(client.show(&count, |_| String::new()))
            }
        })
    }
}

/// One line per connection.
pub(super) fn table(reports: &[ConnectionReport]) -> String {
    let mut table = Table::new([
        ("connection", Align::Right),
        ("peer", Align::Left),
        ("export", Align::Left),
        ("for", Align::Right),
        ("requests", Align::Right),
        ("errors", Align::Right),
        ("received", Align::Right),
        ("sent", Align::Right),
    ]);
    for report in reports {
        let export = report.export.as_deref();
        let traffic = &report.traffic;
        table.row([
            report.id.to_string(),
            report.peer.clone(),
            export.map_or_else(|| "-".to_owned(), name),
            format!("{:?}", age(report.since_ms)),
            traffic.requests.to_string(),
            traffic.errors.to_string(),
            bytes(traffic.received),
            bytes(traffic.sent),
        ]);
    }
    table.text()
}

/// Whole seconds since then.
fn age(since_ms: u64) -> Duration {
    let since = UNIX_EPOCH + Duration::from_millis(since_ms);
    let age = SystemTime::now().duration_since(since).unwrap_or_default();
    Duration::from_secs(age.as_secs())
}
