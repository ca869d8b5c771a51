//! The NBD wire protocol, sans-io: bytes in, typed values out, and back.
//!
//! Nothing here opens a socket, reads a clock or blocks. The reference is `doc/proto.md` of the NBD project;
//! documentation comments cite its sections.
//!
//! - [`handshake`]: both halves of the fixed newstyle negotiation, as state machines over byte slices.
//! - [`request`] and [`reply`]: the transmission phase. The code that every request passes through is inline and
//!   allocates nothing.
//! - [`extent`] and [`meta_context`]: what `NBD_CMD_BLOCK_STATUS` reports, and under which names.
//!
//! Values that a peer chooses (options, reply types, commands, error codes) are newtypes with named constants rather
//! than enums, so that a value unknown here survives decoding and can be refused, logged or passed on. Lengths that a
//! peer chooses are read through a bounded [`codec::Reader`], so that a wrong one can't reach past its frame. They are
//! compared with the limits in [`constants`] before anything is buffered for them.

mod wire;

#[cfg(test)]
mod testing;

pub mod codec;
pub mod constants;
pub mod error;
pub mod extent;
pub mod flags;
pub mod handshake;
pub mod info;
pub mod meta_context;
pub mod option;
pub mod reply;
pub mod request;

pub use error::NbdError;
pub use flags::{ChunkFlags, ClientFlags, CommandFlags, HandshakeFlags, TransmissionFlags};
pub use handshake::{client::ClientHandshake, server::ServerHandshake};
pub use meta_context::{MetaContext, MetaContextSet};
pub use reply::ReplyStyle;
pub use request::{Command, ExportLimits, Request};
