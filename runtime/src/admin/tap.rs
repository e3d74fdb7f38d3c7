//! The tap over HTTP: messages as they pass, as server-sent events, and the payload of one of them.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures_util::stream;
use serde::Serialize;
use tokio::time::{Instant, sleep_until};
use utoipa::ToSchema;

use crate::admin::access::Visitor;
use crate::admin::context::AdminContext;
use crate::admin::query::Query;
use crate::admin::respond::{ApiError, ApiResult, answer, typed};
use crate::admin::schemas::ApiErrorBody;
use crate::admin::scope::Scope;
use crate::core::redact::redact_payload;
use crate::pipeline::tap::event::TapEvent;
use crate::pipeline::tap::filter::TapFilter;
use crate::pipeline::tap::viewers::TapReader;

/// The interval of the counts, which also show that the connection lives.
const COUNTS_INTERVAL: Duration = Duration::from_secs(2);

/// The paths; tokens are asked for by the router that they are merged into.
pub(super) fn routes() -> Router<Arc<AdminContext>> {
    Router::new().route("/api/v1/tap", get(tap)).route("/api/v1/tap/{id}", get(tapped))
}

/// A message that passed a joint of the pipeline: an event of the name `message`.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TapMessage {
    /// Its number in this run of the gateway, for its payload.
    id: u64,
    /// The time of receipt (RFC 3339, UTC, nanoseconds).
    received_at: String,
    topic: String,
    /// Empty where the topic names none.
    tenant: String,
    device: String,
    #[serde(rename = "type")]
    message_type: String,
    /// `broker`, `listener`, `proven`; `admitted` for a message of quarantine that comes back.
    via: String,
    /// `lines`, `empty`, `quarantined`, or `unsettled`: it waits for the registry, or was given up and comes again.
    outcome: String,
    /// The code of a refusal.
    reason: Option<String>,
    detail: Option<String>,
    /// The decoder, as `name@version#digest`.
    guest: Option<String>,
    database: Option<String>,
    line_count: u64,
    /// The first of its lines; `null` where lines may not be seen.
    lines: Option<Vec<String>>,
    payload_bytes: u64,
}

/// The payload of a message.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TapPayload {
    #[serde(flatten)]
    message: TapMessage,
    /// The payload as text, credentials masked; `null` if it is not text.
    payload: Option<String>,
    /// The payload in base64, if it is not text.
    payload_base64: Option<String>,
    /// True if this is its beginning only.
    truncated: bool,
    /// The site of the device; `null` if the gateway does not have it in its cache.
    site: Option<String>,
}

/// Messages that this viewer did not see: an event of the name `counts`, every other second.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub(crate) struct TapMissed {
    /// Messages beyond the rate of a viewer; its filter may not have taken all of them.
    passed_over: u64,
    /// Messages that were dropped because this viewer read too slowly.
    dropped: u64,
}

impl TapMessage {
    fn of(event: &TapEvent, with_lines: bool) -> Self {
        let text = String::from_utf8_lossy(&event.lines);
        let received = jiff::Timestamp::from_nanosecond(i128::from(event.received_ns));
        Self {
            id: event.id,
            received_at: format!("{:.9}", received.unwrap_or(jiff::Timestamp::UNIX_EPOCH)),
            topic: event.topic.clone(),
            tenant: event.tenant().to_owned(),
            device: event.device().to_owned(),
            message_type: event.message_type().to_owned(),
            via: event.via.to_owned(),
            outcome: event.outcome.name().to_owned(),
            reason: event.reason.map(str::to_owned),
            detail: event.detail.clone(),
            guest: event.guest.clone(),
            database: event.database.clone(),
            line_count: event.line_count,
            lines: with_lines.then(|| text.lines().map(str::to_owned).collect()),
            payload_bytes: event.payload_bytes as u64,
        }
    }
}

/// Messages as they come, as server-sent events: at most 200 a second, of more a sample.
#[utoipa::path(get, path = "/api/v1/tap", tag = "tap",
    params(("tenant" = Option<String>, Query, description = "One tenant's"),
        ("device" = Option<String>, Query, description = "One device's"),
        ("type" = Option<String>, Query, description = "One message type's"),
        ("topic" = Option<String>, Query, description = "An MQTT topic filter"),
        ("outcome" = Option<String>, Query, description = "lines, empty, quarantined or unsettled")),
    responses((status = 200, description = "Events `message` and `counts`", content_type = "text/event-stream", body = String),
        (status = 503, description = "Too many viewers", body = ApiErrorBody)))]
pub(crate) async fn tap(
    State(context): State<Arc<AdminContext>>,
    Extension(visitor): Extension<Visitor>,
    request: Request,
) -> Response {
    let reader = match open(&context, &visitor, &request) {
        Ok(reader) => reader,
        Err(refusal) => return refusal.into_response(),
    };
    let viewer = TapStream {
        reader,
        with_lines: visitor.sees_payloads(),
        // At once: the page knows then that it is connected.
        next_counts: Instant::now(),
        context,
        visitor,
    };
    let events = stream::unfold(viewer, |mut viewer| async move {
        let event = viewer.next().await?;
        Some((Ok::<_, Infallible>(event), viewer))
    });
    Sse::new(events).into_response()
}

/// The payload of a message that a viewer was shown, while it is remembered.
#[utoipa::path(get, path = "/api/v1/tap/{id}", tag = "tap",
    params(("id" = u64, Path, description = "The number of a message")),
    responses((status = 200, description = "The message with its payload", body = TapPayload),
        (status = 403, description = "Payloads may not be seen", body = ApiErrorBody),
        (status = 404, description = "It is not remembered any more", body = ApiErrorBody)))]
pub(crate) async fn tapped(
    State(context): State<Arc<AdminContext>>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<u64>,
) -> Response {
    answer(payload(&context, &visitor, id))
}

fn open(context: &AdminContext, visitor: &Visitor, request: &Request) -> Result<TapReader, ApiError> {
    let query = Query::of(request.uri(), &["tenant", "device", "type", "topic", "outcome"])?;
    let mut filter = TapFilter::default();
    for (name, value) in query.pairs() {
        filter.set(name, value).map_err(|fault| ApiError::bad_filter(fault.to_string()))?;
    }
    let scope = Scope::of(visitor);
    if let Some(own) = scope.tenant() {
        if filter.tenant.as_deref().is_some_and(|named| named != own) {
            return Err(ApiError::not_yours(filter.tenant.as_deref().unwrap_or_default()));
        }
        filter.tenant = Some(own.to_owned());
    }
    let reader = context.handles.tap.open(filter, scope.tenant());
    reader.map_err(|full| ApiError { status: 503, code: "TOO_MANY_VIEWERS", message: full.to_string() })
}

fn payload(context: &AdminContext, visitor: &Visitor, id: u64) -> ApiResult {
    if !visitor.sees_payloads() {
        let message = "payloads need the operator's token, or that of their tenant".to_owned();
        return Err(ApiError { status: 403, code: "FORBIDDEN", message });
    }
    let event = context.handles.tap.event(id).filter(|event| Scope::of(visitor).takes(event.tenant()));
    let Some(event) = event else {
        let message = format!("the message {id} is not remembered any more");
        return Err(ApiError { status: 404, code: "NOT_REMEMBERED", message });
    };
    let text = std::str::from_utf8(&event.payload).ok();
    let (admission, tenant, device) = (&context.handles.admission, event.tenant(), event.device());
    let known = admission.cache().peek(admission.device_key(tenant, device), tenant, device);
    typed(&TapPayload {
        message: TapMessage::of(&event, true),
        payload: text.map(|text| redact_payload(text).into_owned()),
        payload_base64: text.is_none().then(|| BASE64.encode(&event.payload)),
        truncated: event.payload.len() < event.payload_bytes,
        site: known.map(|known| known.site.clone()),
    })
}

fn event(name: &str, of: &impl Serialize) -> Option<Event> {
    Some(Event::default().event(name).data(serde_json::to_string(of).ok()?))
}

/// The stream of one viewer.
struct TapStream {
    reader: TapReader,
    with_lines: bool,
    next_counts: Instant,
    context: Arc<AdminContext>,
    visitor: Visitor,
}

impl TapStream {
    /// The next event; `None` once the caller's token is not valid any more.
    async fn next(&mut self) -> Option<Event> {
        tokio::select! {
            biased;
            () = sleep_until(self.next_counts) => {
                if !self.context.still_holds(&self.visitor).await {
                    return None;
                }
                self.next_counts = Instant::now() + COUNTS_INTERVAL;
                let counts = self.reader.counts();
                let missed = TapMissed { passed_over: counts.passed_over, dropped: counts.dropped };
                event("counts", &missed)
            }
            tapped = self.reader.next() => {
                let tapped = tapped?;
                event("message", &TapMessage::of(&tapped, self.with_lines))
            }
        }
    }
}
