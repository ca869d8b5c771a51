//! Takes the server's bytes apart as they come: headers, payloads, and requests that are complete. Payloads are checked
//! against the pattern where they lie.
//!
//! A payload is never gathered: each part is checked when a read brings it, so the cost doesn't depend on how the
//! socket cuts the stream. Everything the server says is checked: a reply to an unknown cookie, an error, a chunk
//! outside its request or a reply that covers less than was asked fails the run.

use std::io;

use crate::pattern::Pattern;
use crate::wire::{
    CHUNK_DONE, CHUNK_ERROR_BIT, CHUNK_HEADER_LENGTH, CHUNK_MAGIC, CHUNK_NONE, CHUNK_OFFSET_DATA,
    Command, Request, SIMPLE_REPLY_LENGTH, SIMPLE_REPLY_MAGIC, be_u16, be_u32, be_u64, failure,
};

/// The longest header: that of a chunk and the offset behind it.
const HEADER_MAX: usize = CHUNK_HEADER_LENGTH + OFFSET_LENGTH;
/// Bytes of an offset before a chunk's data.
const OFFSET_LENGTH: usize = 8;

/// A request that waits for its reply, in the slot that its cookie names.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    request: Request,
    covered: u32,
}

/// Part of a payload that is still to come.
#[derive(Debug, Clone, Copy)]
struct Payload {
    slot: usize,
    offset: u64,
    remaining: u32,
    last: bool,
}

/// The requests in flight on one connection and the state of its incoming bytes.
#[derive(Debug)]
pub(crate) struct Replies {
    pattern: Pattern,
    slots: Vec<Option<Waiting>>,
    header: Vec<u8>,
    payload: Option<Payload>,
}

impl Replies {
    pub(crate) fn new(pattern: Pattern, depth: usize) -> Self {
        Self {
            pattern,
            slots: vec![None; depth],
            header: Vec::with_capacity(HEADER_MAX),
            payload: None,
        }
    }

    /// Expects an answer to `request` with `slot` as its cookie.
    pub(crate) fn expect(&mut self, slot: usize, request: Request) {
        let former = self.slots[slot].replace(Waiting {
            request,
            covered: 0,
        });
        assert!(former.is_none(), "slot {slot} is in use");
    }

    /// Takes in what a read brought; `done` gets the slot of each request that is now answered completely.
    pub(crate) fn take(&mut self, mut bytes: &[u8], mut done: impl FnMut(usize)) -> io::Result<()> {
        while !bytes.is_empty() {
            if let Some(payload) = &mut self.payload {
                let length = bytes.len().min(payload.remaining as usize);
                let (here, rest) = bytes.split_at(length);
                if !self.pattern.holds(payload.offset, here) {
                    return Err(failure(format!(
                        "wrong data in the {length} bytes at {}",
                        payload.offset
                    )));
                }
                payload.offset += length as u64;
                payload.remaining -= u32::try_from(length).expect("bounded by what remains");
                bytes = rest;
            } else {
                bytes = self.take_header(bytes, &mut done)?;
            }
            if let Some(payload) = self.payload.take_if(|payload| payload.remaining == 0)
                && payload.last
            {
                self.finish(payload.slot, &mut done)?;
            }
        }
        Ok(())
    }

    /// Takes one header, or as much of it as there is. Returns the bytes behind it.
    fn take_header<'bytes>(
        &mut self,
        bytes: &'bytes [u8],
        done: &mut impl FnMut(usize),
    ) -> io::Result<&'bytes [u8]> {
        // The usual case, where the header lies whole in the buffer: no copy.
        if self.header.is_empty() && bytes.len() >= HEADER_MAX {
            let length = header_length(bytes)?.expect("enough bytes to tell");
            self.interpret(&bytes[..length], done)?;
            return Ok(&bytes[length..]);
        }
        let mut taken = 0;
        loop {
            if let Some(length) = header_length(&self.header)?
                && self.header.len() == length
            {
                let header = std::mem::take(&mut self.header);
                self.interpret(&header, done)?;
                self.header = header;
                self.header.clear();
                return Ok(&bytes[taken..]);
            }
            let Some(byte) = bytes.get(taken) else {
                return Ok(&[]);
            };
            self.header.push(*byte);
            taken += 1;
        }
    }

    fn interpret(&mut self, header: &[u8], done: &mut impl FnMut(usize)) -> io::Result<()> {
        let cookie = be_u64(header, 8);
        let slot = usize::try_from(cookie).unwrap_or(usize::MAX);
        let Some(Some(waiting)) = self.slots.get_mut(slot) else {
            return Err(failure(format!(
                "a reply to {cookie}, which isn't in flight"
            )));
        };
        let request = waiting.request;
        if be_u32(header, 0) == SIMPLE_REPLY_MAGIC {
            let error = be_u32(header, 4);
            if error != 0 {
                return Err(failure(format!("{request:?} failed with error {error}")));
            }
            if request.command == Command::Read {
                waiting.covered = request.length;
                self.payload = Some(Payload {
                    slot,
                    offset: request.offset,
                    remaining: request.length,
                    last: true,
                });
                return Ok(());
            }
            return self.finish(slot, done);
        }
        let (flags, kind, length) = (be_u16(header, 4), be_u16(header, 6), be_u32(header, 16));
        let last = flags & CHUNK_DONE != 0;
        match kind {
            CHUNK_NONE if length == 0 && last => self.finish(slot, done),
            CHUNK_OFFSET_DATA => {
                let offset = be_u64(header, CHUNK_HEADER_LENGTH);
                let remaining = length - u32::try_from(OFFSET_LENGTH).expect("a small number");
                let end = request.offset + u64::from(request.length);
                if offset < request.offset || offset + u64::from(remaining) > end {
                    return Err(failure(format!(
                        "{request:?} got data for {offset}, length {remaining}"
                    )));
                }
                waiting.covered = waiting.covered.saturating_add(remaining);
                self.payload = Some(Payload {
                    slot,
                    offset,
                    remaining,
                    last,
                });
                Ok(())
            }
            _ => Err(failure(format!(
                "{request:?} got a chunk of type {kind:#x} and length {length}"
            ))),
        }
    }

    fn finish(&mut self, slot: usize, done: &mut impl FnMut(usize)) -> io::Result<()> {
        let waiting = self.slots[slot].take().expect("looked up before");
        let request = waiting.request;
        if request.command == Command::Read && waiting.covered != request.length {
            return Err(failure(format!(
                "{request:?} got {} bytes",
                waiting.covered
            )));
        }
        done(slot);
        Ok(())
    }
}

/// How long the header at the start of `bytes` is, once they are enough to tell.
fn header_length(bytes: &[u8]) -> io::Result<Option<usize>> {
    if bytes.len() < 4 {
        return Ok(None);
    }
    match be_u32(bytes, 0) {
        SIMPLE_REPLY_MAGIC => Ok(Some(SIMPLE_REPLY_LENGTH)),
        CHUNK_MAGIC if bytes.len() < CHUNK_HEADER_LENGTH => Ok(None),
        CHUNK_MAGIC => {
            let (kind, length) = (be_u16(bytes, 6), be_u32(bytes, 16));
            match kind {
                CHUNK_OFFSET_DATA if length as usize > OFFSET_LENGTH => Ok(Some(HEADER_MAX)),
                kind if kind & CHUNK_ERROR_BIT != 0 => {
                    Err(failure(format!("a chunk with an error, type {kind:#x}")))
                }
                _ => Ok(Some(CHUNK_HEADER_LENGTH)),
            }
        }
        magic => Err(failure(format!("a reply starts with {magic:#010x}"))),
    }
}

#[cfg(test)]
mod tests;
