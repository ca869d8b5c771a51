//! Reads and writes through io_uring: many transfers per system call, no thread per transfer.
//!
//! # How it works
//! A transfer is a [`RingTransfer`] future. Its first poll enters it into the list of operations. The transfer that
//! makes the list [`SUBMIT_BATCH`] long submits them all with one system call, so a disk starts on the first requests
//! of a session while the session plans the rest. A caller that has entered all its transfers says so
//! ([`Ring::submit`]). Transfers that no caller submits are submitted by the *driver*, a task that runs after the task
//! that woke it has paused. Only the driver takes completions: the runtime's reactor watches the ring's descriptor, and
//! when some have come the driver takes all of them and wakes the waiting tasks, which are mostly one session.
//!
//! # Invariants
//! - **Memory outlives the transfer.** The list owns the frames, iovecs and file of every transfer from before the
//!   kernel hears of it until it has completed. A dropped future leaves its operation there, abandoned. A ring that is
//!   dropped in the middle (the runtime was shut down) leaks what is under way rather than free it.
//! - **One at a time at each end of the ring.** Entries are pushed under the state's lock, and only the driver takes
//!   completions. Telling the kernel of pushed entries needs no lock: the kernel sorts out simultaneous calls.
//! - **At most [`RING_DEPTH`] under way**, for which the completion queue has room; others wait in the list, in order.
//! - **Only whole successes count.** A transfer that failed, was cut short or was interrupted is handed back. The
//!   caller repeats it with the system calls of [`transfer`](super::transfer), which know the cause and what to do.
//!   Reads and writes may be done twice.
//!
//! What a kernel without io_uring (or a sandbox that forbids it) says at the start is [`Ring::start`]'s error, and the
//! caller goes on with threads.
//!
//! # When the kernel refuses for good
//! If the kernel is out of memory or room, it takes a submission later. With any other error (a sandbox that closes in
//! a running process, an unusual kernel) the ring is *broken*. Nothing is submitted any more, and what the kernel has
//! taken completes. All else is handed back as if it had failed, and the caller repeats it with threads. Entries that
//! were pushed and not taken may be handed back only when no thread is in the kernel to submit them. So the threads
//! that are there are counted, and the last to leave hands them back.
#![expect(
    unsafe_code,
    reason = "the kernel reads and writes memory that this module keeps alive"
)]

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
#[cfg(test)]
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use io_uring::{IoUring, opcode};
use nix::libc;
use slab::Slab;
use tokio::runtime::Handle;
use weir_cache::{FrameBuf, FrameRefs, PAGE_SIZE};

use self::driver::Driver;
use self::operation::{Memory, Operation, Vectors};
use super::OpenFile;
use crate::limits::{IO_SLICES_MAX, RING_DEPTH};

mod driver;
mod operation;

/// Transfers that are submitted at once, before their caller goes on: enough to share a system call, few enough that
/// the disk doesn't wait for the planning of many. On a disk of 10 us per read, 8 did better than 4 and 16.
const SUBMIT_BATCH: usize = 8;

/// A handle to the ring of one file. When it is dropped or closed, what is under way still completes.
pub(super) struct Ring {
    shared: Arc<Shared>,
}

struct Shared {
    ring: IoUring,
    state: Mutex<State>,
    /// How many submissions are still to be refused.
    #[cfg(test)]
    refusals: AtomicUsize,
    /// The error for them.
    #[cfg(test)]
    refusal: AtomicI32,
}

#[derive(Default)]
struct State {
    operations: Slab<Operation>,
    /// Keys of operations that are in no queue of the ring yet, oldest first.
    queued: VecDeque<usize>,
    /// Transfers that are in one of the ring's queues, or the kernel's.
    under_way: usize,
    /// How many were ever pushed.
    pushed: u64,
    /// Threads that are telling the kernel of pushed entries, or about to.
    telling: usize,
    /// The kernel takes nothing any more.
    broken: bool,
    /// The driver's waker, while it sleeps.
    driver: Option<Waker>,
    closed: bool,
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.lock();
        f.debug_struct("Ring")
            .field("operations", &state.operations.len())
            .field("queued", &state.queued.len())
            .finish()
    }
}

impl Ring {
    /// Makes a ring and starts its driver on the current runtime.
    ///
    /// # Errors
    /// The system has no io_uring or doesn't let this process use it, or there is no runtime.
    pub(super) fn start() -> io::Result<Self> {
        // Completions needn't interrupt a busy worker: it looks for them at its next system call, and a parked worker
        // is woken.
        let mut ring = IoUring::builder()
            .setup_coop_taskrun()
            .build(RING_DEPTH)
            .or_else(|error| match error.raw_os_error() {
                Some(libc::EINVAL) => IoUring::new(RING_DEPTH),
                _ => Err(error),
            })?;
        let features = ring.params();
        let complete = features.is_feature_nodrop()
            && features.is_feature_submit_stable()
            && features.is_feature_rw_cur_pos();
        if !complete {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "the kernel's io_uring is older than 5.6",
            ));
        }
        try_out(&mut ring)?;
        let runtime = Handle::try_current().map_err(io::Error::other)?;
        let shared = Arc::new(Shared {
            ring,
            state: Mutex::default(),
            #[cfg(test)]
            refusals: AtomicUsize::new(0),
            #[cfg(test)]
            refusal: AtomicI32::new(libc::EAGAIN),
        });
        let driver = Driver::new(Arc::clone(&shared))?;
        runtime.spawn(driver.run());
        Ok(Self { shared })
    }

    /// Reads all of `buffer` from `offset` of the file's direct descriptor; says whether all of it was read.
    pub(super) async fn read(
        &self,
        file: &Arc<OpenFile>,
        offset: u64,
        mut buffer: FrameBuf,
    ) -> (FrameBuf, bool) {
        let bytes = buffer.len() * PAGE_SIZE;
        let slices = buffer.io_slices_mut(0, bytes, IO_SLICES_MAX);
        let pieces = slices.map(|mut slice| libc::iovec {
            iov_base: slice.as_mut_ptr().cast(),
            iov_len: slice.len(),
        });
        let vectors = Vectors::merged(pieces);
        match self
            .transfer(file, offset, Memory::Read(buffer), vectors)
            .await
        {
            (Memory::Read(buffer), whole) => (buffer, whole),
            (Memory::Write(_), _) => unreachable!("an operation keeps its memory"),
        }
    }

    /// Writes all of `data` at `offset` through the file's direct descriptor; says whether all of it was written.
    pub(super) async fn write(
        &self,
        file: &Arc<OpenFile>,
        offset: u64,
        data: FrameRefs,
    ) -> (FrameRefs, bool) {
        let pieces = data.io_slices().map(|slice| libc::iovec {
            // The kernel only reads from it.
            iov_base: slice.as_ptr().cast_mut().cast(),
            iov_len: slice.len(),
        });
        let vectors = Vectors::merged(pieces);
        match self
            .transfer(file, offset, Memory::Write(data), vectors)
            .await
        {
            (Memory::Write(data), whole) => (data, whole),
            (Memory::Read(_), _) => unreachable!("an operation keeps its memory"),
        }
    }

    async fn transfer(
        &self,
        file: &Arc<OpenFile>,
        offset: u64,
        memory: Memory,
        vectors: Vectors,
    ) -> (Memory, bool) {
        let bytes = vectors.bytes();
        let operation = Operation {
            memory,
            vectors,
            file: Arc::clone(file),
            offset,
            since: None,
            number: 0,
            reported: false,
            outcome: None,
            waiter: None,
            abandoned: false,
        };
        let (memory, outcome) = RingTransfer {
            shared: &self.shared,
            operation: Some(operation),
            key: None,
        }
        .await;
        let whole = usize::try_from(outcome).is_ok_and(|transferred| transferred == bytes);
        (memory, whole)
    }

    /// Submits the transfers that have gathered.
    pub(super) fn submit(&self) {
        let state = self.shared.lock();
        if !state.queued.is_empty() {
            self.shared.submit(state);
        }
    }

    /// Lets what is under way complete, and the driver end.
    pub(super) fn close(&self) {
        self.shared.lock().closed = true;
        self.shared.wake_driver();
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code under the lock panics half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters an operation. If enough operations have gathered they are submitted; otherwise the driver does it in its
    /// turn. The first operation that is entered has woken the driver in any case: the driver watches the clock as long
    /// as anything is under way.
    ///
    /// # Errors
    /// Returns the operation if the ring is broken.
    fn enter(&self, operation: Operation) -> Result<usize, Box<Operation>> {
        let mut state = self.lock();
        assert!(!state.closed, "I/O submitted after close");
        if state.broken {
            return Err(Box::new(operation));
        }
        let key = state.operations.insert(operation);
        state.queued.push_back(key);
        if state.queued.len() >= SUBMIT_BATCH {
            self.submit(state);
        } else if let Some(driver) = state.driver.take() {
            drop(state);
            driver.wake();
        }
        Ok(key)
    }

    /// Submits as many queued operations as the ring takes; the driver retries what the kernel doesn't take now.
    fn submit(&self, mut state: MutexGuard<'_, State>) {
        let pushed = self.push_to_tell(&mut state);
        drop(state);
        if pushed && !self.tell_kernel() {
            self.wake_driver();
        }
    }

    /// [`Shared::push`], after which the kernel must be told if this returns true.
    fn push_to_tell(&self, state: &mut State) -> bool {
        let pushed = !state.broken && self.push(state);
        state.telling += usize::from(pushed);
        pushed
    }

    fn wake_driver(&self) {
        let driver = self.lock().driver.take();
        if let Some(driver) = driver {
            driver.wake();
        }
    }

    /// Moves queued operations into the ring's queue. Says whether that queue holds anything, including earlier
    /// entries: their thread may not have got the kernel to take them.
    fn push(&self, state: &mut State) -> bool {
        // SAFETY: under the state's lock, so it is the only one.
        let mut queue = unsafe { self.ring.submission_shared() };
        let mut now = None;
        while state.under_way < RING_DEPTH as usize
            && !queue.is_full()
            && let Some(key) = state.queued.pop_front()
        {
            let operation = &mut state.operations[key];
            operation.since = Some(*now.get_or_insert_with(Instant::now));
            state.pushed += 1;
            operation.number = state.pushed;
            // SAFETY: nothing in the list changes an operation's memory, vectors or file, and it stays in the list
            // until the driver has seen its completion (the drop of all this leaks the list otherwise).
            let entry = unsafe { operation.entry(key) };
            // SAFETY: as above; the entry's pointers stay valid for as long as the kernel works on it.
            unsafe { queue.push(&entry) }.expect("not full");
            state.under_way += 1;
        }
        !queue.is_empty()
    }

    /// Tells the kernel of all pushed entries, whichever thread pushed them; says whether there is nothing left to
    /// tell. The caller must have been counted before.
    fn tell_kernel(&self) -> bool {
        loop {
            let outcome = self.enter_kernel();
            if matches!(&outcome, Err(error) if error.kind() == io::ErrorKind::Interrupted) {
                continue;
            }
            let mut state = self.lock();
            // SAFETY: under the state's lock, so it is the only one; it is dropped before the lock.
            let empty = unsafe { self.ring.submission_shared() }.is_empty();
            let over = match outcome {
                Ok(taken) => empty || taken == 0 || state.broken,
                // The kernel may take it later.
                Err(error) if is_passing(&error) => true,
                Err(error) => {
                    if !std::mem::replace(&mut state.broken, true) {
                        tracing::warn!(
                            "io_uring doesn't work any more ({error}); going on with threads"
                        );
                    }
                    true
                }
            };
            if over {
                state.telling -= 1;
                let broken = state.broken;
                self.hand_back(state);
                return empty || broken;
            }
            // The kernel has stopped half-way, at an entry that failed at once; or another thread has pushed meanwhile.
        }
    }

    /// If the ring is broken and no thread is in the kernel, fails what the kernel hasn't taken.
    fn hand_back(&self, mut state: MutexGuard<'_, State>) {
        if !state.broken || state.telling > 0 {
            return;
        }
        // SAFETY: under the state's lock, so it is the only one. It reads the kernel's end of the queue anew.
        let untaken = unsafe { self.ring.submission_shared() }.len() as u64;
        let State {
            operations,
            queued,
            under_way,
            pushed,
            ..
        } = &mut *state;
        // The kernel takes entries in order.
        let taken = *pushed - untaken;
        let mut failed = std::mem::take(queued);
        let pushed_in_vain = operations
            .iter()
            .filter(|(_, operation)| operation.number > taken && operation.outcome.is_none());
        let pushed_in_vain: Vec<_> = pushed_in_vain.map(|(key, _)| key).collect();
        *under_way -= pushed_in_vain.len();
        failed.extend(pushed_in_vain);
        let mut wakers = Vec::new();
        let mut abandoned = Vec::new();
        for key in failed {
            let operation = &mut operations[key];
            operation.outcome = Some(-libc::ECANCELED);
            if operation.abandoned {
                abandoned.push(operations.remove(key));
            } else {
                wakers.extend(operation.waiter.take());
            }
        }
        // The driver has less to wait for.
        wakers.extend(state.driver.take());
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        drop(abandoned);
    }

    fn enter_kernel(&self) -> io::Result<usize> {
        #[cfg(test)]
        if self.refusals.load(Ordering::SeqCst) > 0 {
            self.refusals.fetch_sub(1, Ordering::SeqCst);
            return Err(io::Error::from_raw_os_error(
                self.refusal.load(Ordering::SeqCst),
            ));
        }
        self.ring.submit()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if state.under_way > 0 {
            // The runtime has ended during transfers. The kernel may still write to their frames, so they are never
            // freed.
            #[expect(
                clippy::disallowed_methods,
                reason = "the kernel may still write there"
            )]
            std::mem::forget(std::mem::take(&mut state.operations));
        }
    }
}

/// Whether the kernel may take a refused submission once something has completed.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAGAIN | libc::EBUSY | libc::ENOMEM)
    )
}

/// Submits a NOP and waits for it: a sandbox may allow a ring to be made but not used.
fn try_out(ring: &mut IoUring) -> io::Result<()> {
    // SAFETY: a NOP refers to no memory.
    unsafe { ring.submission().push(&opcode::Nop::new().build()) }.expect("an empty queue");
    ring.submit_and_wait(1)?;
    ring.completion().for_each(drop);
    Ok(())
}

/// A transfer on its way: an operation until the first poll, a key in the list from then on.
struct RingTransfer<'r> {
    shared: &'r Arc<Shared>,
    operation: Option<Operation>,
    key: Option<usize>,
}

impl Future for RingTransfer<'_> {
    type Output = (Memory, i32);

    fn poll(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(mut operation) = self.operation.take() {
            operation.waiter = Some(task.waker().clone());
            return match self.shared.enter(operation) {
                Ok(key) => {
                    self.key = Some(key);
                    Poll::Pending
                }
                Err(operation) => Poll::Ready((operation.memory, -libc::ECANCELED)),
            };
        }
        let key = self.key.expect("not polled after it was over");
        let mut state = self.shared.lock();
        let operation = &mut state.operations[key];
        let Some(outcome) = operation.outcome else {
            match &mut operation.waiter {
                Some(waiter) => waiter.clone_from(task.waker()),
                none => *none = Some(task.waker().clone()),
            }
            return Poll::Pending;
        };
        let operation = state.operations.remove(key);
        drop(state);
        self.key = None;
        Poll::Ready((operation.memory, outcome))
    }
}

impl Drop for RingTransfer<'_> {
    fn drop(&mut self) {
        let Some(key) = self.key else { return };
        let mut state = self.shared.lock();
        let operation = &mut state.operations[key];
        operation.abandoned = true;
        operation.waiter = None;
        if operation.outcome.is_some() {
            let done = state.operations.remove(key);
            drop(state);
            // Not under the lock: freeing frames wakes other tasks.
            drop(done);
        }
    }
}

#[cfg(test)]
mod tests;
