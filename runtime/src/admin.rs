//! The HTTP side for operators: health, metrics, books, guests, quarantine. It has a thread of its own.

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
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Router, middleware};
use subtle::ConstantTimeEq;
use tokio::net::TcpListener;

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
        .with_state(context)
}

/// Runs on the admin thread itself, so that no listing delays it.
async fn readyz(State(context): Context) -> Response {
    let readiness = status::readiness(&context.handles);
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, json_answer(serde_json::to_value(&readiness).expect("readiness is JSON"))).into_response()
}

async fn metrics_text(State(context): Context) -> Response {
    match blocking(move || context.metrics.text()).await {
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

async fn authorise(State(context): Context, headers: HeaderMap, request: Request, next: Next) -> Response {
    if !context.token.is_empty() {
        let given = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "));
        let good = given.is_some_and(|given| bool::from(given.as_bytes().ct_eq(context.token.as_bytes())));
        if !good {
            let message = "this needs the operator's token: Authorization: Bearer …".to_owned();
            return error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", message);
        }
    }
    next.run(request).await
}
