//! The parser's refusals, in words for the author of the file.
//!
//! The parser speaks of the program's fields, variants and types, but the file has keys and values. What isn't
//! recognised here is passed on as it is.

use weir_faults::spelling::closest;

/// A refusal of the TOML parser in plain words.
pub(super) fn plain(message: &str) -> String {
    translated(message).unwrap_or_else(|| message.to_owned())
}

/// What is said of an unknown key.
pub(super) fn unknown_key(key: &str, known: &[String]) -> String {
    let guess = closest(key, known.iter().map(String::as_str))
        .map_or(String::new(), |guess| format!(" (did you mean {guess:?}?)"));
    format!(
        "there is no key {key:?} here{guess}; the keys are {}",
        known.join(", ")
    )
}

fn translated(message: &str) -> Option<String> {
    if let Some(rest) = message.strip_prefix("unknown variant ") {
        let (value, known) = named_and_known(rest)?;
        return Some(format!("{value:?} is none of {}", known.join(", ")));
    }
    if let Some(rest) = message.strip_prefix("missing field ") {
        let key = quoted(rest).next()?;
        return Some(format!(
            "this table needs the key {key:?}; each [[export]] has a name and a source"
        ));
    }
    let rest = message
        .strip_prefix("invalid type: ")
        .or_else(|| message.strip_prefix("invalid value: "))?;
    let (found, wanted) = rest.split_once(", expected ")?;
    if (found, wanted) == ("map", "a sequence") {
        return Some(
            "this must be a list, not one table; an export is written under [[export]]".to_owned(),
        );
    }
    Some(format!(
        "this must be {}, not {}",
        kind(wanted),
        thing(found)
    ))
}

/// The unknown word, and the known ones.
fn named_and_known(rest: &str) -> Option<(&str, Vec<&str>)> {
    let (named, known) = rest.split_once(", expected ")?;
    Some((quoted(named).next()?, quoted(known).collect()))
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// What a type of the program is called in the file.
fn kind(wanted: &str) -> &str {
    match wanted {
        "a boolean" => "true or false, without quotes",
        "a string" => "a text in quotes",
        "a sequence" => "a list, as in [\"first\", \"second\"]",
        "usize" | "u64" | "u32" | "u16" => "a whole number, without quotes",
        other if other.starts_with("struct ") => "a table, as under [[export]]",
        other => other,
    }
}

/// What the parser found, in words.
fn thing(found: &str) -> String {
    match found {
        "sequence" => "a list".to_owned(),
        "map" => "a table".to_owned(),
        other => {
            let types = ["integer ", "floating point ", "boolean ", "string "];
            let value = types.iter().find_map(|kind| other.strip_prefix(kind));
            value.unwrap_or(other).replace('`', "")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_recognised_stays() {
        assert_eq!(plain("unclosed table"), "unclosed table");
        assert_eq!(plain("unknown field"), "unknown field");
    }
}
