//! Counting system calls.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::process::Command;

use crate::process;

/// `program` under strace, which leaves it as our child with its process ID.
pub(super) fn command(program: &Path, report: &Path) -> io::Result<Command> {
    let mut command = process::command(&process::find_tool("strace")?);
    command
        .args(["-D", "-f", "-q", "-c", "-U", "calls,errors,name", "-o"])
        .arg(report)
        .arg("--")
        .arg(program);
    Ok(command)
}

/// This isn't counted: how often the server waits depends on whether it or the client is faster.
const WAIT: &str = "epoll_wait";

/// A line of strace's summary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Calls {
    made: u64,
    failed: u64,
}

/// How often each system call was made. If none failed, the summary has no figure for failures.
fn calls_by_name(report: &str) -> HashMap<&str, Calls> {
    let calls = |line| {
        let fields: Vec<&str> = str::split_whitespace(line).collect();
        let (made, failed, name) = match fields[..] {
            [made, name] => (made, "0", name),
            [made, failed, name] => (made, failed, name),
            _ => return None,
        };
        let (made, failed) = (made.parse().ok()?, failed.parse().ok()?);
        Some((name, Calls { made, failed }))
    };
    report.lines().filter_map(calls).collect()
}

/// The calls in strace's summary that are more than a wait.
pub(super) fn calls_of(report: &str) -> Option<u64> {
    let calls = calls_by_name(report);
    let waits = calls.get(WAIT).map_or(0, |waits| waits.made);
    Some(calls.get("total")?.made - waits)
}

/// The call with which the kernel refused to do I/O by io_uring, if the program asked for it.
pub(super) fn refusal_of_io_uring(report: &str) -> Option<&'static str> {
    let calls = calls_by_name(report);
    ["io_uring_setup", "io_uring_enter"]
        .into_iter()
        .find(|name| {
            calls
                .get(name)
                .is_some_and(|calls| calls.made == calls.failed)
        })
}
