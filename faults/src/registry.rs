//! The registry of one server instance: what is armed, what was counted, what happened.
//!
//! Two flags stand in front of everything, one for points and one for rules, each read with a relaxed load. Arming
//! happens before the work that it is meant for by whatever ordered the two (a reply of the admin port, a channel); a flag
//! seen late can only make a fault start late.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::watch;

use crate::kind::RequestKinds;
use crate::point::{FaultContext, FaultPoint, POINTS};

mod point_state;
mod points;

pub(crate) use point_state::{Arming, Fire, Paused, PointState};
pub use points::PointListing;

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
    /// By position in [`POINTS`]; absent until a point is armed or listed.
    points: OnceLock<Box<[PointState]>>,
    /// Raised whenever someone pauses.
    pauses: watch::Sender<u64>,
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

    /// What code under those kinds of work needs to reach this registry's points.
    #[must_use]
    pub fn context(&self, within: RequestKinds) -> FaultContext {
        FaultContext::new(Arc::clone(&self.shared), within)
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

    /// The state of every point, by position.
    pub(crate) fn points(&self) -> &[PointState] {
        self.points
            .get_or_init(|| (0..POINTS.len()).map(|_| PointState::default()).collect())
    }

    /// Counts a hit of an armed registry's point, and says what it has to do.
    pub(crate) fn hit(&self, point: &'static FaultPoint, within: RequestKinds) -> Option<Fire> {
        self.points()[point.position()].hit(point, within, &self.points_armed)
    }

    /// Counts someone as paused at `point` until the guard is dropped.
    pub(crate) fn enter_pause(
        &self,
        point: &'static FaultPoint,
        ends: &crate::wait::Ends,
    ) -> Paused<'_> {
        let paused = self.points()[point.position()].enter_pause(ends.epoch());
        self.pauses.send_modify(|count| *count += 1);
        paused
    }
}

/// Locks; a panic elsewhere while it was held changes nothing about what it guards.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
