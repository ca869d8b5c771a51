use super::{OCCURRENCES_MAX, Occurrences, RequestKey};
use crate::event::{Event, Firing, Script};
use crate::kind::RequestKind::{self, Flush, Read, Trim, Write, Zero};
use crate::registry::Faults;
use crate::registry::rules::Decision;
use crate::rng::Rng;
use crate::rule::Fate;

fn faults_with(rules: &[&str]) -> Faults {
    let faults = Faults::new();
    for name in ["db", "web"] {
        faults.add_device(name);
    }
    for rule in rules {
        faults
            .add_rule(rule)
            .unwrap_or_else(|error| panic!("{rule}: {error}"));
    }
    faults
}

/// The fates of a run of requests of every command, on two connections to one export and one to another, with and
/// without FUA, few enough that each comes often.
fn run(faults: &Faults) -> Vec<Option<Fate>> {
    let mut rng = Rng::new(7);
    let mut screens = [("db", 1), ("db", 2), ("web", 3)]
        .map(|(export, connection)| faults.screen(export, connection));
    let kinds = [Read, Write, Trim, Zero, Flush];
    let pick = |rng: &mut Rng, bound: usize| {
        usize::try_from(rng.below(bound as u64)).expect("below the bound")
    };
    let fate = |decision: &Decision| Fate {
        delay: decision.delay,
        action: decision.action,
        seed: decision.seed,
    };
    (0..1500)
        .map(|_| {
            let kind: RequestKind = kinds[pick(&mut rng, kinds.len())];
            let screen = &mut screens[pick(&mut rng, 3)];
            let (offset, fua) = (rng.below(6) * 4096, rng.below(2) == 0);
            let decision = match kind {
                Flush => screen.decide(kind, 0, 0, false),
                _ => screen.decide(kind, offset, 4096, fua),
            };
            decision.as_ref().map(fate)
        })
        .collect()
}

fn occurrences(events: &[Event]) -> Vec<Option<u64>> {
    let occurrence = |event: &Event| match &event.firing {
        Firing::Rule(rule) => rule.occurrence,
        _ => panic!("not a rule's event"),
    };
    events.iter().map(occurrence).collect()
}

/// In the run, most requests pass uncounted. The others are counted because of rules that are not in force in the
/// replay.
#[test]
fn a_replay_counts_as_the_run_did() {
    for rules in [
        &["write offset=8k..16k p=30% error=EIO"][..],
        &["read every=3 delay=1ms", "trim offset=0..4k lose"],
        &["any conn=2 p=20% error=EIO", "read conn=1 every=5 drop"],
        &["write fua every=2 error=ENOSPC", "flush every=7 error=EIO"],
        &[
            "zero export=web every=2 error=EIO",
            "read offset=4k..8k export=d* nth=3 hang",
        ],
        &["any p=15% delay=1ms..5ms", "write p=30% corrupt=bits:2"],
    ] {
        let faults = faults_with(rules);
        let original = run(&faults);
        let events = faults.events_since(0);
        assert!(!events.is_empty(), "{rules:?}: nothing fired");
        assert!(
            occurrences(&events).iter().all(Option::is_some),
            "{rules:?}"
        );
        let script = Script::from_events(&events);
        let again = faults_with(&[]);
        assert_eq!(again.replay(&script), original.iter().flatten().count());
        assert!(run(&again) == original, "{rules:?}: the replay differs");
        assert!(run(&again).iter().all(Option::is_none), "each is used once");
    }
}

/// A rule of other requests that is there in the replay, too, changes nothing about what the script hits.
#[test]
fn a_rule_beside_the_script_does_not_disturb_it() {
    let faults = faults_with(&["write offset=8k..16k p=30% error=EIO"]);
    let original = run(&faults);
    let script = Script::from_events(&faults.events_since(0));
    let again = faults_with(&["read conn=9 error=EIO", "write conn=9 error=EIO"]);
    run(&again);
    again.replay(&script);
    assert!(run(&again) == original);
}

fn read(faults: &Faults, offset: u64) -> Option<Decision> {
    faults.screen("db", 1).decide(Read, offset, 512, false)
}

fn last_occurrence(faults: &Faults) -> Option<u64> {
    *occurrences(&faults.events_since(0))
        .last()
        .expect("an event")
}

#[test]
fn a_late_rule_does_not_number_what_it_can_not_know() {
    let faults = faults_with(&["write error=EIO", "trim error=EIO"]);
    faults
        .add_rule("read offset=0..4k delay=1ms")
        .expect("added");
    assert!(read(&faults, 0).is_some());
    assert_eq!(last_occurrence(&faults), Some(1), "nothing had passed");

    assert!(read(&faults, 8192).is_none(), "this passes uncounted");
    faults.add_rule("read error=EIO").expect("added");
    assert!(read(&faults, 8192).is_some());
    assert_eq!(last_occurrence(&faults), None, "which one is not known");
    assert!(read(&faults, 0).is_some());
    assert_eq!(last_occurrence(&faults), Some(2), "the first rule counted");
    faults.add_rule("zero error=EIO").expect("added");
    let zeroed = faults.screen("db", 1).decide(Zero, 0, 512, false);
    assert!(zeroed.is_some());
    assert_eq!(last_occurrence(&faults), Some(1), "no such command passed");

    let script = Script::from_events(&faults.events_since(0));
    assert_eq!(script.skipped(), 1);
}

#[test]
fn a_new_beginning_forgets_what_had_passed() {
    let faults = faults_with(&["write error=EIO"]);
    let mut screen = faults.screen("db", 1);
    assert!(screen.decide(Read, 0, 512, false).is_none());
    faults.clear_rules();
    assert!(screen.decide(Read, 0, 512, false).is_none());
    faults.add_rule("read error=EIO").expect("added");
    assert!(screen.decide(Read, 0, 512, false).is_some());
    assert_eq!(last_occurrence(&faults), Some(1));

    assert!(screen.decide(Write, 0, 512, false).is_none());
    let late = faults.add_rule("write error=EIO").expect("added");
    assert!(screen.decide(Write, 0, 512, false).is_some());
    assert_eq!(last_occurrence(&faults), None);
    let script = Script::parse(
        "time=1us rule=1 at=request export=db conn=1 command=trim offset=0 length=512 occurrence=1: error=EIO",
    )
    .expect("a script");
    faults.replay(&script);
    assert!(screen.decide(Write, 0, 512, false).is_some());
    assert_eq!(last_occurrence(&faults), Some(1), "counted from the replay");
    faults.remove_rule(late).expect("there");
}

#[test]
fn too_many_different_requests_are_not_counted_and_those_counted_go_on() {
    let mut occurrences = Occurrences::default();
    let export = occurrences.export("db");
    let key = |offset| RequestKey {
        export,
        kind: Read,
        offset,
        length: 512,
    };
    let last = OCCURRENCES_MAX as u64;
    for offset in 1..=last {
        occurrences.note(key(offset));
    }
    assert_eq!(occurrences.count(key(last + 1)), None);
    assert_eq!(occurrences.count(key(1)), Some(2));
    assert_eq!(occurrences.count(key(last)), Some(2));
    assert_eq!(occurrences.count(key(last + 1)), None);
}
