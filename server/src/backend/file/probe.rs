//! Finding out what a file system or device can do, without touching data.
//!
//! | question | how it is asked |
//! | --- | --- |
//! | direct I/O | a descriptor with `O_DIRECT`, and a real read of the first page through it |
//! | punch, zero range | `fallocate` on one block past the end of the file, size kept; what that allocates is cut off again |
//! | collapse, insert range | `fallocate` past the end: `EINVAL` from a file system that has it, `EOPNOTSUPP` from others |
//! | holes | `SEEK_HOLE` |
//! | a block device's zeroing | its queue's limits in sysfs: there is nothing past the end to try it on |
//!
//! Writing isn't tried, since there is no place for it. If the system refuses a direct write later, the file goes on
//! buffered ([`super::transfer`]).

use std::fs::{File, Metadata, OpenOptions};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno as SystemErrno;
use nix::fcntl::{FallocateFlags, OFlag, fallocate};
use nix::sys::stat::{major, minor};
use nix::sys::uio::preadv;
use nix::unistd::{Whence, lseek};
use weir_cache::{FrameBuf, FramePool, PAGE_SIZE};

use super::calls::{COLLAPSE, PUNCH, ZERO};
use super::open::same_file;
use crate::limits::IO_SLICES_MAX;

/// For a file system that reports no sensible unit: a page.
const ALLOCATION_UNIT_DEFAULT: u32 = 4096;
/// Larger units are a hint for streaming I/O, not for allocation.
const ALLOCATION_UNIT_MAX: u32 = 1 << 20;

/// What was found out.
pub(super) struct Found {
    pub(super) direct: Option<File>,
    pub(super) punch: bool,
    pub(super) zero: bool,
    pub(super) seek: bool,
    pub(super) shift: bool,
    pub(super) allocation_unit: u32,
    pub(super) rotational: bool,
    pub(super) remarks: Vec<String>,
}

/// Probes everything. `file` is locked by this process.
pub(super) fn probe(
    path: &Path,
    file: &File,
    metadata: &Metadata,
    size: u64,
    writable: bool,
) -> Found {
    let is_device = metadata.file_type().is_block_device();
    let queue = queue_folder(if is_device {
        metadata.rdev()
    } else {
        metadata.dev()
    });
    let number = |name: &str| {
        queue
            .as_deref()
            .and_then(|folder| read_number(&folder.join(name)))
    };
    let mut remarks = Vec::new();
    let direct = open_direct(path, metadata, writable).map_err(|reason| {
        remarks.push(format!(
            "direct I/O doesn't work here ({reason}): the system caches its data a second time"
        ));
    });
    let allocation_unit = if is_device {
        ALLOCATION_UNIT_DEFAULT
    } else {
        allocation_unit(file)
    };
    let (mut punch, mut zero, mut shift) = (false, false, false);
    if writable && is_device {
        let offloads = number("write_zeroes_max_bytes").is_some_and(|bytes| bytes > 0);
        (punch, zero) = (offloads, offloads);
    } else if writable {
        let beyond = size.next_multiple_of(u64::from(allocation_unit));
        let length = i64::from(allocation_unit);
        punch = is_able(file, PUNCH, beyond, length);
        zero = is_able(file, ZERO, beyond, length);
        // This undoes what the zeroed range allocated past the end; the size itself is already right.
        if zero && let Err(error) = file.set_len(size) {
            tracing::warn!(
                "{}: can't give back the space that was tried out: {error}",
                path.display()
            );
        }
        shift = shift_is_able(file, beyond, length);
    }
    let place = if is_device {
        "this device"
    } else {
        "this file system"
    };
    if writable && !punch {
        remarks.push(format!("{place} can't punch holes: trim is off"));
    }
    if writable && !zero {
        remarks.push(format!(
            "{place} can't zero allocated ranges: zeroes that must stay allocated are written out"
        ));
    }
    Found {
        direct: direct.ok(),
        punch,
        zero,
        shift,
        seek: !is_device && lseek(file, 0, Whence::SeekHole).is_ok(),
        allocation_unit,
        rotational: number("rotational") == Some(1),
        remarks,
    }
}

/// A second descriptor with `O_DIRECT` that has been seen to read.
fn open_direct(path: &Path, metadata: &Metadata, writable: bool) -> Result<File, String> {
    let file = OpenOptions::new()
        .read(true)
        .write(writable)
        .custom_flags(OFlag::O_DIRECT.bits())
        .open(path)
        .map_err(|error| format!("opening: {error}"))?;
    let again = file
        .metadata()
        .map_err(|error| format!("opening: {error}"))?;
    if !same_file(metadata, &again) {
        return Err("the file was replaced meanwhile".to_owned());
    }
    let pool = FramePool::new(1).map_err(|error| error.to_string())?;
    let mut page = FrameBuf::new(pool);
    if !page.grow_to(1) {
        return Err("no memory".to_owned());
    }
    let mut slices: Vec<_> = page.io_slices_mut(0, PAGE_SIZE, IO_SLICES_MAX).collect();
    match preadv(&file, &mut slices, 0) {
        Ok(_) => Ok(file),
        Err(error) => Err(format!("reading: {}", error.desc())),
    }
}

/// Whether the file system supports a call of this kind. An error such as out of space doesn't mean that it can't.
fn is_able(file: &File, mode: FallocateFlags, offset: u64, length: i64) -> bool {
    let Ok(offset) = i64::try_from(offset) else {
        return false;
    };
    loop {
        match fallocate(file, mode, offset, length) {
            Ok(()) | Err(SystemErrno::ENOSPC | SystemErrno::EDQUOT) => return true,
            Err(SystemErrno::EINTR) => {}
            Err(_) => return false,
        }
    }
}

fn shift_is_able(file: &File, offset: u64, length: i64) -> bool {
    let Ok(offset) = i64::try_from(offset) else {
        return false;
    };
    fallocate(file, COLLAPSE, offset, length) == Err(SystemErrno::EINVAL)
}

fn allocation_unit(file: &File) -> u32 {
    let told = nix::sys::statvfs::fstatvfs(file)
        .ok()
        .and_then(|found| u32::try_from(found.fragment_size()).ok());
    told.filter(|unit| unit.is_power_of_two() && *unit <= ALLOCATION_UNIT_MAX)
        .unwrap_or(ALLOCATION_UNIT_DEFAULT)
}

/// The folder with the limits of a device's request queue; a partition has its disk's.
fn queue_folder(device: u64) -> Option<PathBuf> {
    let folder = PathBuf::from(format!(
        "/sys/dev/block/{}:{}",
        major(device),
        minor(device)
    ));
    let candidates = [folder.join("queue"), folder.join("../queue")];
    candidates.into_iter().find(|candidate| candidate.is_dir())
}

fn read_number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}
