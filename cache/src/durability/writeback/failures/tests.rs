use super::*;

const ALONE: Seen = Seen {
    alone: 1,
    together: 0,
};

#[test]
fn a_watch_sees_what_it_covers_and_nothing_else() {
    let failures = Failures::default();
    let watch = failures.watch(4..8, 10);
    let seen = |pages: &[(u64, u64)]| {
        let before = watch.seen();
        failures.note(pages, Errno::ENOSPC, Evidence::Alone);
        watch.seen() != before
    };
    assert!(!seen(&[]));
    assert!(!seen(&[(0, 1), (3, 1), (8, 1)]), "pages around it");
    assert!(!seen(&[(5, 11)]), "a younger page");
    assert!(seen(&[(5, 10)]));
    assert!(seen(&[(0, 1), (4, 11), (7, 0), (9, 1)]));
    failures.note_held(&[1, 9], Errno::EIO, Evidence::Alone);
    assert_eq!(watch.last(), Errno::ENOSPC);
    failures.note_held(&[1, 6, 9], Errno::EIO, Evidence::Alone);
    assert_eq!(watch.last(), Errno::EIO);
}

#[test]
fn changes_that_are_lost_concern_who_covers_their_pages() {
    let failures = Failures::default();
    let [before, at, behind] = [0..4, 4..8, 8..12].map(|pages| failures.watch(pages, u64::MAX));
    failures.note_replaced(&(5..8));
    let lost = [&before, &at, &behind].map(Watch::replaced_lost);
    assert_eq!(lost, [false, true, false]);
}

#[test]
fn a_second_failure_of_its_own_ends_it() {
    let failures = Failures::default();
    let watch = failures.watch(0..8, 10);
    let mut tries = Tries::default();
    for expected in [Ok(()), Err(Errno::ENOSPC)] {
        let before = watch.seen();
        failures.note(&[(3, 3)], Errno::ENOSPC, Evidence::Alone);
        assert_eq!(tries.again(&watch, before), expected);
    }
    assert_ne!(watch.seen(), ALONE);
}

#[test]
fn failures_in_company_end_it_late_but_do() {
    let failures = Failures::default();
    let watch = failures.watch(0..8, 10);
    let mut tries = Tries::default();
    let rounds = (0..).find(|_| {
        let before = watch.seen();
        failures.note(&[(3, 3)], Errno::EIO, Evidence::Together);
        tries.again(&watch, before).is_err()
    });
    assert_eq!(rounds, Some(TOGETHER_MAX));
}
