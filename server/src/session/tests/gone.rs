//! Clients that go without a word: whatever they had asked for and has not begun never begins.
//!
//! Each test keeps requests waiting for something else, lets the client go, and sees the session end *meanwhile*. It
//! then removes the obstacle and looks at the device. Beside it is the opposite: what a client that said goodbye had
//! asked for is done.

use super::*;

/// Requests beyond which a session takes no more.
const LIMIT: u64 = crate::limits::REQUESTS_IN_FLIGHT_MAX as u64;
const REGION: u64 = 64 << 20;
const PAGE: u64 = weir_cache::PAGE_BYTES;
const PAGE_SIZE: usize = weir_cache::PAGE_SIZE;

/// A WRITE of `byte`s.
fn write(cookie: u64, offset: u64, length: u32, byte: u8) -> Vec<u8> {
    let mut bytes = request(Command::WRITE, cookie, offset, length)
        .encode()
        .to_vec();
    bytes.resize(bytes.len() + length as usize, byte);
    bytes
}

/// As many FLUSHes as a session takes.
fn limit_of_flushes() -> Vec<u8> {
    (0..LIMIT)
        .flat_map(|cookie| request(Command::FLUSH, cookie, 0, 0).encode())
        .collect()
}

fn goodbye() -> [u8; Request::SIZE] {
    request(Command::DISC, 0, 0, 0).encode()
}

impl Server {
    fn rule(&self, rule: &str) {
        self.context.faults.add_rule(rule).expect("a good rule");
    }

    fn points(&self, query: &str) {
        let faults = &self.context.faults;
        faults.set_points(query).expect("a good query");
    }

    async fn paused(&self, query: &str) {
        soon(self.context.faults.paused(query))
            .await
            .expect("a good query");
    }

    /// Nothing is in the way any more, and what had begun is over.
    async fn clear_the_way(&self) {
        self.context.faults.clear_rules();
        self.context.faults.reset_points();
        let context = &self
            .context
            .faults
            .context(weir_faults::RequestKinds::FLUSH);
        soon(self.cache.flush(context)).await.expect("a good store");
    }

    /// A device that begins with ones, and a client.
    async fn with_ones(setup: &Setup) -> (Self, Client) {
        let server = Self::with(setup);
        let context = &server
            .context
            .faults
            .context(weir_faults::RequestKinds::WRITE);
        for offset in [0, setup.size / PAGE * PAGE - PAGE] {
            let mut payload = server.cache.payload(offset, PAGE_SIZE).await;
            payload.copy_from(&[1; PAGE_SIZE]);
            let written = server.cache.write(context, payload).await;
            written.expect("a good store");
        }
        let client = server.client(false).await;
        (server, client)
    }

    async fn byte_at(&self, offset: u64) -> u8 {
        self.client(false).await.read(1, offset, 1).await[0]
    }
}

impl Client {
    /// The session has received so many bytes.
    async fn until_received(&self, server: &Server, bytes: usize) {
        let received = || server.context.connections.list()[0].counts.received;
        let all = async {
            while received() < bytes as u64 {
                tokio::task::yield_now().await;
            }
        };
        soon(all).await;
    }

    /// Closes without a word; the session must end by itself.
    async fn vanish(self) {
        drop(self.socket);
        soon(self.session).await.expect("a session never panics");
    }
}

/// Each change of the first page, with its name in rules.
fn changes() -> [(&'static str, Vec<u8>); 3] {
    let page = u32::try_from(PAGE).unwrap();
    [
        ("write", write(7, 0, page, 9)),
        ("trim", request(Command::TRIM, 7, 0, page).encode().to_vec()),
        (
            "zero",
            request(Command::WRITE_ZEROES, 7, 0, page).encode().to_vec(),
        ),
    ]
}

#[tokio::test]
async fn nothing_that_waits_for_the_sessions_limit_begins() {
    for (name, change) in changes() {
        let (server, mut client) = Server::with_ones(&Setup::default()).await;
        server.rule("flush hang");
        let bytes = [limit_of_flushes(), change].concat();
        client.send(&bytes).await;
        client.until_received(&server, bytes.len()).await;
        client.vanish().await;
        server.clear_the_way().await;
        assert_eq!(server.byte_at(0).await, 1, "{name}");
    }
}

#[tokio::test]
async fn nothing_that_waits_for_a_rule_begins() {
    for (name, change) in changes() {
        // With and without so many requests beside it that the session takes no more.
        for beside in [Vec::new(), limit_of_flushes()] {
            let (server, mut client) = Server::with_ones(&Setup::default()).await;
            server.rule(&format!("{name} hang"));
            server.rule("flush hang");
            let bytes = [change.clone(), beside].concat();
            client.send(&bytes).await;
            client.until_received(&server, bytes.len()).await;
            client.vanish().await;
            server.clear_the_way().await;
            assert_eq!(server.byte_at(0).await, 1, "{name}");
        }
    }
}

#[tokio::test]
async fn nothing_that_waits_for_a_frozen_device_begins() {
    for (name, change) in changes() {
        let server = Server::new();
        let device = server.context.faults.add_device("");
        let mut client = server.client(false).await;
        assert_eq!(client.write(1, 0, &[1; PAGE_SIZE]).await, 0);
        device.freeze();
        let bytes = [change, limit_of_flushes()].concat();
        client.send(&bytes).await;
        client
            .until_received(&server, PAGE_SIZE + 28 + bytes.len())
            .await;
        client.vanish().await;
        device.thaw();
        server.clear_the_way().await;
        assert_eq!(server.byte_at(0).await, 1, "{name}");
    }
}

#[tokio::test]
async fn nothing_that_waits_for_memory_begins() {
    let setup = Setup {
        cache_bytes: 1 << 20,
        ..Setup::default()
    };
    let (server, mut client) = Server::with_ones(&setup).await;
    let hoard = server.hoard();
    let bytes = write(7, 0, 64 << 10, 9);
    client.send(&bytes).await;
    client.until_received(&server, bytes.len()).await;
    client.vanish().await;
    drop(hoard);
    server.clear_the_way().await;
    assert_eq!(server.byte_at(0).await, 1);
}

#[tokio::test]
async fn no_slice_of_a_write_begins_that_had_not() {
    let setup = Setup {
        mode: CacheMode::Writethrough,
        ..Setup::default()
    };
    let (server, mut client) = Server::with_ones(&setup).await;
    // So many requests that the session takes no more of the payload.
    server.points("class cache:write:begin pause");
    let mut bytes = write(7, 0, 5 << 20, 9);
    bytes.truncate((4 << 20) + 100_000);
    client.send(&bytes).await;
    let slices = "class cache:write:begin";
    soon(server.context.faults.paused_at_least(slices, 4))
        .await
        .expect("a good query");
    client.vanish().await;
    server.clear_the_way().await;
    for offset in [0, 1 << 20, 2 << 20, 3 << 20, 4 << 20] {
        assert_eq!(server.byte_at(offset).await, u8::from(offset == 0));
    }
}

#[tokio::test]
async fn no_region_of_a_change_begins_that_had_not() {
    for command in [Command::TRIM, Command::WRITE_ZEROES] {
        let setup = Setup {
            size: 3 * REGION,
            ..Setup::default()
        };
        let (server, mut client) = Server::with_ones(&setup).await;
        server.rule("flush hang");
        server.points("class cache:shoot_down pause");
        let length = u32::try_from(setup.size).unwrap();
        let change = request(command, 7, 0, length).encode().to_vec();
        client.send(&[change, limit_of_flushes()].concat()).await;
        server.paused("class cache:shoot_down").await;
        client.vanish().await;
        server.clear_the_way().await;
        assert_eq!(server.byte_at(0).await, 0, "it had begun: {command:?}");
        assert_eq!(server.byte_at(setup.size - 1).await, 1, "{command:?}");
    }
}

#[tokio::test]
async fn nothing_begins_that_comes_together_with_the_end() {
    for (name, change) in changes() {
        let (server, client) = Server::with_ones(&Setup::default()).await;
        // The session has no turn in between.
        let sent = client.socket.try_write(&change).expect("there is room");
        assert_eq!(sent, change.len());
        client.vanish().await;
        server.clear_the_way().await;
        assert_eq!(server.byte_at(0).await, 1, "{name}");
    }
}

/// More requests than a session takes at a time: bytes `9`, each in a page of its own.
fn many_writes() -> Vec<u8> {
    (0..LIMIT + 50)
        .flat_map(|index| write(index, index * PAGE, 8, 9))
        .collect()
}

impl Server {
    async fn assert_many_written(&self, byte: u8) {
        for index in [0, LIMIT - 1, LIMIT, LIMIT + 49] {
            assert_eq!(self.byte_at(index * PAGE).await, byte, "{index}");
        }
    }
}

#[tokio::test]
async fn who_said_goodbye_is_owed_all_though_no_reply_can_be_sent() {
    let server = Server::new();
    let client = server.client(false).await;
    let bytes = [&many_writes()[..], &goodbye()].concat();
    let sent = client.socket.try_write(&bytes).expect("there is room");
    assert_eq!(sent, bytes.len());
    client.vanish().await;
    server.assert_many_written(9).await;
}

#[tokio::test]
async fn a_goodbye_is_seen_behind_a_payload_that_waits_for_memory() {
    let setup = Setup {
        cache_bytes: 1 << 20,
        ..Setup::default()
    };
    let (server, mut client) = Server::with_ones(&setup).await;
    let hoard = server.hoard();
    let bytes = [&write(7, 0, 64 << 10, 9)[..], &goodbye()].concat();
    client.send(&bytes).await;
    client.until_received(&server, bytes.len()).await;
    drop(client.socket);
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!client.session.is_finished());
    drop(hoard);
    soon(client.session).await.expect("no panic");
    assert_eq!(server.byte_at(0).await, 9);
}

#[tokio::test]
async fn a_goodbye_is_seen_behind_what_waits_for_the_limit() {
    for goodbye in [&[][..], &goodbye()] {
        let server = Server::new();
        let mut client = server.client(false).await;
        server.rule("flush hang");
        let flushes = limit_of_flushes();
        client.send(&flushes).await;
        client.until_received(&server, flushes.len()).await;
        // This stays in the socket.
        client.send(&[&many_writes()[..], goodbye].concat()).await;
        drop(client.socket);
        if goodbye.is_empty() {
            soon(client.session).await.expect("no panic");
            server.clear_the_way().await;
            server.assert_many_written(0).await;
        } else {
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            assert!(!client.session.is_finished());
            server.context.faults.clear_rules();
            soon(client.session).await.expect("no panic");
            server.assert_many_written(9).await;
        }
    }
}

#[tokio::test]
async fn nothing_begins_after_an_end_that_the_server_makes() {
    let server = Server::new();
    // Killed.
    server.rule("write hang");
    let mut client = server.client(false).await;
    let change = write(7, 0, 512, 9);
    client.send(&change).await;
    client.until_received(&server, change.len()).await;
    let open = server.context.connections.list();
    assert!(server.context.connections.kill(open[0].id));
    client.expect_over().await;
    // Dropped by a rule.
    server.rule("read drop");
    let mut client = server.client(false).await;
    let read = request(Command::READ, 1, 0, 512).encode();
    client.send(&[&change[..], &read, &change].concat()).await;
    client.expect_over().await;
    // Out of step.
    let mut client = server.client(false).await;
    client
        .send(&[&change[..], &garbage(), &change].concat())
        .await;
    client.expect_over().await;
    server.clear_the_way().await;
    assert_eq!(server.byte_at(0).await, 0);
}

#[tokio::test(start_paused = true)]
async fn nothing_begins_after_a_client_has_stalled() {
    let (server, mut client) = Server::with_ones(&Setup::default()).await;
    server.rule("write hang");
    let reads = (0..40).flat_map(|cookie| request(Command::READ, cookie, 0, 1 << 20).encode());
    let bytes: Vec<_> = write(7, 0, 512, 9).into_iter().chain(reads).collect();
    client.send(&bytes).await;
    client.session.await.expect("no panic");
    drop(client.socket);
    server.clear_the_way().await;
    assert_eq!(server.byte_at(0).await, 1);
}
