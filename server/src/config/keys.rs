//! The keys of the file: which there are, and which key is unknown.
//!
//! Several structures are read from one file, and each of them takes its own keys and ignores the others. So unknown
//! keys are looked for here, where all keys are known.

use std::collections::BTreeMap;
use std::ops::Range;

use clap::{Args as _, Command};
use serde::Deserialize;
use serde::de::IgnoredAny;
use toml::Spanned;

use crate::cli::export_options::ExportOptions;
use crate::cli::export_spec::ExportSpec;
use crate::cli::serve::ServeOptions;

/// Options that can't stand in a file: a file can't include another, and only the command line says how much is logged.
const NOT_IN_A_FILE: &[&str] = &["config", "verbose", "quiet"];

/// The keys of an `[[export]]` that say which it is.
const KEYS_OF_A_NAME: &[&str] = &["name", "source"];

/// The keys of a table, with their places.
type Keys = BTreeMap<Spanned<String>, IgnoredAny>;

#[derive(Deserialize)]
struct Exports {
    #[serde(default)]
    export: Vec<Keys>,
}

/// A key that means nothing.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct UnknownKey {
    pub(super) key: String,
    /// Where it stands, in bytes.
    pub(super) span: Range<usize>,
    /// What could stand there.
    pub(super) known: Vec<String>,
}

/// The first key of `text` that means nothing. A text that can't be read at all is reported elsewhere.
pub(super) fn unknown(text: &str) -> Option<UnknownKey> {
    let top: Keys = toml::from_str(text).ok()?;
    let exports = toml::from_str::<Exports>(text).map_or_else(|_| Vec::new(), |all| all.export);
    let in_exports = exports
        .into_iter()
        .flat_map(|keys| first_unknown(keys, of_an_export()));
    first_unknown(top, of_the_server())
        .into_iter()
        .chain(in_exports)
        .min_by_key(|unknown| unknown.span.start)
}

fn first_unknown(keys: Keys, known: Vec<String>) -> Option<UnknownKey> {
    let unknown = keys
        .into_keys()
        .filter(|key| !known.contains(key.get_ref()));
    let first = unknown.min_by_key(|key| key.span().start)?;
    Some(UnknownKey {
        span: first.span(),
        key: first.into_inner(),
        known,
    })
}

/// The keys at the top: the long options, in their order.
fn of_the_server() -> Vec<String> {
    let options = ServeOptions::augment_args(Command::new("serve"));
    let names = options
        .get_arguments()
        .map(|argument| argument.get_long().unwrap_or(argument.get_id().as_str()));
    names
        .filter(|name| !NOT_IN_A_FILE.contains(name))
        .map(str::to_owned)
        .collect()
}

fn of_an_export() -> Vec<String> {
    [KEYS_OF_A_NAME, ExportSpec::KEYS, ExportOptions::KEYS]
        .concat()
        .into_iter()
        .map(str::to_owned)
        .collect()
}
