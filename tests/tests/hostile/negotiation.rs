//! Misbehaviour before an export is chosen.

use std::time::{Duration, Instant};

use weir_tests::client::wire::*;
use weir_tests::client::{Client, Handshake, Options};

use crate::support::Victim;

/// The deadline that the server is started with where a test waits for it.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(1);
/// How late a deadline may be on a busy machine.
const GRACE: Duration = Duration::from_secs(5);
/// An option whose number nobody has given a meaning.
const OPT_NONSENSE: u32 = 0x7eed_0001;
/// Larger than any name or list of contexts, smaller than what a server would drop a client for at once.
const HUGE_BYTES: usize = 1 << 20;

fn impatient() -> Victim {
    Victim::with(|builder| builder.option("--handshake-timeout", "1s"))
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_client_that_says_nothing_is_dropped_at_the_deadline() {
    let victim = impatient();
    let began = Instant::now();
    let mut silent = victim.server.socket();
    silent.receive(18);
    silent.expect_closed();
    let took = began.elapsed();
    assert!(
        (HANDSHAKE_TIMEOUT..HANDSHAKE_TIMEOUT + GRACE).contains(&took),
        "dropped after {took:?}"
    );
    victim.survived();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn half_an_option_does_not_hold_a_slot_past_the_deadline() {
    let victim = impatient();
    let began = Instant::now();
    for cut in [1, 8, 15, 16, 40] {
        let mut handshake = Handshake::begin(victim.server.socket());
        let mut bytes = Handshake::option_header(OPT_GO, 100);
        bytes.extend([0; 100]);
        handshake.socket().send(&bytes[..cut]);
        handshake.socket().expect_closed();
    }
    assert!(began.elapsed() >= HANDSHAKE_TIMEOUT * 5);
    victim.survived();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_drip_of_options_does_not_move_the_deadline() {
    let victim = impatient();
    let began = Instant::now();
    let mut handshake = Handshake::begin(victim.server.socket());
    // One after the other, each answered, until the server has had enough: by its deadline or its cap on options.
    let mut sent = 0;
    while handshake
        .socket()
        .try_send(&Handshake::option_bytes(OPT_NONSENSE, &[]))
        .is_ok()
    {
        sent += 1;
        assert!(
            began.elapsed() < HANDSHAKE_TIMEOUT + GRACE,
            "{sent} options and no end"
        );
        // Replies are read a few at a time, to keep the server from waiting for us.
        handshake.socket().set_timeout(Duration::from_secs(10));
        let mut one = [0; 20];
        if !receive_or_closed(&mut handshake, &mut one) {
            break;
        }
        let text = u32::from_be_bytes(one[16..].try_into().expect("four")) as usize;
        let mut text = vec![0; text];
        if !receive_or_closed(&mut handshake, &mut text) {
            break;
        }
    }
    victim.survived();
}

fn receive_or_closed(handshake: &mut Handshake, into: &mut [u8]) -> bool {
    handshake.socket().try_receive(into).is_ok()
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn an_established_client_outlives_the_handshake_deadline() {
    let victim = impatient();
    let mut client = victim.server.client();
    // The other client's end is the clock.
    let mut silent = victim.server.socket();
    silent.receive(18);
    silent.expect_closed();
    client.read(0, 4096).expect("the connection lives");
    client.disconnect();
    victim.survived();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_wrong_option_magic_closes() {
    let victim = Victim::new();
    let mut handshake = Handshake::begin(victim.server.socket());
    handshake.socket().send(&[0xff; 16]);
    handshake.socket().expect_closed();
    victim.survived();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn unknown_client_flags_close() {
    let victim = Victim::new();
    for flags in [1 << 2, 1 << 16, 1 << 31] {
        let flags = flags | u32::from(FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES);
        Handshake::begin_with(victim.server.socket(), flags)
            .socket()
            .expect_closed();
    }
    victim.survived();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn an_unknown_option_is_refused_with_its_data_drained() {
    let victim = Victim::new();
    let mut handshake = Handshake::begin(victim.server.socket());
    for len in [0, 1, 4096, 60_000] {
        handshake.expect(OPT_NONSENSE, &vec![0xa5; len], REP_ERR_UNSUP);
    }
    assert!(
        handshake.info(OPT_GO, "").is_ok(),
        "and the negotiation goes on"
    );
    victim.survived();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn huge_option_data_is_refused_or_ends_the_connection() {
    let victim = Victim::new();
    for option in [
        OPT_NONSENSE,
        OPT_GO,
        OPT_LIST,
        OPT_EXPORT_NAME,
        OPT_SET_META_CONTEXT,
        OPT_STRUCTURED_REPLY,
    ] {
        let mut handshake = Handshake::begin(victim.server.socket());
        let mut bytes = Handshake::option_header(option, u32::try_from(HUGE_BYTES).expect("1 MiB"));
        bytes.resize(16 + HUGE_BYTES, 0x41);
        // The server may close in the middle; then there is no reply.
        if handshake.socket().try_send(&bytes).is_ok() {
            handshake.socket().shutdown_write();
            let answer = handshake.socket().receive_to_end();
            if let Some(kind) = answer.get(12..16) {
                assert_eq!(
                    kind[0] & 0x80,
                    0x80,
                    "option {option} was accepted: {:02x?}",
                    &answer[..16]
                );
            }
        }
    }
    // A length that is only claimed.
    let mut handshake = Handshake::begin(victim.server.socket());
    handshake
        .socket()
        .send(&Handshake::option_header(OPT_NONSENSE, u32::MAX));
    handshake.socket().shutdown_write();
    handshake.socket().receive_to_end();
    victim.survived();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn malformed_options_are_invalid_and_the_negotiation_goes_on() {
    let victim = Victim::new();
    let mut handshake = Handshake::begin(victim.server.socket());
    handshake.expect(OPT_LIST, b"x", REP_ERR_INVALID);
    handshake.expect(OPT_STRUCTURED_REPLY, b"x", REP_ERR_INVALID);
    handshake.expect(OPT_STRUCTURED_REPLY, b"", REP_ACK);
    // A name's length that reaches past the data, one that leaves no room for the count, a count without its items.
    for data in [
        &[0xff; 4][..],
        &[0, 0, 0, 1],
        &[0, 0, 0, 1, b'x'],
        &[0, 0, 0, 0, 0, 9],
        b"",
        &[0, 0, 0, 0, 0, 0, 7],
    ] {
        handshake.expect(OPT_GO, data, REP_ERR_INVALID);
        handshake.expect(OPT_INFO, data, REP_ERR_INVALID);
    }
    let queries_without_end = [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff];
    let query_too_long = [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 200, b'b'];
    for data in [&queries_without_end[..], &query_too_long, b"", &[0; 7]] {
        handshake.expect(OPT_LIST_META_CONTEXT, data, REP_ERR_INVALID);
        handshake.expect(OPT_SET_META_CONTEXT, data, REP_ERR_INVALID);
    }
    assert!(handshake.info(OPT_GO, "").is_ok());
    victim.survived();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn an_unknown_export_is_refused_and_another_may_be_asked_for() {
    let victim = Victim::new();
    let mut handshake = Handshake::begin(victim.server.socket());
    for name in [
        "missing",
        "\u{1f980}",
        "../../etc/passwd",
        &"n".repeat(4096),
    ] {
        let refusal = handshake.info(OPT_GO, name).expect_err("no such export");
        assert_eq!(
            refusal.kind,
            REP_ERR_UNKNOWN,
            "{name:?}: {}",
            refusal.text()
        );
        assert!(!refusal.data.is_empty(), "a refusal says why");
    }
    let too_long = handshake
        .info(OPT_GO, &"n".repeat(4097))
        .expect_err("longer than a name may be");
    assert!(
        [REP_ERR_INVALID, REP_ERR_TOO_BIG, REP_ERR_UNKNOWN].contains(&too_long.kind),
        "{too_long:x?}"
    );
    let not_utf8 = handshake.expect(OPT_GO, &[0, 0, 0, 1, 0xff, 0, 0], REP_ERR_INVALID);
    assert!(!not_utf8.data.is_empty());
    let answer = handshake.info(OPT_INFO, "").expect("the default export");
    assert_eq!(
        handshake.info(OPT_GO, "").expect("the default export"),
        answer,
        "GO says what INFO said"
    );
    victim.survived();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn export_name_of_a_missing_export_disconnects() {
    let victim = Victim::new();
    let mut handshake = Handshake::begin(victim.server.socket());
    handshake.send_option(OPT_EXPORT_NAME, b"missing");
    handshake.socket().expect_closed();
    victim.survived();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn export_name_answers_with_or_without_the_zeroes() {
    let victim = Victim::new();
    for (flags, zeroes) in [
        (FLAG_FIXED_NEWSTYLE, 124),
        (FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES, 0),
    ] {
        let mut handshake = Handshake::begin_with(victim.server.socket(), u32::from(flags));
        handshake.send_option(OPT_EXPORT_NAME, b"");
        let mut socket = handshake.into_socket();
        assert_eq!(socket.receive_u64(), crate::support::EXPORT_BYTES);
        assert_ne!(socket.receive_u16() & EXPORT_HAS_FLAGS, 0);
        assert_eq!(socket.receive(zeroes), vec![0; zeroes]);
        socket.send(&weir_tests::client::request_bytes(0, CMD_READ, 7, 0, 16));
        assert_eq!(
            socket.receive(16 + 16)[..16],
            [0x67, 0x44, 0x66, 0x98, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]
        );
    }
    victim.survived();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn abort_is_acknowledged_and_closes() {
    let victim = Victim::new();
    let mut handshake = Handshake::begin(victim.server.socket());
    handshake.expect(OPT_ABORT, b"", REP_ACK);
    handshake.socket().expect_closed();
    // A client that doesn't wait for it.
    let mut handshake = Handshake::begin(victim.server.socket());
    handshake.send_option(OPT_ABORT, b"");
    drop(handshake);
    victim.survived();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn contexts_need_structured_replies_and_are_void_for_another_export() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let other = format!("other={},size=1M", dir.path().join("other").display());
    let victim = Victim::with(|builder| builder.option("--export", other));
    let names = [
        "base:allocation".to_owned(),
        "x-weir:cache".to_owned(),
        "no:such".to_owned(),
    ];

    let mut handshake = Handshake::begin(victim.server.socket());
    handshake.expect(OPT_SET_META_CONTEXT, &[0; 8], REP_ERR_INVALID);
    handshake.expect(OPT_STRUCTURED_REPLY, b"", REP_ACK);
    let listed: Vec<String> = handshake
        .list_contexts("", &[])
        .into_iter()
        .map(|(_, name)| name)
        .collect();
    assert!(
        names[..2].iter().all(|name| listed.contains(name)),
        "{listed:?}"
    );
    let wild: Vec<_> = handshake
        .list_contexts("", &["base:".to_owned()])
        .into_iter()
        .map(|(_, name)| name)
        .collect();
    assert_eq!(wild, names[..1]);
    assert!(
        handshake.set_contexts("", &["base:".to_owned()]).is_empty(),
        "a wildcard selects nothing"
    );
    let set = handshake.set_contexts("", &names);
    assert_eq!(
        set.iter().map(|(_, name)| name).collect::<Vec<_>>(),
        names[..2].iter().collect::<Vec<_>>()
    );
    assert_ne!(set[0].0, set[1].0, "ids differ");
    handshake.info(OPT_GO, "other").expect("the other export");
    let mut socket = handshake.into_socket();
    socket.send(&weir_tests::client::request_bytes(
        0,
        CMD_BLOCK_STATUS,
        1,
        0,
        4096,
    ));
    let reply = socket.receive(20);
    assert_eq!(
        reply[6] & 0x80,
        0x80,
        "BLOCK_STATUS without a context must fail: {reply:02x?}"
    );
    drop(socket);

    let mut client = Client::negotiate(
        victim.server.socket(),
        &Options::default().context("base:allocation"),
    );
    client
        .block_status(0, "base:allocation", 0, 4096)
        .expect("a status");
    victim.survived();
}
