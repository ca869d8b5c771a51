//! The tables in the documentation of [`pages`](crate::pages) against the code.

use super::transitions::{all, allowed};
use crate::pages::PRESENT;
use crate::pages::counts::Counts;
use crate::pages::locked::Transition;
use crate::pages::state::{BITS, PageState};

/// The rows of the table with this heading, as cells, without the header row.
fn documented(heading: &str) -> Vec<Vec<&'static str>> {
    let text = include_str!("../../pages.rs");
    let start = text.find(heading).expect("the heading");
    let table = text[start..]
        .lines()
        .map(|line| line.trim_start_matches("//!").trim())
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'));
    let cells = |line: &'static str| line.trim_matches('|').split('|').map(str::trim).collect();
    table.skip(2).map(cells).collect()
}

/// The names in a cell.
fn names(cell: &str) -> Vec<String> {
    let quoted = cell.split('`').skip(1).step_by(2);
    quoted.map(str::to_owned).collect()
}

/// The name of its function.
fn name(transition: Transition) -> String {
    let mut name = String::new();
    for letter in format!("{transition:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.extend(letter.to_lowercase());
    }
    name
}

fn transitions_that(change: impl Fn(u64, u64) -> bool) -> Vec<String> {
    let some_line = |transition: &Transition| {
        let mut lines = allowed(*transition).iter();
        lines.any(|(from, to, _)| change(*from, *to))
    };
    all().filter(some_line).map(name).collect()
}

/// The counters that a page with `bits` is in.
fn counters(bits: u64) -> Vec<&'static str> {
    let counts = Counts::default();
    counts.transition(PageState::EMPTY, PageState::new(0, bits));
    let values = [
        ("present", counts.present()),
        ("dirty", counts.dirty()),
        ("in_flight", counts.in_flight()),
        ("held", counts.held()),
        ("unstable", counts.unstable()),
        ("unclean", counts.unclean()),
    ];
    let moved = values.into_iter().filter(|(_, value)| *value == 1);
    moved.map(|(name, _)| name).collect()
}

#[test]
fn the_table_of_bits_is_true() {
    let table = documented("# State bits");
    let documented: Vec<_> = table.iter().map(|line| names(line[0])).collect();
    let mut bits = BITS.map(|(_, name)| vec![name.to_owned()]);
    bits.sort();
    let mut sorted = documented;
    sorted.sort();
    assert_eq!(sorted, bits, "each bit has a line");
    for line in &table {
        let [bit, _, set, cleared, counter] = line[..] else {
            panic!("{line:?} has other columns");
        };
        let (bit, _) = BITS
            .into_iter()
            .find(|(_, name)| names(bit) == [*name])
            .expect("as above");
        assert_eq!(
            names(set),
            transitions_that(|from, to| !from & to & bit != 0),
            "who sets {line:?}"
        );
        assert_eq!(
            names(cleared),
            transitions_that(|from, to| from & !to & bit != 0),
            "who clears {line:?}"
        );
        assert_eq!(names(counter), counters(bit), "what counts {line:?}");
    }
}

/// What a transition needs, as the bits that the documentation names: those that follow a "not" are forbidden.
#[test]
fn the_table_of_transitions_is_true() {
    let table = documented("# Transitions");
    let documented: Vec<_> = table.iter().flat_map(|line| names(line[0])).collect();
    let code: Vec<_> = all().map(name).collect();
    assert_eq!(documented, code, "each transition has a line");
    for (line, transition) in table.iter().zip(all()) {
        let [_, needs, _] = line[..] else {
            panic!("{line:?} has other columns");
        };
        // The entry of a transition that is allowed anywhere says what it changes.
        if needs.contains("else") {
            assert_eq!(allowed(transition).len(), super::transitions::STATES.len());
            continue;
        }
        let mut parts = needs.split("not ");
        let wanted = bits_in(parts.next().expect("a first part"));
        let unwanted = bits_in(parts.next().unwrap_or(""));
        let states = super::transitions::STATES.into_iter();
        let fits = |state: &u64| match needs {
            "nothing is known of the page" => *state == 0,
            "clean" => *state == PRESENT,
            _ => (wanted == 0 || state & wanted != 0) && state & unwanted == 0,
        };
        let by_documentation: Vec<_> = states.filter(fits).collect();
        let mut by_code: Vec<_> = allowed(transition).iter().map(|line| line.0).collect();
        by_code.sort_by_key(|state| super::transitions::STATES.iter().position(|s| s == state));
        assert_eq!(by_documentation, by_code, "what {transition:?} needs");
    }
}

fn bits_in(text: &str) -> u64 {
    let named = names(text);
    let bits = BITS
        .iter()
        .filter(|(_, name)| named.iter().any(|n| n == name));
    bits.fold(0, |bits, (bit, _)| bits | bit)
}
