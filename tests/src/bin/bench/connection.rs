//! One connection of the load generator: many requests per write, many replies per read.
//!
//! The caller queues as many requests as it wants in flight, sends them with one write, and receives what one read
//! brings. Only the socket makes it wait, and each such wait is bounded.

use std::io::{self, ErrorKind, Read, Write};
use std::time::Instant;

use crate::pattern::Pattern;
use crate::replies::Replies;
use crate::stream::{Address, Stream};
use crate::wire::{self, Agreed, Command, REQUEST_LENGTH, Request, failure};

/// Takes in all replies of 4 KiB at a depth of 32, and stays in the second level of a processor's cache.
const INPUT_LENGTH: usize = 256 << 10;

/// A request whose answer came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Completed {
    pub(crate) request: Request,
    pub(crate) queued: Instant,
}

/// A connection in the transmission phase.
pub(crate) struct Connection {
    stream: Stream,
    agreed: Agreed,
    pattern: Pattern,
    replies: Replies,
    slots: Vec<Option<Completed>>,
    free: Vec<usize>,
    /// Never shrinks: only the first `output_length` bytes count, and old ones needn't be cleared.
    output: Vec<u8>,
    output_length: usize,
    input: Box<[u8]>,
}

impl Connection {
    /// Connects to `export` for at most `depth` requests in flight.
    pub(crate) fn open(address: &Address, options: &Options, depth: usize) -> io::Result<Self> {
        let mut stream = address.connect()?;
        stream.without_delay()?;
        stream.bound_waits()?;
        let agreed = wire::negotiate(&mut stream, &options.export, options.structured)?;
        Ok(Self {
            stream,
            agreed,
            pattern: options.pattern,
            replies: Replies::new(options.pattern, depth),
            slots: vec![None; depth],
            free: (0..depth).rev().collect(),
            output: Vec::new(),
            output_length: 0,
            input: vec![0; INPUT_LENGTH].into_boxed_slice(),
        })
    }

    #[cfg(test)]
    pub(crate) const fn stream(&self) -> &Stream {
        &self.stream
    }

    pub(crate) const fn size(&self) -> u64 {
        self.agreed.size
    }

    /// How many more requests may be queued.
    pub(crate) const fn room(&self) -> usize {
        self.free.len()
    }

    pub(crate) const fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Puts a request, and the payload of a WRITE, into the next write. `now` is the start of its time.
    pub(crate) fn queue(&mut self, request: Request, now: Instant) {
        let slot = self.free.pop().expect("room was checked");
        self.slots[slot] = Some(Completed {
            request,
            queued: now,
        });
        self.replies.expect(slot, request);
        let payload = if request.command == Command::Write {
            request.length as usize
        } else {
            0
        };
        let header = self.output_length;
        let start = header + REQUEST_LENGTH;
        self.output_length = start + payload;
        if self.output.len() < self.output_length {
            self.output.resize(self.output_length, 0);
        }
        self.output[header..start].copy_from_slice(&request.bytes(slot as u64));
        self.pattern
            .fill(request.offset, &mut self.output[start..self.output_length]);
    }

    /// Sends what was queued.
    pub(crate) fn send(&mut self) -> io::Result<()> {
        let length = std::mem::take(&mut self.output_length);
        self.stream
            .write_all(&self.output[..length])
            .map_err(too_slow)
    }

    /// Waits for bytes and gives every request that they complete to `done`.
    pub(crate) fn receive(&mut self, mut done: impl FnMut(Completed)) -> io::Result<()> {
        let length = self.stream.read(&mut self.input).map_err(too_slow)?;
        if length == 0 {
            return Err(failure("the server closed the connection"));
        }
        let (slots, free) = (&mut self.slots, &mut self.free);
        self.replies.take(&self.input[..length], |slot| {
            free.push(slot);
            done(slots[slot].take().expect("in flight"));
        })
    }

    /// Receives until nothing is in flight.
    pub(crate) fn drain(&mut self, mut done: impl FnMut(Completed)) -> io::Result<()> {
        while self.in_flight() > 0 {
            self.receive(&mut done)?;
        }
        Ok(())
    }

    /// Sends one request alone and waits for its answer.
    pub(crate) fn call(&mut self, request: Request) -> io::Result<()> {
        self.queue(request, Instant::now());
        self.send()?;
        self.drain(|_| ())
    }

    /// Fills `0..length` with the pattern and flushes.
    pub(crate) fn prefill(&mut self, length: u64) -> io::Result<()> {
        self.prefill_range(0, length)
    }

    /// The same for `offset..end`.
    pub(crate) fn prefill_range(&mut self, mut offset: u64, end: u64) -> io::Result<()> {
        /// Large enough for speed, small enough for every server.
        const PIECE: u32 = 1 << 20;
        while offset < end {
            let piece = u64::from(PIECE).min(end - offset);
            let length = u32::try_from(piece).expect("at most PIECE");
            self.queue(
                Request {
                    command: Command::Write,
                    offset,
                    length,
                },
                Instant::now(),
            );
            self.send()?;
            if self.room() == 0 {
                self.receive(|_| ())?;
            }
            offset += piece;
        }
        self.drain(|_| ())?;
        self.call(Request::FLUSH)
    }

    /// Says goodbye; the server may already be gone.
    pub(crate) fn close(mut self) {
        let _gone = self.stream.write_all(&Request::DISCONNECT.bytes(0));
    }
}

/// What every connection of a run has in common.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) export: String,
    pub(crate) pattern: Pattern,
    pub(crate) structured: bool,
}

/// A timeout of the socket, in words.
fn too_slow(error: io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => failure("the server stopped answering"),
        _ => error,
    }
}
