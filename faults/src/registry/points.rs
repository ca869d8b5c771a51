//! Arming, listing and releasing points.

use std::fmt;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::point::{FaultPoint, PointKind};
use crate::query::{Effect, PointAction, Query, Selection};
use crate::registry::{Arming, Chance, Faults};
use crate::words::LanguageError;

/// What a listing says of one point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PointListing {
    /// The source file.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
    /// The function around it, a method with its type.
    pub function: String,
    /// The module around it.
    pub module: String,
    /// The class.
    pub class: String,
    /// `fault`, `race` or `function`.
    pub kind: PointKind,
    /// The names of the errors that it allows.
    pub errors: Vec<String>,
    /// How often it was reached while some point was armed.
    pub hits: u64,
    /// How often it fired.
    pub fires: u64,
    /// `off`, or the action.
    pub state: String,
    /// How many wait there to be released.
    pub paused: usize,
}

/// One line, which begins with `FILE:LINE` and is never cut.
impl fmt::Display for PointListing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            line,
            function,
            module: _,
            class,
            kind,
            errors,
            hits,
            fires,
            state,
            paused,
        } = self;
        let errors = if errors.is_empty() {
            "-".to_owned()
        } else {
            errors.join(",")
        };
        write!(
            f,
            "{file}:{line} {function} {class} {kind} {errors} hits={hits} fires={fires} "
        )?;
        if *paused > 0 {
            write!(f, "paused={paused} ")?;
        }
        write!(f, "state={state}")
    }
}

/// The state of a point that is not armed.
const OFF: &str = "off";

impl Faults {
    /// Obeys one line of the points' language: a query, `release MATCHES`, or `reset`. Says how many points it
    /// selected.
    ///
    /// # Errors
    /// [`LanguageError`]; then nothing was changed.
    pub fn set_points(&self, text: &str) -> Result<usize, LanguageError> {
        let trimmed = text.trim();
        let (first, rest) = trimmed
            .split_once(char::is_whitespace)
            .unwrap_or((trimmed, ""));
        match first {
            "release" => {
                self.release(rest)?;
                Ok(Selection::parse(rest)?.points()?.len())
            }
            "reset" if rest.is_empty() => Ok(self.reset_points()),
            "reset" => Err(LanguageError::refused("reset", "stands alone")),
            _ => self.set_query(&Query::parse(text)?),
        }
    }

    /// Does what the query says at the points that it selects, and says how many they are.
    ///
    /// # Errors
    /// [`LanguageError`] if it selects none, or if one of them can't do what it says; then nothing was changed.
    pub fn set_query(&self, query: &Query) -> Result<usize, LanguageError> {
        let selected = query.selection.points()?;
        if let PointAction::Arm { effect, .. } = &query.action {
            selected
                .iter()
                .try_for_each(|point| allows(point, effect))?;
        }
        let since = Instant::now();
        for point in &selected {
            let state = self.shared.points().of(point);
            match &query.action {
                PointAction::Disable => state.disarm(&self.shared.points_armed),
                PointAction::Arm {
                    trigger,
                    effect,
                    within,
                } => {
                    let arming = Arming {
                        chance: Chance::of(trigger, point),
                        trigger: trigger.clone(),
                        effect: effect_at(point, effect),
                        within: *within,
                        text: query.action.to_string(),
                        since,
                        hits: 0,
                        fires: 0,
                    };
                    state.arm(arming, &self.shared.points_armed);
                }
            }
        }
        Ok(selected.len())
    }

    /// Releases what is paused or delayed at the points selected (all of them, without matches), and says how much was
    /// paused. The points stay armed.
    ///
    /// # Errors
    /// [`LanguageError`] if the matches are wrong or select nothing.
    pub fn release(&self, matches: &str) -> Result<usize, LanguageError> {
        let points = Selection::parse(matches)?.points()?;
        Ok(points
            .iter()
            .map(|point| self.shared.points().of(point).release())
            .sum())
    }

    /// Disarms every point, releases what is paused, forgets the counters. Says how many points were armed.
    pub fn reset_points(&self) -> usize {
        self.shared
            .points()
            .iter()
            .filter(|state| state.reset(&self.shared.points_armed))
            .count()
    }

    /// Lists the points selected, all of them without matches, by file and line.
    ///
    /// # Errors
    /// [`LanguageError`] if the matches are wrong or select nothing.
    pub fn points(&self, matches: &str) -> Result<Vec<PointListing>, LanguageError> {
        let points = Selection::parse(matches)?.points()?;
        Ok(points
            .into_iter()
            .map(|point| self.listing(point))
            .collect())
    }

    /// Waits until at least one is paused at the points selected, and says how many are.
    ///
    /// # Errors
    /// [`LanguageError`] if the matches are wrong or select nothing.
    pub async fn paused(&self, matches: &str) -> Result<usize, LanguageError> {
        self.paused_at_least(matches, 1).await
    }

    /// Waits until `count` are paused at the points selected, and says how many are.
    ///
    /// # Errors
    /// [`LanguageError`] if the matches are wrong or select nothing.
    pub async fn paused_at_least(
        &self,
        matches: &str,
        count: usize,
    ) -> Result<usize, LanguageError> {
        let points = Selection::parse(matches)?.points()?;
        let mut pauses = self.shared.pauses.subscribe();
        loop {
            let states = points.iter().map(|point| self.shared.points().of(point));
            let paused: usize = states
                .map(|state| state.counts(&self.shared.points_armed).paused)
                .sum();
            if paused >= count {
                return Ok(paused);
            }
            // The sender lives in `self.shared`: this can only be a change.
            drop(pauses.changed().await);
        }
    }

    fn listing(&self, point: &'static FaultPoint) -> PointListing {
        let counts = self
            .shared
            .points()
            .of(point)
            .counts(&self.shared.points_armed);
        PointListing {
            file: point.file.to_owned(),
            line: point.line,
            function: point.qualified(),
            module: point.module.to_owned(),
            class: point.class.to_owned(),
            kind: point.kind,
            errors: point.errors.iter().map(ToString::to_string).collect(),
            hits: counts.hits,
            fires: counts.fires,
            state: counts.text.unwrap_or_else(|| OFF.to_owned()),
            paused: counts.paused,
        }
    }
}

/// Whether the point can do that.
fn allows(point: &FaultPoint, effect: &Effect) -> Result<(), LanguageError> {
    if let Some(errno) = effect.error.filter(|errno| !point.errors.contains(errno)) {
        let allowed: Vec<_> = point.errors.iter().map(ToString::to_string).collect();
        let allowed = if allowed.is_empty() {
            "none".to_owned()
        } else {
            allowed.join(", ")
        };
        let reason = format!(
            "the point at {point} (class {}) allows {allowed}",
            point.class
        );
        return Err(LanguageError::refused(&errno.to_string(), reason));
    }
    if !point.can_wait {
        let waits = [("pause", effect.pause), ("delay", effect.delay.is_some())];
        if let Some((word, _)) = waits.iter().find(|(_, asked)| *asked) {
            let reason = format!(
                "the point at {point} (class {}) can't wait, only fail",
                point.class
            );
            return Err(LanguageError::refused(word, reason));
        }
    }
    Ok(())
}

/// The effect with the point's default filled in.
fn effect_at(point: &FaultPoint, effect: &Effect) -> Effect {
    let mut effect = effect.clone();
    if effect == Effect::default() {
        effect.error = point.errors.first().copied();
    }
    effect
}
