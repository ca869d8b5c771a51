//! Sessions over real socket pairs, with a cache over memory behind them.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use weir_cache::{CacheMode, CacheOptions, PageCache, Payload};
use weir_faults::Faults;
use weir_protocol::constants::{REQUEST_MAGIC, SIMPLE_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC};
use weir_protocol::{Command, CommandFlags, Request};

use super::{SessionContext, Socket, serve};
use crate::backend::MemoryBackend;
use crate::connection::ConnectionTable;
use crate::export::{Export, ExportTable};
use crate::limits::Timeouts;

mod beside;
mod gone;
mod half_sent;
mod held;
mod hostile;
mod injected;
mod lifetime;
mod limits;
mod losses;
mod points;
mod requests;
mod shrunk;
mod streamed;

/// The device's size: a few slices, and no whole number of pages.
const SIZE: u64 = (8 << 20) + 512;
/// No step of a test takes this long, unless it never ends.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server of one export, without listeners.
struct Server {
    context: Arc<SessionContext>,
    cache: Arc<PageCache>,
}

/// What a test wants to be different.
struct Setup {
    read_only: bool,
    size: u64,
    mode: CacheMode,
    cache_bytes: u64,
    timeouts: Timeouts,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            read_only: false,
            size: SIZE,
            mode: CacheMode::default(),
            cache_bytes: 64 << 20,
            timeouts: Timeouts::default(),
        }
    }
}

impl Server {
    fn new() -> Self {
        Self::with(&Setup::default())
    }

    fn with(setup: &Setup) -> Self {
        let faults = Faults::new();
        let options = CacheOptions {
            cache_bytes: setup.cache_bytes,
            mode: setup.mode,
            ..CacheOptions::default()
        };
        let backend = Arc::new(MemoryBackend::new(setup.size));
        let cache = PageCache::open(backend, &options, &faults).expect("a cache over memory");
        let export = Export {
            name: String::new(),
            description: String::new(),
            source: "memory".into(),
            cache: Arc::clone(&cache),
            read_only: setup.read_only,
            power_cut: None,
            held: Arc::default(),
            remarks: Vec::new(),
        };
        let context = SessionContext {
            exports: Arc::new([export].into_iter().collect::<ExportTable>()),
            faults,
            timeouts: setup.timeouts,
            connections: Arc::new(ConnectionTable::new()),
            shutdown: CancellationToken::new(),
        };
        Self {
            context: Arc::new(context),
            cache,
        }
    }

    /// A connection before its handshake.
    fn connect(&self) -> (UnixStream, JoinHandle<()>) {
        let (ours, theirs) = UnixStream::pair().expect("a socket pair");
        let session = tokio::spawn(serve(
            Socket::Unix(theirs),
            "test".into(),
            Arc::clone(&self.context),
        ));
        (ours, session)
    }

    /// All memory for payloads, both for data that has arrived and for data to come.
    fn hoard(&self) -> Vec<Payload> {
        let mut hoard: Vec<_> = std::iter::from_fn(|| self.cache.try_payload(0, 1)).collect();
        hoard.extend(std::iter::from_fn(|| self.cache.try_payload_ahead(0, 1)));
        hoard
    }

    async fn client(&self, structured: bool) -> Client {
        let (socket, session) = self.connect();
        let mut client = Client {
            socket,
            session,
            structured,
        };
        client.negotiate().await;
        client
    }
}

/// A client that knows just enough.
struct Client {
    socket: UnixStream,
    session: JoinHandle<()>,
    structured: bool,
}

/// A structured chunk.
#[derive(Debug, PartialEq, Eq)]
struct Chunk {
    flags: u16,
    kind: u16,
    cookie: u64,
    data: Vec<u8>,
}

/// Fails instead of waiting for ever.
async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work)
        .await
        .expect("this takes too long")
}

fn option(code: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"IHAVEOPT".to_vec();
    bytes.extend(code.to_be_bytes());
    bytes.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
    bytes.extend(data);
    bytes
}

fn request(command: Command, cookie: u64, offset: u64, length: u32) -> Request {
    Request {
        flags: CommandFlags::EMPTY,
        command,
        cookie,
        offset,
        length,
    }
}

impl Client {
    async fn negotiate(&mut self) {
        self.take(18).await;
        self.send(&3_u32.to_be_bytes()).await;
        if self.structured {
            self.send(&option(8, b"")).await;
            self.option_reply().await;
            let mut query = vec![0, 0, 0, 0, 0, 0, 0, 2];
            for name in ["base:allocation", "x-weir:cache"] {
                query.extend(u32::try_from(name.len()).unwrap().to_be_bytes());
                query.extend(name.as_bytes());
            }
            self.send(&option(10, &query)).await;
            while self.option_reply().await != 1 {}
        }
        self.send(&option(7, &[0; 6])).await;
        while self.option_reply().await != 1 {}
    }

    /// Takes one option reply; returns its type.
    async fn option_reply(&mut self) -> u32 {
        let header = self.take(20).await;
        let word = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().unwrap());
        self.take(word(16) as usize).await;
        word(12)
    }

    async fn send(&mut self, bytes: &[u8]) {
        soon(self.socket.write_all(bytes))
            .await
            .expect("the server reads");
    }

    async fn request(&mut self, request: Request) {
        self.send(&request.encode()).await;
    }

    async fn take(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        soon(self.socket.read_exact(&mut bytes))
            .await
            .expect("the server answers");
        bytes
    }

    /// Takes a simple reply: its error and cookie.
    async fn reply(&mut self) -> (u32, u64) {
        let header = self.take(16).await;
        assert_eq!(header[..4], SIMPLE_REPLY_MAGIC.to_be_bytes());
        let error = u32::from_be_bytes(header[4..8].try_into().unwrap());
        (error, u64::from_be_bytes(header[8..].try_into().unwrap()))
    }

    async fn chunk(&mut self) -> Chunk {
        let header = self.take(20).await;
        assert_eq!(header[..4], STRUCTURED_REPLY_MAGIC.to_be_bytes());
        let length = u32::from_be_bytes(header[16..].try_into().unwrap());
        Chunk {
            flags: u16::from_be_bytes(header[4..6].try_into().unwrap()),
            kind: u16::from_be_bytes(header[6..8].try_into().unwrap()),
            cookie: u64::from_be_bytes(header[8..16].try_into().unwrap()),
            data: self.take(length as usize).await,
        }
    }

    /// All chunks up to the last one, which all belong to one reply.
    async fn chunks(&mut self, cookie: u64) -> Vec<Chunk> {
        let mut chunks = Vec::new();
        loop {
            let chunk = self.chunk().await;
            assert_eq!(chunk.cookie, cookie);
            let done = chunk.flags & 1 != 0;
            chunks.push(chunk);
            if done {
                return chunks;
            }
        }
    }

    async fn write(&mut self, cookie: u64, offset: u64, data: &[u8]) -> u32 {
        self.request(request(
            Command::WRITE,
            cookie,
            offset,
            u32::try_from(data.len()).unwrap(),
        ))
        .await;
        self.send(data).await;
        let (error, answered) = self.reply().await;
        assert_eq!(answered, cookie);
        error
    }

    /// Reads with simple replies.
    async fn read(&mut self, cookie: u64, offset: u64, length: u32) -> Vec<u8> {
        self.request(request(Command::READ, cookie, offset, length))
            .await;
        assert_eq!(self.reply().await, (0, cookie));
        self.take(length as usize).await
    }

    /// The server has closed the connection and its session has ended.
    async fn expect_over(mut self) {
        let mut rest = Vec::new();
        // A reset is an end as well.
        let _ = soon(self.socket.read_to_end(&mut rest)).await;
        assert_eq!(rest, b"", "more was sent");
        soon(self.session).await.expect("a session never panics");
    }
}

/// Bytes that tell their place.
fn pattern(offset: u64, length: usize) -> Vec<u8> {
    (offset..offset + length as u64)
        .map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8 | 1)
        .collect()
}

/// A request whose magic is wrong.
fn garbage() -> [u8; Request::SIZE] {
    let mut bytes = request(Command::READ, 1, 0, 512).encode();
    assert_eq!(bytes[..4], REQUEST_MAGIC.to_be_bytes());
    bytes[0] ^= 1;
    bytes
}
