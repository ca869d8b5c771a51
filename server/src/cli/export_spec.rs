//! `--export NAME=SOURCE,key=value...`, and the same as a table of the configuration file.
//!
//! A comma inside a value is written twice. A boolean key needs no value.

use std::str::FromStr;

use serde::Deserialize;

use super::{CacheModeName, IoEngineName};
use crate::size::Size;
use crate::source::Source;

/// An export that was asked for by name, with what was said about it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ExportSpec {
    /// What clients ask for; empty for the default export.
    pub name: String,
    /// Where its data is.
    pub source: Source,
    /// `size`
    pub size: Option<Size>,
    /// `cache-size`
    pub cache_size: Option<Size>,
    /// `cache`
    pub cache: Option<CacheModeName>,
    /// `read-only`
    pub read_only: Option<bool>,
    /// `quota`
    pub quota: Option<Size>,
    /// `direct-threshold`
    pub direct_threshold: Option<Size>,
    /// `io-engine`
    pub io_engine: Option<IoEngineName>,
    /// `power-cut`
    pub power_cut: Option<bool>,
    /// `description`
    pub description: Option<String>,
}

/// Why a text is no export.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExportSpecError {
    /// No `=` between name and source.
    #[error("{0:?} names no source; write NAME=SOURCE, for example db=/srv/db.img")]
    NoSource(String),
    /// A key that doesn't exist.
    #[error("{0:?} is no key of an export; there are {KEYS}. Write a comma inside a value twice")]
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

const KEYS: &str = "size, cache-size, cache, read-only, quota, direct-threshold, io-engine, power-cut and description";

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
            cache_size: None,
            cache: None,
            read_only: None,
            quota: None,
            direct_threshold: None,
            io_engine: None,
            power_cut: None,
            description: None,
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
    fn set(&mut self, key: &str, value: Option<&str>) -> Result<(), ExportSpecError> {
        match key {
            "size" => set_once(&mut self.size, key, value),
            "cache-size" => set_once(&mut self.cache_size, key, value),
            "cache" => set_once(&mut self.cache, key, value),
            "read-only" => set_once(&mut self.read_only, key, value.or(Some("true"))),
            "quota" => set_once(&mut self.quota, key, value),
            "direct-threshold" => set_once(&mut self.direct_threshold, key, value),
            "io-engine" => set_once(&mut self.io_engine, key, value),
            "power-cut" => set_once(&mut self.power_cut, key, value.or(Some("true"))),
            "description" => set_once(&mut self.description, key, value),
            _ => Err(ExportSpecError::UnknownKey(key.to_owned())),
        }
    }
}

fn set_once<T>(field: &mut Option<T>, key: &str, value: Option<&str>) -> Result<(), ExportSpecError>
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

/// Splits at single commas; two are one that doesn't split.
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
