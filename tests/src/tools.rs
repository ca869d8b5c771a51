//! The public NBD clients and other programs of Debian's packages.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::process::{Finished, run};

/// How long one run of a tool may take; the longest here needs a few seconds.
const TOOL_TIMEOUT: Duration = Duration::from_secs(120);
/// Where programs are looked for after `PATH`: file system tools are in `sbin`, which is often missing in users'
/// `PATH`.
const SYSTEM_FOLDERS: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/// The path of a program.
///
/// # Panics
/// When it is missing: a test that can't run must not pass.
#[track_caller]
#[must_use]
pub fn find(program: &str) -> PathBuf {
    installed(program).unwrap_or_else(|| {
        panic!("{program} is missing: run tests/run, which installs what the tests need")
    })
}

/// Where a program is, if it is anywhere.
#[must_use]
pub fn installed(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(SYSTEM_FOLDERS.iter().map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}

/// Runs a tool to its end, whatever its status.
#[track_caller]
pub fn tool<A: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = A>) -> Finished {
    run(Command::new(find(program)).args(args), TOOL_TIMEOUT)
}

/// Runs a tool that must succeed, and returns its standard output.
#[track_caller]
pub fn tool_ok<A: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = A>) -> String {
    tool(program, args).expect_code(0).stdout
}

/// Runs Python code in nbdsh with `h` connected to `uri`; panics unless it ends well.
///
/// nbdsh is `python3 -m nbd` with whichever python3 is first in `PATH`, but libnbd is a module of the system's.
#[track_caller]
pub fn nbdsh(uri: &str, code: &str) -> String {
    nbdsh_with(&["-u", uri, "-c", code])
}

/// Runs nbdsh with these arguments; panics unless it ends well.
#[track_caller]
pub fn nbdsh_with(args: &[&str]) -> String {
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-m", "nbd"]).args(args);
    run(&mut command, TOOL_TIMEOUT).expect_code(0).stdout
}

/// How many bytes of `path` are on disk.
///
/// # Panics
/// When it can't be read.
#[track_caller]
#[must_use]
pub fn bytes_on_disk(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    // st_blocks counts units of 512 bytes, whatever the file system's own block is.
    std::fs::metadata(path)
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()))
        .blocks()
        * 512
}
