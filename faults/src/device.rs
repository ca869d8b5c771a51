//! The state of one export as a device: what a real disk may do to its users, on command.
//!
//! With nothing set, a look costs one relaxed load. Before the server takes a request further, it awaits
//! [`Device::thawed`], holding nothing, and asks [`Device::check`]. It tells [`Device::rewritten`] what was stored.
//! What is set while a request is past its check applies to the next one.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::watch;

use crate::errno::Errno;
use crate::kind::{RequestKind, RequestKinds};
use crate::registry::lock;
use crate::words::Word;

mod range_set;
use range_set::RangeSet;

/// What a disk remaps and loses at once, in bytes.
pub const SECTOR: u64 = 512;

/// The most separate ranges of bad sectors on one device: they take some megabytes, and a disk with more would be
/// thrown away.
pub const BAD_RANGES_MAX: usize = 65_536;

/// The words that `weir device` takes.
pub(crate) const DEVICE_WORDS: &[Word<()>] = &[
    Word {
        name: "power-cut",
        value: "NAME [keep=none|all|random] [tear=512] [seed=N]",
        help: "lose what no flush has covered",
        id: (),
    },
    Word {
        name: "offline",
        value: "NAME",
        help: "every request fails with EIO",
        id: (),
    },
    Word {
        name: "online",
        value: "NAME",
        help: "the end of that",
        id: (),
    },
    Word {
        name: "freeze",
        value: "NAME",
        help: "every request waits, holding no lock; with its data, of which 128 MiB are kept",
        id: (),
    },
    Word {
        name: "thaw",
        value: "NAME",
        help: "the end of that",
        id: (),
    },
    Word {
        name: "bad",
        value: "NAME add|rm A..B",
        help: "reads of those sectors fail with EIO until they are rewritten",
        id: (),
    },
    Word {
        name: "read-only",
        value: "NAME on|off",
        help: "what would change it fails with EPERM",
        id: (),
    },
];

/// The state of one export; a clone is the same device.
#[derive(Clone, Debug)]
pub struct Device {
    shared: Arc<DeviceShared>,
}

#[derive(Debug)]
struct DeviceShared {
    name: String,
    /// Whether something below is set.
    armed: AtomicBool,
    state: Mutex<State>,
    /// Guarded by `state` when written; requests that wait for a thaw watch it.
    frozen: watch::Sender<bool>,
    interrupt: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    offline: bool,
    read_only: bool,
    bad: RangeSet,
}

/// What a listing says of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceListing {
    /// The export's name.
    pub name: String,
    /// Whether every request fails.
    pub offline: bool,
    /// Whether every request waits.
    pub frozen: bool,
    /// Whether what would change it fails.
    pub read_only: bool,
    /// Ranges of bad sectors, half-open, in bytes.
    pub bad: Vec<Range<u64>>,
}

/// Too many separate ranges of bad sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "more than {BAD_RANGES_MAX} separate ranges of bad sectors; remove some, or add larger ones"
)]
pub struct TooManyBadRanges;

impl Device {
    pub(crate) fn new(name: &str) -> Self {
        let shared = DeviceShared {
            name: name.to_owned(),
            armed: AtomicBool::new(false),
            state: Mutex::default(),
            frozen: watch::Sender::new(false),
            interrupt: watch::Sender::new(0),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// The export's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Waits while the device is frozen. Cancel safe.
    pub async fn thawed(&self) {
        if self.shared.armed.load(Ordering::Relaxed) {
            let mut frozen = self.shared.frozen.subscribe();
            // The sender lives in `self.shared`: this can only be a thaw.
            drop(frozen.wait_for(|frozen| !*frozen).await);
        }
    }

    /// Whether the device takes this request now. `offset` and `length` are in bytes.
    ///
    /// # Errors
    /// `EIO` if it is offline, or for a read that touches a bad sector; `EPERM` for what would change a read-only
    /// device.
    #[inline]
    pub fn check(&self, kind: RequestKind, offset: u64, length: u64) -> Result<(), Errno> {
        if !self.shared.armed.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.check_armed(kind, offset, length)
    }

    #[cold]
    fn check_armed(&self, kind: RequestKind, offset: u64, length: u64) -> Result<(), Errno> {
        const CHANGING: RequestKinds = RequestKinds::WRITE
            .union(RequestKinds::TRIM)
            .union(RequestKinds::ZERO)
            .union(RequestKinds::RESIZE);
        let state = lock(&self.shared.state);
        if state.offline {
            return Err(Errno::EIO);
        }
        if state.read_only && CHANGING.contains(kind) {
            return Err(Errno::EPERM);
        }
        if kind == RequestKind::Read && state.bad.overlaps(&(offset..offset.saturating_add(length)))
        {
            return Err(Errno::EIO);
        }
        Ok(())
    }

    /// Says that these bytes were written or zeroed: bad sectors that lie in them wholly are remapped, and good again.
    #[inline]
    pub fn rewritten(&self, offset: u64, length: u64) {
        if self.shared.armed.load(Ordering::Relaxed) {
            let end = offset.saturating_add(length) / SECTOR * SECTOR;
            let start = offset.div_ceil(SECTOR).saturating_mul(SECTOR);
            self.change(|state| state.heal(start..end));
        }
    }

    /// Takes the device away, or brings it back.
    pub fn set_offline(&self, offline: bool) {
        self.change(|state| state.offline = offline);
    }

    /// Makes what would change the device fail, or not.
    pub fn set_read_only(&self, read_only: bool) {
        self.change(|state| state.read_only = read_only);
    }

    /// Makes every request wait.
    pub fn freeze(&self) {
        self.change(|_| self.shared.frozen.send_replace(true));
    }

    /// Ends a freeze.
    pub fn thaw(&self) {
        self.change(|_| self.shared.frozen.send_replace(false));
    }

    /// Makes every sector that `range` touches a bad one. The range is in bytes.
    ///
    /// # Errors
    /// [`TooManyBadRanges`]; then nothing was changed.
    pub fn add_bad(&self, range: Range<u64>) -> Result<(), TooManyBadRanges> {
        self.change(|state| {
            if state.bad.len() >= BAD_RANGES_MAX {
                return Err(TooManyBadRanges);
            }
            state.bad.insert(sectors_touched(&range));
            Ok(())
        })
    }

    /// Makes every sector that `range` touches a good one. The range is in bytes.
    pub fn remove_bad(&self, range: Range<u64>) {
        self.change(|state| state.heal(sectors_touched(&range)));
    }

    /// What is set.
    #[must_use]
    pub fn listing(&self) -> DeviceListing {
        let state = lock(&self.shared.state);
        DeviceListing {
            name: self.shared.name.clone(),
            offline: state.offline,
            frozen: *self.shared.frozen.borrow(),
            read_only: state.read_only,
            bad: state.bad.ranges(),
        }
    }

    /// Ends every injected hang, delay and pause on this device, as a power cut does first.
    pub fn interrupt(&self) {
        self.shared.interrupt.send_modify(|epoch| *epoch += 1);
    }

    pub(crate) fn interruption(&self) -> watch::Receiver<u64> {
        self.shared.interrupt.subscribe()
    }

    /// Changes the state, and the flag to match.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = lock(&self.shared.state);
        let result = change(&mut state);
        let armed = state.offline
            || state.read_only
            || !state.bad.is_empty()
            || *self.shared.frozen.borrow();
        self.shared.armed.store(armed, Ordering::Relaxed);
        result
    }
}

impl State {
    /// Makes these bytes good. In the middle of a bad range this leaves two ranges. If that is one too many, the left
    /// one becomes good, too.
    fn heal(&mut self, range: Range<u64>) {
        let start = range.start;
        self.bad.remove(range);
        if self.bad.len() > BAD_RANGES_MAX {
            self.bad.remove_ending_at(start);
        }
    }
}

/// The range, widened to whole sectors.
fn sectors_touched(range: &Range<u64>) -> Range<u64> {
    let start = range.start / SECTOR * SECTOR;
    let end = range.end.div_ceil(SECTOR).saturating_mul(SECTOR);
    start..end
}

#[cfg(test)]
mod tests;
