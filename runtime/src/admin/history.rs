//! The last hour over HTTP, in columns for charts.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use serde::Serialize;
use utoipa::ToSchema;

use crate::admin::access::Visitor;
use crate::admin::context::AdminContext;
use crate::admin::query::Query;
use crate::admin::respond::{ApiError, ApiResult, answer, typed};
use crate::admin::scope::Scope;
use crate::limits::{HISTORY_STEP_S, TENANT_HISTORY_STEP_S};
use crate::telemetry::history::History;

/// The path; tokens are asked for by the router that it is merged into.
pub(super) fn routes() -> Router<Arc<AdminContext>> {
    Router::new().route("/api/v1/history", get(history))
}

/// Columns of the last hour, oldest first, all of one length. Columns that a tenant has not are empty.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HistoryColumns {
    /// The tenant that it is about; `null`: the gateway.
    tenant: Option<String>,
    /// Seconds between two samples.
    step_s: u64,
    /// Seconds since 1970.
    at_s: Vec<u64>,
    messages_per_s: Vec<f32>,
    /// Lines made durable.
    lines_per_s: Vec<f32>,
    /// Messages refused into quarantine.
    refused_per_s: Vec<f32>,
    /// Lines that databases accepted.
    written_per_s: Vec<f32>,
    /// Milliseconds from receipt to PUBACK; `null`: there was none.
    ack_p50_ms: Vec<Option<f32>>,
    ack_p99_ms: Vec<Option<f32>>,
    /// Lines that wait for their database, and the age of the oldest in seconds.
    backlog_lines: Vec<u64>,
    backlog_age_s: Vec<u32>,
}

/// The last hour of the gateway, or of a tenant.
#[utoipa::path(get, path = "/api/v1/history", tag = "gateway",
    params(("tenant" = Option<String>, Query, description = "One tenant in place of the gateway")),
    responses((status = 200, description = "Columns of the last hour", body = HistoryColumns)))]
pub(crate) async fn history(
    State(context): State<Arc<AdminContext>>,
    Extension(visitor): Extension<Visitor>,
    request: Request,
) -> Response {
    answer(columns(&context.handles.history, &Scope::of(&visitor), &request))
}

fn columns(history: &History, scope: &Scope, request: &Request) -> ApiResult {
    let query = Query::of(request.uri(), &["tenant"])?;
    let tenant = query.text("tenant");
    let scope = scope.narrowed(tenant).ok_or_else(|| ApiError::not_yours(tenant.unwrap_or_default()))?;
    let columns = match scope.tenant() {
        Some(tenant) => of_tenant(history, tenant),
        None => of_gateway(history),
    };
    typed(&columns)
}

fn of_gateway(history: &History) -> HistoryColumns {
    let samples = history.gateway();
    HistoryColumns {
        tenant: None,
        step_s: HISTORY_STEP_S,
        at_s: samples.iter().map(|sample| sample.at_s).collect(),
        messages_per_s: samples.iter().map(|sample| sample.messages_per_s).collect(),
        lines_per_s: samples.iter().map(|sample| sample.lines_per_s).collect(),
        refused_per_s: samples.iter().map(|sample| sample.refused_per_s).collect(),
        written_per_s: samples.iter().map(|sample| sample.written_per_s).collect(),
        ack_p50_ms: samples.iter().map(|sample| sample.ack_p50_ms).collect(),
        ack_p99_ms: samples.iter().map(|sample| sample.ack_p99_ms).collect(),
        backlog_lines: samples.iter().map(|sample| sample.backlog_lines).collect(),
        backlog_age_s: samples.iter().map(|sample| sample.backlog_age_s).collect(),
    }
}

fn of_tenant(history: &History, tenant: &str) -> HistoryColumns {
    let samples = history.tenant(tenant);
    HistoryColumns {
        tenant: Some(tenant.to_owned()),
        step_s: TENANT_HISTORY_STEP_S,
        at_s: samples.iter().map(|sample| u64::from(sample.at_s)).collect(),
        messages_per_s: samples.iter().map(|sample| sample.messages_per_s).collect(),
        lines_per_s: samples.iter().map(|sample| sample.lines_per_s).collect(),
        refused_per_s: samples.iter().map(|sample| sample.refused_per_s).collect(),
        written_per_s: Vec::new(),
        ack_p50_ms: Vec::new(),
        ack_p99_ms: Vec::new(),
        backlog_lines: Vec::new(),
        backlog_age_s: Vec::new(),
    }
}
