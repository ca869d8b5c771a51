//! From settings to a device that is ready to be served.

use std::path::Path;
use std::sync::Arc;

use weir_cache::{Backend, CacheOptions, OpenError, PageCache};
use weir_faults::{Faults, RequestKinds};

use super::Export;
use crate::backend::faulted::FaultedBackend;
use crate::backend::file::{Access, FileBackend, FileOptions, OpenFileError, examine};
use crate::backend::memory::MemoryBackend;
use crate::backend::power_cut::PowerCutBackend;
use crate::limits::DEVICE_BYTES_MAX;
use crate::settings::ExportSettings;
use crate::size::Size;
use crate::source::Source;

/// Why an export can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenExportError {
    /// The file or block device.
    #[error(transparent)]
    File(#[from] OpenFileError),
    /// `memory:SIZE` beside another `--size`.
    #[error("memory:{source_size} and --size {asked} contradict each other; leave --size out")]
    MemorySize {
        /// Of the source.
        source_size: Size,
        /// Of the option.
        asked: Size,
    },
    /// A device that nobody can address, or without a byte.
    #[error("memory:{0} can't be served; a device has from one byte to {DEVICE_BYTES_MAX}")]
    MemoryUnusable(Size),
    /// What stands between cache and store.
    #[error("there is no address space for the export's buffers: {0}; check the limits of memory")]
    Buffers(#[from] std::io::Error),
    /// What it has allocated, for the quota.
    #[error("what the store has allocated can't be counted: {0}; leave --quota out")]
    Space(weir_faults::Errno),
    /// The cache over it.
    #[error("{0}; change --cache-size or --quota")]
    Cache(#[from] OpenError),
}

/// Opens the store, then the cache over it. Needs a runtime, and blocks on file system calls.
///
/// # Errors
/// Whatever is wrong with the store or the cache.
pub fn open(settings: &ExportSettings, faults: &Faults) -> Result<Export, OpenExportError> {
    let (store, remarks) = open_backend(settings, faults)?;
    let (backend, power_cut) = decorated(store, settings, faults)?;
    let options = CacheOptions {
        cache_bytes: settings.cache_bytes,
        mode: settings.mode,
        direct_threshold: settings.direct_threshold,
        quota: settings.quota,
        device: Some(faults.add_device(&settings.name)),
    };
    let cache = PageCache::open(backend, &options, faults)
        .inspect_err(|_| faults.remove_device(&settings.name))?;
    Ok(Export {
        name: settings.name.clone(),
        description: settings.description.clone(),
        source: settings.source.to_string(),
        cache,
        read_only: settings.read_only,
        power_cut,
        held: Arc::default(),
        remarks,
    })
}

/// Looks for what is wrong with the source, and changes nothing.
///
/// # Errors
/// What [`open`] would refuse, as far as it shows without opening.
pub fn check(settings: &ExportSettings) -> Result<(), OpenExportError> {
    match &settings.source {
        Source::File(path) => Ok(examine(path, &file_options(path, settings)).map(drop)?),
        Source::Memory(size) => check_memory(*size, settings.size),
    }
}

/// How large the device is or will be, as far as that can be told without opening it.
#[must_use]
pub fn known_size(settings: &ExportSettings) -> Option<u64> {
    match &settings.source {
        Source::Memory(size) => Some(size.0),
        Source::File(path) => match path.metadata() {
            Ok(there) => there.is_file().then_some(there.len()),
            Err(_) => settings.size.or(settings.create_size).map(|size| size.0),
        },
    }
}

fn check_memory(size: Size, asked: Option<Size>) -> Result<(), OpenExportError> {
    if let Some(asked) = asked.filter(|asked| *asked != size) {
        return Err(OpenExportError::MemorySize {
            source_size: size,
            asked,
        });
    }
    if size.0 == 0 || size.0 > DEVICE_BYTES_MAX {
        return Err(OpenExportError::MemoryUnusable(size));
    }
    Ok(())
}

/// A store with its decorators, and the one of them that can lose its power.
type Decorated = (Arc<dyn Backend>, Option<Arc<PowerCutBackend>>);

/// Puts the decorators around the store that make it go wrong on purpose.
fn decorated(
    store: Arc<dyn Backend>,
    settings: &ExportSettings,
    faults: &Faults,
) -> std::io::Result<Decorated> {
    let power_cut = match settings.power_cut {
        true => Some(Arc::new(PowerCutBackend::new(Arc::clone(&store))?)),
        false => None,
    };
    let powered: Arc<dyn Backend> = match &power_cut {
        Some(power_cut) => Arc::clone(power_cut) as _,
        None => store,
    };
    let faulted = FaultedBackend::new(powered, power_cut.clone(), &settings.name, faults)?;
    Ok((Arc::new(faulted), power_cut))
}

fn open_backend(
    settings: &ExportSettings,
    faults: &Faults,
) -> Result<(Arc<dyn Backend>, Vec<String>), OpenExportError> {
    match &settings.source {
        Source::File(path) => open_file(path, settings, faults),
        Source::Memory(size) => {
            check_memory(*size, settings.size)?;
            Ok((Arc::new(MemoryBackend::new(size.0)), Vec::new()))
        }
    }
}

fn open_file(
    path: &Path,
    settings: &ExportSettings,
    faults: &Faults,
) -> Result<(Arc<dyn Backend>, Vec<String>), OpenExportError> {
    let options = file_options(path, settings);
    let context = faults.context(RequestKinds::OPEN);
    let backend = FileBackend::open(path, &options, &context)?;
    let remarks = backend.remarks().to_vec();
    Ok((Arc::new(backend), remarks))
}

fn file_options(path: &Path, settings: &ExportSettings) -> FileOptions {
    let access = if settings.read_only {
        Access::ReadOnly
    } else {
        Access::ReadWrite
    };
    let create_size = settings.create_size.filter(|_| !path.exists());
    FileOptions {
        size: settings.size.or(create_size).map(|size| size.0),
        access,
        engine: settings.engine,
    }
}
