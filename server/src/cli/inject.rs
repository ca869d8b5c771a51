//! `weir inject`: one function fails while a command runs.
//!
//! The point is disarmed however the command ends, even by signals to this program. Those are passed on to the command,
//! and its end is then waited for. A command that exceeds its time is asked to end, and killed if it doesn't.

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Child;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use weir_faults::PointListing;

use super::client::{AdminOptions, Client, ClientError, query, runtime};
use super::time::Time;
use crate::admin::wire::{Count, PointAction};
use crate::error::Error;
use crate::process::{self, exit_code};

/// The status of a command that took too long and ended when it was asked to, as for timeout(1). A command that had to
/// be killed has the status for that, 128 and 9.
const TIMED_OUT: u8 = 124;

/// `weir inject`
#[derive(Args, Debug)]
pub struct InjectCommand {
    #[command(flatten)]
    admin: AdminOptions,

    /// The function, as `weir point list kind function` prints it
    function: String,

    /// Only under requests of that kind: read, write, flush, writeback ...
    #[arg(long, value_name = "KIND")]
    within: Option<String>,

    /// The error that it returns [default: the first one that it allows]
    #[arg(long, value_name = "NAME")]
    error: Option<String>,

    /// Waits so long first
    #[arg(long, value_name = "TIME")]
    delay: Option<String>,

    /// Asks the command to end after so long (SIGTERM); the status is 124 then
    #[arg(long, value_name = "TIME")]
    timeout: Option<Time>,

    /// Kills it so long after that if it hasn't ended (SIGKILL); the status is 137 then
    #[arg(long, value_name = "TIME", default_value = "10s", requires = "timeout")]
    kill_after: Time,

    /// The command to run meanwhile
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

impl InjectCommand {
    /// Arms, runs, disarms; the status is the command's.
    ///
    /// # Errors
    /// Whatever the server reports, or the command can't be started.
    pub fn run(self) -> Result<ExitCode, Error> {
        let client = self.admin.client()?;
        runtime()?.block_on(self.inject(&client))
    }

    async fn inject(&self, client: &Client) -> Result<ExitCode, Error> {
        let matches = format!("func {} kind function", self.function);
        self.the_one_point(client, &matches).await?;
        // The signals are taken over before anything is armed, so that none can end this program in between.
        let mut signals = Signals::install().map_err(Error::System)?;
        set(client, self.query(&matches)).await?;
        let outcome = self.run_command(&mut signals).await;
        if let Err(error) = set(client, format!("{matches} disable")).await {
            let reason = format!("{} may still be armed: {error}", self.function);
            return Err(ClientError::Injection(reason).into());
        }
        Ok(outcome?)
    }

    /// Makes sure that the words mean exactly one function.
    async fn the_one_point(&self, client: &Client, matches: &str) -> Result<(), ClientError> {
        let path = query("/v1/points", "query", matches);
        let points: Vec<PointListing> = client.get(&path).await?;
        if points.len() == 1 {
            return Ok(());
        }
        let places = points
            .iter()
            .map(|point| format!("{}:{}", point.file, point.line));
        Err(ClientError::Injection(format!(
            "{} functions are called {} ({}); say which with its path, such as Type::{}",
            points.len(),
            self.function,
            places.collect::<Vec<_>>().join(", "),
            self.function
        )))
    }

    fn query(&self, matches: &str) -> String {
        let mut query = matches.to_owned();
        let options = [
            ("within", &self.within),
            ("error", &self.error),
            ("delay", &self.delay),
        ];
        for (word, value) in options {
            if let Some(value) = value {
                query += &format!(" {word} {value}");
            }
        }
        if self.error.is_none() && self.delay.is_none() {
            query += " enable";
        }
        query
    }

    async fn run_command(&self, signals: &mut Signals) -> Result<ExitCode, ClientError> {
        let failed = |source| ClientError::File {
            what: self.command[0].to_string_lossy().into_owned(),
            source,
        };
        let mut child = process::command(&self.command[0])
            .args(&self.command[1..])
            .spawn()
            .map_err(failed)?;
        let mut patience = Patience::Running;
        let limit = tokio::time::sleep(self.timeout.map_or(Duration::MAX, |Time(limit)| limit));
        tokio::pin!(limit);
        loop {
            tokio::select! {
                status = child.wait() => {
                    let code = exit_code(status.map_err(failed)?);
                    return Ok(match patience {
                        Patience::Asked => TIMED_OUT.into(),
                        Patience::Running | Patience::Killed => code,
                    });
                }
                signal = signals.next() => hand_on(&child, signal),
                () = &mut limit, if patience != Patience::Killed => {
                    let signal;
                    (patience, signal) = match patience {
                        Patience::Running => (Patience::Asked, Signal::SIGTERM),
                        Patience::Asked | Patience::Killed => (Patience::Killed, Signal::SIGKILL),
                    };
                    hand_on(&child, signal);
                    limit.as_mut().reset(Instant::now() + self.kill_after.0);
                }
            }
        }
    }
}

/// How far a command that takes too long has been made to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Patience {
    /// Not at all.
    Running,
    /// It was sent SIGTERM.
    Asked,
    /// It was sent SIGKILL.
    Killed,
}

async fn set(client: &Client, query: String) -> Result<Count, ClientError> {
    client.post("/v1/points", &PointAction::Set { query }).await
}

/// Sends the command a signal, unless it has just ended.
fn hand_on(child: &Child, signal: Signal) {
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

/// The signals by which people and programs end others.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Signals {
    fn install() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::SIGTERM,
            _ = self.interrupt.recv() => Signal::SIGINT,
            _ = self.hangup.recv() => Signal::SIGHUP,
        }
    }
}
