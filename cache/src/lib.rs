//! A coherent write-back page cache for block devices.

mod sync;

pub mod add_lock;
pub mod error_seq;
pub mod gen_radix;
pub mod lg_lock;
pub mod two_state_lock;
