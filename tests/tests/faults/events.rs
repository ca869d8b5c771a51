//! What fired, told and fed back.

use std::fs;

use serde_json::Value;
use weir_tests::client::wire::EIO;
use weir_tests::client::{Client, Errno};
use weir_tests::pattern::{Pattern, bytes};

use crate::support::{Rig, SOON};

/// Requests of a workload.
const REQUESTS: usize = 200;

/// READs and WRITEs of a few places, in an order that depends on nothing; which of them fail.
#[track_caller]
fn workload(client: &mut Client) -> Vec<usize> {
    let mut choices = Pattern::new(11);
    let data = bytes(1, 8192);
    let mut failing = Vec::new();
    for index in 0..REQUESTS {
        let offset = choices.below(8) * 4096;
        let length = 4096 * (1 + choices.below(2));
        let outcome = if choices.below(2) == 0 {
            let length = u32::try_from(length).expect("small");
            client.read(offset, length).map(drop)
        } else {
            let length = usize::try_from(length).expect("small");
            client.write(offset, &data[..length])
        };
        match outcome {
            Ok(()) => {}
            Err(Errno(EIO)) => failing.push(index),
            Err(other) => panic!("request {index}: {other:?}"),
        }
    }
    failing
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn the_events_of_a_run_make_the_same_requests_fail_again() {
    let rig = Rig::new();
    rig.add("read p=20% error=EIO");
    rig.add("write p=10% error=EIO delay=1ms");
    let failing = workload(&mut rig.client());
    assert!((10..100).contains(&failing.len()), "{}", failing.len());

    for form in ["fault events", "fault events --json"] {
        let events = rig.ok(form);
        let kept: Vec<_> = events.lines().take(failing.len()).collect();
        assert_eq!(kept.len(), failing.len(), "one event for each failure");
        fs::write(rig.folder().join("events"), kept.join("\n")).expect("a file");
        rig.clear();
        assert!(workload(&mut rig.client()).is_empty());
        let said = rig.ok("fault replay events");
        assert!(
            said.starts_with(&format!("{} requests", failing.len())),
            "{said}"
        );
        let mut client = rig.client();
        assert_eq!(workload(&mut client), failing, "{form}");
        assert!(workload(&mut client).is_empty(), "each fate is met once");
    }
    rig.finish();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn the_backends_events_are_fed_back_too() {
    let rig = Rig::new();
    let run = |client: &mut Client| -> Vec<bool> {
        (0..12)
            .map(|index| {
                client.write(index * 4096, &[1; 4096]).expect("a write");
                client.flush().is_err()
            })
            .collect()
    };
    let mut client = rig.client();
    rig.add("write at=backend p=50% seed=5 error=EIO");
    // What failed is tried again with the next: the same run twice writes the same ranges.
    let first = run(&mut client);
    assert!(first.contains(&true) && first.contains(&false), "{first:?}");
    let events = rig.ok("fault events");
    rig.clear();
    client.flush().expect("all is stored");
    fs::write(rig.folder().join("events"), events).expect("a file");
    rig.ok("fault replay events");
    assert_eq!(run(&mut client), first);
    rig.finish();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn an_event_says_what_happened_to_whom() {
    let rig = Rig::new();
    let mut client = rig.client_of("db");
    let connection = rig.json("connection list")[0]["id"].clone();
    let mut follower = rig.follow();
    let rule = rig.add("read nth=2 error=EIO");
    for _ in 0..3 {
        drop(client.read(4096, 512));
    }
    let line = follower.line(SOON);
    for part in [
        &format!("rule={rule} "),
        " at=request ",
        " export=db ",
        &format!(" conn={connection} "),
        " command=read ",
        " offset=4096 ",
        " length=512 ",
        " occurrence=2: error=EIO",
    ] {
        assert!(line.contains(part), "nothing of {part:?} in {line}");
    }
    let json: Value = serde_json::from_str(rig.ok("fault events --json").trim()).expect("one");
    for (name, value) in [
        ("number", Value::from(1)),
        ("rule", Value::from(rule)),
        ("export", Value::from("db")),
        ("connection", connection),
        ("command", Value::from("read")),
        ("offset", Value::from(4096)),
        ("length", Value::from(512)),
        ("occurrence", Value::from(2)),
    ] {
        assert_eq!(json[name], value, "{name} in {json}");
    }
    // Points' firings are events, too.
    rig.clear();
    rig.ok("point set class session:operate times 1 error ENOMEM");
    client.flush().expect_err("it fails");
    let line = follower.line(SOON);
    assert!(line.contains("class=session:operate"), "{line}");
    assert!(line.contains("within=flush"), "{line}");
    rig.finish();
}
