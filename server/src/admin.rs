//! The admin port: HTTP and JSON, for scripts, Prometheus and the `weir` program itself. It listens on a Unix socket of
//! its owner's ([`place`]) unless told otherwise.
//!
//! | path | |
//! | --- | --- |
//! | `GET /v1/status` | everything at a glance: [`wire::StatusReport`] |
//! | `GET /v1/exports`, `GET /v1/exports?name=N` | [`wire::ExportReport`]s, or one |
//! | `POST /v1/exports?name=N` | an [`wire::ExportAction`]: flush, drop-cache, resize, insert-range, collapse-range |
//! | `GET /v1/connections`, `GET`, `DELETE /v1/connections/ID` | [`wire::ConnectionReport`]s; DELETE closes one |
//! | `GET`, `POST`, `DELETE /v1/faults`, `DELETE /v1/faults/ID` | rules; POST adds `{"rule": "..."}` |
//! | `POST /v1/faults/replay` | events fed back: `{"script": "..."}` |
//! | `GET /v1/points?query=WORDS&paused=N` | points; with `paused` it waits until so many are paused there |
//! | `POST /v1/points` | a [`wire::PointAction`]: set, release, reset |
//! | `GET /v1/events?since=N&follow=false` | events as lines of JSON, those kept and then new ones, until the client closes |
//! | `GET`, `POST /v1/device?name=N` | the export as a device; POST takes a [`wire::DeviceAction`] |
//! | `GET /metrics` | Prometheus' text format |
//!
//! Names are percent-encoded; the default export's name is empty. Errors are `{"error": "..."}` with a status code.
//!
//! Loopback is not trusted: every user of the machine reaches it, and so do web pages. See the guard. GET changes
//! nothing, and POST and DELETE may; the guard relies on that. Nothing here is on the path of an NBD request. What
//! takes long is computed [aside] from the threads that serve these.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::DefaultBodyLimit;
use axum::routing::{delete, get, post};
use axum::{Router, middleware};
use weir_faults::Faults;

use crate::connection::ConnectionTable;
use crate::export::ExportTable;
use crate::server::Server;

mod aside;
mod connections;
mod devices;
mod error;
mod events;
mod exports;
mod extract;
mod faults;
mod guard;
mod listen;
mod metrics;
pub(crate) mod place;
mod points;
pub(crate) mod slots;
mod status;
pub mod token;
pub mod wire;

use self::error::ApiError;
use self::guard::Guard;
pub use self::listen::{AdminError, AdminListener};

/// The longest body: a script of all events that a server keeps, several times over.
const BODY_BYTES_MAX: usize = 16 << 20;

/// What the handlers work on.
#[derive(Debug)]
struct AdminState {
    exports: Arc<ExportTable>,
    faults: Faults,
    connections: Arc<ConnectionTable>,
    started: Instant,
}

impl AdminState {
    fn new(server: &Server) -> Self {
        Self {
            exports: Arc::clone(&server.exports),
            faults: server.faults.clone(),
            connections: Arc::clone(&server.connections),
            started: Instant::now(),
        }
    }
}

/// All of it, behind the guard.
fn router(state: Arc<AdminState>, guard: Guard) -> Router {
    Router::new()
        .route("/v1/status", get(status::show))
        .route("/v1/exports", get(exports::show).post(exports::act))
        .route("/v1/connections", get(connections::list))
        .route(
            "/v1/connections/{id}",
            get(connections::show).delete(connections::kill),
        )
        .route(
            "/v1/faults",
            get(faults::list).post(faults::add).delete(faults::clear),
        )
        .route("/v1/faults/{id}", delete(faults::remove))
        .route("/v1/faults/replay", post(faults::replay))
        .route("/v1/points", get(points::list).post(points::act))
        .route("/v1/events", get(events::stream))
        .route("/v1/device", get(devices::show).post(devices::act))
        .route("/metrics", get(metrics::scrape))
        .fallback(|| async { ApiError::not_found("there is nothing at that path; see /v1/status") })
        .method_not_allowed_fallback(|| async { ApiError::method_not_allowed() })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn(slots::admit))
        .layer(middleware::from_fn(listen::bound_body))
        .layer(middleware::from_fn_with_state(
            Arc::new(guard),
            guard::check,
        ))
        .with_state(state)
}

#[cfg(test)]
mod tests;
