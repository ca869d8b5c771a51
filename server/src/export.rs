//! Exports: what clients see of a cache, and the table in which they find it.

use std::collections::BTreeMap;
use std::sync::Arc;

use weir_cache::PageCache;
use weir_protocol::handshake::{ExportDirectory, Refusal};
use weir_protocol::info::{BlockSizes, ExportInfo};
use weir_protocol::{MetaContextSet, TransmissionFlags};

use crate::backend::power_cut::PowerCutBackend;
use crate::held::HeldMemory;

mod misdirect;
mod open;

pub use misdirect::misdirected;
pub use open::{OpenExportError, check, known_size, open};

/// A device under a name.
#[derive(Debug)]
pub struct Export {
    /// What clients ask for; empty for the default export.
    pub name: String,
    /// A text for people; may be empty.
    pub description: String,
    /// Where the data is, as the user wrote it.
    pub source: String,
    /// The device.
    pub cache: Arc<PageCache>,
    /// Whether everything that changes data is refused.
    pub read_only: bool,
    /// The part of its backend that can lose its power, if `--power-cut` asked for one.
    pub power_cut: Option<Arc<PowerCutBackend>>,
    /// What is kept for its clients beside the cache, for fault rules.
    pub held: Arc<HeldMemory>,
    /// What the user should know about the store, for the start.
    pub remarks: Vec<String>,
}

impl Export {
    /// The transmission flags: what works, and nothing else. `structured` says whether the client has structured
    /// replies; without them there is no DF.
    ///
    /// FAST_ZERO is set for every writable export, because its answer is honest: `ENOTSUP` where zeroing would be slow.
    #[must_use]
    pub fn transmission_flags(&self, structured: bool) -> TransmissionFlags {
        let backend = self.cache.backend();
        let mut flags = TransmissionFlags::HAS_FLAGS
            | TransmissionFlags::SEND_FLUSH
            | TransmissionFlags::SEND_FUA
            | TransmissionFlags::CAN_MULTI_CONN
            | TransmissionFlags::SEND_CACHE;
        if self.read_only {
            flags |= TransmissionFlags::READ_ONLY;
        } else {
            flags |= TransmissionFlags::SEND_WRITE_ZEROES | TransmissionFlags::SEND_FAST_ZERO;
            if backend.capabilities().discard {
                flags |= TransmissionFlags::SEND_TRIM;
            }
        }
        if backend.geometry().rotational {
            flags |= TransmissionFlags::ROTATIONAL;
        }
        if structured {
            flags |= TransmissionFlags::SEND_DF;
        }
        flags
    }

    /// What the handshake tells a client. The handshake removes DF again for clients without structured replies.
    #[must_use]
    pub fn info(&self) -> ExportInfo {
        ExportInfo {
            name: self.name.clone(),
            size: self.cache.size(),
            flags: self.transmission_flags(true),
            description: self.description.clone(),
            block_sizes: BlockSizes::default(),
            meta_contexts: MetaContextSet::ALL,
        }
    }
}

/// All exports of a server, by name. The table doesn't change while the server runs.
#[derive(Debug, Default)]
pub struct ExportTable {
    exports: BTreeMap<String, Arc<Export>>,
}

impl ExportTable {
    /// The export of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<Export>> {
        self.exports.get(name).cloned()
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Export>> {
        self.exports.values()
    }
}

impl FromIterator<Export> for ExportTable {
    /// The names are distinct; the settings have checked that.
    fn from_iter<I: IntoIterator<Item = Export>>(exports: I) -> Self {
        let mut table = Self::default();
        for export in exports {
            let replaced = table.exports.insert(export.name.clone(), Arc::new(export));
            assert!(replaced.is_none(), "two exports of one name");
        }
        table
    }
}

impl ExportDirectory for ExportTable {
    fn find(&self, name: &str) -> Result<ExportInfo, Refusal> {
        let export = self
            .exports
            .get(name)
            .ok_or_else(|| Refusal::unknown_export(name))?;
        Ok(export.info())
    }

    fn list(&self, visit: &mut dyn FnMut(&str, &str)) -> Result<(), Refusal> {
        for export in self.iter() {
            visit(&export.name, &export.description);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
