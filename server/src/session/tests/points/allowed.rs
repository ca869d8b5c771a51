//! The possible contents of the device after requests that failed or were never answered.

use std::ops::Range;

use super::{DEVICE, index};

/// The possible values of each byte of the device, a bit for each value.
pub(super) struct Allowed {
    now: Vec<u64>,
    /// What a request may still do if its connection ended before it was answered.
    late: Vec<u64>,
}

impl Allowed {
    pub(super) fn new() -> Self {
        let size = index(DEVICE);
        Self {
            now: vec![1; size],
            late: vec![0; size],
        }
    }

    pub(super) fn changed(&mut self, range: &Range<u64>, value: u8, outcome: Option<bool>) {
        let bit = 1 << value;
        for at in index(range.start)..index(range.end) {
            match outcome {
                Some(true) => self.now[at] = bit | self.late[at],
                Some(false) => self.now[at] |= bit,
                None => {
                    self.now[at] |= bit;
                    self.late[at] |= bit;
                }
            }
        }
    }

    pub(super) fn resized(&mut self, size: u64) {
        self.now.resize(index(size), 1);
        self.late.resize(index(size), 0);
    }

    /// A late request doesn't know of the insertion.
    pub(super) fn inserted(&mut self, at: usize, length: usize) {
        self.now.splice(at..at, std::iter::repeat_n(1, length));
        self.late.resize(self.now.len(), 0);
    }

    pub(super) fn collapsed(&mut self, at: usize, length: usize) {
        self.now.drain(at..at + length);
        self.late.truncate(self.now.len());
    }

    pub(super) fn check(&self, start: u64, data: &[u8], what: &str) {
        let allowed = &self.now[index(start)..];
        let wrong = data.iter().zip(allowed).position(|(byte, allowed)| {
            1_u64
                .checked_shl(u32::from(*byte))
                .is_none_or(|bit| bit & allowed == 0)
        });
        if let Some(at) = wrong {
            panic!(
                "{what}: byte {} is {}, and may be {:b}",
                start + at as u64,
                data[at],
                allowed[at]
            );
        }
    }
}
