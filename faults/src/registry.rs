//! The registry of one server instance: what is armed, what was counted, what happened.
//!
//! A word stands in front of everything, one for points and one for each layer of rules. It is read with a relaxed
//! load. Whatever orders arming before the work that it is meant for (a reply of the admin port, a channel) orders the
//! load too. A word that is seen late can only make a fault start late.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::watch;

use crate::device::Device;
use crate::event::{DeviceFiring, EventLog, Firing, PointFiring};
use crate::kind::RequestKinds;
use crate::point::{FaultContext, FaultPoint};

mod point_state;
mod points;
mod rules;

pub(crate) use point_state::{Arming, Chance, Fire, Paused, PointStates};
pub use points::PointListing;
pub use rules::{Decision, NoSuchRule, RULES_MAX, RuleListing, Screen};

/// The faults of one server instance. A clone is the same registry.
#[derive(Clone, Default)]
pub struct Faults {
    pub(crate) shared: Arc<Shared>,
}

/// What the handles of one registry share.
#[derive(Default)]
pub(crate) struct Shared {
    /// How many points are armed; zero makes every point pass.
    points_armed: AtomicUsize,
    /// Absent until a point is armed or listed.
    points: OnceLock<PointStates>,
    /// Raised whenever a caller pauses.
    pauses: watch::Sender<u64>,
    rules: rules::Rules,
    events: EventLog,
    devices: Mutex<Vec<Device>>,
}

impl Faults {
    /// A registry with nothing armed.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    pub(crate) fn from_shared(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Notes what was done to a device at this moment.
    pub fn record_device(&self, firing: DeviceFiring) {
        self.shared.events.push(Firing::Device(firing));
    }

    /// What code under those kinds of work needs to reach this registry's points.
    #[must_use]
    pub fn context(&self, within: RequestKinds) -> FaultContext {
        FaultContext::new(Arc::clone(&self.shared), within)
    }

    /// The device of the export of that name, made if there was none.
    pub fn add_device(&self, name: &str) -> Device {
        let mut devices = lock(&self.shared.devices);
        if let Some(device) = devices.iter().find(|device| device.name() == name) {
            return device.clone();
        }
        let device = Device::new(name);
        devices.push(device.clone());
        device
    }

    /// Forgets the export of that name; rules that name it stay.
    pub fn remove_device(&self, name: &str) {
        lock(&self.shared.devices).retain(|device| device.name() != name);
    }

    /// The device of the export of that name.
    #[must_use]
    pub fn device(&self, name: &str) -> Option<Device> {
        self.shared.device(name)
    }

    /// The names of the exports that have a device, in the order in which they were added.
    #[must_use]
    pub fn device_names(&self) -> Vec<String> {
        lock(&self.shared.devices)
            .iter()
            .map(|device| device.name().to_owned())
            .collect()
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let armed = self.shared.points_armed.load(Ordering::Relaxed);
        f.debug_struct("Faults")
            .field("points_armed", &armed)
            .finish_non_exhaustive()
    }
}

impl Shared {
    #[inline]
    pub(crate) fn no_point_armed(&self) -> bool {
        self.points_armed.load(Ordering::Relaxed) == 0
    }

    fn device(&self, name: &str) -> Option<Device> {
        lock(&self.devices)
            .iter()
            .find(|device| device.name() == name)
            .cloned()
    }

    /// The state of every point.
    #[inline]
    pub(crate) fn points(&self) -> &PointStates {
        self.points.get_or_init(PointStates::new)
    }

    /// Counts a hit of an armed registry's point, and says what it has to do.
    pub(crate) fn hit(&self, point: &'static FaultPoint, within: RequestKinds) -> Option<Fire> {
        let fire = self.points().of(point).hit(within, &self.points_armed)?;
        self.record(point, within, &fire);
        Some(fire)
    }

    #[cold]
    fn record(&self, point: &'static FaultPoint, within: RequestKinds, fire: &Fire) {
        self.events.push(Firing::Point(PointFiring {
            file: point.file.to_owned(),
            line: point.line,
            class: point.class.to_owned(),
            function: point.function().to_owned(),
            within: within.to_string(),
            fire: fire.number,
            action: fire.text.clone(),
        }));
    }

    /// Counts a caller as paused at `point` until the guard is dropped.
    pub(crate) fn enter_pause(&self, point: &'static FaultPoint, epoch: u64) -> Paused<'_> {
        let paused = self.points().of(point).enter_pause(epoch);
        self.pauses.send_modify(|count| *count += 1);
        paused
    }
}

/// Locks; a panic elsewhere while it was held changes nothing about what it guards.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
