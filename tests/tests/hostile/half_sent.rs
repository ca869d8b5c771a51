//! Clients that announce WRITEs and don't send them, beside one that reads and one that writes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use weir_tests::client::wire::*;
use weir_tests::client::{Client, request_bytes};
use weir_tests::process::{SetOnDrop, eventually, let_pass};
use weir_tests::server::Server;

use crate::support::Victim;

/// Clients that send half of what they announce.
const HALF_SENDERS: usize = 64;
/// What each of them announces.
const ANNOUNCED: u32 = 8 << 20;
/// Reads of the client beside.
const READS: usize = 400;
/// The 99th percentile of these.
const READ_MAX: Duration = Duration::from_millis(50);
/// A WRITE of the client beside.
const WRITE_MAX: Duration = Duration::from_secs(2);
const WRITES: usize = 16;
/// When those that hoard are closed at the latest: a few of the server's windows.
const CLOSED_MAX: Duration = Duration::from_secs(20);

fn half_senders(server: &Server) -> Vec<Client> {
    let half = |_| {
        let mut client = server.client();
        let mut bytes = request_bytes(0, CMD_WRITE, 7, 0, ANNOUNCED);
        bytes.resize(bytes.len() + 100, 7);
        client.socket().send(&bytes);
        client
    };
    (0..HALF_SENDERS).map(half).collect()
}

/// Reads of 4 KiB, one after the other, and beside them writes of `length` bytes; how long the slowest in a hundred
/// reads took, and the slowest write.
fn beside(server: &Server, length: usize) -> (Duration, Duration) {
    thread::scope(|scope| {
        let mut client = server.client();
        let writing = scope.spawn(move || {
            let data = vec![9; length];
            let write = |i: usize| {
                let begun = Instant::now();
                let at = (16 << 20) + (i * length) as u64;
                client.write(at, &data).expect("a write");
                begun.elapsed()
            };
            (0..WRITES).map(write).max().expect("some")
        });
        let mut client = server.client();
        let read = |i: usize| {
            let begun = Instant::now();
            client
                .read(i as u64 * 37 % 1000 * 4096, 4096)
                .expect("a read");
            begun.elapsed()
        };
        let mut reads: Vec<_> = (0..READS).map(read).collect();
        reads.sort_unstable();
        (reads[READS * 99 / 100], writing.join().expect("it writes"))
    })
}

fn assert_unhindered(server: &Server, length: usize) {
    let (read, write) = beside(server, length);
    println!("reads p99 {read:?}, writes of {length} at most {write:?}");
    assert!(read <= READ_MAX, "a read took {read:?}");
    assert!(write <= WRITE_MAX, "a write of {length} took {write:?}");
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn writes_that_are_half_sent_keep_nobody_waiting() {
    for mode in ["writeback", "none"] {
        let victim = Victim::with(|builder| builder.option("--cache", mode));
        let half = half_senders(&victim.server);
        for length in [1 << 20, 4096] {
            assert_unhindered(&victim.server, length);
        }
        drop(half);
        victim.survived();
    }
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_byte_a_second_keeps_nobody_waiting_and_is_closed_and_named() {
    let victim = Victim::new();
    let server = &victim.server;
    let mut half = half_senders(server);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let stops = SetOnDrop(&done);
        let trickle = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for client in &mut half {
                    // Those that hoard are closed.
                    let _ = client.socket().try_send(&[7]);
                }
                let_pass(Duration::from_secs(1));
            }
        });
        let named = || server.log().matches("bytes were kept for a WRITE").count();
        eventually("somebody is closed", CLOSED_MAX, || {
            assert_unhindered(server, 1 << 20);
            named() > 0
        });
        let log = server.log();
        assert!(
            log.contains("connection=") && log.contains("export="),
            "{log}"
        );
        drop(stops);
        trickle.join().expect("it only sends");
    });
    drop(half);
    victim.survived();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_byte_a_second_is_idle() {
    let victim = Victim::with(|builder| builder.option("--idle-timeout", "3s"));
    let mut client = victim.server.client();
    client
        .socket()
        .send(&request_bytes(0, CMD_WRITE, 7, 0, ANNOUNCED));
    let begun = Instant::now();
    while client.socket().try_send(&[7]).is_ok() {
        assert!(begun.elapsed() < CLOSED_MAX, "it is kept");
        let_pass(Duration::from_millis(500));
    }
    victim.survived();
}
