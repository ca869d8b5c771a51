//! Reading and writing big-endian values in memory.
//!
//! [`Reader`] never panics and never reads past the slice that it was made from. A length prefix is followed with
//! [`Reader::take`] or [`Reader::sub`], which give a slice or a reader that ends where the prefix says: a wrong length
//! shows as [`Truncated`] and can't reach past its frame.

use bytes::BufMut;
use thiserror::Error;

/// The bytes ended before the value did.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the data ends {missing} bytes too early")]
pub struct Truncated {
    /// How many more bytes the value needs.
    pub missing: usize,
}

/// A value with one encoding on the wire, in network byte order.
pub trait Codec: Sized {
    /// Takes one value off the front of `reader`.
    ///
    /// # Errors
    /// [`Truncated`] if `reader` ends first; it is then left where it was or further on.
    fn decode(reader: &mut Reader<'_>) -> Result<Self, Truncated>;

    /// Appends the value to `out`.
    fn encode(&self, out: &mut impl BufMut);
}

macro_rules! integer_codec {
    ($($int:ty => $put:ident),*) => {$(
        impl Codec for $int {
            #[inline]
            fn decode(reader: &mut Reader<'_>) -> Result<Self, Truncated> {
                reader.array().map(Self::from_be_bytes)
            }

            #[inline]
            fn encode(&self, out: &mut impl BufMut) {
                out.$put(*self);
            }
        }
    )*};
}

integer_codec!(u16 => put_u16, u32 => put_u32, u64 => put_u64);

/// A cursor over a frame that has arrived whole.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader over exactly `frame`.
    #[must_use]
    pub const fn new(frame: &'a [u8]) -> Self {
        Self { rest: frame }
    }

    /// How many bytes are left.
    #[must_use]
    pub const fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Whether nothing is left.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Everything that is left.
    #[must_use]
    pub const fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// Takes one value.
    ///
    /// # Errors
    /// [`Truncated`] if the frame ends first.
    pub fn get<T: Codec>(&mut self) -> Result<T, Truncated> {
        T::decode(self)
    }

    /// Takes `length` bytes.
    ///
    /// # Errors
    /// [`Truncated`] if the frame has fewer; nothing is taken then.
    pub fn take(&mut self, length: usize) -> Result<&'a [u8], Truncated> {
        let Some((head, tail)) = self.rest.split_at_checked(length) else {
            return Err(Truncated {
                missing: length - self.rest.len(),
            });
        };
        self.rest = tail;
        Ok(head)
    }

    /// Takes `N` bytes as an array.
    ///
    /// # Errors
    /// [`Truncated`] if the frame has fewer; nothing is taken then.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Truncated> {
        let Some((head, tail)) = self.rest.split_first_chunk() else {
            return Err(Truncated {
                missing: N - self.rest.len(),
            });
        };
        self.rest = tail;
        Ok(*head)
    }

    /// Takes a `u32` length and as many bytes.
    ///
    /// # Errors
    /// [`Truncated`] if the frame ends before the length or before the bytes that it promises.
    pub fn prefixed(&mut self) -> Result<&'a [u8], Truncated> {
        let length: u32 = self.get()?;
        self.take(usize::try_from(length).unwrap_or(usize::MAX))
    }

    /// Takes `length` bytes as a reader that ends where they do.
    ///
    /// # Errors
    /// [`Truncated`] if the frame has fewer; nothing is taken then.
    pub fn sub(&mut self, length: usize) -> Result<Self, Truncated> {
        self.take(length).map(Self::new)
    }
}

/// Cuts `text` to at most `limit` bytes, at a character boundary.
#[must_use]
pub fn truncate_text(text: &str, limit: usize) -> &str {
    let mut end = limit.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests;
