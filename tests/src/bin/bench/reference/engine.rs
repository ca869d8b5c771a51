//! Requests in, replies out, without a socket: what the two reference servers share.
//!
//! The memory's lock is taken once per batch, never per request. In every load with writes that compares against these
//! servers it is uncontended, and its cost vanishes behind a system call.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::RwLock;

use crate::wire::{
    Command, EINVAL, REQUEST_LENGTH, REQUEST_MAGIC, SIMPLE_REPLY_MAGIC, be_u16, be_u32, be_u64,
    failure,
};

/// Replies per vectored write: two slices each, and the kernel takes 1024.
const REPLIES_MAX: usize = 512;
/// Takes in 32 writes of 4 KiB at once.
pub(super) const INPUT_LENGTH: usize = 256 << 10;

/// What the export holds.
pub(super) struct Memory {
    bytes: RwLock<Vec<u8>>,
    size: u64,
}

impl Memory {
    pub(super) fn new(size: u64) -> Self {
        let length = usize::try_from(size).expect("an address space");
        Self {
            bytes: RwLock::new(vec![0; length]),
            size,
        }
    }

    pub(super) const fn size(&self) -> u64 {
        self.size
    }
}

struct Answer {
    header: [u8; 16],
    data: Range<usize>,
}

/// One connection's state.
pub(super) struct Engine<'memory> {
    memory: &'memory Memory,
    answers: Vec<Answer>,
    /// Bytes of `answers` that the socket took.
    sent: usize,
    /// Where the rest of a write's payload belongs.
    pending: Range<usize>,
    disconnected: bool,
}

impl<'memory> Engine<'memory> {
    pub(super) const fn new(memory: &'memory Memory) -> Self {
        Self {
            memory,
            answers: Vec::new(),
            sent: 0,
            pending: 0..0,
            disconnected: false,
        }
    }

    /// Whether the client said goodbye.
    pub(super) const fn disconnected(&self) -> bool {
        self.disconnected
    }

    /// Takes whole requests, and as much of the last write's payload as there is. Returns how many bytes were used.
    pub(super) fn take(&mut self, input: &[u8]) -> io::Result<usize> {
        let mut memory = None;
        let mut used = 0;
        while self.pending.is_empty() && !self.disconnected && self.answers.len() < REPLIES_MAX {
            let Some(request) = input.get(used..used + REQUEST_LENGTH) else {
                break;
            };
            if be_u32(request, 0) != REQUEST_MAGIC {
                return Err(failure("a malformed request"));
            }
            let (command, offset, length) =
                (be_u16(request, 6), be_u64(request, 16), be_u32(request, 24));
            used += REQUEST_LENGTH;
            let mut error = 0;
            let mut data = 0..0;
            if command == Command::Disconnect as u16 {
                self.disconnected = true;
                break;
            } else if command == Command::Read as u16 {
                match self.range(offset, length) {
                    Some(range) => data = range,
                    None => error = EINVAL,
                }
            } else if command == Command::Write as u16 {
                let range = self
                    .range(offset, length)
                    .ok_or_else(|| failure("a write past the end"))?;
                let here = range.len().min(input.len() - used);
                let memory = memory
                    .get_or_insert_with(|| self.memory.bytes.write().expect("no panic held it"));
                memory[range.start..range.start + here].copy_from_slice(&input[used..used + here]);
                used += here;
                self.pending = range.start + here..range.end;
            } else if command != Command::Flush as u16 {
                error = EINVAL;
            }
            self.answers.push(Answer {
                header: header(error, &request[8..16]),
                data,
            });
        }
        Ok(used)
    }

    fn range(&self, offset: u64, length: u32) -> Option<Range<usize>> {
        let end = offset
            .checked_add(u64::from(length))
            .filter(|end| *end <= self.memory.size)?;
        Some(usize::try_from(offset).ok()?..usize::try_from(end).ok()?)
    }

    /// Whether the rest of a payload must be read before anything else.
    pub(super) fn wants_payload(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Reads some of that payload straight into memory.
    pub(super) fn read_payload(
        &mut self,
        read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<()> {
        let mut memory = self.memory.bytes.write().expect("no panic held it");
        match read(&mut memory[self.pending.clone()])? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            length => {
                self.pending.start += length;
                Ok(())
            }
        }
    }

    /// Whether answers wait for the socket.
    pub(super) const fn wants_write(&self) -> bool {
        !self.answers.is_empty()
    }

    /// Writes some of the answers, straight from memory.
    pub(super) fn write(
        &mut self,
        write: impl FnOnce(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<()> {
        let memory = self.memory.bytes.read().expect("no panic held it");
        let mut slices: Vec<IoSlice<'_>> = Vec::with_capacity(2 * self.answers.len());
        let mut total = 0;
        for answer in &self.answers {
            slices.push(IoSlice::new(&answer.header));
            total += answer.header.len() + answer.data.len();
            if !answer.data.is_empty() {
                slices.push(IoSlice::new(&memory[answer.data.clone()]));
            }
        }
        let mut rest = &mut slices[..];
        IoSlice::advance_slices(&mut rest, self.sent);
        self.sent += write(rest)?;
        if self.sent == total {
            self.answers.clear();
            self.sent = 0;
        }
        Ok(())
    }
}

fn header(error: u32, cookie: &[u8]) -> [u8; 16] {
    let mut header = [0; 16];
    header[..4].copy_from_slice(&SIMPLE_REPLY_MAGIC.to_be_bytes());
    header[4..8].copy_from_slice(&error.to_be_bytes());
    header[8..].copy_from_slice(cookie);
    header
}
