//! Requests that can't be answered at once: futures that the session polls, and what comes out of them.
//!
//! A future here may carry transfers that others wait for (`transfer` in the cache): it is polled until it has finished,
//! or dropped, but never kept unpolled. Dropping one, because the client has gone, only abandons the wait: a task
//! completes what it carried.

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use weir_cache::{FrameRefs, MemoryLine, PageCache, ZeroMode};
use weir_faults::{
    Device, Errno, FaultContext, Faults, RequestKinds, error_injectable, pause_point,
};
use weir_protocol::{Command, CommandFlags, NbdError, Request};

use super::Ticket;
use super::faulted::Faulted;
use crate::commands::{COMMAND_ROWS, COMMANDS, row_of};

/// A request under way.
pub(super) type SlowFuture = Pin<Box<dyn Future<Output = Finished> + Send>>;
/// A part of a request under way.
pub(super) type PartFuture<T> = Pin<Box<dyn Future<Output = Result<T, Errno>> + Send>>;

/// How often a slice is read again because the device has become smaller under it.
const SHAPE_CHANGES_MAX: usize = 4;

/// A part of a READ.
pub(super) struct Slice {
    pub(super) pages: FrameRefs,
    /// Bytes behind them that the device no longer has.
    pub(super) missing: usize,
}

/// The outcome of a request.
#[derive(Debug)]
pub(super) enum Finished {
    /// An operation that returns nothing.
    Done(Ticket, Result<(), NbdError>),
    /// A READ of one slice, or as much of it as the device still has.
    Read(Ticket, Result<FrameRefs, NbdError>),
    /// A BLOCK_STATUS, its chunks encoded.
    Status(Ticket, Result<Vec<u8>, NbdError>),
    /// A request that a fault rule took part in.
    Faulted(Box<Faulted>),
}

/// The protocol's error for an error of the cache.
pub(super) fn wire_error(errno: Errno) -> NbdError {
    NbdError::from_os(errno.0)
}

/// The bytes that a request is about.
pub(super) fn range(request: &Request) -> Range<u64> {
    // The range has been checked; saturation only keeps this function total.
    request.offset..request.offset.saturating_add(request.length.into())
}

/// A fault context per row of the table of commands, made once per connection.
#[derive(Debug)]
pub(super) struct FaultContexts {
    /// Work of the connection itself. Commands without a kind use it too.
    pub(super) connect: FaultContext,
    by_row: [FaultContext; COMMAND_ROWS],
}

impl FaultContexts {
    pub(super) fn new(faults: &Faults, device: Option<&Device>) -> Self {
        let of = |kinds| {
            let context = faults.context(kinds);
            device.map_or_else(|| context.clone(), |device| context.on(device))
        };
        Self {
            connect: of(RequestKinds::CONNECT),
            by_row: COMMANDS
                .each_ref()
                .map(|row| of(row.kind.map_or(RequestKinds::CONNECT, RequestKinds::of))),
        }
    }

    /// The context of a command.
    #[inline]
    pub(super) fn of(&self, command: Command) -> &FaultContext {
        &self.by_row[row_of(command)]
    }

    /// The context of READ, for its hot path.
    #[inline]
    pub(super) fn read(&self) -> &FaultContext {
        self.of(Command::READ)
    }

    /// The context of WRITE, for its hot path.
    #[inline]
    pub(super) fn write(&self) -> &FaultContext {
        self.of(Command::WRITE)
    }
}

/// What the READs of a connection are carried out with.
#[derive(Clone, Debug)]
pub(super) struct Reader {
    pub(super) cache: Arc<PageCache>,
    pub(super) context: FaultContext,
    /// Where they wait for memory, so that no more than one of them stands in the way of others.
    pub(super) line: MemoryLine,
}

/// A READ of one slice that isn't in the cache.
pub(super) fn read(reader: Reader, ticket: Ticket) -> SlowFuture {
    Box::pin(async move {
        let Request { offset, length, .. } = ticket.request;
        let slice = reader
            .read_there(&ticket.request, offset, length as usize)
            .await;
        Finished::Read(ticket, slice.map(|slice| slice.pages).map_err(wire_error))
    })
}

/// One slice of a larger READ, unless it is made to fail.
pub(super) fn read_slice(
    reader: Reader,
    request: Request,
    offset: u64,
    length: usize,
    injected: Result<(), Errno>,
) -> PartFuture<Slice> {
    Box::pin(async move {
        injected?;
        reader.read_there(&request, offset, length).await
    })
}

impl Reader {
    /// As [`Self::read_part`], but on a device that has become smaller, bytes beyond its end are missing instead of an
    /// error.
    async fn read_there(
        &self,
        request: &Request,
        offset: u64,
        length: usize,
    ) -> Result<Slice, Errno> {
        let mut there = length;
        let mut shape_changes = 0;
        while there > 0 {
            match self.read_part(request, offset, there).await {
                Ok(pages) => {
                    let missing = length - there;
                    return Ok(Slice { pages, missing });
                }
                Err(Errno::EINVAL) if shape_changes < SHAPE_CHANGES_MAX => {
                    // It may have been made larger again; what lay beyond the end in between is zeroes then.
                    shape_changes += 1;
                    let room = self.cache.size().saturating_sub(offset);
                    there = usize::try_from(room).map_or(length, |room| room.min(length));
                }
                Err(errno) => return Err(errno),
            }
        }
        Ok(Slice {
            pages: FrameRefs::new(self.cache.pool().clone()),
            missing: length,
        })
    }

    /// A slice of `request` through the cache, or past it if the request is large enough for that.
    #[error_injectable(ctx = self.context, errors(EIO, ENOMEM))]
    async fn read_part(
        &self,
        request: &Request,
        offset: u64,
        length: usize,
    ) -> Result<FrameRefs, Errno> {
        let Self {
            cache,
            context,
            line,
        } = self;
        if cache.is_direct(request.length.into()) {
            cache
                .read_direct_in(Some(line), context, offset, length)
                .await
        } else {
            cache.read_in(Some(line), context, offset, length).await
        }
    }
}

/// The end of a WRITE: what is left of its slices, then FUA.
pub(super) fn finish_write(
    cache: Arc<PageCache>,
    context: FaultContext,
    ticket: Ticket,
    mut parts: FuturesUnordered<PartFuture<()>>,
    error: Option<NbdError>,
) -> SlowFuture {
    Box::pin(async move {
        let mut outcome = error.map_or(Ok(()), Err);
        while let Some(part) = parts.next().await {
            outcome = outcome.and(part.map_err(wire_error));
        }
        if outcome.is_ok() {
            outcome = persist_if_asked(&cache, &context, &ticket.request)
                .await
                .map_err(wire_error);
        }
        Finished::Done(ticket, outcome)
    })
}

/// FLUSH, TRIM, WRITE_ZEROES and CACHE.
pub(super) fn operate(cache: Arc<PageCache>, context: FaultContext, ticket: Ticket) -> SlowFuture {
    Box::pin(async move {
        let outcome = apply(&cache, &context, &ticket.request).await;
        Finished::Done(ticket, outcome.map_err(wire_error))
    })
}

/// Carries out a request that has neither payload nor data in its reply.
pub(super) async fn apply(
    cache: &Arc<PageCache>,
    context: &FaultContext,
    request: &Request,
) -> Result<(), Errno> {
    pause_point!(context, "session:operate", [EIO, ENOMEM, ENOSPC]).await?;
    match request.command {
        Command::FLUSH => return cache.flush(context).await,
        // Nothing has to be done, but the reply is due.
        _ if request.length == 0 => return Ok(()),
        Command::TRIM => cache.trim(context, range(request)).await?,
        Command::WRITE_ZEROES => {
            let keep = request.flags.contains(CommandFlags::NO_HOLE);
            let mode = if keep {
                ZeroMode::KeepAllocated
            } else {
                ZeroMode::MayPunch
            };
            let fast_only = request.flags.contains(CommandFlags::FAST_ZERO);
            cache.zero(context, range(request), mode, fast_only).await?;
        }
        Command::CACHE => {
            cache.prefetch(context, range(request)).await;
            return Ok(());
        }
        _ => return Err(Errno::EINVAL),
    }
    persist_if_asked(cache, context, request).await
}

/// FUA: what was written is durable before the reply.
#[error_injectable(ctx = context, errors(EIO, ENOSPC, ENOMEM))]
pub(super) async fn persist_if_asked(
    cache: &Arc<PageCache>,
    context: &FaultContext,
    request: &Request,
) -> Result<(), Errno> {
    if request.flags.contains(CommandFlags::FUA) {
        cache.persist(context, range(request)).await?;
    }
    Ok(())
}
