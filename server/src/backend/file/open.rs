//! Opening a file or block device, with every reason for a refusal.
//!
//! A missing file is created only if its size is given, and an existing file is never made larger or smaller here. A
//! created file's folder is synced too: a flush that succeeds must not lose the whole file with its name.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64};

use nix::fcntl::{AT_FDCWD, AtFlags, OFlag};
use nix::unistd::{AccessFlags, faccessat};

use super::container;
use super::lock::lock;
use super::probe::{self, Found};
use super::{Abilities, Descriptor, OpenFile};
use crate::limits::DEVICE_BYTES_MAX;
use crate::size::Size;

/// The mode of a created image: a disk holds what its files' modes keep from others.
const IMAGE_MODE: u32 = 0o600;

/// May the file be changed?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Opened and locked for reading and writing.
    ReadWrite,
    /// Opened for reading; several servers may do so.
    ReadOnly,
}

/// How whole pages are read and written where direct I/O works; everything else is done by threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Engine {
    /// io_uring where the system lets Weir use it, threads elsewhere.
    #[default]
    Auto,
    /// Threads.
    Threads,
}

/// How a file is to be opened.
#[derive(Clone, Copy, Debug)]
pub struct FileOptions {
    /// The size that it must have, and with which it is created if it is missing.
    pub size: Option<u64>,
    /// May it be changed?
    pub access: Access,
    /// How it is read and written.
    pub engine: Engine,
}

/// Why a file can't be served.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the texts say it")]
pub enum OpenFileError {
    #[error("{} doesn't exist; give --size SIZE to create it", path.display())]
    Missing { path: PathBuf },
    #[error("{} doesn't exist, and its beginning names no kind of source; give {}, or --size SIZE to create a file of that name", path.display(), crate::source::forms())]
    MissingScheme { path: PathBuf },
    #[error("{} doesn't exist, and no file is created in /dev; check the device's name", path.display())]
    MissingDevice { path: PathBuf },
    #[error("{} doesn't exist, and a read-only export can't create it; leave --read-only out once", path.display())]
    MissingReadOnly { path: PathBuf },
    #[error("{} can't be created: there is no folder {}; make it (mkdir -p), or correct the path", path.display(), folder.display())]
    NoFolder { path: PathBuf, folder: PathBuf },
    #[error("{} can't be created: {source}; change who may write its folder, or give another path", path.display())]
    CreateForbidden { path: PathBuf, source: io::Error },
    #[error("{} can't be created: {source}", path.display())]
    Create { path: PathBuf, source: io::Error },
    #[error("{} can't be opened: {source}; change who may read it, or start Weir as its owner", path.display())]
    OpenForbidden { path: PathBuf, source: io::Error },
    #[error("{} can't be opened: {source}", path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("{} can't be opened for writing: {source}; add --read-only, or change who may write it", path.display())]
    OpenForWriting { path: PathBuf, source: io::Error },
    #[error("{} is {what}; give a file or a block device", path.display())]
    NotServable { path: PathBuf, what: &'static str },
    #[error("{} has {actual} bytes ({}), --size says {asked} ({}); leave --size out to serve it as it is", path.display(), Size(*actual), Size(*asked))]
    SizeDiffers {
        path: PathBuf,
        actual: u64,
        asked: u64,
    },
    #[error("{} would have no bytes; give a --size above 0", path.display())]
    NoSize { path: PathBuf },
    #[error("{} is empty; remove it and give --size SIZE to create it", path.display())]
    Empty { path: PathBuf },
    #[error("{} would have {size} bytes, more than the {DEVICE_BYTES_MAX} that the system can address; use a smaller --size", path.display())]
    TooLarge { path: PathBuf, size: u64 },
    #[error("{} was replaced by another file while it was opened; find out by whom, and start again", path.display())]
    Replaced { path: PathBuf },
    #[error("{} is being served already, by another Weir or another export of this one; stop that first", path.display())]
    InUse { path: PathBuf },
    #[error("{} is being written by QEMU (a virtual machine, qemu-nbd, qemu-img) or another program; stop that first", path.display())]
    WrittenByQemu { path: PathBuf },
    #[error("{} is being read by QEMU, which lets nobody write it meanwhile; stop that first, or add --read-only", path.display())]
    ReadByQemu { path: PathBuf },
    #[error("{} is used by the system (mounted, or part of another device); release it first, or add --read-only", path.display())]
    DeviceBusy { path: PathBuf },
    #[error("no thread for {} can be started: {source}; raise the limit of tasks", path.display())]
    Threads { path: PathBuf, source: io::Error },
}

/// Opens, locks and probes.
pub(super) fn open(path: &Path, options: &FileOptions) -> Result<OpenFile, OpenFileError> {
    let writable = options.access == Access::ReadWrite;
    let file = match examine(path, options)? {
        Some(metadata) => open_existing(path, &metadata, writable)?,
        None => create(path, options)?,
    };
    let metadata = file.metadata().map_err(|source| OpenFileError::Open {
        path: path.to_owned(),
        source,
    })?;
    let is_device = metadata.file_type().is_block_device();
    let buffered = lock(path, file, writable)?;
    // The size is read under the lock: another server may just have changed it.
    let size = (&*buffered)
        .seek(SeekFrom::End(0))
        .map_err(|source| OpenFileError::Open {
            path: path.to_owned(),
            source,
        })?;
    check_size(path, size, options.size)?;
    let mut found = probe::probe(path, &buffered, &metadata, size, writable);
    found.remarks.extend(container::remark(&buffered));
    Ok(assemble(path, buffered, size, is_device, writable, found))
}

fn assemble(
    path: &Path,
    buffered: Descriptor,
    size: u64,
    is_device: bool,
    writable: bool,
    found: Found,
) -> OpenFile {
    OpenFile {
        path: path.to_owned(),
        buffered,
        direct_works: AtomicBool::new(found.direct.is_some()),
        direct: found.direct,
        size: AtomicU64::new(size),
        allocation_unit: found.allocation_unit,
        rotational: found.rotational,
        is_device,
        writable,
        can: Abilities {
            punch: AtomicBool::new(found.punch),
            zero: AtomicBool::new(found.zero),
            seek: AtomicBool::new(found.seek),
            shift: AtomicBool::new(found.shift),
        },
        remarks: found.remarks,
    }
}

/// Looks for what is wrong with `path`, and changes nothing; `None` if it is missing and can be created.
///
/// # Errors
/// Whatever [`FileBackend::open`](super::FileBackend::open) would refuse and that can be told without opening.
pub fn examine(path: &Path, options: &FileOptions) -> Result<Option<Metadata>, OpenFileError> {
    if let Some(size) = options.size.filter(|size| *size > DEVICE_BYTES_MAX) {
        return Err(OpenFileError::TooLarge {
            path: path.to_owned(),
            size,
        });
    }
    if options.size == Some(0) {
        return Err(OpenFileError::NoSize {
            path: path.to_owned(),
        });
    }
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return examine_missing(path, options).map(|()| None);
        }
        Err(source) => {
            return Err(OpenFileError::Open {
                path: path.to_owned(),
                source,
            });
        }
    };
    check_kind(path, &metadata)?;
    if metadata.is_file() {
        check_size(path, metadata.len(), options.size)?;
    }
    let writable = options.access == Access::ReadWrite;
    let wanted = match writable {
        true => AccessFlags::R_OK | AccessFlags::W_OK,
        false => AccessFlags::R_OK,
    };
    faccessat(AT_FDCWD, path, wanted, AtFlags::AT_EACCESS)
        .map_err(|errno| cannot_open(path, errno.into(), writable))?;
    Ok(Some(metadata))
}

/// Whether a missing file may be created.
fn examine_missing(path: &Path, options: &FileOptions) -> Result<(), OpenFileError> {
    let path = path.to_owned();
    let folder = folder_of(&path).canonicalize();
    // Shared memory is where users put files. Everything else there is a device, and a missing one is a mistyped name.
    if let Ok(folder) = &folder
        && folder.starts_with("/dev")
        && !folder.starts_with("/dev/shm")
    {
        return Err(OpenFileError::MissingDevice { path });
    }
    if folder
        .as_ref()
        .is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    {
        let folder = folder_of(&path).to_owned();
        return Err(OpenFileError::NoFolder { path, folder });
    }
    if options.access == Access::ReadOnly {
        return Err(OpenFileError::MissingReadOnly { path });
    }
    if options.size.is_none() {
        return Err(match looks_like_a_scheme(&path) {
            true => OpenFileError::MissingScheme { path },
            false => OpenFileError::Missing { path },
        });
    }
    let creatable = folder.and_then(|folder| {
        let wanted = AccessFlags::W_OK | AccessFlags::X_OK;
        faccessat(AT_FDCWD, &folder, wanted, AtFlags::AT_EACCESS).map_err(io::Error::from)
    });
    creatable.map_err(|source| cannot_create(path, source))
}

/// Whether the author of `memroy:1G` may have meant no file.
fn looks_like_a_scheme(path: &Path) -> bool {
    let text = path.to_string_lossy();
    text.split_once(':')
        .is_some_and(|(name, _)| !name.contains('/'))
}

fn open_existing(path: &Path, metadata: &Metadata, writable: bool) -> Result<File, OpenFileError> {
    let kind = metadata.file_type();
    let mut how = OpenOptions::new();
    how.read(true).write(writable);
    // A pipe may have taken the file's place by now, and the open must not wait for it.
    let mut flags = OFlag::O_NOCTTY;
    if kind.is_file() {
        flags |= OFlag::O_NONBLOCK;
    } else if writable {
        // Without O_CREAT this claims the device: it fails while a file system on it is mounted.
        flags |= OFlag::O_EXCL;
    }
    let failed = |source| cannot_open(path, source, writable);
    let file = how.custom_flags(flags.bits()).open(path).map_err(failed)?;
    // The facts known of the path must hold for the opened file.
    let opened = file.metadata().map_err(failed)?;
    if same_file(metadata, &opened) && opened.file_type() == kind {
        Ok(file)
    } else {
        Err(OpenFileError::Replaced {
            path: path.to_owned(),
        })
    }
}

/// Refuses what is neither a file nor a block device.
fn check_kind(path: &Path, metadata: &Metadata) -> Result<(), OpenFileError> {
    let kind = metadata.file_type();
    let what = if kind.is_file() || kind.is_block_device() {
        None
    } else if kind.is_dir() {
        Some("a folder")
    } else if kind.is_socket() {
        Some("a socket")
    } else if kind.is_fifo() {
        Some("a pipe")
    } else {
        Some("a character device")
    };
    if let Some(what) = what {
        return Err(OpenFileError::NotServable {
            path: path.to_owned(),
            what,
        });
    }
    Ok(())
}

fn cannot_open(path: &Path, source: io::Error, writable: bool) -> OpenFileError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::ResourceBusy => OpenFileError::DeviceBusy { path },
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem if writable => {
            OpenFileError::OpenForWriting { path, source }
        }
        io::ErrorKind::PermissionDenied => OpenFileError::OpenForbidden { path, source },
        _ => OpenFileError::Open { path, source },
    }
}

fn cannot_create(path: PathBuf, source: io::Error) -> OpenFileError {
    match source.kind() {
        io::ErrorKind::PermissionDenied => OpenFileError::CreateForbidden { path, source },
        _ => OpenFileError::Create { path, source },
    }
}

/// Creates a sparse file of the requested size, and leaves nothing behind when that fails.
fn create(path: &Path, options: &FileOptions) -> Result<File, OpenFileError> {
    let path = path.to_owned();
    let Some(size) = options.size else {
        return Err(OpenFileError::Missing { path });
    };
    let file = match OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(IMAGE_MODE)
        .open(&path)
    {
        Ok(file) => file,
        Err(source) => return Err(cannot_create(path, source)),
    };
    let durable = file
        .set_len(size)
        .and_then(|()| file.sync_all())
        .and_then(|()| sync_folder(&path));
    match durable {
        Ok(()) => Ok(file),
        Err(source) => {
            // The file is new and empty, and the reason why it couldn't be made matters more than this error.
            let ours = file.metadata();
            let there = std::fs::symlink_metadata(&path);
            if ours.is_ok_and(|ours| there.is_ok_and(|there| same_file(&ours, &there))) {
                let _ = std::fs::remove_file(&path);
            }
            Err(OpenFileError::Create { path, source })
        }
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

fn check_size(path: &Path, actual: u64, asked: Option<u64>) -> Result<(), OpenFileError> {
    let path = path.to_owned();
    match asked {
        _ if actual == 0 => Err(OpenFileError::Empty { path }),
        Some(asked) if asked != actual => Err(OpenFileError::SizeDiffers {
            path,
            actual,
            asked,
        }),
        _ if actual > DEVICE_BYTES_MAX => Err(OpenFileError::TooLarge { path, size: actual }),
        _ => Ok(()),
    }
}

/// Whether two metadata are of one file.
pub(super) fn same_file(a: &Metadata, b: &Metadata) -> bool {
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

#[cfg(test)]
mod tests;
