//! What the process asks of the system for itself.
//!
//! # I/O flusher
//! A disk that is attached on the same machine writes back through this process: if an allocation here waited for
//! memory that is freed only by writing to that disk, both would wait for ever. `PR_SET_IO_FLUSHER` (prctl(2)) tells the
//! kernel not to do that to us. It takes CAP_SYS_RESOURCE, is a thread's own and inherited by the threads that it starts,
//! so it is asked for before there are any.
#![allow(unsafe_code)]

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus};

use nix::libc;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigHandler, Signal, signal};

pub mod parent;

/// `PR_SET_IO_FLUSHER` of linux/prctl.h, which the libc crate doesn't name for every target.
const PR_SET_IO_FLUSHER: libc::c_int = 57;

/// What shells add to the number of the signal that ended a command.
const SIGNAL_STATUS_BASE: i32 = 128;

/// The status of a command that has ended, as a shell would report it.
#[must_use]
pub fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| SIGNAL_STATUS_BASE + signal));
    code.and_then(|code| u8::try_from(code).ok())
        .map_or(ExitCode::FAILURE, ExitCode::from)
}

/// Prepares the process. To be called before it starts threads.
pub fn prepare() {
    match set_io_flusher(true) {
        Ok(()) => tracing::debug!("this process is an I/O flusher"),
        Err(error) => {
            tracing::debug!("not an I/O flusher ({error}): don't swap to a disk that it serves")
        }
    }
    // SAFETY: ignoring a signal installs no handler that could run.
    if let Err(error) = unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) } {
        // Else a file beyond the limit of its size would kill the server instead of failing one write.
        tracing::debug!("SIGXFSZ stays deadly: {error}");
    }
    if let Err(error) = raise_descriptor_limit() {
        tracing::debug!("the limit of descriptors stays as it is: {error}");
    }
}

/// Runs `start`, which starts another program from this thread, without handing down what [`prepare`] asked for.
///
/// # Errors
/// Those of `start`.
pub fn starting_another<T>(start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let was_flusher = set_io_flusher(false).is_ok();
    let outcome = start();
    if was_flusher {
        // It was granted before.
        let _ = set_io_flusher(true);
    }
    outcome
}

fn set_io_flusher(on: bool) -> io::Result<()> {
    let none: libc::c_ulong = 0;
    // SAFETY: this prctl takes integers only; the three unused ones must be zero.
    let outcome =
        unsafe { libc::prctl(PR_SET_IO_FLUSHER, libc::c_ulong::from(on), none, none, none) };
    if outcome == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Connections, exports and their threads need more than the customary 1024, and nothing here uses select(2).
fn raise_descriptor_limit() -> nix::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    } else {
        Ok(())
    }
}
