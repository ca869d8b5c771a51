//! Fault rules on requests: what they do to one.
//!
//! Nothing here is on the path of a request unless a rule is armed. A request that a rule has taken is carried out apart
//! from the hot paths, with its data in one buffer of its own, so that any action is a few plain lines.

use super::Ticket;
use super::transmission::Transmission;

/// Receives the payload of a WRITE that a rule has taken.
pub(super) struct Collector {
    pub(super) data: Vec<u8>,
}

/// A request that a rule has taken, when it is done.
#[derive(Debug)]
pub(super) struct Faulted {
    pub(super) ticket: Ticket,
}

impl Transmission<'_> {
    /// Asks the rules about a request; says whether one has taken it.
    pub(super) fn consult_rules(&mut self, _ticket: Ticket) -> bool {
        false
    }

    /// The payload of a WRITE that a rule has taken is complete.
    pub(super) fn run_collected(&mut self, _ticket: Ticket, _collector: Collector) {}

    /// Answers a request that a rule has taken.
    pub(super) fn finish_faulted(&mut self, faulted: Faulted) {
        let _ = faulted.ticket;
    }
}
