//! Keeping other programs from an image while it is served.
//!
//! Two servers on one image would each have a cache that knows nothing of the other's changes. Two kinds of advisory
//! locks keep them apart. Both belong to the buffered descriptor's open file, so they live as long as the backend, and
//! no other descriptor of the same image touches them:
//!
//! - `flock`, exclusive or shared, for Weir, `flock(1)` and most others;
//! - byte ranges (`F_OFD_SETLK`), for QEMU, which looks at nothing else.
//!
//! # QEMU's bytes
//! (`block/file-posix.c`: `RAW_LOCK_PERM_BASE`, `raw_apply_lock_bytes`, `raw_check_lock_bytes`.) Each of four
//! permissions has a byte from 100 on and a byte from 200 on. A program that uses the permission holds a read lock on
//! the first. A program that doesn't let others use it holds a read lock on the second. So read locks exclude no
//! program by themselves. A program first takes its own, then asks whether it could have a write lock on the bytes with
//! which others contradict them. Of two programs that do so at once, at least one sees the other.
//!
//! | | uses | lets no other program |
//! | --- | --- | --- |
//! | a writable export | read, write, resize | write, resize |
//! | a read-only export | read | write, resize |
//!
//! Weir's locks are those of a virtual machine, so QEMU's tools refuse what they refuse beside a virtual machine, and
//! allow what they allow beside one: `qemu-img info`, and reads that accept inconsistent data.
//!
//! # File systems where the two are one
//! NFS keeps `flock` as a byte range of the whole file, so there the second kind would conflict with the first. Where
//! the bytes are refused they are therefore tried once more without `flock`; they keep two Weirs apart as well.

use std::fs::File;
use std::path::Path;

use nix::errno::Errno as SystemErrno;
use nix::fcntl::{FcntlArg, Flock, FlockArg, fcntl};
use nix::libc;

use super::Descriptor;
use super::open::OpenFileError;

/// Where the bytes of used permissions begin.
const USED: libc::off_t = 100;
/// Where the bytes of permissions begin that others may not use.
const REFUSED: libc::off_t = 200;

/// QEMU's permissions, as offsets (`BLK_PERM_*`).
const CONSISTENT_READ: libc::off_t = 0;
const WRITE: libc::off_t = 1;
const RESIZE: libc::off_t = 3;

const USED_BY_WRITERS: &[libc::off_t] = &[CONSISTENT_READ, WRITE, RESIZE];
const USED_BY_READERS: &[libc::off_t] = &[CONSISTENT_READ];
const REFUSED_TO_OTHERS: &[libc::off_t] = &[WRITE, RESIZE];

/// Why the bytes can't be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    /// Another program writes the image, or may resize it.
    Written,
    /// Another program reads it and lets no other write it.
    Read,
    /// The system has no such locks here.
    Unsupported(SystemErrno),
}

/// Locks `file`, or says which program has it.
pub(super) fn lock(path: &Path, file: File, writable: bool) -> Result<Descriptor, OpenFileError> {
    let how = if writable {
        FlockArg::LockExclusiveNonblock
    } else {
        FlockArg::LockSharedNonblock
    };
    let descriptor = match Flock::lock(file, how) {
        Ok(locked) => Descriptor::Locked(locked),
        Err((_, SystemErrno::EWOULDBLOCK)) => {
            return Err(OpenFileError::InUse {
                path: path.to_owned(),
            });
        }
        Err((file, error)) => {
            tracing::warn!(
                "{}: can't be locked ({}); make sure that no other Weir serves it",
                path.display(),
                error.desc()
            );
            Descriptor::Unlocked(file)
        }
    };
    lock_bytes(path, descriptor, writable)
}

fn lock_bytes(
    path: &Path,
    descriptor: Descriptor,
    writable: bool,
) -> Result<Descriptor, OpenFileError> {
    let refusal = match (take_bytes(&descriptor, writable), descriptor) {
        (Ok(()), descriptor) => return Ok(descriptor),
        (Err(Refusal::Written | Refusal::Read), Descriptor::Locked(locked)) => {
            let file = match locked.unlock() {
                Ok(file) => file,
                Err((_, error)) => {
                    return Err(OpenFileError::Open {
                        path: path.to_owned(),
                        source: error.into(),
                    });
                }
            };
            match take_bytes(&file, writable) {
                Ok(()) => return Ok(Descriptor::Unlocked(file)),
                Err(refusal) => refusal,
            }
        }
        (Err(Refusal::Unsupported(error)), descriptor) => {
            tracing::warn!(
                "{}: can't be locked for QEMU ({}); make sure that no virtual machine uses it",
                path.display(),
                error.desc()
            );
            return Ok(descriptor);
        }
        (Err(refusal), Descriptor::Unlocked(_)) => refusal,
    };
    let path = path.to_owned();
    Err(match refusal {
        Refusal::Read => OpenFileError::ReadByQemu { path },
        Refusal::Written | Refusal::Unsupported(_) => OpenFileError::WrittenByQemu { path },
    })
}

/// Takes this process's bytes, then looks for contradicting bytes of others. The bytes are given back with the
/// descriptor.
fn take_bytes(file: &File, writable: bool) -> Result<(), Refusal> {
    let used = if writable {
        USED_BY_WRITERS
    } else {
        USED_BY_READERS
    };
    let ours = used.iter().map(|permission| USED + permission);
    for byte in ours.chain(
        REFUSED_TO_OTHERS
            .iter()
            .map(|permission| REFUSED + permission),
    ) {
        match fcntl(file, FcntlArg::F_OFD_SETLK(&range(libc::F_RDLCK, byte))) {
            Ok(_) => {}
            // A write lock on all of the file. QEMU never takes one, so it is another program's.
            Err(SystemErrno::EAGAIN | SystemErrno::EACCES) => return Err(Refusal::Written),
            Err(error) => return Err(Refusal::Unsupported(error)),
        }
    }
    for permission in REFUSED_TO_OTHERS {
        if is_locked(file, USED + permission)? {
            return Err(Refusal::Written);
        }
    }
    for permission in used {
        if is_locked(file, REFUSED + permission)? {
            return Err(Refusal::Read);
        }
    }
    Ok(())
}

/// Whether another program has a lock on a byte.
fn is_locked(file: &File, byte: libc::off_t) -> Result<bool, Refusal> {
    let mut found = range(libc::F_WRLCK, byte);
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut found)).map_err(Refusal::Unsupported)?;
    Ok(libc::c_int::from(found.l_type) != libc::F_UNLCK)
}

/// One byte.
fn range(kind: libc::c_int, byte: libc::off_t) -> libc::flock {
    // Small constants of the system.
    let short = |number: libc::c_int| libc::c_short::try_from(number).expect("a small constant");
    libc::flock {
        l_type: short(kind),
        l_whence: short(libc::SEEK_SET),
        l_start: byte,
        l_len: 1,
        l_pid: 0,
    }
}

#[cfg(test)]
mod tests;
