//! The command line: every refusal names what is at fault and what to do, and damages nothing.

mod full_disk;
mod logs;
mod refusals;
mod resize;
mod start_stop;
mod words;

fn folder() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix("weir-cli-")
        .tempdir()
        .expect("a temporary folder")
}
