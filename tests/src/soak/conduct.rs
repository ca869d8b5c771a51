//! Runs the turns, keeps count, and ends when the time is over, when a turn fails, or when it is asked to.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tempfile::NamedTempFile;
use tokio::process::Command;
use tokio::signal::unix::{self, SignalKind};

use super::{Part, Turn, seeds};

/// How long a turn may take before it counts as one that doesn't end. The tests have limits of their own, far below.
const TURN_MAX: Duration = Duration::from_secs(3600);

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The time is over.
    TimeOver,
    /// A signal asked it to end.
    Interrupted,
    /// A turn has failed.
    Failed,
}

/// How a child ended.
enum Ended {
    Itself(ExitStatus, Duration),
    /// By the second request to end.
    Killed,
    /// It took longer than [`TURN_MAX`].
    Never,
}

/// What has run of a part, without a failure.
struct Tally {
    part: &'static Part,
    first_seed: u64,
    turns: u64,
    time: Duration,
}

/// Runs turns one after another.
#[derive(Debug)]
pub struct Conductor {
    cargo: OsString,
    folder: PathBuf,
    interrupts: unix::Signal,
    terminations: unix::Signal,
    /// How often it was asked to end.
    asked: u32,
}

impl Conductor {
    /// One that starts this `cargo` in the workspace's `folder`. From now on SIGINT and SIGTERM only ask it to end.
    ///
    /// # Errors
    /// When the signals can't be listened to.
    pub fn new(cargo: OsString, folder: PathBuf) -> io::Result<Self> {
        Ok(Self {
            cargo,
            folder,
            interrupts: unix::signal(SignalKind::interrupt())?,
            terminations: unix::signal(SignalKind::terminate())?,
            asked: 0,
        })
    }

    /// Builds what the turns run, so that no turn's time includes compiling.
    ///
    /// # Errors
    /// When cargo can't be started or its output not be kept.
    pub async fn build(&mut self) -> io::Result<Option<Outcome>> {
        let mut command = Command::new(&self.cargo);
        command.args(["test", "--workspace", "--locked", "--no-run"]);
        println!("building");
        let (ended, output) = self.play(command).await?;
        Ok(match ended {
            Ended::Itself(status, _) if status.success() && self.asked == 0 => None,
            Ended::Itself(status, _) if status.success() => Some(Outcome::Interrupted),
            Ended::Killed => Some(Outcome::Interrupted),
            Ended::Itself(..) | Ended::Never => {
                println!("{output}\nthe tests can't be built");
                Some(Outcome::Failed)
            }
        })
    }

    /// Takes turns for that long; the last one that has begun ends, too. Prints each, what failed and how to repeat it,
    /// and in the end what has run.
    ///
    /// # Errors
    /// When cargo can't be started or its output not be kept.
    pub async fn run(
        &mut self,
        turns: impl Iterator<Item = Turn>,
        time: Duration,
    ) -> io::Result<Outcome> {
        let begun = Instant::now();
        let mut tallies = Vec::new();
        let mut outcome = Outcome::TimeOver;
        for turn in turns {
            if begun.elapsed() >= time {
                break;
            }
            outcome = self.turn(&turn, &mut tallies).await?;
            if outcome != Outcome::TimeOver {
                break;
            }
        }
        print!("{}", summary(&tallies, begun.elapsed(), outcome));
        Ok(outcome)
    }

    /// Takes one turn. If nothing speaks against another turn, the outcome depends on the time.
    async fn turn(&mut self, turn: &Turn, tallies: &mut Vec<Tally>) -> io::Result<Outcome> {
        let mut command = Command::new(&self.cargo);
        command.args(&turn.arguments);
        command.envs(turn.variables.iter().map(|(name, value)| (name, value)));
        let (ended, output) = self.play(command).await?;
        let how = match ended {
            Ended::Killed => return Ok(Outcome::Interrupted),
            Ended::Itself(status, took) if status.success() && some_passed(&output) => {
                println!("{}, {}: ok, {took:.1?}", turn.part.name, turn.seeds());
                count(tallies, turn, took);
                return Ok(if self.asked == 0 {
                    Outcome::TimeOver
                } else {
                    Outcome::Interrupted
                });
            }
            Ended::Itself(status, _) if status.success() => "not one test has run".to_owned(),
            Ended::Itself(status, _) => status.to_string(),
            Ended::Never => format!("no end within {TURN_MAX:?}"),
        };
        let (name, seeds) = (turn.part.name, turn.seeds());
        println!("{output}\n{name}, {seeds}: FAILED, {how}\nto repeat it: {turn}");
        Ok(Outcome::Failed)
    }

    /// Runs a command to its end; returns how it ended, and all that it has printed.
    async fn play(&mut self, mut command: Command) -> io::Result<(Ended, String)> {
        // A file, not a pipe: a process that a test leaves behind must not hide the end.
        let output = NamedTempFile::new()?;
        let printing = fs::OpenOptions::new().append(true).open(output.path())?;
        let begun = Instant::now();
        let mut child = command
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(printing.try_clone()?)
            .stderr(printing)
            // A Ctrl-C on the terminal reaches only this program: the turn ends in order, and leaves no folder and no
            // guest behind.
            .process_group(0)
            .spawn()?;
        let pid = child.id().expect("nobody has waited for it");
        let group = Pid::from_raw(i32::try_from(pid).expect("a pid fits i32"));
        let deadline = tokio::time::sleep(TURN_MAX);
        tokio::pin!(deadline);
        let ended = loop {
            tokio::select! {
                status = child.wait() => break Ended::Itself(status?, begun.elapsed()),
                () = &mut deadline => break Ended::Never,
                _ = self.interrupts.recv() => {}
                _ = self.terminations.recv() => {}
            }
            self.asked += 1;
            if self.asked > 1 {
                break Ended::Killed;
            }
            println!("ends after this turn; asked once more, at once");
        };
        if !matches!(ended, Ended::Itself(..)) {
            // The child hasn't been waited for yet, so the number is still its own.
            killpg(group, Signal::SIGKILL)?;
            child.wait().await?;
        }
        let printed = fs::read(output.path())?;
        Ok((ended, String::from_utf8_lossy(&printed).into_owned()))
    }
}

/// Whether the test harness reports any passed test: a filter that matches nothing succeeds as well.
fn some_passed(output: &str) -> bool {
    let passed = output
        .lines()
        .filter_map(|line| line.strip_prefix("test result: ok. "));
    let mut passed = passed.filter_map(|rest| rest.split_once(" passed"));
    passed.any(|(count, _)| count != "0")
}

fn count(tallies: &mut Vec<Tally>, turn: &Turn, took: Duration) {
    match tallies.iter_mut().find(|tally| tally.part == turn.part) {
        Some(tally) => {
            tally.turns += 1;
            tally.time += took;
        }
        None => tallies.push(Tally {
            part: turn.part,
            first_seed: turn.first_seed,
            turns: 1,
            time: took,
        }),
    }
}

fn summary(tallies: &[Tally], time: Duration, outcome: Outcome) -> String {
    let end = match outcome {
        Outcome::TimeOver => "the time is over, nothing has failed",
        Outcome::Interrupted => "asked to end, nothing has failed",
        Outcome::Failed => "one turn has FAILED; the others",
    };
    let mut text = format!("{time:.0?}: {end}\n");
    for tally in tallies {
        let (turns, seeds) = (
            tally.turns,
            seeds(tally.first_seed, tally.turns * tally.part.seeds),
        );
        let (name, time) = (tally.part.name, tally.time);
        writeln!(text, "  {name}: {turns} turns, {seeds}, {time:.0?}").expect("a string takes all");
    }
    text
}
