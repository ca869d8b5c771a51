//! One client's socket, TCP or Unix, behind one type.
//!
//! All transfers are non-blocking attempts on `&self`, and waiting is a separate step. That lets one task wait for
//! input, for room to write and for finished work at once, without splitting the socket.
//!
//! # One system call less per batch
//! Readiness is edge-triggered: after a short transfer the socket is known to be drained (or full), and a new event
//! will come. But tokio's `try_read` forgets readiness only when a call returns `EWOULDBLOCK`, which would cost a
//! second system call for every batch. [`Socket::transfer`] therefore reports a short transfer to tokio as if it had
//! blocked, and keeps the count. tokio's own `poll_read` does the same, but isn't offered for vectored or shared use.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::task::{Context, Poll};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};

/// A connected client.
#[derive(Debug)]
pub enum Socket {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
}

impl From<TcpStream> for Socket {
    fn from(stream: TcpStream) -> Self {
        Self::Tcp(stream)
    }
}

impl From<UnixStream> for Socket {
    fn from(stream: UnixStream) -> Self {
        Self::Unix(stream)
    }
}

impl Socket {
    /// Turns off Nagle's algorithm: a reply must not wait for the acknowledgement of the one before it.
    pub(super) fn set_nodelay(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_nodelay(true),
            Self::Unix(_) => Ok(()),
        }
    }

    /// Ready when a read may make progress.
    pub(super) fn poll_read_ready(&self, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(task),
            Self::Unix(stream) => stream.poll_read_ready(task),
        }
    }

    /// Ready when a write may make progress.
    pub(super) fn poll_write_ready(&self, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_write_ready(task),
            Self::Unix(stream) => stream.poll_write_ready(task),
        }
    }

    /// Returns when the client has sent its last byte, read or not, or when the connection is broken.
    pub(super) async fn ended(&self) {
        // The end is part of this interest, and nothing else is: out-of-band data isn't registered for. Waiting to read
        // would return for all unread data.
        let announced = match self {
            Self::Tcp(stream) => stream.ready(Interest::PRIORITY).await,
            Self::Unix(stream) => stream.ready(Interest::PRIORITY).await,
        };
        // An error means the end of the runtime, or of the socket.
        drop(announced);
    }

    /// Reads what is there without removing it.
    pub(super) fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let socket = match self {
            Self::Tcp(stream) => stream.as_raw_fd(),
            Self::Unix(stream) => stream.as_raw_fd(),
        };
        match recv(socket, buffer, MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT) {
            Err(Errno::EWOULDBLOCK) => Ok(0),
            outcome => outcome.map_err(io::Error::from),
        }
    }

    /// Reads what is there, at most `buffer`; zero is the end of the stream.
    pub(super) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len();
        self.transfer(Interest::READABLE, wanted, |socket| {
            nix::unistd::read(socket, buffer)
        })
    }

    /// As [`Socket::try_read`], but without an announcement that there is anything to read: a system call that is often
    /// in vain.
    pub(super) fn try_read_unannounced(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let socket = match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        };
        loop {
            match nix::unistd::read(socket, buffer) {
                Err(Errno::EINTR) => {}
                outcome => return outcome.map_err(io::Error::from),
            }
        }
    }

    /// Reads what is there into `slices`, which hold `wanted` bytes together; zero is the end of the stream.
    pub(super) fn try_read_vectored(
        &self,
        slices: &mut [IoSliceMut<'_>],
        wanted: usize,
    ) -> io::Result<usize> {
        self.transfer(Interest::READABLE, wanted, |socket| {
            nix::sys::uio::readv(socket, slices)
        })
    }

    /// Writes what there is room for of `slices`, which hold `wanted` bytes together.
    pub(super) fn try_write_vectored(
        &self,
        slices: &[IoSlice<'_>],
        wanted: usize,
    ) -> io::Result<usize> {
        self.transfer(Interest::WRITABLE, wanted, |socket| {
            nix::sys::uio::writev(socket, slices)
        })
    }

    /// Ends the stream towards the peer; what was written before still reaches it.
    pub(super) fn shutdown_write(&self) -> io::Result<()> {
        let socket = match self {
            Self::Tcp(stream) => stream.as_raw_fd(),
            Self::Unix(stream) => stream.as_raw_fd(),
        };
        Ok(nix::sys::socket::shutdown(
            socket,
            nix::sys::socket::Shutdown::Write,
        )?)
    }

    /// One attempt at `call`, which is to move `wanted` bytes; a shorter transfer clears readiness (see the module
    /// documentation).
    fn transfer(
        &self,
        interest: Interest,
        wanted: usize,
        mut call: impl FnMut(BorrowedFd<'_>) -> nix::Result<usize>,
    ) -> io::Result<usize> {
        let mut short = None;
        let mut attempt = |socket: BorrowedFd<'_>| loop {
            match call(socket) {
                Err(Errno::EINTR) => {}
                Ok(moved) if 0 < moved && moved < wanted => {
                    short = Some(moved);
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                outcome => return outcome.map_err(io::Error::from),
            }
        };
        let outcome = match self {
            Self::Tcp(stream) => stream.try_io(interest, || attempt(stream.as_fd())),
            Self::Unix(stream) => stream.try_io(interest, || attempt(stream.as_fd())),
        };
        match short {
            Some(moved) => Ok(moved),
            None => outcome,
        }
    }
}
