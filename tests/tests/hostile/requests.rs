//! Misbehaviour in the transmission phase.

use weir_tests::client::wire::*;
use weir_tests::client::{Errno, Options, normalise, request_bytes};
use weir_tests::pattern::{assert_same, bytes};

use crate::support::{EXPORT_BYTES, Victim};

/// The largest payload that the server announces.
const PAYLOAD_BYTES_MAX: u32 = 64 << 20;

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_wrong_request_magic_disconnects() {
    let victim = Victim::new();
    let mut client = victim.server.client();
    let mut request = request_bytes(0, CMD_READ, 1, 0, 512);
    request[0] ^= 0xff;
    client.socket().send(&request);
    client.socket().expect_closed();
    victim.survived();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn truncated_requests_change_nothing() {
    let victim = Victim::new();
    let data = bytes(1, 8192);
    victim.server.client().write(0, &data).expect("a write");
    let mut whole = request_bytes(0, CMD_WRITE, 1, 0, 8192);
    whole.extend(bytes(2, 8192));
    for cut in [1, 4, 27, 28, 29, 28 + 4096, 28 + 8191] {
        let mut client = victim.server.client();
        client.socket().send(&whole[..cut]);
        client.socket().shutdown_write();
        client.socket().expect_closed();
    }
    let mut client = victim.server.client();
    assert_same(
        &client.read(0, 8192).expect("a read"),
        &data,
        "what was there",
    );
    client.disconnect();
    victim.survived();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn offsets_and_lengths_that_overflow_are_refused_and_the_connection_lives() {
    let victim = Victim::new();
    for options in [
        Options::default().context("base:allocation"),
        Options::simple(),
    ] {
        let mut client = victim.server.client_with(&options);
        for (offset, len) in [
            (EXPORT_BYTES, 1),
            (EXPORT_BYTES - 1, 2),
            (u64::MAX, 1),
            (u64::MAX, u32::MAX),
            (u64::MAX - 4095, 4096),
            (1 << 63, 1),
            (0, u32::MAX),
        ] {
            let what = format!("{offset}+{len}");
            assert_eq!(client.read(offset, len), Err(Errno(EINVAL)), "READ {what}");
            assert_eq!(
                client.trim(0, offset, len),
                Err(Errno(EINVAL)),
                "TRIM {what}"
            );
            assert_eq!(
                client.cache(offset, len),
                Err(Errno(EINVAL)),
                "CACHE {what}"
            );
            assert_eq!(
                client.write_zeroes(0, offset, len),
                Err(Errno(ENOSPC)),
                "WRITE_ZEROES {what}"
            );
            if len <= 4096 {
                assert_eq!(
                    client.write(offset, &bytes(3, len as usize)),
                    Err(Errno(ENOSPC)),
                    "WRITE {what}"
                );
            }
        }
        client
            .write(0, &bytes(4, 100))
            .expect("the connection lives");
        assert_same(
            &client.read(0, 100).expect("a read"),
            &bytes(4, 100),
            "after refusals",
        );
        client.disconnect();
    }
    victim.survived();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn unknown_commands_and_flags_are_refused_and_the_connection_lives() {
    let victim = Victim::new();
    let mut client = victim.server.client();
    for command in [8, 9, 100, u16::MAX] {
        assert_eq!(
            client.transact(command, 0, 0, 0, &[]).result(),
            Err(Errno(EINVAL)),
            "command {command}"
        );
    }
    for (command, flags) in [
        (CMD_READ, CMD_FLAG_NO_HOLE),
        (CMD_READ, CMD_FLAG_REQ_ONE),
        (CMD_READ, 1 << 15),
        (CMD_FLUSH, CMD_FLAG_DF),
        (CMD_TRIM, CMD_FLAG_NO_HOLE),
        (CMD_CACHE, CMD_FLAG_FAST_ZERO),
        (CMD_WRITE_ZEROES, CMD_FLAG_DF),
        (CMD_WRITE_ZEROES, 1 << 9),
    ] {
        let len = if command == CMD_FLUSH { 0 } else { 4096 };
        assert_eq!(
            client.transact(command, flags, 0, len, &[]).result(),
            Err(Errno(EINVAL)),
            "{command} {flags:#x}"
        );
    }
    assert_eq!(
        client.write_flags(CMD_FLAG_DF, 0, &bytes(5, 70_000)),
        Err(Errno(EINVAL))
    );
    assert_same(
        &client.read(0, 4096).expect("a read"),
        &[0; 4096],
        "a refused WRITE stores nothing",
    );
    client.disconnect();
    victim.survived();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_refused_write_is_drained_whole() {
    let victim = Victim::new();
    let mut client = victim.server.client();
    for len in [1, 511, 4096, 65_537, 5 << 20] {
        // The payload looks like requests: what is not drained would be answered.
        let payload: Vec<u8> = request_bytes(0, CMD_READ, 0xbad, 0, 512)
            .into_iter()
            .cycle()
            .take(len)
            .collect();
        assert_eq!(
            client.write(EXPORT_BYTES - 1 + u64::from(len == 1), &payload),
            Err(Errno(ENOSPC)),
            "{len} bytes"
        );
        client.read(0, 512).expect("the connection lives");
    }
    client.disconnect();
    victim.survived();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_write_of_four_gib_is_not_an_allocation_of_four_gib() {
    // Less than what a session gathers before it stores a part of a WRITE.
    const LITTLE: usize = 50_000;
    let victim =
        Victim::with(|builder| builder.option("--export", format!("big=memory:{}", 8_u64 << 30)));
    // Past the end, larger than a payload may be, and as large as it may be: little of it ever comes.
    let mut clients = Vec::new();
    for (export, len) in [
        ("", u32::MAX),
        ("big", u32::MAX),
        ("big", PAYLOAD_BYTES_MAX),
        ("", PAYLOAD_BYTES_MAX),
    ] {
        for _ in 0..8 {
            let mut client = victim
                .server
                .client_with(&Options::default().export(export));
            client.send(CMD_WRITE, 0, 0, len, &bytes(6, LITTLE));
            clients.push(client);
        }
    }
    for mut client in clients {
        // Refused or waiting for the rest: either way a client that goes ends it.
        client.socket().shutdown_write();
        client.socket().receive_to_end();
    }
    for export in ["", "big"] {
        let mut client = victim
            .server
            .client_with(&Options::default().export(export));
        assert_same(
            &client.read(0, 4096).expect("a read"),
            &[0; 4096],
            "nothing of it was stored",
        );
        client.disconnect();
    }
    victim.survived();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_read_larger_than_the_largest_payload_is_refused() {
    let victim =
        Victim::with(|builder| builder.option("--export", format!("big=memory:{}", 1_u64 << 30)));
    let mut client = victim.server.client_with(&Options::default().export("big"));
    assert_eq!(
        client.export().block_sizes,
        Some((1, 4096, PAYLOAD_BYTES_MAX))
    );
    let error = client
        .read(0, PAYLOAD_BYTES_MAX + 1)
        .expect_err("larger than announced");
    assert!(
        [Errno(EINVAL), Errno(EOVERFLOW)].contains(&error),
        "{error:?}"
    );
    client
        .trim(0, 0, 1 << 30)
        .expect("lengths without a payload have no maximum");
    client
        .write_zeroes(0, 0, 1 << 30)
        .expect("lengths without a payload have no maximum");
    client.disconnect();
    victim.survived();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn zero_length_requests_get_a_reply() {
    let victim = Victim::new();
    for options in [
        Options::default().context("base:allocation"),
        Options::simple(),
    ] {
        let mut client = victim.server.client_with(&options);
        for command in [
            CMD_READ,
            CMD_WRITE,
            CMD_FLUSH,
            CMD_TRIM,
            CMD_CACHE,
            CMD_WRITE_ZEROES,
            CMD_BLOCK_STATUS,
        ] {
            for offset in [0, 4096, EXPORT_BYTES] {
                // What the reply says is the server's choice; that there is one isn't.
                client.transact(command, 0, offset, 0, &[]);
            }
        }
        client.read(0, 512).expect("the connection lives");
        client.disconnect();
    }
    victim.survived();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn block_status_covers_the_request_exactly() {
    let victim = Victim::new();
    let mut client = victim.server.client_with(
        &Options::default()
            .context("base:allocation")
            .context("x-weir:cache"),
    );
    client.write(1 << 20, &bytes(7, 1 << 20)).expect("a write");
    let hole = STATE_HOLE | STATE_ZERO;
    let extents = client
        .block_status(0, "base:allocation", 0, 4 << 20)
        .expect("a status");
    assert_eq!(
        normalise(&extents, 4 << 20),
        [(1 << 20, hole), (1 << 20, 0), (2 << 20, hole)]
    );
    let extents = client
        .block_status(CMD_FLAG_REQ_ONE, "base:allocation", (1 << 20) + 512, 4096)
        .expect("a status");
    assert_eq!(extents, [(4096, 0)]);
    let whole = u32::try_from(EXPORT_BYTES).expect("64 MiB");
    let extents = client
        .block_status(0, "x-weir:cache", 0, whole)
        .expect("a status");
    assert!(
        extents.iter().any(|e| e.1 == STATE_CACHED | STATE_DIRTY),
        "{extents:?}"
    );
    client.disconnect();
    victim.survived();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_disconnect_answers_what_is_outstanding_first() {
    let victim = Victim::new();
    let mut client = victim.server.client();
    let mut cookies: Vec<u64> = (0..64)
        .map(|i| client.send(CMD_WRITE, 0, i * 4096, 4096, &bytes(i, 4096)))
        .collect();
    cookies.push(client.send(CMD_FLUSH, 0, 0, 0, &[]));
    cookies.extend((0..64).map(|i| client.send(CMD_READ, 0, i * 4096, 4096, &[])));
    client.send(CMD_DISC, 0, 0, 0, &[]);
    let replies = client.receive_all(&cookies);
    assert!(
        replies.values().all(|reply| reply.error.is_none()),
        "{replies:?}"
    );
    client.socket().expect_closed();
    victim.survived();
}
