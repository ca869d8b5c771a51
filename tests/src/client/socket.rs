//! A connected stream with deadlines: big-endian fields in and out, and anything else as bytes.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// How long a read or a write may block before the test fails: far above what a server on this machine needs.
const IO_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A connection to a server.
#[derive(Debug)]
pub struct Socket {
    stream: Stream,
}

impl Socket {
    /// Connects to the address in an NBD URI (`nbd://HOST:PORT...`, `nbd+unix://...?socket=PATH`).
    ///
    /// # Panics
    /// When it can't connect.
    #[track_caller]
    #[must_use]
    pub fn connect(uri: &str) -> Self {
        Self::try_connect(uri).unwrap_or_else(|e| panic!("{uri}: {e}"))
    }

    /// The same, but a refusal is a value.
    ///
    /// # Errors
    /// The system's error.
    ///
    /// # Panics
    /// When the URI is not one of these.
    pub fn try_connect(uri: &str) -> io::Result<Self> {
        let stream = if let Some(rest) = uri.strip_prefix("nbd://") {
            let address = rest.split('/').next().unwrap_or(rest);
            let stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            Stream::Tcp(stream)
        } else {
            let (_, path) = uri
                .split_once("?socket=")
                .unwrap_or_else(|| panic!("not an NBD URI: {uri}"));
            Stream::Unix(UnixStream::connect(path)?)
        };
        let socket = Self { stream };
        socket.set_timeout(IO_TIMEOUT);
        Ok(socket)
    }

    /// Sets how long a read or a write may block.
    ///
    /// # Panics
    /// When `timeout` is zero.
    pub fn set_timeout(&self, timeout: Duration) {
        let result = match &self.stream {
            Stream::Tcp(s) => s
                .set_read_timeout(Some(timeout))
                .and_then(|()| s.set_write_timeout(Some(timeout))),
            Stream::Unix(s) => s
                .set_read_timeout(Some(timeout))
                .and_then(|()| s.set_write_timeout(Some(timeout))),
        };
        result.expect("a socket takes a timeout");
    }

    /// A second handle of the same connection, for a thread that reads while another writes.
    ///
    /// # Panics
    /// When descriptors have run out.
    #[must_use]
    pub fn try_clone(&self) -> Self {
        let stream = match &self.stream {
            Stream::Tcp(s) => s.try_clone().map(Stream::Tcp),
            Stream::Unix(s) => s.try_clone().map(Stream::Unix),
        };
        Self {
            stream: stream.expect("a descriptor"),
        }
    }

    /// Sends all of it.
    ///
    /// # Panics
    /// When the server does not take it.
    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes)
            .unwrap_or_else(|e| panic!("sending {} bytes: {e}", bytes.len()));
    }

    /// Sends all of it; the server may have closed.
    ///
    /// # Errors
    /// The system's error.
    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Tcp(s) => s.write_all(bytes),
            Stream::Unix(s) => s.write_all(bytes),
        }
    }

    /// Tells the server that no more will come.
    pub fn shutdown_write(&self) {
        // This fails when the server has closed first, and the caller is about to find that out.
        drop(match &self.stream {
            Stream::Tcp(s) => s.shutdown(Shutdown::Write),
            Stream::Unix(s) => s.shutdown(Shutdown::Write),
        });
    }

    /// Exactly `len` bytes.
    ///
    /// # Panics
    /// When the server closes first or stays silent.
    #[track_caller]
    pub fn receive(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.try_receive(&mut bytes)
            .unwrap_or_else(|e| panic!("waiting for {len} bytes: {e}"));
        bytes
    }

    /// Fills `bytes`; the server may close instead.
    ///
    /// # Errors
    /// The system's error.
    pub fn try_receive(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Tcp(s) => s.read_exact(bytes),
            Stream::Unix(s) => s.read_exact(bytes),
        }
    }

    /// A big-endian u16.
    #[track_caller]
    pub fn receive_u16(&mut self) -> u16 {
        u16::from_be_bytes(self.receive(2).try_into().expect("two bytes"))
    }

    /// A big-endian u32.
    #[track_caller]
    pub fn receive_u32(&mut self) -> u32 {
        u32::from_be_bytes(self.receive(4).try_into().expect("four bytes"))
    }

    /// A big-endian u64.
    #[track_caller]
    pub fn receive_u64(&mut self) -> u64 {
        u64::from_be_bytes(self.receive(8).try_into().expect("eight bytes"))
    }

    /// All bytes that come until the server closes. A reset counts as closing.
    ///
    /// # Panics
    /// When it does not close in time.
    #[track_caller]
    pub fn receive_to_end(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let result = match &mut self.stream {
            Stream::Tcp(s) => s.read_to_end(&mut bytes),
            Stream::Unix(s) => s.read_to_end(&mut bytes),
        };
        match result {
            Err(e) if e.kind() != io::ErrorKind::ConnectionReset => {
                panic!("not closed after {} bytes: {e}", bytes.len())
            }
            _ => bytes,
        }
    }

    /// Panics unless the server closes without another byte.
    #[track_caller]
    pub fn expect_closed(&mut self) {
        let rest = self.receive_to_end();
        assert!(
            rest.is_empty(),
            "{} bytes before it closed: {:02x?}",
            rest.len(),
            &rest[..rest.len().min(64)]
        );
    }
}
