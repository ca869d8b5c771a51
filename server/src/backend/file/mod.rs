#![doc = include_str!("README.md")]
//!
//! # How
//! - Calls become positional vectored I/O on [threads](threads) of the backend's own, so that a stalled disk holds up
//!   neither the runtime nor another export. A call that runs there owns its buffers.
//! - One open file has two descriptors. `direct` has `O_DIRECT`: Weir has its own cache, and caching twice wastes the
//!   user's memory. `buffered` is for what direct I/O can't do: a tail shorter than a page, odd pieces, file systems
//!   without `O_DIRECT`. The kernel keeps the two coherent; `fdatasync` on either covers both.
//! - When the file is opened, the file system's capabilities are [probed](probe) on a range past the file's end. What
//!   it can't do is reported once. If a file system later refuses what it granted before, it is believed and the
//!   capability is withdrawn.
//!
//! # Discard on block devices
//! A discarded range must read as zeroes. `BLKDISCARD` doesn't promise that; `fallocate` with `FALLOC_FL_PUNCH_HOLE`
//! does (Linux' `blkdev_fallocate`: unmap if that zeroes, else write zeroes without transferring data, else
//! `EOPNOTSUPP`), and needs no `ioctl`.
//!
//! # Invariants
//! - `size` changes only in `resize`, `insert_range` and `collapse_range`, which the cache never runs beside other
//!   calls.
//! - Nothing is written past `size`: a write that would extend the file is an error, not growth.
//! - The advisory [locks](lock) belong to `buffered` and live as long as the backend: two servers on one file would
//!   each have a cache that knows nothing of the other's changes.

mod calls;
mod container;
mod extents;
mod lock;
mod open;
mod probe;
mod ring;
mod source;
mod system;
mod threads;
mod transfer;

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nix::fcntl::Flock;
use weir_cache::{
    Backend, BackendExtent, BackendFuture, Capabilities, Errno, FrameBuf, FrameRefs, Geometry,
    ZeroMode,
};

pub use open::{Access, Engine, FileOptions, OpenFileError, examine};
use ring::Ring;
pub use source::SCHEME;
use threads::IoThreads;

/// A file or block device that is being served.
#[derive(Debug)]
pub struct FileBackend {
    file: Arc<OpenFile>,
    threads: IoThreads,
    /// Takes what is one direct transfer, if the system has a ring.
    ring: Option<Ring>,
}

/// What the I/O threads work on.
#[derive(Debug)]
struct OpenFile {
    path: PathBuf,
    buffered: Descriptor,
    direct: Option<File>,
    /// Cleared for good when the system refuses direct I/O that it should take.
    direct_works: AtomicBool,
    size: AtomicU64,
    allocation_unit: u32,
    rotational: bool,
    is_device: bool,
    writable: bool,
    can: Abilities,
    /// What the user should know about this file, for the start.
    remarks: Vec<String>,
}

/// The descriptor that holds the locks, as far as the file system has them; `flock` with `Locked` alone.
#[derive(Debug)]
enum Descriptor {
    Locked(Flock<File>),
    Unlocked(File),
}

impl std::ops::Deref for Descriptor {
    type Target = File;

    fn deref(&self) -> &File {
        match self {
            Self::Locked(file) => file,
            Self::Unlocked(file) => file,
        }
    }
}

/// What the file system was found to be capable of. Each capability can be withdrawn, and none comes back.
#[derive(Debug, Default)]
struct Abilities {
    punch: AtomicBool,
    zero: AtomicBool,
    seek: AtomicBool,
    shift: AtomicBool,
}

impl OpenFile {
    fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }
}

impl FileBackend {
    /// Opens `path` as `options` say, and finds out what can be done with it. Blocks on file system calls.
    ///
    /// # Errors
    /// Each reason for which a file can't be served, with the path.
    pub fn open(path: &Path, options: &FileOptions) -> Result<Self, OpenFileError> {
        let file = Arc::new(open::open(path, options)?);
        let threads = IoThreads::start(crate::limits::IO_THREADS_MAX).map_err(|source| {
            OpenFileError::Threads {
                path: path.to_owned(),
                source,
            }
        })?;
        let ring = match options.engine {
            Engine::Auto => Ring::start()
                .inspect_err(|error| {
                    tracing::debug!("no io_uring, threads do all I/O: {error}");
                })
                .ok(),
            Engine::Threads => None,
        };
        Ok(Self {
            file,
            threads,
            ring,
        })
    }

    /// What was found out about the file and the user should know, one line each.
    #[must_use]
    pub fn remarks(&self) -> &[String] {
        &self.file.remarks
    }

    /// Runs `call` on an I/O thread. A call that takes too long is reported once, and still waited for.
    async fn run<T: Send + 'static>(
        &self,
        what: &'static str,
        call: impl FnOnce(&OpenFile) -> T + Send + 'static,
    ) -> T {
        let file = Arc::clone(&self.file);
        let mut done = self.threads.run(move || call(&file));
        let limit = crate::limits::IO_REPORT_AFTER;
        let outcome = match tokio::time::timeout(limit, &mut done).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let path = self.file.path.display();
                tracing::warn!(
                    "{path}: a {what} takes longer than {} s; is the disk well?",
                    limit.as_secs()
                );
                done.await
            }
        };
        outcome.expect("I/O threads don't panic and finish what was submitted")
    }
}

impl Backend for FileBackend {
    fn geometry(&self) -> Geometry {
        let file = &self.file;
        Geometry {
            size: file.size(),
            allocation_unit: file.allocation_unit,
            rotational: file.rotational,
        }
    }

    fn capabilities(&self) -> Capabilities {
        let file = &self.file;
        let on = |flag: &AtomicBool| file.writable && flag.load(Ordering::Relaxed);
        Capabilities {
            discard: on(&file.can.punch),
            zero_keep: on(&file.can.zero),
            zero_punch: on(&file.can.punch),
            resize: file.writable && !file.is_device,
            extents: file.can.seek.load(Ordering::Relaxed),
            shift: on(&file.can.shift),
        }
    }

    fn read(
        &self,
        offset: u64,
        mut buffer: FrameBuf,
    ) -> BackendFuture<'_, (FrameBuf, Result<(), Errno>)> {
        Box::pin(async move {
            if let Some(ring) = &self.ring
                && self.file.reads_directly(offset, buffer.len())
            {
                let whole;
                (buffer, whole) = ring.read(&self.file, offset, buffer).await;
                if whole {
                    return (buffer, Ok(()));
                }
            }
            self.run("read", move |file| {
                let outcome = file.read(offset, &mut buffer);
                (buffer, outcome)
            })
            .await
        })
    }

    fn write(&self, offset: u64, mut data: FrameRefs) -> BackendFuture<'_, Result<(), Errno>> {
        Box::pin(async move {
            if let Some(ring) = &self.ring
                && self.file.writes_directly(offset, &data)
            {
                let whole;
                (data, whole) = ring.write(&self.file, offset, data).await;
                if whole {
                    return Ok(());
                }
            }
            self.run("write", move |file| file.write(offset, data))
                .await
        })
    }

    fn write_zeroes(
        &self,
        range: Range<u64>,
        mode: ZeroMode,
    ) -> BackendFuture<'_, Result<(), Errno>> {
        Box::pin(async move {
            self.run("write of zeroes", move |file| file.zero(range, mode))
                .await
        })
    }

    fn discard(&self, range: Range<u64>) -> BackendFuture<'_, Result<(), Errno>> {
        Box::pin(async move { self.run("discard", move |file| file.punch(range)).await })
    }

    fn extents(
        &self,
        range: Range<u64>,
        most: usize,
    ) -> BackendFuture<'_, Result<Vec<BackendExtent>, Errno>> {
        Box::pin(async move {
            self.run("search for holes", move |file| file.extents(range, most))
                .await
        })
    }

    fn sync(&self) -> BackendFuture<'_, Result<(), Errno>> {
        Box::pin(async move { self.run("sync", OpenFile::sync).await })
    }

    fn resize(&self, size: u64) -> BackendFuture<'_, Result<(), Errno>> {
        Box::pin(async move { self.run("resize", move |file| file.resize(size)).await })
    }

    fn insert_range(&self, offset: u64, length: u64) -> BackendFuture<'_, Result<(), Errno>> {
        Box::pin(async move {
            self.run("insertion of a range", move |file| {
                file.insert_range(offset, length)
            })
            .await
        })
    }

    fn collapse_range(&self, offset: u64, length: u64) -> BackendFuture<'_, Result<(), Errno>> {
        Box::pin(async move {
            self.run("removal of a range", move |file| {
                file.collapse_range(offset, length)
            })
            .await
        })
    }

    fn submit(&self) {
        if let Some(ring) = &self.ring {
            ring.submit();
        }
    }

    fn close(&self) -> BackendFuture<'_, Result<(), Errno>> {
        Box::pin(async {
            if let Some(ring) = &self.ring {
                ring.close();
            }
            self.threads.close();
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests;
