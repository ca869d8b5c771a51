//! When an armed point fails.

/// The hits at which the point fails, counted anew in each batch.
#[derive(Clone, Copy, Debug)]
pub(super) enum Trigger {
    Chance,
    After(u64),
}

impl Trigger {
    pub(super) fn words(self, seed: u64, batch: u64) -> String {
        match self {
            Self::Chance => format!("probability 30% seed {}", seed.wrapping_add(batch << 32)),
            Self::After(hits) => format!("oneshot after {hits}"),
        }
    }
}
