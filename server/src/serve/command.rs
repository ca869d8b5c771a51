//! `--run CMD`: a shell command for which the server runs.

use std::io;
use std::process::ExitCode;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Child;

use super::announce::Announcement;
use crate::process::{self, exit_code, starting_another};

/// A command that was started. Dropping it kills it.
#[derive(Debug)]
pub(super) struct RunningCommand {
    child: Child,
}

impl RunningCommand {
    /// Starts `sh -c command` with `$uri` and `$admin`.
    ///
    /// # Errors
    /// The shell can't be started.
    pub(super) fn start(command: &str, announcement: &Announcement) -> io::Result<Self> {
        let mut shell = process::command("sh");
        shell
            .arg("-c")
            .arg(command)
            .env("uri", announcement.uri())
            .kill_on_drop(true);
        // Unset rather than empty, so that `${admin:?}` says what is missing.
        match announcement.admin() {
            Some(admin) => shell.env("admin", admin),
            None => shell.env_remove("admin"),
        };
        Ok(Self {
            child: starting_another(|| shell.spawn())?,
        })
    }

    /// Waits for its end; its status as a shell would report it. Cancel safe.
    pub(super) async fn wait(&mut self) -> io::Result<ExitCode> {
        Ok(exit_code(self.child.wait().await?))
    }

    /// Asks it to end.
    pub(super) fn terminate(&self) {
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok());
        if let Some(pid) = pid {
            // It may have ended just now.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
    }
}
