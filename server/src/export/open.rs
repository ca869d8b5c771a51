//! From settings to a device that is ready to be served.

use std::sync::Arc;

use weir_cache::{CacheOptions, Errno, OpenError, PageCache};
use weir_faults::{Faults, RequestKinds, fault_point};

use super::Export;
use crate::backend::Layers;
use crate::backend::scheme::{OpenStoreError, StoreOptions};
use crate::settings::ExportSettings;
use crate::source::Source;

/// Why an export can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenExportError {
    /// The store can't be opened.
    #[error(transparent)]
    Store(#[from] OpenStoreError),
    /// An injected fault keeps the store from opening.
    #[error("{source_text} can't be opened: {}", std::io::Error::from(*.errno))]
    Injected {
        /// The SOURCE.
        source_text: String,
        /// What was injected.
        errno: Errno,
    },
    /// There is no room for what stands between cache and store.
    #[error("there is no address space for the export's buffers: {0}; check the limits of memory")]
    Buffers(#[from] std::io::Error),
    /// The space that it has allocated can't be counted for the quota.
    #[error("what the store has allocated can't be counted: {0}; leave --quota out")]
    Space(Errno),
    /// The cache over it can't be made.
    #[error("{0}; change --cache-size or --quota")]
    Cache(#[from] OpenError),
}

/// Opens the store, then the cache over it.
///
/// # Errors
/// Whatever is wrong with the store or the cache.
pub async fn open(settings: &ExportSettings, faults: &Faults) -> Result<Export, OpenExportError> {
    let source = &settings.source;
    may_be_opened(source, faults)?;
    let store = source.open(&store_options(settings)).await?;
    let layers = Layers::over(store.backend, settings, faults)?;
    let options = CacheOptions {
        cache_bytes: settings.cache_bytes,
        mode: settings.mode,
        direct_threshold: settings.direct_threshold,
        quota: settings.quota,
        device: Some(faults.add_device(&settings.name)),
    };
    let cache = PageCache::open(layers.top, &options, faults)
        .inspect_err(|_| faults.remove_device(&settings.name))?;
    Ok(Export {
        name: settings.name.clone(),
        description: settings.description.clone(),
        source: source.to_string(),
        cache,
        read_only: settings.read_only,
        power_cut: layers.power_cut,
        held: Arc::default(),
        remarks: store.remarks,
    })
}

/// The fault point of opening, for every kind of store.
fn may_be_opened(source: &Source, faults: &Faults) -> Result<(), OpenExportError> {
    let context = faults.context(RequestKinds::OPEN);
    fault_point!(context, "backend:open", [EIO, ENOENT, EACCES, ENOMEM]).map_err(|errno| {
        OpenExportError::Injected {
            source_text: source.to_string(),
            errno,
        }
    })
}

/// Looks for what is wrong with the source, and changes nothing.
///
/// # Errors
/// What [`open`] would refuse, as far as that can be told without opening.
pub fn check(settings: &ExportSettings) -> Result<(), OpenExportError> {
    Ok(settings.source.check(&store_options(settings))?)
}

/// How large the device is or will be, as far as that can be told without opening it.
#[must_use]
pub fn known_size(settings: &ExportSettings) -> Option<u64> {
    settings.source.known_size(&store_options(settings))
}

fn store_options(settings: &ExportSettings) -> StoreOptions {
    StoreOptions {
        size: settings.size,
        create_size: settings.create_size,
        read_only: settings.read_only,
        engine: settings.engine,
    }
}
