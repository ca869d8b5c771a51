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
        .args(["-D", "-f", "-q", "-c", "-U", "calls,name", "-o"])
        .arg(report)
        .arg("--")
        .arg(program);
    Ok(command)
}

/// What isn't counted: how often the server waits depends on who is faster, it or the client.
const WAIT: &str = "epoll_wait";

/// The calls in strace's summary that are more than a wait.
pub(super) fn calls_of(report: &str) -> Option<u64> {
    let mut calls = HashMap::new();
    for line in report.lines() {
        if let [count, name] = line.split_whitespace().collect::<Vec<_>>()[..]
            && let Ok(count) = count.parse::<u64>()
        {
            calls.insert(name, count);
        }
    }
    let total = calls.remove("total")?;
    Some(total - calls.get(WAIT).unwrap_or(&0))
}
