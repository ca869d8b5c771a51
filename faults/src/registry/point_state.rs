//! What one registry knows about one point: counters, what is armed there, what is paused there.
//!
//! One mutex per point guards all that must agree. It is taken only when the point itself is armed for the kind of work
//! that reached it. While others are armed, this one costs a load and a count. Work that is paused watches an epoch
//! that it subscribed to under that mutex, so a release can't fall between decision and wait.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::errno::Errno;
use crate::kind::RequestKinds;
use crate::point::{FaultPoint, POINTS};
use crate::query::{Effect, Trigger};
use crate::registry::lock;
use crate::rng::Decisions;

/// What is armed at a point.
#[derive(Clone, Debug)]
pub(crate) struct Arming {
    pub(crate) trigger: Trigger,
    pub(crate) effect: Effect,
    pub(crate) within: RequestKinds,
    /// The action's words, as `state` shows them.
    pub(crate) text: String,
    pub(crate) since: Instant,
    /// Decides where the trigger has a probability.
    pub(crate) chance: Option<Chance>,
    pub(crate) hits: u64,
    pub(crate) fires: u64,
}

/// A probability at one point.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chance {
    percent: f64,
    decisions: Decisions,
}

impl Chance {
    /// The trigger's probability, for this point.
    pub(crate) fn of(trigger: &Trigger, point: &FaultPoint) -> Option<Self> {
        let chance = trigger.chance.as_ref()?;
        // The point's name keeps two points of one query from firing in step.
        let name = format!("{}:{}:{}", point.file, point.line, point.column);
        Some(Self {
            percent: chance.percent,
            decisions: Decisions::new(chance.seed, &name),
        })
    }
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

/// The state of one point, on cache lines of its own: its neighbours count, too.
#[derive(Default)]
#[repr(align(128))]
pub(crate) struct PointState {
    /// The kinds of work that it is armed for; none if it isn't. Changed under the mutex.
    within: AtomicU32,
    hits: AtomicU64,
    inner: Mutex<Inner>,
}

/// The states of all points.
pub(crate) struct PointStates {
    /// The address of the first point of [`POINTS`], which lie in a row.
    first: usize,
    /// In the same order.
    states: Box<[PointState]>,
}

impl PointStates {
    pub(crate) fn new() -> Self {
        Self {
            first: POINTS.as_ptr().addr(),
            states: (0..POINTS.len()).map(|_| PointState::default()).collect(),
        }
    }

    /// The state of this point.
    ///
    /// # Panics
    /// If it doesn't lie in the linker's slice.
    #[inline]
    pub(crate) fn of(&self, point: &'static FaultPoint) -> &PointState {
        let bytes = std::ptr::from_ref(point).addr() - self.first;
        &self.states[bytes / size_of::<FaultPoint>()]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &PointState> {
        self.states.iter()
    }
}

#[derive(Default)]
struct Inner {
    arming: Option<Arming>,
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
    /// Arms. What was armed before goes, and work that it paused goes on.
    pub(crate) fn arm(&self, arming: Arming, armed: &AtomicUsize) {
        let mut inner = lock(&self.inner);
        let within = u32::from(arming.within.bits());
        if inner.arming.replace(arming).is_none() {
            armed.fetch_add(1, Ordering::Relaxed);
        }
        self.within.store(within, Ordering::Relaxed);
        inner.release();
    }

    /// Disarms, and releases what is paused or delayed.
    pub(crate) fn disarm(&self, armed: &AtomicUsize) {
        let mut inner = lock(&self.inner);
        self.disarm_locked(&mut inner, armed);
        inner.release();
    }

    /// Disarms, releases and forgets the counters; says whether it was armed.
    pub(crate) fn reset(&self, armed: &AtomicUsize) -> bool {
        let mut inner = lock(&self.inner);
        let was_armed = inner.arming.is_some();
        self.disarm_locked(&mut inner, armed);
        inner.release();
        self.hits.store(0, Ordering::Relaxed);
        inner.fires = 0;
        was_armed
    }

    fn disarm_locked(&self, inner: &mut Inner, armed: &AtomicUsize) {
        if inner.arming.take().is_some() {
            armed.fetch_sub(1, Ordering::Relaxed);
            self.within.store(0, Ordering::Relaxed);
        }
    }

    /// Disarms what was armed for a time that is over.
    fn expire(&self, inner: &mut Inner, armed: &AtomicUsize) {
        let over = |arming: &Arming| {
            arming
                .trigger
                .limit
                .is_some_and(|limit| arming.since.elapsed() >= limit)
        };
        if inner.arming.as_ref().is_some_and(over) {
            self.disarm_locked(inner, armed);
        }
    }

    /// Ends the pauses and delays here; says how many were paused.
    pub(crate) fn release(&self) -> usize {
        lock(&self.inner).release()
    }

    /// What a listing shows.
    pub(crate) fn counts(&self, armed: &AtomicUsize) -> PointCounts {
        let mut inner = lock(&self.inner);
        self.expire(&mut inner, armed);
        PointCounts {
            hits: self.hits.load(Ordering::Relaxed),
            fires: inner.fires,
            paused: inner.paused,
            text: inner.arming.as_ref().map(|arming| arming.text.clone()),
        }
    }

    /// Counts a hit, of a registry in which some point is armed, and decides.
    #[inline]
    pub(crate) fn hit(&self, within: RequestKinds, armed: &AtomicUsize) -> Option<Fire> {
        self.hits.fetch_add(1, Ordering::Relaxed);
        if self.within.load(Ordering::Relaxed) & u32::from(within.bits()) == 0 {
            return None;
        }
        self.decide(within, armed)
    }

    /// What happens at a point that is armed.
    fn decide(&self, within: RequestKinds, armed: &AtomicUsize) -> Option<Fire> {
        let mut inner = lock(&self.inner);
        self.expire(&mut inner, armed);
        let inner = &mut *inner;
        let arming = inner.arming.as_mut()?;
        if !arming.within.intersects(within) || !arming.fires_now() {
            return None;
        }
        let exhausted = arming
            .trigger
            .times
            .is_some_and(|times| arming.fires >= times);
        let (effect, text) = (arming.effect.clone(), arming.text.clone());
        inner.fires += 1;
        if exhausted {
            self.disarm_locked(inner, armed);
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

    /// Counts a caller as paused, unless the epoch that the pause belongs to is over.
    pub(crate) fn enter_pause(&self, epoch: u64) -> Paused<'_> {
        let mut inner = lock(&self.inner);
        if *inner.epoch.borrow() == epoch {
            inner.paused += 1;
        }
        Paused { state: self, epoch }
    }
}

impl Inner {
    fn release(&mut self) -> usize {
        self.epoch.send_modify(|epoch| *epoch += 1);
        std::mem::take(&mut self.paused)
    }
}

impl Arming {
    /// Counts a hit of the right kind, and says whether it fires.
    fn fires_now(&mut self) -> bool {
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
        if self
            .chance
            .is_some_and(|chance| chance.decisions.number(number).unit() * 100.0 >= chance.percent)
        {
            return false;
        }
        self.fires += 1;
        true
    }
}

/// A piece of work that is paused; dropped when the pause ends, or with the future.
pub(crate) struct Paused<'a> {
    state: &'a PointState,
    epoch: u64,
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        let mut inner = lock(&self.state.inner);
        // A release has already counted out all pauses of its epoch.
        if *inner.epoch.borrow() == self.epoch {
            inner.paused -= 1;
        }
    }
}
