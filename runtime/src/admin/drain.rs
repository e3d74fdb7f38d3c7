//! The drain of this gateway over HTTP.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Router, middleware};
use serde::Serialize;
use utoipa::ToSchema;

use crate::admin::access::{Access, Visitor};
use crate::admin::context::AdminContext;
use crate::admin::quarantine::needs_token;
use crate::admin::respond::{ApiError, answer_blocking, typed};
use crate::admin::schemas::ApiErrorBody;
use crate::audit::AuditEvent;
use crate::telemetry::handles::Handles;

/// The routes; tokens are asked for by the router that they are merged into.
pub(super) fn routes(context: &Arc<AdminContext>) -> Router<Arc<AdminContext>> {
    let changes = Router::new()
        .route("/api/v1/drain", post(begin).delete(end))
        .route_layer(middleware::from_fn_with_state(context.clone(), needs_token));
    Router::new().route("/api/v1/drain", get(show)).merge(changes)
}

/// The state of a gateway that goes, or does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DrainState {
    Serves,
    Draining,
    /// Nothing is left in it.
    Drained,
}

/// The drain, and what is still in the gateway.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct DrainReport {
    pub state: DrainState,
    /// Devices that are connected.
    pub connections: u64,
    /// Messages without a result.
    pub messages_unsettled: u64,
    /// Messages that wait in the spool until the registry can be asked.
    pub messages_parked: u64,
    /// Lines that wait for their database.
    pub lines_pending: u64,
    /// A drain sends devices away; from a broker the gateway goes on to read.
    pub reads_from_broker: bool,
}

/// The state of the drain, from the parts themselves.
pub(crate) fn report(handles: &Handles) -> DrainReport {
    let connections = handles
        .listener
        .as_ref()
        .map_or(0, |listener| listener.counters.connections.load(Ordering::Relaxed) as u64);
    let parked = handles.spool.status().parked.values().map(|parked| parked.messages).sum();
    let reads_from_broker = handles.sources.iter().any(|source| source.name() == "broker");
    let mut report = DrainReport {
        state: DrainState::Serves,
        connections,
        messages_unsettled: handles.window.messages(),
        messages_parked: parked,
        lines_pending: handles.spool.lines_pending(),
        reads_from_broker,
    };
    if handles.drain.is_on() {
        let left = connections + report.messages_unsettled + parked + report.lines_pending;
        let is_empty = left == 0 && !reads_from_broker;
        report.state = if is_empty { DrainState::Drained } else { DrainState::Draining };
    }
    report
}

type Context = State<Arc<AdminContext>>;

/// The drain, and what is still in the gateway.
#[utoipa::path(get, path = "/api/v1/drain", tag = "gateway",
    responses((status = 200, description = "The state, and what is left", body = DrainReport),
        (status = 403, description = "A tenant's token", body = ApiErrorBody)))]
pub(crate) async fn show(State(context): Context, Extension(visitor): Extension<Visitor>) -> Response {
    answer_blocking(move || {
        operators_only(&visitor)?;
        typed(&report(&context.handles))
    })
    .await
}

/// Begins a drain: no new devices, those that there are are sent away, and lines are written.
#[utoipa::path(post, path = "/api/v1/drain", tag = "gateway",
    responses((status = 200, description = "The state, and what is left", body = DrainReport),
        (status = 403, description = "A token that changes nothing, or a tenant's", body = ApiErrorBody)))]
pub(crate) async fn begin(State(context): Context, Extension(visitor): Extension<Visitor>) -> Response {
    answer_blocking(move || switch(&context.handles, &visitor, true)).await
}

/// Ends the drain: the gateway takes devices again.
#[utoipa::path(delete, path = "/api/v1/drain", tag = "gateway",
    responses((status = 200, description = "The state, and what is left", body = DrainReport),
        (status = 403, description = "A token that changes nothing, or a tenant's", body = ApiErrorBody)))]
pub(crate) async fn end(State(context): Context, Extension(visitor): Extension<Visitor>) -> Response {
    answer_blocking(move || switch(&context.handles, &visitor, false)).await
}

fn switch(handles: &Handles, visitor: &Visitor, on: bool) -> Result<serde_json::Value, ApiError> {
    operators_only(visitor)?;
    let action = if on { "drain" } else { "drain --resume" };
    let has_changed = handles.drain.switch(on);
    let outcome = if has_changed { "done" } else { "nothing to change" };
    let who = visitor.to_string();
    handles.audit.record(&AuditEvent { who: &who, action, object: "gateway", digest: None, outcome });
    typed(&report(handles))
}

/// Refuses what is about the gateway to a tenant.
///
/// # Errors
/// The caller is one.
pub(super) fn operators_only(visitor: &Visitor) -> Result<(), ApiError> {
    if visitor.access != Access::Tenant {
        return Ok(());
    }
    let message = "this is about the gateway: it needs the operator's token, not a tenant's".to_owned();
    Err(ApiError { status: 403, code: "FORBIDDEN", message })
}
