//! What an export can be stored in: implementations of [`weir_cache::Backend`].

pub mod file;
pub mod memory;

#[cfg(test)]
mod testing;
