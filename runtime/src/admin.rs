//! The HTTP side for operators: health, metrics, books. Reads only what the pipeline shows it.

pub mod guests;
pub mod tokens;
pub mod quarantine;
pub(crate) mod status;
pub(crate) mod context;
pub(crate) mod respond;
pub(crate) mod decoder_state;

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
use crate::admin::guests::{GuestControl, GuestRoutes};
use crate::admin::respond::{error, json_answer};
use crate::telemetry::metrics;

pub use crate::admin::context::View;

/// Serves until the future that `stopped` gives is done.
///
/// # Errors
/// The address cannot be listened on.
pub async fn serve<V: View, C: GuestControl>(
    listener: TcpListener,
    view: V,
    guests: Arc<GuestRoutes<C>>,
    token: String,
    stopped: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    axum::serve(listener, router(view, guests, token)).with_graceful_shutdown(stopped).await
}

/// Binds the admin address.
///
/// # Errors
/// The address is taken or not ours.
pub async fn bind(address: &str) -> std::io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

fn router<V: View, C: GuestControl>(view: V, guests: Arc<GuestRoutes<C>>, token: String) -> Router {
    let shared = Arc::new(AdminContext { view, token });
    let api = Router::new()
        .route(
            "/api/v1/books",
            get(|State(s): State<Arc<AdminContext<V>>>| async move { json_answer(s.view.books()) }),
        )
        .route(
            "/api/v1/guests",
            get(|State(s): State<Arc<AdminContext<V>>>| async move { json_answer(s.view.guests()) }),
        )
        .route(
            "/api/v1/spool",
            get(|State(s): State<Arc<AdminContext<V>>>| async move { json_answer(s.view.spool()) }),
        )
        .route(
            "/api/v1/quarantine",
            get(|State(s): State<Arc<AdminContext<V>>>| async move {
                // With a token set, whoever is here has shown it.
                json_answer(s.view.quarantine(!s.token.is_empty()))
            }),
        )
        .merge(quarantine::routes(&shared))
        .route_layer(middleware::from_fn_with_state(shared.clone(), authorise::<V>));
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz::<V>))
        .route("/metrics", get(metrics_text::<V>))
        .merge(api)
        .merge(guests.router())
        .fallback(|request: Request| async move {
            error(StatusCode::NOT_FOUND, "NOT_FOUND", format!("no such path: {}", request.uri().path()))
        })
        .method_not_allowed_fallback(|request: Request| async move {
            let message = format!("{} does not allow {}", request.uri().path(), request.method());
            error(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", message)
        })
        .with_state(shared)
}

async fn readyz<V: View>(State(shared): State<Arc<AdminContext<V>>>) -> Response {
    let readiness = shared.view.readiness();
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, json_answer(serde_json::to_value(&readiness).expect("readiness is JSON"))).into_response()
}

async fn metrics_text<V: View>(State(shared): State<Arc<AdminContext<V>>>) -> Response {
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], shared.view.metrics()).into_response()
}

async fn authorise<V: View>(
    State(shared): State<Arc<AdminContext<V>>>,
    headers: HeaderMap,
    request: Request,
    next: Next,
) -> Response {
    if !shared.token.is_empty() {
        let given = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "));
        let good = given.is_some_and(|given| bool::from(given.as_bytes().ct_eq(shared.token.as_bytes())));
        if !good {
            let message = "this needs the operator's token: Authorization: Bearer …".to_owned();
            return error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", message);
        }
    }
    next.run(request).await
}
