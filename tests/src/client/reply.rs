//! Replies, simple and structured, and the properties that they must have.

use std::fmt;

use super::socket::Socket;
use super::wire::*;

/// The largest chunk that this client believes: a READ of the largest payload and its offset.
const CHUNK_BYTES_MAX: u32 = (64 << 20) + 8;

/// An error number of the protocol.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub u32);

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            EPERM => "EPERM",
            EIO => "EIO",
            ENOMEM => "ENOMEM",
            EINVAL => "EINVAL",
            ENOSPC => "ENOSPC",
            EOVERFLOW => "EOVERFLOW",
            ENOTSUP => "ENOTSUP",
            ESHUTDOWN => "ESHUTDOWN",
            other => return write!(f, "Errno({other})"),
        })
    }
}

/// One structured chunk's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// Nothing but the flags.
    None,
    /// Data from an offset of the export.
    Data {
        /// The offset.
        offset: u64,
        /// The bytes.
        data: Vec<u8>,
    },
    /// Zeroes from an offset of the export.
    Hole {
        /// The offset.
        offset: u64,
        /// The number of bytes.
        len: u32,
    },
    /// Lengths and flags of one metadata context.
    Status {
        /// The context's id.
        context: u32,
        /// Length and flags of each extent.
        extents: Vec<(u32, u32)>,
    },
    /// The request failed, in part or whole.
    Error {
        /// The error number.
        errno: Errno,
        /// The error in words.
        message: String,
    },
}

/// All of the answer to one request.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The request that it answers.
    pub cookie: u64,
    /// True for a simple reply.
    pub simple: bool,
    /// The chunks of a structured reply. For a simple reply, its data if it has any.
    pub chunks: Vec<Chunk>,
    /// The first error.
    pub error: Option<Errno>,
}

impl Reply {
    /// `Ok` when there was no error.
    ///
    /// # Errors
    /// The first one.
    pub fn result(&self) -> Result<(), Errno> {
        self.error.map_or(Ok(()), Err)
    }

    /// The bytes of a READ of this range, after checking that the chunks cover all of it exactly once.
    ///
    /// # Errors
    /// The reply's.
    ///
    /// # Panics
    /// When chunks overlap, stray or leave a gap.
    #[track_caller]
    pub fn assemble(&self, offset: u64, len: u32) -> Result<Vec<u8>, Errno> {
        self.result()?;
        let mut out = vec![0; len as usize];
        let mut covered = vec![false; len as usize];
        for chunk in &self.chunks {
            let (at, data, n) = match chunk {
                Chunk::Data { offset, data } => (*offset, Some(data), data.len()),
                Chunk::Hole { offset, len } => (*offset, None, *len as usize),
                Chunk::None => continue,
                other => panic!("in the reply to a READ: {other:?}"),
            };
            assert!(n > 0, "an empty chunk at {at}");
            let start = usize::try_from(at.checked_sub(offset).expect("a chunk before the range"))
                .expect("64 bit");
            assert!(
                start + n <= len as usize,
                "chunk {at}+{n} strays from {offset}+{len}"
            );
            assert!(
                !covered[start..start + n].contains(&true),
                "chunk {at}+{n} overlaps another"
            );
            covered[start..start + n].fill(true);
            if let Some(data) = data {
                out[start..start + n].copy_from_slice(data);
            }
        }
        assert!(
            !covered.contains(&false),
            "a gap in the reply to a READ of {offset}+{len}"
        );
        Ok(out)
    }
}

/// Reads the reply that comes next, whole. `read_len` says how much data a successful simple reply brings.
///
/// # Panics
/// When the reply is malformed, or chunks of several requests are mixed (use [`one_chunk`] where that may happen).
#[track_caller]
pub(super) fn whole(socket: &mut Socket, read_len: impl Fn(u64) -> u32) -> Reply {
    let mut reply: Option<Reply> = None;
    loop {
        let (part, done) = one_chunk(socket, &read_len);
        let so_far = reply.get_or_insert_with(|| Reply {
            chunks: Vec::new(),
            ..part.clone()
        });
        assert_eq!(so_far.cookie, part.cookie, "two replies in one");
        so_far.chunks.extend(part.chunks);
        so_far.error = so_far.error.or(part.error);
        if done {
            return reply.expect("set above");
        }
    }
}

/// Reads a simple reply or one chunk of a structured one; returns true with the last one of a request.
#[track_caller]
pub(super) fn one_chunk(socket: &mut Socket, read_len: &impl Fn(u64) -> u32) -> (Reply, bool) {
    match socket.receive_u32() {
        SIMPLE_REPLY_MAGIC => {
            let errno = socket.receive_u32();
            let cookie = socket.receive_u64();
            let error = (errno != 0).then(|| known(errno));
            let data = if error.is_none() {
                socket.receive(read_len(cookie) as usize)
            } else {
                Vec::new()
            };
            // The offset of a simple reply's data is the request's; the caller that asked knows it.
            let chunks = if data.is_empty() {
                Vec::new()
            } else {
                vec![Chunk::Data {
                    offset: u64::MAX,
                    data,
                }]
            };
            (
                Reply {
                    cookie,
                    simple: true,
                    chunks,
                    error,
                },
                true,
            )
        }
        STRUCTURED_REPLY_MAGIC => {
            let flags = socket.receive_u16();
            let kind = socket.receive_u16();
            let cookie = socket.receive_u64();
            let len = socket.receive_u32();
            assert_eq!(flags & !CHUNK_FLAG_DONE, 0, "unknown chunk flags");
            assert!(len <= CHUNK_BYTES_MAX, "a chunk of {len} bytes");
            let body = socket.receive(len as usize);
            let done = flags & CHUNK_FLAG_DONE != 0;
            let chunk = parse_chunk(kind, &body, done);
            let error = if let Chunk::Error { errno, .. } = &chunk {
                Some(*errno)
            } else {
                None
            };
            (
                Reply {
                    cookie,
                    simple: false,
                    chunks: vec![chunk],
                    error,
                },
                done,
            )
        }
        magic => panic!("not a reply: magic {magic:#010x}"),
    }
}

#[track_caller]
fn parse_chunk(kind: u16, body: &[u8], done: bool) -> Chunk {
    let u16_at = |at: usize| u16::from_be_bytes(body[at..at + 2].try_into().expect("two"));
    let u32_at = |at: usize| u32::from_be_bytes(body[at..at + 4].try_into().expect("four"));
    let u64_at = |at: usize| u64::from_be_bytes(body[at..at + 8].try_into().expect("eight"));
    match kind {
        CHUNK_NONE => {
            assert!(
                body.is_empty() && done,
                "NONE carries nothing and ends a reply"
            );
            Chunk::None
        }
        CHUNK_OFFSET_DATA => {
            assert!(body.len() > 8, "OFFSET_DATA carries data");
            Chunk::Data {
                offset: u64_at(0),
                data: body[8..].to_vec(),
            }
        }
        CHUNK_OFFSET_HOLE => {
            assert_eq!(body.len(), 12, "OFFSET_HOLE");
            Chunk::Hole {
                offset: u64_at(0),
                len: u32_at(8),
            }
        }
        CHUNK_BLOCK_STATUS => {
            assert!(
                body.len() >= 12 && body.len() % 8 == 4,
                "BLOCK_STATUS of {} bytes",
                body.len()
            );
            let extents = (4..body.len())
                .step_by(8)
                .map(|at| (u32_at(at), u32_at(at + 4)))
                .collect();
            Chunk::Status {
                context: u32_at(0),
                extents,
            }
        }
        CHUNK_ERROR | CHUNK_ERROR_OFFSET => {
            let text_len = usize::from(u16_at(4));
            let tail = if kind == CHUNK_ERROR_OFFSET { 8 } else { 0 };
            assert_eq!(body.len(), 6 + text_len + tail, "an error chunk's length");
            let message =
                String::from_utf8(body[6..6 + text_len].to_vec()).expect("messages are UTF-8");
            Chunk::Error {
                errno: known(u32_at(0)),
                message,
            }
        }
        other => panic!("unknown chunk type {other}"),
    }
}

#[track_caller]
fn known(errno: u32) -> Errno {
    assert!(ERRORS.contains(&errno), "the protocol has no error {errno}");
    Errno(errno)
}
