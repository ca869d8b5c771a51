use super::super::content::CELL;
use super::*;

fn begin(history: &mut History, version: Version) -> ChangeId {
    history.begin(String::new(), version, Copy::Kept, &(0..CELL))
}

/// Which of the versions up to 3 may be seen.
fn possible(history: &History) -> Vec<Version> {
    let checked = |version: &Version| history.check(0, *version, Binding::Answered).is_ok();
    (0..=3).filter(checked).collect()
}

#[test]
fn an_abandoned_change_may_happen_until_a_younger_one_is_answered() {
    let mut history = History::new(1);
    let gone = begin(&mut history, 1);
    history.abandon(gone);
    assert_eq!(possible(&history), [0, 1]);
    let younger = begin(&mut history, 2);
    assert_eq!(possible(&history), [0, 1, 2]);
    history.end(younger, Ending::Done);
    assert_eq!(possible(&history), [2]);
}

#[test]
fn of_two_that_were_under_way_together_either_may_be_the_last() {
    for answered_first in [false, true] {
        let mut history = History::new(1);
        let gone = begin(&mut history, 1);
        let other = begin(&mut history, 2);
        if answered_first {
            history.end(other, Ending::Done);
            history.abandon(gone);
        } else {
            history.abandon(gone);
            history.end(other, Ending::Done);
        }
        assert_eq!(possible(&history), [1, 2]);
        // But none that is later.
        let last = begin(&mut history, 3);
        history.end(last, Ending::Done);
        assert_eq!(possible(&history), [3]);
    }
}

#[test]
fn a_change_that_fails_ends_nothing() {
    let mut history = History::new(1);
    let gone = begin(&mut history, 1);
    history.abandon(gone);
    let failed = begin(&mut history, 2);
    history.end(failed, Ending::Failed);
    assert_eq!(possible(&history), [0, 1, 2]);
}

#[test]
fn an_abandoned_change_is_over_only_where_a_younger_one_was() {
    let mut history = History::new(2);
    let gone = history.begin(String::new(), 1, Copy::Kept, &(0..2 * CELL));
    history.abandon(gone);
    let younger = begin(&mut history, 2);
    history.end(younger, Ending::Done);
    assert!(history.check(0, 1, Binding::Answered).is_err());
    assert!(history.check(1, 1, Binding::Answered).is_ok());
}
