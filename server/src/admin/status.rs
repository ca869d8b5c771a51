//! `/v1/status`: everything at a glance.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use weir_faults::PointListing;

use super::wire::{FaultSummary, ReplayProgress, StatusReport};
use super::{AdminState, ApiError, aside, connections, exports};
use crate::logging;

/// The state that a listing shows of a point that isn't armed.
const OFF: &str = "off";

pub(super) async fn show(State(state): State<Arc<AdminState>>) -> Result<Response, ApiError> {
    let points = state.faults.points("")?;
    Ok(aside::json(move || report(&state, &points)).await)
}

fn report(state: &AdminState, points: &[PointListing]) -> StatusReport {
    StatusReport {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        uptime_ms: u64::try_from(state.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        exports: exports::reports(state),
        connections: connections::reports(state),
        faults: FaultSummary {
            rules: state.faults.rules().len(),
            replay: state.faults.replaying().map(|replay| ReplayProgress {
                requests: replay.hits,
                left: replay.hits - replay.fires,
            }),
            points_armed: points.iter().filter(|point| point.state != OFF).count(),
            events: state.faults.newest_event(),
        },
        log_lines_dropped: logging::lines_dropped(),
    }
}
