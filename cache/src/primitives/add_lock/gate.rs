//! The gate before the regions: many region operations, or many whole-device blockers, or one alone.
//!
//! The modes and what they take, in this order:
//!
//! | mode | turnstile | `wholes` | shards |
//! | --- | --- | --- | --- |
//! | region | | | *add* on the thread's own |
//! | whole | while entering | *add* | *block* on all |
//! | exclusive | held | *block* | *block* on all |
//!
//! **Exclusion.** A region holds *add* on one shard and the others hold *block* on all of them, so a region excludes,
//! and is excluded by, both. Two wholes share `wholes` and the shards. An exclusive holds `wholes` against every whole,
//! and the turnstile against every other exclusive.
//!
//! **No deadlock.** Only one at a time enters the shards for *block* (turnstile), so all shards are asked at once: they
//! drain in parallel, rather than one after the other. There it waits for region holders and for wholes that are
//! inside, and neither of these waits at the gate. An exclusive waits for `wholes` without holding any shard, so
//! regions go on meanwhile. A wait at the turnstile holds nothing.
//!
//! **Fairness.** The turnstile is first come, first served, and every shard is phase-fair. A whole or an exclusive
//! waits for those before it at the turnstile, then for the slowest region holder of the moment. A region that comes
//! meanwhile waits until that whole or exclusive has entered and left, and goes before any whole that comes later. The
//! phase of a whole, as a shard sees it, begins when that whole has the shard, and so includes the wait for its other
//! shards.
//!
//! **Cancel safety.** Each await is for a future that is cancel safe. Guards hold what was gained before it, and are
//! dropped in the reverse order.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use crossbeam_utils::CachePadded;

use weir_faults::{ArmedPoints, FaultContext};

use crate::primitives::points::Points;
use crate::two_state_lock::{Acquire, Side, TwoStateGuard, TwoStateLock};

use super::turnstile::Turnstile;

/// The gate; see the module's documentation.
pub(super) struct Gate {
    turnstile: Turnstile,
    wholes: TwoStateLock,
    shards: Box<[CachePadded<TwoStateLock>]>,
    points: Points,
}

/// The way in which a holder holds the gate. The holder owes the gate one [`Gate::leave`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    Region { shard: usize },
    Whole,
    Exclusive,
}

impl Gate {
    pub(super) fn new(shards: usize) -> Self {
        Self {
            turnstile: Turnstile::new(),
            wholes: TwoStateLock::new(),
            shards: (0..shards)
                .map(|_| CachePadded::new(TwoStateLock::new()))
                .collect(),
            points: Points::NONE,
        }
    }

    /// The same with fault points, for the regions' locks, too.
    pub(super) fn with_faults(self, faults: FaultContext) -> Self {
        Self {
            points: Points::of(faults),
            ..self
        }
    }

    pub(super) fn points(&self) -> &Points {
        &self.points
    }

    pub(super) fn shards(&self) -> usize {
        self.shards.len()
    }

    /// The shard that a region operation passes through, if it may at once.
    pub(super) fn try_region(
        &self,
        shard: usize,
        armed: ArmedPoints<'_>,
    ) -> Option<TwoStateGuard<'_>> {
        self.shards[shard].try_lock_under(Side::Add, armed)
    }

    /// The shard that a region operation passes through. The guard is leaked into a [`Pass::Region`].
    pub(super) fn region(&self, shard: usize) -> Acquire<'_> {
        self.shards[shard].lock_under(Side::Add, self.points.armed())
    }

    pub(super) async fn whole(&self) -> Pass {
        let entering = self.turnstile.pass().await;
        // Not waited for: an exclusive holds `wholes` only while it holds the turnstile.
        let whole = self.wholes.lock(Side::Add).await;
        self.block_shards().await;
        whole.leak();
        drop(entering);
        Pass::Whole
    }

    pub(super) async fn exclusive(&self) -> Pass {
        let inside = self.turnstile.pass().await;
        let alone = self.wholes.lock(Side::Block).await;
        self.block_shards().await;
        alone.leak();
        inside.leak();
        Pass::Exclusive
    }

    /// Takes *block* on all shards, asked at once, and leaks it.
    async fn block_shards(&self) {
        let mut asked: Vec<Acquire<'_>> = self
            .shards
            .iter()
            .map(|shard| shard.lock_under(Side::Block, self.points.armed()))
            .collect();
        let mut held = Vec::with_capacity(asked.len());
        poll_fn(|context| {
            asked.retain_mut(|acquire| match Pin::new(acquire).poll(context) {
                Poll::Ready(guard) => {
                    held.push(guard);
                    false
                }
                Poll::Pending => true,
            });
            if asked.is_empty() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
        held.into_iter().for_each(TwoStateGuard::leak);
    }

    pub(super) fn leave(&self, pass: Pass) {
        match pass {
            Pass::Region { shard } => self.shards[shard].release(Side::Add, &self.points),
            Pass::Whole => {
                self.unblock_shards();
                self.wholes.release(Side::Add, &self.points);
            }
            Pass::Exclusive => {
                self.unblock_shards();
                self.wholes.release(Side::Block, &self.points);
                self.turnstile.leave();
            }
        }
    }

    fn unblock_shards(&self) {
        for shard in &self.shards {
            shard.release(Side::Block, &self.points);
        }
    }

    /// How many waiters there are for the gate as a whole or exclusively. A snapshot.
    pub(super) fn entering(&self) -> usize {
        self.turnstile.waiters()
    }
}
