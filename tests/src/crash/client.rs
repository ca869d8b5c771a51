//! A client: it follows its plan, remembers what it was told, and checks what it reads.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use weir_cache::{CacheMode, FrameRefs, PAGE_BYTES, PageCache};
use weir_faults::{Errno, FaultContext, RequestKinds};

use super::content::{CELL, ZERO, content, versions};
use super::history::{Binding, ChangeId, Copy, Ending, History};
use super::plan::{Action, Step};

/// What the clients of a run share.
#[derive(Debug)]
pub(super) struct World {
    pub(super) cache: Arc<PageCache>,
    pub(super) context: FaultContext,
    pub(super) mode: CacheMode,
    /// The device's size changes in this run, and so does its last page.
    pub(super) resizes: bool,
    /// The end of the largest device that there is in this run.
    pub(super) size_max: u64,
    pub(super) history: Arc<Mutex<History>>,
    /// The first thing that went wrong.
    pub(super) failure: Mutex<Option<String>>,
    /// What happened, in order.
    pub(super) trace: Mutex<Vec<String>>,
}

impl World {
    pub(super) fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().expect("not poisoned")
    }

    pub(super) fn note(&self, line: String) {
        self.trace.lock().expect("not poisoned").push(line);
    }

    fn fail(&self, message: String) {
        let mut failure = self.failure.lock().expect("not poisoned");
        failure.get_or_insert(message);
    }

    /// One slice as a session reads it.
    async fn read_slice(
        &self,
        offset: u64,
        length: usize,
        direct: bool,
    ) -> Result<FrameRefs, Errno> {
        if direct {
            return self.cache.read_direct(&self.context, offset, length).await;
        }
        let mut hit = FrameRefs::new(Arc::clone(self.cache.pool()));
        if self.cache.try_read(offset, length, &mut hit) {
            return Ok(hit);
        }
        self.cache.read(&self.context, offset, length).await
    }

    /// Reads a range slice by slice.
    pub(super) async fn read(&self, range: &Range<u64>, direct: bool) -> Result<Vec<u8>, Errno> {
        let total = usize::try_from(range.end - range.start).expect("a small device");
        let mut bytes = vec![0; total];
        let mut done = 0;
        while done < total {
            let at = range.start + done as u64;
            let length = self.cache.slice_at(at, range.end - at);
            let slice = self.read_slice(at, length, direct).await?;
            slice.copy_to(&mut bytes[done..done + length]);
            done += length;
        }
        Ok(bytes)
    }

    /// One slice as a session writes it.
    async fn write_slice(&self, offset: u64, bytes: &[u8], direct: bool) -> Result<(), Errno> {
        let small = (bytes.len() as u64) < PAGE_BYTES;
        if !direct && small && self.cache.try_write(&self.context, offset, bytes) {
            return Ok(());
        }
        let mut payload = self.cache.payload(offset, bytes.len()).await;
        assert_eq!(payload.copy_from(bytes), bytes.len());
        if direct {
            return self.cache.write_direct(&self.context, payload).await;
        }
        match self.cache.try_install(&self.context, payload) {
            Ok(()) => Ok(()),
            Err(payload) => self.cache.write(&self.context, payload).await,
        }
    }

    async fn write(&self, offset: u64, bytes: &[u8], direct: bool) -> Result<(), Errno> {
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let length = self.cache.slice_at(at, (bytes.len() - done) as u64);
            self.write_slice(at, &bytes[done..done + length], direct)
                .await?;
            done += length;
        }
        Ok(())
    }

    async fn persist(&self, range: &Range<u64>, fua: bool) -> Result<(), Errno> {
        if fua {
            self.cache.persist(&self.context, range.clone()).await?;
        }
        Ok(())
    }

    fn begin(&self, action: &Action, version: u32, copy: Copy, range: &Range<u64>) -> Asked<'_> {
        let id = self
            .history()
            .begin(format!("{action:?}"), version, copy, range);
        Asked {
            world: self,
            id: Some(id),
        }
    }

    /// Does what the step says. If it is dropped before it is done, it abandons what it began.
    async fn act(&self, action: &Action) -> Result<(), Errno> {
        let (cache, context) = (&self.cache, &self.context);
        let direct_by_size = |range: &Range<u64>| cache.is_direct(range.end - range.start);
        match action {
            Action::Read { range, direct } => {
                let begun = self.history().moment();
                let bytes = self.read(range, *direct || direct_by_size(range)).await?;
                let history = self.history();
                let wrong = versions(range.start, &bytes).find_map(|(cell, version)| {
                    let checked = history.check(cell, version, Binding::AnsweredBefore(begun));
                    checked.err().map(|error| (cell, error))
                });
                if let Some((cell, error)) = wrong {
                    let at = cell as u64 * CELL;
                    self.fail(format!(
                        "{action:?} begun at {begun} saw at byte {at} {error}"
                    ));
                }
                Ok(())
            }
            Action::Write { range, direct, fua } => {
                let version = self.history().next_version();
                let bytes = content(range, version);
                let direct = *direct || direct_by_size(range);
                let copy = if direct { Copy::Partly } else { Copy::Kept };
                let asked = self.begin(action, version, copy, range);
                let mut outcome = self.write(range.start, &bytes, direct).await;
                if outcome.is_ok() {
                    outcome = self.persist(range, *fua).await;
                }
                asked.end(outcome, *fua);
                outcome
            }
            Action::Zero { range, mode, fua } => {
                let asked = self.begin(action, ZERO, Copy::Partly, range);
                let mut outcome = cache.zero(context, range.clone(), *mode, false).await;
                if outcome.is_ok() {
                    outcome = self.persist(range, *fua).await;
                }
                asked.end(outcome, *fua);
                outcome
            }
            Action::Trim { range, fua } => self.trim(action, range, *fua).await,
            Action::Prefetch(range) => {
                cache.prefetch(context, range.clone()).await;
                Ok(())
            }
            Action::Flush => {
                let begun = self.history().moment();
                cache.flush(context).await?;
                self.history().flushed(begun);
                Ok(())
            }
            Action::DropClean => {
                let begun = self.history().moment();
                cache.drop_clean().await?;
                self.history().flushed(begun);
                Ok(())
            }
            Action::Resize(size) => {
                // Data beyond the end is zeroes when it comes back. Data that a growth adds was zeroes before.
                let asked = self.begin(action, ZERO, Copy::Kept, &(*size..self.size_max));
                let outcome = cache.resize(*size).await;
                asked.end(outcome, false);
                outcome
            }
        }
    }

    /// A trim leaves out its edges. The device's short last page doesn't count as an edge while it is the last.
    async fn trim(&self, action: &Action, range: &Range<u64>, fua: bool) -> Result<(), Errno> {
        let start = range.start.next_multiple_of(PAGE_BYTES);
        let end = (range.end - range.end % PAGE_BYTES).max(start);
        let whole = self.begin(action, ZERO, Copy::None, &(start..end));
        let short = (range.end == self.cache.size() && range.end > end).then(|| {
            let short = end.max(start)..range.end.max(start);
            self.begin(action, ZERO, Copy::None, &short)
        });
        let mut outcome = self.cache.trim(&self.context, range.clone()).await;
        if outcome.is_ok() {
            outcome = self.persist(range, fua).await;
        }
        whole.end(outcome, fua);
        if let Some(short) = short {
            let known = if self.resizes {
                Err(Errno::EAGAIN)
            } else {
                outcome
            };
            short.end(known, fua);
        }
        outcome
    }
}

/// A change that a client has asked for and that was not answered yet.
struct Asked<'w> {
    world: &'w World,
    /// `None` once it was answered.
    id: Option<ChangeId>,
}

impl Asked<'_> {
    fn end(mut self, outcome: Result<(), Errno>, fua: bool) {
        let ending = match outcome {
            Ok(()) if fua || self.world.mode == CacheMode::Writethrough => Ending::Durable,
            Ok(()) => Ending::Done,
            Err(_) => Ending::Failed,
        };
        let id = self.id.take().expect("it is answered once");
        self.world.history().end(id, ending);
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.world.history().abandon(id);
        }
    }
}

impl Action {
    fn end(&self) -> u64 {
        match self {
            Self::Read { range, .. }
            | Self::Write { range, .. }
            | Self::Zero { range, .. }
            | Self::Trim { range, .. }
            | Self::Prefetch(range) => range.end,
            Self::Flush | Self::DropClean | Self::Resize(_) => 0,
        }
    }
}

/// Does the steps one after the other.
pub(super) async fn work(world: Arc<World>, client: usize, steps: Vec<Step>) {
    let begun = tokio::time::Instant::now();
    for (number, step) in steps.iter().enumerate() {
        tokio::time::sleep(step.pause).await;
        // A session checks this in the same way.
        if step.action.end() > world.cache.size() {
            continue;
        }
        let action = world.act(&step.action);
        let outcome = match step.patience {
            None => Some(action.await),
            Some(patience) => tokio::time::timeout(patience, action).await.ok(),
        };
        let time = begun.elapsed();
        world.note(format!(
            "{time:?} client {client} step {number} {:?}: {outcome:?}",
            step.action
        ));
    }
}

/// The context of requests.
pub(super) fn request_context(faults: &weir_faults::Faults) -> FaultContext {
    faults.context(RequestKinds::WRITE)
}
