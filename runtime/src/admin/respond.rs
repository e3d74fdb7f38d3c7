//! Answers as JSON, and the errors of the API.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::core::route_key::RouteKey;
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
