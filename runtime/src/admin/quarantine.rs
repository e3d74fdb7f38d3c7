//! Quarantine over HTTP: listing, showing, removing, replaying.

use std::fmt;
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Router, middleware};
use serde_json::Value;

use crate::admin::context::{AdminContext, View};
use crate::admin::respond::{error, json_answer};

/// The quarantine store as the admin side reaches it. All but `replay` may block the thread.
pub trait Desk: Send + Sync + fmt::Debug + 'static {
    /// The latest entries that match, newest last, secrets masked.
    fn entries(&self, query: &QuarantineQuery, payloads: bool) -> Result<Value, ApiError>;
    /// One entry, secrets masked.
    fn entry(&self, id: &str, payloads: bool) -> Result<Value, ApiError>;
    /// Removes what matches.
    fn remove(&self, query: &QuarantineQuery) -> Result<Value, ApiError>;
    /// Takes up again what matches, and waits until all of it is settled.
    fn replay(&self, query: &QuarantineQuery) -> impl Future<Output = Result<Value, ApiError>> + Send;
    /// Bytes of a request's body at most.
    fn body_bytes_max(&self) -> usize;
}

/// Which entries a request is about.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct QuarantineQuery {
    /// Filters by name; what they mean is the desk's to say.
    pub filters: Vec<(String, String)>,
    /// Every entry is meant, where no filter is given.
    pub all: bool,
    pub limit: Option<usize>,
}

/// Why a request was not done.
#[derive(Debug)]
pub struct ApiError {
    pub status: StatusCode,
    pub code: &'static str,
    pub message: String,
}

impl ApiError {
    pub fn bad_filter(message: String) -> Self {
        Self { status: StatusCode::BAD_REQUEST, code: "BAD_FILTER", message }
    }
}

impl QuarantineQuery {
    fn set(&mut self, key: &str, value: &str) -> Result<(), ApiError> {
        match (key, value) {
            ("all", "true") => self.all = true,
            ("all", "false") => self.all = false,
            ("all", other) => {
                return Err(ApiError::bad_filter(format!("all = {other:?}: expected true or false")));
            }
            ("limit", text) => match text.parse() {
                Ok(limit) if limit > 0 => self.limit = Some(limit),
                _ => return Err(ApiError::bad_filter(format!("limit = {text:?}: expected a number from 1"))),
            },
            _ if self.filters.iter().any(|(known, _)| known == key) => {
                return Err(ApiError::bad_filter(format!("{key} is given twice")));
            }
            _ => self.filters.push((key.to_owned(), value.to_owned())),
        }
        Ok(())
    }

    /// Reads the query of a URL.
    fn of_url(text: &str) -> Result<Self, ApiError> {
        let mut query = Self::default();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            query.set(&decode(key)?, &decode(value)?)?;
        }
        Ok(query)
    }

    /// Reads a JSON object of filters.
    fn of_json(body: &[u8]) -> Result<Self, ApiError> {
        let bad = || ApiError::bad_filter("the body is not a JSON object of filters".into());
        let Value::Object(members) = serde_json::from_slice(body).map_err(|_| bad())? else {
            return Err(bad());
        };
        let mut query = Self::default();
        for (key, value) in members {
            match value {
                Value::String(text) => query.set(&key, &text)?,
                Value::Bool(_) | Value::Number(_) => query.set(&key, &value.to_string())?,
                Value::Null => {}
                Value::Array(_) | Value::Object(_) => {
                    return Err(ApiError::bad_filter(format!("{key} is not a text")));
                }
            }
        }
        Ok(query)
    }

    /// Nobody changes everything by forgetting to say what.
    fn chosen(self) -> Result<Self, ApiError> {
        if self.filters.is_empty() && !self.all {
            let message = "no filter: name what is meant by id, tenant, device, type, reason, guest, since or until; \
                 or all = true";
            return Err(ApiError {
                status: StatusCode::BAD_REQUEST,
                code: "FILTER_NEEDED",
                message: message.into(),
            });
        }
        Ok(self)
    }
}

fn decode(text: &str) -> Result<String, ApiError> {
    let plain = text.replace('+', " ");
    let decoded = percent_encoding::percent_decode_str(&plain).decode_utf8();
    decoded.map(Into::into).map_err(|_| ApiError::bad_filter(format!("{text:?} is not UTF-8")))
}

/// The routes; the operator's token is asked for by the router that they are merged into.
pub(super) fn routes<V: View>(shared: &Arc<AdminContext<V>>) -> Router<Arc<AdminContext<V>>> {
    let changes = Router::new()
        .route("/api/v1/quarantine/replay", post(replay::<V>))
        .route("/api/v1/quarantine/entries", axum::routing::delete(remove::<V>))
        .route_layer(middleware::from_fn_with_state(shared.clone(), needs_token::<V>));
    Router::new()
        .route("/api/v1/quarantine/entries", get(entries::<V>))
        .route("/api/v1/quarantine/entries/{id}", get(entry::<V>))
        .merge(changes)
}

/// What changes something needs a token to be set; that it was shown is checked before.
async fn needs_token<V: View>(
    State(shared): State<Arc<AdminContext<V>>>,
    request: Request,
    next: Next,
) -> Response {
    if shared.token.is_empty() {
        let message = "this changes something, so it needs the operator's token: write one into a file, name it in \
                       admin.token_file, start the gateway again, and send it as Authorization: Bearer …";
        return error(StatusCode::FORBIDDEN, "TOKEN_NEEDED", message.into());
    }
    next.run(request).await
}

async fn entries<V: View>(State(shared): State<Arc<AdminContext<V>>>, request: Request) -> Response {
    let query = QuarantineQuery::of_url(request.uri().query().unwrap_or_default());
    blocking(shared, move |shared| shared.view.entries(&query?, !shared.token.is_empty())).await
}

async fn entry<V: View>(State(shared): State<Arc<AdminContext<V>>>, Path(id): Path<String>) -> Response {
    blocking(shared, move |shared| shared.view.entry(&id, !shared.token.is_empty())).await
}

async fn remove<V: View>(State(shared): State<Arc<AdminContext<V>>>, request: Request) -> Response {
    let query =
        QuarantineQuery::of_url(request.uri().query().unwrap_or_default()).and_then(QuarantineQuery::chosen);
    blocking(shared, move |shared| shared.view.remove(&query?)).await
}

async fn replay<V: View>(State(shared): State<Arc<AdminContext<V>>>, body: Body) -> Response {
    let most = shared.view.body_bytes_max();
    let Ok(body) = to_bytes(body, most).await else {
        let message = format!("the body is longer than {most} bytes, or incomplete");
        return error(StatusCode::PAYLOAD_TOO_LARGE, "BODY_TOO_LARGE", message);
    };
    match QuarantineQuery::of_json(&body).and_then(QuarantineQuery::chosen) {
        Ok(query) => answer(shared.view.replay(&query).await),
        Err(fault) => answer(Err(fault)),
    }
}

async fn blocking<V: View>(
    shared: Arc<AdminContext<V>>,
    work: impl FnOnce(&AdminContext<V>) -> Result<Value, ApiError> + Send + 'static,
) -> Response {
    let done = tokio::task::spawn_blocking(move || work(&shared)).await;
    answer(done.unwrap_or_else(|ended| {
        let message = format!("the request ended by a fault of the gateway: {ended}");
        Err(ApiError { status: StatusCode::INTERNAL_SERVER_ERROR, code: "OUR_FAULT", message })
    }))
}

fn answer(result: Result<Value, ApiError>) -> Response {
    match result {
        Ok(value) => json_answer(value),
        Err(fault) => error(fault.status, fault.code, fault.message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_come_by_url_or_by_json() {
        let named = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let query = QuarantineQuery::of_url("tenant=a%20b+c&reason=NO_GUEST&limit=7&all=true").unwrap();
        assert_eq!(query.filters, [named("tenant", "a b c"), named("reason", "NO_GUEST")]);
        assert_eq!((query.limit, query.all), (Some(7), true));
        assert_eq!(
            QuarantineQuery::of_json(
                br#"{"tenant":"a b c","reason":"NO_GUEST","limit":7,"all":true,"guest":null}"#
            )
            .unwrap(),
            query
        );
        assert_eq!(QuarantineQuery::of_url("").unwrap(), QuarantineQuery::default());
    }

    #[test]
    fn what_is_not_meant_is_not_guessed() {
        for url in ["limit=0", "limit=x", "all=yes", "tenant=a&tenant=b", "tenant=%ff"] {
            assert_eq!(QuarantineQuery::of_url(url).unwrap_err().code, "BAD_FILTER", "{url}");
        }
        for body in ["", "[]", "7", r#"{"tenant":["a"]}"#, r#"{"all":1}"#] {
            assert_eq!(QuarantineQuery::of_json(body.as_bytes()).unwrap_err().code, "BAD_FILTER", "{body}");
        }
        assert_eq!(QuarantineQuery::of_json(b"{}").unwrap().chosen().unwrap_err().code, "FILTER_NEEDED");
        assert!(QuarantineQuery::of_json(br#"{"all":true}"#).unwrap().chosen().is_ok());
    }
}
