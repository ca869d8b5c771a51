//! `memory:SIZE`, as a user writes it.

use super::MemoryBackend;
use crate::backend::scheme::{Scheme, SizedSource};

/// `memory:SIZE`
pub static SCHEME: Scheme = Scheme {
    name: "memory",
    form: "memory:SIZE",
    about: "memory, which is gone when the server stops",
    parse: |rest| SizedSource::parse(&SCHEME, rest, |size| MemoryBackend::new(size).into()),
};
