//! `PATH` and `file:PATH`, as a user writes them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use weir_cache::BackendFuture;

use super::{Access, FileBackend, FileOptions, examine};
use crate::backend::scheme::{OpenStore, OpenStoreError, Scheme, StoreOptions, StoreSource};
use crate::source::SourceError;

/// `file:PATH`, and any text without a scheme.
pub static SCHEME: Scheme = Scheme {
    name: "file",
    form: "file:PATH",
    about: "a file or a block device, as is a PATH alone",
    parse: |rest| match rest {
        "" => Err(SourceError::Empty),
        path => Ok(Arc::new(FileSource(path.into()))),
    },
};

#[derive(Debug)]
struct FileSource(PathBuf);

impl FileSource {
    fn options(&self, options: &StoreOptions) -> FileOptions {
        let create_size = options.create_size.filter(|_| !self.0.exists());
        FileOptions {
            size: options.size.or(create_size).map(|size| size.0),
            access: match options.read_only {
                true => Access::ReadOnly,
                false => Access::ReadWrite,
            },
            engine: options.engine,
        }
    }
}

impl fmt::Display for FileSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

impl StoreSource for FileSource {
    fn check(&self, options: &StoreOptions) -> Result<(), OpenStoreError> {
        examine(&self.0, &self.options(options))?;
        Ok(())
    }

    fn known_size(&self, options: &StoreOptions) -> Option<u64> {
        match self.0.metadata() {
            Ok(there) => there.is_file().then_some(there.len()),
            Err(_) => options.size.or(options.create_size).map(|size| size.0),
        }
    }

    fn file(&self) -> Option<&Path> {
        Some(&self.0)
    }

    /// Blocks on file system calls: nothing else runs before the exports are open.
    fn open<'a>(
        &'a self,
        options: &'a StoreOptions,
    ) -> BackendFuture<'a, Result<OpenStore, OpenStoreError>> {
        Box::pin(async {
            let backend = FileBackend::open(&self.0, &self.options(options))?;
            let remarks = backend.remarks().to_vec();
            Ok(OpenStore {
                backend: Arc::new(backend),
                remarks,
            })
        })
    }
}
