//! Work beside the threads that serve clients.
//!
//! A status of a thousand exports, the figures for Prometheus or a script of a hundred thousand lines take tens of
//! milliseconds of plain computing. A session on the same thread would wait for that. Work that grows with what an
//! operator has set up or sent is therefore done on one of the runtime's threads for blocking work.

use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// Does `work` there.
pub(super) async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let work = tokio::task::spawn_blocking(work);
    work.await.expect("a panic aborts the process")
}

/// Makes something there and writes it as JSON.
pub(super) async fn json<T: Serialize>(make: impl FnOnce() -> T + Send + 'static) -> Response {
    let text = aside(move || serde_json::to_vec(&make()).expect("plain data")).await;
    ([(CONTENT_TYPE, "application/json")], text).into_response()
}

#[cfg(test)]
mod tests {
    use std::thread;

    use http_body_util::BodyExt as _;

    use super::json;

    #[tokio::test]
    async fn what_is_shown_is_computed_on_another_thread() {
        let here = thread::current().id();
        let response = json(move || thread::current().id() == here).await;
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(&body[..], b"false");
    }
}
