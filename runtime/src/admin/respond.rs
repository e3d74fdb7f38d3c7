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

/// Why a call did nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    pub status: u16,
    pub code: &'static str,
    pub message: String,
}

/// What a call gives.
pub type ApiResult = Result<Value, ApiError>;

/// Names of a folder and a file, as the guests folder has them.
///
/// # Errors
/// They are none.
pub fn place(tenant: &str, message_type: &str) -> Result<RouteKey, ApiError> {
    let place = (tenant.to_owned(), message_type.to_owned());
    if folder::is_place(&place) {
        return Ok(place);
    }
    let message = format!(
        "{tenant:?}/{message_type:?} is no place in the guests folder: names are percent-encoded outside \
         [A-Za-z0-9-_.], a leading _ or . too; beside them there are _default/ and _any"
    );
    Err(ApiError { status: 400, code: "BAD_NAME", message })
}
