//! Clients that ask for much at once, beside one that asks for little.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use weir_tests::client::wire::*;
use weir_tests::client::{Client, Options, Socket};
use weir_tests::process::SetOnDrop;
use weir_tests::server::ServerBuilder;

/// A piece of data, and then a hole of the same size: the most extents that a file can have.
const DATA: [u8; 4096] = [7; 4096];
const PIECE: u64 = DATA.len() as u64;
/// Pieces of data: a BLOCK_STATUS over all of them would be as large as the protocol's largest answer.
const PIECES: u64 = 16 << 10;
/// Requests that one client has under way.
const PIPELINED: usize = 256;
/// Reads of the client beside.
const READS: usize = 400;
/// The 99th percentile of these.
const READ_MAX: Duration = Duration::from_millis(50);
/// What the floods may make the server take.
const MEMORY_KIB_MAX: u64 = 64 << 10;
const STOP_MAX: Duration = Duration::from_secs(10);

fn ask(client: &mut Client) -> Vec<u64> {
    let length = u32::try_from(2 * PIECE * PIECES).expect("less than 4 GiB");
    (0..PIPELINED)
        .map(|_| client.send(CMD_BLOCK_STATUS, 0, 0, length, &[]))
        .collect()
}

fn flood(uri: &str, stop: &AtomicBool) -> usize {
    let options = Options::default().context("base:allocation");
    let mut client = Client::negotiate(Socket::connect(uri), &options);
    let mut answered = 0;
    while !stop.load(Ordering::Relaxed) {
        let cookies = ask(&mut client);
        answered += client.receive_all(&cookies).len();
    }
    answered
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn questions_about_small_extents_keep_nobody_waiting() {
    let dir = tempfile::Builder::new()
        .prefix("weir-hostile-")
        .tempdir()
        .expect("a temporary folder");
    let path = dir.path().join("disk.img");
    let file = File::create(&path).expect("a file");
    file.set_len(2 * PIECE * PIECES).expect("a sparse file");
    for piece in 0..PIECES {
        file.write_all_at(&DATA, 2 * piece * PIECE)
            .expect("written");
    }
    file.sync_all().expect("synced");
    let server = ServerBuilder::new(dir.path())
        .file(&path, 2 * PIECE * PIECES)
        .option("--cache-size", "16M")
        .start();
    let before = server.memory().resident_kib;
    let stop = AtomicBool::new(false);
    let mut reads = thread::scope(|scope| {
        let floods = [(); 2].map(|()| {
            let (uri, stop) = (server.uri(""), &stop);
            scope.spawn(move || flood(&uri, stop))
        });
        let stops = SetOnDrop(&stop);
        let mut neighbour = server.client();
        let reads: Vec<Duration> = (0..READS)
            .map(|i| {
                let begun = Instant::now();
                let at = (i as u64 * 37 % PIECES) * 2 * PIECE;
                neighbour.read(at, 4096).expect("a read");
                begun.elapsed()
            })
            .collect();
        drop(stops);
        for flood in floods {
            assert!(flood.join().expect("it only asks") > 0);
        }
        reads
    });
    reads.sort_unstable();
    let p99 = reads[READS * 99 / 100];
    let grown = server.memory().peak_kib - before;
    println!("p99 {p99:?}, {grown} KiB more");
    assert!(p99 <= READ_MAX, "a read took {p99:?}");
    assert!(grown <= MEMORY_KIB_MAX, "{grown} KiB more");
    // And a stop in the middle of it.
    let mut asking = server.client_with(&Options::default().context("base:allocation"));
    ask(&mut asking);
    let begun = Instant::now();
    let taking = thread::spawn(move || asking.socket().receive_to_end());
    server.stop_clean();
    let took = begun.elapsed();
    taking.join().expect("it only takes answers");
    assert!(took <= STOP_MAX, "the stop took {took:?}");
}
