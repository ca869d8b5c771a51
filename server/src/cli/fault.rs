//! `weir fault`: rules on requests, and what fired.

use std::io::{self, Read as _};
use std::process::ExitCode;

use bytes::Bytes;
use clap::{Args, Subcommand};
use http_body_util::BodyExt as _;
use hyper::Method;
use weir_faults::{Event, RuleListing};

use super::client::{AdminOptions, Client, ClientError, print, runtime};
use super::table::{Align, Table, counted};
use crate::admin::wire::{Count, NewRule, ReplayReport, ReplayScript, RuleAdded};
use crate::error::Error;

/// `weir fault`
#[derive(Args, Debug)]
// `help` is a word of its own here: the language.
#[command(disable_help_subcommand = true)]
pub struct FaultCommand {
    #[command(flatten)]
    admin: AdminOptions,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Adds a rule, such as: weir fault add write offset=1M..2M nth=3 error=EIO; prints its number
    Add {
        /// The rule's words; `weir fault help` explains them
        #[arg(required = true, value_name = "WORD")]
        words: Vec<String>,
    },
    /// Shows the rules in force, with the seeds that repeat them
    List,
    /// Removes a rule; its hangs and delays end
    Rm {
        /// Its number
        #[arg(value_parser = super::parse_number::<u64>)]
        id: u64,
    },
    /// Removes every rule
    Clear,
    /// Prints what fired, one event on a line
    Events {
        /// Goes on with what fires from now on
        #[arg(long)]
        follow: bool,
    },
    /// Makes the same requests fail again, from events that were printed before
    Replay {
        /// The events; - is standard input
        file: String,
    },
    /// Explains the whole language
    Help,
}

impl FaultCommand {
    /// Asks and prints.
    ///
    /// # Errors
    /// Whatever the server or standard output reports.
    pub fn run(self) -> Result<ExitCode, Error> {
        match self.action {
            Action::Help => print(&weir_faults::help::help()),
            Action::Events { follow } => {
                let client = self.admin.client()?;
                runtime()?.block_on(events(&client, follow))
            }
            action => self.admin.run(async |client| obey(client, action).await),
        }
    }
}

async fn obey(client: &Client, action: Action) -> Result<String, ClientError> {
    match action {
        Action::Add { words } => {
            let rule = words.join(" ");
            let added: RuleAdded = client.post("/v1/faults", &NewRule { rule }).await?;
            Ok(client.show(&added, |added| format!("{}\n", added.id)))
        }
        Action::List => {
            let rules: Vec<RuleListing> = client.get("/v1/faults").await?;
            Ok(client.show(&rules, |rules| table(rules)))
        }
        Action::Rm { id } => {
            let count: Count = client.delete(&format!("/v1/faults/{id}")).await?;
            Ok(client.show(&count, |_| String::new()))
        }
        Action::Clear => {
            let count: Count = client.delete("/v1/faults").await?;
            Ok(client.show(&count, |count| format!("{} removed\n", count.count)))
        }
        Action::Replay { file } => {
            let script = script(&file)?;
            let body = ReplayScript { script };
            let report: ReplayReport = client.post("/v1/faults/replay", &body).await?;
            Ok(client.show(&report, |report| {
                let ReplayReport { requests, skipped } = report;
                let (requests, skipped) =
                    (counted(*requests, "request"), counted(*skipped, "event"));
                format!("{requests}, {skipped} skipped\n")
            }))
        }
        Action::Events { .. } | Action::Help => unreachable!("done before"),
    }
}

fn table(rules: &[RuleListing]) -> String {
    let mut table = Table::new([
        ("rule", Align::Right),
        ("hits", Align::Right),
        ("fires", Align::Right),
        ("words", Align::Left),
    ]);
    for rule in rules {
        table.row([
            rule.id.to_string(),
            rule.hits.to_string(),
            rule.fires.to_string(),
            rule.text.clone(),
        ]);
    }
    table.text()
}

/// Prints events as they come.
async fn events(client: &Client, follow: bool) -> Result<ExitCode, Error> {
    let path = format!("/v1/events?follow={follow}");
    let response = client.send(Method::GET, &path, Bytes::new()).await?;
    let mut body = response.into_body();
    let mut rest = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(data) = frame.into_data() else {
            continue;
        };
        rest.extend_from_slice(&data);
        let newline = rest.iter().rposition(|byte| *byte == b'\n');
        let lines: Vec<u8> = rest.drain(..newline.map_or(0, |at| at + 1)).collect();
        let lines = String::from_utf8_lossy(&lines);
        print(&if client.json {
            lines.into_owned()
        } else {
            as_words(&lines)?
        })?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Events in their text form, from lines of either form.
fn as_words(lines: &str) -> Result<String, ClientError> {
    let mut text = String::new();
    for line in lines.lines() {
        if line.trim_start().starts_with('{') {
            let event: Event = serde_json::from_str(line)
                .map_err(|error| ClientError::Refused(format!("{line:?} is no event: {error}")))?;
            text += &event.to_string();
        } else {
            text += line;
        }
        text.push('\n');
    }
    Ok(text)
}

fn script(file: &str) -> Result<String, ClientError> {
    let text = match file {
        "-" => {
            let mut text = String::new();
            io::stdin().read_to_string(&mut text).map(|_| text)
        }
        path => std::fs::read_to_string(path),
    };
    let text = text.map_err(|source| ClientError::File {
        what: file.to_owned(),
        source,
    })?;
    as_words(&text)
}
