//! The state of one export as a device: what a real disk may do to its users, on command.

use std::sync::Arc;

use tokio::sync::watch;

/// The state of one export; a clone is the same device.
#[derive(Clone, Debug)]
pub struct Device {
    shared: Arc<DeviceShared>,
}

#[derive(Debug)]
struct DeviceShared {
    name: String,
    interrupt: watch::Sender<u64>,
}

impl Device {
    /// The export's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Ends every injected hang, delay and pause on this device.
    pub fn interrupt(&self) {
        self.shared.interrupt.send_modify(|epoch| *epoch += 1);
    }

    pub(crate) fn interruption(&self) -> watch::Receiver<u64> {
        self.shared.interrupt.subscribe()
    }
}
