//! Logs, on standard error.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Logs what `RUST_LOG` says; without it what `-v` and `-q` (each counted) say.
pub fn start(verbose: u8, quiet: u8) {
    let filter = std::env::var("RUST_LOG")
        .ok()
        .and_then(|text| EnvFilter::try_new(text).ok());
    let filter = filter.unwrap_or_else(|| EnvFilter::new(directives(verbose, quiet)));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(verbose > 0)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        // It would say on a standard error that has gone that standard error has gone, and panic.
        .log_internal_errors(false)
        .finish();
    // Only a second start in one process could be refused, and then the first one logs.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// Detail is wanted of Weir, not of the libraries under it.
fn directives(verbose: u8, quiet: u8) -> &'static str {
    match (verbose, quiet) {
        (_, 2..) => "error",
        (_, 1) => "warn",
        (0, 0) => "info",
        (1, 0) => "info,weir=debug,weir_cache=debug,weir_faults=debug,weir_protocol=debug",
        (2.., 0) => "info,weir=trace,weir_cache=trace,weir_faults=trace,weir_protocol=trace",
    }
}
