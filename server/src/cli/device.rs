//! `weir device`: an export as a device that fails.

use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};

use super::Switch;
use super::client::{AdminOptions, named};
use super::table::counted;
use crate::admin::wire::{Count, DeviceAction, PowerCutReport};
use crate::error::Error;

/// `weir device`
#[derive(Args, Debug)]
pub struct DeviceCommand {
    #[command(flatten)]
    admin: AdminOptions,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Loses what no flush has covered, and closes the export's connections; needs --power-cut
    PowerCut {
        /// The export; "" is the default one
        name: String,
        /// keep=none|all|random, tear=512, seed=N
        #[arg(value_name = "WORD")]
        words: Vec<String>,
    },
    /// Makes every request fail with EIO
    Offline {
        /// The export; "" is the default one
        name: String,
    },
    /// Ends that
    Online {
        /// The export; "" is the default one
        name: String,
    },
    /// Makes every request wait, so that clients hang; what they have sent is kept in memory, with a limit
    Freeze {
        /// The export; "" is the default one
        name: String,
    },
    /// Ends that
    Thaw {
        /// The export; "" is the default one
        name: String,
    },
    /// Makes reads of sectors fail until they are rewritten
    Bad {
        /// The export; "" is the default one
        name: String,
        /// add or rm
        change: BadChange,
        /// The bytes: 1M..2M
        #[arg(value_name = "A..B")]
        range: String,
    },
    /// Makes what would change the device fail, or not
    ReadOnly {
        /// The export; "" is the default one
        name: String,
        /// on or off
        switch: Switch,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum BadChange {
    /// Bad from now on
    Add,
    /// Good again
    Rm,
}

impl Action {
    fn request(self) -> (String, DeviceAction) {
        match self {
            Self::PowerCut { name, words } => {
                let options = words.join(" ");
                (name, DeviceAction::PowerCut { options })
            }
            Self::Offline { name } => (name, DeviceAction::Offline),
            Self::Online { name } => (name, DeviceAction::Online),
            Self::Freeze { name } => (name, DeviceAction::Freeze),
            Self::Thaw { name } => (name, DeviceAction::Thaw),
            Self::Bad {
                name,
                change: BadChange::Add,
                range,
            } => (name, DeviceAction::BadAdd { range }),
            Self::Bad {
                name,
                change: BadChange::Rm,
                range,
            } => (name, DeviceAction::BadRm { range }),
            Self::ReadOnly { name, switch } => {
                let on = switch == Switch::On;
                (name, DeviceAction::ReadOnly { on })
            }
        }
    }
}

impl DeviceCommand {
    /// Asks and prints.
    ///
    /// # Errors
    /// Whatever the server or standard output reports.
    pub fn run(self) -> Result<ExitCode, Error> {
        let (name, action) = self.action.request();
        let path = named("/v1/device", &name);
        self.admin.run(async |client| {
            if matches!(action, DeviceAction::PowerCut { .. }) {
                let report: PowerCutReport = client.post(&path, &action).await?;
                return Ok(client.show(&report, |report| {
                    let PowerCutReport { options, closed } = report;
                    format!(
                        "power cut: {options}; {} closed\n",
                        counted(*closed, "connection")
                    )
                }));
            }
            let count: Count = client.post(&path, &action).await?;
            Ok(client.show(&count, |_| String::new()))
        })
    }
}
