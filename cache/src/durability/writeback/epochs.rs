//! Which dirty pages a pass is about.

use crate::pages::DirtySince;

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

    /// The same, without pages that became dirty by a failure.
    pub(crate) fn without_failed(self) -> Self {
        Self {
            failed_too: false,
            ..self
        }
    }

    /// These and all younger pages.
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
