//! A server with an admin port on a Unix socket, and the command line to control it with.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use weir_tests::client::wire::{CMD_READ, EIO};
use weir_tests::client::{Client, Errno, Options};
use weir_tests::process::Process;
use weir_tests::server::{Server, ServerBuilder};

/// The default export's size.
pub(crate) const EXPORT_BYTES: u64 = 8 << 20;
/// For what is waited for; far above what it takes.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// A server of a file and of `db`, which is memory, with its folder.
pub(crate) struct Rig {
    pub(crate) server: Server,
    dir: TempDir,
}

impl Rig {
    #[track_caller]
    pub(crate) fn new() -> Self {
        Self::with(|builder| builder)
    }

    #[track_caller]
    pub(crate) fn with(change: impl FnOnce(ServerBuilder) -> ServerBuilder) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("weir-faults-")
            .tempdir()
            .expect("a temporary folder");
        let builder = ServerBuilder::new(dir.path())
            .file(&dir.path().join("disk.img"), EXPORT_BYTES)
            .option("--export", "db=memory:1M")
            .admin_at(format!("unix:{}", dir.path().join("admin.sock").display()));
        Self {
            server: change(builder).start(),
            dir,
        }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn client(&self) -> Client {
        self.server.client()
    }

    pub(crate) fn client_of(&self, export: &str) -> Client {
        self.server.client_with(&Options::default().export(export))
    }

    /// `weir LINE` must succeed; what it prints.
    #[track_caller]
    pub(crate) fn ok(&self, line: &str) -> String {
        self.server.control(words(line)).expect_code(0).stdout
    }

    /// The same, from JSON.
    #[track_caller]
    pub(crate) fn json(&self, line: &str) -> Value {
        let text = self.ok(&format!("{line} --json"));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{line}: {error}: {text}"))
    }

    /// `weir LINE` must fail with 1, and say why in one line that names each of `parts`.
    #[track_caller]
    pub(crate) fn refused(&self, line: &str, parts: &[&str]) {
        let done = self.server.control(words(line)).expect_code(1);
        assert_eq!(done.stdout, "", "{line}");
        assert_eq!(done.stderr.lines().count(), 1, "{line}: {}", done.stderr);
        for part in parts {
            let said = &done.stderr;
            assert!(said.contains(part), "{line}: nothing of {part:?} in {said}");
        }
    }

    /// Adds a rule; its number.
    #[track_caller]
    pub(crate) fn add(&self, rule: &str) -> u64 {
        let printed = self.ok(&format!("fault add {rule}"));
        printed
            .trim_end()
            .parse()
            .unwrap_or_else(|error| panic!("{rule}: {error}: {printed:?}"))
    }

    /// Nothing else than this rule in force.
    #[track_caller]
    pub(crate) fn only(&self, rule: &str) {
        self.clear();
        self.add(rule);
    }

    #[track_caller]
    pub(crate) fn clear(&self) {
        self.ok("fault clear");
    }

    /// Follows the events that come from now on; lines of words.
    #[track_caller]
    pub(crate) fn follow(&self) -> Process {
        let command = ["fault", "events", "--follow"];
        Process::start(&mut self.server.control_command(command))
    }

    /// As [`Rig::finish`]; what is in the default export's file then.
    #[track_caller]
    pub(crate) fn finish_with_image(self) -> Vec<u8> {
        let Self { server, dir } = self;
        server.assert_serving();
        server.stop_clean();
        std::fs::read(dir.path().join("disk.img")).expect("the image")
    }

    /// The server must be well and stop with 0.
    #[track_caller]
    pub(crate) fn finish(self) {
        self.clear();
        self.ok("point reset");
        self.server.assert_serving();
        self.server.stop_clean();
    }
}

/// A line as a shell would split it; only `""` is quoted.
fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split_whitespace()
        .map(|word| if word == "\"\"" { "" } else { word })
}

/// Which of `count` READs of `length` bytes, one after the other, fail.
#[track_caller]
pub(crate) fn failing_reads(client: &mut Client, count: u64, length: u32) -> Vec<u64> {
    let failing = |index: &u64| {
        let offset = index * u64::from(length);
        let outcome = client.read(offset, length).map(drop);
        assert!(matches!(outcome, Ok(()) | Err(Errno(EIO))), "{outcome:?}");
        outcome.is_err()
    };
    (0..count).filter(failing).collect()
}

/// Another request must be answered before anything else is: whatever was sent before is still waiting.
#[track_caller]
pub(crate) fn assert_first_answer_is_a_read(client: &mut Client) {
    let cookie = client.send(CMD_READ, 0, 0, 512, &[]);
    assert_eq!(client.receive().cookie, cookie, "something else came first");
}

/// How many bits differ.
#[track_caller]
pub(crate) fn differing_bits(left: &[u8], right: &[u8]) -> u32 {
    assert_eq!(left.len(), right.len());
    let pairs = left.iter().zip(right);
    pairs.map(|(left, right)| (left ^ right).count_ones()).sum()
}
