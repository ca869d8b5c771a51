//! Faults on purpose: points in code, rules on requests, and the state of a device.

mod device;
mod errno;
mod kind;
mod point;
mod query;
mod registry;
pub mod rng;
mod wait;
pub mod words;

pub use device::Device;
pub use errno::Errno;
pub use kind::{RequestKind, RequestKinds};
pub use point::{FaultContext, FaultPoint, PointKind};
pub use query::{Query, Selection};
pub use registry::{Faults, PointListing};
pub use weir_faults_macros::error_injectable;
pub use words::LanguageError;

/// What the macros' output needs.
#[doc(hidden)]
pub mod __private {
    pub use crate::point::{POINTS, folder_class};
    pub use linkme;
}
