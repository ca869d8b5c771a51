//! The command line.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, Subcommand};

use crate::stream::{Address, Transport};

/// Compares Weir with other NBD servers and with what the socket allows.
///
/// Figures mean something as ratios only, against a contender of the same run: the contenders take turns in every
/// round, and medians over the rounds are reported with the smallest and the largest ratio. Names of loads and servers
/// are printed by --list.
#[derive(Debug, Parser)]
#[command(name = "bench", group(ArgGroup::new("mode").args(["tails", "tables", "count", "list"])))]
pub(crate) struct Arguments {
    /// Only the reference servers; without it, a comparison.
    #[command(subcommand)]
    pub(crate) server: Option<Reference>,
    /// Short rounds, cold loads over Unix sockets only: two minutes at most.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Latency beside a streaming writer, and over time while the cache overflows.
    #[arg(long)]
    pub(crate) tails: bool,
    /// What connections, start-up, trims, flushes and exports cost.
    #[arg(long)]
    pub(crate) tables: bool,
    /// Count system calls, instructions and allocations per request instead of timing; exit 1 above the limits.
    #[arg(long)]
    pub(crate) count: bool,
    /// The limits for --count, instead of those built in.
    #[arg(long, value_name = "FILE", requires = "count")]
    pub(crate) limits: Option<PathBuf>,
    /// Keep what strace and callgrind report with --count there.
    #[arg(long, value_name = "FOLDER", requires = "count")]
    pub(crate) profiles: Option<PathBuf>,
    /// Print the names of loads and servers.
    #[arg(long)]
    pub(crate) list: bool,
    /// Only these loads.
    #[arg(long, value_name = "LOAD,..", value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// Only these servers.
    #[arg(long, value_name = "NAME,..", value_delimiter = ',')]
    pub(crate) servers: Vec<String>,
    /// How often each contender runs each load [default: 5, with --quick 3].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: Option<u32>,
    /// The build of Weir to measure.
    #[arg(long, value_name = "PATH", default_value = "target/release/weir")]
    pub(crate) weir: PathBuf,
    /// Another build of Weir to compare it with.
    #[arg(long, value_name = "PATH")]
    pub(crate) baseline: Option<PathBuf>,
    /// Write every figure of every round.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Draw the result.
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// Only TCP over loopback; --tails, --tables and --count use Unix sockets always.
    #[arg(long)]
    pub(crate) tcp: bool,
    /// Only Unix sockets.
    #[arg(long, conflicts_with = "tcp")]
    pub(crate) unix: bool,
    /// Ask for structured replies where the server has them.
    #[arg(long)]
    pub(crate) structured: bool,
    /// Where files and sockets go; on the disk that is to be measured.
    #[arg(long, value_name = "FOLDER", default_value_os_t = std::env::temp_dir())]
    pub(crate) dir: PathBuf,
}

/// A reference server, run as a child process.
#[derive(Debug, Subcommand)]
pub(crate) enum Reference {
    /// Serve plain memory, a thread per connection.
    Ceiling(Serve),
    /// Serve plain memory, a tokio task per connection.
    TokioLoop(Serve),
}

/// What a reference server serves.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// unix:PATH or HOST:PORT.
    #[arg(long)]
    pub(crate) listen: Address,
    /// In bytes.
    #[arg(long)]
    pub(crate) size: u64,
}

impl Arguments {
    pub(crate) fn transports(&self) -> Vec<Transport> {
        match (self.unix, self.tcp) {
            (true, _) => vec![Transport::Unix],
            (_, true) => vec![Transport::Tcp],
            _ => vec![Transport::Unix, Transport::Tcp],
        }
    }
}
