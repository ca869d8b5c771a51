//! `/v1/exports`: what is served, and what can be done to it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use weir_cache::PAGE_BYTES;
use weir_faults::{Errno, RequestKind, RequestKinds};

use super::connections::traffic;
use super::extract::{Body, NameQuery, Words};
use super::wire::{Count, ExportAction, ExportReport};
use super::{AdminState, ApiError, aside};
use crate::export::Export;
use crate::limits::DEVICE_BYTES_MAX;
use crate::size::Size;

/// All exports, or the one asked for.
pub(super) async fn show(
    State(state): State<Arc<AdminState>>,
    Words(query): Words<NameQuery>,
) -> Result<Response, ApiError> {
    match query.name {
        None => Ok(aside::json(move || reports(&state)).await),
        Some(name) => {
            let export = find(&state, &name)?;
            Ok(Json(report(&state, &export)).into_response())
        }
    }
}

pub(super) async fn act(
    State(state): State<Arc<AdminState>>,
    Words(query): Words<NameQuery>,
    Body(action): Body<ExportAction>,
) -> Result<Json<Count>, ApiError> {
    let export = find(&state, &query.needed()?)?;
    // In a task: a resize must not stop half-way because the client has gone.
    let work = tokio::spawn(async move { carry_out(&state, &export, action).await });
    work.await.expect("a panic aborts the process")?;
    Ok(Json(Count { count: 1 }))
}

async fn carry_out(
    state: &AdminState,
    export: &Export,
    action: ExportAction,
) -> Result<(), ApiError> {
    let changes = !matches!(action, ExportAction::Flush | ExportAction::DropCache);
    if changes && export.read_only {
        return Err(ApiError::conflict(format!(
            "export {:?} is served read-only; restart without --read-only to change it",
            export.name
        )));
    }
    check_figures(export, &action)?;
    let device = state.faults.add_device(&export.name);
    let kind = if changes {
        RequestKind::Resize
    } else {
        RequestKind::Flush
    };
    device
        .check(kind, 0, 0)
        .map_err(|errno| ApiError::failed("the device as it is set", errno))?;
    let cache = &export.cache;
    let (what, outcome) = match action {
        ExportAction::Flush => {
            let context = state.faults.context(RequestKinds::FLUSH).on(&device);
            ("flush", cache.flush(&context).await)
        }
        ExportAction::DropCache => ("drop-cache", cache.drop_clean().await),
        ExportAction::Resize { size, .. } => ("resize", cache.resize(size).await),
        ExportAction::InsertRange { offset, length } => {
            ("insert-range", cache.insert_range(offset, length).await)
        }
        ExportAction::CollapseRange { offset, length } => {
            ("collapse-range", cache.collapse_range(offset, length).await)
        }
    };
    outcome.map_err(|errno| ApiError::failed(what, errno))
}

/// Refuses impossible figures, and says which are possible. The cache checks again, when the size can no longer change.
fn check_figures(export: &Export, action: &ExportAction) -> Result<(), ApiError> {
    let refuse = |why: String| Err(ApiError::bad_request(why));
    let size = export.cache.size();
    let (what, offset, length) = match *action {
        ExportAction::Flush | ExportAction::DropCache => return Ok(()),
        ExportAction::Resize { size: 0, .. } => {
            return refuse("resize: a device has one byte at least; give a larger SIZE".to_owned());
        }
        ExportAction::Resize { size: to, shrink } if to < size && !shrink => {
            return refuse(format!(
                "resize: export {:?} has {size} bytes ({}), and what lies beyond {to} ({}) would be lost; make its file system \
                 smaller first, or unmount it, and say --shrink (over HTTP \"shrink\": true)",
                export.name,
                Size(size),
                Size(to),
            ));
        }
        ExportAction::Resize { size, .. } if size > DEVICE_BYTES_MAX => {
            return refuse(format!(
                "resize: {size} bytes are more than the {DEVICE_BYTES_MAX} that the system can address"
            ));
        }
        ExportAction::Resize { .. } => return Ok(()),
        ExportAction::InsertRange { offset, length } => ("insert-range", offset, length),
        ExportAction::CollapseRange { offset, length } => ("collapse-range", offset, length),
    };
    let backend = export.cache.backend();
    if !backend.capabilities().shift {
        return Err(ApiError::failed(what, Errno::ENOTSUP));
    }
    let unit = u64::from(backend.geometry().allocation_unit).max(PAGE_BYTES);
    if length == 0 || !offset.is_multiple_of(unit) || !length.is_multiple_of(unit) {
        return refuse(format!(
            "{what}: OFFSET and LENGTH must be multiples of {} ({unit} bytes), the unit of this store, and LENGTH not 0",
            Size(unit)
        ));
    }
    match action {
        ExportAction::InsertRange { .. } if offset >= size => refuse(format!(
            "{what}: {offset} is not inside the device of {size} bytes; resize makes it longer at its end"
        )),
        ExportAction::CollapseRange { .. }
            if offset.checked_add(length).is_none_or(|end| end >= size) =>
        {
            refuse(format!(
                "{what}: the range must end before the device of {size} bytes does; resize cuts off its end"
            ))
        }
        _ => Ok(()),
    }
}

/// The export of that name.
pub(super) fn find(state: &AdminState, name: &str) -> Result<Arc<Export>, ApiError> {
    let found = state.exports.get(name);
    found.ok_or_else(|| ApiError::unknown_export(name))
}

/// All exports, by name.
pub(super) fn reports(state: &AdminState) -> Vec<ExportReport> {
    let exports = state.exports.iter();
    exports.map(|export| report(state, export)).collect()
}

fn report(state: &AdminState, export: &Export) -> ExportReport {
    let connections = state.connections.list();
    let ours = |name: &String| *name == export.name;
    ExportReport {
        name: export.name.clone(),
        description: export.description.clone(),
        source: export.source.clone(),
        size: export.cache.size(),
        read_only: export.read_only,
        power_cut: export.power_cut.is_some(),
        trouble: export.cache.trouble().map(Into::into),
        connections: connections
            .iter()
            .filter(|connection| connection.export.as_ref().is_some_and(ours))
            .count(),
        traffic: traffic(&state.connections.export_counts(&export.name)),
        space: export.cache.quota().map(Into::into),
        cache: export.cache.stats().into(),
        held_bytes: export.held.bytes() as u64,
        device: state.faults.add_device(&export.name).listing(),
    }
}
