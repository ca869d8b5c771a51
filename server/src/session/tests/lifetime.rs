//! Beginnings and ends of connections.

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

#[tokio::test]
async fn shutting_down_answers_what_is_in_flight_and_refuses_the_rest() {
    let server = Server::new();
    let mut client = server.client(false).await;
    stuck_flush(&server, &mut client).await;
    server.context.shutdown.cancel();
    assert_eq!(client.write(2, 0, &[1; 100_000]).await, 108);
    client.request(request(Command::READ, 3, 0, 512)).await;
    assert_eq!(client.reply().await, (108, 3));
    server.context.faults.reset_points();
    assert_eq!(client.reply().await, (0, 1));
    client.expect_over().await;
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
    assert_eq!(client.write(2, 0, &[1; 10]).await, 108);
    assert!(server.context.connections.kill(open[0].id));
    assert!(!server.context.connections.kill(open[0].id + 1));
    client.expect_over().await;
    assert!(server.context.connections.is_empty());
}

#[tokio::test(start_paused = true)]
async fn silence_in_the_handshake_has_an_end() {
    let server = Server::new();
    let (socket, session) = server.connect();
    session.await.expect("no panic");
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
