//! Which cursor is told of which error, and how often.

use std::cell::Cell;
use std::sync::Arc;

use super::*;
use crate::testing::interleave;

const EIO: Errno = Errno::EIO;
const ENOSPC: Errno = Errno::ENOSPC;

#[test]
fn every_open_cursor_is_told_once() {
    let errors = ErrorSeq::new();
    let mut cursors = [errors.sample(), errors.sample()];
    for cursor in &mut cursors {
        assert_eq!(errors.check_and_advance(cursor), None);
    }
    errors.record(EIO);
    for cursor in &mut cursors {
        assert_eq!(errors.check_and_advance(cursor), Some(EIO));
        assert_eq!(errors.check_and_advance(cursor), None);
    }
}

#[test]
fn an_error_that_nobody_saw_waits_for_the_next_connection() {
    let errors = ErrorSeq::new();
    errors.record(EIO);
    let mut next = errors.sample();
    assert_eq!(errors.check_and_advance(&mut next), Some(EIO));
    let mut after = errors.sample();
    assert_eq!(errors.check_and_advance(&mut after), None);
}

#[test]
fn the_same_error_again_is_news_again() {
    let errors = ErrorSeq::new();
    let mut cursor = errors.sample();
    for _ in 0..3 {
        errors.record(EIO);
        assert_eq!(errors.check_and_advance(&mut cursor), Some(EIO));
    }
    errors.record(EIO);
    errors.record(EIO);
    assert_eq!(errors.check_and_advance(&mut cursor), Some(EIO));
    assert_eq!(errors.check_and_advance(&mut cursor), None);
}

#[test]
fn the_latest_of_several_errors_is_told() {
    let errors = ErrorSeq::new();
    let mut cursor = errors.sample();
    errors.record(EIO);
    errors.record(ENOSPC);
    assert_eq!(errors.check_and_advance(&mut cursor), Some(ENOSPC));
}

#[test]
fn an_error_seen_by_one_stays_news_to_another() {
    let errors = ErrorSeq::new();
    let mut quick = errors.sample();
    let mut slow = errors.sample();
    errors.record(EIO);
    assert_eq!(errors.check_and_advance(&mut quick), Some(EIO));
    errors.record(ENOSPC);
    assert_eq!(errors.check_and_advance(&mut quick), Some(ENOSPC));
    assert_eq!(errors.check_and_advance(&mut slow), Some(ENOSPC));
    assert_eq!(errors.check_and_advance(&mut slow), None);
}

/// What one cursor remembers differs from the next error, also from the same one once another cursor has seen it.
#[test]
fn the_same_error_again_is_news_to_whoever_looks_second() {
    let errors = ErrorSeq::new();
    let mut first = errors.sample();
    let mut second = errors.sample();
    for _ in 0..3 {
        errors.record(EIO);
        assert_eq!(errors.check_and_advance(&mut first), Some(EIO));
        assert_eq!(errors.check_and_advance(&mut second), Some(EIO));
    }
}

/// Race: a cursor looks at an error ‖ a newer one replaces it, unseen ‖ the cursor remembers the old one, unmarked.
#[test]
fn an_error_that_is_replaced_while_a_cursor_looks_hides_no_later_one() {
    let errors = Arc::new(ErrorSeq::new());
    let mut slow = errors.sample();
    let mut quick = errors.sample();
    errors.record(EIO);
    let rival = Arc::clone(&errors);
    let replaced = Cell::new(false);
    interleave::set("errors:looked", move || {
        if !replaced.replace(true) {
            rival.record(ENOSPC);
        }
    });
    let told = errors.check_and_advance(&mut slow);
    interleave::clear();
    errors.record(EIO);
    assert_eq!(errors.check_and_advance(&mut quick), Some(EIO));
    assert_eq!(
        (told, errors.check_and_advance(&mut slow)),
        (Some(ENOSPC), Some(EIO))
    );
}

#[test]
fn a_number_that_is_no_error_is_the_general_error() {
    for number in [0, -5, Errno::MAX + 1, i32::MIN, i32::MAX] {
        let errors = ErrorSeq::new();
        errors.record(Errno(number));
        assert_eq!(errors.check_and_advance(&mut errors.sample()), Some(EIO));
    }
    for number in [1, 524, Errno::MAX] {
        let errors = ErrorSeq::new();
        errors.record(Errno(number));
        let told = errors.check_and_advance(&mut errors.sample());
        assert_eq!(told, Some(Errno(number)));
    }
}

#[test]
fn what_was_forgotten_is_told_to_nobody() {
    let errors = ErrorSeq::new();
    errors.record(EIO);
    let mut before = errors.sample();
    assert_eq!(errors.check_and_advance(&mut before), Some(EIO));
    errors.forget();
    let mut next = errors.sample();
    for cursor in [&mut before, &mut next] {
        assert_eq!(errors.check_and_advance(cursor), None);
    }
    errors.record(EIO);
    for cursor in [&mut next, &mut before] {
        assert_eq!(errors.check_and_advance(cursor), Some(EIO));
        assert_eq!(errors.check_and_advance(cursor), None);
    }
}
