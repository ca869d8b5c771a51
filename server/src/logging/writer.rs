//! The thread that writes the log.
//!
//! Only this thread waits for the reader of standard error. A reader that is gone for good (EPIPE) costs the lines and
//! nothing else.

use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::write;

use super::queue::{Batch, Queue};

/// Writes what `queue` has to `out`, for the rest of the process' life.
pub(super) fn run(queue: &Queue, out: impl AsFd) -> Infallible {
    let mut batch = Batch::default();
    loop {
        queue.next(&mut batch);
        if write_all(out.as_fd(), &batch.bytes).is_err() {
            queue.failed(&batch);
        }
    }
}

/// Avoids the standard library's lock: a write that waits would hold it, and a panic's last words need it.
fn write_all(out: BorrowedFd<'_>, mut bytes: &[u8]) -> nix::Result<()> {
    while !bytes.is_empty() {
        match write(out, bytes) {
            Ok(0) => return Err(Errno::EIO),
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::EINTR) => {}
            // Another process that has the same terminal may have made it non-blocking.
            Err(Errno::EAGAIN) => {
                let mut ready = [PollFd::new(out, PollFlags::POLLOUT)];
                match poll(&mut ready, PollTimeout::NONE) {
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(error) => return Err(error),
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
