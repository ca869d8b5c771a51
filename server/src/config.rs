//! The configuration file: TOML, with the names of the command line's options.
//!
//! ```toml
//! listen = ["127.0.0.1:10809", "unix:/run/weir.sock"]
//! cache-size = "256M"
//!
//! [[export]]
//! name = "db"
//! source = "/srv/db.img"
//! size = "10G"
//! ```
//! Paths are relative to the folder that the server is started in, as on the command line.

use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::cli::export_options::ExportOptions;
use crate::cli::serve::ServeOptions;
use crate::error::Error;

/// Why a configuration file can't be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the texts say it")]
pub enum ConfigError {
    #[error("{} can't be read: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}:{line}: {message}", path.display())]
    Parse {
        path: PathBuf,
        line: usize,
        message: String,
    },
}

/// What the file says.
///
/// # Errors
/// The file can't be read, or isn't understood; then the error names the line.
pub fn read(path: &Path) -> Result<ServeOptions, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    parse(path, &text)
}

fn parse(path: &Path, text: &str) -> Result<ServeOptions, ConfigError> {
    let refusal = |at: usize, message: String| ConfigError::Parse {
        path: path.to_owned(),
        line: line_at(text, at),
        message,
    };
    if let Some(unknown) = keys::unknown(text) {
        let message = words::unknown_key(&unknown.key, &unknown.known);
        return Err(refusal(unknown.span.start, message));
    }
    deserialized(text).map_err(|error| {
        // The error must be one line; the parser's may be several.
        let message = error.message().lines().collect::<Vec<_>>().join(" ");
        let at = error.span().map_or(0, |span| span.start);
        refusal(at, words::plain(&message))
    })
}

/// The structures of the command line, each read from the same text: nested structures would lose the places of errors.
fn deserialized(text: &str) -> Result<ServeOptions, toml::de::Error> {
    #[derive(Deserialize)]
    struct Exports {
        #[serde(default)]
        export: Vec<ExportOptions>,
    }
    let mut options: ServeOptions = toml::from_str(text)?;
    options.exports = toml::from_str(text)?;
    let Exports { export } = toml::from_str(text)?;
    for (spec, own) in options.export.iter_mut().zip(export) {
        spec.options = own;
    }
    Ok(options)
}

/// `error` with its line, if it is about something in the file at `path`.
#[must_use]
pub fn located(path: &Path, error: Error) -> Error {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let Some(span) = place::of(&text, &error) else {
        return error;
    };
    let message = error.to_string();
    Error::Config(ConfigError::Parse {
        path: path.to_owned(),
        line: line_at(&text, span.start),
        message: message.strip_prefix("--").unwrap_or(&message).to_owned(),
    })
}

/// The line of a byte, from 1.
fn line_at(text: &str, at: usize) -> usize {
    let before = &text.as_bytes()[..at.min(text.len())];
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}

mod keys;
mod place;
mod words;

#[cfg(test)]
mod tests;
