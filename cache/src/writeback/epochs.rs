//! When pages became dirty, and which of them a pass is about.

/// Older than every FLUSH: whatever comes next covers it.
pub(crate) const OLDEST_EPOCH: u64 = 0;

/// Which dirty pages a pass is about, by the epoch of their first write since their last submission.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Epochs {
    pub(crate) covered: u64,
    failed_too: bool,
}

impl Epochs {
    /// Those dirtied in `covered` or before.
    pub(crate) fn up_to(covered: u64) -> Self {
        Self {
            covered,
            failed_too: true,
        }
    }

    /// But none that became dirty by a failure.
    pub(crate) fn without_failed(self) -> Self {
        Self {
            failed_too: false,
            ..self
        }
    }

    /// These and whatever is younger.
    pub(super) fn and_later(self) -> Self {
        Self {
            covered: u64::MAX,
            ..self
        }
    }

    pub(super) fn has(self, since: DirtySince) -> bool {
        since.epoch() <= self.covered && (self.failed_too || !since.failed())
    }
}

/// The detail word of a dirty page: the flush epoch of its first write since its last submission, and whether it is dirty
/// because it could not be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DirtySince(u64);

impl DirtySince {
    const FAILED: u64 = 1 << 63;

    /// What `detail` says of a dirty page, or of one in flight that was not written again since it was submitted.
    pub(super) fn of(detail: u64) -> Self {
        Self(detail)
    }

    pub(super) fn epoch(self) -> u64 {
        self.0 & !Self::FAILED
    }

    pub(super) fn failed(self) -> bool {
        self.0 & Self::FAILED != 0
    }

    /// The detail word after a failure.
    pub(crate) fn failed_detail(epoch: u64) -> u64 {
        epoch | Self::FAILED
    }
}
