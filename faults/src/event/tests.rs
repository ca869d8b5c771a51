use super::{DeviceFiring, EVENTS_KEPT, Event, EventLog, Firing, PointFiring, RuleFiring, Script};
use crate::kind::RequestKind;
use crate::rule::{Fate, Layer};

fn rule_event(export: &str) -> Event {
    let decision: Fate = "delay=20ms error=EIO after".parse().expect("a decision");
    let firing = RuleFiring {
        rule: 3,
        at: Layer::Request,
        export: export.to_owned(),
        connection: Some(2),
        command: RequestKind::Write,
        offset: 4096,
        length: 512,
        occurrence: Some(1),
        decision,
    };
    Event {
        number: 0,
        time_us: 1_234_567,
        firing: Firing::Rule(firing),
    }
}

fn point_event() -> Event {
    let firing = PointFiring {
        file: "cache/src/read.rs".to_owned(),
        line: 12,
        class: "cache:insert".to_owned(),
        function: "fill".to_owned(),
        within: "read,write".to_owned(),
        fire: 4,
        action: "probability 5% seed 1 error EIO".to_owned(),
    };
    Event {
        number: 0,
        time_us: 5,
        firing: Firing::Point(firing),
    }
}

fn device_event(export: &str) -> Event {
    let firing = DeviceFiring {
        export: export.to_owned(),
        action: "power-cut keep=random tear=512 seed=7".to_owned(),
    };
    Event {
        number: 0,
        time_us: 9,
        firing: Firing::Device(firing),
    }
}

#[test]
fn a_power_cut_is_an_event_that_no_request_is_recognised_by() {
    let text = "time=9us device=db: power-cut keep=random tear=512 seed=7";
    assert_eq!(device_event("db").to_string(), text);
    let script = Script::parse(text).expect("parsed");
    assert_eq!((script.len(), script.skipped()), (0, 1));
}

#[test]
fn events_print_what_parses_back() {
    let event = rule_event("db");
    let line = "time=1234567us rule=3 at=request export=db conn=2 command=write offset=4096 length=512 occurrence=1: \
                delay=20ms error=EIO after";
    assert_eq!(event.to_string(), line);
    for event in [
        event,
        rule_event(""),
        rule_event("a b: %=\n\u{e9}"),
        point_event(),
        device_event(""),
        device_event("a b: %"),
    ] {
        assert_eq!(event.to_string().parse().as_ref(), Ok(&event), "{event}");
        let json = serde_json::to_value(&event).expect("json");
        assert_eq!(
            serde_json::from_value::<Event>(json).expect("parsed"),
            event
        );
    }
    let json = serde_json::to_value(rule_event("db")).expect("json");
    assert_eq!(json["source"], "rule");
    assert_eq!(json["command"], "write");
    assert_eq!(json["decision"], "delay=20ms error=EIO after");
}

#[test]
fn a_wrong_script_is_refused_by_word() {
    for (text, complaint) in [
        ("nonsense", "after `nonsense`: missing a colon"),
        (
            "time=5us rule=1 at=moon: hang",
            "`moon`: expected request or backend",
        ),
        ("time=5us rule=1 at=request: hang", "missing command="),
        ("time=5 rule=1: hang", "`5`: expected microseconds"),
        (
            "time=5us rule=1 at=request export=%4 command=read offset=0 length=1: hang",
            "`%4`: expected a percent",
        ),
        (
            "time=5us rule=1 at=request export= command=reed offset=0 length=1: hang",
            "`reed`: expected a command",
        ),
        (
            "time=5us rule=1 at=request export= command=read offset=0 length=1: wait",
            "`wait`: expected one of error",
        ),
        ("time=5us what: hang", "`what`: expected name=value"),
    ] {
        let error = Script::parse(text).expect_err(text).to_string();
        assert!(error.contains(complaint), "{text}: {error}");
    }
}

#[test]
fn scripts_skip_what_no_request_can_be_recognised_by() {
    let mut uncounted = rule_event("db");
    if let Firing::Rule(firing) = &mut uncounted.firing {
        firing.occurrence = None;
    }
    let script = Script::from_events(&[rule_event("db"), point_event(), uncounted]);
    assert_eq!((script.len(), script.skipped()), (1, 2));
    assert!(Script::parse("\n  \n").expect("empty").is_empty());
}

#[tokio::test]
async fn the_ring_is_bounded_and_followers_see_the_gap() {
    let log = EventLog::default();
    let mut newest = log.newest();
    for _ in 0..EVENTS_KEPT + 10 {
        log.push(point_event().firing);
    }
    newest.wait_for(|newest| *newest > 0).await.expect("open");
    let kept = log.since(0, usize::MAX);
    assert_eq!((kept.len(), kept[0].number), (EVENTS_KEPT, 11));
    assert_eq!(log.since(kept[kept.len() - 2].number, usize::MAX).len(), 1);
    assert!(log.since(u64::MAX, 1).is_empty());
    let numbers: Vec<_> = log.since(20, 3).iter().map(|event| event.number).collect();
    assert_eq!(numbers, [21, 22, 23], "the first of them");
}
