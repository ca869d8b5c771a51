//! What one client may ask for at a time: the rest stays in its socket.

use super::*;
use crate::limits::{BYTES_IN_FLIGHT_MAX, REQUESTS_IN_FLIGHT_MAX};

/// With paused time: waits until nothing moves any more.
async fn idle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// Whether a request is stopped at `point` when nothing moves any more.
async fn is_stopped(server: &Server, point: &str) -> bool {
    let class = format!("class {point}");
    let stopped = server.context.faults.paused(&class);
    tokio::time::timeout(Duration::from_millis(1), stopped)
        .await
        .is_ok()
}

#[tokio::test(start_paused = true)]
async fn no_more_requests_are_taken_than_may_be_in_flight() {
    let server = Server::new();
    let mut client = server.client(false).await;
    let faults = &server.context.faults;
    faults
        .set_points("class session:operate pause")
        .expect("a good query");
    let count = REQUESTS_IN_FLIGHT_MAX as u64 + 50;
    let requests: Vec<u8> = (1..=count)
        .flat_map(|cookie| request(Command::FLUSH, cookie, 0, 0).encode())
        .collect();
    client.send(&requests).await;
    idle().await;
    let stopped = faults.paused("class session:operate").await;
    assert_eq!(stopped.expect("a good query"), REQUESTS_IN_FLIGHT_MAX);
    faults.reset_points();
    // The other clients have their turn.
    for _ in 1..=count {
        assert_eq!(client.reply().await.0, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_bytes_are_read_than_may_be_in_flight() {
    const READ_BYTES: u32 = 1 << 20;
    let reads = (BYTES_IN_FLIGHT_MAX / READ_BYTES as usize) as u64;
    for (reads, taken) in [(reads - 1, true), (reads, false)] {
        let server = Server::new();
        let mut client = server.client(false).await;
        for point in ["cache:fill:submit", "session:operate"] {
            let pause = format!("class {point} pause");
            server
                .context
                .faults
                .set_points(&pause)
                .expect("a good query");
        }
        for cookie in 1..=reads {
            client
                .request(request(Command::READ, cookie, 0, READ_BYTES))
                .await;
        }
        client.request(request(Command::FLUSH, 0, 0, 0)).await;
        assert!(is_stopped(&server, "cache:fill:submit").await);
        assert_eq!(
            is_stopped(&server, "session:operate").await,
            taken,
            "a request behind {reads} reads"
        );
        server.context.faults.reset_points();
        for _ in 0..=reads {
            let (error, cookie) = client.reply().await;
            assert_eq!(error, 0);
            if cookie != 0 {
                client.take(READ_BYTES as usize).await;
            }
        }
    }
}

/// Its reads are hits, so each of them is answered at once.
#[tokio::test(start_paused = true)]
async fn nothing_is_taken_from_a_client_that_takes_no_replies() {
    const FAR_TOO_MANY_BYTES: usize = 8 << 20;
    let server = Server::new();
    let mut client = server.client(false).await;
    assert_eq!(client.write(1, 0, &pattern(0, 65_536)).await, 0);
    let reads = request(Command::READ, 2, 0, 65_536).encode().repeat(1000);
    let (mut sent, mut stuck) = (0, 0);
    while stuck < 3 {
        match client.socket.try_write(&reads[sent % reads.len()..]) {
            Ok(count) => (sent, stuck) = (sent + count, 0),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => stuck += 1,
            Err(error) => panic!("{error}"),
        }
        assert!(sent < FAR_TOO_MANY_BYTES, "it takes requests without end");
        idle().await;
    }
}

/// The largest possible WRITE has the memory of only a few slices at a time.
#[tokio::test(start_paused = true)]
async fn no_more_slices_of_a_write_are_stored_at_a_time_than_four() {
    const SLICES: usize = 8;
    let server = Server::with(&Setup {
        mode: CacheMode::None,
        ..Setup::default()
    });
    let faults = &server.context.faults;
    let pause = "class backend:write pause";
    faults.set_points(pause).expect("a good query");
    let mut client = server.client(false).await;
    let look = async {
        idle().await;
        let stopped = faults.paused("class backend:write").await;
        faults.reset_points();
        stopped.expect("a good query")
    };
    let data = pattern(0, SLICES << 20);
    let (error, stopped) = tokio::join!(client.write(1, 0, &data), look);
    assert_eq!((error, stopped), (0, 4));
    assert!(client.read(2, 0, 8 << 20).await == data);
}
