//! What a request brings along so that points reach their registry.

use std::fmt;
use std::sync::Arc;

use crate::device::Device;
use crate::errno::Errno;
use crate::kind::RequestKinds;
use crate::point::FaultPoint;
use crate::registry::{Faults, Shared};
use crate::wait;

/// The registry, the kinds of work that the code runs under, and the export if there is one. Cheap to clone.
#[derive(Clone)]
pub struct FaultContext {
    shared: Arc<Shared>,
    within: RequestKinds,
    device: Option<Device>,
    /// Races are not said to be lost any more.
    is_sure: bool,
}

/// A [`FaultContext`] if some point of its registry was armed when it was looked at, and else nothing: what the points
/// of one short operation share, so that all of them together cost one look. The default has nothing armed.
#[derive(Clone, Copy, Debug, Default)]
pub struct ArmedPoints<'a>(Option<&'a FaultContext>);

impl ArmedPoints<'_> {
    /// Nothing is armed.
    pub const NONE: ArmedPoints<'static> = ArmedPoints(None);

    #[doc(hidden)]
    #[inline]
    pub fn check(&self, point: &'static FaultPoint) -> Result<(), Errno> {
        self.0.map_or(Ok(()), |context| context.check_armed(point))
    }

    #[doc(hidden)]
    #[inline]
    pub fn loses_race(&self, point: &'static FaultPoint) -> bool {
        self.0.is_some_and(|context| context.race_armed(point))
    }
}

impl FaultContext {
    pub(crate) fn new(shared: Arc<Shared>, within: RequestKinds) -> Self {
        Self {
            shared,
            within,
            device: None,
            is_sure: false,
        }
    }

    /// A context of its own registry, in which nothing will ever be armed.
    #[must_use]
    pub fn disarmed() -> Self {
        Faults::new().context(RequestKinds::NONE)
    }

    /// The same for other kinds of work.
    #[must_use]
    pub fn within(&self, within: RequestKinds) -> Self {
        Self {
            within,
            ..self.clone()
        }
    }

    /// The same for work on `device`, whose [`Device::interrupt`] ends its pauses and delays.
    #[must_use]
    pub fn on(&self, device: &Device) -> Self {
        Self {
            device: Some(device.clone()),
            ..self.clone()
        }
    }

    /// The same for another attempt after a race that was lost: none of its races is said to be lost, so that a loop
    /// ends even if a race point fires at every hit.
    #[must_use]
    pub fn retry(&self) -> Self {
        Self {
            is_sure: true,
            ..self.clone()
        }
    }

    /// One look at whether something is armed, for several points in a row.
    #[inline]
    #[must_use]
    pub fn armed(&self) -> ArmedPoints<'_> {
        ArmedPoints((!self.shared.no_point_armed()).then_some(self))
    }

    /// The kinds of work that it runs under.
    #[must_use]
    pub fn kinds(&self) -> RequestKinds {
        self.within
    }

    /// The registry that it reaches.
    #[must_use]
    pub fn faults(&self) -> Faults {
        Faults::from_shared(Arc::clone(&self.shared))
    }

    #[doc(hidden)]
    #[inline]
    pub fn check(&self, point: &'static FaultPoint) -> Result<(), Errno> {
        if self.shared.no_point_armed() {
            return Ok(());
        }
        self.check_armed(point)
    }

    #[doc(hidden)]
    #[inline]
    pub fn loses_race(&self, point: &'static FaultPoint) -> bool {
        !self.shared.no_point_armed() && self.race_armed(point)
    }

    #[doc(hidden)]
    #[inline]
    pub async fn pass(&self, point: &'static FaultPoint) -> Result<(), Errno> {
        if self.shared.no_point_armed() {
            return Ok(());
        }
        // Boxed, so that a disarmed point adds next to nothing to its caller's future.
        Box::pin(self.pass_armed(point)).await
    }

    #[cold]
    fn check_armed(&self, point: &'static FaultPoint) -> Result<(), Errno> {
        match self
            .shared
            .hit(point, self.within)
            .and_then(|fire| fire.error)
        {
            Some(errno) => Err(errno),
            None => Ok(()),
        }
    }

    #[cold]
    fn race_armed(&self, point: &'static FaultPoint) -> bool {
        !self.is_sure && self.shared.hit(point, self.within).is_some()
    }

    #[cold]
    async fn pass_armed(&self, point: &'static FaultPoint) -> Result<(), Errno> {
        let Some(fire) = self.shared.hit(point, self.within) else {
            return Ok(());
        };
        let interrupt = self.device.as_ref().map(Device::interruption);
        let mut ends = wait::Ends::new(fire.release, interrupt);
        if let Some(delay) = fire.delay {
            ends.within(delay).await;
        }
        if fire.pause {
            let _paused = self.shared.enter_pause(point, fire.epoch);
            ends.reached().await;
        }
        fire.error.map_or(Ok(()), Err)
    }
}

impl fmt::Debug for FaultContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultContext")
            .field("within", &self.within)
            .finish_non_exhaustive()
    }
}
