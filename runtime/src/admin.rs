//! The HTTP side for operators: health, metrics, books, guests, quarantine. It has a thread of its own.

pub mod access;
pub mod tokens;
pub(crate) mod sessions;
pub(crate) mod scope;
pub(crate) mod tenant_rates;
pub mod server;
pub mod context;
pub(crate) mod query;
pub(crate) mod respond;
pub(crate) mod schemas;
pub(crate) mod session;
pub(crate) mod status;
pub(crate) mod overview;
pub(crate) mod history;
pub(crate) mod tenants;
pub(crate) mod devices;
pub(crate) mod tap;
pub mod quarantine;
pub(crate) mod spool;
pub mod uploads;
pub(crate) mod put_query;
pub mod guests;
pub(crate) mod decoder_state;
pub(crate) mod playground;
pub(crate) mod configuration;
pub(crate) mod drain;
pub(crate) mod fleet;
pub mod openapi;
pub(crate) mod page;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router, middleware};
use tokio::net::TcpListener;

use crate::admin::access::{
    Access, Peer, Proof, Visitor, bearer, comes_from_here, names_this_machine, network,
};
use crate::admin::context::AdminContext;
use crate::admin::guests::GuestRoutes;
use crate::admin::respond::{ApiError, answer_blocking, blocking, error, json_answer};
use crate::admin::schemas::{BooksBody, GuestsBody, SpoolBody};
use crate::admin::scope::Scope;
use crate::telemetry::metrics;
use crate::telemetry::readiness::readiness;

type Context = State<Arc<AdminContext>>;

/// Binds the admin address.
///
/// # Errors
/// The address is taken or not ours.
pub async fn bind(address: &str) -> std::io::Result<(std::net::TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    Ok((listener.into_std()?, address))
}

/// All paths. Handlers that read files or take a lock of the stream's parts run on blocking threads.
pub fn router(context: AdminContext, guests: Arc<GuestRoutes>) -> Router {
    let context = Arc::new(context);
    let api = Router::new()
        .route("/api/v1/books", get(books))
        .route("/api/v1/guests", get(decoders))
        .route("/api/v1/spool", get(spool))
        .merge(overview::routes())
        .merge(history::routes())
        .merge(tenants::routes())
        .merge(devices::routes())
        .merge(tap::routes())
        .merge(quarantine::routes(&context))
        .merge(spool::routes(&context))
        .merge(playground::routes(&context))
        .merge(configuration::routes())
        .merge(drain::routes(&context))
        .merge(fleet::routes())
        .route_layer(middleware::from_fn_with_state(context.clone(), authorise));
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_text))
        .route("/api/v1/openapi.json", get(openapi::document))
        .merge(session::routes())
        .merge(api)
        .merge(guests.router())
        .merge(page::routes())
        .fallback(|request: Request| async move {
            error(StatusCode::NOT_FOUND, "NOT_FOUND", format!("no such path: {}", request.uri().path()))
        })
        .method_not_allowed_fallback(|request: Request| async move {
            let message = format!("{} does not allow {}", request.uri().path(), request.method());
            error(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", message)
        })
        .layer(middleware::from_fn_with_state(context.clone(), admit))
        .with_state(context)
}

/// Runs on the admin thread itself, so that no listing delays it.
async fn readyz(State(context): Context, Extension(visitor): Extension<Visitor>) -> Response {
    let readiness = readiness(&context.handles);
    let readiness = if visitor.sees_names() { readiness } else { readiness.without_words() };
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, json_answer(serde_json::to_value(&readiness).expect("readiness is JSON"))).into_response()
}

async fn metrics_text(State(context): Context, Extension(visitor): Extension<Visitor>) -> Response {
    let text = move || match visitor.sees_names() {
        true => context.metrics.text(),
        false => context.metrics.public_text(),
    };
    match blocking(text).await {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(fault) => fault.into_response(),
    }
}

/// The books of every tenant; a tenant sees its own.
#[utoipa::path(get, path = "/api/v1/books", tag = "tenants",
    responses((status = 200, description = "Every message and every line is somewhere", body = BooksBody)))]
async fn books(State(context): Context, Extension(visitor): Extension<Visitor>) -> Response {
    answer_blocking(move || Ok(status::books(&context.handles, &Scope::of(&visitor)))).await
}

/// All decoders; a tenant sees its own.
#[utoipa::path(get, path = "/api/v1/guests", tag = "decoders",
    responses((status = 200, description = "Files of the guests folder, and the versions that serve", body = GuestsBody)))]
async fn decoders(State(context): Context, Extension(visitor): Extension<Visitor>) -> Response {
    answer_blocking(move || Ok(status::guests(&context.handles, &Scope::of(&visitor)))).await
}

/// The spool and the databases; a tenant sees its own databases.
#[utoipa::path(get, path = "/api/v1/spool", tag = "databases",
    responses((status = 200, description = "Backlogs, and how each database takes its lines", body = SpoolBody)))]
async fn spool(State(context): Context, Extension(visitor): Extension<Visitor>) -> Response {
    answer_blocking(move || Ok(status::spool(&context.handles, &Scope::of(&visitor)))).await
}

/// Sets the caller's rights, for all paths. An address whose requests had no right token too often is
/// refused before its token is looked at.
async fn admit(State(context): Context, mut request: Request, next: Next) -> Response {
    let address = request.extensions().get::<Peer>().map(|peer| network(peer.0.ip()));
    let stranger = address.filter(|address| !address.is_loopback());
    if stranger.is_some_and(|address| !context.failures.begin(address)) {
        let message =
            "too many requests of this address had no right token; try again in a minute".to_owned();
        return error(StatusCode::TOO_MANY_REQUESTS, "TOO_MANY_ATTEMPTS", message);
    }
    let proof = match resolve_session(&context, &mut request) {
        Ok(proof) => proof,
        Err(refusal) => return refusal.into_response(),
    };
    let is_near = address.is_some_and(|address| address.is_loopback());
    let is_local = is_near && names_this_machine(request.headers());
    let visitor = match visitor(&context, proof, is_local, bearer(request.headers())).await {
        Ok(visitor) => visitor,
        Err(fault) => return fault.into_response(),
    };
    let is_api = request.uri().path().starts_with("/api/");
    // Without an operator's token, calls of this machine are let in: they must be its own.
    let is_open = context.tokens.operator.is_empty() && is_api;
    let mut response = if is_open && !is_local && bearer(request.headers()).is_none() {
        let message = "without a token, call this machine by its address or as localhost".to_owned();
        error(StatusCode::MISDIRECTED_REQUEST, "HOST_NOT_ALLOWED", message)
    } else {
        request.extensions_mut().insert(visitor);
        next.run(request).await
    };
    if is_api {
        let no_store = HeaderValue::from_static("no-store");
        response.headers_mut().entry(header::CACHE_CONTROL).or_insert(no_store);
    }
    if let Some(address) = stranger.filter(|_| response.status() != StatusCode::UNAUTHORIZED) {
        context.failures.succeeded(address);
    }
    response
}

/// Lets a request with a session go on as if it had brought the token of it.
///
/// # Errors
/// It is a change that a page of another address makes.
fn resolve_session(context: &AdminContext, request: &mut Request) -> Result<Proof, ApiError> {
    if let Some(token) = bearer(request.headers()) {
        return Ok(Proof::Token(token.into()));
    }
    let Some(name) = context.sessions.named(request.headers()) else { return Ok(Proof::Nothing) };
    let Some(token) = context.sessions.token(name, Instant::now()) else { return Ok(Proof::Nothing) };
    if !request.method().is_safe() && !comes_from_here(request.headers()) {
        let message = "a change with a session must come from a page of this address".to_owned();
        return Err(ApiError { status: 403, code: "CROSS_SITE", message });
    }
    let proof = Proof::Session(name.into());
    // It was looked at when the session was opened.
    if let Ok(mut value) = HeaderValue::from_str(&format!("Bearer {token}")) {
        value.set_sensitive(true);
        request.headers_mut().insert(header::AUTHORIZATION, value);
    }
    Ok(proof)
}

/// The caller. Tokens of tenants lie in files, which are read on a blocking thread.
async fn visitor(
    context: &Arc<AdminContext>,
    proof: Proof,
    is_local: bool,
    token: Option<&str>,
) -> Result<Visitor, ApiError> {
    let (access, tenant) = match token {
        None => (Access::Nobody, None),
        Some(token) => match context.tokens.access(Some(token)) {
            Access::Nobody => {
                let (context, token) = (context.clone(), token.to_owned());
                blocking(move || context.access_of(&token)).await?
            }
            access => (access, None),
        },
    };
    Ok(Visitor { access, is_local, tenant, proof })
}

/// Lets in who brought a token, or anybody of this machine where there is none.
async fn authorise(
    State(context): Context,
    Extension(visitor): Extension<Visitor>,
    request: Request,
    next: Next,
) -> Response {
    if visitor.access == Access::Nobody && !context.is_open_to(&visitor) {
        let message = "this needs the operator's token: Authorization: Bearer …".to_owned();
        return error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", message);
    }
    next.run(request).await
}
