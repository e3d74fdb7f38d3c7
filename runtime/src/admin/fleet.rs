//! All gateways over HTTP, as their database has them. Any gateway answers.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::admin::access::Visitor;
use crate::admin::context::AdminContext;
use crate::admin::drain::operators_only;
use crate::admin::respond::{ApiError, answer, typed};
use crate::admin::schemas::ApiErrorBody;
use crate::config::settings;
use crate::fleet::store::{self, GatewayRow};

/// The paths; tokens are asked for by the router that they are merged into.
pub(super) fn routes() -> Router<Arc<AdminContext>> {
    Router::new().route("/api/v1/fleet", get(gateways)).route("/api/v1/fleet/books", get(books))
}

type Context = State<Arc<AdminContext>>;

/// All gateways.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FleetBody {
    gateways: Vec<GatewayRow>,
}

/// The books of all gateways together.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FleetBooksBody {
    /// Both equations hold for each tenant.
    balanced: bool,
    /// Messages and lines by tenant.
    tenants: Value,
    /// Gateways whose rows cannot be read: they are not in the sum.
    unreadable: Vec<String>,
}

/// All gateways, as they have last reported.
#[utoipa::path(get, path = "/api/v1/fleet", tag = "fleet",
    responses((status = 200, description = "Each gateway's row", body = FleetBody),
        (status = 403, description = "A tenant's token", body = ApiErrorBody),
        (status = 404, description = "This gateway has no fleet.postgres", body = ApiErrorBody),
        (status = 503, description = "The database cannot be asked", body = ApiErrorBody)))]
pub(crate) async fn gateways(State(context): Context, Extension(visitor): Extension<Visitor>) -> Response {
    answer(rows(&context, &visitor).await.and_then(|gateways| typed(&FleetBody { gateways })))
}

/// The books of all gateways, with those that were retired.
#[utoipa::path(get, path = "/api/v1/fleet/books", tag = "fleet",
    responses((status = 200, description = "The sum over all gateways and their starts", body = FleetBooksBody),
        (status = 403, description = "A tenant's token", body = ApiErrorBody),
        (status = 404, description = "This gateway has no fleet.postgres", body = ApiErrorBody),
        (status = 503, description = "The database cannot be asked", body = ApiErrorBody)))]
pub(crate) async fn books(State(context): Context, Extension(visitor): Extension<Visitor>) -> Response {
    answer(rows(&context, &visitor).await.and_then(|gateways| {
        let sum = store::sum(&gateways);
        let unreadable = store::unreadable(&gateways);
        typed(&FleetBooksBody { balanced: sum.balanced(), tenants: typed(&sum)?, unreadable })
    }))
}

async fn rows(context: &AdminContext, visitor: &Visitor) -> Result<Vec<GatewayRow>, ApiError> {
    operators_only(visitor)?;
    let server = settings::fleet(&context.config.current());
    let server = server.map_err(|error| ApiError::our_fault(error.to_string()))?;
    let Some(server) = server else {
        let message = "this gateway has no fleet: fleet.postgres is empty".to_owned();
        return Err(ApiError { status: 404, code: "NO_FLEET", message });
    };
    let rows = store::list(&server).await;
    rows.map_err(|error| ApiError { status: 503, code: "FLEET_UNAVAILABLE", message: error.to_string() })
}
