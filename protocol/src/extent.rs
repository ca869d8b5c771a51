//! Extents: runs of bytes with the same state, as `NBD_CMD_BLOCK_STATUS` reports them (proto.md, "Metadata querying").
//!
//! [`ExtentList`] collects what a backend or a cache says about a range and keeps the protocol's rules: no extent is
//! empty, neighbours of the same state are one extent, and none reaches past the request. (The protocol would let the
//! last one do so, unless the client set `REQ_ONE`; a list that never does is right in both cases.)

use bytes::BufMut;

use crate::codec::{Codec, Reader, Truncated};
use crate::constants::MAX_EXTENTS;
use crate::flags::CommandFlags;
use crate::request::Request;
use crate::wire::wire_flags;

wire_flags! {
    /// The states of `base:allocation` (proto.md, "`base:` metadata contexts").
    pub struct AllocationFlags(u32);
    /// Nothing is allocated here; writing may fail for want of space.
    const HOLE = 1 << 0;
    /// Reads as zeroes.
    const ZERO = 1 << 1;
}

wire_flags! {
    /// The states of `x-weir:cache`.
    pub struct CacheFlags(u32);
    /// A read here doesn't reach the backend.
    const CACHED = 1 << 0;
    /// Written, and not yet in the backend.
    const DIRTY = 1 << 1;
}

/// One extent on the wire. Where it begins follows from those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The length in bytes, never zero.
    pub length: u32,
    /// The state, as the context defines it.
    pub flags: u32,
}

impl Extent {
    /// Bytes on the wire.
    pub const SIZE: usize = 8;
}

impl Codec for Extent {
    #[inline]
    fn decode(reader: &mut Reader<'_>) -> Result<Self, Truncated> {
        Ok(Self {
            length: reader.get()?,
            flags: reader.get()?,
        })
    }

    #[inline]
    fn encode(&self, out: &mut impl BufMut) {
        self.length.encode(out);
        self.flags.encode(out);
    }
}

/// Whether an [`ExtentList`] takes more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Room {
    /// The request isn't covered yet.
    More,
    /// What is pushed from here on is ignored.
    Full,
}

/// Collects the extents of one context for one request, from its offset on.
#[derive(Clone, Debug)]
pub struct ExtentList {
    extents: Vec<Extent>,
    /// What of the request isn't described yet, in bytes.
    uncovered: u32,
    extents_max: usize,
    full: bool,
}

impl ExtentList {
    /// An empty list for `request`.
    #[must_use]
    pub fn new(request: &Request) -> Self {
        let extents_max = if request.flags.contains(CommandFlags::REQ_ONE) {
            1
        } else {
            MAX_EXTENTS
        };
        Self::with_limit(request.length, extents_max)
    }

    /// An empty list for `length` bytes, of at most `extents_max` extents.
    #[must_use]
    pub const fn with_limit(length: u32, extents_max: usize) -> Self {
        Self {
            extents: Vec::new(),
            uncovered: length,
            extents_max,
            full: length == 0 || extents_max == 0,
        }
    }

    /// Appends `length` bytes in state `flags`, cut where the request ends.
    ///
    /// An extent that continues the one before it becomes part of it. A list that is out of extents still takes those
    /// that continue its last one.
    pub fn push(&mut self, length: u64, flags: u32) -> Room {
        if self.full || length == 0 {
            return self.room();
        }
        let length = u32::try_from(length)
            .unwrap_or(u32::MAX)
            .min(self.uncovered);
        let out_of_extents = self.extents.len() == self.extents_max;
        match self.extents.last_mut() {
            Some(last) if last.flags == flags => last.length += length,
            _ if out_of_extents => {
                self.full = true;
                return Room::Full;
            }
            _ => self.extents.push(Extent { length, flags }),
        }
        self.uncovered -= length;
        self.full = self.uncovered == 0;
        self.room()
    }

    /// Whether more can be pushed.
    pub const fn room(&self) -> Room {
        if self.full { Room::Full } else { Room::More }
    }

    /// What of the request isn't described yet, in bytes.
    #[must_use]
    pub const fn uncovered(&self) -> u32 {
        self.uncovered
    }

    /// The extents so far.
    #[must_use]
    pub fn as_slice(&self) -> &[Extent] {
        &self.extents
    }
}

#[cfg(test)]
mod tests;
