//! The login of a browser: a session made of a token, shown, and ended.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::admin::access::{Access, Peer, Proof, Visitor, comes_from_elsewhere, network};
use crate::admin::context::AdminContext;
use crate::admin::respond::{ApiError, blocking, body_of, error, typed_answer};
use crate::admin::schemas::ApiErrorBody;
use crate::audit::AuditEvent;
use crate::limits::ADMIN_BODY_BYTES_MAX;

type Context = State<Arc<AdminContext>>;

/// The path; everybody may ask who they are.
pub(super) fn routes() -> Router<Arc<AdminContext>> {
    Router::new().route("/api/v1/session", get(show).post(log_in).delete(log_out))
}

/// The caller, as the gateway knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Who {
    Operator,
    /// A token that only reads.
    Reader,
    Tenant,
    Nobody,
}

/// The caller and its rights.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SessionInfo {
    who: Who,
    /// The tenant whose token it is.
    tenant: Option<String>,
    /// True if it may ask about more than its own session.
    may_read: bool,
    /// True if it may see what devices sent: payloads, lines, state.
    sees_payloads: bool,
    /// True if it may change something.
    may_change: bool,
    /// Seconds until the session ends; `null` without a session.
    session_s: Option<u64>,
    /// The version of the gateway.
    version: String,
}

/// The token to log in with.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Login {
    token: String,
}

fn info(context: &AdminContext, visitor: &Visitor, session: Option<&str>) -> SessionInfo {
    let who = match visitor.access {
        Access::Operator => Who::Operator,
        Access::Reader => Who::Reader,
        Access::Tenant => Who::Tenant,
        Access::Nobody => Who::Nobody,
    };
    let left = session.and_then(|name| context.sessions.left(name, Instant::now()));
    SessionInfo {
        who,
        tenant: visitor.tenant_name(),
        may_read: who != Who::Nobody || context.is_open_to(visitor),
        sees_payloads: visitor.sees_payloads(),
        may_change: visitor.sees_payloads(),
        session_s: left.map(|left| left.as_secs()),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// The caller and its rights.
#[utoipa::path(get, path = "/api/v1/session", tag = "session",
    responses((status = 200, description = "The caller, whoever it is", body = SessionInfo)))]
pub(crate) async fn show(
    State(context): Context,
    Extension(visitor): Extension<Visitor>,
    headers: HeaderMap,
) -> Response {
    let session = context.sessions.named(&headers);
    typed_answer(&info(&context, &visitor, session.filter(|_| visitor.access != Access::Nobody)))
}

/// Opens a session, whose name a browser keeps in a cookie.
#[utoipa::path(post, path = "/api/v1/session", tag = "session", request_body = Login,
    responses((status = 200, description = "A session is open", body = SessionInfo),
        (status = 401, description = "Nobody has this token", body = ApiErrorBody),
        (status = 429, description = "Too many logins of this address have failed", body = ApiErrorBody)))]
pub(crate) async fn log_in(
    State(context): Context,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    match start(&context, peer, &headers, body).await {
        Ok(answer) => answer,
        Err(refusal) => refusal.into_response(),
    }
}

async fn start(
    context: &Arc<AdminContext>,
    peer: Peer,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    if comes_from_elsewhere(headers) {
        let message = "a page of another address may not log in here".to_owned();
        return Err(ApiError { status: 403, code: "CROSS_SITE", message });
    }
    let address = network(peer.0.ip());
    if !context.logins.begin(address) {
        let message = "too many logins of this address have failed; try again in a minute".to_owned();
        return Err(ApiError { status: 429, code: "TOO_MANY_ATTEMPTS", message });
    }
    let body = body_of(body, ADMIN_BODY_BYTES_MAX).await?;
    let Login { token } = serde_json::from_slice(&body).map_err(|fault| {
        let message = format!("the body: {fault}; expected {{\"token\": \"…\"}}");
        ApiError { status: 400, code: "BAD_BODY", message }
    })?;
    let (callers, given) = (context.clone(), token.trim().to_owned());
    let (access, tenant) = blocking(move || callers.access_of(&given)).await?;
    let token = token.trim();
    if access == Access::Nobody || HeaderValue::from_str(token).is_err() {
        let message = "nobody has this token".to_owned();
        return Err(ApiError { status: 401, code: "UNAUTHORIZED", message });
    }
    context.logins.succeeded(address);
    let visitor = Visitor { access, is_local: false, tenant, proof: Proof::Nothing };
    let who = visitor.to_string();
    let Some(name) = context.sessions.open(token, &who, Instant::now()) else {
        return Err(ApiError::our_fault("this machine gives no random numbers".into()));
    };
    context.handles.audit.record(&AuditEvent {
        who: &who,
        action: "login",
        object: "console",
        digest: None,
        outcome: "done",
    });
    let mut answer = typed_answer(&info(context, &visitor, Some(&name)));
    let cookie = context.sessions.set_cookie(&name, context.handles.admin_tls.is_some());
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        answer.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    Ok(answer)
}

/// Ends the session of the caller.
#[utoipa::path(delete, path = "/api/v1/session", tag = "session",
    responses((status = 204, description = "There is no session any more")))]
pub(crate) async fn log_out(State(context): Context, headers: HeaderMap) -> Response {
    if comes_from_elsewhere(&headers) {
        let message = "a page of another address may not log out here".to_owned();
        return error(StatusCode::FORBIDDEN, "CROSS_SITE", message);
    }
    if let Some(name) = context.sessions.named(&headers) {
        context.sessions.end(name);
    }
    let mut answer = StatusCode::NO_CONTENT.into_response();
    if let Ok(cookie) = HeaderValue::from_str(&context.sessions.clear_cookie()) {
        answer.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    answer
}
