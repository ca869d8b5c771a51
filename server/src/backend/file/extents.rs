//! Which parts of a file are holes, by `SEEK_DATA` and `SEEK_HOLE`.
//!
//! A seek moves the descriptor's offset, which nothing uses: all other I/O is positional. Space that was allocated but
//! never written shows as a hole, as it does to every other program.

use std::ops::Range;
use std::sync::atomic::Ordering;

use nix::unistd::{Whence, lseek};
use weir_cache::{BackendExtent, ExtentKind};
use weir_faults::Errno;

use super::OpenFile;
use super::system::called;

impl OpenFile {
    /// The extents of `range`, `most` of them at most. A file system that doesn't know holes has only data.
    pub(super) fn extents(
        &self,
        range: Range<u64>,
        most: usize,
    ) -> Result<Vec<BackendExtent>, Errno> {
        let end = range.end.min(self.size());
        let mut at = range.start;
        let mut found = Vec::new();
        while at < end && found.len() < most {
            let (kind, until) = if self.can.seek.load(Ordering::Relaxed) {
                self.extent_at(at, end)
                    .map_err(|error| self.failed("search for holes", at, error))?
            } else {
                (ExtentKind::Data, end)
            };
            assert!(until > at, "an empty extent at {at}");
            found.push(BackendExtent {
                range: at..until,
                kind,
            });
            at = until;
        }
        Ok(found)
    }

    fn extent_at(&self, at: u64, end: u64) -> Result<(ExtentKind, u64), Errno> {
        let data = match self.seek(at, Whence::SeekData) {
            Ok(data) => data,
            // There is no data from here to the end of the file.
            Err(Errno::ENXIO) => return Ok((ExtentKind::Hole, end)),
            Err(error) => return Err(error),
        };
        if data > at {
            return Ok((ExtentKind::Hole, data.min(end)));
        }
        // A concurrent punch may have made a hole at `at` itself.
        let hole = self.seek(at, Whence::SeekHole)?;
        if hole > at {
            Ok((ExtentKind::Data, hole.min(end)))
        } else {
            self.racing_hole(at, end)
        }
    }

    /// `at` was data a moment ago and is a hole now; the next data bounds it.
    fn racing_hole(&self, at: u64, end: u64) -> Result<(ExtentKind, u64), Errno> {
        match self.seek(at, Whence::SeekData) {
            Ok(data) if data > at => Ok((ExtentKind::Hole, data.min(end))),
            Ok(_) => Ok((
                ExtentKind::Data,
                (at + u64::from(self.allocation_unit)).min(end),
            )),
            Err(Errno::ENXIO) => Ok((ExtentKind::Hole, end)),
            Err(error) => Err(error),
        }
    }

    fn seek(&self, at: u64, whence: Whence) -> Result<u64, Errno> {
        let at = i64::try_from(at).map_err(|_| Errno::EOVERFLOW)?;
        let found = called(lseek(&*self.buffered, at, whence))?;
        u64::try_from(found).map_err(|_| Errno::EOVERFLOW)
    }
}
