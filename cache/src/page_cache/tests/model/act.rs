//! Steps and changes, done as a session and an operator do them.

use std::ops::Range;
use std::sync::Arc;

use weir_faults::{Errno, FaultContext};

use super::case::{Action, Change};
use crate::backend::ExtentKind;
use crate::frame::{FrameRefs, PAGE_BYTES};
use crate::page_cache::PageCache;

/// Asked for at a time: some answers are not about all of the range.
const EXTENTS_MAX: usize = 8;

pub(super) async fn carry_out(cache: &Arc<PageCache>, change: Change) -> Result<(), Errno> {
    match change {
        Change::Resize(size) => cache.resize(size).await,
        Change::Insert { page, pages } => {
            let (at, length) = (page * PAGE_BYTES, pages * PAGE_BYTES);
            cache.insert_range(at, length).await
        }
        Change::Collapse { page, pages } => {
            let (at, length) = (page * PAGE_BYTES, pages * PAGE_BYTES);
            cache.collapse_range(at, length).await
        }
    }
}

/// Does a step as a session does. Returns what was read, if anything, or one byte for each byte with a known status:
/// zero for a hole.
pub(super) async fn act(
    cache: &Arc<PageCache>,
    context: &FaultContext,
    action: Action,
    range: Range<u64>,
    tag: u8,
) -> Result<Option<Vec<u8>>, Errno> {
    let kept = range.clone();
    let fua = match action {
        Action::Read { direct } => return read(cache, context, range, direct).await.map(Some),
        Action::Write { direct, fua } => {
            write(cache, context, range, tag, direct).await?;
            fua
        }
        Action::Zero { mode, fua } => {
            cache.zero(context, range, mode, false).await?;
            fua
        }
        Action::Trim { fua } => {
            cache.trim(context, range).await?;
            fua
        }
        Action::Prefetch => {
            cache.prefetch(context, range).await;
            false
        }
        Action::Status => {
            return status(cache, context, range).await.map(Some);
        }
        Action::Flush => {
            cache.flush(context).await?;
            false
        }
        Action::DropClean => {
            cache.drop_clean().await?;
            false
        }
    };
    if fua {
        cache.persist(context, kept).await?;
    }
    Ok(None)
}

pub(super) async fn read(
    cache: &Arc<PageCache>,
    context: &FaultContext,
    range: Range<u64>,
    direct: bool,
) -> Result<Vec<u8>, Errno> {
    let direct = direct || cache.is_direct(range.end - range.start);
    let mut data = Vec::new();
    let mut at = range.start;
    while at < range.end {
        let length = cache.slice_at(at, range.end - at);
        let mut hit = FrameRefs::new(Arc::clone(cache.pool()));
        let refs = if direct {
            cache.read_direct(context, at, length).await?
        } else if cache.try_read(at, length, &mut hit) {
            hit
        } else {
            cache.read(context, at, length).await?
        };
        let start = data.len();
        data.resize(start + length, 0);
        refs.copy_to(&mut data[start..]);
        at += length as u64;
    }
    Ok(data)
}

async fn status(
    cache: &Arc<PageCache>,
    context: &FaultContext,
    range: Range<u64>,
) -> Result<Vec<u8>, Errno> {
    let extents = cache
        .allocation(context, range.clone(), EXTENTS_MAX)
        .await?;
    let mut known = Vec::new();
    for extent in extents {
        assert_eq!(extent.range.start, range.start + known.len() as u64);
        let data = u8::from(extent.kind == ExtentKind::Data);
        let end = usize::try_from(extent.range.end - range.start).unwrap();
        assert!(known.len() < end && extent.range.end <= range.end);
        known.resize(end, data);
    }
    Ok(known)
}

async fn write(
    cache: &Arc<PageCache>,
    context: &FaultContext,
    range: Range<u64>,
    tag: u8,
    direct: bool,
) -> Result<(), Errno> {
    let direct = direct || cache.is_direct(range.end - range.start);
    let mut at = range.start;
    while at < range.end {
        let length = cache.slice_at(at, range.end - at);
        let data = vec![tag; length];
        if direct || length as u64 >= PAGE_BYTES || !cache.try_write(context, at, &data) {
            let mut payload = cache.payload(at, length).await;
            assert_eq!(payload.copy_from(&data), length);
            if direct {
                cache.write_direct(context, payload).await?;
            } else if let Err(payload) = cache.try_install(context, payload) {
                cache.write(context, payload).await?;
            }
        }
        at += length as u64;
    }
    Ok(())
}
