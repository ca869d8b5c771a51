//! How acknowledged data becomes durable, and what is known of what didn't.
//!
//! | module | what |
//! | --- | --- |
//! | [`flush`] | FLUSH and FUA: what they cover, and when they fail |
//! | [`generations`] | which changes of the store a sync covers |
//! | [`writeback`] | dirty pages on their way to the store: runs, retries, failures |
//! | [`background`] | the task that writes back by amount and age |
//! | [`power`] | power cuts: what they end |

pub(crate) mod background;
pub(crate) mod flush;
pub(crate) mod generations;
pub(crate) mod power;
pub(crate) mod writeback;
