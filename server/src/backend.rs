//! What an export can be stored in: implementations of [`weir_cache::Backend`].

pub mod file;
pub mod memory;

pub use file::FileBackend;
pub use memory::MemoryBackend;

#[cfg(test)]
mod testing;
