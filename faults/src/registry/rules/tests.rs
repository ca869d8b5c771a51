use std::time::Duration;

use crate::errno::Errno;
use crate::event::{Event, Firing, REPLAY, Script};
use crate::kind::RequestKind::{self, Flush, Read, Write};
use crate::registry::Faults;
use crate::registry::rules::{Decision, NoSuchRule, RULES_MAX};
use crate::rule::{Action, BackendView, Fate, RequestView};

fn view(kind: RequestKind, offset: u64, length: u64) -> RequestView<'static> {
    RequestView {
        export: "db",
        connection: 1,
        kind,
        offset,
        length,
        fua: false,
    }
}

fn decide(faults: &Faults, kind: RequestKind, offset: u64, length: u64) -> Option<Decision> {
    faults.decide(&view(kind, offset, length))
}

/// A registry with that rule, and an export `db`.
fn with(rule: &str) -> Faults {
    let faults = Faults::new();
    faults.add_device("db");
    faults
        .add_rule(rule)
        .unwrap_or_else(|error| panic!("{rule}: {error}"));
    faults
}

fn fires(faults: &Faults, count: usize) -> Vec<usize> {
    (1..=count)
        .filter(|_| decide(faults, Read, 0, 512).is_some())
        .collect()
}

#[test]
fn no_rule_decides_nothing_and_counts_nothing() {
    let faults = Faults::new();
    assert!(decide(&faults, Read, 0, 1).is_none());
    let id = faults.add_rule("write error=EIO").expect("added");
    assert!(decide(&faults, Read, 0, 1).is_none());
    assert_eq!((faults.rules()[0].hits, faults.newest_event()), (0, 0));
    assert_eq!(faults.remove_rule(id), Ok(()));
    assert_eq!(faults.remove_rule(id), Err(NoSuchRule(id)));
    assert!(decide(&faults, Write, 0, 1).is_none());
}

#[test]
fn filters_match_what_they_say() {
    let base = RequestView {
        export: "db",
        connection: 2,
        kind: Write,
        offset: 4096,
        length: 512,
        fua: true,
    };
    let hit = |rule: &str, view: &RequestView<'_>| with(rule).decide(view).is_some();
    for (rule, expected) in [
        ("any drop", true),
        ("write drop", true),
        ("read,flush drop", false),
        ("write export=db drop", true),
        ("write conn=2 drop", true),
        ("write conn=1 drop", false),
        ("write fua drop", true),
        ("write offset=4607..8k drop", true),
        ("write offset=4608..8k drop", false),
        ("write offset=0..4096 drop", false),
        ("write offset=0..4097 drop", true),
        ("any offset=0..1M drop", true),
    ] {
        assert_eq!(hit(rule, &base), expected, "{rule}");
    }
    assert!(!hit("write fua drop", &RequestView { fua: false, ..base }));
    assert!(!hit(
        "write export=db drop",
        &RequestView {
            export: "other",
            ..base
        }
    ));
    assert!(!hit(
        "any drop",
        &RequestView {
            kind: RequestKind::Connect,
            ..base
        }
    ));
    assert!(hit(
        "connect drop",
        &RequestView {
            kind: RequestKind::Connect,
            ..base
        }
    ));
    assert!(!hit(
        "any offset=0..1M drop",
        &RequestView {
            kind: Flush,
            offset: 0,
            length: 0,
            ..base
        }
    ));
    // Another layer refuses a request that runs past 2^64; here it must not wrap around.
    let wrapping = RequestView {
        offset: u64::MAX - 1,
        length: 5,
        ..base
    };
    assert!(!hit("write offset=0..15E drop", &wrapping));
}

#[test]
fn an_export_that_is_none_is_refused() {
    let faults = with("any delay=1s");
    let error = faults
        .add_rule("write export=web* lose")
        .expect_err("no such export")
        .to_string();
    assert_eq!(error, "`export=web*`: matches no export; there are \"db\"");
    assert!(faults.add_rule("write export=d? lose").is_ok());
    faults.remove_device("db");
    assert!(faults.add_rule("write export=d? lose").is_err());
}

#[test]
fn triggers_fire_at_the_hits_they_name() {
    for (triggers, expected) in [
        ("", vec![1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ("nth=3", vec![3]),
        ("every=3", vec![3, 6, 9]),
        ("first=2", vec![1, 2]),
        ("after=7", vec![8, 9]),
        ("times=4", vec![1, 2, 3, 4]),
        ("after=2 nth=3", vec![5]),
        ("after=2 every=3", vec![5, 8]),
        ("every=2 times=2", vec![2, 4]),
        ("every=2 first=5", vec![2, 4]),
        ("p=100%", vec![1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ("p=0%", vec![]),
        ("up=0s down=1s", vec![1, 2, 3, 4, 5, 6, 7, 8, 9]),
    ] {
        let faults = with(&format!("read {triggers} error=EIO"));
        assert_eq!(fires(&faults, 9), expected, "{triggers}");
        let listing = &faults.rules()[0];
        assert_eq!((listing.hits, listing.fires), (9, expected.len() as u64));
    }
}

#[test]
fn the_same_seed_repeats_the_same_decisions_wherever_the_rule_stands() {
    let sequence = |faults: &Faults| -> Vec<Option<(Option<Duration>, u64)>> {
        (0..200)
            .map(|_| decide(faults, Read, 0, 512).map(|decision| (decision.delay, decision.seed)))
            .collect()
    };
    let rule = "read p=30% delay=1ms..9ms corrupt=bits:2 seed=5";
    let faults = with(rule);
    let once = sequence(&faults);
    let count = once.iter().flatten().count();
    assert!((30..90).contains(&count), "{count}");
    faults.clear_rules();
    faults.add_rule("write error=EIO").expect("added");
    faults
        .add_rule(rule)
        .expect("added again, with another number");
    assert_eq!(sequence(&faults), once);

    assert_ne!(
        sequence(&with("read p=30% delay=1ms..9ms corrupt=bits:2 seed=6")),
        once
    );

    // A seed that was drawn is shown, and repeats, too.
    let faults = with("read p=30% delay=exp:5ms");
    let text = faults.rules()[0].text.clone();
    let drawn = sequence(&faults);
    assert_eq!(sequence(&with(&text)), drawn);
}

#[test]
fn delays_stay_in_their_bounds() {
    let faults = with("read delay=20ms..80ms");
    for _ in 0..200 {
        let delay = decide(&faults, Read, 0, 1)
            .and_then(|decision| decision.delay)
            .expect("a delay");
        assert!((Duration::from_millis(20)..Duration::from_millis(80)).contains(&delay));
    }
    let faults = with("read delay=exp:10ms seed=1");
    let delays = (0..2000).filter_map(|_| decide(&faults, Read, 0, 1)?.delay);
    let mean = delays.sum::<Duration>() / 2000;
    assert!(
        (Duration::from_millis(9)..Duration::from_millis(11)).contains(&mean),
        "{mean:?}"
    );
}

#[test]
fn several_rules_add_delays_and_the_first_action_holds() {
    let faults = with("read delay=10ms");
    let actor = faults.add_rule("read delay=5ms error=EIO").expect("added");
    faults.add_rule("read nth=1 drop").expect("added");
    let decision = decide(&faults, Read, 0, 1).expect("fires");
    assert_eq!(decision.rule, actor);
    assert_eq!(decision.delay, Some(Duration::from_millis(15)));
    assert_eq!(
        decision.action,
        Some(Action::Error {
            errno: Errno::EIO,
            applied: false
        })
    );
    assert_eq!(faults.newest_event(), 3);
}

#[tokio::test(start_paused = true)]
async fn up_down_and_for_go_by_the_clock() {
    let faults = with("read up=5s down=2s error=EIO");
    let limited = with("read for=3s error=EIO");
    let mut seen = Vec::new();
    for second in 0..15 {
        if decide(&faults, Read, 0, 1).is_some() {
            seen.push(second);
        }
        assert_eq!(decide(&limited, Read, 0, 1).is_some(), second < 3);
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    assert_eq!(seen, [5, 6, 12, 13]);
}

#[tokio::test(start_paused = true)]
async fn a_hang_lasts_until_the_rule_goes_or_the_device_is_interrupted() {
    let faults = with("read delay=1s hang");
    let hang = |faults: &Faults| {
        let mut decision = decide(faults, Read, 0, 1).expect("fires");
        tokio::spawn(async move { decision.wait().await })
    };
    let first = hang(&faults);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(!first.is_finished());
    faults.device("db").expect("there").interrupt();
    first.await.expect("ended");
    let second = hang(&faults);
    tokio::task::yield_now().await;
    assert!(!second.is_finished());
    faults.remove_rule(1).expect("there");
    second.await.expect("ended");
}

#[tokio::test(start_paused = true)]
async fn a_delay_is_waited_out_and_ends_with_the_rule() {
    let faults = with("read delay=5s error=EIO");
    let start = tokio::time::Instant::now();
    decide(&faults, Read, 0, 1).expect("fires").wait().await;
    assert_eq!(start.elapsed(), Duration::from_secs(5));
    let mut decision = decide(&faults, Read, 0, 1).expect("fires");
    faults.clear_rules();
    decision.wait().await;
    assert_eq!(start.elapsed(), Duration::from_secs(5));
}

#[test]
fn layers_do_not_see_each_other() {
    let faults = with("write at=backend error=ENOSPC");
    assert!(decide(&faults, Write, 0, 1).is_none());
    let io = BackendView {
        export: "db",
        kind: Write,
        offset: 0,
        length: 4096,
    };
    let decision = faults.decide_backend(&io).expect("fires");
    assert_eq!(
        decision.action,
        Some(Action::Error {
            errno: Errno::ENOSPC,
            applied: false
        })
    );
    assert!(
        faults
            .decide_backend(&BackendView { kind: Read, ..io })
            .is_none()
    );
    assert_eq!(faults.clear_rules(), 1);
    assert!(faults.decide_backend(&io).is_none());
}

#[test]
fn rules_are_limited() {
    let faults = Faults::new();
    for _ in 0..RULES_MAX {
        faults.add_rule("write lose").expect("below the limit");
    }
    assert!(
        faults
            .add_rule("write lose")
            .expect_err("full")
            .to_string()
            .contains("1024 rules")
    );
    assert!(faults.add_rule("wriet lose").is_err());
    assert_eq!(faults.rules().len(), RULES_MAX);
}

#[tokio::test]
async fn replayed_events_make_the_same_requests_fail() {
    let requests: Vec<(RequestKind, u64)> = (0..300)
        .map(|i| (if i % 3 == 0 { Write } else { Read }, i % 7 * 512))
        .collect();
    let run = |faults: &Faults| -> Vec<Option<Fate>> {
        let decide = |(kind, offset): &(RequestKind, u64)| {
            decide(faults, *kind, *offset, 512).map(
                |Decision {
                     delay,
                     action,
                     seed,
                     ..
                 }| Fate {
                    delay,
                    action,
                    seed,
                },
            )
        };
        requests.iter().map(decide).collect()
    };
    let faults = with("read p=20% corrupt=bits:3");
    faults.add_rule("any p=10% delay=1ms..2ms").expect("added");
    faults
        .add_rule("write p=30% error=ENOSPC after")
        .expect("added");
    let original = run(&faults);
    let events = faults.next_events(0, usize::MAX).await;
    assert!(events.len() > 50, "{}", events.len());

    let text: String = events.iter().map(|event| format!("{event}\n")).collect();
    let json = serde_json::to_string(&events).expect("json");
    let from_json: Vec<Event> = serde_json::from_str(&json).expect("parsed");
    assert_eq!(from_json, events);
    for script in [
        Script::parse(&text).expect("parsed"),
        Script::from_events(&from_json),
    ] {
        let again = Faults::new();
        assert_eq!(again.replay(&script), original.iter().flatten().count());
        assert_eq!(run(&again), original);
        assert!(run(&again).iter().all(Option::is_none), "each is used once");
        let Firing::Rule(firing) = &again.events_since(0)[0].firing else {
            panic!("a rule's event")
        };
        assert_eq!(firing.rule, REPLAY);
        again.clear_rules();
    }
}

#[test]
fn what_is_replayed_is_listed_until_it_is_removed() {
    let line = |at: &str, offset: u64| {
        format!(
            "time=1us rule=1 at={at} export= conn=1 command=read offset={offset} length=512 occurrence=1: error=EIO\n"
        )
    };
    let text = line("request", 0) + &line("request", 512) + &line("backend", 0);
    let faults = Faults::new();
    assert_eq!(faults.replaying(), None);
    assert_eq!(faults.replay(&Script::parse(&text).expect("parsed")), 3);
    let request = RequestView {
        export: "",
        connection: 7,
        kind: RequestKind::Read,
        offset: 512,
        length: 512,
        fua: false,
    };
    assert!(faults.decide(&request).is_some());
    let listing = faults.replaying().expect("listed");
    assert_eq!((listing.id, listing.hits, listing.fires), (REPLAY, 3, 1));
    assert_eq!(listing.text, "replay: 2 of 3 requests are still to come");
    assert!(faults.rules().is_empty(), "it is no rule");
    assert_eq!(faults.remove_rule(REPLAY), Ok(()));
    assert_eq!(faults.replaying(), None);
    assert_eq!(faults.remove_rule(REPLAY), Err(NoSuchRule(REPLAY)));
}
