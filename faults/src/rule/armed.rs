//! A rule in force: its counters and its decisions.

use tokio::sync::watch;
use tokio::time::Instant;

use super::{Action, Fate, Rule};
use crate::kind::RequestKinds;
use crate::rng::{Decisions, Rng, draw_seed};

/// A rule in force. The lock of the list that it is in guards the counters.
pub(crate) struct ArmedRule {
    pub(crate) id: u64,
    pub(crate) rule: Rule,
    pub(crate) seed: u64,
    pub(crate) hits: u64,
    pub(crate) fires: u64,
    /// The commands of which requests had passed uncounted when it came in force: it can't say which occurrence of a
    /// request it fires at.
    pub(crate) late: RequestKinds,
    /// Named after the rule without its seed.
    decisions: Decisions,
    since: Instant,
    /// Watched by hangs and delays, which end when it is dropped.
    gone: watch::Sender<u64>,
}

impl ArmedRule {
    pub(crate) fn new(id: u64, rule: Rule, late: RequestKinds) -> Self {
        let name = Rule {
            seed: None,
            ..rule.clone()
        }
        .to_string();
        let seed = rule.seed.unwrap_or_else(draw_seed);
        Self {
            id,
            rule,
            seed,
            hits: 0,
            fires: 0,
            late,
            decisions: Decisions::new(seed, &name),
            since: Instant::now(),
            gone: watch::Sender::new(0),
        }
    }

    /// The rule with the seed that it uses.
    pub(crate) fn text(&self) -> String {
        Rule {
            seed: Some(self.seed),
            ..self.rule.clone()
        }
        .to_string()
    }

    /// Ends when the rule goes.
    pub(crate) fn gone(&self) -> watch::Receiver<u64> {
        self.gone.subscribe()
    }

    /// Counts a request that matches, and decides about it, whatever other rules say.
    pub(crate) fn hit(&mut self) -> Option<Fate> {
        self.hits += 1;
        let mut rng = self.decisions.number(self.hits);
        if !self.fires_now(&mut rng) {
            return None;
        }
        self.fires += 1;
        let delay = self.rule.delay.as_ref().map(|delay| delay.draw(&mut rng));
        let action = self.rule.action;
        let seed = if matches!(action, Some(Action::Corrupt(_))) {
            rng.next_u64()
        } else {
            0
        };
        Some(Fate {
            delay,
            action,
            seed,
        })
    }

    fn fires_now(&self, rng: &mut Rng) -> bool {
        let triggers = &self.rule.triggers;
        // Drawn first and always, so that the stream after it doesn't depend on the other triggers.
        let chance = rng.unit() * 100.0;
        let Some(number) = self
            .hits
            .checked_sub(triggers.after.unwrap_or(0))
            .filter(|number| *number > 0)
        else {
            return false;
        };
        triggers.percent.is_none_or(|percent| chance < percent)
            && triggers.nth.is_none_or(|nth| number == nth)
            && triggers.every.is_none_or(|every| number % every == 0)
            && triggers.first.is_none_or(|first| number <= first)
            && triggers.times.is_none_or(|times| self.fires < times)
            && triggers
                .limit
                .is_none_or(|limit| self.since.elapsed() < limit)
            && triggers.up_down.is_none_or(|(up, down)| {
                self.since.elapsed().as_nanos() % (up + down).as_nanos() >= up.as_nanos()
            })
    }
}
