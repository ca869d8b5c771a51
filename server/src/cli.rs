//! The command line.
//!
//! Arguments that can't be parsed end the program with 2 before anything was touched. Errors that are found later end
//! it with 1 ([`crate::error`]). Subcommands that talk to a running server's admin port get modules of their own here.

use std::process::ExitCode;
use std::str::FromStr;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;
use serde::{Deserialize, Deserializer};

pub mod client;
mod connection;
mod device;
mod export;
pub mod export_options;
pub mod export_spec;
mod fault;
mod inject;
mod point;
pub mod serve;
pub mod socket_mode;
mod status;
mod table;
pub mod time;

pub use connection::ConnectionCommand;
pub use device::DeviceCommand;
pub use export::ExportCommand;
pub use fault::FaultCommand;
pub use inject::InjectCommand;
pub use point::PointCommand;
use serve::ServeOptions;

use crate::backend::file::Engine;
use crate::error::Error;
pub use status::StatusCommand;
pub(crate) use table::counted;

/// A network block device server with a coherent write-back cache, breakable on purpose
#[derive(Parser, Debug)]
#[command(
    name = "weir",
    version,
    about,
    max_term_width = 100,
    arg_required_else_help = true
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Serves files, block devices or memory to NBD clients
    ///
    /// SIGTERM, SIGINT and SIGQUIT stop it: requests that were received are answered, everything is flushed, and only a
    /// second one of these stops at once. SIGHUP does the same without --config, and nothing but a line in the log with
    /// it, as the file is read at the start only. SIGUSR1 tells the log what is served, dirty and connected.
    Serve(Box<ServeOptions>),
    /// Shows a running server's exports, connections and caches
    Status(StatusCommand),
    /// Shows exports, flushes, empties and resizes them
    Export(ExportCommand),
    /// Shows connections and closes them
    Connection(ConnectionCommand),
    /// Makes requests go wrong, by rules
    Fault(FaultCommand),
    /// Makes code go wrong, at points in it
    Point(PointCommand),
    /// Makes an export go wrong as a device
    Device(DeviceCommand),
    /// Makes one function fail while a command runs
    Inject(InjectCommand),
    /// Works on configuration files
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Prints a completion script for a shell
    Completions {
        /// The shell that will read it
        shell: clap_complete::Shell,
    },
    /// Prints the manual page
    Man,
}

/// What can be done to a configuration file.
#[derive(Subcommand, Debug)]
pub enum ConfigCommand {
    /// Says whether `weir serve --config FILE` would refuse it; changes nothing
    Check {
        /// The file
        #[arg(value_name = "FILE")]
        file: std::path::PathBuf,
    },
}

/// The cache modes by their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "see weir_cache::CacheMode")]
pub enum CacheModeName {
    Writeback,
    Writethrough,
    None,
}

impl FromStr for CacheModeName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        ValueEnum::from_str(text, false)
            .map_err(|_| format!("{text:?} is none of writeback, writethrough, none"))
    }
}

impl From<CacheModeName> for weir_cache::CacheMode {
    fn from(name: CacheModeName) -> Self {
        match name {
            CacheModeName::Writeback => Self::Writeback,
            CacheModeName::Writethrough => Self::Writethrough,
            CacheModeName::None => Self::None,
        }
    }
}

/// The I/O engines by their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "see Engine")]
pub enum IoEngineName {
    Auto,
    Threads,
}

impl FromStr for IoEngineName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        ValueEnum::from_str(text, false).map_err(|_| format!("{text:?} is none of auto, threads"))
    }
}

impl From<IoEngineName> for Engine {
    fn from(name: IoEngineName) -> Self {
        match name {
            IoEngineName::Auto => Self::Auto,
            IoEngineName::Threads => Self::Threads,
        }
    }
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Switch {
    On,
    Off,
}

/// Writes the completion script for `shell` to standard output.
///
/// # Errors
/// Standard output can't be written.
pub fn print_completions(shell: clap_complete::Shell) -> Result<ExitCode, Error> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "weir", &mut text);
    client::print_bytes(&text)
}

/// Writes the manual page, in roff, to standard output: one page with every subcommand.
///
/// # Errors
/// Standard output can't be written.
pub fn print_manual() -> Result<ExitCode, Error> {
    let mut out = Vec::new();
    let mut command = Cli::command();
    command.build();
    let page = clap_mangen::Man::new(command.clone()).render(&mut out);
    page.map_err(Error::Output)?;
    for subcommand in command
        .get_subcommands()
        .filter(|subcommand| subcommand.get_name() != "help")
    {
        let page = clap_mangen::Man::new(subcommand.clone()).render(&mut out);
        page.map_err(Error::Output)?;
    }
    client::print_bytes(&out)
}

/// A whole number, refused in words.
fn parse_number<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| {
        format!("{text:?} is no number that can be meant; write a whole one, such as 3")
    })
}

/// A network, or one address as a network of its own.
fn parse_network(text: &str) -> Result<IpNet, String> {
    let network = text
        .parse::<IpNet>()
        .or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from));
    network
        .map_err(|_| format!("{text:?} is no network; write 10.0.0.0/8, fd00::/8 or one address"))
}

fn deserialize_networks<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<IpNet>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts
        .iter()
        .map(|text| parse_network(text).map_err(serde::de::Error::custom))
        .collect()
}

#[cfg(test)]
mod tests;
