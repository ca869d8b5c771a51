//! Each command, small and valid; refusals.

use super::*;

fn flagged(request: Request, flags: CommandFlags) -> Request {
    Request { flags, ..request }
}

#[tokio::test]
async fn what_is_written_is_read() {
    let server = Server::new();
    let mut client = server.client(false).await;
    for (offset, length) in [
        (0, 1),
        (4095, 2),
        (4096, 4096),
        (10_000, 30_000),
        (65_536, 131_072),
        (70_001, 500_001),
    ] {
        let data = pattern(offset, length);
        assert_eq!(client.write(1, offset, &data).await, 0);
        assert!(
            client.read(2, offset, u32::try_from(length).unwrap()).await == data,
            "{offset}+{length}"
        );
    }
}

#[tokio::test]
async fn one_byte_at_a_time_is_the_same() {
    let server = Server::new();
    let mut client = server.client(false).await;
    let data = pattern(5, 300);
    let mut bytes = request(Command::WRITE, 7, 5, 300).encode().to_vec();
    bytes.extend(&data);
    bytes.extend(request(Command::READ, 8, 5, 300).encode());
    for byte in bytes {
        client.send(&[byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(client.reply().await, (0, 7));
    assert_eq!(client.reply().await, (0, 8));
    assert_eq!(client.take(300).await, data);
}

#[tokio::test]
async fn a_burst_is_answered_completely() {
    let server = Server::new();
    let mut client = server.client(false).await;
    let mut burst = Vec::new();
    for index in 0..1000_u64 {
        burst.extend(request(Command::WRITE, index, index * 512, 512).encode());
        burst.extend(pattern(index * 512, 512));
    }
    let (mut from, mut to) = client.socket.split();
    let mut replies = vec![0; 1000 * 16];
    let (sent, received) =
        soon(async { tokio::join!(to.write_all(&burst), from.read_exact(&mut replies)) }).await;
    sent.expect("the server reads");
    received.expect("the server answers");
    let mut cookies: Vec<_> = replies
        .chunks(16)
        .map(|reply| u64::from_be_bytes(reply[8..].try_into().unwrap()))
        .collect();
    cookies.sort_unstable();
    assert!(cookies.into_iter().eq(0..1000));
    assert!(client.read(1, 0, 512_000).await == pattern(0, 512_000));
}

#[tokio::test]
async fn refusals_carry_the_protocols_errors() {
    let server = Server::new();
    let mut client = server.client(false).await;
    let fua = CommandFlags::FUA;
    for (request, error) in [
        (request(Command::READ, 1, SIZE, 1), 22),
        (request(Command::READ, 2, u64::MAX, 2), 22),
        (request(Command::TRIM, 3, SIZE - 1, 2), 22),
        (request(Command::WRITE_ZEROES, 4, SIZE - 1, 2), 28),
        (request(Command::CACHE, 5, SIZE, 1), 22),
        (request(Command(99), 6, 0, 0), 22),
        (
            flagged(request(Command::READ, 7, 0, 1), CommandFlags(0x8000)),
            22,
        ),
        (request(Command::BLOCK_STATUS, 8, 0, 512), 22),
        (flagged(request(Command::READ, 9, 0, 0), fua), 0),
        (flagged(request(Command::FLUSH, 10, 0, 0), fua), 0),
        (request(Command::TRIM, 11, 0, 0), 0),
        (request(Command::WRITE, 12, 0, 0), 0),
        (flagged(request(Command::WRITE_ZEROES, 13, 0, 4096), fua), 0),
        (request(Command::CACHE, 14, 0, 65_536), 0),
    ] {
        client.request(request).await;
        assert_eq!(client.reply().await, (error, request.cookie), "{request:?}");
    }
}

#[tokio::test]
async fn a_refused_writes_payload_is_drained() {
    let server = Server::with(&Setup {
        read_only: true,
        ..Setup::default()
    });
    let mut client = server.client(false).await;
    for (cookie, offset, length) in [(1, 0, 512), (2, 0, 100_000), (3, 0, 5 << 20)] {
        assert_eq!(
            client.write(cookie, offset, &vec![0x25; length]).await,
            1,
            "{length}"
        );
    }
    let server = Server::new();
    let mut client = server.client(false).await;
    assert_eq!(
        client.write(4, SIZE - 100_000, &vec![0x60; 100_001]).await,
        28
    );
    assert_eq!(client.write(5, u64::MAX - 5, &[0x60; 10]).await, 28);
    assert_eq!(client.read(6, 0, 512).await, [0; 512]);
}

#[tokio::test]
async fn zeroes_apply() {
    let server = Server::new();
    let mut client = server.client(false).await;
    client.write(1, 0, &pattern(0, 100_000)).await;
    client
        .request(request(Command::WRITE_ZEROES, 2, 5000, 50_000))
        .await;
    assert_eq!(client.reply().await, (0, 2));
    let mut expected = pattern(0, 100_000);
    expected[5000..55_000].fill(0);
    assert!(client.read(3, 0, 100_000).await == expected);
}

#[tokio::test]
async fn structured_reads_say_where_zeroes_are() {
    let server = Server::new();
    let mut client = server.client(true).await;
    client.write(1, 8192, &pattern(8192, 4096)).await;
    client
        .request(request(Command::READ, 2, 4000, 12_480))
        .await;
    let mut seen = vec![0xee; 12_480];
    for chunk in client.chunks(2).await {
        let at = usize::try_from(u64::from_be_bytes(chunk.data[..8].try_into().unwrap())).unwrap()
            - 4000;
        match chunk.kind {
            1 => seen[at..at + chunk.data.len() - 8].copy_from_slice(&chunk.data[8..]),
            2 => seen[at..at + u32::from_be_bytes(chunk.data[8..].try_into().unwrap()) as usize]
                .fill(0),
            other => panic!("chunk type {other}"),
        }
    }
    let mut expected = vec![0; 12_480];
    expected[4192..8288].copy_from_slice(&pattern(8192, 4096));
    assert!(seen == expected);
    client
        .request(flagged(
            request(Command::READ, 4, 4096, 8192),
            CommandFlags::DF,
        ))
        .await;
    let chunks = client.chunks(4).await;
    assert_eq!(
        (chunks.len(), chunks[0].kind, chunks[0].data.len()),
        (1, 1, 8 + 8192)
    );
}

#[tokio::test]
async fn structured_errors_and_empty_reads_are_chunks() {
    let server = Server::new();
    let mut client = server.client(true).await;
    client.request(request(Command::READ, 1, SIZE, 1)).await;
    let chunks = client.chunks(1).await;
    assert_eq!((chunks.len(), chunks[0].kind), (1, 0x8001));
    assert_eq!(chunks[0].data[..4], 22_u32.to_be_bytes());
    client.request(request(Command::READ, 2, 0, 0)).await;
    let chunks = client.chunks(2).await;
    assert_eq!((chunks.len(), chunks[0].kind), (1, 0));
}

#[tokio::test]
async fn block_status_has_a_chunk_per_context() {
    let server = Server::new();
    let mut client = server.client(true).await;
    client.write(1, 0, &pattern(0, 8192)).await;
    client
        .request(request(Command::BLOCK_STATUS, 2, 0, 1 << 20))
        .await;
    let chunks = client.chunks(2).await;
    assert_eq!(chunks.len(), 2);
    for (chunk, id) in chunks.iter().zip([1_u32, 2]) {
        assert_eq!((chunk.kind, &chunk.data[..4]), (5, &id.to_be_bytes()[..]));
        let lengths = chunk.data[4..]
            .chunks(8)
            .map(|extent| u32::from_be_bytes(extent[..4].try_into().unwrap()));
        let lengths: Vec<_> = lengths.collect();
        assert!(lengths.iter().all(|length| *length > 0) && lengths.iter().sum::<u32>() <= 1 << 20);
    }
    // Dirty cache counts as allocated, and is dirty.
    assert_eq!(chunks[0].data[8..12], [0, 0, 0, 0]);
    assert_eq!(chunks[1].data[8..12], [0, 0, 0, 3]);
    client
        .request(flagged(
            request(Command::BLOCK_STATUS, 3, 0, 1 << 20),
            CommandFlags::REQ_ONE,
        ))
        .await;
    assert!(
        client
            .chunks(3)
            .await
            .iter()
            .all(|chunk| chunk.data.len() == 12)
    );
}

#[tokio::test]
async fn counts_reach_the_table() {
    let server = Server::new();
    let mut client = server.client(false).await;
    client.write(1, 0, &[1; 4096]).await;
    client.read(2, 0, 512).await;
    client.request(request(Command::READ, 3, SIZE, 1)).await;
    client.reply().await;
    client.request(request(Command::DISC, 4, 0, 0)).await;
    client.expect_over().await;
    assert!(server.context.connections.is_empty());
    let counts = server.context.connections.export_counts("");
    assert_eq!((counts.requests(), counts.errors()), (3, 1));
    assert_eq!(counts.command(Command::WRITE).bytes, 4096);
    assert_eq!(counts.command(Command::READ).latency.iter().sum::<u64>(), 2);
}
