//! How a reply looks in the style that client and server have agreed on.
//!
//! This is the one place that tells the styles apart. Every function here matches [`ReplyStyle`] exhaustively: a new
//! style is a compile error in each of them, and in no other file of the session.
//!
//! Under structured replies a READ and a BLOCK_STATUS are answered in chunks, errors included (proto.md, "Structured
//! replies"). The protocol allows simple replies to all other requests. Simple replies are shorter, so those requests
//! get them.

use weir_protocol::reply::{
    ChunkHeader, OFFSET_DATA_SIZE, SimpleReply, encode_error, none_chunk, offset_data_header,
};
use weir_protocol::{ChunkFlags, Command, CommandFlags, NbdError, ReplyStyle, Request};

use super::output::Queue;

/// How a READ's data is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// A header with an error code, then all data.
    Simple,
    /// One data chunk.
    OneChunk,
    /// Data and hole chunks.
    Chunks,
}

impl Framing {
    /// What `request` gets in this style: DF asks for one chunk.
    #[inline]
    pub(super) fn of(request: &Request, style: ReplyStyle) -> Self {
        match style {
            ReplyStyle::Simple => Self::Simple,
            ReplyStyle::Structured if request.flags.contains(CommandFlags::DF) => Self::OneChunk,
            ReplyStyle::Structured => Self::Chunks,
        }
    }

    /// Whether one header promises all data.
    #[inline]
    pub(super) fn is_contiguous(self) -> bool {
        self != Self::Chunks
    }
}

/// The bytes in front of a reply's data, or the whole reply of a request that has succeeded and has no data.
#[derive(Clone, Copy, Debug)]
pub(super) enum Head {
    /// A simple reply.
    Simple([u8; SimpleReply::SIZE]),
    /// A chunk that carries nothing.
    Nothing([u8; ChunkHeader::SIZE]),
    /// A chunk that carries the data.
    Data([u8; OFFSET_DATA_SIZE]),
}

impl Head {
    /// The head of a reply to a request that has succeeded and has no data.
    #[inline]
    pub(super) fn of_success(style: ReplyStyle, request: &Request) -> Self {
        match style {
            ReplyStyle::Structured if is_chunked(request.command) => {
                Self::Nothing(none_chunk(request.cookie))
            }
            ReplyStyle::Simple | ReplyStyle::Structured => Self::simple(request.cookie, None),
        }
    }

    /// The head of a READ's whole data, in one piece. A chunk is not the last one unless `flags` say so.
    #[inline]
    pub(super) fn of_data(style: ReplyStyle, flags: ChunkFlags, request: &Request) -> Self {
        match style {
            ReplyStyle::Simple => Self::simple(request.cookie, None),
            ReplyStyle::Structured => Self::Data(offset_data_header(
                flags,
                request.cookie,
                request.offset,
                request.length,
            )),
        }
    }

    #[inline]
    fn simple(cookie: u64, error: Option<NbdError>) -> Self {
        Self::Simple(SimpleReply { error, cookie }.encode())
    }

    /// Appends it. Each arm copies a length that is known when it is compiled, which is a few moves and no call.
    #[inline]
    pub(super) fn push_to(&self, queue: &mut Queue) {
        match self {
            Self::Simple(bytes) => queue.push_bytes(bytes),
            Self::Nothing(bytes) => queue.push_bytes(bytes),
            Self::Data(bytes) => queue.push_bytes(bytes),
        }
    }

    /// The bytes.
    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Simple(bytes) => bytes,
            Self::Nothing(bytes) => bytes,
            Self::Data(bytes) => bytes,
        }
    }
}

/// Appends the whole reply to a request that has failed before any part of its reply was sent.
#[cold]
pub(super) fn push_failure(
    queue: &mut Queue,
    style: ReplyStyle,
    request: &Request,
    error: NbdError,
) {
    match style {
        ReplyStyle::Structured if is_chunked(request.command) => {
            let mut chunk = Vec::new();
            encode_error(&mut chunk, ChunkFlags::DONE, request.cookie, error, "");
            queue.push_bytes(&chunk);
        }
        ReplyStyle::Simple | ReplyStyle::Structured => {
            Head::simple(request.cookie, Some(error)).push_to(queue);
        }
    }
}

/// Whether structured replies answer this command in chunks.
#[inline]
fn is_chunked(command: Command) -> bool {
    matches!(command, Command::READ | Command::BLOCK_STATUS)
}
