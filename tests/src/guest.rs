//! A Linux kernel as an ordinary program: User-mode Linux (Debian's package `user-mode-linux`).
//!
//! The guest sees the host's files through hostfs, so the server and the tools inside it are the host's own. hostfs has
//! neither fallocate nor O_DIRECT nor hole seeking, so each guest also gets a disk of its own, ext4 on a sparse file.
//! `tests/kernel/init.sh` is its first process; it runs one script of that folder and prints the result line that
//! [`Guest::run`] reads. Neither root nor virtualisation is needed.

use std::fmt::Display;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::process::run;
use crate::server::weir;
use crate::tools::{find, tool_ok};

/// mkfs.xfs wants 300 MB; the rest is for the page cache and the server.
const MEMORY: &str = "768M";
/// Room for a 1 GiB image that is written in full, twice over.
const DISK_BYTES: u64 = 3 << 30;
/// The beginning of the guest's line of success; a failure says `weir-result: failed` and why.
const RESULT: &str = "weir-result: ";

/// One guest, before it boots.
#[derive(Debug)]
pub struct Guest {
    dir: TempDir,
    variables: Vec<(String, String)>,
    timeout: Duration,
}

impl Guest {
    /// A guest with a fresh disk. It is killed when it takes longer than `timeout`.
    ///
    /// # Panics
    /// When the disk can't be made.
    #[must_use]
    pub fn new(timeout: Duration) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("weir-guest-")
            .tempdir()
            .expect("a temporary folder");
        let disk = dir.path().join("disk.img");
        fs::File::create(&disk)
            .and_then(|f| f.set_len(DISK_BYTES))
            .expect("a sparse file");
        // No lazy initialisation: a thread that writes to the disk beside the test would cost it time.
        let options = [
            "-q",
            "-F",
            "-O",
            "^has_journal",
            "-E",
            "lazy_itable_init=0,nodiscard",
        ];
        tool_ok(
            "mkfs.ext4",
            options.iter().map(AsRef::as_ref).chain([disk.as_os_str()]),
        );
        Self {
            dir,
            variables: Vec::new(),
            timeout,
        }
    }

    /// Sets an environment variable for the script.
    #[must_use]
    pub fn variable(mut self, name: &str, value: impl Display) -> Self {
        self.variables.push((name.to_owned(), value.to_string()));
        self
    }

    /// A folder of the host that the guest sees under the same name, and that is removed with the guest.
    #[must_use]
    pub fn host_folder(&self) -> &Path {
        self.dir.path()
    }

    /// Boots, runs `tests/kernel/<script>.sh`, powers off, and returns what the console showed.
    ///
    /// # Panics
    /// When the script fails, or the guest does not end in time.
    #[track_caller]
    pub fn run(self, script: &str) -> String {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernel");
        let script = scripts.join(script).with_extension("sh");
        assert!(script.is_file(), "{} is missing", script.display());
        let init = self.write_init(&scripts.join("init.sh"), &script);

        let mut command = Command::new(find("linux.uml"));
        command
            .arg(format!("mem={MEMORY}"))
            .args([
                "rootfstype=hostfs",
                "rootflags=/",
                "rw",
                "quiet",
                "panic=-1",
            ])
            .arg(format!("init={}", init.display()))
            .arg(format!(
                "ubd0={}",
                self.dir.path().join("disk.img").display()
            ))
            .arg(format!("uml_dir={}", self.dir.path().join("uml").display()))
            .args(["con=null", "con0=fd:0,fd:1", "ssl=null"]);
        let console = run(&mut command, self.timeout);
        let text = format!("{}{}", console.stdout, console.stderr).replace('\r', "");
        let result = text.lines().find_map(|line| line.strip_prefix(RESULT));
        assert_eq!(result, Some("ok"), "the guest's console:\n{text}");
        text
    }

    fn write_init(&self, init: &Path, script: &Path) -> PathBuf {
        use std::fmt::Write as _;
        let mut text = String::from("#!/bin/bash\n");
        let mut set = |name: &str, value: &str| {
            assert!(!value.contains('\''), "{name}: {value}");
            writeln!(text, "export {name}='{value}'").expect("a string grows");
        };
        set("WEIR", &weir().to_string_lossy());
        set("SCRIPT", &script.to_string_lossy());
        set("HOST_FOLDER", &self.dir.path().to_string_lossy());
        for (name, value) in &self.variables {
            set(name, value);
        }
        writeln!(text, "exec bash '{}'", init.display()).expect("a string grows");
        let path = self.dir.path().join("init");
        fs::write(&path, text).expect("the folder is ours");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("the file is ours");
        path
    }
}
