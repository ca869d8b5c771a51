//! WRITEs of which the client sends only a part, and what they keep from others.

use weir_cache::PAGE_SIZE;

use super::*;
use crate::limits::{PACE_BYTES_MIN, PACE_WINDOW};

const SMALL_CACHE: u64 = 2 << 20;
const MODES: [CacheMode; 3] = [
    CacheMode::Writeback,
    CacheMode::Writethrough,
    CacheMode::None,
];

fn small(mode: CacheMode) -> Setup {
    Setup {
        cache_bytes: SMALL_CACHE,
        mode,
        ..Setup::default()
    }
}

/// With paused time: waits until nothing moves any more.
async fn idle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// Clients that have announced a WRITE and sent a part of it.
async fn half_senders(server: &Server, count: usize) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut client = server.client(false).await;
        client.request(request(Command::WRITE, 1, 0, 4 << 20)).await;
        client.send(&[7; 100]).await;
        clients.push(client);
    }
    idle().await;
    clients
}

#[tokio::test(start_paused = true)]
async fn they_hold_up_nobody() {
    for mode in MODES {
        let server = Server::with(&small(mode));
        let _half = half_senders(&server, 64).await;
        let mut client = server.client(false).await;
        let begun = tokio::time::Instant::now();
        for length in [4096, 40_000, 1 << 20, 5 << 20] {
            let data = pattern(512, length);
            assert_eq!(client.write(2, 512, &data).await, 0);
            let read = client.read(3, 512, u32::try_from(length).unwrap()).await;
            assert!(read == data, "{mode:?}: {length} bytes");
        }
        // They must not have been let go for another reason.
        assert!(begun.elapsed() < PACE_WINDOW, "{mode:?}");
    }
}

/// Whatever is received through the input buffer is cut where it has arrived, and is put together again.
#[tokio::test(start_paused = true)]
async fn what_gathers_is_stored_as_it_was_sent() {
    for mode in MODES {
        for cache_bytes in [1 << 20, 64 << 20] {
            let server = Server::with(&Setup {
                cache_bytes,
                mode,
                ..Setup::default()
            });
            let ahead: Vec<_> =
                std::iter::from_fn(|| server.cache.try_payload_ahead(0, 1)).collect();
            let mut client = server.client(false).await;
            for (offset, length, piece) in [
                (0, 1 << 20, 100_000),
                (4095, (2 << 20) + 2, 77_777),
                (513, 33_000, 1000),
                (SIZE - 300_001, 300_001, 4097),
            ] {
                let data = pattern(offset, length);
                let announced = u32::try_from(length).unwrap();
                client
                    .request(request(Command::WRITE, 1, offset, announced))
                    .await;
                for part in data.chunks(piece) {
                    client.send(part).await;
                    idle().await;
                }
                // Sent right behind it, in one piece with its end.
                client
                    .request(request(Command::READ, 2, offset, announced))
                    .await;
                assert_eq!(client.reply().await, (0, 1));
                assert_eq!(client.reply().await, (0, 2));
                assert!(client.take(length).await == data, "{mode:?}: {offset}");
            }
            drop(ahead);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_gathers_keeps_no_memory() {
    let server = Server::with(&small(CacheMode::Writeback));
    let ahead: Vec<_> = std::iter::from_fn(|| server.cache.try_payload_ahead(0, 1)).collect();
    let free = server.cache.pool().free_frames();
    let _half = half_senders(&server, 64).await;
    assert_eq!(server.cache.pool().free_frames(), free);
    drop(ahead);
}

/// Other requests wait in turn for the memory that this takes: only as much as lies there, though the client has
/// announced more.
#[tokio::test(start_paused = true)]
async fn what_gathers_takes_memory_for_what_has_arrived() {
    let server = Server::new();
    let ahead: Vec<_> = std::iter::from_fn(|| server.cache.try_payload_ahead(0, 1)).collect();
    let free = server.cache.pool().free_frames();
    let mut client = server.client(false).await;
    client.request(request(Command::WRITE, 1, 0, 1 << 20)).await;
    client.send(&[7; 100_000]).await;
    idle().await;
    let taken = free - server.cache.pool().free_frames();
    let arrived = 100_000 / PAGE_SIZE;
    assert!(
        taken > 0 && taken as usize <= arrived,
        "{taken} frames for {arrived} pages"
    );
    drop(ahead);
}

/// If a payload consists of whole pages, no part of a page goes to the cache, so nothing is read from the store for it.
#[tokio::test(start_paused = true)]
async fn what_gathers_is_cut_between_pages() {
    for mode in MODES {
        let server = Server::with(&Setup {
            mode,
            ..Setup::default()
        });
        let ahead: Vec<_> = std::iter::from_fn(|| server.cache.try_payload_ahead(0, 1)).collect();
        let points = "class backend:read error EIO";
        server.context.faults.set_points(points).expect("good");
        let mut client = server.client(false).await;
        client.request(request(Command::WRITE, 1, 0, 1 << 20)).await;
        for part in pattern(0, 1 << 20).chunks(77_777) {
            client.send(part).await;
            idle().await;
        }
        assert_eq!(client.reply().await, (0, 1), "{mode:?}");
        drop(ahead);
    }
}

/// The client doesn't know of the failure yet: all that it sends of that WRITE is thrown away, whatever it was received
/// into.
#[tokio::test(start_paused = true)]
async fn a_slice_that_fails_takes_the_one_that_comes_along() {
    const SLICE: usize = 1 << 20;
    let server = Server::with(&Setup {
        mode: CacheMode::None,
        ..Setup::default()
    });
    let points = "class backend:write error EIO";
    server.context.faults.set_points(points).expect("good");
    let mut client = server.client(false).await;
    let data = pattern(0, 3 * SLICE);
    client.request(request(Command::WRITE, 1, 0, 3 << 20)).await;
    for part in [&data[..SLICE + 5000], &data[SLICE + 5000..]] {
        client.send(part).await;
        idle().await;
    }
    assert_eq!(client.reply().await, (5, 1));
    server.context.faults.reset_points();
    assert_eq!(client.write(2, 0, &data).await, 0);
    assert!(client.read(3, 0, 3 << 20).await == data);
}

/// Sends `bytes_a_second` of a WRITE, while others are refused memory or not; says whether the client is let go within
/// a minute.
async fn is_let_go(bytes_a_second: u64, others: bool) -> bool {
    let server = Server::with(&small(CacheMode::Writeback));
    let mut client = server.client(false).await;
    client.request(request(Command::WRITE, 1, 0, 8 << 20)).await;
    let begun = tokio::time::Instant::now();
    let mut credit = 0;
    while begun.elapsed() < Duration::from_secs(60) {
        tokio::time::sleep(Duration::from_millis(250)).await;
        if client.session.is_finished() {
            assert!(begun.elapsed() >= PACE_WINDOW);
            return true;
        }
        credit += bytes_a_second;
        let bytes = vec![7; usize::try_from(credit / 4).unwrap()];
        credit %= 4;
        if client.socket.write_all(&bytes).await.is_err() {
            soon(client.session).await.expect("no panic");
            return true;
        }
        if others {
            drop(server.hoard());
        }
    }
    false
}

#[tokio::test(start_paused = true)]
async fn who_hoards_what_others_want_is_let_go() {
    assert!(is_let_go(0, true).await);
    assert!(is_let_go(1, true).await);
    assert!(is_let_go(PACE_BYTES_MIN / 2, true).await);
}

#[tokio::test(start_paused = true)]
async fn an_honest_slow_client_is_not_let_go_nor_one_that_nobody_suffers_from() {
    assert!(!is_let_go(64 << 10, true).await);
    assert!(!is_let_go(1, false).await);
    assert!(!is_let_go(0, false).await);
}

/// In a header, in a payload that is buffered, in one that goes into pages, and in one that gathers.
#[tokio::test(start_paused = true)]
async fn a_byte_a_second_is_idle() {
    for (length, sent, hoarded) in [
        (512, 3, false),
        (8192, 50, false),
        (1 << 20, 5000, false),
        (1 << 20, 5000, true),
    ] {
        let server = Server::with(&Setup {
            timeouts: Timeouts {
                idle: Some(Duration::from_secs(10)),
                ..Timeouts::default()
            },
            ..Setup::default()
        });
        let hoard = if hoarded { server.hoard() } else { Vec::new() };
        let mut client = server.client(false).await;
        let mut bytes = request(Command::WRITE, 1, 0, length).encode().to_vec();
        bytes.resize(bytes.len() + length as usize, 7);
        client.send(&bytes[..sent]).await;
        let begun = tokio::time::Instant::now();
        let mut next = sent;
        while !client.session.is_finished() {
            assert!(begun.elapsed() < Duration::from_secs(15), "{length}");
            // It may have ended just now.
            let _ = client.socket.write_all(&bytes[next..=next]).await;
            next += 1;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        drop(hoard);
    }
}
