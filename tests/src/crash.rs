//! The cache over a disk that loses its power, without a process and without a kernel.
//!
//! One seed gives one [`Plan`], and one plan gives one schedule. Several clients write, zero, trim, read, flush and
//! resize at the same time, on paused tokio time, through injected delays and errors. At a planned moment the power is
//! cut in the way of the admin port. Then everything is read back, and the next phase begins on what is left. [`run`]
//! plays a plan, [`report`](shrink::report) makes a failing one small.
//!
//! Two judges check what is left, and know nothing of each other:
//! - [`history`] knows what the clients were told. No sector is older than what a successful FLUSH or FUA has covered,
//!   and every sector is something that a client wrote. Reads see what was replied to.
//! - [`disk`] stands between the cache and its backend and keeps every version that the disk was given and every sync:
//!   what survives is exactly what `keep` says, per unit of survival.
//!
//! Below the cache is [`forget`], a disk that forgets the data of a failed sync, as Linux does. At the bottom is
//! [`store`], which goes on with a transfer whose caller has gone, as io_uring and threads do.
//!
//! To replay one seed: `WEIR_CRASH_SEED=N cargo test -p weir-tests --test crash -- --nocapture`. It prints the plan,
//! and what happened, step by step. A run that doesn't end in real time also fails with its seed.
//!
//! Content identifies itself: each [`CELL`](content::CELL) bytes name their place and the write that they come from.

mod client;
pub mod content;
pub mod disk;
pub mod forget;
pub mod history;
pub mod plan;
mod run;
pub mod shrink;
pub mod store;

pub use plan::Plan;
pub use run::{Failure, Outcome, run};
