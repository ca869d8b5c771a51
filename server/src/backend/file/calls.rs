//! Calls that change the file without transferring data: punching, zeroing, resizing, shifting.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{FallocateFlags, fallocate};
use weir_cache::ZeroMode;
use weir_faults::Errno;

use super::OpenFile;
use super::system::called;
use crate::limits::DEVICE_BYTES_MAX;

/// Space is given back, the range reads as zeroes, the size stays.
pub(super) const PUNCH: FallocateFlags =
    FallocateFlags::FALLOC_FL_PUNCH_HOLE.union(FallocateFlags::FALLOC_FL_KEEP_SIZE);
/// The range reads as zeroes and stays or becomes allocated, the size stays.
pub(super) const ZERO: FallocateFlags =
    FallocateFlags::FALLOC_FL_ZERO_RANGE.union(FallocateFlags::FALLOC_FL_KEEP_SIZE);
/// The range disappears and what follows moves down.
pub(super) const COLLAPSE: FallocateFlags = FallocateFlags::FALLOC_FL_COLLAPSE_RANGE;
const INSERT: FallocateFlags = FallocateFlags::FALLOC_FL_INSERT_RANGE;

impl OpenFile {
    /// Gives the space of `range` back, including that of the file's last, shorter block.
    pub(super) fn punch(&self, mut range: Range<u64>) -> Result<(), Errno> {
        self.check_end(&range)?;
        // If the range ends inside a block, the kernel only zeroes that part and keeps the block, even where the file
        // ends there.
        if range.end == self.size() && !range.is_empty() && !self.is_device {
            let block = u64::from(self.allocation_unit);
            range.end = range.end.next_multiple_of(block).min(DEVICE_BYTES_MAX);
        }
        self.change(PUNCH, &range, &self.can.punch, "punch a hole")
    }

    /// Makes `range` read as zeroes.
    pub(super) fn zero(&self, range: Range<u64>, mode: ZeroMode) -> Result<(), Errno> {
        match mode {
            ZeroMode::MayPunch if self.can.punch.load(Ordering::Relaxed) => self.punch(range),
            // A file system that zeroes without punching still avoids the transfer.
            ZeroMode::MayPunch | ZeroMode::KeepAllocated => {
                self.check_end(&range)?;
                self.change(ZERO, &range, &self.can.zero, "zero a range")
            }
        }
    }

    /// Sets the size.
    pub(super) fn resize(&self, size: u64) -> Result<(), Errno> {
        if !self.writable {
            return Err(Errno::EROFS);
        }
        if self.is_device {
            return Err(Errno::ENOTSUP);
        }
        if size > DEVICE_BYTES_MAX {
            return Err(Errno::EFBIG);
        }
        self.buffered
            .set_len(size)
            .map_err(|error| self.failed("resize", size, Errno::from(&error)))?;
        self.size.store(size, Ordering::Release);
        Ok(())
    }

    /// Moves everything from `offset` on up by `length`.
    pub(super) fn insert_range(&self, offset: u64, length: u64) -> Result<(), Errno> {
        let size = self.size();
        let Some(grown) = size
            .checked_add(length)
            .filter(|grown| *grown <= DEVICE_BYTES_MAX)
        else {
            return Err(Errno::EFBIG);
        };
        if offset > size {
            return Err(Errno::EINVAL);
        }
        if offset == size {
            // The kernel inserts only before the end.
            return self.resize(grown);
        }
        self.change(
            INSERT,
            &(offset..offset + length),
            &self.can.shift,
            "insert a range",
        )?;
        self.size.store(grown, Ordering::Release);
        Ok(())
    }

    /// Removes `length` bytes at `offset`; what follows moves down.
    pub(super) fn collapse_range(&self, offset: u64, length: u64) -> Result<(), Errno> {
        let size = self.size();
        let Some(end) = offset.checked_add(length).filter(|end| *end <= size) else {
            return Err(Errno::EINVAL);
        };
        if end == size {
            // The kernel removes only before the end.
            return self.resize(offset);
        }
        self.change(COLLAPSE, &(offset..end), &self.can.shift, "remove a range")?;
        self.size.store(size - length, Ordering::Release);
        Ok(())
    }

    /// Zeroing past the end would allocate space there.
    fn check_end(&self, range: &Range<u64>) -> Result<(), Errno> {
        if range.end > self.size() {
            Err(Errno::EINVAL)
        } else {
            Ok(())
        }
    }

    /// One `fallocate`, if the file system is known to have it. If the file system says no later, it is believed.
    fn change(
        &self,
        mode: FallocateFlags,
        range: &Range<u64>,
        able: &AtomicBool,
        what: &str,
    ) -> Result<(), Errno> {
        if !self.writable {
            return Err(Errno::EROFS);
        }
        if !able.load(Ordering::Relaxed) {
            return Err(Errno::ENOTSUP);
        }
        if range.is_empty() {
            return Ok(());
        }
        let (Ok(offset), Ok(length)) = (
            i64::try_from(range.start),
            i64::try_from(range.end - range.start),
        ) else {
            return Err(Errno::EINVAL);
        };
        loop {
            match called(fallocate(&*self.buffered, mode, offset, length)) {
                Err(Errno::EINTR) => {}
                Err(Errno::ENOTSUP) => {
                    if able.swap(false, Ordering::Relaxed) {
                        tracing::warn!(
                            "{}: the system can't {what} after all",
                            self.path.display()
                        );
                    }
                    return Err(Errno::ENOTSUP);
                }
                // This is about alignment, for the shifting calls, and the caller must report it.
                Err(Errno::EINVAL) => return Err(Errno::EINVAL),
                outcome => return outcome.map_err(|error| self.failed(what, range.start, error)),
            }
        }
    }
}
