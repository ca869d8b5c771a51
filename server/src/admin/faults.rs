//! `/v1/faults`: rules on requests.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use weir_faults::{RuleListing, Script};

use super::extract::{Body, Number};
use super::wire::{Count, NewRule, ReplayReport, ReplayScript, RuleAdded};
use super::{AdminState, ApiError};

pub(super) async fn list(State(state): State<Arc<AdminState>>) -> Json<Vec<RuleListing>> {
    Json(state.faults.rules())
}

pub(super) async fn add(
    State(state): State<Arc<AdminState>>,
    Body(new): Body<NewRule>,
) -> Result<Json<RuleAdded>, ApiError> {
    let id = state.faults.add_rule(&new.rule)?;
    tracing::info!("fault rule {id}: {}", new.rule);
    Ok(Json(RuleAdded { id }))
}

pub(super) async fn remove(
    State(state): State<Arc<AdminState>>,
    Number(id): Number,
) -> Result<Json<Count>, ApiError> {
    state.faults.remove_rule(id)?;
    Ok(Json(Count { count: 1 }))
}

pub(super) async fn clear(State(state): State<Arc<AdminState>>) -> Json<Count> {
    let count = state.faults.clear_rules();
    Json(Count { count })
}

pub(super) async fn replay(
    State(state): State<Arc<AdminState>>,
    Body(script): Body<ReplayScript>,
) -> Result<Json<ReplayReport>, ApiError> {
    let script = Script::parse(&script.script)?;
    Ok(Json(ReplayReport {
        requests: state.faults.replay(&script),
        skipped: script.skipped(),
    }))
}
