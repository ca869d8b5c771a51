//! The client's side of [`reply`](super): from bytes to typed replies.

use thiserror::Error;

use super::{ChunkHeader, ChunkType, SimpleReply};
use crate::codec::{Reader, Truncated};
use crate::constants::{SIMPLE_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC};
use crate::error::NbdError;
use crate::extent::Extent;

/// A reply that breaks the protocol.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum BadReply {
    /// The reply begins with neither magic: the stream is out of step.
    #[error("bad reply magic {0:#010x}")]
    Magic(u32),
    /// A chunk ends before its fields do.
    #[error("a chunk of type {chunk_type}: {source}")]
    Truncated {
        /// What the chunk said that it carries.
        chunk_type: ChunkType,
        /// By how much.
        source: Truncated,
    },
    /// A chunk goes on after its last field.
    #[error("a chunk of type {chunk_type} has {excess} bytes after its last field")]
    Trailing {
        /// What the chunk said that it carries.
        chunk_type: ChunkType,
        /// How many bytes follow.
        excess: usize,
    },
    /// An error chunk whose code says success.
    #[error("an error chunk with error code 0")]
    NoError,
    /// A data chunk, hole, status or extent of no length.
    #[error("a chunk of type {0} with nothing in it")]
    Empty(ChunkType),
}

/// The first header of whatever comes next from a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyHeader {
    /// A simple reply.
    Simple(SimpleReply),
    /// A structured chunk.
    Chunk(ChunkHeader),
}

impl ReplyHeader {
    /// Decodes the header at the front of `input` and says how many bytes it took; `None` if more are needed.
    ///
    /// # Errors
    /// [`BadReply::Magic`]: the peer isn't sending replies.
    pub fn decode(input: &[u8]) -> Result<Option<(Self, usize)>, BadReply> {
        let Some((magic, rest)) = input.split_first_chunk() else {
            return Ok(None);
        };
        let mut reader = Reader::new(rest);
        let (header, size) = match u32::from_be_bytes(*magic) {
            SIMPLE_REPLY_MAGIC => (
                decode_simple(&mut reader).map(Self::Simple),
                SimpleReply::SIZE,
            ),
            STRUCTURED_REPLY_MAGIC => (
                decode_chunk(&mut reader).map(Self::Chunk),
                ChunkHeader::SIZE,
            ),
            magic => return Err(BadReply::Magic(magic)),
        };
        Ok(header.ok().map(|header| (header, size)))
    }
}

fn decode_simple(reader: &mut Reader<'_>) -> Result<SimpleReply, Truncated> {
    Ok(SimpleReply {
        error: NbdError::from_wire(reader.get()?),
        cookie: reader.get()?,
    })
}

fn decode_chunk(reader: &mut Reader<'_>) -> Result<ChunkHeader, Truncated> {
    Ok(ChunkHeader {
        flags: reader.get()?,
        chunk_type: reader.get()?,
        cookie: reader.get()?,
        length: reader.get()?,
    })
}

/// What a structured chunk carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chunk<'a> {
    /// `NONE`.
    None,
    /// `OFFSET_DATA`.
    Data {
        /// Where the data lies in the export.
        offset: u64,
        /// The data, never empty.
        data: &'a [u8],
    },
    /// `OFFSET_HOLE`.
    Hole {
        /// Where the zeroes begin in the export.
        offset: u64,
        /// How many there are, never none.
        length: u32,
    },
    /// `BLOCK_STATUS`.
    BlockStatus {
        /// The id that the handshake gave to the context.
        context_id: u32,
        /// The extents, one after the other from the request's offset; at least one, and none of them empty.
        extents: Vec<Extent>,
    },
    /// `ERROR`, `ERROR_OFFSET`, or an error type that isn't known here.
    Error {
        /// What went wrong.
        error: NbdError,
        /// The server's text for people; what isn't UTF-8 is replaced.
        text: String,
        /// Where it went wrong, if the server says.
        offset: Option<u64>,
    },
    /// A type that isn't known here.
    Unknown(&'a [u8]),
}

impl<'a> Chunk<'a> {
    /// Decodes the `header.length` bytes that followed `header`.
    ///
    /// The caller bounds that length before it reads them: by [`MAX_PAYLOAD`](crate::constants::MAX_PAYLOAD) and an
    /// offset for data, by [`MAX_CONTROL_CHUNK`](crate::constants::MAX_CONTROL_CHUNK) for the rest. The caller also
    /// checks that offsets lie inside the request, which is not known here.
    ///
    /// # Errors
    /// [`BadReply`] if they aren't what the header says.
    pub fn decode(header: &ChunkHeader, payload: &'a [u8]) -> Result<Self, BadReply> {
        let chunk_type = header.chunk_type;
        let mut reader = Reader::new(payload);
        let chunk = Self::decode_fields(chunk_type, &mut reader)
            .map_err(|source| BadReply::Truncated { chunk_type, source })??;
        if reader.is_empty() {
            Ok(chunk)
        } else {
            Err(BadReply::Trailing {
                chunk_type,
                excess: reader.remaining(),
            })
        }
    }

    fn decode_fields(
        chunk_type: ChunkType,
        reader: &mut Reader<'a>,
    ) -> Result<Result<Self, BadReply>, Truncated> {
        let empty = Err(BadReply::Empty(chunk_type));
        Ok(match chunk_type {
            ChunkType::NONE => Ok(Self::None),
            ChunkType::OFFSET_DATA => {
                let (offset, data) = (reader.get()?, reader.take(reader.remaining())?);
                if data.is_empty() {
                    empty
                } else {
                    Ok(Self::Data { offset, data })
                }
            }
            ChunkType::OFFSET_HOLE => {
                let (offset, length) = (reader.get()?, reader.get()?);
                if length == 0 {
                    empty
                } else {
                    Ok(Self::Hole { offset, length })
                }
            }
            ChunkType::BLOCK_STATUS => {
                let context_id = reader.get()?;
                let mut extents = Vec::with_capacity(reader.remaining() / Extent::SIZE);
                while !reader.is_empty() {
                    extents.push(reader.get::<Extent>()?);
                }
                let hollow = extents.is_empty() || extents.iter().any(|extent| extent.length == 0);
                if hollow {
                    empty
                } else {
                    Ok(Self::BlockStatus {
                        context_id,
                        extents,
                    })
                }
            }
            other if other.is_error() => Self::decode_error(other, reader)?,
            _ => Ok(Self::Unknown(reader.take(reader.remaining())?)),
        })
    }

    fn decode_error(
        chunk_type: ChunkType,
        reader: &mut Reader<'a>,
    ) -> Result<Result<Self, BadReply>, Truncated> {
        let code = reader.get()?;
        let text_length: u16 = reader.get()?;
        let text = String::from_utf8_lossy(reader.take(usize::from(text_length))?).into_owned();
        let offset = match chunk_type {
            ChunkType::ERROR => None,
            ChunkType::ERROR_OFFSET => Some(reader.get()?),
            _ => {
                // An error type that is new: its code and text are where they always are, the rest is its own.
                reader.take(reader.remaining())?;
                None
            }
        };
        Ok(
            NbdError::from_wire(code).map_or(Err(BadReply::NoError), |error| {
                Ok(Self::Error {
                    error,
                    text,
                    offset,
                })
            }),
        )
    }
}
