//! A child process with captured output, a deadline on every wait, and no survivors.
//!
//! Only this process's own children are ever signalled, by pid, and only before they are reaped: until then the kernel
//! can't reuse the pid.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

/// How a child ended and all that it printed.
#[derive(Debug)]
pub struct Finished {
    /// The exit status.
    pub status: ExitStatus,
    /// Standard output, whole.
    pub stdout: String,
    /// Standard error, whole.
    pub stderr: String,
}

impl Finished {
    /// Panics unless the child ended with `code`, showing what it printed.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(
            self.status.code(),
            Some(code),
            "ended with {}\n--- stdout\n{}\n--- stderr\n{}",
            self.status,
            self.stdout,
            self.stderr
        );
        self
    }
}

/// A running child. Dropping it kills it, and its process group where it has one.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pid: Pid,
    own_group: bool,
    reaped: bool,
    exited: Receiver<()>,
    lines: Receiver<String>,
    stdout: Arc<Mutex<String>>,
    stderr: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts `command` with nothing on standard input.
    ///
    /// # Panics
    /// When the program can't be started.
    #[track_caller]
    pub fn start(command: &mut Command) -> Self {
        Self::spawn(command, false)
    }

    /// The same in a process group of its own, which a drop kills as a whole: for programs that start others.
    ///
    /// # Panics
    /// When the program can't be started.
    #[track_caller]
    pub fn start_group(command: &mut Command) -> Self {
        use std::os::unix::process::CommandExt;
        Self::spawn(command.process_group(0), true)
    }

    #[track_caller]
    fn spawn(command: &mut Command, own_group: bool) -> Self {
        let program = command.get_program().to_os_string();
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|e| panic!("can't start {}: {e}", program.display()));
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid fits i32"));

        let (line_tx, lines) = channel();
        let stdout = Arc::new(Mutex::new(String::new()));
        let stderr = Arc::new(Mutex::new(String::new()));
        let out = child.stdout.take().expect("piped");
        let err = child.stderr.take().expect("piped");
        let readers = vec![
            collect(out, Arc::clone(&stdout), move |line| {
                drop(line_tx.send(line))
            }),
            collect(err, Arc::clone(&stderr), drop),
        ];

        let (exit_tx, exited) = channel();
        thread::spawn(move || {
            // WNOWAIT leaves the zombie, so the pid stays this child's until `reap`.
            while waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)
                == Err(nix::Error::EINTR)
            {}
            let _ = exit_tx.send(());
        });
        Self {
            child,
            pid,
            own_group,
            reaped: false,
            exited,
            lines,
            stdout,
            stderr,
            readers,
        }
    }

    /// The child's process id.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// The next line of standard output, without its line end.
    ///
    /// # Panics
    /// When none comes within `timeout`, or the child closes its output first.
    #[track_caller]
    pub fn line(&mut self, timeout: Duration) -> String {
        match self.lines.recv_timeout(timeout) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => {
                panic!("no line within {timeout:?}; {}", self.describe())
            }
            Err(RecvTimeoutError::Disconnected) => {
                panic!("ended before it printed a line; {}", self.describe())
            }
        }
    }

    /// Sends a signal to the child alone.
    ///
    /// # Panics
    /// When the child has already been waited for.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        assert!(!self.reaped, "signal to a child that is gone");
        kill(self.pid, signal).expect("signal to an unreaped child");
    }

    /// Waits for the child's end.
    ///
    /// # Panics
    /// When it has not ended within `timeout`.
    #[track_caller]
    pub fn wait(mut self, timeout: Duration) -> Finished {
        if self.exited.recv_timeout(timeout).is_err() {
            panic!("still running after {timeout:?}; {}", self.describe());
        }
        let status = self.reap();
        // A grandchild may hold the pipes open for ever, so a process group of its own is killed with its leader.
        if self.own_group {
            let _ = killpg(self.pid, Signal::SIGKILL);
        }
        for reader in self.readers.drain(..) {
            drop(reader.join());
        }
        Finished {
            status,
            stdout: self.stdout(),
            stderr: self.stderr(),
        }
    }

    /// True when the child has not ended yet.
    #[must_use]
    pub fn is_running(&self) -> bool {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG;
        !self.reaped
            && waitid(Id::Pid(self.pid), flags) == Ok(nix::sys::wait::WaitStatus::StillAlive)
    }

    /// What the child has printed on standard output so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.stdout
            .lock()
            .expect("reader threads don't panic")
            .clone()
    }

    /// What the child has printed on standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.stderr
            .lock()
            .expect("reader threads don't panic")
            .clone()
    }

    /// Resident memory in KiB, and its highest value so far, from `/proc`.
    ///
    /// # Panics
    /// When the child is gone.
    #[must_use]
    pub fn memory_kib(&self) -> Memory {
        let path = format!("/proc/{}/status", self.pid);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
        let field = |name: &str| {
            text.lines()
                .find_map(|l| {
                    l.strip_prefix(name)?
                        .trim()
                        .strip_suffix(" kB")?
                        .trim()
                        .parse()
                        .ok()
                })
                .unwrap_or_else(|| panic!("{path} has no {name}; {}", self.describe()))
        };
        Memory {
            resident_kib: field("VmRSS:"),
            peak_kib: field("VmHWM:"),
        }
    }

    /// How many descriptors the child has open.
    ///
    /// # Panics
    /// When the child is gone.
    #[must_use]
    pub fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid))
            .expect("the child runs")
            .count()
    }

    fn reap(&mut self) -> ExitStatus {
        self.reaped = true;
        self.child.wait().expect("a child can be waited for once")
    }

    fn describe(&self) -> String {
        format!(
            "pid {}\n--- stdout\n{}\n--- stderr\n{}",
            self.pid,
            self.stdout(),
            self.stderr()
        )
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.reaped {
            return;
        }
        if self.own_group {
            let _ = killpg(self.pid, Signal::SIGKILL);
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Resident memory of a process.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// `VmRSS`: now.
    pub resident_kib: u64,
    /// `VmHWM`: the most it ever was.
    pub peak_kib: u64,
}

/// Runs `command` to its end.
///
/// # Panics
/// When it can't be started or has not ended within `timeout`.
#[track_caller]
pub fn run(command: &mut Command, timeout: Duration) -> Finished {
    Process::start_group(command).wait(timeout)
}

/// Sets a flag when it is dropped, even when an assertion fails: a scope waits for threads that wait for the flag.
#[derive(Debug)]
pub struct SetOnDrop<'a>(pub &'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Polls `condition` until it holds. This is for states that can only be polled, such as another process's memory.
/// Never use it in place of an event that can be waited for.
///
/// # Panics
/// When it does not hold within `timeout`.
#[track_caller]
pub fn eventually(what: &str, timeout: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + timeout;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: not within {timeout:?}");
        let_pass(Duration::from_millis(5));
    }
}

/// Lets time pass where time itself matters: a pace, an interval between two looks. To wait for a condition, use
/// [`eventually`].
#[expect(
    clippy::disallowed_methods,
    reason = "the one place where a thread may sleep"
)]
pub fn let_pass(time: Duration) {
    thread::sleep(time);
}

fn collect(
    from: impl Read + Send + 'static,
    into: Arc<Mutex<String>>,
    mut each: impl FnMut(String) + Send + 'static,
) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut reader = BufReader::new(from);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            let text = String::from_utf8_lossy(&line).into_owned();
            into.lock().expect("readers don't panic").push_str(&text);
            each(text.trim_end_matches(['\n', '\r']).to_owned());
            line.clear();
        }
    })
}

#[cfg(test)]
mod tests;
