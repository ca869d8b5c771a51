//! When a rule fires, and at whom.

use serde_json::Value;
use weir_tests::client::Errno;
use weir_tests::client::wire::{CMD_FLAG_FUA, EIO};
use weir_tests::pattern::bytes;
use weir_tests::process::eventually;

use crate::support::{Rig, SOON, failing_reads};

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn counting_triggers() {
    let rig = Rig::new();
    let mut client = rig.client();
    for (triggers, expected) in [
        ("", &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9][..]),
        ("nth=3", &[2]),
        ("every=3", &[2, 5, 8]),
        ("first=2", &[0, 1]),
        ("after=7", &[7, 8, 9]),
        ("times=4", &[0, 1, 2, 3]),
        ("after=2 nth=3", &[4]),
        ("after=2 every=3", &[4, 7]),
        ("every=2 times=2", &[1, 3]),
        ("every=2 first=5", &[1, 3]),
        ("p=0%", &[]),
        ("p=100%", &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ("for=1h first=1", &[0]),
        ("up=1h down=1s", &[]),
        ("up=0s down=1h first=1", &[0]),
    ] {
        rig.only(&format!("read {triggers} error=EIO"));
        assert_eq!(failing_reads(&mut client, 10, 512), expected, "{triggers}");
        let listing = &rig.json("fault list")[0];
        assert_eq!(listing["hits"], 10, "{triggers}");
        assert_eq!(listing["fires"], expected.len(), "{triggers}");
    }
    rig.finish();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn timed_triggers_end_and_come_back() {
    let rig = Rig::new();
    let mut client = rig.client();
    rig.only("read for=200ms error=EIO");
    eventually("the rule's time is over", SOON, || {
        client.read(0, 512).is_ok()
    });
    rig.only("read up=20ms down=20ms error=EIO");
    for well in [true, false, true] {
        eventually("up and down", SOON, || client.read(0, 512).is_ok() == well);
    }
    rig.finish();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn the_same_seed_gives_the_same_sequence() {
    let rig = Rig::new();
    let mut client = rig.client();
    let mut sequence = |rule: &str| {
        rig.only(rule);
        failing_reads(&mut client, 100, 512)
    };
    let first = sequence("read p=50% seed=7 error=EIO");
    assert!((20..80).contains(&first.len()), "{} of 100", first.len());
    assert_eq!(sequence("read p=50% seed=7 error=EIO"), first);
    assert_ne!(sequence("read p=50% seed=8 error=EIO"), first);
    // The order of the words doesn't matter: it is the same rule.
    assert_eq!(sequence("read error=EIO seed=7 p=50%"), first);

    // Without a seed one is drawn, and the list says it.
    let drawn = sequence("read p=50% error=EIO");
    let text = rig.json("fault list")[0]["text"]
        .as_str()
        .expect("words")
        .to_owned();
    assert!(text.contains("seed="), "{text}");
    assert_eq!(sequence(&text), drawn, "{text}");
    rig.finish();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn several_rules_at_one_request() {
    let rig = Rig::new();
    let mut client = rig.client();
    rig.add("read first=2 error=EIO");
    rig.add("read error=ENOMEM");
    assert_eq!(failing(&mut client), "EIO");
    assert_eq!(failing(&mut client), "EIO");
    assert_eq!(failing(&mut client), "ENOMEM");
    let rules = rig.json("fault list");
    let hits = |at: usize| rules[at]["hits"].clone();
    assert_eq!((hits(0), hits(1)), (Value::from(3), Value::from(3)));
    rig.finish();
}

fn failing(client: &mut weir_tests::client::Client) -> String {
    format!("{:?}", client.read(0, 512).expect_err("it fails"))
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn only_some_exports() {
    let rig = Rig::new();
    let (mut file, mut db) = (rig.client(), rig.client_of("db"));
    for (glob, file_fails, db_fails) in [
        ("db", false, true),
        ("d?", false, true),
        ("*", true, true),
        ("", true, false),
    ] {
        rig.only(&format!("read export={glob} error=EIO"));
        assert_eq!(file.read(0, 512).is_err(), file_fails, "{glob}");
        assert_eq!(db.read(0, 512).is_err(), db_fails, "{glob}");
    }
    rig.finish();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn only_one_connection() {
    let rig = Rig::new();
    let mut first = rig.client();
    let id = rig.json("connection list")[0]["id"].clone();
    let mut second = rig.client();
    rig.only(&format!("read conn={id} error=EIO"));
    assert!(first.read(0, 512).is_err());
    assert!(second.read(0, 512).is_ok());
    rig.finish();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn only_what_touches_a_range() {
    let rig = Rig::new();
    let mut client = rig.client();
    rig.only("read offset=4k..8k error=EIO");
    for (offset, length, fails) in [
        (0, 4096, false),
        (0, 4097, true),
        (4096, 1, true),
        (8191, 1, true),
        (8191, 4096, true),
        (8192, 4096, false),
        (0, 65_536, true),
    ] {
        assert_eq!(
            client.read(offset, length).is_err(),
            fails,
            "{offset}+{length}"
        );
    }
    rig.finish();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn only_forced_unit_access() {
    let rig = Rig::new();
    let mut client = rig.client();
    rig.only("write,trim,zero fua error=EIO");
    let data = bytes(1, 4096);
    let fails = Err(Errno(EIO));
    assert_eq!(client.write(0, &data), Ok(()));
    assert_eq!(client.write_flags(CMD_FLAG_FUA, 0, &data), fails);
    assert_eq!(client.trim(0, 0, 4096), Ok(()));
    assert_eq!(client.trim(CMD_FLAG_FUA, 0, 4096), fails);
    assert_eq!(client.write_zeroes(0, 0, 4096), Ok(()));
    assert_eq!(client.write_zeroes(CMD_FLAG_FUA, 0, 4096), fails);
    rig.finish();
}
