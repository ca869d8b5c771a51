//! `/v1/points`: points in the code.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;

use super::extract::{Body, Words};
use super::wire::{Count, PointAction};
use super::{AdminState, ApiError, aside};

/// How long one request waits for another to be paused; a script that wants more time asks again.
const PAUSED_WAIT_MAX: Duration = Duration::from_secs(60);

/// Which points.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PointQuery {
    /// The matches; all points without any.
    #[serde(default)]
    query: String,
    /// Wait until so many are paused there.
    paused: Option<usize>,
}

pub(super) async fn list(
    State(state): State<Arc<AdminState>>,
    Words(PointQuery { query, paused }): Words<PointQuery>,
) -> Result<Response, ApiError> {
    if let Some(count) = paused {
        let paused = state.faults.paused_at_least(&query, count);
        let outcome = tokio::time::timeout(PAUSED_WAIT_MAX, paused).await;
        outcome.map_err(|_| {
            let seconds = PAUSED_WAIT_MAX.as_secs();
            let message = format!("nobody was paused at {query:?} within {seconds} s");
            ApiError::new(StatusCode::GATEWAY_TIMEOUT, message)
        })??;
    }
    let points = state.faults.points(&query)?;
    Ok(aside::json(move || points).await)
}

pub(super) async fn act(
    State(state): State<Arc<AdminState>>,
    Body(action): Body<PointAction>,
) -> Result<Json<Count>, ApiError> {
    let count = match action {
        PointAction::Set { query } => {
            let query = weir_faults::Query::parse(&query)?;
            let count = state.faults.set_query(&query)?;
            tracing::info!("fault points: {query} ({count} concerned)");
            count
        }
        PointAction::Release { query } => state.faults.release(&query)?,
        PointAction::Reset => state.faults.reset_points(),
    };
    Ok(Json(Count { count }))
}
