//! Fault points in the parts of this crate that can be used on their own.
//!
//! A lock, an array or a pool that was made without a [`FaultContext`] has none, and its points pass after a look at
//! that. In a cache it has the cache's context, and a look costs one relaxed load. Code with several points in a row
//! looks once ([`ArmedPoints`]).
//!
//! # Races that are said to be lost
//! Behind each compare-and-swap, try-lock and recheck there is a retry or a slow path that is hardly ever taken. A race
//! point takes it on purpose. Where the winner of the race leaves something behind (a node that it linked, a root that
//! it grew, a phase that it ended), the point doesn't pretend: it first does what a rival would have done, so that the
//! race is really lost. Each call loses once at most and goes on with [`ArmedPoints::NONE`], or under
//! [`FaultContext::retry`] where the loop spans functions: even a point that fires at every hit can't keep a loop from
//! its end.

use weir_faults::{ArmedPoints, FaultContext};

/// The context, if there is one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Points(Option<FaultContext>);

impl Points {
    /// Nothing will ever be armed.
    pub(crate) const NONE: Self = Self(None);

    pub(crate) const fn of(context: FaultContext) -> Self {
        Self(Some(context))
    }

    /// One look at whether something is armed.
    #[inline]
    pub(crate) fn armed(&self) -> ArmedPoints<'_> {
        match &self.0 {
            Some(context) => context.armed(),
            None => ArmedPoints::NONE,
        }
    }
}
