//! Signals: what each of them means to a server.
//!
//! Most signals kill by default, and a server that is killed loses every write that no FLUSH has covered. So no signal
//! that a user or the system may send is left to its default, unless the process can't be trusted any more.
//!
//! | signal | sent by | meaning |
//! | --- | --- | --- |
//! | TERM, INT | `kill`, service managers, Ctrl-C | stop in order ([`crate::shutdown`]); a second one stops at once |
//! | QUIT | Ctrl-\ | as TERM: a core dump is no reason to lose data (ABRT still makes one) |
//! | HUP | a terminal that closes; `kill` for "read your configuration again" | without `--config` stop in order; with it nothing is stopped, and a line says that the file is read at the start only |
//! | PWR | init, on battery | stop in order |
//! | XCPU | the kernel, at the soft limit of processor time | stop in order, before the hard limit kills |
//! | USR1 | a user | exports, dirty bytes and connections go to the log |
//! | USR2 | a user | nothing, in one line; kept for an upgrade in place |
//! | ALRM, VTALRM, PROF, IO, STKFLT, real-time signals | a mistake: nothing here asks for them | nothing, in one line |
//! | XFSZ | the kernel, at the limit of a file's size | nothing: the write fails with EFBIG, and its client hears of it |
//! | PIPE | the kernel, for a peer that has gone | nothing: Rust's runtime ignores it |
//! | ABRT, BUS, FPE, ILL, SEGV, SYS, TRAP | a bug, a sandbox or a debugger | deadly: what memory holds then must not be written |
//! | KILL, STOP, TSTP, TTIN, TTOU, CONT | | the system's: a stopped server answers nothing until it is continued |
//!
//! For comparison: nbdkit stops at INT, QUIT, TERM and HUP, and qemu-nbd at INT, TERM and HUP; neither has anything to
//! lose.
//!
//! # Twice
//! Only TERM, INT and QUIT insist when they are repeated. A closing terminal sends HUP from its shell and from the
//! kernel, a service manager that ends a session sends TERM and HUP, and XCPU comes every second. These never stop the
//! server at once, and the first TERM after one of them doesn't either. A signal within half a second of the first
//! doesn't count as a second one: timeout(1) sends a signal to its child and then to the process group that both are
//! in.
//!
//! # What was decided before
//! A signal whose disposition at the start isn't the default is left alone, apart from TERM, INT and QUIT: `nohup`
//! ignores HUP, and a profiler that was loaded into the process handles PROF. Scripts ignore INT and QUIT for what they
//! start in the background, so that the keys of a terminal don't reach it. A user that sends one of them to a server by
//! its number wants the server to stop.
//!
//! # Children
//! All of these have handlers, which `execve` turns back into the default. Only signals that were ignored before are
//! ignored, so the command of `--run` starts with the dispositions that the server started with. (PIPE is given back
//! its default by Rust's `Command`.)

use std::borrow::Cow;
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};

use nix::libc;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::process::is_default_disposition;

/// What a signal means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// Stop in order, and at once when the signal comes again.
    Stop,
    /// Stop in order, however often the signal comes.
    StopInOrder,
    /// HUP with a configuration file.
    Reload,
    /// Write the state to the log.
    Report,
    /// Do nothing, and say so.
    Nothing,
    /// Do nothing: the call that caused the signal fails with an error as well.
    Silence,
}

/// What was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The server is to stop.
    Stop {
        /// The signal's name.
        signal: Cow<'static, str>,
        /// A second one of this kind stops at once.
        counts: bool,
    },
    /// The state is to be written to the log.
    Report,
    /// The configuration is to be read again.
    Reload,
    /// A signal without a meaning.
    Nothing(Cow<'static, str>),
}

/// Signals that are taken, by number.
const TAKEN: [(libc::c_int, &str, Meaning); 14] = [
    (libc::SIGTERM, "SIGTERM", Meaning::Stop),
    (libc::SIGINT, "SIGINT", Meaning::Stop),
    (libc::SIGQUIT, "SIGQUIT", Meaning::Stop),
    (libc::SIGHUP, "SIGHUP", Meaning::StopInOrder),
    (libc::SIGPWR, "SIGPWR", Meaning::StopInOrder),
    (libc::SIGXCPU, "SIGXCPU", Meaning::StopInOrder),
    (libc::SIGUSR1, "SIGUSR1", Meaning::Report),
    (libc::SIGUSR2, "SIGUSR2", Meaning::Nothing),
    (libc::SIGALRM, "SIGALRM", Meaning::Nothing),
    (libc::SIGVTALRM, "SIGVTALRM", Meaning::Nothing),
    (libc::SIGPROF, "SIGPROF", Meaning::Nothing),
    (libc::SIGIO, "SIGIO", Meaning::Nothing),
    (libc::SIGSTKFLT, "SIGSTKFLT", Meaning::Nothing),
    (libc::SIGXFSZ, "SIGXFSZ", Meaning::Silence),
];

/// Taken whatever their disposition was: a user that sends one of these to a server wants it to stop.
const ALWAYS_TAKEN: [libc::c_int; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGQUIT];

/// A signal that comes here instead of killing.
#[derive(Debug)]
struct Taken {
    stream: Signal,
    name: Cow<'static, str>,
    meaning: Meaning,
}

/// The signals that come from this object's creation on.
#[derive(Debug)]
pub struct Signals {
    taken: Vec<Taken>,
}

impl Signals {
    /// Takes the signals over; `configured` says whether there is a configuration file, which HUP then asks to read
    /// again. Needs a runtime.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn install(configured: bool) -> io::Result<Self> {
        let named = TAKEN.map(|(number, name, meaning)| (number, Cow::Borrowed(name), meaning));
        let real_time = (libc::SIGRTMIN()..=libc::SIGRTMAX()).map(|number| {
            let name = format!("SIGRTMIN+{}", number - libc::SIGRTMIN());
            (number, Cow::Owned(name), Meaning::Nothing)
        });
        let mut taken = Vec::new();
        for (number, name, meaning) in named.into_iter().chain(real_time) {
            if !ALWAYS_TAKEN.contains(&number) && !is_default_disposition(number)? {
                continue;
            }
            let stream = signal(SignalKind::from_raw(number))?;
            let meaning = match number {
                libc::SIGHUP if configured => Meaning::Reload,
                _ => meaning,
            };
            taken.push(Taken {
                stream,
                name,
                meaning,
            });
        }
        Ok(Self { taken })
    }

    /// Waits for the next one. Cancel safe.
    pub async fn next(&mut self) -> Sent {
        poll_fn(|task| self.poll_next(task)).await
    }

    fn poll_next(&mut self, task: &mut Context<'_>) -> Poll<Sent> {
        for taken in &mut self.taken {
            while taken.stream.poll_recv(task).is_ready() {
                let signal = taken.name.clone();
                return Poll::Ready(match taken.meaning {
                    Meaning::Stop => Sent::Stop {
                        signal,
                        counts: true,
                    },
                    Meaning::StopInOrder => Sent::Stop {
                        signal,
                        counts: false,
                    },
                    Meaning::Reload => Sent::Reload,
                    Meaning::Report => Sent::Report,
                    Meaning::Nothing => Sent::Nothing(signal),
                    Meaning::Silence => continue,
                });
            }
        }
        Poll::Pending
    }
}
