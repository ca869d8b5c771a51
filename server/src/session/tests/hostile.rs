//! Clients that break the rules.

use super::*;

#[tokio::test]
async fn replies_before_a_bad_magic_are_sent() {
    let server = Server::new();
    let mut client = server.client(false).await;
    let mut bytes = request(Command::WRITE, 1, 0, 0).encode().to_vec();
    bytes.extend(garbage());
    client.send(&bytes).await;
    assert_eq!(client.reply().await, (0, 1));
    client.expect_over().await;
}

#[tokio::test]
async fn a_client_that_dies_in_a_payload_changes_nothing() {
    for length in [4096, 1 << 20] {
        let server = Server::new();
        let mut client = server.client(false).await;
        let frames = server.cache.pool().free_frames();
        client.request(request(Command::WRITE, 1, 0, length)).await;
        client.send(&[7; 4000]).await;
        drop(client.socket);
        soon(client.session).await.expect("no panic");
        assert_eq!(server.cache.pool().free_frames(), frames);
        assert_eq!(server.client(false).await.read(2, 0, 512).await, [0; 512]);
    }
}

#[tokio::test]
async fn handshakes_end_badly_without_harm() {
    let server = Server::new();
    for bytes in [
        &b"GET / HTTP/1.0\r\n\r\n\r\n"[..],
        &[0xff; 200],
        &[0, 0, 0, 3, b'I'],
        &[],
    ] {
        let (mut socket, session) = server.connect();
        soon(socket.write_all(bytes)).await.expect("it fits");
        soon(socket.shutdown()).await.expect("still open");
        let mut rest = Vec::new();
        let _ = soon(socket.read_to_end(&mut rest)).await;
        soon(session).await.expect("no panic");
    }
    assert!(server.context.connections.is_empty());
}

#[tokio::test]
async fn replies_that_are_not_read_pin_a_bounded_part_of_the_cache() {
    let server = Server::new();
    let mut client = server.client(false).await;
    client.write(1, 0, &pattern(0, 1 << 20)).await;
    // More than any socket holds.
    let reads: Vec<u8> = (0..100)
        .flat_map(|cookie| request(Command::READ, cookie, 0, 1 << 20).encode())
        .collect();
    client.send(&reads).await;
    for cookie in 0..100 {
        assert_eq!(client.reply().await, (0, cookie));
        client.take(1 << 20).await;
    }
}
