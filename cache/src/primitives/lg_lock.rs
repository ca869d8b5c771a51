//! A lock in shards: the local shard for the fast path, all of them for the slow path that needs the total.
//!
//! This is the kernel's lglock, which kept bcachefs' space accounting cheap. Each shard is a mutex on a cache line of
//! its own. A thread keeps to one shard, so two threads rarely meet. `global` locks all shards in ascending order, so
//! two calls of `global` can't deadlock. A thread that holds a guard must ask for neither kind: the guards never nest.
//!
//! Guards hold blocking mutexes: keep them for a few instructions, and never across an await (they are not `Send`).

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::thread::available_parallelism;

use crossbeam_utils::CachePadded;

use crate::primitives::sync::{Mutex, MutexGuard, lock, thread_number};

#[cfg(all(test, not(loom)))]
mod tests;

/// More shards than this make `global` slow without making `local` any faster.
const SHARDS_MAX: usize = 64;

/// The number of shards of every lock that doesn't say otherwise: one per processor.
pub(crate) fn default_shards() -> usize {
    available_parallelism()
        .map_or(1, usize::from)
        .min(SHARDS_MAX)
}

/// A value in shards; see the module's documentation.
///
/// ```
/// use weir_cache::lg_lock::LgLock;
///
/// let requests = LgLock::new(|_shard| 0_u64);
/// *requests.local() += 1;
/// assert_eq!(requests.global().iter().sum::<u64>(), 1);
/// ```
pub struct LgLock<T> {
    shards: Box<[CachePadded<Mutex<T>>]>,
}

impl<T> LgLock<T> {
    /// One shard per processor, each made by `init` from its number.
    pub fn new(init: impl FnMut(usize) -> T) -> Self {
        Self::with_shards(default_shards(), init)
    }

    /// As [`new`](Self::new), with a number of shards.
    ///
    /// # Panics
    /// If `shards` is 0.
    pub fn with_shards(shards: usize, mut init: impl FnMut(usize) -> T) -> Self {
        assert!(shards > 0, "a lock without shards holds nothing");
        Self {
            shards: (0..shards)
                .map(|shard| CachePadded::new(Mutex::new(init(shard))))
                .collect(),
        }
    }

    /// Locks this thread's shard.
    pub fn local(&self) -> LocalGuard<'_, T> {
        let shard = thread_number() % self.shards.len();
        LocalGuard {
            value: lock(&self.shards[shard]),
        }
    }

    /// Locks all shards.
    pub fn global(&self) -> GlobalGuard<'_, T> {
        GlobalGuard {
            values: self.shards.iter().map(|shard| lock(shard)).collect(),
        }
    }

    /// How many shards there are.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.shards.len()
    }
}

impl<T> fmt::Debug for LgLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LgLock")
            .field("shards", &self.shards.len())
            .finish()
    }
}

/// One thread's shard, locked.
#[must_use = "the shard is unlocked when the guard is dropped"]
pub struct LocalGuard<'a, T> {
    value: MutexGuard<'a, T>,
}

impl<T> Deref for LocalGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for LocalGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

/// All shards, locked.
#[must_use = "the shards are unlocked when the guard is dropped"]
pub struct GlobalGuard<'a, T> {
    values: Vec<MutexGuard<'a, T>>,
}

impl<T> GlobalGuard<'_, T> {
    /// The shards in order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.values.iter().map(|value| &**value)
    }

    /// The shards in order, to change.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.values.iter_mut().map(|value| &mut **value)
    }
}

impl<T: Default> GlobalGuard<'_, T> {
    /// Takes what every shard holds and leaves the default.
    pub fn drain(&mut self) -> impl Iterator<Item = T> {
        self.iter_mut().map(std::mem::take)
    }
}
