//! Everything that ends the program with a failure: one line that names the thing at fault and what to do.

use std::io;

use crate::admin::AdminError;
use crate::cli::client::ClientError;
use crate::config::ConfigError;
use crate::export::OpenExportError;
use crate::listener::BindError;
use crate::process::parent::ParentError;
use crate::settings::SettingsError;
use crate::shutdown::StopError;

/// The options that describe an export, which are keys beside the source of `--export` and of the file.
const KEYS: [&str; 5] = ["size", "read-only", "cache-size", "quota", "io-engine"];

/// `text`, which speaks of options, for an export that is described by keys.
fn in_keys(text: &str) -> String {
    let text = text.replace("--size SIZE", "size=SIZE (beside its source)");
    KEYS.iter().fold(text, |text, key| {
        text.replace(&format!("--{key}"), &format!("{key}="))
    })
}

/// What the system says of an error, such as `No such file or directory`, without the error's number, which tells a
/// user nothing.
#[must_use]
pub fn without_numbers(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once(" (os error ") {
        plain += before;
        let Some((number, after)) = behind.split_once(')') else {
            return plain + " (os error " + behind;
        };
        if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            plain += &format!(" (os error {number})");
        }
        rest = after;
    }
    plain + rest
}

/// Why the program fails. Its text is what the user sees.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the texts say it")]
pub enum Error {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("export {name:?}: {}", if *keys { in_keys(&source.to_string()) } else { source.to_string() })]
    Export {
        name: String,
        /// The export was described by keys beside its source, not by options.
        keys: bool,
        source: OpenExportError,
    },
    #[error("--fault {rule:?}: {reason}")]
    Fault { rule: String, reason: String },
    #[error(
        "the system refuses what a server needs at its start: {0}; check the limits of tasks and descriptors"
    )]
    System(#[source] io::Error),
    #[error(transparent)]
    Parent(#[from] ParentError),
    #[error("--run: the shell can't be started: {0}")]
    Run(#[source] io::Error),
    #[error(transparent)]
    Stop(#[from] StopError),
    #[error("standard output can't be written: {0}")]
    Output(#[source] io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_system_are_said_without_their_numbers() {
        for (text, plain) in [
            (
                "a: No such file or directory (os error 2); b",
                "a: No such file or directory; b",
            ),
            ("x (os error 2), y (os error 13)", "x, y"),
            (
                "(os error x) (os error y) (os error 1",
                "(os error x) (os error y) (os error 1",
            ),
            ("", ""),
        ] {
            assert_eq!(without_numbers(text), plain);
        }
    }

    #[test]
    fn options_of_an_export_are_keys_beside_its_source() {
        assert_eq!(
            in_keys("x doesn't exist; give --size SIZE to create it"),
            "x doesn't exist; give size=SIZE (beside its source) to create it"
        );
        assert_eq!(
            in_keys("change --cache-size or --quota"),
            "change cache-size= or quota="
        );
        assert_eq!(
            in_keys("leave --read-only out once"),
            "leave read-only= out once"
        );
    }
}
