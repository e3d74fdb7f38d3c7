//! Spool over HTTP: another try, now.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::post;
use axum::{Router, middleware};
use serde_json::json;

use crate::admin::context::AdminContext;
use crate::admin::quarantine::{decode, needs_token};
use crate::admin::respond::{answer, error};

/// The route; the operator's token is asked for by the router that it is merged into.
pub(super) fn routes(context: &Arc<AdminContext>) -> Router<Arc<AdminContext>> {
    Router::new()
        .route("/api/v1/spool/retry", post(retry))
        .route_layer(middleware::from_fn_with_state(context.clone(), needs_token))
}

/// Tries the database of the query's `database`, or all, without waiting for the next try.
async fn retry(State(context): State<Arc<AdminContext>>, request: Request) -> Response {
    let query = request.uri().query().unwrap_or_default();
    let mut database = None;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("database", name)) => match decode(name) {
                Ok(name) => database = Some(name),
                Err(fault) => return answer(Err(fault)),
            },
            _ => {
                let message = format!("invalid value for `query`: {pair:?} (expected database=NAME)");
                return error(StatusCode::BAD_REQUEST, "BAD_QUERY", message);
            }
        }
    }
    match (context.handles.writer.retry(database.as_deref()), database) {
        (0, Some(database)) => {
            let message = format!("no lines were ever written or wait for the database {database:?}");
            error(StatusCode::NOT_FOUND, "UNKNOWN_DATABASE", message)
        }
        (databases, _) => answer(Ok(json!({"databases": databases}))),
    }
}
