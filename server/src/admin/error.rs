//! Errors in the form that the admin port gives them: `{"error": "..."}` with a status code.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use weir_faults::{Errno, LanguageError, NoSuchRule};

use super::wire::ErrorReport;

/// Why a request to the admin port fails.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    message: String,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
        }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    pub(super) fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, message)
    }

    pub(super) fn method_not_allowed() -> Self {
        let message = "that path doesn't take this method";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, message)
    }

    /// There is no export of that name.
    pub(super) fn unknown_export(name: &str) -> Self {
        Self::not_found(format!(
            "there is no export {name:?}; `weir export list` shows them"
        ))
    }

    /// `what` was tried and failed.
    pub(super) fn failed(what: &str, errno: Errno) -> Self {
        match errno {
            Errno::ENOTSUP => Self::new(
                StatusCode::NOT_IMPLEMENTED,
                format!("{what}: this export's store can't do that"),
            ),
            Errno::EINVAL => Self::bad_request(format!("{what}: the figures don't fit the export")),
            _ => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("{what} failed: {errno}; the server's log says more"),
            ),
        }
    }
}

impl From<LanguageError> for ApiError {
    fn from(error: LanguageError) -> Self {
        Self::bad_request(error.to_string())
    }
}

impl From<NoSuchRule> for ApiError {
    fn from(error: NoSuchRule) -> Self {
        Self::not_found(error.to_string())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let error = self.message;
        (self.status, Json(ErrorReport { error })).into_response()
    }
}
