//! The layers over a store, and their order.
//!
//! From the cache down: the points of what a store is asked ([`weir_cache::FaultedBackend`], which the cache itself
//! adds), [`rules`](super::rules), [`power_cut`](super::power_cut) if requested, the store. Rules are above the power
//! cut, so that what they damage is damaged on its way to the disk's own cache.

use std::io;
use std::sync::Arc;

use weir_cache::Backend;
use weir_faults::{Faults, RequestKinds};

use super::power_cut::PowerCutBackend;
use super::rules::RuledBackend;
use crate::settings::ExportSettings;

/// A store with its layers.
#[derive(Debug)]
pub(crate) struct Layers {
    /// What lies directly below the cache.
    pub(crate) top: Arc<dyn Backend>,
    /// The layer that can lose its power, if `--power-cut` asked for one.
    pub(crate) power_cut: Option<Arc<PowerCutBackend>>,
}

impl Layers {
    /// Puts an export's layers over `store`.
    ///
    /// # Errors
    /// The system has no address space for their buffers.
    pub(crate) fn over(
        store: Arc<dyn Backend>,
        settings: &ExportSettings,
        faults: &Faults,
    ) -> io::Result<Self> {
        let (mut top, mut power_cut) = (store, None);
        if settings.power_cut {
            // A layer isn't told which export it works for, so it counts as working for all of it.
            let device = faults.add_device(&settings.name);
            let context = faults.context(RequestKinds::ALL).on(&device);
            let layer = Arc::new(PowerCutBackend::new(top, context)?);
            top = Arc::clone(&layer) as _;
            power_cut = Some(layer);
        }
        top = Arc::new(RuledBackend::new(
            top,
            power_cut.clone(),
            &settings.name,
            faults,
        )?);
        Ok(Self { top, power_cut })
    }
}

#[cfg(test)]
mod tests;
