//! What was decided about one request, and the waits that this imposes.

use std::time::Duration;

use tokio::sync::watch;

use crate::registry::Shared;
use crate::rule::{Action, Damage, Fate};
use crate::wait::Ends;

/// What happens to one request.
#[derive(Debug)]
pub struct Decision {
    /// The rule that gave the action, or the first that gave a delay; [`REPLAY`](crate::REPLAY) for a script.
    pub rule: u64,
    /// How long it waits, all rules together; [`Decision::wait`] does it.
    pub delay: Option<Duration>,
    /// What happens then.
    pub action: Option<Action>,
    /// What its damage is drawn from.
    pub seed: u64,
    /// One wait after the other, each over early if its rule goes. `None` is a hang.
    waits: Vec<(Option<Duration>, Ends)>,
}

impl Decision {
    /// Waits out the delay, and the hang if that is the action. Over early for a rule that is removed, and when the
    /// export's device is interrupted. Hold nothing meanwhile.
    pub async fn wait(&mut self) {
        for (delay, ends) in &mut self.waits {
            match delay {
                Some(delay) => ends.within(*delay).await,
                None => ends.reached().await,
            }
        }
    }

    /// How the data is to be damaged, if it is.
    #[must_use]
    pub fn damage(&self) -> Option<Damage> {
        match self.action {
            Some(Action::Corrupt(damage)) => Some(damage),
            _ => None,
        }
    }
}

/// What one rule, or a script, decided.
pub(super) struct Fired {
    /// The rule's number; [`REPLAY`](crate::REPLAY) for a script.
    pub(super) rule: u64,
    pub(super) fate: Fate,
    /// Ends when the rule goes.
    pub(super) gone: watch::Receiver<u64>,
}

impl Shared {
    /// Puts together what was decided about a request of this export; `None` if nothing was.
    pub(super) fn combine(&self, export: &str, fired: Vec<Fired>) -> Option<Decision> {
        let acts = |fired: &Fired| fired.fate.action.is_some();
        let actor = fired.iter().position(acts);
        let rule = fired.get(actor.unwrap_or(0))?.rule;
        let interrupt = self.device(export).map(|device| device.interruption());
        let mut whole = Fate::default();
        let (mut waits, mut hangs) = (Vec::new(), Vec::new());
        for (position, Fired { fate, gone, .. }) in fired.into_iter().enumerate() {
            whole.combine(&fate);
            if fate.delay.is_some() {
                waits.push((fate.delay, Ends::new(gone.clone(), interrupt.clone())));
            }
            if actor == Some(position) && fate.action == Some(Action::Hang) {
                hangs.push((None, Ends::new(gone, interrupt.clone())));
            }
        }
        waits.extend(hangs);
        Some(Decision {
            rule,
            delay: whole.delay,
            action: whole.action,
            seed: whole.seed,
            waits,
        })
    }
}
