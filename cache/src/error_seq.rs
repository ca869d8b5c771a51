//! Errors that must be seen, as Linux' `errseq_t` (lib/errseq.c) keeps them.
//!
//! Data that is lost behind its writer's back is reported once to every connection that was open
//! when it happened, and, if nobody has seen it, to the next one to come. One word does it: the
//! error's number, a *seen* bit, and a counter that moves when an error follows one that was seen.
//! An error that follows an unseen one replaces it, so any number of errors may pass without the
//! counter moving.
//!
//! What is recorded, and why nothing else is, is in the documentation of `flush.rs`.

use weir_faults::Errno;

use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::const_unless_loom;

#[cfg(all(test, not(loom)))]
mod tests;

/// The largest error number, as in Linux' `MAX_ERRNO`.
pub const ERRNO_MAX: i32 = 4095;

/// Set once some cursor has seen the error in the low bits.
const SEEN: u64 = 1 << 12;
/// One step of the counter, in the bits above.
const COUNT: u64 = SEEN << 1;

/// A sequence of errors; see the module's documentation.
///
/// ```
/// use weir_cache::error_seq::ErrorSeq;
/// use weir_faults::Errno;
///
/// let errors = ErrorSeq::new();
/// let mut before = errors.sample();
/// errors.record(Errno::EIO);
/// assert_eq!(errors.check_and_advance(&mut before), Some(Errno::EIO));
/// assert_eq!(errors.check_and_advance(&mut before), None);
/// let mut after = errors.sample();
/// assert_eq!(errors.check_and_advance(&mut after), None);
/// ```
#[derive(Debug)]
pub struct ErrorSeq {
    word: AtomicU64,
}

/// How far one connection has seen an [`ErrorSeq`].
#[derive(Debug)]
pub struct ErrorCursor {
    seen: u64,
}

impl ErrorSeq {
    const_unless_loom! {
        /// A sequence without errors.
        pub fn new() -> Self {
            Self { word: AtomicU64::new(0) }
        }
    }

    /// Records an error for every cursor there is, and for the next one if none of those looks.
    ///
    /// # Panics
    /// If `errno` is 0 or above [`ERRNO_MAX`].
    pub fn record(&self, errno: Errno) {
        let number = u64::try_from(errno.0).unwrap_or(0);
        assert!(
            (1..=u64::from(ERRNO_MAX.unsigned_abs())).contains(&number),
            "{} is no error number",
            errno.0
        );
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            let step = if word & SEEN == 0 { 0 } else { COUNT };
            let count = (word & !(COUNT - 1)).wrapping_add(step);
            let wanted = count | number;
            match self
                .word
                .compare_exchange_weak(word, wanted, Ordering::AcqRel, Ordering::Relaxed)
            {
                Ok(_) => return,
                Err(current) => word = current,
            }
        }
    }

    /// A cursor from which errors not yet seen by anyone, and all later ones, are news.
    #[must_use]
    pub fn sample(&self) -> ErrorCursor {
        let word = self.word.load(Ordering::Acquire);
        let seen = if word & SEEN == 0 { 0 } else { word };
        ErrorCursor { seen }
    }

    /// The latest error, if it is news to this cursor; afterwards it no longer is.
    pub fn check_and_advance(&self, cursor: &mut ErrorCursor) -> Option<Errno> {
        let word = self.word.load(Ordering::Acquire);
        if word == cursor.seen {
            return None;
        }
        let seen = word | SEEN;
        if word != seen {
            // Lost to another cursor that saw it too: then it is marked. Lost to a newer error:
            // then the word differs from what this cursor remembers, and the next check reports it.
            let _ = self
                .word
                .compare_exchange(word, seen, Ordering::AcqRel, Ordering::Relaxed);
        }
        cursor.seen = seen;
        let number = i32::try_from(word & u64::from(ERRNO_MAX.unsigned_abs()));
        number.ok().map(Errno)
    }

    /// Forgets every error, as a machine that has lost its power does. The cursors of before are of
    /// no use afterwards.
    pub fn forget(&self) {
        self.word.store(0, Ordering::Release);
    }
}

impl Default for ErrorSeq {
    fn default() -> Self {
        Self::new()
    }
}
