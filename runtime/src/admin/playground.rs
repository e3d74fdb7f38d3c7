//! The playground: one payload through the decoder that serves, or through one that is brought along. Nothing is
//! sent, counted or put; state is a copy.

mod target;
mod trial;
mod result;

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::Uri;
use axum::response::Response;
use axum::routing::post;
use axum::{Extension, Router, middleware};
use parking_lot::Mutex;

use crate::admin::access::{Access, Visitor};
use crate::admin::context::AdminContext;
use crate::admin::guests::refusal;
use crate::admin::playground::result::PlaygroundResult;
use crate::admin::playground::target::{PlaygroundTarget, Target};
use crate::admin::playground::trial::TrialMessage;
use crate::admin::put_query::bad_file;
use crate::admin::quarantine::needs_token;
use crate::admin::query::Query;
use crate::admin::respond::{ApiError, ApiResult, answer, answer_blocking, blocking, body_of, typed};
use crate::admin::schemas::ApiErrorBody;
use crate::admin::scope::Scope;
use crate::core::route_key::RouteKey;
use crate::core::tenant::budget_kind::BudgetKind;
use crate::limits::PLAYGROUND_PAYLOAD_BYTES_MAX;
use crate::rollout::{PutAuthor, PutFile, PutRequest, PutResult, RolloutError, Trial};

/// The site of a device that the gateway does not know.
const UNKNOWN_SITE: &str = "playground";

/// The path; tokens are asked for by the router that it is merged into.
pub(super) fn routes(context: &Arc<AdminContext>) -> Router<Arc<AdminContext>> {
    Router::new()
        .route("/api/v1/playground", post(playground).get(leads_to))
        .route_layer(middleware::from_fn_with_state(context.clone(), needs_token))
}

/// The decoder that a topic leads to, and the places at which one may be put for it.
#[utoipa::path(get, path = "/api/v1/playground", tag = "decoders",
    params(("topic" = String, Query, description = "The topic of the message")),
    responses((status = 200, description = "The place whose decoder serves the topic", body = PlaygroundTarget),
        (status = 400, description = "A topic of no form that is received", body = ApiErrorBody)))]
pub(crate) async fn leads_to(
    State(context): State<Arc<AdminContext>>,
    Extension(visitor): Extension<Visitor>,
    uri: Uri,
) -> Response {
    answer_blocking(move || {
        let query = Query::of(&uri, &["topic"])?;
        let (config, scope) = (context.config.current(), Scope::of(&visitor));
        let target = Target::of(&context, &config, &scope, query.text("topic").unwrap_or_default())?;
        typed(&target.shown(&context, &scope))
    })
    .await
}

/// A payload through a decoder. The body is the payload; behind its first `payload_bytes` the file of a decoder may follow.
#[utoipa::path(post, path = "/api/v1/playground", tag = "decoders",
    params(("topic" = String, Query, description = "The topic of the message"),
        ("site" = Option<String>, Query, description = "The site of the device, if the gateway knows none"),
        ("payload_bytes" = Option<usize>, Query, description = "Bytes of the body that are the payload; all without it"),
        ("place" = Option<String>, Query, description = "The place that the decoder is for, as TENANT/TYPE: the topic's own without it"),
        ("file" = Option<String>, Query, description = "The extension of the decoder's file behind the payload: wasm without it")),
    request_body(content = String, content_type = "application/octet-stream"),
    responses((status = 200, description = "The way and the end of the message", body = PlaygroundResult),
        (status = 422, description = "The component may not serve", body = ApiErrorBody)))]
pub(crate) async fn playground(
    State(context): State<Arc<AdminContext>>,
    Extension(visitor): Extension<Visitor>,
    uri: Uri,
    body: Body,
) -> Response {
    answer(try_payload(context, visitor, &uri, body).await)
}

async fn try_payload(context: Arc<AdminContext>, visitor: Visitor, uri: &Uri, body: Body) -> ApiResult {
    let query = Query::of(uri, &["topic", "site", "payload_bytes", "place", "file"])?;
    context.rates.take(&visitor)?;
    let topic = query.text("topic").unwrap_or_default().to_owned();
    let extension = query.text("file").unwrap_or("wasm");
    let payload_bytes = query.number("payload_bytes", PLAYGROUND_PAYLOAD_BYTES_MAX)?;
    let config = context.config.current();
    let scope = Scope::of(&visitor);
    let target = Target::of(&context, &config, &scope, &topic)?;
    let place = target.place(&scope, query.text("place"))?;
    let author = match (visitor.access, &visitor.tenant) {
        (Access::Tenant, Some(folder)) => PutAuthor::Tenant(folder.to_string()),
        _ => PutAuthor::Operator,
    };
    let guests = &context.handles.guests;
    let component_max = match payload_bytes {
        None => 0,
        Some(_) => PutFile::bytes_max(extension, guests.component_bytes_max(&place)) as usize,
    };
    guests.check_pause(&author).map_err(|error| refusal(&error))?;
    let bytes_max = (PLAYGROUND_PAYLOAD_BYTES_MAX + component_max) as u64;
    let memory = match scope.tenant() {
        Some(tenant) => context.handles.tenants.budgets_of(tenant).memory,
        None => context.handles.tenants.budgets().gateway().memory.clone(),
    };
    let charge = memory.try_charge(BudgetKind::Uploads, bytes_max);
    let charge = charge.map_err(|over| refusal(&RolloutError::OverBudget(over)))?;
    let mut body = body_of(body, bytes_max as usize).await?;
    let component = match payload_bytes {
        Some(bytes) if bytes > body.len() => {
            let message = format!("payload_bytes = {bytes}: the body has {} bytes", body.len());
            return Err(ApiError { status: 400, code: "BAD_BODY", message });
        }
        Some(bytes) => body.split_off(bytes),
        None => Bytes::new(),
    };
    let site = query.text("site").unwrap_or(UNKNOWN_SITE).to_owned();
    let message = TrialMessage {
        config,
        topic,
        tenant: target.tenant.clone(),
        message_type: target.message_type.clone(),
        payload: body,
        site: target.site.clone().unwrap_or(site),
    };
    let result = match component.is_empty() {
        true => {
            let context = context.clone();
            blocking(move || serving(&context, target, &message)).await??
        }
        false => {
            let file = PutFile::new(extension, component.to_vec()).map_err(bad_file)?;
            brought(&context, &target, place, message, file, author).await?
        }
    };
    drop(charge);
    typed(&result)
}

/// The verdict of the decoder that serves.
fn serving(
    context: &AdminContext,
    target: Target,
    message: &TrialMessage,
) -> Result<PlaygroundResult, ApiError> {
    let host = context.handles.guests.host();
    let route = host.table().route(&target.tenant, &target.message_type);
    let Some(route) = route else {
        let message = format!(
            "no decoder serves {}/{}: put one, or bring a component along",
            target.tenant, target.message_type
        );
        return Err(ApiError { status: 404, code: "NO_GUEST", message });
    };
    let alone = host.single_route(&target.route_key(), route.version.for_trial(), host.state().copy());
    Ok(PlaygroundResult::new(&target, &message.payload, message.judge(Arc::new(alone))))
}

/// The verdict of a component that was brought along: compiled and judged as one that is put, in its turn.
async fn brought(
    context: &AdminContext,
    target: &Target,
    route_key: RouteKey,
    message: TrialMessage,
    file: PutFile,
    author: PutAuthor,
) -> Result<PlaygroundResult, ApiError> {
    let sent = message.payload.clone();
    let verdict = Arc::new(Mutex::new(None));
    let trial = {
        let verdict = verdict.clone();
        Trial(Arc::new(move |host| *verdict.lock() = Some(message.judge(host))))
    };
    let put = PutRequest {
        route_key,
        file,
        cases: None,
        author,
        expect_same: false,
        expect_version: None,
        trial: Some(trial),
    };
    let (reply, judged) = tokio::sync::oneshot::channel::<Result<PutResult, RolloutError>>();
    let is_queued = context.handles.guests.put(
        put,
        Box::new(move |judged| {
            let _ = reply.send(judged);
        }),
    );
    let busy = |message: &str| ApiError { status: 503, code: "BUSY", message: message.to_owned() };
    if !is_queued {
        return Err(busy("too many components wait for their checks; try again"));
    }
    let put = judged.await.map_err(|_| busy("the gateway stops"))?;
    let result = verdict.lock().take().map(|trial| PlaygroundResult::new(target, &sent, trial));
    match (put, result) {
        (Ok(put), Some(result)) => Ok(result.with_put(serde_json::to_value(put).ok())),
        (Err(error), Some(result)) => Ok(result.with_refusal(error.to_string())),
        (Err(error), None) => Err(refusal(&error)),
        (Ok(_), None) => Err(ApiError::our_fault("the trial gave no verdict".to_owned())),
    }
}
