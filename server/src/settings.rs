//! The server's settings: the options of the command line and the file, with every default filled in and checked.
//!
//! Nothing is opened here, so `weir config check` can stop after it.

use std::collections::BTreeSet;
use std::path::PathBuf;

use ipnet::IpNet;
use weir_cache::CacheMode;
use weir_protocol::constants::MAX_NAME;

use crate::backend::file::Engine;
use crate::cli::Switch;
use crate::cli::export_options::ExportOptions;
use crate::cli::export_spec::ExportSpec;
use crate::cli::serve::ServeOptions;
use crate::cli::socket_mode::SocketMode;
use crate::limits::{
    CACHE_BYTES_MAX, CACHE_BYTES_MIN, CONNECTIONS_MAX_DEFAULT, FIRST_TRY_SIZE, Timeouts,
};
use crate::listener::Address;
use crate::resources::MachineMemory;
use crate::size::Size;
use crate::source::Source;

/// What is served when no export was named.
const FIRST_TRY_PATH: &str = "weir.img";
/// The port that is registered for NBD, on loopback: serving other machines takes an option.
const LISTEN_DEFAULT: &str = "127.0.0.1:10809";

/// Where the admin port is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminPort {
    /// There is none.
    Closed,
    /// A socket of its owner's, where the commands look for it.
    OwnersSocket,
    /// At the address that was given.
    At(Address),
}

/// A server.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where clients connect; empty: where the service manager listens, else the default.
    pub listen: Vec<Address>,
    /// The mode of the Unix sockets there; without it the umask decides.
    pub socket_mode: Option<SocketMode>,
    /// Names are distinct.
    pub exports: Vec<ExportSettings>,
    /// Connections served at a time.
    pub max_connections: usize,
    /// How long each phase of a connection may take.
    pub timeouts: Timeouts,
    /// The networks that may connect; empty: everybody.
    pub allow: Vec<IpNet>,
    /// Fault rules from the start.
    pub faults: Vec<String>,
    /// The shell command that the server runs for.
    pub run: Option<String>,
    /// Whether the server stops when the process that started it has ended.
    pub exit_with_parent: bool,
    /// Where the default of `--cache-size` came from, if any export uses it.
    pub memory: Option<MachineMemory>,
    /// Where the admin port listens.
    pub admin: AdminPort,
    /// The admin port's token.
    pub admin_token_file: Option<PathBuf>,
}

/// One export.
#[derive(Clone, Debug)]
pub struct ExportSettings {
    /// What clients ask for.
    pub name: String,
    /// A text for people; may be empty.
    pub description: String,
    /// Where the data is.
    pub source: Source,
    /// The size that it must have, and is created with.
    pub size: Option<Size>,
    /// The size that it is created with when no size was given: only for the first try.
    pub create_size: Option<Size>,
    /// `--cache-size`, or the default.
    pub cache_bytes: u64,
    /// `--cache`
    pub mode: CacheMode,
    /// `--read-only`
    pub read_only: bool,
    /// `--direct-threshold`
    pub direct_threshold: Option<u64>,
    /// `--quota`
    pub quota: Option<u64>,
    /// `--io-engine`
    pub engine: Engine,
    /// `--power-cut`
    pub power_cut: bool,
    /// The export was described by keys beside its source (`--export`, or a table of the file), not by options.
    pub keys: bool,
}

/// What is wrong with the options, taken together.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the texts say it")]
pub enum SettingsError {
    #[error("export {0:?} is named twice; rename one of them")]
    SameName(String),
    #[error("an export's name has {0} bytes, NBD allows {MAX_NAME}; shorten it")]
    LongName(usize),
    #[error("the export's name {0:?} contains a NUL, which NBD doesn't allow; rename it")]
    NulInName(String),
    #[error("a --cache-size of {0} for export {1:?} is too small; give at least {min}", min = Size(CACHE_BYTES_MIN))]
    SmallCache(Size, String),
    #[error("a --cache-size of {0} for export {1:?} is more than this program can manage; give at most {max}", max = Size(CACHE_BYTES_MAX))]
    LargeCache(Size, String),
    #[error("{0} is to be listened on twice; leave one out")]
    SameAddress(Address),
    #[error("--max-connections 0 lets nobody in; give at least 1")]
    NoConnections,
    #[error(
        "--size {0} belongs to a SOURCE, and there is none; write it beside an export's own: --export NAME=SOURCE,size={0}"
    )]
    SizeWithoutSource(Size),
    #[error("{0} isn't available in this version; leave it out")]
    Unavailable(&'static str),
}

impl Settings {
    /// Fills in what `options` leave open.
    ///
    /// # Errors
    /// The options contradict each other or the limits.
    pub fn resolve(options: ServeOptions) -> Result<Self, SettingsError> {
        refuse_unavailable(&options)?;
        if let (Some(size), None, false) =
            (options.size, &options.source, options.export.is_empty())
        {
            return Err(SettingsError::SizeWithoutSource(size));
        }
        let specs = export_specs(&options);
        check_names(&specs)?;
        let sharing = specs
            .iter()
            .filter(|spec| {
                spec.options
                    .cache_size
                    .or(options.exports.cache_size)
                    .is_none()
            })
            .count();
        let memory = (sharing > 0).then(MachineMemory::detect);
        let share = memory.map_or(CACHE_BYTES_MIN, |memory| memory.cache_share(sharing));
        let first_try = options.source.is_none() && options.export.is_empty();
        let exports = specs
            .into_iter()
            .enumerate()
            .map(|(index, spec)| {
                let keys = index > 0 || (options.source.is_none() && !options.export.is_empty());
                let settings = ExportSettings::resolve(spec, &options, share, first_try)?;
                Ok(ExportSettings { keys, ..settings })
            })
            .collect::<Result<_, _>>()?;
        let timeouts = Timeouts::default();
        let settings = Self {
            exports,
            max_connections: options.max_connections.unwrap_or(CONNECTIONS_MAX_DEFAULT),
            timeouts: Timeouts {
                handshake: options
                    .handshake_timeout
                    .map_or(timeouts.handshake, |time| time.0),
                idle: options
                    .idle_timeout
                    .map_or(timeouts.idle, |time| Some(time.0)),
                write: options.write_timeout.map_or(timeouts.write, |time| time.0),
            },
            listen: options.listen,
            socket_mode: options.socket_mode,
            allow: options.allow,
            faults: options.fault,
            run: options.run,
            exit_with_parent: options.exit_with_parent.unwrap_or(false),
            memory,
            admin: match options.no_admin {
                Some(true) => AdminPort::Closed,
                _ => options.admin.map_or(AdminPort::OwnersSocket, AdminPort::At),
            },
            admin_token_file: options.admin_token_file,
        };
        if settings.max_connections == 0 {
            return Err(SettingsError::NoConnections);
        }
        settings.check_addresses()?;
        Ok(settings)
    }

    /// An address can be used only once, unless the system picks its port.
    fn check_addresses(&self) -> Result<(), SettingsError> {
        let admin = match &self.admin {
            AdminPort::At(address) => Some(address),
            AdminPort::Closed | AdminPort::OwnersSocket => None,
        };
        let all: Vec<_> = self.listen.iter().chain(admin).collect();
        for (index, address) in all.iter().enumerate() {
            let picked = matches!(address, Address::Tcp { port: 0, .. });
            if !picked && all[..index].contains(address) {
                return Err(SettingsError::SameAddress((*address).clone()));
            }
        }
        Ok(())
    }

    /// The default address to listen on.
    #[must_use]
    pub fn listen_default() -> Address {
        LISTEN_DEFAULT.parse().expect("a good constant")
    }
}

impl ExportSettings {
    fn resolve(
        spec: ExportSpec,
        server: &ServeOptions,
        share: u64,
        first_try: bool,
    ) -> Result<Self, SettingsError> {
        let options = spec.options.or(&server.exports);
        let cache_size = options.cache_size;
        if let Some(size) = cache_size.filter(|size| size.0 < CACHE_BYTES_MIN) {
            return Err(SettingsError::SmallCache(size, spec.name));
        }
        if let Some(size) = cache_size.filter(|size| size.0 > CACHE_BYTES_MAX) {
            return Err(SettingsError::LargeCache(size, spec.name));
        }
        Ok(Self {
            create_size: first_try
                .then_some(Size(FIRST_TRY_SIZE))
                .filter(|_| spec.size.is_none()),
            name: spec.name,
            description: spec.description.unwrap_or_default(),
            source: spec.source,
            size: spec.size,
            cache_bytes: cache_size.map_or(share, |size| size.0),
            mode: options.cache.map_or_else(CacheMode::default, Into::into),
            read_only: options.read_only.unwrap_or(false),
            direct_threshold: options.direct_threshold.map(|size| size.0),
            quota: options.quota.map(|size| size.0),
            engine: options.io_engine.map_or_else(Engine::default, Into::into),
            power_cut: options.power_cut.unwrap_or(false),
            keys: false,
        })
    }
}

/// The default export, if there is to be one, and the named ones.
fn export_specs(options: &ServeOptions) -> Vec<ExportSpec> {
    let default_source = match &options.source {
        Some(source) => Some(source.clone()),
        None if options.export.is_empty() => Some(FIRST_TRY_PATH.parse().expect("a good constant")),
        None => None,
    };
    let default = default_source.map(|source| ExportSpec {
        name: String::new(),
        source,
        size: options.size,
        options: ExportOptions::default(),
        description: None,
    });
    default
        .into_iter()
        .chain(options.export.iter().cloned())
        .collect()
}

fn check_names(specs: &[ExportSpec]) -> Result<(), SettingsError> {
    let mut seen = BTreeSet::new();
    for ExportSpec { name, .. } in specs {
        if name.len() > MAX_NAME {
            return Err(SettingsError::LongName(name.len()));
        }
        if name.contains('\0') {
            return Err(SettingsError::NulInName(name.clone()));
        }
        if !seen.insert(name) {
            return Err(SettingsError::SameName(name.clone()));
        }
    }
    Ok(())
}

/// An option that would be ignored is refused instead.
fn refuse_unavailable(options: &ServeOptions) -> Result<(), SettingsError> {
    match options.sandbox {
        Some(Switch::On) => Err(SettingsError::Unavailable("--sandbox on")),
        Some(Switch::Off) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
