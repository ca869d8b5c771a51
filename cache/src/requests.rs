//! What clients ask for: one file for each kind of request, and what they share.
//!
//! | module | what |
//! | --- | --- |
//! | [`read`], [`fill`] | READ: hits inline, misses by fills that their readers carry |
//! | [`write`], [`payload`] | WRITE: into private frames first, then page by page into the cache |
//! | [`discard`], [`direct`] | TRIM, WRITE_ZEROES and direct writes: changes behind the cache's back |
//! | [`resize`], [`shift`] | a device that becomes larger, smaller, or is cut or spliced in the middle |
//! | [`drop_clean`] | giving up what is clean |
//! | [`status`] | BLOCK_STATUS: what is allocated, and what is cached |

pub(crate) mod direct;
pub(crate) mod discard;
pub(crate) mod drop_clean;
pub(crate) mod fill;
pub(crate) mod payload;
pub(crate) mod read;
pub(crate) mod resize;
pub(crate) mod shift;
pub(crate) mod status;
pub(crate) mod write;
