//! The receive buffer of a connection.
//!
//! One `read` takes in as many requests as the socket holds. The memory exists only while the connection is in use:
//! [`Input::release`] gives it back, and the next read allocates it again.

use std::io::{self, IoSliceMut};

use super::socket::Socket;

/// The buffer's size. Larger than a Unix socket's default queue (208 KiB) can fill in one go, so that thirty-two 4 KiB
/// writes with their headers arrive in one system call.
pub(super) const INPUT_BYTES: usize = 256 << 10;

/// How much is read at once while large writes arrive: a few headers. Payload that is read along with a header has to
/// be copied, whereas payload left in the socket goes straight into pages.
pub(super) const INPUT_BYTES_BETWEEN_PAYLOADS: usize = 1 << 10;

/// Bytes received and not yet parsed.
#[derive(Debug, Default)]
pub(super) struct Input {
    /// Empty, [`INPUT_BYTES`] long, or just what is unread when the connection has become quiet.
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// Bytes received on this connection so far.
    received: u64,
}

impl Input {
    /// What was received and not consumed.
    #[inline]
    pub(super) fn unread(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Takes `count` bytes off the front of [`Self::unread`].
    #[inline]
    pub(super) fn consume(&mut self, count: usize) {
        assert!(
            count <= self.end - self.start,
            "{count} of {} bytes",
            self.end - self.start
        );
        self.start += count;
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Bytes received on this connection so far.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// Bytes that were received and parsed.
    pub(super) fn consumed(&self) -> u64 {
        self.received - (self.end - self.start) as u64
    }

    /// Reads at most `most` bytes behind what is there; zero is the end of the stream.
    pub(super) fn fill(&mut self, stream: &Socket, most: usize) -> io::Result<usize> {
        self.fill_by(most, |buffer| stream.try_read(buffer))
    }

    /// As [`Input::fill`], but without an announcement that there is anything to read.
    pub(super) fn fill_unannounced(&mut self, stream: &Socket, most: usize) -> io::Result<usize> {
        self.fill_by(most, |buffer| stream.try_read_unannounced(buffer))
    }

    fn fill_by(
        &mut self,
        most: usize,
        read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let end = self.prepare(most);
        let count = read(&mut self.buffer[self.end..end])?;
        self.end += count;
        self.received += count as u64;
        Ok(count)
    }

    /// Reads into `slices`, which hold `wanted` bytes. What follows them goes behind what is in the buffer, at most
    /// `most` bytes of it. Says how many bytes went into `slices`; zero is the end of the stream.
    pub(super) fn fill_behind<'s>(
        &'s mut self,
        stream: &Socket,
        slices: impl Iterator<Item = IoSliceMut<'s>>,
        wanted: usize,
        most: usize,
    ) -> io::Result<usize> {
        assert!(
            self.start == self.end,
            "unread bytes come before those that are still in the socket"
        );
        let end = self.prepare(most);
        let behind = IoSliceMut::new(&mut self.buffer[..end]);
        let mut slices: Vec<_> = slices.chain(std::iter::once(behind)).collect();
        let count = stream.try_read_vectored(&mut slices, wanted + end)?;
        self.end = count.saturating_sub(wanted);
        self.received += count as u64;
        Ok(count.min(wanted))
    }

    /// Makes room behind the unread bytes; says where at most `most` more of them end.
    fn prepare(&mut self, most: usize) -> usize {
        if self.buffer.len() < INPUT_BYTES {
            self.grow();
        }
        if self.buffer.len() - self.end < most && self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let end = self.buffer.len().min(self.end + most);
        assert!(
            end > self.end,
            "a full buffer is to be consumed before it is filled"
        );
        end
    }

    /// Puts `bytes` in front of everything: the handshake had read them too early.
    pub(super) fn preload(&mut self, bytes: &[u8]) {
        assert!(self.unread().is_empty() && bytes.len() <= INPUT_BYTES);
        if !bytes.is_empty() {
            self.prepare(bytes.len());
            self.buffer[..bytes.len()].copy_from_slice(bytes);
            self.end = bytes.len();
        }
        self.received += bytes.len() as u64;
    }

    #[cold]
    fn grow(&mut self) {
        let mut buffer = vec![0; INPUT_BYTES].into_boxed_slice();
        let unread = self.unread();
        buffer[..unread.len()].copy_from_slice(unread);
        self.end = unread.len();
        self.start = 0;
        self.buffer = buffer;
    }

    /// Frees the buffer, apart from what is unread: a client that stops in the middle of a request must not keep all of
    /// it.
    pub(super) fn release(&mut self) {
        if self.end - self.start < self.buffer.len() {
            self.buffer = self.unread().into();
            self.end = self.buffer.len();
            self.start = 0;
        }
    }
}

#[cfg(test)]
mod tests;
