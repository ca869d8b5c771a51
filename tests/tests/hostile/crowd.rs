//! Many clients, slow clients, and clients that vanish.

use std::thread;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use weir_tests::client::wire::*;
use weir_tests::client::{Client, Options, Socket, request_bytes};
use weir_tests::pattern::{assert_same, bytes};
use weir_tests::process::eventually;

use crate::support::{EXPORT_BYTES, Victim};

/// The crowd of the design; fewer where the limit on descriptors does not allow it.
const CROWD: u64 = 10_000;
/// Fewer than this would show nothing.
const CROWD_MIN: u64 = 1_000;
/// Descriptors that the test and the server need besides the crowd's.
const SPARE_FILES: u64 = 200;
/// What an idle connection may cost: two pages of buffers and its task.
const IDLE_KIB_MAX: u64 = 16;
/// What the whole server may take up with [`CROWD_MIN`] idle clients.
const SMALL_CROWD_KIB_MAX: u64 = 50_000;
/// How long the server may take to notice that a client is gone.
const NOTICE: Duration = Duration::from_secs(10);

/// Raises the limit on descriptors as far as it goes and says how large a crowd fits.
fn crowd_that_fits() -> u64 {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("limits can be read");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
        .expect("the soft limit may go up to the hard one");
    let crowd = CROWD.min(hard.saturating_sub(SPARE_FILES));
    assert!(
        crowd >= CROWD_MIN,
        "only {hard} descriptors allowed: `ulimit -Hn` must be {} or more",
        CROWD_MIN + SPARE_FILES
    );
    crowd
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_crowd_of_idle_clients_costs_little_and_others_are_served() {
    let crowd = crowd_that_fits();
    let victim = Victim::with(|builder| builder.option("--max-connections", crowd + 10));
    victim.server.assert_serving();
    let (memory, files) = (
        victim.server.memory().resident_kib,
        victim.server.open_files(),
    );

    let mut idle: Vec<Client> = (0..CROWD_MIN).map(|_| victim.server.client()).collect();
    let resident = victim.server.memory().resident_kib;
    println!("{CROWD_MIN} idle clients: {resident} KiB, {memory} of them without");
    assert!(
        resident <= SMALL_CROWD_KIB_MAX,
        "{resident} KiB with {CROWD_MIN} idle clients"
    );
    idle.extend((CROWD_MIN..crowd).map(|_| victim.server.client()));
    let per_client = victim.server.memory().resident_kib.saturating_sub(memory) / crowd;
    println!("{crowd} idle clients: {per_client} KiB each");
    assert!(
        per_client <= IDLE_KIB_MAX,
        "{per_client} KiB for each of {crowd} idle clients"
    );
    let mut one = victim.server.client();
    one.write(0, &bytes(1, 65536)).expect("a write");
    assert_same(
        &one.read(0, 65536).expect("a read"),
        &bytes(1, 65536),
        "in the crowd",
    );
    one.disconnect();

    drop(idle);
    eventually(
        "descriptors of clients that are gone are closed",
        NOTICE,
        || victim.server.open_files() <= files + 1,
    );
    victim.server.assert_serving();
    victim.server.stop_clean();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn slots_of_crashed_clients_are_free_again() {
    const SLOTS: usize = 4;
    let victim = Victim::with(|builder| builder.option("--max-connections", SLOTS));
    for round in 0..10 {
        let mut clients: Vec<Client> = Vec::new();
        eventually("all slots are free", NOTICE, || {
            // Over its limit a server may close at once or not greet: a slot is free when a client gets through.
            let full = clients.len() == SLOTS;
            if !full && let Some(client) = try_client(&victim) {
                clients.push(client);
            }
            clients.len() == SLOTS
        });
        for (client, at) in clients.iter_mut().zip(0..) {
            // In the middle of a payload, and with replies outstanding.
            client.send(CMD_READ, 0, 0, 1 << 20, &[]);
            client.send(CMD_WRITE, 0, at * 4096, 4096, &bytes(round, 1000));
        }
    }
    eventually("a slot is free", NOTICE, || try_client(&victim).is_some());
    victim.server.stop_clean();
}

/// A client, unless the server has no room for one.
fn try_client(victim: &Victim) -> Option<Client> {
    let mut socket = Socket::try_connect(&victim.server.uri("")).ok()?;
    socket.set_timeout(Duration::from_secs(5));
    let mut greeting = [0; 18];
    socket.try_receive(&mut greeting).ok()?;
    // One that was greeted has a slot.
    socket
        .try_send(&u32::from(FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES).to_be_bytes())
        .ok()?;
    Some(Client::negotiate_greeted(socket, &Options::default()))
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn clients_that_never_read_replies_hold_no_memory_and_nobody_up() {
    let victim = Victim::new();
    victim
        .server
        .client()
        .write(0, &bytes(2, 1 << 20))
        .expect("a write");
    // Each asks for far more than the server may keep for it, and reads nothing.
    let mut sulkers: Vec<Client> = (0..8).map(|_| victim.server.client()).collect();
    for client in &mut sulkers {
        client.socket().set_timeout(Duration::from_millis(200));
        for i in 0..200 {
            let request = request_bytes(0, CMD_READ, i, 0, 1 << 20);
            if client.socket().try_send(&request).is_err() {
                break;
            }
        }
    }
    let mut other = victim.server.client();
    for round in 0..20 {
        other
            .write(2 << 20, &bytes(round, 1 << 20))
            .expect("a write");
        assert_same(
            &other.read(2 << 20, 1 << 20).expect("a read"),
            &bytes(round, 1 << 20),
            "beside the sulkers",
        );
        other.flush().expect("a flush");
    }
    other.disconnect();
    drop(sulkers);
    victim.survived();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_write_that_comes_in_drips_blocks_nobody_and_is_stored_whole() {
    let victim = Victim::new();
    let data = bytes(3, 64 << 10);
    let mut slow = victim.server.client();
    let mut request = request_bytes(0, CMD_WRITE, 77, 0, 64 << 10);
    request.extend_from_slice(&data);
    let mut other = victim.server.client();
    for (i, part) in request.chunks(997).enumerate() {
        other
            .write(0, &bytes(i as u64, 4096))
            .expect("a write to the same place");
        other.trim(0, 4096, 4096).expect("a trim of the same place");
        slow.socket().send(part);
    }
    assert_eq!(slow.receive().cookie, 77);
    assert_same(
        &other.read(0, 64 << 10).expect("a read"),
        &data,
        "the write that came last",
    );
    other.disconnect();
    victim.survived();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn connecting_and_vanishing_in_parallel_leaks_nothing() {
    let victim = Victim::new();
    victim.server.assert_serving();
    let files = victim.server.open_files();
    let uri = &victim.server.uri("");
    thread::scope(|scope| {
        for worker in 0..4_u64 {
            scope.spawn(move || {
                for round in 0..100 {
                    let mut client = Client::negotiate(Socket::connect(uri), &Options::default());
                    client.send(CMD_WRITE, 0, worker * 65536, 65536, &bytes(round, 65536));
                    client.send(CMD_READ, 0, 0, 1 << 20, &[]);
                    client.send(
                        CMD_TRIM,
                        0,
                        0,
                        u32::try_from(EXPORT_BYTES).expect("64 MiB"),
                        &[],
                    );
                }
            });
        }
    });
    eventually(
        "descriptors of clients that are gone are closed",
        NOTICE,
        || victim.server.open_files() <= files + 1,
    );
    victim.survived();
}
