//! What keeps the cache within its size and its quota, and ahead of its readers.
//!
//! | module | what |
//! | --- | --- |
//! | [`memory`] | frames for requests: reserved in turn, with budgets for payloads |
//! | [`clock`] | which pages are given up |
//! | [`throttle`] | writers that wait while too much is dirty |
//! | [`quota`] | quotas: what an export may allocate |
//! | [`readahead`] | streams, and what is read before it is asked for |

pub(crate) mod clock;
pub(crate) mod memory;
pub(crate) mod quota;
pub(crate) mod readahead;
pub(crate) mod throttle;
