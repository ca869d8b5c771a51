//! What an export can be stored in: the table of the stores, and the layers over them.
//!
//! Each store and each layer has a folder of its own. The page of documentation in it (`README.md`) is also the
//! beginning of its module's. A store is also a line in [`SCHEMES`]; a layer is also where [`layers`] stacks it.
//! Nothing else names them, except what controls a layer from outside.

mod bytes;
mod layers;
pub mod scheme;

// The stores.
pub mod file;
pub mod memory;
pub mod zero;

// The layers over them.
pub mod power_cut;
pub mod rules;

pub use file::FileBackend;
pub(crate) use layers::Layers;
pub use memory::MemoryBackend;
pub use zero::ZeroBackend;

use scheme::Scheme;

/// Every store that there is, in the order in which `--help` describes them.
pub static SCHEMES: &[&Scheme] = &[&file::SCHEME, &memory::SCHEME, &zero::SCHEME];

#[cfg(test)]
mod testing;
