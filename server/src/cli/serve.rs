//! The options of `weir serve`, which are also the keys of its configuration file.
//!
//! The same structures serve both, so the names can't differ. An option that wasn't given is `None` or empty. The file
//! then decides, and [`crate::settings`] decides what the file leaves open.

use std::path::PathBuf;

use clap::{ArgAction, Args};
use ipnet::IpNet;
use serde::Deserialize;

use super::Switch;
use super::export_options::ExportOptions;
use super::export_spec::{self, ExportSpec};
use super::socket_mode::SocketMode;
use super::time::Time;
use crate::listener::Address;
use crate::size::Size;
use crate::source::{self, Source};

/// What can be said about a server.
#[derive(Args, Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct ServeOptions {
    /// What to serve as the default export; the table of the stores says how that is written.
    #[arg(value_name = "SOURCE", help = source::help(), long_help = source::long_help())]
    pub source: Option<Source>,

    /// The size of SOURCE (512k, 10G, 1T): creates a missing file; an existing one must have it
    ///
    /// Each --export has a key of its own for that.
    #[arg(long, value_name = "SIZE")]
    pub size: Option<Size>,

    /// Serves SOURCE under NAME as well, with keys of its own; may be repeated
    #[arg(long, value_name = "NAME=SOURCE[,key=value...]", help = export_spec::HELP, long_help = export_spec::long_help())]
    pub export: Vec<ExportSpec>,

    /// Where to listen: HOST:PORT, [::1]:PORT or unix:PATH; may be repeated; port 0 picks a free one [default:
    /// 127.0.0.1:10809]
    #[arg(long, value_name = "ADDR")]
    pub listen: Vec<Address>,

    /// Who may connect to the Unix sockets of --listen: their mode, such as 0660 [default: by the umask]
    #[arg(long, value_name = "MODE")]
    pub socket_mode: Option<SocketMode>,

    /// Where the admin port listens: unix:PATH or HOST:PORT [default: a Unix socket of this user's alone, where the
    /// commands look]
    ///
    /// On TCP, loopback included, it only shows things unless there is an --admin-token-file.
    #[arg(long, value_name = "ADDR", conflicts_with = "no_admin")]
    pub admin: Option<Address>,

    /// Opens no admin port
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", hide_possible_values = true)]
    pub no_admin: Option<bool>,

    /// What every export is that says nothing else.
    #[command(flatten)]
    #[serde(skip)]
    pub exports: ExportOptions,

    /// Adds a fault rule from the start, such as 'read p=1% delay=20ms'; may be repeated
    #[arg(long, value_name = "RULE")]
    pub fault: Vec<String>,

    /// Takes what isn't said here from a TOML file with the same names
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,

    /// Runs a shell command with $uri and $admin once the server listens, and exits with its status
    ///
    /// Standard output is the command's alone.
    #[arg(long, value_name = "CMD")]
    pub run: Option<String>,

    /// Stops, as SIGTERM does, when the process that started it has ended
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", hide_possible_values = true)]
    pub exit_with_parent: Option<bool>,

    /// A file with the token that the admin port asks for; on TCP nothing can be changed without, and only loopback be
    /// used
    #[arg(long, value_name = "FILE", env = "WEIR_ADMIN_TOKEN_FILE")]
    pub admin_token_file: Option<PathBuf>,

    /// How many connections are served at a time [default: 512]
    #[arg(long, value_name = "N", value_parser = super::parse_number::<usize>)]
    pub max_connections: Option<usize>,

    /// How long a client may take to negotiate [default: 10s]
    #[arg(long, value_name = "TIME")]
    pub handshake_timeout: Option<Time>,

    /// Closes a connection that asks nothing for so long [default: never]
    ///
    /// Sending less than 16 KiB a second of a request's data counts as nothing.
    #[arg(long, value_name = "TIME")]
    pub idle_timeout: Option<Time>,

    /// Closes a connection that takes nothing of its replies for so long [default: 60s]
    #[arg(long, value_name = "TIME")]
    pub write_timeout: Option<Time>,

    /// Lets only these networks in (10.0.0.0/8, fd00::/8, 192.0.2.1); may be repeated; Unix sockets aren't concerned
    #[arg(long, value_name = "CIDR", value_parser = super::parse_network)]
    #[serde(deserialize_with = "super::deserialize_networks")]
    pub allow: Vec<IpNet>,

    /// Confines the process after its start; not available in this version, which takes nothing but off
    #[arg(long, value_name = "on|off")]
    pub sandbox: Option<Switch>,

    /// Logs more (-v: debug, -vv: trace); RUST_LOG has the last word
    #[arg(short, long, action = ArgAction::Count)]
    #[serde(skip)]
    pub verbose: u8,

    /// Logs less (-q: warnings, -qq: errors only)
    #[arg(short, long, action = ArgAction::Count, conflicts_with = "verbose")]
    #[serde(skip)]
    pub quiet: u8,
}

impl ServeOptions {
    /// These options, and those of `file` where these say nothing. A list isn't added to but replaced.
    #[must_use]
    pub fn or(self, file: Self) -> Self {
        fn list<T>(here: Vec<T>, there: Vec<T>) -> Vec<T> {
            if here.is_empty() { there } else { here }
        }
        // A SOURCE or an --export on the command line says what to serve, all of it.
        let says_exports = self.source.is_some() || !self.export.is_empty();
        // A size belongs to the SOURCE beside it.
        let (source, export, size) = if says_exports {
            (self.source, self.export, self.size)
        } else {
            (file.source, file.export, self.size.or(file.size))
        };
        // --admin and --no-admin contradict each other across the two as well.
        let says_admin = self.admin.is_some() || self.no_admin.is_some();
        let (admin, no_admin) = if says_admin {
            (self.admin, self.no_admin)
        } else {
            (file.admin, file.no_admin)
        };
        Self {
            source,
            export,
            admin,
            no_admin,
            size,
            listen: list(self.listen, file.listen),
            socket_mode: self.socket_mode.or(file.socket_mode),
            exports: self.exports.or(&file.exports),
            fault: list(self.fault, file.fault),
            config: self.config,
            run: self.run.or(file.run),
            exit_with_parent: self.exit_with_parent.or(file.exit_with_parent),
            admin_token_file: self.admin_token_file.or(file.admin_token_file),
            max_connections: self.max_connections.or(file.max_connections),
            handshake_timeout: self.handshake_timeout.or(file.handshake_timeout),
            idle_timeout: self.idle_timeout.or(file.idle_timeout),
            write_timeout: self.write_timeout.or(file.write_timeout),
            allow: list(self.allow, file.allow),
            sandbox: self.sandbox.or(file.sandbox),
            verbose: self.verbose,
            quiet: self.quiet,
        }
    }
}
