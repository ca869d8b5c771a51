//! Faults on purpose: points in code, rules on requests, and the state of a device, with one language to control them.
//!
//! A server has one [`Faults`], the registry. It hands a [`FaultContext`] to the code that works for a request, asks a
//! [`Screen`] per connection about each request and [`Faults::decide_backend`] about each I/O of its own, and keeps a
//! [`Device`] per export. With nothing armed, each of these costs one relaxed load. If what is armed is about something
//! else, they cost little more.
//!
//! | layer | what | language |
//! | --- | --- | --- |
//! | points | [`fault_point!`], [`pause_point!`], [`race_fault!`], [`error_injectable`] | [`Query`], [`Selection`] |
//! | rules | [`Rule`], [`Decision`], [`Event`], [`Script`] | [`Rule::parse`] |
//! | device | [`Device`], [`PowerCut`] | [`PowerCutOptions::parse`] |
//!
//! Invariants:
//!
//! - A line of the language is obeyed wholly or not at all.
//! - Whatever is random comes from a seed that can be shown and given again.
//! - A wait that a fault imposes ends when the fault goes.
//! - Two registries share nothing.
//!
//! Tests that need points of their own are in `tests/`: the linker's slice takes records from other crates only.

mod device;
mod errno;
mod event;
pub mod help;
mod kind;
mod point;
mod power_cut;
mod query;
mod registry;
pub mod rng;
mod rule;
pub mod spelling;
mod wait;
pub mod words;

pub use device::{BAD_RANGES_MAX, Device, DeviceListing, SECTOR, TooManyBadRanges};
pub use errno::Errno;
pub use event::{
    DeviceFiring, EVENTS_KEPT, Event, Firing, PointFiring, REPLAY, RuleFiring, Script,
};
pub use kind::{RequestKind, RequestKinds};
pub use point::{ArmedPoints, FaultContext, FaultPoint, PointKind};
pub use power_cut::{
    Batch, Content, Keep, Mutation, Piece, PowerCut, PowerCutOptions, Stale, SyncToken,
};
pub use query::{Query, Selection};
pub use registry::{Decision, Faults, NoSuchRule, PointListing, RULES_MAX, RuleListing, Screen};
pub use rule::{Action, BackendView, Damage, Fate, Layer, RequestView, Rule};
pub use weir_faults_macros::error_injectable;
pub use words::LanguageError;

/// What the macros' output needs.
#[doc(hidden)]
pub mod __private {
    pub use crate::point::{POINTS, folder_class};
    pub use linkme;
}
