//! What may have been meant by an unknown word.

/// The known word that is nearest to one that isn't, if it is near enough to be meant.
#[must_use]
pub fn closest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    /// Two letters exchanged, or two others wrong.
    const TYPING_ERRORS_MAX: usize = 2;
    known
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .min()
        .filter(|(distance, _)| *distance <= TYPING_ERRORS_MAX)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's: letters to be inserted, removed or replaced.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (index, letter) in from.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], index + 1);
        for (at, other) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[at + 1];
            row[at + 1] = replaced.min(row[at] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("sise", "size"), 1);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(closest("lsiten", ["source", "listen"]), Some("listen"));
        assert_eq!(closest("colour", ["source", "listen"]), None);
    }
}
