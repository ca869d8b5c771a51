//! The cache under test, and what is checked after each round.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use weir_faults::{Errno, FaultContext, Faults, RequestKinds};

use super::act::{act, carry_out, read};
use super::case::{Action, Change, Round, SIZE, Setup, Step};
use super::expected::Expected;
use crate::frame::PAGE_BYTES;
use crate::options::{CacheOptions, MIN_CACHE_BYTES};
use crate::page_cache::{CloseError, PageCache};
use crate::testing::{Behaviour, TestBackend};

/// In paused time: whatever takes longer waits for something that never comes.
pub(super) const ROUND_LIMIT: Duration = Duration::from_secs(600);

/// Timers know no less.
const TICK: Duration = Duration::from_millis(1);

/// An error at a point, in every round anew.
#[derive(Clone, Debug)]
pub(super) struct Injection {
    /// Which point: `file F line N`.
    pub(super) place: String,
    pub(super) trigger: Trigger,
    pub(super) errno: Errno,
}

impl Injection {
    fn query(&self, round: u64) -> String {
        let Self {
            place,
            trigger,
            errno,
        } = self;
        let trigger = match trigger {
            Trigger::Chance { seed } => {
                format!("probability 20% seed {}", seed.wrapping_add(round << 32))
            }
            Trigger::After(hits) => format!("oneshot after {hits}"),
        };
        format!("{place} {trigger} error {errno}")
    }
}

/// At which hits of the point it happens.
#[derive(Clone, Copy, Debug)]
pub(super) enum Trigger {
    Chance { seed: u64 },
    After(u64),
}

/// The cache under test, and what it must hold.
pub(super) struct Bench {
    backend: Arc<TestBackend>,
    cache: Arc<PageCache>,
    context: FaultContext,
    faults: Faults,
    /// What goes wrong in each round besides the store.
    injection: Option<Injection>,
    rounds: u64,
    setup: Setup,
    delay_max: Duration,
    model: Vec<u8>,
    /// What the next write writes.
    tag: u8,
}

impl Bench {
    pub(super) fn open(
        setup: &Setup,
        delay_max: Duration,
        faults: &Faults,
        injection: Option<&Injection>,
    ) -> Self {
        let size = usize::try_from(SIZE).unwrap();
        let backend = Arc::new(TestBackend::new(size, setup.seed));
        let options = CacheOptions {
            cache_bytes: MIN_CACHE_BYTES,
            mode: setup.mode,
            direct_threshold: setup.direct_threshold.filter(|_| !setup.forgets),
            quota: setup.quota_pages.map(|pages| pages * PAGE_BYTES),
            ..CacheOptions::default()
        };
        let cache = PageCache::open(Arc::clone(&backend) as _, &options, faults).unwrap();
        Self {
            backend,
            cache,
            context: faults.context(RequestKinds::READ),
            faults: faults.clone(),
            injection: injection.cloned(),
            rounds: 0,
            setup: setup.clone(),
            delay_max,
            model: vec![0; size],
            tag: 0,
        }
    }

    fn behave(&self, failures: &[(&'static str, u64)]) {
        self.backend.behave(Behaviour {
            delay_max: Some(self.delay_max),
            // In real time a tick of the timer more for each read is too long.
            halves_apart: Some(self.delay_max / 4).filter(|apart| *apart >= TICK),
            failures_per_mille: failures.iter().copied().collect(),
            forgets: self.setup.forgets,
            ..Behaviour::default()
        });
    }

    fn arm(&mut self) {
        self.rounds += 1;
        if let Some(injection) = &self.injection {
            let query = injection.query(self.rounds);
            self.faults.set_points(&query).unwrap();
        }
    }

    fn disarm(&self) {
        if let Some(injection) = &self.injection {
            let query = format!("{} disable", injection.place);
            self.faults.set_points(&query).unwrap();
        }
    }

    /// The part of the step that exists on this device, in this round.
    fn fitted(&mut self, step: &Step, end: u64) -> Option<(Action, Range<u64>, u8)> {
        let range = step.start..(step.start + step.length).min(end);
        let action = match step.action {
            Action::Zero { .. } | Action::Trim { .. } | Action::Status if self.setup.forgets => {
                return None;
            }
            Action::Write { fua, .. } if self.setup.forgets => Action::Write { direct: false, fua },
            // A direct read could see that the store has forgotten data before the cache knows that the sync has
            // failed.
            Action::Read { .. } if self.setup.forgets => Action::Read { direct: false },
            other => other,
        };
        self.tag = self.tag % u8::MAX + 1;
        (range.start < range.end).then_some((action, range, self.tag))
    }

    pub(super) async fn round(&mut self, round: &Round) -> Result<(), String> {
        self.behave(&round.failures);
        self.arm();
        let size = self.cache.size();
        // A shift moves what lies behind it, with what is written there meanwhile: only steps before it are left.
        let end = match round.change {
            Some((Change::Insert { page, .. } | Change::Collapse { page, .. }, _)) => {
                size.min(page * PAGE_BYTES)
            }
            _ => size,
        };
        let mut running = Vec::new();
        for step in &round.steps {
            let Some((action, range, tag)) = self.fitted(step, end) else {
                continue;
            };
            let (cache, context) = (Arc::clone(&self.cache), self.context.clone());
            let (asked, pause) = (range.clone(), Duration::from_micros(step.pause_micros));
            let task = tokio::spawn(async move {
                tokio::time::sleep(pause).await;
                act(&cache, &context, action, asked, tag).await
            });
            running.push((action, range, tag, task));
        }
        let change = round.change.map(|(change, pause)| {
            let cache = Arc::clone(&self.cache);
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_micros(pause)).await;
                carry_out(&cache, change).await
            })
        });
        let mut expected = Expected::new(
            size,
            self.setup.mode,
            round.change.is_some(),
            self.cache.direct_threshold,
        );
        if let Some((Change::Resize(to), _)) = round.change {
            expected.may_end_at(to);
        }
        for (action, range, tag, task) in running {
            let outcome = task.await.map_err(|error| error.to_string())?;
            self.check_error(round, action, outcome.as_ref().err())?;
            expected.add(action, range, tag, outcome);
        }
        let changed = match change {
            None => None,
            Some(task) => Some(task.await.map_err(|error| error.to_string())?),
        };
        self.behave(&[]);
        self.disarm();
        let durable = self.backend.durable();
        expected.check_reads(&self.model)?;
        expected.check_statuses(&self.model)?;
        self.apply(round.change.map(|(change, _)| change), changed)?;
        let now = self.read_all().await?;
        expected.check(&self.model, &now, &durable)?;
        self.model = now;
        self.check_space()?;
        if round.flush {
            self.flush().await?;
        }
        Ok(())
    }

    /// Whether the request may have failed, and with this error.
    fn check_error(
        &self,
        round: &Round,
        action: Action,
        errno: Option<&Errno>,
    ) -> Result<(), String> {
        let allowed = match (errno, action) {
            (None, _) => true,
            (Some(&Errno::ENOSPC), Action::Write { .. } | Action::Zero { .. }) => {
                self.setup.quota_pages.is_some() || round.change.is_some()
            }
            (Some(&Errno::EINVAL), _) => round.change.is_some(),
            // For what others made dirty again, and for what a failed sync may have undone, the error is EIO whatever
            // went wrong.
            (Some(&Errno::EIO), _) => !round.failures.is_empty() || self.injection.is_some(),
            _ => false,
        } || self
            .injection
            .as_ref()
            .is_some_and(|injection| errno == Some(&injection.errno));
        if allowed {
            Ok(())
        } else {
            Err(format!("{action:?} fails with {errno:?}"))
        }
    }

    /// Carries what the operator did over to the model.
    fn apply(
        &mut self,
        change: Option<Change>,
        outcome: Option<Result<(), Errno>>,
    ) -> Result<(), String> {
        if let (Some(change), Some(Ok(()))) = (change, outcome) {
            let bytes = |pages: u64| usize::try_from(pages * PAGE_BYTES).unwrap();
            match change {
                Change::Resize(size) => self.model.resize(usize::try_from(size).unwrap(), 0),
                Change::Insert { page, pages } => {
                    let at = bytes(page);
                    self.model
                        .splice(at..at, std::iter::repeat_n(0, bytes(pages)));
                }
                Change::Collapse { page, pages } => {
                    self.model.drain(bytes(page)..bytes(page + pages));
                }
            }
        }
        if self.cache.size() == self.model.len() as u64 {
            Ok(())
        } else {
            Err(format!(
                "after {change:?}, {outcome:?}, the device has {} bytes, not {}",
                self.cache.size(),
                self.model.len()
            ))
        }
    }

    /// All slices side by side: one after the other, most of the time of a case would go into waiting for their fills.
    async fn read_all(&self) -> Result<Vec<u8>, String> {
        let size = self.cache.size();
        let mut reads = Vec::new();
        let mut at = 0;
        while at < size {
            let slice = at..at + self.cache.slice_at(at, size - at) as u64;
            at = slice.end;
            let (cache, context) = (Arc::clone(&self.cache), self.context.clone());
            let task = async move { read(&cache, &context, slice, false).await };
            reads.push(tokio::spawn(task));
        }
        let mut all = Vec::new();
        for read in reads {
            let data = read.await.map_err(|error| error.to_string())?;
            all.extend(data.map_err(|errno| format!("a read fails on a healthy store: {errno}"))?);
        }
        Ok(all)
    }

    /// The sum of the shards and what is charged is the quota, and what is allocated is charged.
    fn check_space(&self) -> Result<(), String> {
        let (Some(space), Some(stats)) = (&self.cache.quota, self.cache.quota()) else {
            return Ok(());
        };
        let counted = space.charged_units() * PAGE_BYTES;
        let pages = self.model.chunks(usize::try_from(PAGE_BYTES).unwrap());
        let data = pages.filter(|page| page.iter().any(|byte| *byte != 0));
        let needed = data.count() as u64 * PAGE_BYTES;
        if counted == stats.charged && needed <= stats.charged && stats.charged <= stats.quota {
            Ok(())
        } else {
            Err(format!(
                "{needed} bytes of data, {counted} are charged by the bits, and by the shards {stats:?}"
            ))
        }
    }

    async fn flush(&self) -> Result<(), String> {
        let flushed = self.cache.flush(&self.context).await;
        flushed.map_err(|errno| format!("a flush fails on a healthy store: {errno}"))?;
        if self.backend.durable() == self.model {
            Ok(())
        } else {
            Err("a flush left something behind".to_owned())
        }
    }

    /// Flushed and closed: all is durable and clean, and nothing of the quota is lost.
    pub(super) async fn end(self) -> Result<(), String> {
        self.flush().await?;
        self.cache.count_space().await.unwrap();
        self.check_space()?;
        let closed = self.cache.close(ROUND_LIMIT).await;
        match closed {
            // There is no copy of direct writes and zeroes, and there are no connections that would have been told.
            Ok(()) | Err(CloseError::Lost(_)) => {}
            Err(error) => return Err(error.to_string()),
        }
        let stats = self.cache.stats();
        let unclean = [
            stats.dirty_pages,
            stats.in_flight_pages,
            stats.held_pages,
            stats.unstable_pages,
        ];
        if unclean == [0; 4] && self.backend.durable() == self.model {
            Ok(())
        } else {
            Err(format!("after the end something is left: {stats:?}"))
        }
    }
}
