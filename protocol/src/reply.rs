//! Replies of the transmission phase (proto.md, "Simple reply message" and "Structured reply chunk message").
//!
//! Headers that every READ or WRITE needs are encoded inline into arrays, without allocation; the caller sends them in
//! front of data that lies elsewhere. What is rare (errors with a text, block status) is appended to a buffer.
//!
//! The rules that the caller keeps: a READ under structured replies is never answered with a simple reply; its chunks
//! don't overlap and cover the request; `DONE` is set on the last chunk and only there.

mod decode;

use bytes::BufMut;

pub use self::decode::{BadReply, Chunk, ReplyHeader};
use crate::codec::{Codec, truncate_text};
use crate::constants::{MAX_REFUSAL_TEXT, SIMPLE_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC};
use crate::error::{NbdError, wire_code};
use crate::extent::Extent;
use crate::flags::ChunkFlags;
use crate::meta_context::MetaContext;
use crate::wire::wire_enum;

/// How a connection's replies are framed.
///
/// An enum and not a flag, so that extended headers can join. Exhaustive, so that the compiler finds all code that
/// frames replies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReplyStyle {
    /// Simple replies only.
    #[default]
    Simple,
    /// Structured replies for READ and BLOCK_STATUS; simple ones may answer the rest.
    Structured,
}

impl ReplyStyle {
    /// Whether a READ is answered in chunks.
    #[inline]
    #[must_use]
    pub const fn is_structured(self) -> bool {
        matches!(self, Self::Structured)
    }
}

wire_enum! {
    /// What a chunk carries (proto.md, "Structured reply types"). The topmost bit marks errors.
    pub struct ChunkType(u16);
    /// Nothing; ends a reply.
    const NONE = 0;
    /// An offset and the data there.
    const OFFSET_DATA = 1;
    /// An offset and the length of the zeroes there.
    const OFFSET_HOLE = 2;
    /// A metadata context's extents.
    const BLOCK_STATUS = 5;
    /// A metadata context's extents, 64-bit. Needs extended headers.
    const BLOCK_STATUS_EXT = 6;
    /// An error and its text.
    const ERROR = 0x8001;
    /// An error, its text, and where it happened.
    const ERROR_OFFSET = 0x8002;
}

impl ChunkType {
    /// Whether a chunk of this type, even an unknown one, reports an error.
    #[must_use]
    pub const fn is_error(self) -> bool {
        self.0 & 0x8000 != 0
    }
}

/// A simple reply's header. On success of a simple READ, the data follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimpleReply {
    /// What went wrong, if anything did.
    pub error: Option<NbdError>,
    /// The request's cookie.
    pub cookie: u64,
}

impl SimpleReply {
    /// Bytes on the wire.
    pub const SIZE: usize = 16;

    /// Encodes the header.
    #[inline]
    #[must_use]
    pub fn encode(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[0..4].copy_from_slice(&SIMPLE_REPLY_MAGIC.to_be_bytes());
        bytes[4..8].copy_from_slice(&wire_code(self.error).to_be_bytes());
        bytes[8..16].copy_from_slice(&self.cookie.to_be_bytes());
        bytes
    }
}

/// The header that every structured chunk begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkHeader {
    /// Whether this is the last chunk.
    pub flags: ChunkFlags,
    /// What the chunk carries.
    pub chunk_type: ChunkType,
    /// The request's cookie.
    pub cookie: u64,
    /// Bytes that follow this header.
    pub length: u32,
}

impl ChunkHeader {
    /// Bytes on the wire.
    pub const SIZE: usize = 20;

    /// Encodes the header.
    #[inline]
    #[must_use]
    pub fn encode(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[0..4].copy_from_slice(&STRUCTURED_REPLY_MAGIC.to_be_bytes());
        bytes[4..6].copy_from_slice(&self.flags.0.to_be_bytes());
        bytes[6..8].copy_from_slice(&self.chunk_type.0.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.cookie.to_be_bytes());
        bytes[16..20].copy_from_slice(&self.length.to_be_bytes());
        bytes
    }
}

/// Bytes of an `OFFSET_DATA` chunk before its data.
pub const OFFSET_DATA_SIZE: usize = ChunkHeader::SIZE + OFFSET_SIZE as usize;
/// Bytes of an `OFFSET_HOLE` chunk.
pub const OFFSET_HOLE_SIZE: usize = ChunkHeader::SIZE + HOLE_SIZE as usize;

const OFFSET_SIZE: u32 = 8;
const HOLE_SIZE: u32 = 12;
const ERROR_SIZE: u32 = 6;

/// A chunk without content, which ends a reply: `NONE`, always with `DONE`.
#[inline]
#[must_use]
pub fn none_chunk(cookie: u64) -> [u8; ChunkHeader::SIZE] {
    ChunkHeader {
        flags: ChunkFlags::DONE,
        chunk_type: ChunkType::NONE,
        cookie,
        length: 0,
    }
    .encode()
}

/// What goes in front of `data_length` bytes of data, read at `offset`.
///
/// `data_length` may not be zero and is bounded by the maximum payload.
#[inline]
#[must_use]
pub fn offset_data_header(
    flags: ChunkFlags,
    cookie: u64,
    offset: u64,
    data_length: u32,
) -> [u8; OFFSET_DATA_SIZE] {
    debug_assert!(data_length > 0, "the protocol forbids empty data chunks");
    let header = ChunkHeader {
        flags,
        chunk_type: ChunkType::OFFSET_DATA,
        cookie,
        length: OFFSET_SIZE + data_length,
    };
    let mut bytes = [0; OFFSET_DATA_SIZE];
    bytes[..ChunkHeader::SIZE].copy_from_slice(&header.encode());
    bytes[ChunkHeader::SIZE..].copy_from_slice(&offset.to_be_bytes());
    bytes
}

/// A chunk that says that `hole_length` bytes at `offset` are zeroes. `hole_length` may not be zero.
#[inline]
#[must_use]
pub fn offset_hole(
    flags: ChunkFlags,
    cookie: u64,
    offset: u64,
    hole_length: u32,
) -> [u8; OFFSET_HOLE_SIZE] {
    debug_assert!(hole_length > 0, "the protocol forbids empty holes");
    let header = ChunkHeader {
        flags,
        chunk_type: ChunkType::OFFSET_HOLE,
        cookie,
        length: HOLE_SIZE,
    };
    let mut bytes = [0; OFFSET_HOLE_SIZE];
    bytes[..ChunkHeader::SIZE].copy_from_slice(&header.encode());
    bytes[ChunkHeader::SIZE..OFFSET_DATA_SIZE].copy_from_slice(&offset.to_be_bytes());
    bytes[OFFSET_DATA_SIZE..].copy_from_slice(&hole_length.to_be_bytes());
    bytes
}

/// Appends an `ERROR` chunk to `out`, its text cut to [`MAX_REFUSAL_TEXT`].
pub fn encode_error(
    out: &mut impl BufMut,
    flags: ChunkFlags,
    cookie: u64,
    error: NbdError,
    text: &str,
) {
    encode_error_chunk(out, ChunkType::ERROR, flags, cookie, error, text, 0);
}

/// Appends an `ERROR_OFFSET` chunk to `out`: `offset` couldn't be read. The text is cut to [`MAX_REFUSAL_TEXT`].
///
/// The offset has to lie inside the request.
pub fn encode_error_offset(
    out: &mut impl BufMut,
    flags: ChunkFlags,
    cookie: u64,
    error: NbdError,
    text: &str,
    offset: u64,
) {
    encode_error_chunk(
        out,
        ChunkType::ERROR_OFFSET,
        flags,
        cookie,
        error,
        text,
        OFFSET_SIZE,
    );
    offset.encode(out);
}

/// All of an error chunk but the `trailer` bytes that the caller appends.
fn encode_error_chunk(
    out: &mut impl BufMut,
    chunk_type: ChunkType,
    flags: ChunkFlags,
    cookie: u64,
    error: NbdError,
    text: &str,
    trailer: u32,
) {
    let text = truncate_text(text, MAX_REFUSAL_TEXT);
    let text_length = u16::try_from(text.len()).expect("the text was cut to fewer bytes");
    let length = ERROR_SIZE + u32::from(text_length) + trailer;
    out.put_slice(
        &ChunkHeader {
            flags,
            chunk_type,
            cookie,
            length,
        }
        .encode(),
    );
    error.code().encode(out);
    text_length.encode(out);
    out.put_slice(text.as_bytes());
}

/// Appends a `BLOCK_STATUS` chunk to `out`.
///
/// `extents` comes from [`ExtentList`](crate::extent::ExtentList), which keeps the protocol's rules and has at least
/// one extent.
pub fn encode_block_status(
    out: &mut impl BufMut,
    flags: ChunkFlags,
    cookie: u64,
    context: MetaContext,
    extents: &[Extent],
) {
    debug_assert!(
        !extents.is_empty(),
        "the protocol wants at least one extent"
    );
    let length = u32::try_from(size_of::<u32>() + extents.len() * Extent::SIZE)
        .expect("extents are bounded by `MAX_EXTENTS`");
    out.put_slice(
        &ChunkHeader {
            flags,
            chunk_type: ChunkType::BLOCK_STATUS,
            cookie,
            length,
        }
        .encode(),
    );
    context.id().encode(out);
    for extent in extents {
        extent.encode(out);
    }
}

#[cfg(test)]
mod tests;
