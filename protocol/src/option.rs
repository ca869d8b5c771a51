//! Options and their replies (proto.md, "Option types" and "Option reply types").
//!
//! An option is a 16-byte header and data; a reply is a 20-byte header and data. The headers and the shapes of the data
//! are here. [`handshake`](crate::handshake) decides what an option *means*.

use bytes::{BufMut, BytesMut};
use thiserror::Error;

use crate::codec::{Codec, Reader, Truncated, truncate_text};
use crate::constants::{
    MAX_NAME, MAX_REFUSAL_TEXT, OPTION_HEADER_SIZE, OPTION_MAGIC, OPTION_REPLY_HEADER_SIZE,
    OPTION_REPLY_MAGIC,
};
use crate::info::InfoType;
use crate::wire::wire_enum;

wire_enum! {
    /// What a client asks for during the handshake.
    pub struct OptionCode(u32);
    /// Enter transmission with this export. Failure can only disconnect.
    const EXPORT_NAME = 1;
    /// End the session.
    const ABORT = 2;
    /// List the exports.
    const LIST = 3;
    /// Withdrawn from the protocol.
    const PEEK_EXPORT = 4;
    /// Continue under TLS.
    const STARTTLS = 5;
    /// Describe an export.
    const INFO = 6;
    /// Describe an export and enter transmission with it.
    const GO = 7;
    /// Use structured replies.
    const STRUCTURED_REPLY = 8;
    /// List metadata contexts.
    const LIST_META_CONTEXT = 9;
    /// Select metadata contexts.
    const SET_META_CONTEXT = 10;
    /// Use extended headers.
    const EXTENDED_HEADERS = 11;
}

wire_enum! {
    /// What a server answers to an option. The topmost bit marks errors.
    pub struct OptionReplyType(u32);
    /// Done; no more replies to this option.
    const ACK = 1;
    /// One export of a list.
    const SERVER = 2;
    /// One piece of information about an export.
    const INFO = 3;
    /// One metadata context.
    const META_CONTEXT = 4;
    /// The option isn't known or isn't supported.
    const ERR_UNSUP = 0x8000_0001;
    /// Forbidden by the server's configuration.
    const ERR_POLICY = 0x8000_0002;
    /// The option's data is wrong.
    const ERR_INVALID = 0x8000_0003;
    /// Not supported on the server's platform.
    const ERR_PLATFORM = 0x8000_0004;
    /// Not before TLS.
    const ERR_TLS_REQD = 0x8000_0005;
    /// There is no such export.
    const ERR_UNKNOWN = 0x8000_0006;
    /// The server is shutting down.
    const ERR_SHUTDOWN = 0x8000_0007;
    /// The client has to ask for the block sizes.
    const ERR_BLOCK_SIZE_REQD = 0x8000_0008;
    /// The option or its answer is too large.
    const ERR_TOO_BIG = 0x8000_0009;
    /// The export needs extended headers.
    const ERR_EXT_HEADER_REQD = 0x8000_000a;
}

impl OptionReplyType {
    /// Whether this ends the option without success.
    #[must_use]
    pub const fn is_error(self) -> bool {
        self.0 & 0x8000_0000 != 0
    }
}

/// The header or the data of an option, or of a reply to one, isn't what it should be.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum BadOption {
    /// The data ends before its fields do.
    #[error(transparent)]
    Truncated(#[from] Truncated),
    /// The data goes on after its last field.
    #[error("{0} bytes follow the last field")]
    Trailing(usize),
    /// A string is longer than [`MAX_NAME`].
    #[error("a string of {0} bytes is longer than {MAX_NAME}")]
    TooLong(usize),
    /// A string isn't UTF-8.
    #[error("a string isn't UTF-8 after byte {0}")]
    NotUtf8(usize),
    /// A string has a NUL in it.
    #[error("a string has a NUL at byte {0}")]
    Nul(usize),
}

/// The header of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionHeader {
    /// What is asked for.
    pub option: OptionCode,
    /// Bytes of data that follow.
    pub length: u32,
}

/// An option or a reply doesn't begin with its magic: the stream is out of step.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("bad option magic {0:#018x}")]
pub struct BadOptionMagic(pub u64);

impl OptionHeader {
    /// Decodes a header.
    ///
    /// # Errors
    /// [`BadOptionMagic`]: the peer isn't sending options.
    pub const fn decode(bytes: &[u8; OPTION_HEADER_SIZE]) -> Result<Self, BadOptionMagic> {
        let [m0, m1, m2, m3, m4, m5, m6, m7, o0, o1, o2, o3, length @ ..] = *bytes;
        let magic = u64::from_be_bytes([m0, m1, m2, m3, m4, m5, m6, m7]);
        if magic != OPTION_MAGIC {
            return Err(BadOptionMagic(magic));
        }
        Ok(Self {
            option: OptionCode(u32::from_be_bytes([o0, o1, o2, o3])),
            length: u32::from_be_bytes(length),
        })
    }

    /// Appends the header to `out`.
    pub fn encode(&self, out: &mut impl BufMut) {
        OPTION_MAGIC.encode(out);
        self.option.encode(out);
        self.length.encode(out);
    }
}

/// The header of a reply to an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionReplyHeader {
    /// The option that this answers.
    pub option: OptionCode,
    /// The answer.
    pub reply_type: OptionReplyType,
    /// Bytes of data that follow.
    pub length: u32,
}

impl OptionReplyHeader {
    /// Decodes a header.
    ///
    /// # Errors
    /// [`BadOptionMagic`]: the peer isn't answering options.
    pub const fn decode(bytes: &[u8; OPTION_REPLY_HEADER_SIZE]) -> Result<Self, BadOptionMagic> {
        let [
            m0,
            m1,
            m2,
            m3,
            m4,
            m5,
            m6,
            m7,
            o0,
            o1,
            o2,
            o3,
            r0,
            r1,
            r2,
            r3,
            length @ ..,
        ] = *bytes;
        let magic = u64::from_be_bytes([m0, m1, m2, m3, m4, m5, m6, m7]);
        if magic != OPTION_REPLY_MAGIC {
            return Err(BadOptionMagic(magic));
        }
        Ok(Self {
            option: OptionCode(u32::from_be_bytes([o0, o1, o2, o3])),
            reply_type: OptionReplyType(u32::from_be_bytes([r0, r1, r2, r3])),
            length: u32::from_be_bytes(length),
        })
    }

    /// Appends the header to `out`.
    pub fn encode(&self, out: &mut impl BufMut) {
        OPTION_REPLY_MAGIC.encode(out);
        self.option.encode(out);
        self.reply_type.encode(out);
        self.length.encode(out);
    }
}

/// Appends an option to `out`, with the data that `data` writes.
pub fn encode_option(out: &mut BytesMut, option: OptionCode, data: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    OptionHeader { option, length: 0 }.encode(out);
    fill_in_length(out, start + OPTION_HEADER_SIZE, data);
}

/// Appends a reply to `out`, with the data that `data` writes.
pub fn encode_reply(
    out: &mut BytesMut,
    option: OptionCode,
    reply_type: OptionReplyType,
    data: impl FnOnce(&mut BytesMut),
) {
    let start = out.len();
    OptionReplyHeader {
        option,
        reply_type,
        length: 0,
    }
    .encode(out);
    fill_in_length(out, start + OPTION_REPLY_HEADER_SIZE, data);
}

/// Writes the data that begins at `start`, then its length into the last four bytes of the header before it.
fn fill_in_length(out: &mut BytesMut, start: usize, data: impl FnOnce(&mut BytesMut)) {
    data(out);
    let length = u32::try_from(out.len() - start)
        .expect("option data is bounded by the limits in `constants`");
    out[start - 4..start].copy_from_slice(&length.to_be_bytes());
}

/// Appends a refusal to `out`, its text cut to [`MAX_REFUSAL_TEXT`].
pub fn encode_refusal(
    out: &mut BytesMut,
    option: OptionCode,
    reply_type: OptionReplyType,
    text: &str,
) {
    debug_assert!(reply_type.is_error());
    encode_reply(out, option, reply_type, |out| {
        out.put_slice(truncate_text(text, MAX_REFUSAL_TEXT).as_bytes())
    });
}

/// Appends a string and its `u32` length to `out`.
pub fn encode_string(out: &mut impl BufMut, text: &str) {
    let length = u32::try_from(text.len()).expect("strings are bounded by `MAX_NAME`");
    length.encode(out);
    out.put_slice(text.as_bytes());
}

/// Holds a string against the protocol's rules: UTF-8, no NUL, at most [`MAX_NAME`] bytes.
///
/// # Errors
/// [`BadOption`], which rule it breaks.
pub fn check_string(bytes: &[u8]) -> Result<&str, BadOption> {
    if bytes.len() > MAX_NAME {
        return Err(BadOption::TooLong(bytes.len()));
    }
    if let Some(position) = bytes.iter().position(|&byte| byte == 0) {
        return Err(BadOption::Nul(position));
    }
    std::str::from_utf8(bytes).map_err(|error| BadOption::NotUtf8(error.valid_up_to()))
}

fn decode_string<'a>(reader: &mut Reader<'a>) -> Result<&'a str, BadOption> {
    check_string(reader.prefixed()?)
}

const fn finish(reader: &Reader<'_>) -> Result<(), BadOption> {
    if reader.is_empty() {
        Ok(())
    } else {
        Err(BadOption::Trailing(reader.remaining()))
    }
}

/// The data of `NBD_OPT_INFO` and `NBD_OPT_GO`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InfoRequest<'a> {
    /// The export; empty for the default one.
    pub export: &'a str,
    /// What the client wants to know, unknown kinds included.
    pub wanted: Vec<InfoType>,
}

impl<'a> InfoRequest<'a> {
    /// Decodes the data.
    ///
    /// # Errors
    /// [`BadOption`] if it isn't a name and as many kinds as it says.
    pub fn decode(data: &'a [u8]) -> Result<Self, BadOption> {
        let mut reader = Reader::new(data);
        let export = decode_string(&mut reader)?;
        let count: u16 = reader.get()?;
        let mut kinds = reader.sub(usize::from(count) * size_of::<u16>())?;
        finish(&reader)?;
        let wanted = std::iter::from_fn(|| kinds.get().ok()).collect();
        Ok(Self { export, wanted })
    }

    /// Appends the data to `out`.
    pub fn encode(&self, out: &mut impl BufMut) {
        encode_string(out, self.export);
        let count =
            u16::try_from(self.wanted.len()).expect("a handful of kinds of information exists");
        count.encode(out);
        for kind in &self.wanted {
            kind.encode(out);
        }
    }
}

/// The data of `NBD_OPT_LIST_META_CONTEXT` and `NBD_OPT_SET_META_CONTEXT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaContextRequest<'a> {
    /// The export; empty for the default one.
    pub export: &'a str,
    /// The queries, in the client's order.
    pub queries: Vec<&'a str>,
}

impl<'a> MetaContextRequest<'a> {
    /// Decodes the data.
    ///
    /// # Errors
    /// [`BadOption`] if it isn't a name and as many queries as it says.
    pub fn decode(data: &'a [u8]) -> Result<Self, BadOption> {
        let mut reader = Reader::new(data);
        let export = decode_string(&mut reader)?;
        let count: u32 = reader.get()?;
        // Grows with what is there, not with what `count` promises.
        let mut queries = Vec::new();
        for _ in 0..count {
            queries.push(decode_string(&mut reader)?);
        }
        finish(&reader)?;
        Ok(Self { export, queries })
    }

    /// Appends the data to `out`.
    pub fn encode(&self, out: &mut impl BufMut) {
        encode_string(out, self.export);
        let count =
            u32::try_from(self.queries.len()).expect("queries are bounded by the option's data");
        count.encode(out);
        for query in &self.queries {
            encode_string(out, query);
        }
    }
}

#[cfg(test)]
mod tests;
