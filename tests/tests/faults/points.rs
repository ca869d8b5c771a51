//! Points in the code, controlled while a client is at work.

use std::collections::BTreeSet;

use weir_tests::client::Errno;
use weir_tests::client::wire::*;
use weir_tests::pattern::{assert_same, bytes};
use weir_tests::process::eventually;

use crate::support::{Rig, SOON, assert_first_answer_is_a_read};

/// How many places in the code there are at least.
const PLACES_MIN: usize = 40;

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn all_are_listed_before_any_was_hit() {
    let rig = Rig::new();
    let listed = rig.ok("point list");
    let mut places = BTreeSet::new();
    for line in listed.lines() {
        let (place, rest) = line.split_once(' ').expect("words");
        let (file, number) = place.rsplit_once(':').expect("FILE:LINE");
        assert!(file.ends_with(".rs"), "{line}");
        assert!(
            number.parse::<u32>().is_ok_and(|number| number > 0),
            "{line}"
        );
        for word in ["class=", "func=", "kind=", "errors="] {
            assert!(rest.contains(word), "no {word} in {line}");
        }
        assert!(rest.ends_with(" hits=0 fires=0 state=off"), "{line}");
        places.insert(place.to_owned());
    }
    assert!(places.len() >= PLACES_MIN, "{} places", places.len());
    for kind in ["fault", "race", "function"] {
        assert!(!rig.ok(&format!("point list kind {kind}")).is_empty());
    }
    let json = rig.json("point list class backend:write");
    for point in json.as_array().expect("an array") {
        for name in [
            "file", "line", "function", "module", "class", "kind", "errors", "hits", "fires",
            "state",
        ] {
            assert!(!point[name].is_null(), "no {name} in {point}");
        }
        assert_eq!(point["state"], "off");
    }
    rig.finish();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn an_error_by_class() {
    let rig = Rig::new();
    let mut client = rig.client();
    rig.ok("point set class backend:write error ENOSPC");
    client.write(0, &bytes(1, 4096)).expect("memory takes it");
    assert_eq!(client.flush(), Err(Errno(ENOSPC)));
    let armed = rig.ok("point list class backend:write");
    assert!(armed.contains("state=error ENOSPC"), "{armed}");
    assert!(
        armed.lines().any(|line| !line.contains(" hits=0 ")),
        "{armed}"
    );
    assert!(
        armed.lines().any(|line| !line.contains(" fires=0 ")),
        "{armed}"
    );
    rig.ok("point set class backend:write disable");
    client.flush().expect("it is disarmed");
    rig.finish();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn an_error_under_one_kind_of_request_only() {
    let rig = Rig::new();
    let mut client = rig.client();
    rig.ok("point set class session:operate within flush error EIO");
    assert_eq!(client.trim(0, 0, 4096), Ok(()));
    assert_eq!(client.flush(), Err(Errno(EIO)));
    rig.ok("point set class session:operate within trim,zero oneshot error EIO");
    assert_eq!(client.flush(), Ok(()));
    assert_eq!(client.trim(0, 0, 4096), Err(Errno(EIO)));
    assert_eq!(client.trim(0, 0, 4096), Ok(()));
    rig.finish();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_request_is_paused_and_released() {
    let rig = Rig::new();
    let mut client = rig.client();
    client.write(0, &bytes(1, 4096)).expect("a write");
    rig.ok("point set class cache:flush:snapshot pause");
    let flush = client.send(CMD_FLUSH, 0, 0, 0, &[]);
    eventually("the flush is paused", SOON, || {
        rig.ok("point list class cache:flush:snapshot")
            .contains(" paused=1 ")
    });
    assert_first_answer_is_a_read(&mut client);
    let said = rig.ok("point release class cache:flush:snapshot");
    assert_eq!(said, "1 released\n");
    let reply = client.receive();
    assert_eq!((reply.cookie, reply.error), (flush, None));
    rig.finish();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_reset_disarms_and_lets_everybody_go() {
    let rig = Rig::new();
    let mut client = rig.client();
    rig.ok("point set class session:operate pause");
    let flush = client.send(CMD_FLUSH, 0, 0, 0, &[]);
    eventually("the flush is paused", SOON, || {
        rig.ok("point list class session:operate")
            .contains(" paused=1 ")
    });
    rig.ok("point reset");
    assert_eq!(client.receive().cookie, flush);
    let listed = rig.ok("point list");
    for line in listed.lines() {
        assert!(line.ends_with(" hits=0 fires=0 state=off"), "{line}");
    }
    rig.finish();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn lost_races_are_seen_by_nobody() {
    let rig = Rig::with(|builder| builder.option("--cache-size", "1M"));
    rig.ok("point set class cache:race frequency 2");
    let mut client = rig.client();
    let data = bytes(5, 4 << 20);
    for (index, piece) in data.chunks(128 << 10).enumerate() {
        let offset = (index as u64) * (128 << 10);
        client.write(offset, piece).expect("a write");
    }
    client.flush().expect("a flush");
    for (index, piece) in data.chunks(128 << 10).enumerate() {
        let offset = (index as u64) * (128 << 10);
        let read = client.read(offset, 128 << 10).expect("a read");
        assert_same(&read, piece, "what was written");
    }
    let points = rig.json("point list class cache:race");
    let points = points.as_array().expect("an array");
    let fires: u64 = points
        .iter()
        .filter_map(|point| point["fires"].as_u64())
        .sum();
    assert!(fires > 0, "no race was lost");
    rig.finish();
}
