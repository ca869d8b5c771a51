#![doc = include_str!("README.md")]
//!
//! # How
//! A filter over what lies below the cache, which is asked about each call before the call is made. Whether a rule is
//! about a call is decided when the call is made. So a call without a rule is the call of the layer below, and costs
//! one relaxed load more. The state of the device (offline, frozen, bad sectors, read-only) isn't checked here: it
//! concerns what clients ask for, and the sessions check it.

use std::ops::Range;
use std::sync::Arc;

use weir_cache::{
    Backend, BackendExtent, BackendFuture, Errno, Filter, FrameBuf, FrameRefs, PAGE_SIZE, ZeroMode,
};
use weir_faults::{Action, BackendView, Decision, Faults, RequestKind};

use super::bytes::ByteAccess;
use super::power_cut::PowerCutBackend;

/// A store whose calls go through the rules first.
#[derive(Debug)]
pub struct RuledBackend {
    next: Arc<dyn Backend>,
    /// The export's name.
    export: String,
    faults: Faults,
    bytes: ByteAccess,
    /// The same store, if it can lose its power: no call waits for a rule while the power is off.
    power: Option<Arc<PowerCutBackend>>,
}

impl RuledBackend {
    /// Lets the rules of `faults` see the calls to `next` for `export`. `power` is the part of `next` that can lose its
    /// power, if there is one.
    ///
    /// # Errors
    /// The system has no address space.
    pub fn new(
        next: Arc<dyn Backend>,
        power: Option<Arc<PowerCutBackend>>,
        export: &str,
        faults: &Faults,
    ) -> std::io::Result<Self> {
        Ok(Self {
            next,
            export: export.to_owned(),
            faults: faults.clone(),
            bytes: ByteAccess::new()?,
            power,
        })
    }

    /// Asks the rules about one call. `None`: nothing is to happen to it.
    fn decide(&self, kind: RequestKind, offset: u64, length: u64) -> Option<Decided> {
        let view = BackendView {
            export: &self.export,
            kind,
            offset,
            length,
        };
        let decision = self.faults.decide_backend(&view)?;
        // The order matters: a cut that comes after this look ends the wait, because the decision was made before it.
        let begun = self.incarnation();
        Some(Decided { decision, begun })
    }

    fn decide_range(&self, kind: RequestKind, range: &Range<u64>) -> Option<Decided> {
        self.decide(kind, range.start, range.end - range.start)
    }

    /// Waits as the rule says, and then says what else is to happen.
    async fn begin(&self, decided: Decided) -> Result<Fault, Errno> {
        let Decided {
            mut decision,
            begun,
        } = decided;
        let begun = begun?;
        decision.wait().await;
        if self.incarnation()? != begun {
            return Err(Errno::EIO);
        }
        match decision.action {
            Some(Action::Error {
                errno,
                applied: false,
            }) => Err(errno),
            _ => Ok(Fault(decision)),
        }
    }

    /// How often the power was cut. `EIO` while the power is off.
    fn incarnation(&self) -> Result<u64, Errno> {
        self.power
            .as_ref()
            .map_or(Ok(0), |power| power.incarnation())
    }

    async fn read_under(
        &self,
        decided: Decided,
        offset: u64,
        length: u64,
        buffer: FrameBuf,
    ) -> (FrameBuf, Result<(), Errno>) {
        let fault = match self.begin(decided).await {
            Ok(fault) => fault,
            Err(errno) => return (buffer, Err(errno)),
        };
        let (mut buffer, mut outcome) = self.next.read(offset, buffer).await;
        if outcome.is_ok() {
            damage_pages(&fault, &mut buffer, length);
            outcome = fault.outcome();
        }
        (buffer, outcome)
    }

    async fn write_under(
        &self,
        decided: Decided,
        offset: u64,
        data: FrameRefs,
    ) -> Result<(), Errno> {
        let fault = self.begin(decided).await?;
        match fault.0.action {
            Some(Action::Lose) => return Ok(()),
            Some(Action::Corrupt(_) | Action::Tear(_) | Action::Misdirect(_)) => {
                let mut bytes = vec![0; data.bytes()];
                data.copy_to(&mut bytes);
                let stored = fault.stored(offset, data.bytes() as u64);
                drop(data);
                fault.damage(&mut bytes);
                bytes.truncate(in_memory(stored.end - stored.start));
                self.bytes.write(&*self.next, stored.start, &bytes).await?;
            }
            _ => self.next.write(offset, data).await?,
        }
        fault.outcome()
    }

    async fn zero_under(
        &self,
        decided: Decided,
        range: Range<u64>,
        mode: ZeroMode,
    ) -> Result<(), Errno> {
        let fault = self.begin(decided).await?;
        match fault.0.action {
            Some(Action::Lose) => return Ok(()),
            Some(Action::Tear(_) | Action::Misdirect(_)) => {
                let stored = fault.stored(range.start, range.end - range.start);
                self.bytes.zero(&*self.next, stored, mode).await?;
            }
            _ => self.next.write_zeroes(range, mode).await?,
        }
        fault.outcome()
    }

    /// A call whose data can't be damaged: it is made, unless it is to be lost.
    async fn change_under(
        &self,
        decided: Decided,
        call: impl Future<Output = Result<(), Errno>>,
    ) -> Result<(), Errno> {
        let fault = self.begin(decided).await?;
        if fault.0.action != Some(Action::Lose) {
            call.await?;
        }
        fault.outcome()
    }

    async fn extents_under(
        &self,
        decided: Decided,
        range: Range<u64>,
        most: usize,
    ) -> Result<Vec<BackendExtent>, Errno> {
        let fault = self.begin(decided).await?;
        let extents = self.next.extents(range, most).await?;
        fault.outcome()?;
        Ok(extents)
    }
}

/// A rule's decision about a call, and how often the power had been cut by then.
struct Decided {
    decision: Decision,
    begun: Result<u64, Errno>,
}

/// A call that a rule has changed.
struct Fault(Decision);

impl Fault {
    /// Damages what is read or stored, if that was decided.
    fn damage(&self, data: &mut [u8]) {
        if let Some(damage) = self.0.damage() {
            damage.apply(self.0.seed, data);
        }
    }

    /// Where data for `offset` is stored, and how much of it.
    fn stored(&self, offset: u64, length: u64) -> Range<u64> {
        match self.0.action {
            Some(Action::Tear(most)) => offset..offset + most.min(length),
            Some(Action::Misdirect(elsewhere)) => elsewhere..elsewhere.saturating_add(length),
            _ => offset..offset + length,
        }
    }

    /// What the caller is told once the call took effect.
    fn outcome(&self) -> Result<(), Errno> {
        match self.0.action {
            Some(Action::Error { errno, .. }) => Err(errno),
            _ => Ok(()),
        }
    }
}

/// Damages what was read into the first `length` bytes of `buffer`.
fn damage_pages(fault: &Fault, buffer: &mut FrameBuf, length: u64) {
    if fault.0.damage().is_none() {
        return;
    }
    let mut bytes = vec![0; in_memory(length)];
    for (index, chunk) in bytes.chunks_mut(PAGE_SIZE).enumerate() {
        chunk.copy_from_slice(&buffer.page(index)[..chunk.len()]);
    }
    fault.damage(&mut bytes);
    for (index, chunk) in bytes.chunks(PAGE_SIZE).enumerate() {
        buffer.page_mut(index)[..chunk.len()].copy_from_slice(chunk);
    }
}

/// A length of data in memory.
fn in_memory(length: u64) -> usize {
    usize::try_from(length).expect("data in memory")
}

impl Filter for RuledBackend {
    fn next(&self) -> &dyn Backend {
        &*self.next
    }

    fn read(
        &self,
        offset: u64,
        buffer: FrameBuf,
    ) -> BackendFuture<'_, (FrameBuf, Result<(), Errno>)> {
        // The last page may reach past the end of the device, where no byte that is read counts.
        let room = self.next.geometry().size.saturating_sub(offset);
        let length = ((buffer.len() * PAGE_SIZE) as u64).min(room);
        match self.decide(RequestKind::Read, offset, length) {
            None => self.next.read(offset, buffer),
            Some(decided) => Box::pin(self.read_under(decided, offset, length, buffer)),
        }
    }

    fn write(&self, offset: u64, data: FrameRefs) -> BackendFuture<'_, Result<(), Errno>> {
        match self.decide(RequestKind::Write, offset, data.bytes() as u64) {
            None => self.next.write(offset, data),
            Some(decided) => Box::pin(self.write_under(decided, offset, data)),
        }
    }

    fn write_zeroes(
        &self,
        range: Range<u64>,
        mode: ZeroMode,
    ) -> BackendFuture<'_, Result<(), Errno>> {
        match self.decide_range(RequestKind::Zero, &range) {
            None => self.next.write_zeroes(range, mode),
            Some(decided) => Box::pin(self.zero_under(decided, range, mode)),
        }
    }

    fn discard(&self, range: Range<u64>) -> BackendFuture<'_, Result<(), Errno>> {
        match self.decide_range(RequestKind::Trim, &range) {
            None => self.next.discard(range),
            Some(decided) => {
                Box::pin(async { self.change_under(decided, self.next.discard(range)).await })
            }
        }
    }

    fn sync(&self) -> BackendFuture<'_, Result<(), Errno>> {
        match self.decide(RequestKind::Flush, 0, 0) {
            None => self.next.sync(),
            Some(decided) => Box::pin(async { self.change_under(decided, self.next.sync()).await }),
        }
    }

    fn extents(
        &self,
        range: Range<u64>,
        most: usize,
    ) -> BackendFuture<'_, Result<Vec<BackendExtent>, Errno>> {
        match self.decide_range(RequestKind::Status, &range) {
            None => self.next.extents(range, most),
            Some(decided) => Box::pin(self.extents_under(decided, range, most)),
        }
    }

    /// Nothing is held back here.
    fn cover(&self, range: Range<u64>) -> BackendFuture<'_, Result<(), Errno>> {
        self.next.cover(range)
    }
}

#[cfg(test)]
mod tests;
