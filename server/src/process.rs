//! What the process asks of the system for itself.
//!
//! # I/O flusher
//! A disk that is attached on the same machine writes back through this process. If an allocation here waited for
//! memory that is freed only by writing to that disk, both would wait for ever. `PR_SET_IO_FLUSHER` (prctl(2)) tells
//! the kernel not to make this process wait so. It takes CAP_SYS_RESOURCE. It belongs to a thread and is inherited by
//! the threads that it starts, so it is requested before there are any.
#![expect(
    unsafe_code,
    reason = "system calls that nothing wraps; each block says why it is sound"
)]

use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus};

use nix::libc;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{self, SigHandler, Signal};
use tokio::process::Command;

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
    if let Err(error) = raise_descriptor_limit() {
        tracing::debug!("the limit of descriptors stays as it is: {error}");
    }
}

/// What the service manager says to this process alone. Another process that believed it would speak for this one: say
/// that it is ready or alive, or listen on its sockets.
const SERVICE_VARIABLES: [&str; 6] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
];

/// A program that a user wants to run, which inherits nothing that belongs to this process alone. The standard library
/// leaves no signal blocked in it, and SIGPIPE deadly; handlers end with exec(2).
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for name in SERVICE_VARIABLES {
        command.env_remove(name);
    }
    command
}

/// Runs `start`, which starts another program from this thread, without passing on what [`prepare`] asked for.
///
/// # Errors
/// The errors of `start`.
pub fn starting_another<T>(start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let was_flusher = set_io_flusher(false).is_ok();
    let outcome = start();
    if was_flusher {
        // It was granted before.
        let _ = set_io_flusher(true);
    }
    outcome
}

/// What a program of coreutils does when its reader has gone: it ends by SIGPIPE, which the standard library has
/// ignored.
pub fn die_of_closed_pipe() -> ExitCode {
    // SAFETY: this sets a default disposition, and no other thread of a command that prints looks at it.
    let _ = unsafe { signal::signal(Signal::SIGPIPE, SigHandler::SigDfl) }
        .and_then(|_| signal::raise(Signal::SIGPIPE));
    // Reached only where the signal is blocked: the status that a shell reports for it.
    u8::try_from(SIGNAL_STATUS_BASE + libc::SIGPIPE).map_or(ExitCode::FAILURE, ExitCode::from)
}

/// Whether a signal has its default effect on this process, rather than being ignored or handled.
///
/// # Errors
/// The number is no signal's.
pub fn is_default_disposition(signal: libc::c_int) -> io::Result<bool> {
    let mut present = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: without a new action the call only writes the present one, to memory of its type.
    let outcome = unsafe { libc::sigaction(signal, std::ptr::null(), present.as_mut_ptr()) };
    if outcome != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has succeeded, so it has filled it in.
    let present = unsafe { present.assume_init() };
    Ok(present.sa_sigaction == libc::SIG_DFL)
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
