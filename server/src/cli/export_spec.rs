//! `--export NAME=SOURCE,key=value...`, and the same as a table of the configuration file.
//!
//! A comma inside a value is written twice. A boolean key needs no value.

use std::str::FromStr;

use serde::Deserialize;

use super::export_options::ExportOptions;
use crate::size::Size;
use crate::source::Source;

/// An export that was asked for by name, with what was said about it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ExportSpec {
    /// What clients ask for; empty for the default export.
    pub name: String,
    /// Where its data is.
    pub source: Source,
    /// `size`
    pub size: Option<Size>,
    /// `description`
    pub description: Option<String>,
    /// The other keys.
    #[serde(skip)]
    pub options: ExportOptions,
}

/// Why a text is no export.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExportSpecError {
    /// No `=` between name and source.
    #[error("{0:?} names no source; write NAME=SOURCE, for example db=/srv/db.img")]
    NoSource(String),
    /// A key that doesn't exist.
    #[error(
        "{0:?} is no key of an export; there are {known}. Write a comma inside a value twice",
        known = keys()
    )]
    UnknownKey(String),
    /// A key that needs a value and has none.
    #[error("{key} needs a value: {key}=...")]
    NoValue {
        /// The key.
        key: String,
    },
    /// The same key twice.
    #[error("{0} is given twice")]
    Twice(String),
    /// A value that the key can't have.
    #[error("{key}: {reason}")]
    Value {
        /// The key.
        key: String,
        /// What is wrong with the value.
        reason: String,
    },
}

/// What `--export` is, in a line of `--help`.
pub const HELP: &str = "Serves SOURCE under NAME as well; may be repeated";

/// What `--export` is, in full.
#[must_use]
pub fn long_help() -> String {
    format!(
        "{HELP}\n\nThe keys are {}; they mean what the options of these names mean, which are their defaults (not so the size). \
         A comma inside a value is written twice.",
        keys()
    )
}

/// The keys of an export, for people.
fn keys() -> String {
    let mut keys: Vec<_> = [ExportOptions::KEYS, ExportSpec::KEYS].concat();
    let last = keys.pop().expect("there are some");
    format!("{} and {last}", keys.join(", "))
}

impl FromStr for ExportSpec {
    type Err = ExportSpecError;

    fn from_str(text: &str) -> Result<Self, ExportSpecError> {
        let (name, rest) = text
            .split_once('=')
            .ok_or_else(|| ExportSpecError::NoSource(text.to_owned()))?;
        let mut words = split_at_commas(rest).into_iter();
        let source = words.next().unwrap_or_default();
        let mut spec = Self {
            name: name.to_owned(),
            source: parse("source", Some(&source))?,
            size: None,
            description: None,
            options: ExportOptions::default(),
        };
        for word in words {
            let (key, value) = match word.split_once('=') {
                Some((key, value)) => (key, Some(value)),
                None => (word.as_str(), None),
            };
            spec.set(key, value)?;
        }
        Ok(spec)
    }
}

impl ExportSpec {
    /// The keys beside its options.
    pub const KEYS: &[&str] = &["size", "description"];

    fn set(&mut self, key: &str, value: Option<&str>) -> Result<(), ExportSpecError> {
        match key {
            "size" => set_once(&mut self.size, key, value),
            "description" => set_once(&mut self.description, key, value),
            _ => self
                .options
                .set(key, value)
                .unwrap_or_else(|| Err(ExportSpecError::UnknownKey(key.to_owned()))),
        }
    }
}

pub(super) fn set_once<T>(
    field: &mut Option<T>,
    key: &str,
    value: Option<&str>,
) -> Result<(), ExportSpecError>
where
    T: FromStr<Err: std::fmt::Display>,
{
    if field.is_some() {
        return Err(ExportSpecError::Twice(key.to_owned()));
    }
    *field = Some(parse(key, value)?);
    Ok(())
}

fn parse<T>(key: &str, value: Option<&str>) -> Result<T, ExportSpecError>
where
    T: FromStr<Err: std::fmt::Display>,
{
    let value = value.ok_or_else(|| ExportSpecError::NoValue {
        key: key.to_owned(),
    })?;
    value
        .parse()
        .map_err(|error: T::Err| ExportSpecError::Value {
            key: key.to_owned(),
            reason: error.to_string(),
        })
}

/// Splits at single commas; a doubled comma stands for one that doesn't split.
fn split_at_commas(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        if character == ',' && characters.next_if_eq(&',').is_none() {
            words.push(String::new());
        } else {
            words.last_mut().expect("never empty").push(character);
        }
    }
    words
}

#[cfg(test)]
mod tests;
