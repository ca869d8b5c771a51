//! What can be said about an export, each thing in one place.
//!
//! It is an option of `weir serve` (there it is the default of every export), a key of `--export`, and a key of the
//! configuration file, both at its top and in an `[[export]]`. All four follow from the list below: the structure, its
//! words for `--help`, the names of the keys, how one is set from a text, and what is taken over from the defaults.

use clap::Args;
use serde::Deserialize;

use super::export_spec::{ExportSpecError, set_once};
use super::{CacheModeName, IoEngineName};
use crate::size::Size;

/// Defines [`ExportOptions`]: for each option its documentation, its attributes for clap, its field and type, its key,
/// and the value that the key alone stands for.
macro_rules! export_options {
    ($($(#[$attribute:meta])* $field:ident: $type:ty = $key:literal, alone $alone:expr;)+) => {
        /// What can be said about an export beside its name, source, size and description. What wasn't said is `None`.
        #[derive(Args, Clone, Debug, Default, PartialEq, Eq, Deserialize)]
        #[serde(default, rename_all = "kebab-case")]
        pub struct ExportOptions {
            $($(#[$attribute])* pub $field: Option<$type>,)+
        }

        impl ExportOptions {
            /// The names of the keys.
            pub const KEYS: &[&str] = &[$($key),+];

            /// These options, and those of `defaults` where these say nothing.
            #[must_use]
            pub fn or(self, defaults: &Self) -> Self {
                Self { $($field: self.$field.or(defaults.$field),)+ }
            }

            /// Sets `key` from a text, or from nothing; `None` if there is no such key.
            ///
            /// # Errors
            /// A value that the key can't have, a missing one, or a second one.
            pub(super) fn set(&mut self, key: &str, value: Option<&str>) -> Option<Result<(), ExportSpecError>> {
                let alone: Option<&str>;
                match key {
                    $($key => {
                        alone = $alone;
                        Some(set_once(&mut self.$field, key, value.or(alone)))
                    })+
                    _ => None,
                }
            }
        }
    };
}

export_options! {
    /// The most memory that the cache of each export takes [default: a share of the machine's]
    #[arg(long, value_name = "SIZE")]
    cache_size: Size = "cache-size", alone None;

    /// When a write is acknowledged: once in memory (writeback), once durable (writethrough), or uncached (none)
    #[arg(long, value_name = "MODE")]
    cache: CacheModeName = "cache", alone None;

    /// Refuses everything that changes data, and opens files for reading only
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", hide_possible_values = true)]
    read_only: bool = "read-only", alone Some("true");

    /// Requests of at least SIZE go past the cache
    #[arg(long, value_name = "SIZE")]
    direct_threshold: Size = "direct-threshold", alone None;

    /// The most that an export may allocate in its store; a write beyond it gets ENOSPC
    #[arg(long, value_name = "SIZE")]
    quota: Size = "quota", alone None;

    /// How whole pages of files are read and written: io_uring where the system has it (auto), or threads
    #[arg(long, value_name = "ENGINE")]
    io_engine: IoEngineName = "io-engine", alone None;

    /// Makes `weir device power-cut` possible: what isn't flushed is kept apart, so that it can be lost
    ///
    /// It is kept in memory, up to 256 MiB of it beside the cache.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", hide_possible_values = true)]
    power_cut: bool = "power-cut", alone Some("true");
}
