//! The fixed newstyle handshake (proto.md, "Handshake phase"), both halves, as state machines.
//!
//! Neither half does I/O. The caller keeps a buffer of bytes that have arrived and calls `advance` with it. The machine
//! says how many bytes it has used up, appends what is to be sent to an output buffer, and says what comes next.
//!
//! A machine never waits for more than one option (or reply) of bounded length, so the caller's buffer stays bounded
//! too. It answers at most one option per call, so a peer that doesn't read can't make the output grow.

pub mod client;
pub mod directory;
pub mod server;

pub use directory::{ExportDirectory, Refusal};

#[cfg(test)]
mod tests;
