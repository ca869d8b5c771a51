//! Requests (proto.md, "Request message"), and the rules that every request has to keep.
//!
//! A request is 28 bytes: magic, flags, command, cookie, offset, length; a WRITE's payload follows. Decoding and
//! [`Request::check`] are on the path of every request: they don't allocate, and the common case is a handful of
//! comparisons.

use thiserror::Error;

use crate::constants::REQUEST_MAGIC;
use crate::error::NbdError;
use crate::flags::{CommandFlags, TransmissionFlags};
use crate::meta_context::MetaContextSet;
use crate::reply::ReplyStyle;
use crate::wire::wire_enum;

wire_enum! {
    /// What a request asks for (proto.md, "Request types").
    pub struct Command(u16);
    /// Read `length` bytes at `offset`.
    const READ = 0;
    /// Write the `length` bytes that follow at `offset`.
    const WRITE = 1;
    /// Finish what is outstanding and disconnect. Has no reply.
    const DISC = 2;
    /// Make everything that has been answered durable.
    const FLUSH = 3;
    /// The range's content is no longer needed.
    const TRIM = 4;
    /// Read the range into the server's cache.
    const CACHE = 5;
    /// Write zeroes, without a payload.
    const WRITE_ZEROES = 6;
    /// Describe the range's extents, for each selected metadata context.
    const BLOCK_STATUS = 7;
    /// Reserved for the resize extension.
    const RESIZE = 8;
}

/// The request doesn't begin with [`REQUEST_MAGIC`]: the stream is out of step, and only a disconnect is left.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("bad request magic {0:#010x}")]
pub struct BadMagic(pub u32);

/// One request, without its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// How to carry it out.
    pub flags: CommandFlags,
    /// What to do.
    pub command: Command,
    /// Chosen by the client; comes back in the reply.
    pub cookie: u64,
    /// Where the range begins, in bytes.
    pub offset: u64,
    /// How long the range is, in bytes.
    pub length: u32,
}

/// What a connection has settled on, as far as a request is held against it.
#[derive(Clone, Copy, Debug)]
pub struct ExportLimits {
    /// The export's size in bytes.
    pub size: u64,
    /// The flags that this client was told.
    pub transmission_flags: TransmissionFlags,
    /// The longest payload of a READ's reply or a WRITE, in bytes.
    pub max_payload: u32,
    /// How replies are framed.
    pub reply_style: ReplyStyle,
    /// The metadata contexts that this client selected.
    pub meta_contexts: MetaContextSet,
}

impl Request {
    /// Bytes of a request on the wire, payload not counted.
    pub const SIZE: usize = 28;

    /// Decodes a request. Unknown commands and flags are kept, for [`Request::check`] to refuse.
    ///
    /// # Errors
    /// [`BadMagic`]: the peer isn't sending requests.
    #[inline]
    pub fn decode(bytes: &[u8; Self::SIZE]) -> Result<Self, BadMagic> {
        let [m0, m1, m2, m3, f0, f1, c0, c1, rest @ ..] = *bytes;
        let magic = u32::from_be_bytes([m0, m1, m2, m3]);
        if magic != REQUEST_MAGIC {
            return Err(BadMagic(magic));
        }
        let [k0, k1, k2, k3, k4, k5, k6, k7, rest @ ..] = rest;
        let [o0, o1, o2, o3, o4, o5, o6, o7, length @ ..] = rest;
        Ok(Self {
            flags: CommandFlags(u16::from_be_bytes([f0, f1])),
            command: Command(u16::from_be_bytes([c0, c1])),
            cookie: u64::from_be_bytes([k0, k1, k2, k3, k4, k5, k6, k7]),
            offset: u64::from_be_bytes([o0, o1, o2, o3, o4, o5, o6, o7]),
            length: u32::from_be_bytes(length),
        })
    }

    /// Encodes the request.
    #[inline]
    #[must_use]
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[0..4].copy_from_slice(&REQUEST_MAGIC.to_be_bytes());
        bytes[4..6].copy_from_slice(&self.flags.0.to_be_bytes());
        bytes[6..8].copy_from_slice(&self.command.0.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.cookie.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.offset.to_be_bytes());
        bytes[24..28].copy_from_slice(&self.length.to_be_bytes());
        bytes
    }

    /// How many bytes of payload follow this request, whether or not it is going to be refused: a refused WRITE's
    /// payload still has to be drained.
    #[inline]
    #[must_use]
    pub const fn payload_length(&self) -> u32 {
        match self.command {
            Command::WRITE => self.length,
            _ => 0,
        }
    }

    /// The end of the range; `None` if it lies beyond what a `u64` holds.
    #[inline]
    #[must_use]
    pub const fn end(&self) -> Option<u64> {
        self.offset.checked_add(self.length as u64)
    }

    /// Holds the request against the protocol's rules (proto.md, "Request types" and "Error values").
    ///
    /// The first rule that is broken decides: command, flags, permission, range, payload. DISC always passes, as it has
    /// no reply that could carry a refusal. The offset and length of FLUSH and DISC are reserved and ignored, as qemu
    /// does: a flush covers the whole device, and to refuse one over a field without a meaning would cost the client
    /// its durability.
    ///
    /// # Errors
    /// The code to send. A refused WRITE's payload is still to be drained.
    #[inline]
    pub fn check(&self, limits: &ExportLimits) -> Result<(), NbdError> {
        let (needs, mut applicable) = match self.command {
            Command::READ => (TransmissionFlags::EMPTY, CommandFlags::DF),
            Command::WRITE => (TransmissionFlags::EMPTY, CommandFlags::EMPTY),
            Command::DISC => return Ok(()),
            Command::FLUSH => (TransmissionFlags::SEND_FLUSH, CommandFlags::EMPTY),
            Command::TRIM => (TransmissionFlags::SEND_TRIM, CommandFlags::EMPTY),
            Command::CACHE => (TransmissionFlags::SEND_CACHE, CommandFlags::EMPTY),
            Command::WRITE_ZEROES => (
                TransmissionFlags::SEND_WRITE_ZEROES,
                CommandFlags::NO_HOLE.union(CommandFlags::FAST_ZERO),
            ),
            Command::BLOCK_STATUS => (TransmissionFlags::EMPTY, CommandFlags::REQ_ONE),
            _ => return Err(NbdError::INVALID),
        };
        if !self.flags.is_empty() {
            applicable |= CommandFlags::FUA;
            self.check_flags(applicable, limits)?;
        }
        let writes = matches!(
            self.command,
            Command::WRITE | Command::TRIM | Command::WRITE_ZEROES
        );
        if writes
            && limits
                .transmission_flags
                .contains(TransmissionFlags::READ_ONLY)
        {
            return Err(NbdError::PERM);
        }
        if !limits.transmission_flags.contains(needs) {
            return Err(NbdError::INVALID);
        }
        if self.command == Command::FLUSH {
            return Ok(());
        }
        self.check_range(limits)
    }

    /// Flags that this command doesn't know, or that this client wasn't offered.
    fn check_flags(&self, applicable: CommandFlags, limits: &ExportLimits) -> Result<(), NbdError> {
        let offered = |flag| limits.transmission_flags.contains(flag);
        let refused = !applicable.contains(self.flags)
            || (self.flags.contains(CommandFlags::FUA) && !offered(TransmissionFlags::SEND_FUA))
            || (self.flags.contains(CommandFlags::FAST_ZERO)
                && !offered(TransmissionFlags::SEND_FAST_ZERO))
            || (self.flags.contains(CommandFlags::DF)
                && !(limits.reply_style.is_structured() && offered(TransmissionFlags::SEND_DF)));
        if refused {
            Err(NbdError::INVALID)
        } else {
            Ok(())
        }
    }

    /// Where the range may lie, and how long it may be.
    #[inline]
    fn check_range(&self, limits: &ExportLimits) -> Result<(), NbdError> {
        let inside = self.end().is_some_and(|end| end <= limits.size);
        match self.command {
            Command::WRITE | Command::WRITE_ZEROES if !inside => Err(NbdError::NOSPC),
            _ if !inside => Err(NbdError::INVALID),
            // The protocol reserves EOVERFLOW for requests without a payload of their own that are too long.
            Command::READ if self.length > limits.max_payload => Err(NbdError::OVERFLOW),
            Command::WRITE if self.length > limits.max_payload => Err(NbdError::INVALID),
            Command::BLOCK_STATUS if limits.meta_contexts.is_empty() => Err(NbdError::INVALID),
            // An extent of no length isn't allowed, so there is nothing that could be answered.
            Command::BLOCK_STATUS if self.length == 0 => Err(NbdError::INVALID),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
