//! What one registry knows about one point: counters, what is armed there, who is paused there.
//!
//! One mutex per point guards all that must agree; it is taken only while some point of the registry is armed. Whoever is
//! paused watches an epoch that was subscribed under that mutex, so a release can't fall between decision and wait.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::errno::Errno;
use crate::kind::RequestKinds;
use crate::point::FaultPoint;
use crate::query::{Chance, Effect, Trigger};
use crate::registry::lock;
use crate::rng::Rng;

/// What is armed at a point.
#[derive(Clone, Debug)]
pub(crate) struct Arming {
    pub(crate) trigger: Trigger,
    pub(crate) effect: Effect,
    pub(crate) within: RequestKinds,
    /// The action's words, as `state` shows them.
    pub(crate) text: String,
    pub(crate) since: Instant,
    pub(crate) hits: u64,
    pub(crate) fires: u64,
}

/// One firing.
pub(crate) struct Fire {
    pub(crate) error: Option<Errno>,
    pub(crate) delay: Option<Duration>,
    pub(crate) pause: bool,
    /// Ends the delay and the pause: raised above `epoch`.
    pub(crate) release: watch::Receiver<u64>,
    /// The epoch under which it was decided.
    pub(crate) epoch: u64,
    /// The firing's number at this point.
    pub(crate) number: u64,
    /// The action's words.
    pub(crate) text: String,
}

/// The state of one point.
#[derive(Default)]
pub(crate) struct PointState {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    arming: Option<Arming>,
    hits: u64,
    fires: u64,
    /// How many are paused in the current epoch.
    paused: usize,
    /// Raised by a release.
    epoch: watch::Sender<u64>,
}

/// What a listing shows of a point.
pub(crate) struct PointCounts {
    pub(crate) hits: u64,
    pub(crate) fires: u64,
    pub(crate) paused: usize,
    /// The armed action's words.
    pub(crate) text: Option<String>,
}

impl PointState {
    /// Arms; what was armed before goes, and whoever it paused.
    pub(crate) fn arm(&self, arming: Arming, armed: &AtomicUsize) {
        let mut inner = lock(&self.inner);
        if inner.arming.replace(arming).is_none() {
            armed.fetch_add(1, Ordering::Relaxed);
        }
        inner.release();
    }

    /// Disarms, and releases whoever is paused or delayed.
    pub(crate) fn disarm(&self, armed: &AtomicUsize) {
        let mut inner = lock(&self.inner);
        inner.disarm(armed);
        inner.release();
    }

    /// Disarms, releases and forgets the counters; says whether it was armed.
    pub(crate) fn reset(&self, armed: &AtomicUsize) -> bool {
        let mut inner = lock(&self.inner);
        let was_armed = inner.arming.is_some();
        inner.disarm(armed);
        inner.release();
        inner.hits = 0;
        inner.fires = 0;
        was_armed
    }

    /// Ends the pauses and delays here; says how many were paused.
    pub(crate) fn release(&self) -> usize {
        lock(&self.inner).release()
    }

    /// What a listing shows.
    pub(crate) fn counts(&self, armed: &AtomicUsize) -> PointCounts {
        let mut inner = lock(&self.inner);
        inner.expire(armed);
        PointCounts {
            hits: inner.hits,
            fires: inner.fires,
            paused: inner.paused,
            text: inner.arming.as_ref().map(|arming| arming.text.clone()),
        }
    }

    /// Counts a hit and decides.
    pub(crate) fn hit(
        &self,
        point: &'static FaultPoint,
        within: RequestKinds,
        armed: &AtomicUsize,
    ) -> Option<Fire> {
        let mut inner = lock(&self.inner);
        inner.hits += 1;
        inner.expire(armed);
        let arming = inner.arming.as_mut()?;
        if !arming.within.intersects(within) || !arming.fires_now(point) {
            return None;
        }
        let exhausted = arming
            .trigger
            .times
            .is_some_and(|times| arming.fires >= times);
        let (effect, text) = (arming.effect.clone(), arming.text.clone());
        inner.fires += 1;
        if exhausted {
            inner.disarm(armed);
        }
        Some(Fire {
            error: effect.error,
            delay: effect.delay,
            pause: effect.pause,
            release: inner.epoch.subscribe(),
            epoch: *inner.epoch.borrow(),
            number: inner.fires,
            text,
        })
    }

    /// Counts someone as paused, unless the epoch that the pause belongs to is over.
    pub(crate) fn enter_pause(&self, epoch: u64) -> Paused<'_> {
        let mut inner = lock(&self.inner);
        if *inner.epoch.borrow() == epoch {
            inner.paused += 1;
        }
        Paused { state: self, epoch }
    }
}

impl Inner {
    fn disarm(&mut self, armed: &AtomicUsize) {
        if self.arming.take().is_some() {
            armed.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Disarms what was armed for a time that is over.
    fn expire(&mut self, armed: &AtomicUsize) {
        let over = |arming: &Arming| {
            arming
                .trigger
                .limit
                .is_some_and(|limit| arming.since.elapsed() >= limit)
        };
        if self.arming.as_ref().is_some_and(over) {
            self.disarm(armed);
        }
    }

    fn release(&mut self) -> usize {
        self.epoch.send_modify(|epoch| *epoch += 1);
        std::mem::take(&mut self.paused)
    }
}

impl Arming {
    /// Counts a hit of the right kind, and says whether it fires.
    fn fires_now(&mut self, point: &'static FaultPoint) -> bool {
        self.hits += 1;
        let Some(number) = self
            .hits
            .checked_sub(self.trigger.after)
            .filter(|number| *number > 0)
        else {
            return false;
        };
        if self
            .trigger
            .frequency
            .is_some_and(|frequency| number % frequency != 0)
        {
            return false;
        }
        if let Some(Chance { percent, seed }) = self.trigger.chance {
            // The point's name keeps two points of one query from firing in step.
            let name = format!("{}:{}:{}", point.file, point.line, point.column);
            if Rng::of(seed, &name, number).unit() * 100.0 >= percent {
                return false;
            }
        }
        self.fires += 1;
        true
    }
}

/// Someone who is paused; dropped when the pause ends, or with the future.
pub(crate) struct Paused<'a> {
    state: &'a PointState,
    epoch: u64,
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        let mut inner = lock(&self.state.inner);
        // A release has counted everyone of its epoch out.
        if *inner.epoch.borrow() == self.epoch {
            inner.paused -= 1;
        }
    }
}
