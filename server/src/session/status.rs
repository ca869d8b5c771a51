//! BLOCK_STATUS: the states of the device's ranges, one chunk per selected metadata context.

use std::sync::Arc;

use weir_cache::{BackendExtent, ExtentKind, PageCache, ResidencyExtent};
use weir_faults::{Errno, FaultContext};
use weir_protocol::extent::{AllocationFlags, CacheFlags, ExtentList, Room};
use weir_protocol::reply::encode_block_status;
use weir_protocol::{ChunkFlags, CommandFlags, MetaContext, MetaContextSet, Request};

use super::Ticket;
use super::slow::{Finished, SlowFuture, range, wire_error};
use crate::limits::STATUS_EXTENTS_MAX;

/// A BLOCK_STATUS of a client that selected `contexts`.
pub(super) fn report(
    cache: Arc<PageCache>,
    faults: FaultContext,
    contexts: MetaContextSet,
    ticket: Ticket,
) -> SlowFuture {
    Box::pin(async move {
        let chunks = chunks(&cache, &faults, contexts, &ticket.request).await;
        Finished::Status(ticket, chunks.map_err(wire_error))
    })
}

/// The whole reply to `request`, encoded.
pub(super) async fn chunks(
    cache: &Arc<PageCache>,
    faults: &FaultContext,
    contexts: MetaContextSet,
    request: &Request,
) -> Result<Vec<u8>, Errno> {
    let mut out = Vec::new();
    let mut contexts = contexts.iter().peekable();
    while let Some(context) = contexts.next() {
        let extents = match context {
            MetaContext::BASE_ALLOCATION => allocation(cache, faults, request).await?,
            _ => residency(cache, request).await,
        };
        if extents.as_slice().is_empty() {
            // The protocol has no empty answer. The device was resized in between.
            return Err(Errno::EINVAL);
        }
        let flags = if contexts.peek().is_none() {
            ChunkFlags::DONE
        } else {
            ChunkFlags::EMPTY
        };
        encode_block_status(&mut out, flags, request.cookie, context, extents.as_slice());
    }
    Ok(out)
}

/// How many extents to ask for. Neighbours may merge, and then the first is longer than one extent alone would say.
fn extents_max(request: &Request) -> usize {
    const ENOUGH_FOR_ONE: usize = 16;
    if request.flags.contains(CommandFlags::REQ_ONE) {
        ENOUGH_FOR_ONE
    } else {
        STATUS_EXTENTS_MAX
    }
}

/// An empty list for the answer.
fn list_for(request: &Request) -> ExtentList {
    if request.flags.contains(CommandFlags::REQ_ONE) {
        ExtentList::new(request)
    } else {
        ExtentList::with_limit(request.length, STATUS_EXTENTS_MAX)
    }
}

/// `base:allocation`.
async fn allocation(
    cache: &Arc<PageCache>,
    faults: &FaultContext,
    request: &Request,
) -> Result<ExtentList, Errno> {
    let found = cache
        .allocation(faults, range(request), extents_max(request))
        .await?;
    let mut list = list_for(request);
    for BackendExtent { range, kind } in found {
        let flags = match kind {
            ExtentKind::Data => AllocationFlags::EMPTY,
            ExtentKind::Hole => AllocationFlags::HOLE | AllocationFlags::ZERO,
            ExtentKind::Zero => AllocationFlags::ZERO,
        };
        if list.push(range.end - range.start, flags.0) == Room::Full {
            break;
        }
    }
    Ok(list)
}

/// `x-weir:cache`.
async fn residency(cache: &PageCache, request: &Request) -> ExtentList {
    let mut list = list_for(request);
    for ResidencyExtent {
        length,
        cached,
        dirty,
    } in cache.residency(range(request), extents_max(request)).await
    {
        let mut flags = CacheFlags::EMPTY;
        if cached {
            flags |= CacheFlags::CACHED;
        }
        if dirty {
            flags |= CacheFlags::DIRTY;
        }
        if list.push(length, flags.0) == Room::Full {
            break;
        }
    }
    list
}
