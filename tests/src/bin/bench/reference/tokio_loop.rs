//! The same server as a tokio task per connection on the multi-threaded runtime: the cost of the runtime, with nothing
//! behind it.

use std::io::{self, ErrorKind, IoSlice};
use std::sync::Arc;
use std::thread;

use tokio::net::{TcpStream, UnixStream};

use super::engine::{Engine, INPUT_LENGTH, Memory};
use super::handshake;
use crate::stream::{Address, Stream};

/// Serves until it is killed.
pub(crate) fn serve(address: &Address, size: u64) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_io()
        .build()?;
    let memory = Arc::new(Memory::new(size));
    let listener = address.listen()?;
    loop {
        let mut stream = listener.accept()?;
        let memory = Arc::clone(&memory);
        let runtime = runtime.handle().clone();
        // The handshake isn't measured, so it may block a thread of its own.
        thread::spawn(move || {
            let socket = handshake::serve(&mut stream, memory.size()).and_then(|()| {
                let _entered = runtime.enter();
                Socket::from_blocking(stream)
            });
            match socket {
                Ok(socket) => drop(runtime.spawn(async move {
                    if let Err(error) = session(&socket, &memory).await {
                        eprintln!("tokio-loop: {error}");
                    }
                })),
                Err(error) => eprintln!("tokio-loop: {error}"),
            }
        });
    }
}

async fn session(socket: &Socket, memory: &Memory) -> io::Result<()> {
    let mut engine = Engine::new(memory);
    let mut input = vec![0; INPUT_LENGTH];
    let mut filled = 0;
    while !engine.disconnected() {
        let length = loop {
            match socket.try_read(&mut input[filled..]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => socket.readable().await?,
                other => break other?,
            }
        };
        if length == 0 {
            return Ok(());
        }
        filled += length;
        let mut used = 0;
        loop {
            let taken = engine.take(&input[used..filled])?;
            used += taken;
            while engine.wants_payload() {
                match engine.read_payload(|target| socket.try_read(target)) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        socket.readable().await?
                    }
                    other => other?,
                }
            }
            while engine.wants_write() {
                match engine.write(|slices| socket.try_write_vectored(slices)) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        socket.writable().await?
                    }
                    other => other?,
                }
            }
            if taken == 0 {
                break;
            }
        }
        input.copy_within(used..filled, 0);
        filled -= used;
    }
    Ok(())
}

enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Socket {
    fn from_blocking(stream: Stream) -> io::Result<Self> {
        match stream {
            Stream::Unix(stream) => {
                stream.set_nonblocking(true)?;
                UnixStream::from_std(stream).map(Self::Unix)
            }
            Stream::Tcp(stream) => {
                stream.set_nonblocking(true)?;
                TcpStream::from_std(stream).map(Self::Tcp)
            }
        }
    }

    async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.readable().await,
            Self::Tcp(stream) => stream.readable().await,
        }
    }

    async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.writable().await,
            Self::Tcp(stream) => stream.writable().await,
        }
    }

    fn try_read(&self, target: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.try_read(target),
            Self::Tcp(stream) => stream.try_read(target),
        }
    }

    fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.try_write_vectored(slices),
            Self::Tcp(stream) => stream.try_write_vectored(slices),
        }
    }
}
