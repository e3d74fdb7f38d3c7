//! The playground: one payload through the decoder that serves, or through a component that is brought along. Nothing is
//! sent, counted or put; state is a copy.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::Uri;
use axum::response::Response;
use axum::routing::post;
use axum::{Extension, Router, middleware};
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::admin::access::{Access, Visitor};
use crate::admin::context::AdminContext;
use crate::admin::guests::{bad_file, refusal};
use crate::admin::quarantine::needs_token;
use crate::admin::query::Query;
use crate::admin::respond::{ApiError, ApiResult, answer, blocking, body_of, typed};
use crate::admin::schemas::ApiErrorBody;
use crate::admin::scope::Scope;
use crate::config::{Config, settings};
use crate::core::reason::Reason;
use crate::core::receive_clock::wall_ns;
use crate::core::route_key::file_name;
use crate::core::tenant::budget_kind::BudgetKind;
use crate::decode::DecodeHost;
use crate::explain::dry_run::DryRun;
use crate::explain::verdict::{ExplainOutcome, ExplainRequest, ExplainVerdict, RowOverride};
use crate::limits::PLAYGROUND_PAYLOAD_BYTES_MAX;
use crate::rollout::{PutAuthor, PutFile, PutRequest, PutResult, RolloutError, Trial};

/// The site of a device that the gateway does not know.
const UNKNOWN_SITE: &str = "playground";

/// The path; tokens are asked for by the router that it is merged into.
pub(super) fn routes(context: &Arc<AdminContext>) -> Router<Arc<AdminContext>> {
    Router::new()
        .route("/api/v1/playground", post(playground))
        .route_layer(middleware::from_fn_with_state(context.clone(), needs_token))
}

/// One step of a message on its way.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PlaygroundStep {
    /// `topic`, `device`, `decoder`, `decode` or `lines`.
    step: String,
    ok: bool,
    text: String,
}

/// The way and the end that a message would have.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PlaygroundResult {
    steps: Vec<PlaygroundStep>,
    /// `lines`, `empty` or `quarantined`.
    outcome: String,
    reason: Option<String>,
    detail: Option<String>,
    tenant: Option<String>,
    device: Option<String>,
    database: Option<String>,
    /// The decoder, as `name@version#digest`.
    guest: Option<String>,
    lines: Vec<String>,
    /// Values that the decoder left out and reported.
    ignored: Vec<String>,
    /// CPU time of the decoder in microseconds, its start included.
    cpu_us: u64,
    /// The component that was brought along: its digest, and how it decodes the route's last messages beside the
    /// decoder that serves.
    #[schema(value_type = Option<Object>)]
    put: Option<Value>,
}

/// A payload through a decoder. The body is the payload; behind its first `payload_bytes` the file of a decoder may follow.
#[utoipa::path(post, path = "/api/v1/playground", tag = "decoders",
    params(("topic" = String, Query, description = "The topic of the message"),
        ("site" = Option<String>, Query, description = "The site of the device, if the gateway knows none"),
        ("payload_bytes" = Option<usize>, Query, description = "Bytes of the body that are the payload; all without it"),
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
    let query = Query::of(uri, &["topic", "site", "payload_bytes", "file"])?;
    context.rates.take(&visitor)?;
    let topic = query.text("topic").unwrap_or_default().to_owned();
    let extension = query.text("file").unwrap_or("wasm");
    let payload_bytes = query.number("payload_bytes", PLAYGROUND_PAYLOAD_BYTES_MAX)?;
    let config = context.config.current();
    let Some(target) = Target::of(&context, &config, &topic) else {
        let message =
            format!("topic = {topic:?} is of no form that is received: {}", settings::topics(&config));
        return Err(ApiError { status: 400, code: "BAD_TOPIC", message });
    };
    if !Scope::of(&visitor).takes(&target.tenant) {
        return Err(ApiError::not_yours(&target.tenant));
    }
    let author = match (visitor.access, &visitor.tenant) {
        (Access::Tenant, Some(folder)) => PutAuthor::Tenant(folder.to_string()),
        _ => PutAuthor::Operator,
    };
    let guests = &context.handles.guests;
    let component_max = match payload_bytes {
        None => 0,
        Some(_) => PutFile::bytes_max(extension, guests.component_bytes_max(&target.route_key())) as usize,
    };
    guests.check_pause(&author).map_err(|error| refusal(&error))?;
    let bytes_max = (PLAYGROUND_PAYLOAD_BYTES_MAX + component_max) as u64;
    let memory = match Scope::of(&visitor).tenant() {
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
    let message = TrialMessage { config, topic, payload: body, site: target.site.clone().unwrap_or(site) };
    let result = match component.is_empty() {
        true => {
            let context = context.clone();
            blocking(move || serving(&context, target, &message)).await??
        }
        false => {
            let file = PutFile::new(extension, component.to_vec()).map_err(bad_file)?;
            brought(&context, target, message, file, author).await?
        }
    };
    drop(charge);
    typed(&result)
}

/// The place that a topic names.
#[derive(Clone, Debug)]
struct Target {
    tenant: String,
    message_type: String,
    /// The site of the device, if the gateway knows it.
    site: Option<String>,
}

impl Target {
    fn of(context: &AdminContext, config: &Config, topic: &str) -> Option<Self> {
        let fields = settings::topics(config).matches(topic)?;
        let (tenant, device) = (fields.tenant.of(topic), fields.device.of(topic));
        let admission = &context.handles.admission;
        let known = admission.cache().peek(admission.device_key(tenant, device), tenant, device);
        Some(Self {
            tenant: tenant.to_owned(),
            message_type: fields.message_type.of(topic).to_owned(),
            site: known.map(|known| known.site.clone()),
        })
    }

    /// The place of a decoder of its own.
    fn route_key(&self) -> (String, String) {
        (file_name(&self.tenant), file_name(&self.message_type))
    }
}

/// A message to try.
struct TrialMessage {
    config: Arc<Config>,
    topic: String,
    payload: Bytes,
    site: String,
}

impl TrialMessage {
    fn judge(&self, host: Arc<DecodeHost>) -> ExplainVerdict {
        let row = RowOverride {
            tenant_id: None,
            device_id: None,
            site_id: self.site.clone(),
            status: "ACTIVE".to_owned(),
            provision_token_hash: None,
        };
        DryRun::of_host(&self.config, host).judge(ExplainRequest {
            topic: self.topic.clone(),
            payload: self.payload.clone(),
            received_ns: wall_ns(),
            registry_row: Some(Some(row)),
        })
    }
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
    Ok(result(target, message.judge(Arc::new(alone)), None))
}

/// The verdict of a component that was brought along: compiled and judged as one that is put, in its turn.
async fn brought(
    context: &AdminContext,
    target: Target,
    message: TrialMessage,
    file: PutFile,
    author: PutAuthor,
) -> Result<PlaygroundResult, ApiError> {
    let verdict = Arc::new(Mutex::new(None));
    let trial = {
        let verdict = verdict.clone();
        Trial(Arc::new(move |host| *verdict.lock() = Some(message.judge(host))))
    };
    let put = PutRequest {
        route_key: target.route_key(),
        file,
        cases: None,
        author,
        expect_same: false,
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
    let put = judged.await.map_err(|_| busy("the gateway stops"))?.map_err(|error| refusal(&error))?;
    let verdict = verdict.lock().take();
    let verdict = verdict.ok_or_else(|| ApiError::our_fault("the trial gave no verdict".to_owned()))?;
    Ok(result(target, verdict, serde_json::to_value(put).ok()))
}

fn result(target: Target, verdict: ExplainVerdict, put: Option<Value>) -> PlaygroundResult {
    PlaygroundResult {
        steps: steps(&target, &verdict),
        outcome: verdict.outcome.name().to_owned(),
        reason: verdict.reason.map(|reason| reason.code().to_owned()),
        detail: verdict.detail,
        tenant: verdict.tenant,
        device: verdict.device,
        database: verdict.database,
        guest: verdict.guest,
        lines: verdict.lines,
        ignored: verdict.ignored,
        cpu_us: verdict.cpu.as_micros().min(u128::from(u64::MAX)) as u64,
        put,
    }
}

/// The way in steps, up to the one at which it ends.
fn steps(target: &Target, verdict: &ExplainVerdict) -> Vec<PlaygroundStep> {
    let step = |name: &str, ok: bool, text: String| PlaygroundStep { step: name.to_owned(), ok, text };
    let why = || {
        let detail = verdict.detail.clone().unwrap_or_default();
        format!("{}: {detail}", verdict.reason.map_or("refused", Reason::code))
    };
    let mut steps =
        vec![step("topic", true, format!("tenant {}, type {}", target.tenant, target.message_type))];
    if !verdict.admitted {
        steps.push(step("device", false, why()));
        return steps;
    }
    let site = match &target.site {
        Some(site) => {
            format!("the gateway knows it, at the site {site:?}; its credentials are not checked here")
        }
        None => "the gateway has not seen it; it is taken as registered, and its credentials are not checked"
            .into(),
    };
    steps.push(step("device", true, site));
    let Some(guest) = &verdict.guest else {
        steps.push(step("decoder", false, why()));
        return steps;
    };
    steps.push(step("decoder", true, guest.clone()));
    let cpu = format!("{} µs of CPU time, its start included", verdict.cpu.as_micros());
    match verdict.outcome {
        ExplainOutcome::Lines => {
            steps.push(step("decode", true, cpu));
            let database = verdict.database.as_deref().unwrap_or("no database");
            steps.push(step("lines", true, format!("{} lines for {database}", verdict.lines.len())));
        }
        ExplainOutcome::Empty => {
            steps.push(step("decode", true, cpu));
            steps.push(step("lines", true, "none, on purpose".into()));
        }
        ExplainOutcome::Quarantined | ExplainOutcome::Parked => {
            steps.push(step("decode", false, format!("{}; {cpu}", why())));
        }
    }
    steps
}
