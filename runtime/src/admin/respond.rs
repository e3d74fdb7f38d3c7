//! Answers as JSON, and the errors of the API.

use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};

use crate::core::route_key::RouteKey;
use crate::limits::ADMIN_BODY_TIMEOUT_S;
use crate::rollout::folder;

pub(crate) fn json_answer(value: Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], format!("{value}\n")).into_response()
}

pub(crate) fn error(status: StatusCode, code: &str, message: String) -> Response {
    (status, json_answer(json!({"error": code, "message": message}))).into_response()
}

/// The answer to a call that did nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    pub status: u16,
    pub code: &'static str,
    pub message: String,
}

impl ApiError {
    pub fn bad_filter(message: String) -> Self {
        Self { status: 400, code: "BAD_FILTER", message }
    }

    /// The tenant of a request is not the caller's own.
    pub fn not_yours(tenant: &str) -> Self {
        let message = format!("this token is not valid for the tenant {tenant:?}");
        Self { status: 403, code: "FORBIDDEN", message }
    }

    pub fn our_fault(message: String) -> Self {
        Self { status: 500, code: "OUR_FAULT", message }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        error(status, self.code, self.message)
    }
}

/// The JSON of an answer, or its error.
pub type ApiResult = Result<Value, ApiError>;

pub(crate) fn answer(result: ApiResult) -> Response {
    result.map_or_else(IntoResponse::into_response, json_answer)
}

/// An answer of a type that the OpenAPI document describes.
pub(crate) fn typed_answer(value: &impl Serialize) -> Response {
    answer(typed(value))
}

/// The JSON of a type that the OpenAPI document describes.
///
/// # Errors
/// It has no JSON: a fault of this program.
pub(crate) fn typed(value: &impl Serialize) -> ApiResult {
    serde_json::to_value(value).map_err(|fault| ApiError::our_fault(fault.to_string()))
}

/// The body of a request that is read whole.
///
/// # Errors
/// It is longer than `bytes_max`, incomplete, or slow.
pub(crate) async fn body_of(body: Body, bytes_max: usize) -> Result<Bytes, ApiError> {
    let timeout = Duration::from_secs(ADMIN_BODY_TIMEOUT_S);
    match tokio::time::timeout(timeout, to_bytes(body, bytes_max)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(_)) => {
            let message = format!("the body is longer than {bytes_max} bytes, or incomplete");
            Err(ApiError { status: 413, code: "BODY_TOO_LARGE", message })
        }
        Err(_) => {
            let message = format!("the body took longer than {timeout:?}");
            Err(ApiError { status: 408, code: "TOO_SLOW", message })
        }
    }
}

/// Runs what reads files or waits for locks on the admin side's blocking threads.
///
/// # Errors
/// It has panicked.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|ended| ApiError::our_fault(format!("the request ended by a fault of the gateway: {ended}")))
}

/// The same as `blocking`, with the answer to it.
pub(crate) async fn answer_blocking(work: impl FnOnce() -> ApiResult + Send + 'static) -> Response {
    answer(blocking(work).await.flatten())
}

/// Names of a folder and a file, as the guests folder has them.
///
/// # Errors
/// They are none.
pub fn route_key(tenant: &str, message_type: &str) -> Result<RouteKey, ApiError> {
    let key = (tenant.to_owned(), message_type.to_owned());
    if folder::is_place(&key) {
        return Ok(key);
    }
    let message = format!(
        "{tenant:?}/{message_type:?} is no place in the guests folder: names are percent-encoded outside \
         [A-Za-z0-9-_.], a leading _ or . too; beside them there are _default/ and _any"
    );
    Err(ApiError { status: 400, code: "BAD_NAME", message })
}
