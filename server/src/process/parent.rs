//! `--exit-with-parent`: the process that started this one, and its end.
//!
//! A program that starts a server for itself, for example by socket activation, may be killed. The server would then go
//! on and keep its image locked. `PR_SET_PDEATHSIG` is the customary way to notice. But its signal comes when the
//! *thread* that started the child ends, and in a program with threads that may well happen while the program lives. A
//! pidfd is about the process.
//!
//! # A parent that ends early
//! A process whose parent has ended is given to init (or to a subreaper). So the parent's number is asked for twice,
//! and the pidfd is opened in between. If the answers agree, the pidfd is the parent's, even if process numbers are
//! used again. A parent that had ended before the first question can be recognised only where init has become the
//! parent.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use nix::libc;
use nix::unistd::{Pid, getppid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The process that adopts orphans.
const INIT: Pid = Pid::from_raw(1);

/// Why the parent can't be watched.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the texts say it")]
pub enum ParentError {
    #[error("--exit-with-parent: the parent process has ended already, or is init; leave it out")]
    Gone,
    #[error("--exit-with-parent: the system can't tell when the parent ends ({0}); Linux 5.3 can")]
    Unwatchable(#[source] io::Error),
}

/// The parent, held by a descriptor.
#[derive(Debug)]
pub struct Parent(OwnedFd);

impl Parent {
    /// Takes hold of it. To be called early.
    ///
    /// # Errors
    /// The parent is gone, or the system knows no pidfd.
    pub fn find() -> Result<Self, ParentError> {
        let parent = getppid();
        if parent == INIT {
            return Err(ParentError::Gone);
        }
        let held = match pidfd_open(parent) {
            Ok(held) => held,
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {
                return Err(ParentError::Gone);
            }
            Err(error) => return Err(ParentError::Unwatchable(error)),
        };
        if getppid() != parent {
            return Err(ParentError::Gone);
        }
        Ok(Self(held))
    }

    /// Needs a runtime.
    ///
    /// # Errors
    /// The reactor refuses it.
    pub fn watch(self) -> io::Result<WatchedParent> {
        // SAFETY: the AsyncFd owns the descriptor, and an OwnedFd is the same open file until it is dropped.
        let watched = unsafe { AsyncFd::register_with_interest(self.0, Interest::READABLE) }?;
        Ok(WatchedParent(watched))
    }
}

/// The parent, whose end can be waited for.
#[derive(Debug)]
pub struct WatchedParent(AsyncFd<OwnedFd>);

impl WatchedParent {
    /// Waits for the parent's end. Cancel safe.
    pub async fn ended(&self) {
        // A pidfd is readable from the end of its process on. An error means that the runtime ends.
        let _ = self.0.readable().await;
    }
}

fn pidfd_open(process: Pid) -> io::Result<OwnedFd> {
    let no_flags: libc::c_uint = 0;
    // SAFETY: pidfd_open(2) takes two integers and touches no memory.
    let outcome = unsafe { libc::syscall(libc::SYS_pidfd_open, process.as_raw(), no_flags) };
    let fd = match RawFd::try_from(outcome) {
        Ok(fd) if fd >= 0 => fd,
        _ => return Err(io::Error::last_os_error()),
    };
    // SAFETY: the system has just opened it, and nothing else owns it. It closes with an exec.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_process_that_ends_is_noticed() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let pid = Pid::from_raw(child.id().cast_signed());
        let watched = Parent(pidfd_open(pid).unwrap()).watch().unwrap();
        let early = tokio::time::timeout(Duration::from_millis(50), watched.ended()).await;
        assert!(early.is_err(), "it lives");
        // Its input ends, and so the child ends.
        drop(child.stdin.take());
        watched.ended().await;
        child.wait().unwrap();
    }

    #[test]
    fn ours_can_be_found_and_nobodys_cannot() {
        if getppid() != INIT {
            Parent::find().unwrap();
        }
        assert!(pidfd_open(Pid::from_raw(i32::MAX)).is_err());
    }
}
