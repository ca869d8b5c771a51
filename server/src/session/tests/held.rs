//! What fault rules and frozen devices keep for clients beside the cache.

use super::*;
use crate::limits::{BYTES_IN_FLIGHT_MAX, HELD_BYTES_MAX};

const LENGTH: u32 = 4 << 20;
/// More connections than there is room for at their limits.
const CROWD: usize = HELD_BYTES_MAX / BYTES_IN_FLIGHT_MAX + 2;

/// With paused time: waits until nothing moves any more.
async fn idle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

fn large() -> Server {
    Server::with(&Setup {
        size: 64 << 20,
        ..Setup::default()
    })
}

impl Server {
    fn held(&self) -> usize {
        self.context
            .exports
            .get("")
            .expect("the only one")
            .held
            .bytes()
    }
}

/// A client that sends `requests` as far as they are taken, and takes no reply until it is told to.
struct Eager {
    client: Client,
    requests: Vec<u8>,
    sent: usize,
}

impl Eager {
    async fn new(server: &Server, requests: Vec<u8>) -> Self {
        Self {
            client: server.client(false).await,
            requests,
            sent: 0,
        }
    }

    /// Sends what the socket takes at once; says whether it took anything.
    fn push(&mut self) -> bool {
        let before = self.sent;
        while let Ok(count @ 1..) = self.client.socket.try_write(&self.requests[self.sent..]) {
            self.sent += count;
        }
        self.sent > before
    }

    /// Sends the rest and takes a reply to each of `count` requests, which ask for `length` bytes.
    async fn finish(mut self, count: usize, length: usize) {
        let (mut reader, mut writer) = self.client.socket.split();
        let sending = async {
            let rest = &self.requests[self.sent..];
            soon(writer.write_all(rest)).await.expect("it goes on");
        };
        let taking = async {
            let mut reply = vec![0; 16 + length];
            for _ in 0..count {
                soon(reader.read_exact(&mut reply)).await.expect("a reply");
                assert_eq!(reply[4..8], [0; 4], "an error");
                assert!(reply[16..].iter().all(|byte| *byte == 0));
            }
        };
        futures_util::join!(sending, taking);
    }
}

/// As many clients as want more than there is room for, each with these requests.
async fn crowd_of(server: &Server, requests: &[u8]) -> Vec<Eager> {
    let mut crowd = Vec::new();
    for _ in 0..CROWD {
        crowd.push(Eager::new(server, requests.to_vec()).await);
    }
    crowd
}

/// Lets all of them send until the server takes no more.
async fn push_all(crowd: &mut [Eager]) {
    loop {
        let mut moved = false;
        for eager in &mut *crowd {
            moved |= eager.push();
        }
        idle().await;
        if !moved {
            return;
        }
    }
}

fn writes(count: usize) -> Vec<u8> {
    let mut one = request(Command::WRITE, 1, 0, LENGTH).encode().to_vec();
    one.resize(one.len() + LENGTH as usize, 7);
    one.repeat(count)
}

const PIPELINED: usize = 12;

#[tokio::test(start_paused = true)]
async fn payloads_that_a_rule_holds_are_within_the_connections_limit() {
    let server = large();
    server.context.faults.add_rule("write hang").expect("good");
    let mut crowd = [Eager::new(&server, writes(PIPELINED)).await];
    push_all(&mut crowd).await;
    let most = BYTES_IN_FLIGHT_MAX + LENGTH as usize;
    assert!(
        (BYTES_IN_FLIGHT_MAX..=most).contains(&server.held()),
        "{} bytes",
        server.held()
    );
    server.context.faults.clear_rules();
    for eager in crowd {
        eager.finish(PIPELINED, 0).await;
    }
    assert_eq!(server.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn payloads_that_a_freeze_holds_are_within_the_exports_limit() {
    let server = large();
    let device = server.context.faults.add_device("");
    let mut crowd = crowd_of(&server, &writes(PIPELINED)).await;
    device.freeze();
    push_all(&mut crowd).await;
    let taken: usize = crowd.iter().map(|eager| eager.sent).sum();
    assert_eq!(server.held(), HELD_BYTES_MAX);
    // This includes what lies in buffers and sockets.
    assert!(taken < HELD_BYTES_MAX + CROWD * (2 << 20), "{taken} bytes");
    device.thaw();
    for eager in crowd {
        eager.finish(PIPELINED, 0).await;
    }
    assert_eq!(server.held(), 0);
}

/// Clients beside them go on, and a client that leaves makes room.
#[tokio::test(start_paused = true)]
async fn the_limit_is_for_those_that_a_rule_holds() {
    let server = large();
    let rule = "write offset=0..4M hang";
    let id = server.context.faults.add_rule(rule).expect("good");
    let mut crowd = crowd_of(&server, &writes(PIPELINED)).await;
    push_all(&mut crowd).await;
    assert_eq!(server.held(), HELD_BYTES_MAX);
    let mut beside = server.client(false).await;
    assert_eq!(beside.write(1, 8 << 20, &[3; 1 << 20]).await, 0);
    assert!(beside.read(2, 8 << 20, 1 << 20).await == [3; 1 << 20]);
    // One that waits for room, and one that has some.
    drop(crowd.pop());
    drop(crowd.remove(0));
    push_all(&mut crowd).await;
    assert!(server.held() > HELD_BYTES_MAX - BYTES_IN_FLIGHT_MAX);
    // Killed, or stopped.
    for connection in server.context.connections.list().iter().take(2) {
        server.context.connections.kill(connection.id);
    }
    idle().await;
    server.context.faults.remove_rule(id).expect("it is there");
    idle().await;
    drop(crowd);
    idle().await;
    assert_eq!(server.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn data_that_a_rule_had_its_hands_on_is_within_the_exports_limit() {
    let server = large();
    server
        .context
        .faults
        .add_rule("read delay=1ms")
        .expect("good");
    let reads = |count: usize| {
        let one = request(Command::READ, 1, 0, LENGTH).encode();
        one.repeat(count)
    };
    let mut crowd = crowd_of(&server, &reads(PIPELINED)).await;
    push_all(&mut crowd).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    idle().await;
    assert_eq!(server.held(), HELD_BYTES_MAX);
    // They take turns: a client that takes its data makes room.
    let finishing = crowd
        .into_iter()
        .map(|eager| eager.finish(PIPELINED, LENGTH as usize));
    futures_util::future::join_all(finishing).await;
    assert_eq!(server.held(), 0);
}

/// Room for a payload that doesn't come is given to others.
#[tokio::test(start_paused = true)]
async fn who_announces_and_sends_nothing_is_let_go_if_others_want_the_room() {
    let server = large();
    server
        .context
        .faults
        .add_rule("write delay=1ms")
        .expect("good");
    let mut half = Vec::new();
    for _ in 0..HELD_BYTES_MAX / (64 << 20) {
        let mut client = server.client(false).await;
        client
            .request(request(Command::WRITE, 1, 0, 64 << 20))
            .await;
        half.push(client);
    }
    idle().await;
    assert_eq!(server.held(), HELD_BYTES_MAX);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(half.iter().all(|client| !client.session.is_finished()));
    let begun = tokio::time::Instant::now();
    let mut client = server.client(false).await;
    assert_eq!(client.write(1, 0, &[7; 100_000]).await, 0);
    assert!(begun.elapsed() < 3 * crate::limits::PACE_WINDOW);
}

#[tokio::test(start_paused = true)]
async fn what_a_rule_returned_comes_in_order_between_other_replies() {
    let server = large();
    let mut client = server.client(true).await;
    let data = pattern(0, 100_000);
    client.request(request(Command::WRITE, 1, 0, 100_000)).await;
    client.send(&data).await;
    assert_eq!(client.reply().await, (0, 1));
    server
        .context
        .faults
        .add_rule("read,status delay=1ms")
        .expect("good");
    for (cookie, offset, length) in [(2, 0, 1), (3, 5, 70_000), (4, 4096, 0), (5, 9, 90_000)] {
        let read = request(Command::READ, cookie, offset, length);
        client.request(read).await;
        let at = usize::try_from(offset).unwrap();
        let chunks = client.chunks(cookie).await;
        let sent: Vec<u8> = chunks
            .iter()
            .flat_map(|chunk| chunk.data.iter().skip(8).copied())
            .collect();
        assert!(sent == data[at..at + length as usize], "{cookie}");
    }
    let status = request(Command::BLOCK_STATUS, 6, 0, 1 << 20);
    client.request(status).await;
    assert_eq!(client.chunks(6).await.len(), 2);
    assert_eq!(server.held(), 0);
}

/// The reply waits behind a large reply's header, and moves with what waits there.
#[tokio::test]
async fn what_a_rule_returned_comes_behind_a_simple_reply_that_is_under_way() {
    const LONG: u32 = 3 << 20;
    let server = Server::with(&Setup {
        cache_bytes: 2 << 20,
        ..Setup::default()
    });
    let mut client = server.client(false).await;
    let data = pattern(0, 5 << 20);
    client.write(1, 0, &data).await;
    let rule = "read offset=0..4096 delay=1ms";
    server.context.faults.add_rule(rule).expect("good");
    let (offset, length) = (
        |cookie: u64| {
            if cookie.is_multiple_of(5) {
                8192
            } else {
                cookie
            }
        },
        |cookie: u64| {
            if cookie.is_multiple_of(5) {
                LONG
            } else {
                90_000
            }
        },
    );
    let burst: Vec<_> = (0..20)
        .flat_map(|cookie| request(Command::READ, cookie, offset(cookie), length(cookie)).encode())
        .collect();
    client.send(&burst).await;
    for _ in 0..20 {
        let (error, cookie) = client.reply().await;
        assert_eq!(error, 0);
        let (at, length) = (
            usize::try_from(offset(cookie)).unwrap(),
            length(cookie) as usize,
        );
        assert!(
            client.take(length).await == data[at..at + length],
            "{cookie}"
        );
    }
    assert_eq!(server.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn data_that_is_not_taken_is_within_the_connections_limit() {
    let server = large();
    let rule = "read delay=1ms";
    server.context.faults.add_rule(rule).expect("good");
    let reads = request(Command::READ, 1, 0, LENGTH).encode();
    let mut crowd = [Eager::new(&server, reads.repeat(3 * PIPELINED)).await];
    push_all(&mut crowd).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    idle().await;
    let most = BYTES_IN_FLIGHT_MAX + LENGTH as usize;
    assert!(server.held() <= most, "{} bytes", server.held());
    for eager in crowd {
        eager.finish(3 * PIPELINED, LENGTH as usize).await;
    }
    assert_eq!(server.held(), 0);
}

/// Room for data that its client doesn't take is given to others.
#[tokio::test(start_paused = true)]
async fn who_takes_none_of_its_data_is_let_go_if_others_want_the_room() {
    const MOST: u32 = 64 << 20;
    let server = large();
    let rule = "read delay=1ms";
    server.context.faults.add_rule(rule).expect("good");
    let mut lazy = Vec::new();
    for _ in 0..HELD_BYTES_MAX / MOST as usize {
        let mut client = server.client(false).await;
        client.request(request(Command::READ, 1, 0, MOST)).await;
        lazy.push(client);
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(lazy.iter().all(|client| !client.session.is_finished()));
    assert_eq!(server.held(), HELD_BYTES_MAX);
    let begun = tokio::time::Instant::now();
    let mut client = server.client(false).await;
    assert_eq!(client.read(1, 0, 4096).await, [0; 4096]);
    assert!(begun.elapsed() < crate::limits::WRITE_TIMEOUT / 4);
}

/// More than the slowest pace, and far too little for what is kept.
const TRICKLE: usize = 24 << 10;
const MOST: u32 = 64 << 20;

#[tokio::test(start_paused = true)]
async fn who_keeps_much_room_has_to_send_it_in_time_if_others_want_the_room() {
    let server = large();
    server
        .context
        .faults
        .add_rule("write delay=1ms")
        .expect("good");
    let mut slow = Vec::new();
    for _ in 0..HELD_BYTES_MAX / MOST as usize {
        let mut client = server.client(false).await;
        client.request(request(Command::WRITE, 1, 0, MOST)).await;
        slow.push(client);
    }
    idle().await;
    let mut client = server.client(false).await;
    let trickling = async {
        loop {
            for client in &mut slow {
                let _ = client.socket.write_all(&[7; TRICKLE]).await;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::select! {
        error = client.write(1, 0, &[7; 100_000]) => assert_eq!(error, 0),
        () = trickling => {}
    }
}

#[tokio::test(start_paused = true)]
async fn who_keeps_much_room_has_to_take_it_in_time_if_others_want_the_room() {
    let server = large();
    server
        .context
        .faults
        .add_rule("read delay=1ms")
        .expect("good");
    let mut slow = Vec::new();
    for _ in 0..HELD_BYTES_MAX / MOST as usize {
        let mut client = server.client(false).await;
        client.request(request(Command::READ, 1, 0, MOST)).await;
        slow.push(client);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut client = server.client(false).await;
    let trickling = async {
        let mut bytes = vec![0; 256 << 10];
        loop {
            for client in &mut slow {
                // The socket's contents come and go in larger pieces.
                let _ = client.socket.try_read(&mut bytes);
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::select! {
        data = client.read(1, 0, 4096) => assert_eq!(data, [0; 4096]),
        () = trickling => {}
    }
}

/// A client that is slow with something else isn't to blame for room that a hang keeps.
#[tokio::test(start_paused = true)]
async fn who_keeps_nothing_of_what_others_wait_for_is_not_let_go() {
    let server = large();
    let rule = "write offset=0..4M hang";
    server.context.faults.add_rule(rule).expect("good");
    let mut half = server.client(false).await;
    half.request(request(Command::WRITE, 1, 8 << 20, LENGTH))
        .await;
    let mut crowd = crowd_of(&server, &writes(PIPELINED)).await;
    push_all(&mut crowd).await;
    assert_eq!(server.held(), HELD_BYTES_MAX);
    tokio::time::sleep(Duration::from_secs(60)).await;
    half.send(&vec![3; LENGTH as usize]).await;
    assert_eq!(half.reply().await, (0, 1));
}

/// As above, for data on its way to clients.
#[tokio::test(start_paused = true)]
async fn who_pauses_while_others_wait_for_room_of_a_rule_is_not_let_go() {
    let server = large();
    let rule = "read offset=0..4096 delay=1ms";
    server.context.faults.add_rule(rule).expect("good");
    let mut pausing = server.client(false).await;
    pausing
        .request(request(Command::READ, 1, 8 << 20, LENGTH))
        .await;
    let mut others = Vec::new();
    for _ in 0..=HELD_BYTES_MAX / MOST as usize {
        let mut client = server.client(false).await;
        client.request(request(Command::READ, 1, 0, MOST)).await;
        others.push(client);
    }
    let mut bytes = vec![0; 256 << 10];
    for _ in 0..40 {
        tokio::time::sleep(Duration::from_millis(250)).await;
        for client in &mut others {
            for _ in 0..4 {
                let _ = client.socket.try_read(&mut bytes);
                idle().await;
            }
        }
    }
    assert_eq!(server.held(), HELD_BYTES_MAX, "others wait no more");
    assert!(!pausing.session.is_finished());
    assert_eq!(pausing.reply().await, (0, 1));
    pausing.take(LENGTH as usize).await;
}
