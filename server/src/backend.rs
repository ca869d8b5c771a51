//! What an export can be stored in: implementations of [`weir_cache::Backend`], and the decorators around them.
//!
//! From the cache down: [`faulted`] (rules with `at=backend`), [`power_cut`] where it was asked for, then the store.

mod bytes;
pub mod faulted;
pub mod file;
pub mod memory;
pub mod power_cut;

pub use file::FileBackend;
pub use memory::MemoryBackend;

#[cfg(test)]
mod testing;
