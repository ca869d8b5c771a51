//! Rules with `at=backend`: what they do to the cache's own I/O.
//!
//! A decorator around the backend that the cache calls. With no such rule in force each call costs one relaxed load more.
//! The state of the device (offline, frozen, bad sectors, read-only) is not looked at here: it is about what clients ask
//! for, and the sessions see to it.

use std::ops::Range;
use std::sync::Arc;

use weir_cache::{
    Backend, BackendExtent, BackendFuture, Capabilities, FrameBuf, FrameRefs, Geometry, PAGE_SIZE,
    ZeroMode,
};
use weir_faults::{
    Action, BackendView, Decision, Errno, FaultContext, Faults, RequestKind, error_injectable,
};

use super::bytes::ByteAccess;
use super::power_cut::PowerCutBackend;

/// A backend whose calls rules see first.
#[derive(Debug)]
pub struct FaultedBackend {
    inner: Arc<dyn Backend>,
    /// The export's name.
    export: String,
    faults: Faults,
    bytes: ByteAccess,
    /// The same backend, if it can lose its power: nothing waits for a rule while it has none.
    power: Option<Arc<PowerCutBackend>>,
}

impl FaultedBackend {
    /// Lets the rules of `faults` see what the cache of `export` asks of `inner`, which is `power` where there is one.
    ///
    /// # Errors
    /// The system has no address space.
    pub fn new(
        inner: Arc<dyn Backend>,
        power: Option<Arc<PowerCutBackend>>,
        export: &str,
        faults: &Faults,
    ) -> std::io::Result<Self> {
        Ok(Self {
            inner,
            export: export.to_owned(),
            faults: faults.clone(),
            bytes: ByteAccess::new()?,
            power,
        })
    }

    /// Asks the rules about one call and waits as they say. `None`: nothing is to happen to it.
    async fn decide(
        &self,
        kind: RequestKind,
        offset: u64,
        length: u64,
    ) -> Result<Option<Fault>, Errno> {
        let view = BackendView {
            export: &self.export,
            kind,
            offset,
            length,
        };
        let Some(mut decision) = self.faults.decide_backend(&view) else {
            return Ok(None);
        };
        // In this order: a cut that comes after this look ends the wait, since the decision was made before it.
        let begun = self.incarnation()?;
        decision.wait().await;
        if self.incarnation()? != begun {
            return Err(Errno::EIO);
        }
        match decision.action {
            Some(Action::Error {
                errno,
                applied: false,
            }) => Err(errno),
            _ => Ok(Some(Fault(decision))),
        }
    }

    /// How often the power was cut. `EIO` while there is none.
    fn incarnation(&self) -> Result<u64, Errno> {
        self.power
            .as_ref()
            .map_or(Ok(0), |power| power.incarnation())
    }

    #[error_injectable(ctx = context, errors(EIO, ENOMEM, ETIMEDOUT))]
    async fn read(
        &self,
        context: &FaultContext,
        offset: u64,
        length: u64,
    ) -> Result<Option<Fault>, Errno> {
        self.decide(RequestKind::Read, offset, length).await
    }

    #[error_injectable(ctx = context, errors(EIO, ENOSPC, EDQUOT, EROFS, ETIMEDOUT))]
    async fn write(
        &self,
        context: &FaultContext,
        offset: u64,
        data: FrameRefs,
    ) -> Result<(), Errno> {
        let length = data.bytes() as u64;
        let fault = self.decide(RequestKind::Write, offset, length).await?;
        let Some(fault) = fault else {
            return self.inner.write_vectored_at(context, offset, data).await;
        };
        match fault.0.action {
            Some(Action::Lose) => return Ok(()),
            Some(Action::Corrupt(_) | Action::Tear(_) | Action::Misdirect(_)) => {
                let mut bytes = vec![0; data.bytes()];
                data.copy_to(&mut bytes);
                drop(data);
                fault.damage(&mut bytes);
                let stored = fault.stored(offset, length);
                bytes.truncate(in_memory(stored.end - stored.start));
                self.bytes
                    .write(&*self.inner, context, stored.start, &bytes)
                    .await?;
            }
            _ => {
                self.inner.write_vectored_at(context, offset, data).await?;
            }
        }
        fault.outcome()
    }

    #[error_injectable(ctx = context, errors(EIO, ENOSPC, ENOTSUP, EROFS))]
    async fn zero(
        &self,
        context: &FaultContext,
        range: Range<u64>,
        mode: ZeroMode,
    ) -> Result<(), Errno> {
        let length = range.end - range.start;
        let fault = self.decide(RequestKind::Zero, range.start, length).await?;
        let Some(fault) = fault else {
            return self.inner.write_zeroes(context, range, mode).await;
        };
        match fault.0.action {
            Some(Action::Lose) => return Ok(()),
            Some(Action::Tear(_) | Action::Misdirect(_)) => {
                let stored = fault.stored(range.start, length);
                self.bytes.zero(&*self.inner, context, stored, mode).await?;
            }
            _ => self.inner.write_zeroes(context, range, mode).await?,
        }
        fault.outcome()
    }

    #[error_injectable(ctx = context, errors(EIO, ENOTSUP, EROFS))]
    async fn trim(&self, context: &FaultContext, range: Range<u64>) -> Result<(), Errno> {
        let fault = self
            .decide(RequestKind::Trim, range.start, range.end - range.start)
            .await?;
        if !matches!(&fault, Some(fault) if fault.0.action == Some(Action::Lose)) {
            self.inner.discard(context, range).await?;
        }
        fault.map_or(Ok(()), |fault| fault.outcome())
    }

    #[error_injectable(ctx = context, errors(EIO, ENOSPC, EDQUOT))]
    async fn flush(&self, context: &FaultContext) -> Result<(), Errno> {
        let fault = self.decide(RequestKind::Flush, 0, 0).await?;
        if !matches!(&fault, Some(fault) if fault.0.action == Some(Action::Lose)) {
            self.inner.sync(context).await?;
        }
        fault.map_or(Ok(()), |fault| fault.outcome())
    }

    #[error_injectable(ctx = context, errors(EIO, ENOMEM))]
    async fn status(
        &self,
        context: &FaultContext,
        range: Range<u64>,
        most: usize,
    ) -> Result<Vec<BackendExtent>, Errno> {
        let fault = self
            .decide(RequestKind::Status, range.start, range.end - range.start)
            .await?;
        let extents = self.inner.extents(context, range, most).await?;
        fault.map_or(Ok(()), |fault| fault.outcome())?;
        Ok(extents)
    }
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

    /// Where what was to go to `offset` is stored, and how much of it.
    fn stored(&self, offset: u64, length: u64) -> Range<u64> {
        match self.0.action {
            Some(Action::Tear(most)) => offset..offset + most.min(length),
            Some(Action::Misdirect(elsewhere)) => elsewhere..elsewhere.saturating_add(length),
            _ => offset..offset + length,
        }
    }

    /// What the caller is told once it took effect.
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

impl Backend for FaultedBackend {
    fn geometry(&self) -> Geometry {
        self.inner.geometry()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn read_vectored_at<'a>(
        &'a self,
        context: &'a FaultContext,
        offset: u64,
        buffer: FrameBuf,
    ) -> BackendFuture<'a, (FrameBuf, Result<(), Errno>)> {
        Box::pin(async move {
            // The last page may reach past the end of the device: nothing that is read there counts.
            let room = self.geometry().size.saturating_sub(offset);
            let length = ((buffer.len() * PAGE_SIZE) as u64).min(room);
            let fault = match self.read(context, offset, length).await {
                Ok(fault) => fault,
                Err(errno) => return (buffer, Err(errno)),
            };
            let (mut buffer, mut outcome) =
                self.inner.read_vectored_at(context, offset, buffer).await;
            if let (Some(fault), Ok(())) = (&fault, &outcome) {
                damage_pages(fault, &mut buffer, length);
                outcome = fault.outcome();
            }
            (buffer, outcome)
        })
    }

    fn write_vectored_at<'a>(
        &'a self,
        context: &'a FaultContext,
        offset: u64,
        data: FrameRefs,
    ) -> BackendFuture<'a, Result<(), Errno>> {
        Box::pin(self.write(context, offset, data))
    }

    fn write_zeroes<'a>(
        &'a self,
        context: &'a FaultContext,
        range: Range<u64>,
        mode: ZeroMode,
    ) -> BackendFuture<'a, Result<(), Errno>> {
        Box::pin(self.zero(context, range, mode))
    }

    fn discard<'a>(
        &'a self,
        context: &'a FaultContext,
        range: Range<u64>,
    ) -> BackendFuture<'a, Result<(), Errno>> {
        Box::pin(self.trim(context, range))
    }

    fn extents<'a>(
        &'a self,
        context: &'a FaultContext,
        range: Range<u64>,
        most: usize,
    ) -> BackendFuture<'a, Result<Vec<BackendExtent>, Errno>> {
        Box::pin(self.status(context, range, most))
    }

    fn sync<'a>(&'a self, context: &'a FaultContext) -> BackendFuture<'a, Result<(), Errno>> {
        Box::pin(self.flush(context))
    }

    fn submit(&self) {
        self.inner.submit();
    }

    fn cover<'a>(
        &'a self,
        context: &'a FaultContext,
        range: Range<u64>,
    ) -> BackendFuture<'a, Result<(), Errno>> {
        self.inner.cover(context, range)
    }

    fn resize<'a>(
        &'a self,
        context: &'a FaultContext,
        size: u64,
    ) -> BackendFuture<'a, Result<(), Errno>> {
        self.inner.resize(context, size)
    }

    fn insert_range<'a>(
        &'a self,
        context: &'a FaultContext,
        offset: u64,
        length: u64,
    ) -> BackendFuture<'a, Result<(), Errno>> {
        self.inner.insert_range(context, offset, length)
    }

    fn collapse_range<'a>(
        &'a self,
        context: &'a FaultContext,
        offset: u64,
        length: u64,
    ) -> BackendFuture<'a, Result<(), Errno>> {
        self.inner.collapse_range(context, offset, length)
    }

    fn close(&self) -> BackendFuture<'_, Result<(), Errno>> {
        self.inner.close()
    }
}

#[cfg(test)]
mod tests;
