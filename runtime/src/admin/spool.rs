//! Spool over HTTP: another try, now.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::post;
use axum::{Extension, Router, middleware};
use serde_json::json;

use crate::admin::access::Visitor;
use crate::admin::context::AdminContext;
use crate::admin::quarantine::needs_token;
use crate::admin::query::Query;
use crate::admin::respond::{ApiError, answer_blocking};
use crate::admin::schemas::{ApiErrorBody, RetryResult};
use crate::admin::scope::Scope;
use crate::admin::status;
use crate::telemetry::handles::Handles;

/// The route; the operator's token is asked for by the router that it is merged into.
pub(super) fn routes(context: &Arc<AdminContext>) -> Router<Arc<AdminContext>> {
    Router::new()
        .route("/api/v1/spool/retry", post(retry))
        .route_layer(middleware::from_fn_with_state(context.clone(), needs_token))
}

/// Tries the database of the query's `database`, or all, without waiting for the next try. A tenant tries its own.
#[utoipa::path(post, path = "/api/v1/spool/retry", tag = "databases",
    params(("database" = Option<String>, Query, description = "One database; all without it")),
    responses((status = 200, description = "Databases that are tried now", body = RetryResult),
        (status = 404, description = "No lines were ever written to it, or wait for it", body = ApiErrorBody)))]
pub(crate) async fn retry(
    State(context): State<Arc<AdminContext>>,
    Extension(visitor): Extension<Visitor>,
    request: Request,
) -> Response {
    answer_blocking(move || {
        let query = Query::of(request.uri(), &["database"])?;
        context.rates.take(&visitor)?;
        let scope = Scope::of(&visitor);
        let database = query.text("database");
        let tried = match scope.tenant() {
            None => context.handles.writer.retry(database),
            Some(_) => retry_own(&context.handles, &scope, database),
        };
        match (tried, database) {
            (0, Some(database)) => {
                let message = format!("no lines were ever written or wait for the database {database:?}");
                Err(ApiError { status: 404, code: "UNKNOWN_DATABASE", message })
            }
            (databases, _) => Ok(json!({"databases": databases})),
        }
    })
    .await
}

/// Tries those of a tenant's databases that are meant.
fn retry_own(handles: &Handles, scope: &Scope, meant: Option<&str>) -> usize {
    let own = status::spool(handles, scope);
    let names = own["databases"].as_array().into_iter().flatten();
    let names = names.filter_map(|database| database["database"].as_str());
    let meant = names.filter(|name| meant.is_none_or(|meant| meant == *name));
    meant.map(|name| handles.writer.retry(Some(name))).sum()
}
