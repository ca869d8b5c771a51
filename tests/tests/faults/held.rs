//! What the server keeps of requests that rules and freezes hold.

use std::thread;
use std::time::Duration;

use weir_tests::client::request_bytes;
use weir_tests::client::wire::*;
use weir_tests::process::{eventually, let_pass};

use crate::support::{EXPORT_BYTES, Rig, SOON};

const LENGTH: u32 = 1 << 20;
const REQUESTS: usize = 64;
const CONNECTIONS: usize = 8;
/// What may be held of all that, and half as much again.
const MEMORY_KIB_MAX: u64 = (128 + 64) << 10;
const QUIET: Duration = Duration::from_millis(300);

/// Lets each of some connections send far more than is held; `clear` must make all of it go on.
fn flood(hold: &str, clear: &str) {
    let rig = Rig::with(|builder| builder.option("--cache-size", "16M"));
    let mut beside = rig.client_of("db");
    beside.write(0, &[1; 4096]).expect("a write");
    let before = rig.server.memory().resident_kib;
    rig.ok(hold);
    thread::scope(|scope| {
        for _ in 0..CONNECTIONS {
            let mut client = rig.client();
            let mut sender = client.socket().try_clone();
            scope.spawn(move || {
                for cookie in 0..REQUESTS as u64 {
                    let at = (cookie % (EXPORT_BYTES >> 20)) << 20;
                    let mut bytes = request_bytes(0, CMD_WRITE, cookie, at, LENGTH);
                    bytes.resize(bytes.len() + LENGTH as usize, 7);
                    sender.send(&bytes);
                }
            });
            scope.spawn(move || {
                for _ in 0..REQUESTS {
                    assert_eq!(client.receive().error, None);
                }
            });
        }
        let received = || -> u64 {
            let connections = rig.json("connection list");
            let all = connections.as_array().expect("a list").iter();
            all.map(|one| one["traffic"]["received"].as_u64().unwrap_or(0))
                .sum()
        };
        // Until nothing more is taken.
        let mut last = u64::MAX;
        eventually("the server takes no more", SOON, || {
            let_pass(QUIET);
            let now = received();
            std::mem::replace(&mut last, now) == now && now > 0
        });
        let grown = rig.server.memory().peak_kib - before;
        println!("{last} bytes taken, {grown} KiB more");
        let status = rig.json("status");
        let held = status["exports"][0]["held_bytes"].as_u64().unwrap_or(0);
        beside.read(0, 4096).expect("another export");
        rig.ok(clear);
        assert!(grown <= MEMORY_KIB_MAX, "{grown} KiB more");
        assert!(held >= 64 << 20, "{held} bytes held: {status}");
    });
    rig.finish();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_frozen_device_keeps_a_bounded_part_of_what_waits() {
    flood("device freeze \"\"", "device thaw \"\"");
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_rule_that_hangs_keeps_a_bounded_part_of_what_waits() {
    flood("fault add write hang", "fault clear");
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_stop_ends_what_is_held() {
    let rig = Rig::new();
    rig.ok("device freeze \"\"");
    let mut client = rig.client();
    let mut sender = client.socket().try_clone();
    let sending = thread::spawn(move || {
        let mut bytes = request_bytes(0, CMD_WRITE, 1, 0, LENGTH);
        bytes.resize(bytes.len() + LENGTH as usize, 7);
        while sender.try_send(&bytes).is_ok() {}
    });
    eventually("it is at the limit", SOON, || {
        rig.json("status")["exports"][0]["held_bytes"]
            .as_u64()
            .is_some_and(|held| held >= 32 << 20)
    });
    rig.server.stop_clean();
    sending.join().expect("it only sends");
}
