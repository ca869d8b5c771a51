//! The one place that names atomics and locks: std's, or loom's under `--cfg loom`.
//!
//! The synchronisation primitives of this crate take their atomics, fences and mutexes from here, so that loom can run
//! every interleaving of the very code that ships. Under `--cfg loom` those types only work inside `loom::model`.

pub(crate) mod atomic {
    #[cfg(loom)]
    pub(crate) use loom::sync::atomic::{AtomicI64, AtomicPtr, AtomicU64, AtomicUsize, fence};
    #[cfg(not(loom))]
    pub(crate) use std::sync::atomic::{AtomicI64, AtomicPtr, AtomicU64, AtomicUsize, fence};

    pub(crate) use std::sync::atomic::Ordering;
}

#[cfg(loom)]
pub(crate) use loom::sync::{Mutex, MutexGuard};
#[cfg(not(loom))]
pub(crate) use std::sync::{Mutex, MutexGuard};

use std::sync::PoisonError;

/// Locks a mutex whatever became of its last holder.
///
/// A panic aborts the server, so a poisoned mutex is met in tests only, where the panic itself is the message.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A small number that is this thread's own for its lifetime; sharded structures take it modulo their shards.
///
/// Numbers are given out in turn, so that the threads of a pool spread evenly.
#[cfg(not(loom))]
pub(crate) fn thread_number() -> usize {
    use std::cell::Cell;
    use std::sync::atomic::AtomicUsize;

    const UNASSIGNED: usize = usize::MAX;
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static NUMBER: Cell<usize> = const { Cell::new(UNASSIGNED) });

    NUMBER.with(|number| {
        if number.get() == UNASSIGNED {
            number.set(NEXT.fetch_add(1, atomic::Ordering::Relaxed));
        }
        number.get()
    })
}

/// Loom's threads share one thread of the operating system; its models name their shards themselves.
#[cfg(loom)]
pub(crate) fn thread_number() -> usize {
    0
}

/// Declares a constructor that is `const`, except under loom, whose types can't be made in a const context.
macro_rules! const_unless_loom {
    ($(#[$attribute:meta])* $visibility:vis fn $name:ident() -> $result:ty $body:block) => {
        #[cfg(not(loom))]
        $(#[$attribute])*
        $visibility const fn $name() -> $result $body

        #[cfg(loom)]
        $(#[$attribute])*
        $visibility fn $name() -> $result $body
    };
}
pub(crate) use const_unless_loom;

/// Runs every interleaving of a model with at most so many preemptions; LOOM_MAX_PREEMPTIONS overrides the number.
///
/// Two find most bugs of this kind. The whole suite takes well under two minutes on one processor: `RUSTFLAGS="--cfg
/// loom" cargo test -p weir-cache --release --lib loom`.
#[cfg(all(test, loom))]
pub(crate) fn model(preemptions_max: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(preemptions_max);
    builder.check(model);
}
