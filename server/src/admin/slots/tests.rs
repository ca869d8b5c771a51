//! The port on a real socket, with clients that hang on to it.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser as _;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use weir_cache::{CacheOptions, PageCache};
use weir_faults::Faults;

use super::*;
use crate::admin::AdminListener;
use crate::backend::MemoryBackend;
use crate::cli::{Cli, Command};
use crate::export::Export;
use crate::server::Server;
use crate::settings::Settings;

/// Far above what an answer takes, and below every deadline of the port.
const SOON: Duration = Duration::from_secs(5);

struct Port {
    server: Server,
    socket: PathBuf,
    _folder: TempDir,
}

impl Port {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("s");
        let admin = format!("unix:{}", socket.display());
        let words = ["weir", "serve", "memory:1M", "--admin", &admin];
        let Command::Serve(options) = Cli::try_parse_from(words).unwrap().command else {
            unreachable!()
        };
        let settings = Settings::resolve(*options).unwrap();
        let faults = Faults::new();
        faults.add_device("");
        let options = CacheOptions {
            cache_bytes: 1 << 20,
            ..CacheOptions::default()
        };
        let backend = Arc::new(MemoryBackend::new(1 << 20));
        let export = Export {
            name: String::new(),
            description: String::new(),
            source: "memory:1M".to_owned(),
            cache: PageCache::open(backend, &options, &faults).unwrap(),
            read_only: false,
            power_cut: None,
            held: Arc::default(),
            remarks: Vec::new(),
        };
        let server = Server {
            exports: Arc::new([export].into_iter().collect()),
            faults,
            connections: Arc::default(),
            stop: CancellationToken::new(),
        };
        let listener = AdminListener::bind(&settings, None).await.unwrap().unwrap();
        tokio::spawn(listener.serve(&server, server.stop.clone()));
        Self {
            server,
            socket,
            _folder: folder,
        }
    }

    /// A client that has sent this.
    async fn client(&self, sent: &str) -> UnixStream {
        let mut stream = UnixStream::connect(&self.socket).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        stream
    }

    /// The status of the answer to this, which must come soon.
    async fn ask(&self, line: &str, body: &str) -> u16 {
        let length = body.len();
        let request = format!(
            "{line} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        let mut stream = self.client(&request).await;
        status(&mut stream).await
    }

    async fn assert_answering(&self) {
        assert_eq!(self.ask("GET /v1/status", "").await, 200);
        let rule = r#"{"rule": "read p=1% error=EIO"}"#;
        assert_eq!(self.ask("POST /v1/faults", rule).await, 200);
        assert_eq!(self.ask("GET /v1/events?follow=false", "").await, 200);
    }
}

async fn status(stream: &mut UnixStream) -> u16 {
    let mut head = [0; 12];
    let read = tokio::time::timeout(SOON, stream.read_exact(&mut head)).await;
    read.expect("an answer soon").expect("an answer");
    String::from_utf8_lossy(&head[9..]).parse().unwrap()
}

/// Whether the server has closed it.
async fn is_closed(stream: &mut UnixStream) -> bool {
    let read = tokio::time::timeout(SOON, stream.read(&mut [0])).await;
    matches!(read, Ok(Ok(0) | Err(_)))
}

#[tokio::test]
async fn clients_that_hang_on_shut_nobody_out() {
    let port = Port::new().await;
    for half in [
        "",
        "GET /v1/status HTTP/1.1\r\nHost: loc",
        "POST /v1/faults HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{",
        // The connection stays after its answer.
        "GET /v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ] {
        let mut hanging = Vec::new();
        for _ in 0..3 * PASSING_MAX {
            hanging.push(port.client(half).await);
        }
        port.assert_answering().await;
    }
}

/// All of them have asked before any is answered.
#[tokio::test]
async fn a_crowd_that_asks_at_the_same_moment_is_answered() {
    let port = Port::new().await;
    let ask = "GET /v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut crowd = Vec::new();
    for _ in 0..4 * PASSING_MAX {
        // The connections bypass the runtime, which would serve the first before the next comes.
        let mut client = std::os::unix::net::UnixStream::connect(&port.socket).unwrap();
        client.write_all(ask.as_bytes()).unwrap();
        client.set_nonblocking(true).unwrap();
        crowd.push(UnixStream::from_std(client).unwrap());
    }
    for client in &mut crowd {
        assert_eq!(status(client).await, 200);
    }
}

/// Bytes of a request that never ends make no place safer.
#[tokio::test]
async fn who_asks_a_byte_at_a_time_shuts_nobody_out() {
    let port = Port::new().await;
    let mut slow = Vec::new();
    for _ in 0..2 * PASSING_MAX {
        slow.push(port.client("GET /v1/status HTTP/1.1\r\nHost: ").await);
    }
    let trickling = async {
        loop {
            for client in &mut slow {
                // Some have been closed.
                let _ = client.write_all(b"l").await;
                tokio::task::yield_now().await;
            }
        }
    };
    tokio::select! {
        () = port.assert_answering() => {}
        () = trickling => {}
    }
}

/// Later connections don't cut short what a request does to the server.
#[tokio::test(start_paused = true)]
async fn whose_request_is_worked_on_keeps_its_place() {
    let slots = Arc::new(Slots::default());
    let asking = slots.enter().await;
    let works = asking.handle().work();
    let mut others = Vec::new();
    for _ in 0..2 * PASSING_MAX {
        let other = slots.enter().await;
        other.handle().is_awaited();
        others.push(other);
    }
    assert!(!asking.close().is_cancelled());
    drop(works);
    asking.handle().is_awaited();
    for _ in 0..PASSING_MAX {
        let other = slots.enter().await;
        other.handle().is_awaited();
        others.push(other);
    }
    assert!(asking.close().is_cancelled());
}

/// This holds even if no other client comes.
#[tokio::test(start_paused = true)]
async fn who_says_nothing_is_let_go() {
    let port = Port::new().await;
    for half in [
        "",
        "GET /v1/status HTTP/1.1\r\nHost: loc",
        "POST /v1/faults HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{",
        "GET /v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ] {
        let mut client = port.client(half).await;
        let mut said = Vec::new();
        let end = client.read_to_end(&mut said);
        let end = tokio::time::timeout(Duration::from_secs(60), end).await;
        end.unwrap_or_else(|_| panic!("still there: {half:?}"))
            .unwrap();
    }
}

#[tokio::test]
async fn the_one_that_is_idle_for_longest_goes_first() {
    let port = Port::new().await;
    let ask = "GET /v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut oldest = port.client("").await;
    let mut used = port.client(ask).await;
    assert_eq!(status(&mut used).await, 200);
    let mut others = Vec::new();
    for _ in 2..PASSING_MAX {
        let mut other = port.client(ask).await;
        assert_eq!(status(&mut other).await, 200);
        others.push(other);
    }
    // It is as old as the oldest, but asks again.
    used.write_all(ask.as_bytes()).await.unwrap();
    loop {
        let mut byte = [0; 1];
        used.read_exact(&mut byte).await.unwrap();
        if byte == *b"H" {
            break;
        }
    }
    let mut next = port.client(ask).await;
    assert_eq!(status(&mut next).await, 200);
    assert!(is_closed(&mut oldest).await);
    assert_eq!(port.ask("GET /v1/status", "").await, 200);
    drop(next);
    used.write_all(ask.as_bytes()).await.unwrap();
    let mut rest = vec![0; 1 << 16];
    let read = tokio::time::timeout(SOON, used.read(&mut rest)).await;
    assert!(read.unwrap().unwrap() > 0, "the one in use was closed");
}

#[tokio::test]
async fn followers_of_events_have_a_budget_of_their_own() {
    let port = Port::new().await;
    let follow = "GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut followers = Vec::new();
    for _ in 0..WAITING_MAX {
        let mut follower = port.client(follow).await;
        assert_eq!(status(&mut follower).await, 200);
        followers.push(follower);
    }
    assert_eq!(port.ask("GET /v1/events", "").await, 503);
    // They take no other kind's place, and no other kind takes theirs.
    let mut idle = Vec::new();
    for _ in 0..2 * PASSING_MAX {
        idle.push(port.client("").await);
    }
    assert_eq!(port.ask("GET /v1/status", "").await, 200);
    let rule = r#"{"rule": "read error=EIO"}"#;
    assert_eq!(port.ask("POST /v1/faults", rule).await, 200);
    for follower in &mut followers {
        // What is left of the head, and then nothing, not even the end.
        let mut rest = [0; 4096];
        let end = loop {
            match follower.try_read(&mut rest) {
                Ok(1..) => {}
                end => break end,
            }
        };
        let waits = matches!(&end, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock);
        assert!(waits, "{end:?}");
    }
    // One that ends makes room.
    drop(followers.pop());
    let again = async {
        while port.ask("GET /v1/events", "").await != 200 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, again).await.expect("room");
}

#[tokio::test]
async fn what_waits_for_a_store_leaves_room_for_what_ends_that() {
    let port = Port::new().await;
    let set = r#"{"action": "set", "query": "class cache:flush:snapshot pause"}"#;
    assert_eq!(port.ask("POST /v1/points", set).await, 200);
    let body = r#"{"action": "flush"}"#;
    let flush = format!(
        "POST /v1/exports?name= HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut waiting = Vec::new();
    for _ in 0..WAITING_MAX {
        waiting.push(port.client(&flush).await);
    }
    let refused = async {
        loop {
            let mut next = port.client(&flush).await;
            let answer = tokio::time::timeout(Duration::from_millis(100), next.read_u64()).await;
            if answer.is_ok() {
                break;
            }
        }
    };
    tokio::time::timeout(SOON, refused).await.expect("refused");
    let release = r#"{"action": "reset"}"#;
    assert_eq!(port.ask("POST /v1/points", release).await, 200);
    for client in &mut waiting {
        assert_eq!(status(client).await, 200);
    }
    port.assert_answering().await;
    port.server.stop.cancel();
}
