//! The state word of a slot: a frame number and the state bits.

use super::frame::FrameId;

/// The frame is published and readable.
pub(crate) const PRESENT: u64 = 1 << 32;
/// A read from the backend is under way.
pub(crate) const FILLING: u64 = 1 << 33;
/// Newer than what was submitted.
pub(crate) const DIRTY: u64 = 1 << 34;
/// Submitted and not completed.
pub(crate) const IN_FLIGHT: u64 = 1 << 35;
/// Shot down while not clean.
pub(crate) const HELD: u64 = 1 << 36;
/// Written and not synced.
pub(crate) const UNSTABLE: u64 = 1 << 37;
pub(super) const LOCKED: u64 = 1 << 63;
const FRAME_MASK: u64 = 0xffff_ffff;

/// Any of these: the page is data that the backend may not durably have.
pub(crate) const UNCLEAN: u64 = DIRTY | IN_FLIGHT | HELD | UNSTABLE;

/// Every state bit, and its name.
pub(super) const BITS: [(u64, &str); 6] = [
    (PRESENT, "PRESENT"),
    (FILLING, "FILLING"),
    (DIRTY, "DIRTY"),
    (IN_FLIGHT, "IN_FLIGHT"),
    (UNSTABLE, "UNSTABLE"),
    (HELD, "HELD"),
];

/// A copy of a slot's state word.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct PageState(pub(super) u64);

impl PageState {
    pub(super) const EMPTY: Self = Self(0);

    /// `frame` with `bits`.
    pub(super) const fn new(frame: FrameId, bits: u64) -> Self {
        Self(frame as u64 | bits)
    }

    pub(crate) const fn frame(self) -> FrameId {
        (self.0 & FRAME_MASK) as FrameId
    }

    /// Whether any of `bits` is set.
    pub(crate) const fn has(self, bits: u64) -> bool {
        self.0 & bits != 0
    }

    /// All state bits.
    pub(super) const fn bits(self) -> u64 {
        self.0 & !(FRAME_MASK | LOCKED)
    }

    pub(super) const fn with(self, bits: u64) -> Self {
        Self(self.0 | bits)
    }

    pub(super) const fn without(self, bits: u64) -> Self {
        Self(self.0 & !bits)
    }

    pub(crate) const fn is_empty(self) -> bool {
        self.0 & !LOCKED == 0
    }

    /// Present, and the backend has it durably.
    pub(crate) const fn is_clean(self) -> bool {
        self.0 & (PRESENT | UNCLEAN | FILLING) == PRESENT
    }

    /// Whether the fill that reads into `token` may publish it here.
    pub(crate) const fn is_filled_by(self, token: FrameId) -> bool {
        self.has(FILLING) && self.frame() == token
    }

    /// The same published page in the same frame, whatever else changed.
    pub(crate) const fn same_page(self, other: Self) -> bool {
        (self.0 ^ other.0) & (FRAME_MASK | PRESENT) == 0
    }

    /// One of the nine that the module documentation allows.
    pub(super) const fn is_valid(self) -> bool {
        const DIRTY_IN_FLIGHT: u64 = DIRTY | IN_FLIGHT;
        match self.bits() {
            0 => self.is_empty(),
            FILLING | HELD => true,
            bits if bits == HELD | IN_FLIGHT => true,
            bits if bits & PRESENT == 0 => false,
            bits => matches!(
                bits & !PRESENT,
                0 | DIRTY | IN_FLIGHT | DIRTY_IN_FLIGHT | UNSTABLE
            ),
        }
    }
}

impl std::fmt::Debug for PageState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PageState(frame {}", self.frame())?;
        for (bit, name) in BITS {
            if self.has(bit) {
                write!(f, ", {name}")?;
            }
        }
        f.write_str(")")
    }
}
