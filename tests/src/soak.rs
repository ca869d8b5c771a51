//! The tests that have seeds, for hours: what there is to run, and which turn comes next.
//!
//! A [`Part`] is some tests of one test binary, with the two variables that set their first seed and their extent. The
//! parts take [turns](Turns), each a run of `cargo test`. Each turn of a part begins with the seed after the last one
//! of its previous turn. [`Conductor`] runs the turns until the time is over or one fails.
//!
//! Nothing is tested here: a failure in a soak is also a failure of the test alone, with the same command line.

mod conduct;
#[cfg(test)]
mod tests;

use std::fmt::{self, Display};
use std::path::{Path, PathBuf};

pub use conduct::{Conductor, Outcome};

/// Tests that take turns with others.
#[derive(Debug, PartialEq, Eq)]
pub struct Part {
    /// One word.
    pub name: &'static str,
    /// One line.
    pub about: &'static str,
    tests: Tests,
    /// The variable for the first seed.
    first_seed: &'static str,
    /// How many seeds a turn uses.
    seeds: u64,
    /// The variable for the extent, and its value in a turn: some 10 to 40 s in a debug build, on two cores.
    extent: (&'static str, u64),
    needs: Needs,
}

#[derive(Debug, PartialEq, Eq)]
enum Tests {
    /// Those of the crates' own tests whose path contains this.
    Unit(&'static str),
    /// Those tests of that end-to-end test binary whose path contains this.
    EndToEnd(&'static str, &'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
enum Needs {
    Nothing,
    /// The program.
    Weir,
    /// The program, and the programs in `KERNEL_PROGRAMS`.
    Kernel,
}

/// The Debian programs that the guest can't do without.
const KERNEL_PROGRAMS: [&str; 6] = [
    "linux.uml",
    "insmod",
    "nbd-client",
    "mkfs.ext4",
    "mkfs.xfs",
    "mkfs.btrfs",
];

/// All parts, in the order of their turns.
pub const PARTS: [Part; 6] = [
    Part {
        name: "crash",
        about: "power cuts of a cache, without a process: no promise is broken",
        tests: Tests::EndToEnd("crash", "no_power_cut_breaks_a_promise"),
        first_seed: "WEIR_CRASH_SEED",
        seeds: 500,
        extent: ("WEIR_CRASH_RUNS", 500),
        needs: Needs::Nothing,
    },
    Part {
        name: "model",
        about: "the page cache against a flat vector: one schedule, and real threads",
        tests: Tests::Unit("page_cache::tests::model::"),
        first_seed: "WEIR_MODEL_SEED",
        seeds: 1,
        extent: ("WEIR_MODEL_SEEDS", 1),
        needs: Needs::Nothing,
    },
    Part {
        name: "kill",
        about: "SIGKILL of a server under load: what was flushed is there",
        tests: Tests::EndToEnd("interop", "sigkill_keeps_what_was_flushed"),
        first_seed: "WEIR_KILL_SEED",
        seeds: 60,
        extent: ("WEIR_KILL_ROUNDS", 60),
        needs: Needs::Weir,
    },
    Part {
        name: "power-cut",
        about: "power cuts of a server under load: each sector is the covered version or a later one",
        tests: Tests::EndToEnd("faults", "power_cut::"),
        first_seed: "WEIR_POWER_CUT_SEED",
        seeds: 30,
        extent: ("WEIR_POWER_CUT_ROUNDS", 30),
        needs: Needs::Weir,
    },
    Part {
        name: "fuzz",
        about: "bytes that mean nothing, at every stage of a connection: the server lives on",
        tests: Tests::EndToEnd("hostile", "random::"),
        first_seed: "WEIR_FUZZ_SEED",
        seeds: 1,
        extent: ("WEIR_FUZZ_SECONDS", 5),
        needs: Needs::Weir,
    },
    Part {
        name: "kernel",
        about: "power cuts under the kernel's file systems: every fsynced file is whole",
        tests: Tests::EndToEnd("kernel", "every_fsynced_file_is_whole_after_a_power_cut"),
        first_seed: "WEIR_POWER_CUT_SEED",
        // One for each file system.
        seeds: 3,
        extent: ("WEIR_POWER_CUT_SEEDS", 3),
        needs: Needs::Kernel,
    },
];

impl Part {
    /// Why it can't run here and what to do about that; nothing if it can run. `weir` is the program, or the reason why
    /// there is none.
    #[must_use]
    pub fn obstacle(
        &self,
        weir: &Result<PathBuf, String>,
        is_installed: impl Fn(&str) -> bool,
    ) -> Option<String> {
        if self.needs >= Needs::Weir
            && let Err(why) = weir
        {
            return Some(why.clone());
        }
        let needed = KERNEL_PROGRAMS
            .iter()
            .filter(|_| self.needs == Needs::Kernel);
        let missing: Vec<&str> = needed.copied().filter(|name| !is_installed(name)).collect();
        (!missing.is_empty()).then(|| {
            format!(
                "{} missing; `tests/run packages` installs what there is to install",
                missing.join(", ")
            )
        })
    }
}

/// The program to test: the one that is `given`, or the release build beside the folder of `soak`, itself a program of
/// `target/<profile>`.
///
/// # Errors
/// When it is missing: says so, and how to make it.
pub fn weir(given: Option<PathBuf>, soak: &Path) -> Result<PathBuf, String> {
    let built = || {
        soak.ancestors()
            .nth(2)
            .map(|target| target.join("release/weir"))
    };
    let path = given.or_else(built).unwrap_or_default();
    let found = path.canonicalize().ok().filter(|path| path.is_file());
    found.ok_or_else(|| {
        format!(
            "no program {}; `cargo build --locked --release --bin weir` makes one, or set WEIR_BIN",
            path.display()
        )
    })
}

/// One run of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The part that it is a run of.
    pub part: &'static Part,
    first_seed: u64,
    variables: Vec<(&'static str, String)>,
    arguments: Vec<&'static str>,
}

impl Turn {
    fn new(part: &'static Part, first_seed: u64, weir: Option<&Path>) -> Self {
        let (extent, value) = part.extent;
        let mut variables = vec![
            (part.first_seed, first_seed.to_string()),
            (extent, value.to_string()),
        ];
        // It is always the whole workspace and a filter, as in tests/run: another selection means other features, and a
        // second build.
        let mut arguments = vec!["test", "--workspace", "--locked"];
        match part.tests {
            Tests::Unit(filter) => arguments.extend(["--lib", filter]),
            Tests::EndToEnd(binary, filter) => {
                arguments.extend(["--test", binary, filter, "--", "--include-ignored"]);
            }
        }
        if part.needs >= Needs::Weir
            && let Some(weir) = weir
        {
            variables.push(("WEIR_BIN", weir.display().to_string()));
        }
        Self {
            part,
            first_seed,
            variables,
            arguments,
        }
    }

    /// `seed 7`, or `seeds 7 to 9`.
    #[must_use]
    pub fn seeds(&self) -> String {
        seeds(self.first_seed, self.part.seeds)
    }
}

/// The command line that runs this turn, for a shell in the workspace's folder.
impl Display for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.variables {
            write!(f, "{name}={} ", quoted(value))?;
        }
        write!(f, "cargo {}", self.arguments.join(" "))
    }
}

/// As one word of a shell.
fn quoted(value: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if value.chars().all(is_plain) {
        value.to_owned()
    } else {
        format!("'{}'", value.replace('\'', r"'\''"))
    }
}

fn seeds(first: u64, count: u64) -> String {
    match count {
        1 => format!("seed {first}"),
        _ => format!("seeds {first} to {}", first + count - 1),
    }
}

/// Which turn comes next, without end: one of each part, and again with the next seeds.
#[derive(Debug)]
pub struct Turns {
    parts: Vec<&'static Part>,
    first_seed: u32,
    weir: Option<PathBuf>,
    taken: u64,
}

impl Turns {
    /// The turns of these parts, from that seed on. (It has 32 bits, so no seed overflows in a lifetime, whatever is
    /// added to it.)
    #[must_use]
    pub fn new(parts: Vec<&'static Part>, first_seed: u32, weir: Option<PathBuf>) -> Self {
        Self {
            parts,
            first_seed,
            weir,
            taken: 0,
        }
    }
}

impl Iterator for Turns {
    type Item = Turn;

    fn next(&mut self) -> Option<Turn> {
        let count = self.parts.len() as u64;
        let round = self.taken.checked_div(count)?;
        let part = self.parts[usize::try_from(self.taken % count).expect("a few")];
        self.taken += 1;
        let first_seed = u64::from(self.first_seed) + round * part.seeds;
        Some(Turn::new(part, first_seed, self.weir.as_deref()))
    }
}
