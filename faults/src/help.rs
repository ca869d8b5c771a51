//! The whole language as a table, printed from the tables in which the parsers look up their words.

use std::fmt::Write;

use crate::device::DEVICE_WORDS;
use crate::errno::Errno;
use crate::kind::RequestKind;
use crate::power_cut::POWER_CUT_WORDS;
use crate::words::Word;
use crate::{query, rule};

/// Between a word with its value and what it means.
const COLUMN: usize = 34;

/// The control language: rules, points, devices. What `weir fault help` prints.
#[must_use]
pub fn help() -> String {
    let mut text = String::from(
        "RULES ON REQUESTS: weir fault add COMMANDS [FILTER...] [TRIGGER...] ACTION...\n\
         A request that commands and filters match is a hit. A rule without triggers fires at every hit;\n\
         of several triggers, all must hold. One action, and a delay with it.\n",
    );
    section(&mut text, "commands (a comma list)", rule::COMMANDS, "");
    section(&mut text, "filters", rule::FILTERS, "=");
    section(&mut text, "place", rule::PLACES, "=");
    section(&mut text, "triggers", rule::TRIGGERS, "=");
    section(&mut text, "actions", rule::ACTIONS, "=");
    text.push_str("\nPOINTS IN CODE: weir point set MATCH... ACTION... | list [MATCH...] | release [MATCH...] | reset\n");
    section(
        &mut text,
        "matches, all of which must hold",
        query::MATCHES,
        " ",
    );
    section(&mut text, "actions", query::ACTIONS, " ");
    text.push_str("\nDEVICES: weir device WORD NAME ...\n");
    section(&mut text, "words", DEVICE_WORDS, " ");
    section(&mut text, "of power-cut", POWER_CUT_WORDS, "=");
    text.push_str("\nVALUES\n");
    line(
        &mut text,
        "SIZE, OFFSET, BYTES",
        "4096, 4k, 1M, 1G (binary)",
    );
    line(&mut text, "T", "20ms, 5s, 2m, 1h, 10us");
    line(&mut text, "P%", "5%, 0.1%");
    list(
        &mut text,
        "KIND",
        RequestKind::NAMED.iter().map(|(name, _)| *name),
    );
    list(
        &mut text,
        "NAME of an error",
        Errno::NAMED.iter().map(|(name, _)| *name),
    );
    list(
        &mut text,
        "  that a client can be told",
        Errno::ON_THE_WIRE.iter().filter_map(|errno| errno.name()),
    );
    text
}

fn section<T>(text: &mut String, title: &str, table: &'static [Word<T>], separator: &str) {
    // Writing to a string can't fail.
    let _ = writeln!(text, " {title}:");
    for word in table {
        let shape = match word.value {
            "" => word.name.to_owned(),
            // The value may be left out, so the word itself comes first.
            value if value.starts_with("or ") => format!("{} {value}", word.name),
            value => format!("{}{separator}{value}", word.name),
        };
        line(text, &shape, word.help);
    }
}

fn line(text: &mut String, left: &str, right: &str) {
    if left.len() > COLUMN {
        let _ = writeln!(text, "  {left}\n  {:COLUMN$} {right}", "");
    } else {
        let _ = writeln!(text, "  {left:COLUMN$} {right}");
    }
}

fn list<'a>(text: &mut String, left: &str, names: impl Iterator<Item = &'a str>) {
    line(text, left, &names.collect::<Vec<_>>().join(" "));
}

#[cfg(test)]
mod tests;
