//! Since when a page is dirty.

/// Older than every FLUSH: the next FLUSH covers it, whichever it is.
pub(crate) const OLDEST_EPOCH: u64 = 0;

/// The detail word of a dirty page: the flush epoch of its first write since its last submission, and whether it is
/// dirty because it could not be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DirtySince(u64);

impl DirtySince {
    const FAILED: u64 = 1 << 63;

    /// Written in `epoch`.
    pub(super) const fn written(epoch: u64) -> Self {
        Self(epoch)
    }

    /// Written in `epoch`, and the store has failed to take it or may have forgotten it.
    pub(super) const fn failed_since(epoch: u64) -> Self {
        Self(epoch | Self::FAILED)
    }

    /// What `detail` says of a dirty page, or of one in flight that was not written again since it was submitted.
    pub(super) const fn of(detail: u64) -> Self {
        Self(detail)
    }

    pub(super) const fn detail(self) -> u64 {
        self.0
    }

    pub(crate) const fn epoch(self) -> u64 {
        self.0 & !Self::FAILED
    }

    pub(crate) const fn failed(self) -> bool {
        self.0 & Self::FAILED != 0
    }
}
