//! `memory:SIZE`, as a user writes it.

use std::fmt;
use std::sync::Arc;

use weir_cache::BackendFuture;

use super::MemoryBackend;
use crate::backend::scheme::{
    OpenStore, OpenStoreError, Scheme, StoreOptions, StoreSource, check_size,
};
use crate::size::Size;
use crate::source::SourceError;

/// `memory:SIZE`
pub static SCHEME: Scheme = Scheme {
    name: "memory",
    form: "memory:SIZE",
    about: "memory, which is gone when the server stops",
    parse: |rest| {
        let size = rest
            .parse()
            .map_err(|error| SourceError::malformed(&SCHEME, &error))?;
        Ok(Arc::new(MemorySource(size)))
    },
};

#[derive(Debug)]
struct MemorySource(Size);

impl fmt::Display for MemorySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "memory:{}", self.0)
    }
}

impl StoreSource for MemorySource {
    fn check(&self, options: &StoreOptions) -> Result<(), OpenStoreError> {
        Ok(check_size(self, self.0, options)?)
    }

    fn known_size(&self, _options: &StoreOptions) -> Option<u64> {
        Some(self.0.0)
    }

    fn open<'a>(
        &'a self,
        options: &'a StoreOptions,
    ) -> BackendFuture<'a, Result<OpenStore, OpenStoreError>> {
        Box::pin(async {
            self.check(options)?;
            Ok(MemoryBackend::new(self.0.0).into())
        })
    }
}
