//! Fault rules on requests.

use super::*;

async fn with_rule(rule: &str) -> (Server, Client) {
    let server = Server::new();
    let client = server.client(false).await;
    server.context.faults.add_rule(rule).expect("a good rule");
    (server, client)
}

#[tokio::test]
async fn an_error_is_answered_and_nothing_is_stored() {
    let (server, mut client) = with_rule("write nth=2 error=EIO").await;
    assert_eq!(client.write(1, 0, &[1; 512]).await, 0);
    assert_eq!(client.write(2, 0, &[2; 512]).await, 5);
    assert_eq!(client.read(3, 0, 512).await, [1; 512]);
    server.context.faults.clear_rules();
    server
        .context
        .faults
        .add_rule("write error=EIO after")
        .expect("a good rule");
    assert_eq!(client.write(4, 0, &[3; 512]).await, 5);
    assert_eq!(client.read(5, 0, 512).await, [3; 512]);
}

#[tokio::test]
async fn stored_data_suffers_as_told() {
    for (rule, expected) in [
        ("write lose", [0, 0, 0]),
        ("write tear=1k", [9, 0, 0]),
        ("write misdirect=4k", [0, 0, 9]),
    ] {
        let (_server, mut client) = with_rule(rule).await;
        assert_eq!(client.write(1, 0, &[9; 2048]).await, 0);
        let data = client.read(2, 0, 8192).await;
        assert_eq!([data[0], data[1024], data[4096]], expected, "{rule}");
    }
}

#[tokio::test]
async fn exactly_so_many_bits_flip() {
    let (_server, mut client) = with_rule("read corrupt=bits:3").await;
    let data = client.read(1, 0, 100_000).await;
    assert_eq!(data.iter().map(|byte| byte.count_ones()).sum::<u32>(), 3);
}

#[tokio::test]
async fn a_wrong_cookie_is_sent() {
    let (_server, mut client) = with_rule("flush garbage").await;
    client.request(request(Command::FLUSH, 77, 0, 0)).await;
    let (error, cookie) = client.reply().await;
    assert!(error == 0 && cookie != 77);
}

#[tokio::test]
async fn a_dropped_connection_is_closed() {
    let (_server, mut client) = with_rule("read drop").await;
    client.request(request(Command::READ, 1, 0, 512)).await;
    client.expect_over().await;
    let (_server, mut client) = with_rule("read drop=mid").await;
    client.request(request(Command::READ, 1, 0, 512)).await;
    client.take(usize::midpoint(16, 512)).await;
    client.expect_over().await;
}

#[tokio::test]
async fn a_hang_ends_with_its_rule() {
    let (server, mut client) = with_rule("flush hang").await;
    client.request(request(Command::FLUSH, 1, 0, 0)).await;
    // What comes behind it is served.
    assert_eq!(client.write(2, 0, &[1; 512]).await, 0);
    server.context.faults.clear_rules();
    assert_eq!(client.reply().await, (0, 1));
}

#[tokio::test]
async fn connections_can_be_refused() {
    let server = Server::new();
    server
        .context
        .faults
        .add_rule("connect drop")
        .expect("a good rule");
    let (socket, session) = server.connect();
    let mut client = Client {
        socket,
        session,
        structured: false,
    };
    let mut rest = Vec::new();
    let _ = soon(client.socket.read_to_end(&mut rest)).await;
    assert!(rest.is_empty());
    client.expect_over().await;
}
