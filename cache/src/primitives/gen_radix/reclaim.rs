//! Reclaim: the call that empties a node declares it dead, unlinks it, and retires it.

use std::ptr;

use bytemuck::Zeroable;
use crossbeam_epoch::Guard;
use weir_faults::{ArmedPoints, race_fault};

use crate::primitives::sync::atomic::Ordering;

use super::GenRadix;
use super::node::{self, Header, Interior};
use super::path::Path;

impl<T: Zeroable + Send + Sync> GenRadix<T> {
    /// Takes one off the count of the path's node at `level`, and reclaims what is empty from there upwards.
    pub(super) fn release(&self, path: &Path, level: u32, pin: &Guard) {
        let mut level = level;
        let mut armed = self.armed();
        loop {
            // SAFETY: every node begins with a header, and the pin keeps it.
            let header = unsafe { &*path.nodes[level as usize] };
            let is_empty = header.population.vacate();
            if !is_empty || level == path.root.level() {
                return;
            }
            if race_fault!(armed) {
                // As if a rival occupied it once more before it is dead; then the rival empties it.
                armed = ArmedPoints::NONE;
                if header.population.occupy(armed) {
                    continue;
                }
            }
            if !header.population.kill() {
                return;
            }
            if !self.unlink(path, level, pin) {
                return;
            }
            level += 1;
        }
    }

    /// Finishes what the killer of the path's node at `level` has begun, if the path knows its parent.
    ///
    /// A dead node at the top of the path was the root when the walk began. It can have died below a newer root only,
    /// so its parent is not on the path. A call that found it dead sees that newer root (see
    /// [`Population`](super::node::Population)). Its next walk begins there, and either meets the node again, below its
    /// parent, or finds it gone.
    pub(super) fn bury(&self, path: &Path, level: u32, pin: &Guard) {
        if level < path.root.level() && self.unlink(path, level, pin) {
            self.release(path, level + 1, pin);
        }
    }

    /// Takes a dead node out of its parent, which is on the path; true for the one caller that did.
    fn unlink(&self, path: &Path, level: u32, pin: &Guard) -> bool {
        if race_fault!(self.armed()) && self.take_out(path, level, pin) {
            // As if a rival that met the dead node had taken it out; the rival goes on as it does in `bury`.
            self.release(path, level + 1, pin);
        }
        self.take_out(path, level, pin)
    }

    /// An address can't come back as another node's while a thread that knew it is pinned.
    fn take_out(&self, path: &Path, level: u32, pin: &Guard) -> bool {
        assert!(level < path.root.level(), "the top of a path has no parent");
        let node = path.nodes[level as usize];
        // SAFETY: a path has a node at every level from the one that was reached up to its top, by the assertion the
        // parent too; it is an interior node, and the pin keeps it.
        let parent = unsafe { Interior::from_raw(path.nodes[level as usize + 1]) };
        let unlinked = parent
            .child(path.slot(level + 1))
            .compare_exchange(node, ptr::null_mut(), Ordering::AcqRel, Ordering::Relaxed)
            .is_ok();
        if unlinked {
            self.bytes
                .fetch_sub(node::bytes::<T>(level), Ordering::Relaxed);
            // SAFETY: dead and unlinked, by this caller alone.
            unsafe { self.retire(node, level, pin) };
        }
        unlinked
    }

    /// # Safety
    /// The node is unlinked, and retired once.
    #[cfg(not(loom))]
    #[expect(clippy::unused_self, reason = "as under loom")]
    unsafe fn retire(&self, node: *mut Header, level: u32, pin: &Guard) {
        // SAFETY: a thread that may know the node is pinned by now; no other thread can learn of it any more. `T` is
        // `Send` and `'static`, so that its entries may be dropped later and elsewhere.
        unsafe { pin.defer_unchecked(move || node::free::<T>(node, level)) };
    }

    #[cfg(loom)]
    unsafe fn retire(&self, node: *mut Header, level: u32, _pin: &Guard) {
        self.retired
            .lock()
            .expect("not poisoned")
            .push((node, level));
    }
}
