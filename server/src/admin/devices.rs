//! `/v1/device`: an export as a device that can fail.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use weir_faults::{Device, DeviceFiring, DeviceListing, PowerCutOptions, words};

use super::exports::find;
use super::extract::{Body, NameQuery, Words};
use super::wire::{Count, DeviceAction, PowerCutReport};
use super::{AdminState, ApiError};
use crate::backend::power_cut::PowerCutBackend;
use crate::export::Export;
use crate::size::Size;

/// How often requests that wait for an injected fault are released during a power cut: some only begin to wait
/// meanwhile.
const LET_GO_INTERVAL: Duration = Duration::from_millis(5);

/// How long the answer to a power cut may take. The cut itself continues beyond that time.
const POWER_CUT_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) async fn show(
    State(state): State<Arc<AdminState>>,
    Words(query): Words<NameQuery>,
) -> Result<Json<DeviceListing>, ApiError> {
    let export = find(&state, &query.needed()?)?;
    Ok(Json(state.faults.add_device(&export.name).listing()))
}

pub(super) async fn act(
    State(state): State<Arc<AdminState>>,
    Words(query): Words<NameQuery>,
    Body(action): Body<DeviceAction>,
) -> Result<Response, ApiError> {
    let export = find(&state, &query.needed()?)?;
    let device = state.faults.add_device(&export.name);
    let done = match action {
        DeviceAction::PowerCut { options } => {
            let options = PowerCutOptions::parse(&options)?;
            let report = cut_power(state, export, device, options).await?;
            return Ok(Json(report).into_response());
        }
        DeviceAction::Offline => {
            device.set_offline(true);
            "offline".to_owned()
        }
        DeviceAction::Online => {
            device.set_offline(false);
            "online".to_owned()
        }
        DeviceAction::Freeze => {
            device.freeze();
            "frozen, and its clients wait; `weir device thaw` ends that".to_owned()
        }
        DeviceAction::Thaw => {
            device.thaw();
            "thawed".to_owned()
        }
        DeviceAction::BadAdd { range } => {
            let bad = inside(&export, &range)?;
            device
                .add_bad(bad)
                .map_err(|error| ApiError::conflict(error.to_string()))?;
            format!("bad sectors {range}")
        }
        DeviceAction::BadRm { range } => {
            device.remove_bad(words::range(&range)?);
            format!("good sectors {range}")
        }
        DeviceAction::ReadOnly { on } => {
            device.set_read_only(on);
            format!("read-only {}", if on { "on" } else { "off" })
        }
    };
    tracing::info!("export {:?}: {done}", export.name);
    Ok(Json(Count { count: 1 }).into_response())
}

/// The range of those words. A range that begins beyond the end is a figure with a wrong unit: no request would meet
/// it.
fn inside(export: &Export, text: &str) -> Result<Range<u64>, ApiError> {
    let range = words::range(text)?;
    let size = export.cache.size();
    if range.start < size {
        return Ok(range);
    }
    Err(ApiError::bad_request(format!(
        "`{text}`: lies beyond the end of export {:?}, which has {size} bytes ({}); give a range inside it",
        export.name,
        Size(size)
    )))
}

/// Cuts the power, in a task: the power must come back even if the client that asked has gone.
async fn cut_power(
    state: Arc<AdminState>,
    export: Arc<Export>,
    device: Device,
    options: PowerCutOptions,
) -> Result<PowerCutReport, ApiError> {
    let Some(power) = export.power_cut.clone() else {
        return Err(ApiError::conflict(format!(
            "export {:?} is served without power-cut; start it with --power-cut, or the key power-cut of --export",
            export.name
        )));
    };
    if !power.switch_off() {
        return Err(ApiError::conflict(format!(
            "the power of export {:?} is being cut already",
            export.name
        )));
    }
    tracing::info!("export {:?}: power cut, {options}", export.name);
    state.faults.record_device(DeviceFiring {
        export: export.name.clone(),
        action: format!("power-cut {options}"),
    });
    let work = tokio::spawn(async move {
        let cut = lose(&state, &export, power, options);
        tokio::select! {
            report = cut => report,
            never = let_go(&device) => match never {},
        }
    });
    match tokio::time::timeout(POWER_CUT_TIMEOUT, work).await {
        Ok(report) => Ok(report.expect("a panic aborts the process")),
        Err(_) => Err(ApiError::new(
            StatusCode::GATEWAY_TIMEOUT,
            "the power is off, but something holds the cache's own I/O up: `weir point list`, `weir point release`",
        )),
    }
}

/// The steps of [`crate::backend::power_cut`], with the power off already.
///
/// No client may be there before and after the loss. One that came while the connections were being closed may have
/// been told of writes that are lost. So it has to leave while the device is still off, before anything can succeed
/// again.
async fn lose(
    state: &AdminState,
    export: &Export,
    power: Arc<PowerCutBackend>,
    options: PowerCutOptions,
) -> PowerCutReport {
    let closed = state.connections.close_export(&export.name).await;
    let (connections, name) = (Arc::clone(&state.connections), export.name.clone());
    let closed_late = export
        .cache
        .lose_power(async move |newest| {
            power.cut(options, newest).await;
            let closed = connections.close_export(&name).await;
            power.switch_on();
            closed
        })
        .await;
    PowerCutReport {
        options: options.to_string(),
        closed: closed + closed_late,
    }
}

/// Ends injected hangs, delays and pauses, again and again.
async fn let_go(device: &Device) -> std::convert::Infallible {
    loop {
        device.interrupt();
        tokio::time::sleep(LET_GO_INTERVAL).await;
    }
}
