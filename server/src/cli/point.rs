//! `weir point`: points in the code.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use weir_faults::PointListing;

use super::client::{AdminOptions, query};
use super::table::counted;
use crate::admin::wire::{Count, PointAction};
use crate::error::Error;

/// `weir point`
#[derive(Args, Debug)]
pub struct PointCommand {
    #[command(flatten)]
    admin: AdminOptions,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Shows points, one on a line: where, class, function, kind, errors, hits, fires, state
    List {
        /// Which: class cache:race, file writeback.rs line 40-80, func NAME ...; all without
        #[arg(value_name = "WORD")]
        words: Vec<String>,
    },
    /// Arms points, such as: weir point set class cache:race frequency 100; says how many
    Set {
        /// Which, and what to do there; `weir fault help` explains the words
        #[arg(required = true, value_name = "WORD")]
        words: Vec<String>,
    },
    /// Lets go who is paused or delayed; the points stay armed
    Release {
        /// Where; everywhere without
        #[arg(value_name = "WORD")]
        words: Vec<String>,
    },
    /// Disarms every point, lets everybody go and forgets the counters
    Reset,
}

impl PointCommand {
    /// Asks and prints.
    ///
    /// # Errors
    /// Whatever the server or standard output reports.
    pub fn run(self) -> Result<ExitCode, Error> {
        let (action, done) = match self.action {
            Action::List { words } => {
                let path = query("/v1/points", "query", &words.join(" "));
                return self.admin.run(async |client| {
                    let points: Vec<PointListing> = client.get(&path).await?;
                    Ok(client.show(&points, |points| lines(points)))
                });
            }
            Action::Set { words } => {
                let query = words.join(" ");
                (PointAction::Set { query }, Done::Points("set"))
            }
            Action::Release { words } => {
                let query = words.join(" ");
                (PointAction::Release { query }, Done::Waiting)
            }
            Action::Reset => (PointAction::Reset, Done::Points("disarmed")),
        };
        self.admin.run(async |client| {
            let count: Count = client.post("/v1/points", &action).await?;
            Ok(client.show(&count, |count| done.line(count.count)))
        })
    }
}

/// What was done, and what the server has counted.
#[derive(Clone, Copy, Debug)]
enum Done {
    /// Points, to which this was done.
    Points(&'static str),
    /// Requests that waited at them and were released.
    Waiting,
}

impl Done {
    fn line(self, count: usize) -> String {
        match self {
            Self::Points(done) => format!("{} {done}\n", counted(count, "point")),
            Self::Waiting => format!("{count} released\n"),
        }
    }
}

/// One line per point, for people and for `cut`: nothing is shortened or aligned.
fn lines(points: &[PointListing]) -> String {
    let mut text = String::new();
    for point in points {
        let PointListing {
            file,
            line,
            function,
            class,
            kind,
            errors,
            hits,
            fires,
            state,
            paused,
            ..
        } = point;
        let errors = match &errors[..] {
            [] => "-".to_owned(),
            errors => errors.join(","),
        };
        // Writing to a string can't fail.
        let _ = write!(
            text,
            "{file}:{line} class={class} func={function} kind={kind} errors={errors} hits={hits} fires={fires}"
        );
        if *paused > 0 {
            let _ = write!(text, " paused={paused}");
        }
        let _ = writeln!(text, " state={state}");
    }
    text
}
