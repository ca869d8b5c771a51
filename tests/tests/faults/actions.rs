//! Every action of a rule, as the client sees it.

use std::time::{Duration, Instant};

use weir_tests::client::wire::*;
use weir_tests::client::{Errno, Options};
use weir_tests::pattern::{assert_same, bytes};

use crate::support::{Rig, SOON, assert_first_answer_is_a_read, differing_bits};

/// What most of these write.
const LENGTH: usize = 8192;

fn old() -> Vec<u8> {
    bytes(1, LENGTH)
}

fn new() -> Vec<u8> {
    bytes(2, LENGTH)
}

fn length() -> u32 {
    u32::try_from(LENGTH).expect("small")
}

/// What is stored where `old` was, after `new` was written there under `rule` and acknowledged.
#[track_caller]
fn written_under(rig: &Rig, rule: &str) -> Vec<u8> {
    let mut client = rig.client();
    client.write(0, &old()).expect("a write");
    rig.only(rule);
    client.write(0, &new()).expect("acknowledged");
    rig.clear();
    client.read(0, length()).expect("a read")
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn every_error_of_the_protocol_on_every_command() {
    let rig = Rig::new();
    let errors = [
        ("EPERM", EPERM),
        ("EIO", EIO),
        ("ENOMEM", ENOMEM),
        ("EINVAL", EINVAL),
        ("ENOSPC", ENOSPC),
        ("EOVERFLOW", EOVERFLOW),
        ("ENOTSUP", ENOTSUP),
        ("ESHUTDOWN", ESHUTDOWN),
    ];
    for options in [
        Options::default().context("base:allocation"),
        Options::simple(),
    ] {
        let mut client = rig.server.client_with(&options);
        for (name, number) in errors {
            rig.only(&format!("any error={name}"));
            let expected = Err(Errno(number));
            assert_eq!(client.read(0, 512).map(drop), expected, "READ");
            assert_eq!(client.write(0, &old()), expected, "WRITE");
            assert_eq!(client.flush(), expected, "FLUSH");
            assert_eq!(client.trim(0, 0, 4096), expected, "TRIM");
            assert_eq!(client.write_zeroes(0, 0, 4096), expected, "WRITE_ZEROES");
            assert_eq!(client.cache(0, 4096), expected, "CACHE");
            if options.structured {
                let status = client.transact(CMD_BLOCK_STATUS, 0, 0, 4096, &[]);
                assert_eq!(status.result(), expected, "BLOCK_STATUS");
            }
        }
        rig.clear();
        assert_same(
            &client.read(0, length()).expect("a read"),
            &[0; LENGTH],
            "an error without `after` has no effect",
        );
    }
    rig.finish();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn only_the_commands_that_are_named() {
    let rig = Rig::new();
    let mut client = rig.client();
    rig.only("write,flush error=EIO");
    assert_eq!(client.write(0, &new()), Err(Errno(EIO)));
    assert_eq!(client.flush(), Err(Errno(EIO)));
    assert_eq!(client.read(0, 512).map(drop), Ok(()));
    assert_eq!(client.trim(0, 0, 4096), Ok(()));
    assert_eq!(client.write_zeroes(0, 0, 4096), Ok(()));
    rig.finish();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn an_error_after_the_fact() {
    let rig = Rig::new();
    let mut client = rig.client();
    rig.only("write error=ENOSPC after");
    assert_eq!(client.write(0, &new()), Err(Errno(ENOSPC)));
    rig.clear();
    assert_same(
        &client.read(0, length()).expect("a read"),
        &new(),
        "it was applied all the same",
    );
    rig.finish();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn delays_last_at_least_so_long_and_combine_with_an_action() {
    let rig = Rig::new();
    let mut client = rig.client();
    client.write(0, &old()).expect("a write");
    for (rule, least_ms, fails) in [
        ("read delay=40ms", 40, false),
        ("read delay=30ms..60ms", 30, false),
        ("read delay=40ms error=EIO", 40, true),
        ("read delay=exp:1ms", 0, false),
    ] {
        rig.only(rule);
        let begun = Instant::now();
        let outcome = client.read(0, length());
        let took = begun.elapsed();
        assert!(took >= Duration::from_millis(least_ms), "{rule}: {took:?}");
        assert_eq!(outcome.is_err(), fails, "{rule}");
    }
    // A delayed request doesn't hold up the others.
    let mut events = rig.follow();
    rig.only("flush delay=1h");
    let flush = client.send(CMD_FLUSH, 0, 0, 0, &[]);
    while !events.line(SOON).contains("command=flush") {}
    assert_first_answer_is_a_read(&mut client);
    rig.clear();
    assert_eq!(client.receive().cookie, flush);
    rig.finish();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_hang_lasts_until_the_rule_goes() {
    let rig = Rig::new();
    let mut client = rig.client();
    let mut events = rig.follow();
    let rule = rig.add("write,flush hang");
    let write = client.send(CMD_WRITE, 0, 0, length(), &new());
    let flush = client.send(CMD_FLUSH, 0, 0, 0, &[]);
    for command in ["write", "flush"] {
        let line = events.line(SOON);
        assert!(line.contains(&format!("command={command}")), "{line}");
        assert!(line.ends_with(": hang"), "{line}");
    }
    assert_first_answer_is_a_read(&mut client);
    rig.ok(&format!("fault rm {rule}"));
    let replies = client.receive_all(&[write, flush]);
    assert!(replies.values().all(|reply| reply.error.is_none()));
    assert_same(
        &client.read(0, length()).expect("a read"),
        &new(),
        "what hung was carried out",
    );
    rig.finish();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_drop_closes_the_connection_and_no_other() {
    let rig = Rig::new();
    let mut other = rig.client_of("db");
    for (command, len) in [(CMD_READ, 4096), (CMD_FLUSH, 0)] {
        let mut client = rig.client();
        rig.only("read,flush export= drop");
        client.send(command, 0, 0, len, &[]);
        client.socket().expect_closed();
        rig.clear();
    }
    other.read(0, 512).expect("another connection lives");
    rig.finish();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_drop_in_the_middle_of_the_reply() {
    let rig = Rig::new();
    let simple_header = 16;
    let chunk_header = 20 + 8;
    for (options, header) in [
        (Options::simple(), simple_header),
        (Options::default(), chunk_header),
    ] {
        let mut client = rig.server.client_with(&options);
        client.write(0, &old()).expect("a write");
        rig.only("read drop=mid");
        client.send(CMD_READ, 0, 0, length(), &[]);
        let part = client.socket().receive_to_end();
        let whole = header + LENGTH;
        assert!(
            header < part.len() && part.len() < whole,
            "{} of {whole}",
            part.len()
        );
        let data = &part[header..];
        assert_same(data, &old()[..data.len()], "what came");
        rig.clear();
    }
    rig.finish();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn connections_are_dropped_and_delayed() {
    let rig = Rig::new();
    rig.only("connect nth=2 drop");
    rig.client().read(0, 512).expect("the first");
    let mut second = rig.server.socket();
    second.expect_closed();
    rig.client().read(0, 512).expect("the third");
    rig.only("connect delay=40ms");
    let begun = Instant::now();
    rig.client().read(0, 512).expect("a late one");
    assert!(begun.elapsed() >= Duration::from_millis(40));
    rig.finish();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn exactly_so_many_bits_of_a_read_are_wrong() {
    let rig = Rig::new();
    for options in [Options::default(), Options::simple()] {
        let mut client = rig.server.client_with(&options);
        client.write(0, &old()).expect("a write");
        for count in [1, 3, 64] {
            rig.only(&format!("read corrupt=bits:{count}"));
            let read = client.read(0, length()).expect("a read");
            assert_eq!(differing_bits(&read, &old()), count);
            rig.clear();
            let read = client.read(0, length()).expect("a read");
            assert_same(&read, &old(), "what is stored is well");
        }
    }
    rig.finish();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn exactly_so_many_bits_of_a_write_are_stored_wrong() {
    let rig = Rig::new();
    for count in [1, 5] {
        let stored = written_under(&rig, &format!("write corrupt=bits:{count}"));
        assert_eq!(differing_bits(&stored, &new()), count);
    }
    rig.finish();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn zeroes_and_noise_in_place_of_data() {
    let rig = Rig::new();
    assert_same(
        &written_under(&rig, "write corrupt=zero"),
        &[0; LENGTH],
        "stored zeroes",
    );
    // Half of the bits of noise differ from anything: 32768 here, and 362 is ten times its deviation.
    let half = 64 * 1024 / 2 - 1300..64 * 1024 / 2 + 1300;
    let stored = written_under(&rig, "write corrupt=random");
    assert!(half.contains(&differing_bits(&stored, &new())));
    let mut client = rig.client();
    client.write(0, &old()).expect("a write");
    rig.only("read corrupt=zero");
    let read = client.read(0, length()).expect("a read");
    assert_same(&read, &[0; LENGTH], "read zeroes");
    rig.only("read corrupt=random seed=3");
    let noise = client.read(0, length()).expect("a read");
    assert!(half.contains(&differing_bits(&noise, &old())));
    rig.only("read corrupt=random seed=3");
    let again = client.read(0, length()).expect("a read");
    assert_same(&again, &noise, "the same seed, the same noise");
    rig.finish();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn lost_writes_trims_and_zeroes() {
    let rig = Rig::new();
    assert_same(&written_under(&rig, "write lose"), &old(), "a lost write");
    let mut client = rig.client();
    rig.only("trim,zero,flush lose");
    client.trim(0, 0, length()).expect("acknowledged");
    client.write_zeroes(0, 0, length()).expect("acknowledged");
    client.flush().expect("acknowledged");
    assert_same(
        &client.read(0, length()).expect("a read"),
        &old(),
        "a lost trim and a lost write of zeroes",
    );
    rig.finish();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_torn_write_stores_its_prefix() {
    let rig = Rig::new();
    for kept in [1, 512, 4097] {
        let stored = written_under(&rig, &format!("write tear={kept}"));
        assert_same(&stored[..kept], &new()[..kept], "the prefix");
        assert_same(&stored[kept..], &old()[kept..], "the rest");
    }
    let mut client = rig.client();
    client.write(0, &old()).expect("a write");
    rig.only("zero tear=4097");
    client.write_zeroes(0, 0, length()).expect("acknowledged");
    let stored = client.read(0, length()).expect("a read");
    assert_same(&stored[..4097], &[0; 4097], "zeroes");
    assert_same(&stored[4097..], &old()[4097..], "the rest");
    rig.finish();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_misdirected_write_is_stored_elsewhere() {
    let rig = Rig::new();
    let elsewhere = 100_000;
    let stored = written_under(&rig, &format!("write misdirect={elsewhere}"));
    assert_same(&stored, &old(), "where it was meant to go");
    let mut client = rig.client();
    let found = client.read(elsewhere, length()).expect("a read");
    assert_same(&found, &new(), "where it went");
    rig.finish();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_reply_with_a_cookie_that_nobody_sent() {
    let rig = Rig::new();
    let mut client = rig.client();
    rig.only("write,read garbage");
    let cookie = client.send(CMD_WRITE, 0, 0, length(), &new());
    let reply = client.receive();
    assert_ne!(reply.cookie, cookie);
    assert!(reply.error.is_none());
    let cookie = client.send(CMD_READ, 0, 0, length(), &[]);
    assert_ne!(client.receive().cookie, cookie);
    rig.clear();
    let mut client = rig.client();
    let found = client.read(0, length()).expect("a read");
    assert_same(&found, &new(), "the write was carried out");
    rig.finish();
}
