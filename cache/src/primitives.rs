//! What the cache is built of, and what doesn't know the cache: locks, the sparse array, the record of errors.
//!
//! Each is a data structure of its own that is usable and tested alone. Under loom only this folder is built, and its
//! models look at every interleaving; [`sync`] is what loom replaces. Nothing here names a page, a request or a store.
//!
//! | module | what |
//! | --- | --- |
//! | [`add_lock`] | which requests may put pages in and which may keep them out, range by range |
//! | [`two_state_lock`] | the lock of its gate: two shared states that exclude each other, in phases |
//! | [`range_queue`] | ranges in the order of their arrival, for the add lock and the range lock |
//! | [`range_lock`] | the order of changes behind the cache's back |
//! | [`lg_lock`] | a lock per processor for what is changed often and totalled rarely |
//! | [`gen_radix`] | the sparse array, looked up without locks |
//! | [`error_seq`] | errors that each observer is told once |
//! | [`points`] | the fault contexts of all these |

pub mod add_lock;
pub mod error_seq;
pub mod gen_radix;
pub mod lg_lock;
pub mod two_state_lock;

pub(crate) mod points;
mod range_queue;
pub(crate) mod sync;

#[cfg(not(loom))]
pub(crate) mod event;
#[cfg(not(loom))]
pub(crate) mod range_lock;
