//! What is said about an export during the handshake (proto.md, "`NBD_OPT_INFO` and `NBD_OPT_GO`").

use bytes::BufMut;

use crate::codec::{Codec, Reader, Truncated};
use crate::constants::{MAX_PAYLOAD, PREFERRED_BLOCK_SIZE};
use crate::flags::TransmissionFlags;
use crate::meta_context::MetaContextSet;
use crate::wire::wire_enum;

wire_enum! {
    /// A kind of information (proto.md, "Option reply types", on `NBD_REP_INFO`).
    pub struct InfoType(u16);
    /// Size and transmission flags. Always sent.
    const EXPORT = 0;
    /// The export's canonical name.
    const NAME = 1;
    /// A description for people.
    const DESCRIPTION = 2;
    /// Block size constraints.
    const BLOCK_SIZE = 3;
}

/// Block sizes that a client is told of, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockSizes {
    /// Requests are to be aligned to this, a power of two.
    pub minimum: u32,
    /// Requests aligned to this avoid a read-modify-write.
    pub preferred: u32,
    /// The longest payload.
    pub maximum: u32,
}

impl Default for BlockSizes {
    /// Byte granularity: nothing is forced on a client.
    fn default() -> Self {
        Self {
            minimum: 1,
            preferred: PREFERRED_BLOCK_SIZE,
            maximum: MAX_PAYLOAD,
        }
    }
}

/// What a server knows of an export when a client asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportInfo {
    /// The canonical name, sent if the client asks for it.
    pub name: String,
    /// The size in bytes.
    pub size: u64,
    /// What works. `HAS_FLAGS` is added and `SEND_DF` taken away where the protocol says so.
    pub flags: TransmissionFlags,
    /// A text for people; empty for none.
    pub description: String,
    /// Block size constraints.
    pub block_sizes: BlockSizes,
    /// The metadata contexts that can be had.
    pub meta_contexts: MetaContextSet,
}

/// The data of one `NBD_REP_INFO`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Info<'a> {
    /// `NBD_INFO_EXPORT`.
    Export {
        /// The size in bytes.
        size: u64,
        /// What works.
        flags: TransmissionFlags,
    },
    /// `NBD_INFO_NAME`.
    Name(&'a [u8]),
    /// `NBD_INFO_DESCRIPTION`.
    Description(&'a [u8]),
    /// `NBD_INFO_BLOCK_SIZE`.
    BlockSize(BlockSizes),
    /// A kind that isn't known here; to be ignored.
    Unknown(InfoType, &'a [u8]),
}

impl<'a> Info<'a> {
    /// Decodes the data of an `NBD_REP_INFO`. Bytes after a fixed part are ignored, as a later protocol may add some.
    ///
    /// # Errors
    /// [`Truncated`] if the data is shorter than its kind needs.
    pub fn decode(data: &'a [u8]) -> Result<Self, Truncated> {
        let mut reader = Reader::new(data);
        Ok(match reader.get()? {
            InfoType::EXPORT => Self::Export {
                size: reader.get()?,
                flags: reader.get()?,
            },
            InfoType::NAME => Self::Name(reader.rest()),
            InfoType::DESCRIPTION => Self::Description(reader.rest()),
            InfoType::BLOCK_SIZE => Self::BlockSize(BlockSizes {
                minimum: reader.get()?,
                preferred: reader.get()?,
                maximum: reader.get()?,
            }),
            unknown => Self::Unknown(unknown, reader.rest()),
        })
    }

    /// Appends the data of an `NBD_REP_INFO` to `out`.
    pub fn encode(&self, out: &mut impl BufMut) {
        match self {
            Self::Export { size, flags } => {
                InfoType::EXPORT.encode(out);
                size.encode(out);
                flags.encode(out);
            }
            Self::Name(name) => {
                InfoType::NAME.encode(out);
                out.put_slice(name);
            }
            Self::Description(description) => {
                InfoType::DESCRIPTION.encode(out);
                out.put_slice(description);
            }
            Self::BlockSize(sizes) => {
                InfoType::BLOCK_SIZE.encode(out);
                sizes.minimum.encode(out);
                sizes.preferred.encode(out);
                sizes.maximum.encode(out);
            }
            Self::Unknown(kind, data) => {
                kind.encode(out);
                out.put_slice(data);
            }
        }
    }
}

#[cfg(test)]
mod tests;
