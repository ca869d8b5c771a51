//! `/v1/faults`: rules on requests.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use weir_faults::{LanguageError, Rule, RuleListing, Script};

use super::aside::{self, aside};
use super::extract::{Body, Number};
use super::wire::{Count, NewRule, ReplayReport, ReplayScript, RuleAdded};
use super::{AdminState, ApiError};
use crate::export::misdirected;

pub(super) async fn list(State(state): State<Arc<AdminState>>) -> Response {
    aside::json(move || {
        let replaying = state.faults.replaying();
        let all = state.faults.rules().into_iter().chain(replaying);
        all.collect::<Vec<RuleListing>>()
    })
    .await
}

pub(super) async fn add(
    State(state): State<Arc<AdminState>>,
    Body(new): Body<NewRule>,
) -> Result<Json<RuleAdded>, ApiError> {
    let rule = Rule::parse(&new.rule)?;
    let sizes: Vec<_> = state
        .exports
        .iter()
        .map(|export| (export.name.as_str(), Some(export.cache.size())))
        .collect();
    misdirected(&rule, &sizes).map_err(ApiError::bad_request)?;
    let id = state.faults.add_rule(&new.rule)?;
    tracing::info!("fault rule {id}: {}", new.rule);
    Ok(Json(RuleAdded { id }))
}

pub(super) async fn remove(
    State(state): State<Arc<AdminState>>,
    Number(id): Number,
) -> Result<Json<Count>, ApiError> {
    state.faults.remove_rule(id)?;
    tracing::info!("fault rule {id}: removed");
    Ok(Json(Count { count: 1 }))
}

pub(super) async fn clear(State(state): State<Arc<AdminState>>) -> Json<Count> {
    // A replay counts as a rule, as in the list.
    let replays = usize::from(state.faults.replaying().is_some());
    let count = state.faults.clear_rules() + replays;
    tracing::info!("fault rules: all {count} removed");
    Json(Count { count })
}

pub(super) async fn replay(
    State(state): State<Arc<AdminState>>,
    Body(script): Body<ReplayScript>,
) -> Result<Json<ReplayReport>, ApiError> {
    let report = aside(move || {
        let script = Script::parse(&script.script)?;
        Ok::<_, LanguageError>(ReplayReport {
            requests: state.faults.replay(&script),
            skipped: script.skipped(),
        })
    });
    Ok(Json(report.await?))
}
