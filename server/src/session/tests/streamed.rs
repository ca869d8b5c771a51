//! Requests larger than a slice, and caches smaller than requests.

use super::*;

const LENGTH: usize = 5 << 20;

/// A cache in which a slice is a few pages.
fn small() -> Setup {
    Setup {
        cache_bytes: 2 << 20,
        ..Setup::default()
    }
}

#[tokio::test]
async fn large_requests_go_in_slices() {
    for setup in [Setup::default(), small()] {
        let server = Server::with(&setup);
        let mut client = server.client(false).await;
        let data = pattern(4097, LENGTH);
        assert_eq!(client.write(1, 4097, &data).await, 0);
        assert!(client.read(2, 4097, u32::try_from(LENGTH).unwrap()).await == data);
    }
}

#[tokio::test]
async fn nothing_comes_between_a_header_and_its_data() {
    const LONG: u32 = 3 << 20;
    let server = Server::with(&small());
    let mut client = server.client(false).await;
    let data = pattern(0, LENGTH);
    client.write(1, 0, &data).await;
    let length = |cookie: u64| if cookie.is_multiple_of(5) { LONG } else { 512 };
    let burst: Vec<_> = (0..20)
        .flat_map(|cookie| request(Command::READ, cookie, cookie * 512, length(cookie)).encode())
        .collect();
    client.send(&burst).await;
    let mut seen = Vec::new();
    for _ in 0..20 {
        let (error, cookie) = client.reply().await;
        assert_eq!(error, 0);
        let (length, at) = (
            length(cookie) as usize,
            usize::try_from(cookie * 512).unwrap(),
        );
        assert!(
            client.take(length).await == data[at..at + length],
            "{cookie}"
        );
        seen.push(cookie);
    }
    seen.sort_unstable();
    assert!(seen.into_iter().eq(0..20));
}

#[tokio::test]
async fn structured_streams_cover_everything_once() {
    for df in [CommandFlags::EMPTY, CommandFlags::DF] {
        let server = Server::with(&small());
        let mut client = server.client(true).await;
        let data = pattern(0, LENGTH);
        client.write(1, 0, &data).await;
        client
            .request(Request {
                flags: df,
                ..request(Command::READ, 2, 100, 4 << 20)
            })
            .await;
        let mut chunks = client.chunks(2).await;
        if df == CommandFlags::DF {
            // The data was promised when an error could still come.
            let last = chunks.pop().expect("a chunk");
            assert_eq!((last.flags, last.kind, last.data.len()), (1, 0, 0));
        }
        let mut at = 100;
        for chunk in &chunks {
            assert_eq!(
                (
                    chunk.kind,
                    u64::from_be_bytes(chunk.data[..8].try_into().unwrap())
                ),
                (1, at as u64)
            );
            assert!(chunk.data[8..] == data[at..at + chunk.data.len() - 8]);
            at += chunk.data.len() - 8;
        }
        assert_eq!(at, 100 + (4 << 20));
        assert_eq!(df == CommandFlags::DF, chunks.len() == 1);
    }
}

#[tokio::test]
async fn an_error_in_a_slice_fails_the_write_and_drains_the_rest() {
    let server = Server::with(&small());
    let mut client = server.client(false).await;
    server
        .context
        .faults
        .set_points("class session:store after 2 oneshot error ENOSPC")
        .expect("a good query");
    assert_eq!(client.write(1, 0, &pattern(0, 1 << 20)).await, 28);
    server.context.faults.reset_points();
    assert_eq!(client.write(2, 0, &pattern(0, 1 << 20)).await, 0);
    assert!(client.read(3, 0, 1 << 20).await == pattern(0, 1 << 20));
}

#[tokio::test]
async fn an_error_after_the_header_disconnects_or_is_a_chunk() {
    for structured in [false, true] {
        let server = Server::with(&small());
        let mut client = server.client(structured).await;
        client.write(1, 0, &pattern(0, LENGTH)).await;
        server
            .context
            .faults
            .set_points("class session:slice after 8 oneshot error EIO")
            .expect("a good query");
        client.request(request(Command::READ, 2, 0, 4 << 20)).await;
        if structured {
            let chunks = client.chunks(2).await;
            assert_eq!(chunks.last().map(|chunk| chunk.kind), Some(0x8002));
            client.request(request(Command::READ, 3, 0, 1)).await;
            client.chunks(3).await;
        } else {
            assert_eq!(client.reply().await, (0, 2));
            let mut rest = Vec::new();
            soon(client.socket.read_to_end(&mut rest))
                .await
                .expect("an orderly end");
            assert!(!rest.is_empty() && rest.len() < 4 << 20);
            soon(client.session).await.expect("no panic");
        }
    }
}

#[tokio::test]
async fn an_error_in_the_first_slices_is_answered() {
    let server = Server::with(&small());
    let mut client = server.client(false).await;
    let data = pattern(0, LENGTH);
    client.write(1, 0, &data).await;
    for good in 0..4 {
        let query = format!("class session:slice after {good} oneshot error EIO");
        server
            .context
            .faults
            .set_points(&query)
            .expect("a good query");
        client.request(request(Command::READ, 2, 0, 4 << 20)).await;
        assert_eq!(client.reply().await, (5, 2), "{good}");
        server.context.faults.reset_points();
    }
    assert!(client.read(3, 0, 4 << 20).await == data[..4 << 20]);
}

#[tokio::test]
async fn an_error_behind_a_chunk_that_promised_all_is_a_chunk() {
    let server = Server::with(&small());
    let mut client = server.client(true).await;
    client.write(1, 0, &pattern(0, LENGTH)).await;
    server
        .context
        .faults
        .set_points("class session:slice after 3 oneshot error EIO")
        .expect("a good query");
    let flags = CommandFlags::DF;
    let read = request(Command::READ, 2, 0, 4 << 20);
    client.request(Request { flags, ..read }).await;
    let chunks = client.chunks(2).await;
    let kinds: Vec<_> = chunks.iter().map(|chunk| chunk.kind).collect();
    assert_eq!(kinds, [1, 0x8002]);
    let bad = usize::try_from(error_offset(&chunks[1])).unwrap();
    let data = &chunks[0].data[8..];
    assert!(bad > 0 && bad < data.len());
    assert!(data[..bad] == pattern(0, bad) && data[bad..].iter().all(|byte| *byte == 0));
}

/// Where an error chunk says that the data ends.
fn error_offset(chunk: &Chunk) -> u64 {
    assert_eq!(chunk.kind, 0x8002);
    u64::from_be_bytes(chunk.data[chunk.data.len() - 8..].try_into().unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_header_does_not_wait_for_slices_for_which_there_is_no_memory() {
    const SLICE: usize = 32 << 10;
    let server = Server::with(&Setup {
        cache_bytes: 1 << 20,
        ..Setup::default()
    });
    let mut client = server.client(false).await;
    let data = pattern(0, 4 * SLICE);
    assert_eq!(client.write(1, 0, &data).await, 0);
    let cache = &server.cache;
    soon(cache.drop_clean()).await.expect("a good store");
    assert_eq!(cache.slice_at(0, u64::MAX), SLICE);
    let context = &server
        .context
        .faults
        .context(weir_faults::RequestKinds::READ);
    let mut there = Vec::new();
    for at in [0, SLICE, 2 * SLICE] {
        let pages = soon(cache.read(context, at as u64, SLICE)).await;
        there.push(pages.expect("a good store"));
    }
    // Everything else is in use for as long as the test lasts.
    let mut hoard = Vec::new();
    let mut at = 1 << 20;
    loop {
        let read = cache.read(context, at, 4096);
        let Ok(page) = tokio::time::timeout(Duration::from_millis(1), read).await else {
            break;
        };
        hoard.push(page.expect("a good store"));
        at += 4096;
    }
    drop(there);
    // Three slices are there, and pinned if they are kept; the fourth can only get their memory.
    assert_eq!(cache.pool().free_frames(), 0);
    assert!(client.read(2, 0, u32::try_from(4 * SLICE).unwrap()).await == data);
    drop(hoard);
}
