//! How the rest of the program sees a kind of store: how a SOURCE of it is written, and how it is opened.
//!
//! A store has one [`Scheme`], in the table of [`backend`](super), and one type for what a user has said about it,
//! which implements [`StoreSource`]. No other part of the program knows which stores there are.

use std::error::Error;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use weir_cache::{Backend, BackendFuture};

use super::file::Engine;
use crate::limits::DEVICE_BYTES_MAX;
use crate::size::Size;
use crate::source::SourceError;

/// A kind of store.
#[derive(Debug)]
pub struct Scheme {
    /// What comes before the colon.
    pub name: &'static str,
    /// How a SOURCE of it is written, such as `memory:SIZE`.
    pub form: &'static str,
    /// What that is, in the few words that `--help` has for it.
    pub about: &'static str,
    /// Parses what follows the colon. Opens nothing.
    pub parse: fn(&str) -> Result<Arc<dyn StoreSource>, SourceError>,
}

/// What the options of an export say about its store. A store takes the options that concern it, and refuses those that
/// contradict it.
#[derive(Clone, Copy, Debug)]
pub struct StoreOptions {
    /// `--size`: the size that it must have, and is created with.
    pub size: Option<Size>,
    /// The size that it is created with if it is missing. It needn't have it otherwise; only the first try sets this.
    pub create_size: Option<Size>,
    /// Nothing will be written.
    pub read_only: bool,
    /// `--io-engine`: how files are read and written.
    pub engine: Engine,
}

/// A store that was opened.
#[derive(Debug)]
pub struct OpenStore {
    /// The store.
    pub backend: Arc<dyn Backend>,
    /// What the user should know about it, one line each. The server logs them as warnings when it starts, with the
    /// SOURCE in front.
    pub remarks: Vec<String>,
}

impl<B: Backend> From<B> for OpenStore {
    fn from(backend: B) -> Self {
        Self {
            backend: Arc::new(backend),
            remarks: Vec::new(),
        }
    }
}

/// Why a store can't be opened: one line that names the thing at fault and says what to do. Each store has errors of
/// its own.
pub type OpenStoreError = Box<dyn Error + Send + Sync>;

/// A store as a user has named it: what follows the scheme, parsed and not opened yet. It is displayed in the form in
/// which it is written.
pub trait StoreSource: fmt::Debug + fmt::Display + Send + Sync + 'static {
    /// Looks for what is wrong, and changes nothing. That is what [`StoreSource::open`] would refuse, as far as it can
    /// be told without opening.
    ///
    /// # Errors
    /// The first thing that is wrong.
    fn check(&self, options: &StoreOptions) -> Result<(), OpenStoreError>;

    /// How large the device is or will be, as far as that can be told without opening it.
    fn known_size(&self, options: &StoreOptions) -> Option<u64>;

    /// The file or block device that it is in, if there is one: no two exports may write to the same.
    fn file(&self) -> Option<&Path> {
        None
    }

    /// Opens the store, on a runtime. It may connect and wait. The server listens to its signals only afterwards, so
    /// the store must set its own time limit.
    ///
    /// The future's error is whatever keeps the store from being served.
    fn open<'a>(
        &'a self,
        options: &'a StoreOptions,
    ) -> BackendFuture<'a, Result<OpenStore, OpenStoreError>>;
}

/// Why a size that is part of the SOURCE can't be served.
#[derive(Debug, thiserror::Error)]
pub enum SizeRefused {
    /// A `--size` contradicts it.
    #[error("{source_text} and --size {asked} contradict each other; leave --size out")]
    Contradiction {
        /// The SOURCE.
        source_text: String,
        /// The option's size.
        asked: Size,
    },
    /// The device is too large to be addressed, or has no byte.
    #[error("{0} can't be served; a device has from one byte to {DEVICE_BYTES_MAX}")]
    Unusable(String),
}

/// A SOURCE that says its size and nothing else, such as `memory:SIZE`.
#[derive(Debug)]
pub struct SizedSource {
    scheme: &'static Scheme,
    size: Size,
    /// Makes the store of so many bytes: at least one and at most [`DEVICE_BYTES_MAX`].
    make: fn(u64) -> OpenStore,
}

impl SizedSource {
    /// Parses what follows the colon.
    ///
    /// # Errors
    /// The text is no size.
    pub fn parse(
        scheme: &'static Scheme,
        rest: &str,
        make: fn(u64) -> OpenStore,
    ) -> Result<Arc<dyn StoreSource>, SourceError> {
        let size = rest
            .parse()
            .map_err(|error| SourceError::malformed(scheme, &error))?;
        Ok(Arc::new(Self { scheme, size, make }))
    }
}

impl fmt::Display for SizedSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.scheme.name, self.size)
    }
}

impl StoreSource for SizedSource {
    fn check(&self, options: &StoreOptions) -> Result<(), OpenStoreError> {
        let source_text = self.to_string();
        if let Some(asked) = options.size.filter(|asked| *asked != self.size) {
            return Err(SizeRefused::Contradiction { source_text, asked }.into());
        }
        if self.size.0 == 0 || self.size.0 > DEVICE_BYTES_MAX {
            return Err(SizeRefused::Unusable(source_text).into());
        }
        Ok(())
    }

    fn known_size(&self, _options: &StoreOptions) -> Option<u64> {
        Some(self.size.0)
    }

    fn open<'a>(
        &'a self,
        options: &'a StoreOptions,
    ) -> BackendFuture<'a, Result<OpenStore, OpenStoreError>> {
        Box::pin(async move {
            self.check(options)?;
            Ok((self.make)(self.size.0))
        })
    }
}
