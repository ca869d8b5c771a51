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

/// Why the program fails. Its text is what the user sees.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the texts say it
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
    #[error("export {name:?}: {source}")]
    Export {
        name: String,
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
