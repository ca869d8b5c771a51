use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::{LENGTH_END, TALLY_LENGTH, Tally};
use crate::event::{Firing, REPLAY, Script};
use crate::kind::RequestKind::{self, Read, Status, Write};
use crate::registry::rules::Screen;
use crate::registry::rules::occurrences::RequestKey;
use crate::registry::{Faults, lock};

/// How long a thread may take for a few decisions before it counts as stuck.
const STUCK: Duration = Duration::from_secs(10);

fn with(rules: &[&str]) -> Faults {
    let faults = Faults::new();
    for export in ["db", "web"] {
        faults.add_device(export);
    }
    for rule in rules {
        faults.add_rule(rule).expect("added");
    }
    faults
}

fn fires(screen: &mut Screen, kind: RequestKind) -> bool {
    screen.decide(kind, 4096, 512, false).is_some()
}

/// Lets this many reads of one kind pass, which are only counted.
fn pass(screen: &mut Screen, count: usize) {
    for _ in 0..count {
        assert!(!fires(screen, Read));
    }
}

fn last_occurrence(faults: &Faults) -> Option<u64> {
    match &faults.events_since(0).last().expect("an event").firing {
        Firing::Rule(rule) => rule.occurrence,
        _ => panic!("not a rule's event"),
    }
}

/// What the tally has, in order.
fn taken(tally: &Tally) -> Vec<RequestKey> {
    let mut keys = Vec::new();
    tally.take(|key| keys.push(key));
    keys
}

#[test]
fn notes_come_back_in_order_and_once() {
    let tally = Tally::new(7);
    let key = |kind, offset, length| RequestKey {
        export: 7,
        kind,
        offset,
        length,
    };
    let expected = [
        key(Read, 0, 0),
        key(Write, u64::MAX, LENGTH_END - 1),
        key(Status, 4096, 512),
    ];
    // Over the end of the ring more than once.
    for _ in 0..TALLY_LENGTH {
        for RequestKey {
            kind,
            offset,
            length,
            ..
        } in expected
        {
            assert!(tally.note(kind, offset, length));
        }
        assert_eq!(taken(&tally), expected);
        assert_eq!(taken(&tally), []);
    }
}

#[test]
fn a_full_tally_takes_no_more_and_loses_nothing() {
    let tally = Tally::new(0);
    for number in 0..TALLY_LENGTH as u64 {
        assert!(tally.note(Read, number, 1));
    }
    assert!(!tally.note(Read, 0, 1));
    let offsets: Vec<_> = taken(&tally).iter().map(|key| key.offset).collect();
    assert_eq!(offsets, Vec::from_iter(0..TALLY_LENGTH as u64));
    assert!(!tally.note(Read, 0, LENGTH_END), "too long");
    assert!(tally.note(Read, 0, 1));
}

/// One thread notes, another takes: each note is taken once, whole, and in order.
#[test]
fn notes_are_taken_while_others_are_made() {
    const COUNT: u64 = 100_000;
    let tally = Arc::new(Tally::new(0));
    let ended = Arc::new(AtomicBool::new(false));
    let noting = {
        let (tally, ended) = (Arc::clone(&tally), Arc::clone(&ended));
        thread::spawn(move || {
            for number in 0..COUNT {
                while !tally.note(Read, number, number + 1) {
                    thread::yield_now();
                }
            }
            ended.store(true, Ordering::Release);
        })
    };
    let mut next = 0;
    loop {
        let last = ended.load(Ordering::Acquire);
        tally.take(|key| {
            assert_eq!((key.offset, key.length), (next, next + 1));
            next += 1;
        });
        if last {
            break;
        }
    }
    noting.join().expect("joined");
    assert_eq!(next, COUNT);
}

#[test]
fn a_number_has_what_other_connections_noted_before() {
    // Less than a tally holds, exactly that, a little more, and many times that.
    for others in [1, TALLY_LENGTH, TALLY_LENGTH + 1, 5 * TALLY_LENGTH + 3] {
        let faults = with(&["read conn=1 error=EIO"]);
        let mut own = faults.screen("db", 1);
        let [mut second, mut third, mut web] =
            [("db", 2), ("db", 3), ("web", 4)].map(|(export, id)| faults.screen(export, id));
        pass(&mut second, others);
        pass(&mut web, 10);
        assert!(fires(&mut own, Read));
        let expected = others as u64 + 1;
        assert_eq!(last_occurrence(&faults), Some(expected));
        pass(&mut third, 2);
        pass(&mut second, 1);
        assert!(fires(&mut own, Read));
        assert_eq!(last_occurrence(&faults), Some(expected + 4));
    }
}

#[test]
fn what_was_noted_outlives_its_connection_and_changes_of_rules() {
    let faults = with(&["read conn=1 error=EIO"]);
    pass(&mut faults.screen("db", 2), 3);
    let mut other = faults.screen("db", 3);
    pass(&mut other, 2);
    let second = faults.add_rule("write conn=7 error=EIO").expect("added");
    pass(&mut other, 2);
    faults.remove_rule(second).expect("there");
    let mut own = faults.screen("db", 1);
    assert!(fires(&mut own, Read));
    assert_eq!(last_occurrence(&faults), Some(8));
}

#[test]
fn a_new_beginning_forgets_what_was_noted() {
    let faults = with(&["read conn=1 error=EIO"]);
    let (mut own, mut other) = (faults.screen("db", 1), faults.screen("db", 2));
    pass(&mut other, 5);
    faults.clear_rules();
    faults.add_rule("read conn=1 error=EIO").expect("added");
    assert!(fires(&mut own, Read));
    assert_eq!(last_occurrence(&faults), Some(1));
    // The other connection has not seen that yet: its next note belongs to what was before, and is forgotten with the
    // rest.
    assert!(other.decide_as_seen(Read, 4096, 512, false).is_none());
    pass(&mut other, 1);
    drop(other);
    assert!(fires(&mut own, Read));
    assert_eq!(last_occurrence(&faults), Some(3));
}

#[test]
fn what_is_decided_without_firing_is_counted_too() {
    let faults = with(&["read nth=300 error=EIO", "read conn=9 error=EIO"]);
    let mut screen = faults.screen("db", 1);
    pass(&mut screen, 299);
    assert!(fires(&mut screen, Read));
    assert_eq!(last_occurrence(&faults), Some(300));
}

#[test]
fn a_request_without_fua_is_noted_where_a_rule_wants_it() {
    let faults = with(&["write fua error=EIO"]);
    let mut screen = faults.screen("db", 1);
    assert!(!fires(&mut screen, Write));
    assert!(screen.decide(Write, 4096, 512, true).is_some());
    assert_eq!(last_occurrence(&faults), Some(2));
    // One that is too long for a note is counted all the same.
    assert!(screen.decide(Write, 0, LENGTH_END, false).is_none());
    assert!(screen.decide(Write, 0, LENGTH_END, true).is_some());
    assert_eq!(last_occurrence(&faults), Some(2));
}

/// Whether this many reads on another connection than the rules' pass while the mutex is held.
fn pass_without_the_lock(faults: &Faults, mut screen: Screen, count: usize) -> bool {
    let (done, passed) = mpsc::channel();
    let held = lock(&faults.shared.rules.request.inner);
    let thread = thread::spawn(move || {
        pass(&mut screen, count);
        done.send(()).expect("someone waits");
        // Not to be dropped yet: that takes the lock.
        screen
    });
    let passed = passed.recv_timeout(STUCK);
    drop(held);
    drop(thread.join().expect("joined"));
    passed.is_ok()
}

#[test]
fn what_is_only_counted_takes_no_lock_until_the_tally_is_full() {
    let faults = with(&["read conn=1 error=EIO", "any fua error=EIO"]);
    let mut screen = faults.screen("db", 2);
    // The first one opens the tally.
    pass(&mut screen, 1);
    assert!(pass_without_the_lock(&faults, screen, TALLY_LENGTH - 1));
}

#[test]
fn what_cannot_be_numbered_any_more_is_not_noted() {
    let faults = with(&["write error=EIO"]);
    let mut screen = faults.screen("db", 2);
    pass(&mut screen, 1);
    faults.add_rule("read conn=1 error=EIO").expect("added");
    // Looks at the rules.
    pass(&mut screen, 1);
    assert!(pass_without_the_lock(&faults, screen, 2 * TALLY_LENGTH));
}

/// How many tallies are to be gone through for a number.
fn tallies(faults: &Faults) -> usize {
    lock(&faults.shared.rules.request.inner)
        .occurrences
        .tallies()
}

#[test]
fn only_a_connection_with_something_to_note_has_a_tally() {
    let faults = with(&["write delay=1ms", "read conn=7 error=EIO"]);
    let mut screens =
        [("db", 1), ("db", 2), ("web", 3)].map(|(export, id)| faults.screen(export, id));
    for screen in &mut screens {
        assert!(fires(screen, Write) && !fires(screen, Status));
    }
    assert_eq!(tallies(&faults), 0);
    pass(&mut screens[0], 2);
    pass(&mut screens[2], 2);
    assert_eq!(tallies(&faults), 2);
    faults.add_rule("any delay=1ms").expect("added");
    for screen in &mut screens {
        assert!(fires(screen, Read), "looks at the rules, and matches");
    }
    assert_eq!(tallies(&faults), 0);
    faults.remove_rule(3).expect("there");
    pass(&mut screens[0], 1);
    assert_eq!(tallies(&faults), 1);
    drop(screens);
    assert_eq!(tallies(&faults), 0);
}

/// A request that has looked at the version just before a change, on a connection that has no tally yet.
#[test]
fn what_would_be_the_first_note_is_decided_about_anew_after_a_change() {
    let faults = with(&["read conn=1 error=EIO"]);
    let mut screen = faults.screen("db", 2);
    faults.clear_rules();
    faults.add_rule("read nth=2 error=EIO").expect("added");
    assert!(screen.decide_as_seen(Read, 4096, 512, false).is_none());
    assert_eq!(faults.rules()[0].hits, 1, "the rule has seen it");
    assert_eq!(tallies(&faults), 0);
    assert!(fires(&mut screen, Read));
    assert_eq!(last_occurrence(&faults), Some(2));
}

/// A replay is a new beginning, also for callers that note in an older tally.
#[test]
fn a_replay_counts_nothing_that_was_noted_before() {
    let faults = with(&["read conn=1 error=EIO"]);
    let (mut own, mut other) = (faults.screen("db", 1), faults.screen("db", 2));
    pass(&mut other, 5);
    let script = Script::parse(
        "time=1us rule=1 at=request export=db conn=1 command=read offset=4096 length=512 occurrence=3: error=ENOSPC",
    )
    .expect("a script");
    assert_eq!(faults.replay(&script), 1);
    assert!(other.decide_as_seen(Read, 4096, 512, false).is_none());
    pass(&mut other, 1);
    assert!(fires(&mut own, Read));
    assert_eq!(last_occurrence(&faults), Some(2));
    let decision = other.decide(Read, 4096, 512, false).expect("the third");
    assert_eq!(decision.rule, REPLAY);
    // Once the script has gone, what comes is noted again.
    faults.clear_rules();
    faults.add_rule("read conn=1 error=EIO").expect("added");
    pass(&mut other, 4);
    assert!(fires(&mut own, Read));
    assert_eq!(last_occurrence(&faults), Some(5));
}
