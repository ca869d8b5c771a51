//! The place in the file of an error that was found after the file had been read.

use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;

use crate::error::Error;

/// What can be found wrong later.
#[derive(Deserialize)]
struct Places {
    source: Option<Spanned<String>>,
    #[serde(default)]
    fault: Vec<Spanned<String>>,
    #[serde(default)]
    export: Vec<Export>,
}

#[derive(Deserialize)]
struct Export {
    name: String,
    source: Spanned<String>,
}

/// The bytes of `text` that `error` is about, if it is about any.
pub(super) fn of(text: &str, error: &Error) -> Option<Range<usize>> {
    // The text has been understood before; if it was changed since, there is no place to tell.
    let places: Places = toml::from_str(text).ok()?;
    match error {
        Error::Fault { rule, .. } => {
            let mut rules = places.fault.iter();
            rules
                .find(|there| there.get_ref() == rule)
                .map(Spanned::span)
        }
        Error::Export { name, .. } => {
            let mut exports = places.export.iter();
            let named = exports.find(|export| export.name == *name);
            let default = || places.source.as_ref().filter(|_| name.is_empty());
            named
                .map(|export| &export.source)
                .or_else(default)
                .map(Spanned::span)
        }
        _ => None,
    }
}
