//! Beginnings and ends of connections.

use super::super::SHUTDOWN_GRACE;
use super::*;

/// A flush that waits until the points are reset.
async fn stuck_flush(server: &Server, client: &mut Client) {
    server
        .context
        .faults
        .set_points("class session:operate pause")
        .expect("a good query");
    client.request(request(Command::FLUSH, 1, 0, 0)).await;
    soon(server.context.faults.paused("class session:operate"))
        .await
        .expect("a good query");
}

#[tokio::test]
async fn disconnecting_waits_for_what_is_outstanding() {
    let server = Server::new();
    let mut client = server.client(false).await;
    stuck_flush(&server, &mut client).await;
    client.request(request(Command::DISC, 2, 0, 0)).await;
    client.request(request(Command::FLUSH, 3, 0, 0)).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!client.session.is_finished());
    server.context.faults.reset_points();
    assert_eq!(client.reply().await, (0, 1));
    client.expect_over().await;
}

/// Waits until the session has received `bytes` since the connection began.
async fn received(server: &Server, bytes: u64) {
    soon(async {
        while server.context.connections.list()[0].counts.received < bytes {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// What the session has received so far.
fn received_now(server: &Server) -> u64 {
    server.context.connections.list()[0].counts.received
}

/// Reads the rest and the end of the stream, which must not be a reset.
async fn expect_end(mut client: Client) {
    let mut rest = Vec::new();
    soon(client.socket.read_to_end(&mut rest))
        .await
        .expect("the end of the stream, and no reset");
    assert_eq!(rest, b"", "more was sent");
    drop(client.socket);
    soon(client.session).await.expect("a session never panics");
}

/// Thirty-two requests, the first of which waits in the store: enough for each kind of request to be among them.
#[tokio::test]
async fn shutting_down_answers_all_that_was_received_and_nothing_after_it() {
    let server = Server::new();
    let mut client = server.client(false).await;
    stuck_flush(&server, &mut client).await;
    let before = received_now(&server);
    let mut bytes = Vec::new();
    for cookie in 2..=32 {
        match cookie % 3 {
            0 => {
                bytes.extend(request(Command::WRITE, cookie, 4096 * cookie, 512).encode());
                bytes.extend([7; 512]);
            }
            1 => bytes.extend(request(Command::FLUSH, cookie, 0, 0).encode()),
            _ => bytes.extend(request(Command::TRIM, cookie, 4096 * cookie, 4096).encode()),
        }
    }
    client.send(&bytes).await;
    received(&server, before + bytes.len() as u64).await;
    server.context.shutdown.cancel();
    for cookie in 33..=40 {
        client.request(request(Command::READ, cookie, 0, 512)).await;
    }
    server.context.faults.reset_points();
    let mut answered = std::collections::BTreeSet::new();
    for _ in 1..=32 {
        let (error, cookie) = client.reply().await;
        assert_eq!(error, 0, "request {cookie}");
        answered.insert(cookie);
    }
    assert!(answered.into_iter().eq(1..=32));
    expect_end(client).await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_at_once_when_the_server_shuts_down() {
    let server = Server::new();
    let mut client = server.client(false).await;
    assert_eq!(client.write(1, 0, &[1; 512]).await, 0);
    let start = tokio::time::Instant::now();
    server.context.shutdown.cancel();
    expect_end(client).await;
    assert!(start.elapsed() < SHUTDOWN_GRACE, "{:?}", start.elapsed());
}

/// Where a request may be cut: in its header, in a payload that is buffered, in one that goes into pages.
const CUTS: [(u32, usize); 3] = [(512, 20), (8192, 4000), (300_000, 100_000)];

#[tokio::test]
async fn a_request_that_had_begun_to_arrive_is_received_and_answered() {
    for (length, cut) in CUTS {
        let server = Server::new();
        let mut client = server.client(false).await;
        let before = received_now(&server);
        let mut bytes = request(Command::WRITE, 1, 0, length).encode().to_vec();
        bytes.extend(pattern(0, length as usize));
        client.send(&bytes[..cut]).await;
        received(&server, before + cut as u64).await;
        server.context.shutdown.cancel();
        // Another request right behind it isn't taken.
        bytes.extend(request(Command::FLUSH, 2, 0, 0).encode());
        client.send(&bytes[cut..]).await;
        assert_eq!(client.reply().await, (0, 1), "a WRITE of {length} bytes");
        expect_end(client).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_never_completed_is_waited_for_within_a_limit() {
    for (length, cut) in CUTS {
        let server = Server::new();
        let mut client = server.client(false).await;
        assert_eq!(client.write(1, 0, &[1; 512]).await, 0);
        let before = received_now(&server);
        let mut bytes = request(Command::WRITE, 2, 0, length).encode().to_vec();
        bytes.extend(pattern(0, length as usize));
        client.send(&bytes[..cut]).await;
        received(&server, before + cut as u64).await;
        let start = tokio::time::Instant::now();
        server.context.shutdown.cancel();
        expect_end(client).await;
        let taken = start.elapsed();
        assert!(
            taken >= SHUTDOWN_GRACE && taken < 3 * SHUTDOWN_GRACE,
            "{taken:?}"
        );
    }
}

/// It is the server's turn, however long that takes.
#[tokio::test(start_paused = true)]
async fn a_received_write_that_waits_for_memory_is_answered() {
    let server = Server::with(&Setup {
        cache_bytes: 4 << 20,
        ..Setup::default()
    });
    let mut client = server.client(false).await;
    let hoard = server.hoard();
    let before = received_now(&server);
    let mut bytes = request(Command::WRITE, 1, 0, 100_000).encode().to_vec();
    bytes.extend(pattern(0, 100_000));
    client.send(&bytes).await;
    received(&server, before + bytes.len() as u64).await;
    server.context.shutdown.cancel();
    tokio::time::sleep(2 * SHUTDOWN_GRACE).await;
    drop(hoard);
    assert_eq!(client.reply().await, (0, 1));
    expect_end(client).await;
}

#[tokio::test]
async fn a_handshake_during_shutdown_is_refused() {
    let server = Server::new();
    let (socket, session) = server.connect();
    let mut client = Client {
        socket,
        session,
        structured: false,
    };
    client.take(18).await;
    server.context.shutdown.cancel();
    client.send(&3_u32.to_be_bytes()).await;
    client.send(&option(7, &[0; 6])).await;
    assert_eq!(client.option_reply().await, (1 << 31) | 7);
    client.expect_over().await;
}

#[tokio::test]
async fn a_killed_connection_ends_though_a_request_hangs() {
    let server = Server::new();
    let mut client = server.client(false).await;
    stuck_flush(&server, &mut client).await;
    let open = server.context.connections.list();
    assert_eq!((open.len(), open[0].export.as_deref()), (1, Some("")));
    // After a shutdown, too.
    server.context.shutdown.cancel();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!client.session.is_finished());
    assert!(server.context.connections.kill(open[0].id));
    assert!(!server.context.connections.kill(open[0].id + 1));
    client.expect_over().await;
    assert!(server.context.connections.is_empty());
}

#[tokio::test(start_paused = true)]
async fn silence_in_the_handshake_has_an_end() {
    let server = Server::new();
    let start = tokio::time::Instant::now();
    let (socket, session) = server.connect();
    session.await.expect("no panic");
    assert!(start.elapsed() < 2 * Timeouts::default().handshake);
    drop(socket);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_ends_if_that_is_wanted() {
    let timeouts = Timeouts {
        idle: Some(Duration::from_secs(5)),
        ..Timeouts::default()
    };
    let server = Server::with(&Setup {
        timeouts,
        ..Setup::default()
    });
    let client = server.client(false).await;
    let start = tokio::time::Instant::now();
    client.expect_over().await;
    assert!(start.elapsed() >= Duration::from_secs(4) && start.elapsed() < Duration::from_secs(8));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_reads_is_disconnected() {
    let server = Server::new();
    let mut client = server.client(false).await;
    client.write(1, 0, &pattern(0, 1 << 20)).await;
    let reads: Vec<u8> = (0..20)
        .flat_map(|cookie| request(Command::READ, cookie, 0, 1 << 20).encode())
        .collect();
    client.send(&reads).await;
    client.session.await.expect("no panic");
    drop(client.socket);
}

/// This is more than the socket holds: the client may take its time, up to the limit for writes.
#[tokio::test(start_paused = true)]
async fn shutting_down_waits_for_replies_that_the_client_has_not_taken() {
    const READS: u64 = 8;
    const READ_BYTES: u32 = 256 << 10;
    let server = Server::new();
    let mut client = server.client(false).await;
    let data = pattern(0, READ_BYTES as usize);
    assert_eq!(client.write(1, 0, &data).await, 0);
    let before = received_now(&server);
    let mut bytes = Vec::new();
    for cookie in 1..=READS {
        bytes.extend(request(Command::READ, cookie, 0, READ_BYTES).encode());
    }
    client.send(&bytes).await;
    received(&server, before + bytes.len() as u64).await;
    server.context.shutdown.cancel();
    tokio::time::sleep(4 * SHUTDOWN_GRACE).await;
    for cookie in 1..=READS {
        assert_eq!(client.reply().await, (0, cookie));
        assert!(client.take(READ_BYTES as usize).await == data);
    }
    expect_end(client).await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_being_closed_can_be_killed() {
    let server = Server::new();
    let mut client = server.client(false).await;
    let id = server.context.connections.list()[0].id;
    let start = tokio::time::Instant::now();
    server.context.shutdown.cancel();
    assert_eq!(
        soon(client.socket.read(&mut [0])).await.expect("the end"),
        0
    );
    // From here on the server waits for the client to end its half.
    assert!(server.context.connections.kill(id));
    soon(client.session).await.expect("a session never panics");
    assert!(start.elapsed() < SHUTDOWN_GRACE, "{:?}", start.elapsed());
}

/// This holds however much the client has sent, and though nothing has to be waited for.
#[tokio::test]
async fn a_killed_connection_is_served_no_longer() {
    const WRITES: u64 = 4000;
    let server = Server::new();
    let mut client = server.client(false).await;
    assert_eq!(client.write(0, 0, &[1; 512]).await, 0);
    let before = received_now(&server);
    let mut bytes = Vec::new();
    for cookie in 1..=WRITES {
        bytes.extend(request(Command::WRITE, cookie, 0, 1).encode());
        bytes.push(2);
    }
    client.send(&bytes).await;
    received(&server, before + bytes.len() as u64).await;
    let id = server.context.connections.list()[0].id;
    assert!(server.context.connections.kill(id));
    let mut answers = Vec::new();
    // A reset is an end as well.
    let _ = soon(client.socket.read_to_end(&mut answers)).await;
    soon(client.session).await.expect("a session never panics");
    let answered = answers.len() as u64 / 16;
    assert!(answered < WRITES / 2, "{answered} were answered");
}
