use std::time::Duration;

use weir_protocol::CommandFlags;

use super::*;

fn request(command: Command, length: u32) -> Vec<u8> {
    let request = Request {
        flags: CommandFlags::EMPTY,
        command,
        cookie: 1,
        offset: 0,
        length,
    };
    request.encode().to_vec()
}

#[test]
fn a_goodbye_is_found_behind_requests_and_their_payloads() {
    let disconnect = request(Command::DISC, 0);
    let mut bytes = vec![7; 100];
    bytes.extend(request(Command::WRITE, 1000));
    bytes.extend(vec![8; 1000]);
    bytes.extend(request(Command::TRIM, 5000));
    assert!(!says_goodbye(&bytes, 100));
    bytes.extend(&disconnect);
    assert!(says_goodbye(&bytes, 100));
    // When it is out of step, it contains no goodbye.
    assert!(!says_goodbye(&bytes, 99));
    assert!(!says_goodbye(&bytes[..bytes.len() - 1], 100));
    assert!(says_goodbye(&disconnect, 0));
    assert!(!says_goodbye(&disconnect, u64::MAX));
    assert!(!says_goodbye(&[], 0));
}

#[test]
fn a_payload_that_looks_like_a_goodbye_is_none() {
    let disconnect = request(Command::DISC, 0);
    let mut bytes = request(Command::WRITE, 28);
    bytes.extend(&disconnect);
    assert!(!says_goodbye(&bytes, 0));
    assert!(!says_goodbye(&disconnect, 28));
    bytes.extend(&disconnect);
    assert!(says_goodbye(&bytes, 0));
}

/// Says whether it was woken.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

/// The end must be announced by a wake-up.
async fn announced(hangup: &mut Hangup<'_>) {
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    if !hangup.poll_news(&Context::from_waker(&waker)) {
        let wake_up = async {
            while !woken.0.load(Ordering::Acquire) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wake_up)
            .await
            .expect("a wake-up");
    }
    assert!(hangup.has_news() && hangup.look());
}

#[tokio::test]
async fn the_end_is_announced_behind_what_is_unread() {
    let (client, server) = tokio::net::UnixStream::pair().expect("a socket pair");
    let stream = Socket::Unix(server);
    let mut hangup = Hangup::new(&stream);
    assert!(hangup.has_news() && !hangup.look() && !hangup.has_news());
    let mut bytes = vec![1; 100_000];
    bytes.extend(request(Command::DISC, 0));
    client.try_write(&bytes).expect("it fits");
    std::future::poll_fn(|task| stream.poll_read_ready(task))
        .await
        .expect("something is there");
    assert!(!hangup.has_news());
    assert!(goodbye_ahead(&stream, &[1; 10], 100_010));
    assert!(!goodbye_ahead(&stream, &[1; 10], 100_009));
    drop(client);
    announced(&mut hangup).await;
    assert!(goodbye_ahead(&stream, &[1; 10], 100_010));
}

#[tokio::test]
async fn a_shut_half_and_a_reset_are_ends_over_tcp() {
    for reset in [false, true] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let mut client = std::net::TcpStream::connect(address).expect("it listens");
        let (server, _) = listener.accept().await.expect("a connection");
        let stream = Socket::Tcp(server);
        let mut hangup = Hangup::new(&stream);
        assert!(!hangup.look());
        std::io::Write::write_all(&mut client, &[1; 100]).expect("there is room");
        if reset {
            let socket = socket2::SockRef::from(&client);
            socket
                .set_linger(Some(std::time::Duration::ZERO))
                .expect("a socket");
            drop(client);
        } else {
            client
                .shutdown(std::net::Shutdown::Write)
                .expect("connected");
        }
        announced(&mut hangup).await;
    }
}
