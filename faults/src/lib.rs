//! Faults on purpose: points in code, rules on requests, and the state of a device.

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
mod wait;
pub mod words;

pub use device::{BAD_RANGES_MAX, Device, DeviceListing, SECTOR, TooManyBadRanges};
pub use errno::Errno;
pub use event::{EVENTS_KEPT, Event, Firing, PointFiring, REPLAY, RuleFiring, Script};
pub use kind::{RequestKind, RequestKinds};
pub use point::{FaultContext, FaultPoint, PointKind};
pub use power_cut::{
    Batch, Content, Keep, Mutation, Piece, PowerCut, PowerCutOptions, Stale, SyncToken,
};
pub use query::{Query, Selection};
pub use registry::{Decision, Faults, NoSuchRule, PointListing, RULES_MAX, RuleListing};
pub use rule::{Action, BackendView, Damage, Fate, Layer, RequestView, Rule};
pub use weir_faults_macros::error_injectable;
pub use words::LanguageError;

/// What the macros' output needs.
#[doc(hidden)]
pub mod __private {
    pub use crate::point::{POINTS, folder_class};
    pub use linkme;
}
