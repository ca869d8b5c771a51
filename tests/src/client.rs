//! A blocking NBD client that can also misbehave.
//!
//! [`Socket`] sends any bytes. [`Handshake`] takes one step of the negotiation at a time. [`Client`] is in the
//! transmission phase: it sends any command with any flags, and checks each reply against the protocol's promises (the
//! cookie, the chunks' order and cover, the error numbers that may be used).

mod handshake;
mod reply;
mod socket;
mod transmission;
pub mod wire;

pub use handshake::{Export, Handshake, OptionReply, Options};
pub use reply::{Chunk, Errno, Reply};
pub use socket::Socket;
pub use transmission::{Client, normalise, request_bytes};
