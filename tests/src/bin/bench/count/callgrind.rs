//! Counting instructions and allocations.
//!
//! A profile of callgrind has a line for each pair of caller and callee. Its names are compressed: a number stands for
//! a name that was given with it earlier.
//!
//! ```text
//! fn=(12) weir::session::turn
//! cfn=(34) malloc
//! calls=7 0
//! ```

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::process::Command;

use crate::process;

/// The functions of libc that take memory from the allocator.
const ALLOCATORS: [&str; 5] = [
    "malloc",
    "calloc",
    "realloc",
    "posix_memalign",
    "aligned_alloc",
];

/// `program` under callgrind, in the same process.
pub(super) fn command(program: &Path, report: &Path) -> io::Result<Command> {
    let mut command = process::command(&process::find_tool("valgrind")?);
    command.args(["--quiet", "--tool=callgrind"]);
    command.arg(format!("--callgrind-out-file={}", report.display()));
    command.arg(program);
    Ok(command)
}

/// The instructions of a profile.
pub(super) fn instructions_of(profile: &str) -> Option<u64> {
    profile.lines().find_map(|line| {
        line.strip_prefix("totals:")?
            .split_whitespace()
            .next()?
            .parse()
            .ok()
    })
}

/// How often a profile's program asked the allocator for memory. No program starts without that, so there is always an
/// answer.
pub(super) fn allocations_of(profile: &str) -> Option<u64> {
    let mut allocators = HashSet::new();
    let mut callee = "";
    let mut total = 0;
    for line in profile.lines() {
        if let Some((number, name)) = function(line) {
            if name.is_some_and(|name| ALLOCATORS.contains(&name)) {
                allocators.insert(number);
            }
            if line.starts_with('c') {
                callee = number;
            }
        } else if let Some(calls) = line.strip_prefix("calls=")
            && allocators.contains(callee)
        {
            total += calls.split_whitespace().next()?.parse::<u64>().ok()?;
        }
    }
    (total > 0).then_some(total)
}

/// The number of a function, and its name where that is given.
fn function(line: &str) -> Option<(&str, Option<&str>)> {
    let text = line
        .strip_prefix("cfn=(")
        .or_else(|| line.strip_prefix("fn=("))?;
    let (number, name) = text.split_once(')')?;
    let name = name.trim();
    Some((number, (!name.is_empty()).then_some(name)))
}
