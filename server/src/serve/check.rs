//! What is wrong with settings, as far as it can be told without changing anything.
//!
//! `weir serve` checks this before it binds and creates anything, and `weir config check` checks nothing else. So both
//! refuse the same settings. What depends on the moment isn't checked, because it isn't the fault of the settings: a
//! port or an image may be in use by the very server that will get this configuration.

use std::path::{Path, PathBuf};

use weir_faults::{Faults, Rule};

use crate::admin::AdminListener;
use crate::backend::file::OpenFileError;
use crate::error::Error;
use crate::export::{self, OpenExportError, misdirected};
use crate::listener::Listener;
use crate::settings::{ExportSettings, Settings};

/// What `weir serve` looks at first. Returns the fault rules, armed.
///
/// # Errors
/// The first thing that is wrong.
pub(super) fn check(settings: &Settings) -> Result<Faults, Error> {
    check_exports(&settings.exports)?;
    arm(settings)
}

/// What `weir serve` finds out when it opens its sockets.
///
/// # Errors
/// The first address that can't be had, or the admin port's token.
pub(super) fn check_addresses(settings: &Settings) -> Result<(), Error> {
    for address in &settings.listen {
        Listener::check(address, "listen")?;
    }
    if settings.listen.is_empty() {
        Listener::check(&Settings::listen_default(), "listen")?;
    }
    AdminListener::check(settings)?;
    Ok(())
}

fn check_exports(exports: &[ExportSettings]) -> Result<(), Error> {
    let mut files: Vec<(PathBuf, bool)> = Vec::new();
    for export in exports {
        let refused = |source| Error::Export {
            name: export.name.clone(),
            keys: export.keys,
            source,
        };
        export::check(export).map_err(refused)?;
        let Some(path) = export.source.file().and_then(canonical) else {
            continue;
        };
        // Several exports may read one file. One that may write must be its only user.
        let shared = files
            .iter()
            .any(|(other, read_only)| *other == path && !(*read_only && export.read_only));
        if shared {
            let in_use = OpenFileError::InUse { path };
            return Err(refused(OpenExportError::Store(in_use.into())));
        }
        files.push((path, export.read_only));
    }
    Ok(())
}

/// The canonical name of a file that exists, or of one that would be created in a folder that exists.
fn canonical(path: &Path) -> Option<PathBuf> {
    if let Ok(path) = path.canonicalize() {
        return Some(path);
    }
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    let folder = folder.unwrap_or(Path::new(".")).canonicalize().ok()?;
    Some(folder.join(path.file_name()?))
}

fn arm(settings: &Settings) -> Result<Faults, Error> {
    let faults = Faults::new();
    for export in &settings.exports {
        faults.add_device(&export.name);
    }
    let sizes: Vec<_> = settings
        .exports
        .iter()
        .map(|export| (export.name.as_str(), export::known_size(export)))
        .collect();
    for text in &settings.faults {
        let refused = |reason| Error::Fault {
            rule: text.clone(),
            reason,
        };
        faults
            .add_rule(text)
            .map_err(|error| refused(error.to_string()))?;
        let rule = Rule::parse(text).map_err(|error| refused(error.to_string()))?;
        misdirected(&rule, &sizes).map_err(refused)?;
    }
    Ok(faults)
}

#[cfg(test)]
mod tests;
