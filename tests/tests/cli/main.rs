//! The command line: every refusal names what is at fault and what to do, and damages nothing.

mod admin;
mod durable;
mod full_disk;
mod hints;
mod logs;
mod refusals;
mod resize;
mod rights;
mod service;
mod signals;
mod start_stop;
mod words;

fn folder() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix("weir-cli-")
        .tempdir()
        .expect("a temporary folder")
}
