use super::*;

fn example() -> String {
    "it failed".to_owned()
}

#[test]
fn beyond_the_allowance_lines_are_counted_and_said_with_what_they_were_like() {
    let start = Instant::now();
    let mut kind = Kind::new(Level::WARN, start);
    let admitted = (0..LINES_PER_WINDOW + 3977)
        .filter(|_| kind.admit(example))
        .count();
    assert_eq!(admitted, LINES_PER_WINDOW as usize);
    assert_eq!(kind.due(), Some(start + WINDOW));
    assert!(!kind.window_is_over(start + WINDOW / 2));
    assert!(kind.window_is_over(start + WINDOW));
    let said = kind.begin_window(start + WINDOW).unwrap();
    assert!(
        said.ends_with("  WARN ... and 3977 more like \"it failed\" in the last second\n"),
        "{said}"
    );
    assert_eq!(kind.due(), None);
    assert!(kind.admit(example), "a new window, a new allowance");
    assert_eq!(kind.begin_window(start + 2 * WINDOW), None);
}

#[test]
fn a_writer_that_comes_late_says_over_what_time_it_counted() {
    let start = Instant::now();
    let mut kind = Kind::new(Level::ERROR, start);
    for _ in 0..=LINES_PER_WINDOW {
        kind.admit(example);
    }
    let said = kind.begin_window(start + 34 * WINDOW).unwrap();
    assert!(said.contains(" ERROR ... and 1 more"), "{said}");
    assert!(said.ends_with("in the last 34 seconds\n"), "{said}");
}

#[test]
fn a_kind_has_its_share_of_each_batch() {
    let mut kind = Kind::new(Level::INFO, Instant::now());
    assert!(kind.reserve(WAITING_BYTES_PER_KIND - 1, 7));
    assert!(!kind.reserve(2, 7));
    assert!(kind.reserve(1, 7), "what still fits");
    assert!(kind.reserve(2, 8), "the writer has taken the batch");
}
