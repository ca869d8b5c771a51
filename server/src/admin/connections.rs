//! `/v1/connections`: the open connections, and how to close one.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use axum::Json;
use axum::extract::State;
use axum::response::Response;

use super::extract::Number;
use super::wire::{CommandTraffic, ConnectionReport, Count, Traffic};
use super::{AdminState, ApiError, aside};
use crate::commands::COMMANDS;
use crate::connection::{ConnectionInfo, Counts};

pub(super) async fn list(State(state): State<Arc<AdminState>>) -> Response {
    aside::json(move || reports(&state)).await
}

pub(super) async fn show(
    State(state): State<Arc<AdminState>>,
    Number(id): Number,
) -> Result<Json<ConnectionReport>, ApiError> {
    let mut reports = reports(&state).into_iter();
    let found = reports.find(|report| report.id == id);
    found.map(Json).ok_or_else(|| unknown(id))
}

pub(super) async fn kill(
    State(state): State<Arc<AdminState>>,
    Number(id): Number,
) -> Result<Json<Count>, ApiError> {
    if state.connections.kill(id) {
        Ok(Json(Count { count: 1 }))
    } else {
        Err(unknown(id))
    }
}

fn unknown(id: u64) -> ApiError {
    ApiError::not_found(format!(
        "there is no connection {id}; `weir connection list` shows them"
    ))
}

/// All open connections, oldest first.
pub(super) fn reports(state: &AdminState) -> Vec<ConnectionReport> {
    state.connections.list().into_iter().map(report).collect()
}

fn report(info: ConnectionInfo) -> ConnectionReport {
    let since = info.since.duration_since(UNIX_EPOCH).unwrap_or_default();
    ConnectionReport {
        id: info.id,
        peer: info.peer,
        export: info.export,
        since_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        traffic: traffic(&info.counts),
    }
}

pub(super) fn traffic(counts: &Counts) -> Traffic {
    let commands = COMMANDS.iter().zip(&counts.commands);
    let asked_for = commands.filter(|(_, command)| command.requests > 0);
    Traffic {
        requests: counts.requests(),
        errors: counts.errors(),
        received: counts.received,
        sent: counts.sent,
        commands: asked_for
            .map(|(row, command)| {
                let traffic = CommandTraffic {
                    requests: command.requests,
                    bytes: command.bytes,
                    errors: command.errors,
                };
                (row.name.to_owned(), traffic)
            })
            .collect(),
    }
}
