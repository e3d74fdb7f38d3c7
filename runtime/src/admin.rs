//! The HTTP side for operators: health, metrics, books, guests, quarantine. It has a thread of its own.

pub mod access;
pub mod server;
pub mod context;
pub(crate) mod respond;
pub(crate) mod status;
pub(crate) mod tenants;
pub mod quarantine;
pub(crate) mod spool;
pub mod uploads;
pub mod guests;
pub(crate) mod decoder_state;
pub mod tokens;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router, middleware};
use tokio::net::TcpListener;

use crate::admin::access::{Access, Peer, Visitor, bearer, names_this_machine, network};
use crate::admin::context::AdminContext;
use crate::admin::guests::GuestRoutes;
use crate::admin::respond::{answer_blocking, blocking, error, json_answer};
use crate::telemetry::metrics;

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
        .route("/api/v1/guests", get(guests_list))
        .route("/api/v1/spool", get(spool))
        .merge(tenants::routes())
        .merge(quarantine::routes(&context))
        .merge(spool::routes(&context))
        .route_layer(middleware::from_fn_with_state(context.clone(), authorise));
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_text))
        .merge(api)
        .merge(guests.router())
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
    let readiness = status::readiness(&context.handles);
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

async fn books(State(context): Context) -> Response {
    answer_blocking(move || Ok(status::books(&context.handles))).await
}

async fn guests_list(State(context): Context) -> Response {
    answer_blocking(move || Ok(status::guests(&context.handles))).await
}

async fn spool(State(context): Context) -> Response {
    answer_blocking(move || Ok(status::spool(&context.handles))).await
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
    let access = context.tokens.access(bearer(request.headers()));
    let is_near = address.is_some_and(|address| address.is_loopback());
    let visitor = Visitor { access, is_local: is_near && names_this_machine(request.headers()) };
    // Without an operator's token, calls of this machine are let in: they must be its own.
    let is_open = context.tokens.operator.is_empty() && request.uri().path().starts_with("/api/");
    let response = if is_open && !visitor.sees_names() && bearer(request.headers()).is_none() {
        let message = "without a token, call this machine by its address or as localhost".to_owned();
        error(StatusCode::MISDIRECTED_REQUEST, "HOST_NOT_ALLOWED", message)
    } else {
        request.extensions_mut().insert(visitor);
        next.run(request).await
    };
    if let Some(address) = stranger.filter(|_| response.status() != StatusCode::UNAUTHORIZED) {
        context.failures.succeeded(address);
    }
    response
}

/// Lets in who brought a token, or anybody of this machine where there is none.
async fn authorise(
    State(context): Context,
    Extension(visitor): Extension<Visitor>,
    request: Request,
    next: Next,
) -> Response {
    let is_open = context.tokens.operator.is_empty() && visitor.is_local;
    if visitor.access == Access::Nobody && !is_open {
        let message = "this needs the operator's token: Authorization: Bearer …".to_owned();
        return error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", message);
    }
    next.run(request).await
}
