//! Who is told of which error, and how often.

use super::*;

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

#[test]
#[should_panic(expected = "4096 is no error number")]
fn a_number_that_is_no_error_is_refused() {
    ErrorSeq::new().record(Errno(ERRNO_MAX + 1));
}

#[test]
#[should_panic(expected = "0 is no error number")]
fn success_is_no_error() {
    ErrorSeq::new().record(Errno(0));
}

#[test]
#[should_panic(expected = "-5 is no error number")]
fn a_negative_number_is_no_error() {
    ErrorSeq::new().record(Errno(-5));
}

#[test]
fn what_was_forgotten_is_told_to_nobody() {
    let errors = ErrorSeq::new();
    errors.record(EIO);
    errors.forget();
    let mut next = errors.sample();
    assert_eq!(errors.check_and_advance(&mut next), None);
    errors.record(EIO);
    assert_eq!(errors.check_and_advance(&mut next), Some(EIO));
}
