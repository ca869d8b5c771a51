//! Errors that must be seen, as Linux' `errseq_t` (lib/errseq.c) keeps them.
//!
//! Lost data is reported once to every connection that was open when it was lost, and, if none of them has seen the
//! error, to the next connection. One word does it: the error's number, a *seen* bit, and a counter that moves when an
//! error follows one that was seen. An error that follows an unseen one replaces it, so any number of errors may pass
//! without the counter moving. So a cursor always remembers a word that was marked as seen. The next error gets another
//! count, so it doesn't look like the old one to that cursor, even if its number is the same and another cursor has
//! seen it.
//!
//! The documentation of `flush.rs` says what is recorded, and why nothing else is.

use weir_faults::Errno;

use crate::primitives::sync::atomic::{AtomicU64, Ordering};
use crate::primitives::sync::const_unless_loom;

#[cfg(all(test, not(loom)))]
mod tests;

/// The bits of an error's number.
const NUMBER: u64 = Errno::MAX.unsigned_abs() as u64;
/// Set once some cursor has seen the error in the low bits.
const SEEN: u64 = NUMBER + 1;
const _: () = assert!(SEEN.is_power_of_two());
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

    /// Records an error for every cursor that exists, and for the next one to be made if none of these looks before.
    ///
    /// A number that can't be an error's is recorded as [`Errno::EIO`]: data is lost all the same.
    pub fn record(&self, errno: Errno) {
        let number = u64::from(Errno::of_system(errno.0).0.unsigned_abs());
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

    /// A cursor to which an error that no cursor has seen yet, and all later errors, are news.
    #[must_use]
    pub fn sample(&self) -> ErrorCursor {
        let word = self.word.load(Ordering::Acquire);
        let seen = if word & SEEN == 0 { 0 } else { word };
        ErrorCursor { seen }
    }

    /// The latest error, if it is news to this cursor; afterwards it no longer is.
    pub fn check_and_advance(&self, cursor: &mut ErrorCursor) -> Option<Errno> {
        let mut word = self.word.load(Ordering::Acquire);
        loop {
            if word == cursor.seen || word & NUMBER == 0 {
                return None;
            }
            if word & SEEN != 0 {
                break;
            }
            #[cfg(all(test, not(loom)))]
            crate::testing::interleave::at("errors:looked");
            // If the exchange fails, either another cursor has marked the error, or a newer error has replaced it: then
            // the newer one is reported.
            match self
                .word
                .compare_exchange(word, word | SEEN, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => word |= SEEN,
                Err(current) => word = current,
            }
        }
        cursor.seen = word;
        i32::try_from(word & NUMBER).ok().map(Errno)
    }

    /// Forgets every error, as a machine that has lost its power does. Later errors are reported as usual, to older
    /// cursors too: the counter goes on.
    pub fn forget(&self) {
        let forgotten = |word: u64| Some((word & !(COUNT - 1)).wrapping_add(COUNT));
        let _ = self
            .word
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, forgotten);
    }
}

impl Default for ErrorSeq {
    fn default() -> Self {
        Self::new()
    }
}
