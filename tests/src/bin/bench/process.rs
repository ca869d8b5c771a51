//! Child processes that end with their owner, and what the kernel says they used.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use weir_tests::process::let_pass;

use crate::stream::Address;
use crate::wire::failure;

/// A server that isn't reachable by then won't be reachable at all.
const START_TIME_MAX: Duration = Duration::from_secs(10);
/// A server asked to stop has this long before it is killed.
const STOP_TIME_MAX: Duration = Duration::from_secs(20);
/// The time between two looks at something that gives no event; a start-up time is measured no finer than this.
const LOOK_INTERVAL: Duration = Duration::from_micros(200);

/// A running server. Dropping it kills it.
pub(crate) struct Server {
    child: Child,
    address: Address,
}

impl Server {
    /// Starts `command` and waits until `address` accepts connections.
    pub(crate) fn start(command: &mut Command, address: Address) -> io::Result<Self> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let child = child.map_err(|error| failure(format!("the server doesn't start: {error}")))?;
        let mut server = Self { child, address };
        let start = Instant::now();
        while server.address.connect().is_err() {
            if let Some(status) = server.child.try_wait()? {
                return Err(failure(format!(
                    "the server ended before it listened: {status}"
                )));
            }
            if start.elapsed() > START_TIME_MAX {
                return Err(failure(format!(
                    "the server doesn't listen after {START_TIME_MAX:?}"
                )));
            }
            let_pass(LOOK_INTERVAL);
        }
        Ok(server)
    }

    pub(crate) const fn address(&self) -> &Address {
        &self.address
    }

    pub(crate) fn usage(&self) -> Usage {
        Usage::of(self.child.id())
    }

    pub(crate) fn resident_bytes(&self) -> io::Result<u64> {
        resident_bytes(self.child.id())
    }

    /// Asks the server to end in order, and waits for it.
    pub(crate) fn stop(mut self) -> io::Result<ExitStatus> {
        let pid = i32::try_from(self.child.id()).map_err(io::Error::other)?;
        kill(Pid::from_raw(pid), Signal::SIGTERM)?;
        let start = Instant::now();
        while start.elapsed() < STOP_TIME_MAX {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            let_pass(LOOK_INTERVAL);
        }
        Err(failure(format!(
            "the server still runs {STOP_TIME_MAX:?} after SIGTERM"
        )))
    }

    pub(crate) fn take_stderr(&mut self) -> Option<std::process::ChildStderr> {
        self.child.stderr.take()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
        if let Address::Unix(path) = &self.address {
            let _removed = fs::remove_file(path);
        }
    }
}

/// Processor time of a process so far, in user and kernel mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage {
    processor: Option<Duration>,
}

impl Usage {
    /// The sum over the threads alive, in nanoseconds where the kernel keeps them and in clock ticks elsewhere. Threads
    /// that end take their nanoseconds with them, so sample while the connections are open.
    fn of(pid: u32) -> Self {
        Self {
            processor: scheduled(pid).or_else(|| ticks(pid)),
        }
    }

    pub(crate) fn since(self, before: Self) -> Option<Duration> {
        self.processor?.checked_sub(before.processor?)
    }
}

fn scheduled(pid: u32) -> Option<Duration> {
    let mut total = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        // A thread may end between the listing and the look.
        let Ok(line) = fs::read_to_string(thread.ok()?.path().join("schedstat")) else {
            continue;
        };
        total += line.split_whitespace().next()?.parse::<u64>().ok()?;
    }
    (total > 0).then(|| Duration::from_nanos(total))
}

fn ticks(pid: u32) -> Option<Duration> {
    /// USER_HZ, the same on every Linux machine since 2.6.
    const TICKS_PER_SECOND: f64 = 100.0;
    processor_ticks(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
        .map(|ticks| Duration::from_secs_f64(ticks as f64 / TICKS_PER_SECOND))
}

/// Fields 14 and 15 of /proc/PID/stat; the second field is a name in parentheses that may hold anything.
fn processor_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let user: u64 = fields.nth(11)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn resident_bytes(pid: u32) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    resident_of(&status).ok_or_else(|| failure("no VmRSS in /proc/PID/status"))
}

fn resident_of(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}

/// Where PATH has `program`.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let paths = std::env::var_os("PATH")?;
    std::env::split_paths(&paths)
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}

/// The same, as an error that says what to do.
pub(crate) fn find_tool(program: &str) -> io::Result<PathBuf> {
    find(program).ok_or_else(|| failure(format!("{program} is needed and isn't installed")))
}

/// A command for `program`. It is killed when this process dies in whatever way, where util-linux can arrange that.
pub(crate) fn command(program: &Path) -> Command {
    match find("setpriv") {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "KILL", "--"]).arg(program);
            command
        }
        None => Command::new(program),
    }
}

#[cfg(test)]
mod tests;
