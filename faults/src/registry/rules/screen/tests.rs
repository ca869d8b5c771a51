use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use proptest::prelude::*;

use crate::event::Firing;
use crate::kind::RequestKind::{self, Flush, Read, Trim, Write};
use crate::registry::rules::{Decision, Screen};
use crate::registry::{Faults, lock};
use crate::rule::{Fate, RequestView};

/// How long a thread may take for a few decisions before it counts as stuck.
const STUCK: Duration = Duration::from_secs(10);

fn fate(decision: &Decision) -> Fate {
    Fate {
        delay: decision.delay,
        action: decision.action,
        seed: decision.seed,
    }
}

fn with(rules: &[String]) -> Faults {
    let faults = Faults::new();
    faults.add_device("db");
    for rule in rules {
        faults
            .add_rule(rule)
            .unwrap_or_else(|error| panic!("{rule}: {error}"));
    }
    faults
}

#[test]
fn a_screen_sees_rules_come_and_go() {
    let faults = with(&[]);
    let mut screen = faults.screen("db", 1);
    let mut fires = |kind, offset| screen.decide(kind, offset, 512, false).is_some();
    assert!(!fires(Read, 0));
    let near = faults
        .add_rule("read offset=0..4k error=EIO")
        .expect("added");
    assert!(fires(Read, 0) && !fires(Read, 4096) && !fires(Write, 0));
    faults
        .add_rule("read offset=1M..2M error=EIO")
        .expect("added");
    assert!(fires(Read, 0) && fires(Read, 1 << 20) && !fires(Read, 4096));
    faults.remove_rule(near).expect("there");
    assert!(!fires(Read, 0) && fires(Read, 1 << 20));
    faults.clear_rules();
    assert!(!fires(Read, 1 << 20));
}

#[test]
fn a_screen_is_about_its_export_and_connection() {
    let faults = with(&[]);
    faults.add_device("web");
    faults
        .add_rule("read export=d* conn=1 error=EIO")
        .expect("added");
    let fires = |export: &str, connection| {
        let mut screen = faults.screen(export, connection);
        screen.decide(Read, 0, 512, false).is_some()
    };
    assert!(fires("db", 1));
    assert!(!fires("db", 2) && !fires("web", 1));
    assert_eq!(faults.rules()[0].hits, 1);
}

/// While the rules' mutex is held, decisions about requests that no rule covers are made all the same.
#[test]
fn what_nothing_covers_takes_no_lock() {
    let faults = with(&[
        "write error=EIO".to_owned(),
        "read offset=1M..2M error=EIO".to_owned(),
    ]);
    let mut screen = faults.screen("db", 1);
    let mut passes = move || {
        [(Read, 0), (Read, 2 << 20), (Trim, 0)]
            .into_iter()
            .all(|(kind, offset)| screen.decide(kind, offset, 4096, false).is_none())
    };
    // The first pass of each command is noted once under each version.
    assert!(passes());
    let (done, decided) = mpsc::channel();
    let held = lock(&faults.shared.rules.request.inner);
    let thread = thread::spawn(move || done.send(passes()));
    let decided = decided.recv_timeout(STUCK);
    drop(held);
    thread.join().expect("joined").expect("sent");
    assert_eq!(decided, Ok(true));
}

/// One step of a run: what is asked, and of which connection.
type Step = (RequestKind, u64, u64, bool, usize);

fn rule() -> impl Strategy<Value = String> {
    let commands = prop_oneof![
        Just("read"),
        Just("write"),
        Just("any"),
        Just("read,trim"),
        Just("flush")
    ];
    let filters = prop_oneof![
        Just(""),
        Just(" offset=0..4k"),
        Just(" offset=4k..8k"),
        Just(" offset=16k..1M"),
        Just(" conn=1"),
        Just(" export=d*"),
        Just(" export=w?b")
    ];
    let triggers = prop_oneof![
        Just(""),
        Just(" every=2"),
        Just(" p=40%"),
        Just(" nth=3"),
        Just(" times=2")
    ];
    (commands, filters, triggers, 0..9_u64).prop_map(|(commands, filters, triggers, seed)| {
        // A FLUSH has no offset.
        let filters = if commands == "flush" { "" } else { filters };
        format!("{commands}{filters}{triggers} delay=1ms..9ms seed={seed}")
    })
}

fn step() -> impl Strategy<Value = Step> {
    let kind = prop_oneof![Just(Read), Just(Write), Just(Trim), Just(Flush)];
    (kind, 0..8_u64, 1..3_u64, any::<bool>(), 0..3_usize).prop_map(
        |(kind, block, blocks, fua, asker)| match kind {
            Flush => (kind, 0, 0, false, asker),
            _ => (kind, block * 4096, blocks * 4096, fua, asker),
        },
    )
}

proptest! {
    /// Rules come and go under way; a screen decides as the registry does when it is asked outright, events included.
    #[test]
    fn a_screen_changes_no_decision(
        rules in prop::collection::vec(rule(), 1..5),
        steps in prop::collection::vec(step(), 1..80),
        change_at in 0..80_usize,
    ) {
        const ASKERS: [(&str, u64); 3] = [("db", 1), ("web", 2), ("db", 3)];
        let (outright, screened) = (with(&[]), with(&[]));
        for faults in [&outright, &screened] {
            faults.add_device("web");
            faults.add_rule(&rules[0]).expect("added");
        }
        let mut screens = ASKERS.map(|(export, connection)| screened.screen(export, connection));
        for (number, (kind, offset, length, fua, asker)) in steps.into_iter().enumerate() {
            if number == change_at {
                for faults in [&outright, &screened] {
                    for rule in &rules[1..] {
                        faults.add_rule(rule).expect("added");
                    }
                    faults.remove_rule(1).expect("there");
                }
            }
            let (export, connection) = ASKERS[asker];
            let view = RequestView { export, connection, kind, offset, length, fua };
            let screen: &mut Screen = &mut screens[asker];
            prop_assert_eq!(
                screen.decide(kind, offset, length, fua).as_ref().map(fate),
                outright.decide(&view).as_ref().map(fate)
            );
        }
        let firings = |faults: &Faults| -> Vec<_> {
            faults.events_since(0).into_iter().map(|event| event.firing).collect()
        };
        prop_assert_eq!(firings(&screened), firings(&outright));
    }
}

/// A request that has looked at the version just before a rule came, which can't know of it, and is the first of its
/// command.
#[test]
fn a_rule_that_comes_while_the_first_request_passes_decides_about_it() {
    let faults = with(&["write error=EIO".to_owned()]);
    let mut screen = faults.screen("db", 1);
    faults.add_rule("read nth=2 error=EIO").expect("added");
    assert!(screen.decide_as_seen(Read, 0, 512, false).is_none());
    assert_eq!(faults.rules()[1].hits, 1, "the rule has seen it");
    assert!(screen.decide(Read, 0, 512, false).is_some());
    assert_eq!(last_occurrence(&faults), Some(2), "and it is counted");
}

/// The second request of its command may pass uncounted, but then the rule is late, and says so.
#[test]
fn a_rule_that_comes_while_another_request_passes_is_late() {
    let faults = with(&["write error=EIO".to_owned()]);
    let mut screen = faults.screen("db", 1);
    assert!(screen.decide(Read, 0, 512, false).is_none());
    faults.add_rule("read error=EIO").expect("added");
    assert!(screen.decide_as_seen(Read, 0, 512, false).is_none());
    assert!(screen.decide(Read, 0, 512, false).is_some());
    assert_eq!(last_occurrence(&faults), None);
}

/// As above, for callers that ask without a screen.
#[test]
fn the_word_in_front_of_the_rules_lets_no_first_request_slip_by() {
    let faults = with(&["write error=EIO".to_owned()]);
    let set = &faults.shared.rules.request;
    let word = set.word();
    faults.add_rule("read error=EIO").expect("added");
    assert!(!set.passes_others(Read, word));
    assert!(set.passes_others(Trim, word));
    faults.add_rule("trim error=EIO").expect("added");
    assert!(faults.screen("db", 1).decide(Trim, 0, 512, false).is_some());
    assert_eq!(last_occurrence(&faults), None);
}

fn last_occurrence(faults: &Faults) -> Option<u64> {
    match &faults.events_since(0).last().expect("an event").firing {
        Firing::Rule(rule) => rule.occurrence,
        _ => panic!("not a rule's event"),
    }
}
