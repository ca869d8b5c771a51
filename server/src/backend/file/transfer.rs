//! Reads and writes: whole pages directly, the rest through the buffered descriptor.
//!
//! The kernel may transfer less than asked (a signal, a full disk, a limit of the device), so every transfer is a loop;
//! an interrupted one is repeated. Direct I/O that the kernel refuses with `EINVAL` is repeated buffered, and if it was
//! properly aligned, direct I/O is given up for this file.

use std::fs::File;
use std::io::IoSlice;
use std::sync::atomic::Ordering;

use nix::sys::uio::{preadv, pwritev};
use weir_cache::{FrameBuf, FrameRefs, PAGE_SIZE};
use weir_faults::Errno;

use super::OpenFile;
use super::system::called;
use crate::limits::IO_SLICES_MAX;

const PAGE_BYTES: u64 = PAGE_SIZE as u64;

impl OpenFile {
    /// Fills `buffer` from `offset`, with zeroes past the end.
    pub(super) fn read(&self, offset: u64, buffer: &mut FrameBuf) -> Result<(), Errno> {
        assert!(offset.is_multiple_of(PAGE_BYTES), "read at {offset}");
        let wanted = buffer.len() * PAGE_SIZE;
        let available =
            usize::try_from(self.size().saturating_sub(offset)).map_or(wanted, |n| n.min(wanted));
        let mut done = 0;
        let whole = available - available % PAGE_SIZE;
        if let Some(direct) = self.direct_now() {
            match read_run(direct, offset, buffer, &mut done, whole) {
                Err(Errno::EINVAL) => self.direct_refused("read", done),
                other => other.map_err(|error| self.failed("read", offset, error))?,
            }
        }
        read_run(&self.buffered, offset, buffer, &mut done, available)
            .map_err(|error| self.failed("read", offset, error))?;
        zero_from(buffer, available);
        Ok(())
    }

    /// Writes all of `data`, which must end inside the device.
    pub(super) fn write(&self, offset: u64, mut data: FrameRefs) -> Result<(), Errno> {
        assert!(offset.is_multiple_of(PAGE_BYTES), "write at {offset}");
        let total = data.bytes();
        if !self.writable {
            return Err(Errno::EROFS);
        }
        if offset
            .checked_add(total as u64)
            .is_none_or(|end| end > self.size())
        {
            return Err(Errno::ENOSPC);
        }
        if let Some(direct) = self.direct_now() {
            let whole = data
                .iter()
                .take_while(|piece| piece.len() == PAGE_SIZE)
                .count()
                * PAGE_SIZE;
            match write_run(direct, offset, &mut data, total, whole) {
                Err(Errno::EINVAL) => self.direct_refused("write", total - data.bytes()),
                other => other.map_err(|error| self.failed("write", offset, error))?,
            }
        }
        write_run(&self.buffered, offset, &mut data, total, total)
            .map_err(|error| self.failed("write", offset, error))
    }

    /// Makes what was completed durable.
    pub(super) fn sync(&self) -> Result<(), Errno> {
        if !self.writable {
            return Ok(());
        }
        loop {
            match called(nix::unistd::fdatasync(&*self.buffered)) {
                Err(Errno::EINTR) => {}
                outcome => return outcome.map_err(|error| self.failed("sync", 0, error)),
            }
        }
    }

    /// Whether reading `pages` pages at `offset` is one direct transfer.
    pub(super) fn reads_directly(&self, offset: u64, pages: usize) -> bool {
        let end = offset.checked_add((pages * PAGE_SIZE) as u64);
        self.direct_now().is_some()
            && pages <= IO_SLICES_MAX
            && end.is_some_and(|end| end <= self.size())
    }

    /// Whether writing `data` at `offset` is one direct transfer.
    pub(super) fn writes_directly(&self, offset: u64, data: &FrameRefs) -> bool {
        let end = offset.checked_add(data.bytes() as u64);
        self.direct_now().is_some()
            && self.writable
            && data.len() <= IO_SLICES_MAX
            && data.iter().all(|piece| piece.len() == PAGE_SIZE)
            && end.is_some_and(|end| end <= self.size())
    }

    fn direct_now(&self) -> Option<&File> {
        self.direct
            .as_ref()
            .filter(|_| self.direct_works.load(Ordering::Relaxed))
    }

    /// `EINVAL` at a page boundary means that direct I/O doesn't work here. Elsewhere it follows a short transfer that
    /// left the rest misaligned, and means nothing.
    fn direct_refused(&self, what: &str, done: usize) {
        if done.is_multiple_of(PAGE_SIZE) && self.direct_works.swap(false, Ordering::Relaxed) {
            let path = self.path.display();
            tracing::warn!(
                "{path}: the system refused a direct {what}; going on through its page cache"
            );
        }
    }

    pub(super) fn failed(&self, what: &str, offset: u64, errno: Errno) -> Errno {
        tracing::warn!(
            "{}: {what} at {offset} failed: {}",
            self.path.display(),
            std::io::Error::from(errno)
        );
        errno
    }
}

/// Reads the bytes `done..end` of the buffer; `done` says how far it got, also on an error.
fn read_run(
    file: &File,
    offset: u64,
    buffer: &mut FrameBuf,
    done: &mut usize,
    end: usize,
) -> Result<(), Errno> {
    while *done < end {
        let mut slices: Vec<_> = buffer.io_slices_mut(*done, end, IO_SLICES_MAX).collect();
        match called(preadv(file, &mut slices, file_offset(offset, *done)?)) {
            // Another program cut the file: zeroes would hide that.
            Ok(0) => return Err(Errno::EIO),
            Ok(count) => *done += count,
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes up to byte `end` of the `total` that `data` held at first, consuming what was written.
fn write_run(
    file: &File,
    offset: u64,
    data: &mut FrameRefs,
    total: usize,
    end: usize,
) -> Result<(), Errno> {
    loop {
        let done = total - data.bytes();
        if done >= end {
            return Ok(());
        }
        let pieces = data.iter().scan(done, |at, piece| {
            *at += piece.len();
            (*at <= end).then_some(())
        });
        let count = pieces.take(IO_SLICES_MAX).count();
        let slices: Vec<IoSlice<'_>> = data.io_slices().take(count).collect();
        match called(pwritev(file, &slices, file_offset(offset, done)?)) {
            Ok(0) => return Err(Errno::EIO),
            Ok(written) => data.advance(written),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
        }
    }
}

fn file_offset(offset: u64, done: usize) -> Result<i64, Errno> {
    let at = offset
        .checked_add(done as u64)
        .and_then(|at| i64::try_from(at).ok());
    at.ok_or(Errno::EFBIG)
}

fn zero_from(buffer: &mut FrameBuf, start: usize) {
    for index in start / PAGE_SIZE..buffer.len() {
        let within = start.saturating_sub(index * PAGE_SIZE);
        buffer.page_mut(index)[within..].fill(0);
    }
}
