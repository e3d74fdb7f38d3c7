//! Guests over HTTP: put, roll back, take out, history, log. The operator's token is for all of
//! them, a tenant's own for its folder.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::admin::put_query::{PutQuery, bad_file};
use crate::admin::query::decode;
use crate::admin::respond::{ApiError, ApiResult, answer, answer_blocking, blocking, route_key};
use crate::admin::schemas::{ApiErrorBody, GuestSourceBody, GuestsBody};
use crate::admin::tokens::{Caller, TenantTokens};
use crate::admin::uploads::Uploads;
use crate::admin::{decoder_state, uploads};
use crate::audit::{AuditEvent, AuditLog};
use crate::core::detail::truncate;
use crate::core::route_key::{RouteKey, name_of};
use crate::core::tenant::budget::Charge;
use crate::core::tenant::budget_kind::BudgetKind;
use crate::core::tenant::table::Tenants;
use crate::core::token_bucket::TokenBucket;
use crate::limits::GUEST_CHANGES_RATE;
use crate::rollout::digest::digest;
use crate::rollout::{GuestStore, PutAuthor, PutFile, PutRequest, RolloutError, Trial};
use crate::spool::Spool;

/// The calls, with the tokens that they need.
#[derive(Debug)]
pub struct GuestRoutes {
    api: GuestApi,
    tokens: Arc<TenantTokens>,
    uploads: Uploads,
}

impl GuestRoutes {
    /// Without an operator's token nothing may be changed but with a tenant's.
    pub fn new(api: GuestApi, tokens: Arc<TenantTokens>) -> Arc<Self> {
        Arc::new(Self { api, tokens, uploads: Uploads::default() })
    }

    /// The calls, to stand beside others.
    pub fn router<S: Clone + Send + Sync + 'static>(self: Arc<Self>) -> Router<S> {
        Router::new()
            .route("/api/v1/guests/{tenant}", get(list))
            .route("/api/v1/guests/{tenant}/{type}", put(put_guest).delete(remove))
            .route("/api/v1/guests/{tenant}/{type}/history", get(history))
            .route("/api/v1/guests/{tenant}/{type}/log", get(log))
            .route("/api/v1/guests/{tenant}/{type}/source", get(source))
            .route("/api/v1/guests/{tenant}/{type}/state", get(state))
            .route("/api/v1/guests/{tenant}/{type}/rollback", post(roll_back))
            .with_state(self)
    }

    /// The caller, if it may do this in a tenant's folder. Reads the tenants' tokens about once a second.
    fn caller(&self, headers: &HeaderMap, tenant: &str, needs_token: bool) -> Result<Caller, ApiError> {
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let given = given.and_then(|value| value.strip_prefix("Bearer "));
        self.tokens.caller(given, tenant, needs_token)
    }
}

type GuestPath = Path<(String, String)>;

/// The code of a refusal for too many changes.
const OVER_RATE: &str = "RATE_LIMITED";

/// Bytes of the names of a change in the audit log: two names of a topic.
const AUDIT_OBJECT_BYTES_MAX: usize = 512;

type Guests = State<Arc<GuestRoutes>>;

/// The decoders of one folder.
#[utoipa::path(get, path = "/api/v1/guests/{tenant}", tag = "decoders",
    params(("tenant" = String, Path, description = "The folder: a tenant, or _default")),
    responses((status = 200, description = "Its decoders", body = GuestsBody)))]
pub(crate) async fn list(State(guests): Guests, Path(tenant): Path<String>, headers: HeaderMap) -> Response {
    answer_blocking(move || {
        guests.caller(&headers, &tenant, false)?;
        guests.api.list(&tenant)
    })
    .await
}

/// The versions of a decoder, newest first.
#[utoipa::path(get, path = "/api/v1/guests/{tenant}/{type}/history", tag = "decoders",
    params(("tenant" = String, Path, description = "The folder: a tenant, or _default"),
        ("type" = String, Path, description = "A message type, or _any")),
    responses((status = 200, description = "Its versions", body = Object), (status = 404, description = "There is none", body = ApiErrorBody)))]
pub(crate) async fn history(
    State(guests): Guests,
    Path((tenant, message_type)): GuestPath,
    headers: HeaderMap,
) -> Response {
    answer_blocking(move || {
        guests.caller(&headers, &tenant, false)?;
        guests.api.history(&tenant, &message_type)
    })
    .await
}

// A guest may log its payloads: only for those with a token.
/// The last lines of the log of a decoder.
#[utoipa::path(get, path = "/api/v1/guests/{tenant}/{type}/log", tag = "decoders",
    params(("tenant" = String, Path, description = "The folder: a tenant, or _default"),
        ("type" = String, Path, description = "A message type, or _any")),
    responses((status = 200, description = "Lines, oldest first", body = Object), (status = 404, description = "There is none", body = ApiErrorBody)))]
pub(crate) async fn log(
    State(guests): Guests,
    Path((tenant, message_type)): GuestPath,
    headers: HeaderMap,
) -> Response {
    answer_blocking(move || {
        guests.caller(&headers, &tenant, true)?;
        guests.api.log(&tenant, &message_type)
    })
    .await
}

// A route file may hold secrets of its owner: only for those with a token.
/// The texts of a decoder, for somebody who edits them: its route file, and its script.
#[utoipa::path(get, path = "/api/v1/guests/{tenant}/{type}/source", tag = "decoders",
    params(("tenant" = String, Path, description = "The folder: a tenant, or _default"),
        ("type" = String, Path, description = "A message type, or _any")),
    responses((status = 200, description = "Texts by their extensions", body = GuestSourceBody), (status = 404, description = "There is none", body = ApiErrorBody)))]
pub(crate) async fn source(
    State(guests): Guests,
    Path((tenant, message_type)): GuestPath,
    headers: HeaderMap,
) -> Response {
    answer_blocking(move || {
        guests.caller(&headers, &tenant, true)?;
        guests.api.source(&tenant, &message_type)
    })
    .await
}

// State is made of what devices sent: only for those with a token.
/// The state that a decoder keeps.
#[utoipa::path(get, path = "/api/v1/guests/{tenant}/{type}/state", tag = "decoders",
    params(("tenant" = String, Path, description = "The folder: a tenant, or _default"),
        ("type" = String, Path, description = "A message type, or _any")),
    responses((status = 200, description = "Values by partition", body = Object)))]
pub(crate) async fn state(
    State(guests): Guests,
    Path((tenant, message_type)): GuestPath,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    answer_blocking(move || {
        guests.caller(&headers, &tenant, true)?;
        let partition = partition(uri.query().unwrap_or_default())?;
        guests.api.state(&tenant, &message_type, partition.as_deref())
    })
    .await
}

/// The partition that a query names.
fn partition(query: &str) -> Result<Option<String>, ApiError> {
    let refusal = |message: String| ApiError { status: 400, code: "BAD_QUERY", message };
    match query.split_once('=') {
        None if query.is_empty() => Ok(None),
        Some(("partition", name)) if !name.contains('&') => {
            decode(name).map(Some).map_err(|_| refusal(format!("partition = {name:?} is not UTF-8")))
        }
        _ => Err(refusal(format!("invalid query {query:?}: expected partition=NAME, or no query"))),
    }
}

/// Puts a component: it serves if it passes its checks.
#[utoipa::path(put, path = "/api/v1/guests/{tenant}/{type}", tag = "decoders",
    params(("tenant" = String, Path, description = "The folder: a tenant, or _default"),
        ("type" = String, Path, description = "A message type, or _any"),
        ("file" = Option<String>, Query, description = "The extension of the file that the body is: wasm without it"),
        ("cases_bytes" = Option<u64>, Query, description = "Bytes at the beginning of the body that are cases"),
        ("expect_same" = Option<bool>, Query, description = "Refuses it if it decodes a remembered message differently"),
        ("expect_version" = Option<String>, Query, description = "The version that its author began with, or none: refuses to take the place of another"),
        ("dry_run" = Option<bool>, Query, description = "Judges it and puts nothing")),
    request_body(content = String, content_type = "application/octet-stream"),
    responses((status = 200, description = "It serves, or may serve. `comparison` has the remembered messages that it decodes differently than the version that serves", body = Object),
        (status = 409, description = "Another version was put meanwhile", body = ApiErrorBody), (status = 422, description = "It may not serve", body = ApiErrorBody)))]
pub(crate) async fn put_guest(
    State(guests): Guests,
    Path((tenant, message_type)): GuestPath,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response {
    answer(guests.put(tenant, message_type, uri, headers, body).await)
}

/// The name of a put in the audit log.
fn put_action(dry_run: bool) -> &'static str {
    if dry_run { "guest put --dry-run" } else { "guest put" }
}

impl GuestRoutes {
    async fn put(
        self: Arc<Self>,
        tenant: String,
        message_type: String,
        uri: Uri,
        headers: HeaderMap,
        body: Body,
    ) -> ApiResult {
        let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
        let announced: Option<usize> = length.and_then(|length| length.parse().ok());
        // The token, the rate and the place come first: until then no byte of the body is read.
        let author = self.clone().changer(headers, tenant.clone()).await?.author();
        let who = author.to_string();
        let query = PutQuery::parse(uri.query().unwrap_or_default());
        let action = put_action(query.as_ref().is_ok_and(|query| query.dry_run));
        let received = async {
            let route_key = self.api.key_to_change(&author, &tenant, &message_type)?;
            self.api.guests.check_pause(&author).map_err(|error| refusal(&error))?;
            let query = query?;
            let place = self.uploads.take(&author)?;
            let component_bytes_max = self.api.guests.component_bytes_max(&route_key);
            let most = PutFile::bytes_max(&query.file, component_bytes_max) as usize + query.cases_bytes;
            let charge = self.api.charge_upload(&route_key, announced.unwrap_or(most).min(most) as u64)?;
            let body = uploads::receive(body, most).await?;
            drop(place);
            let (cases, file) = query.part_body(body)?;
            let file = PutFile::new(&query.file, file).map_err(bad_file)?;
            let PutQuery { expect_same, expect_version, .. } = query;
            let trial = query.dry_run.then(Trial::for_verdict);
            Ok((PutRequest { route_key, file, cases, author, expect_same, expect_version, trial }, charge))
        };
        match received.await {
            Ok((put, charge)) => self.api.put(put, charge).await,
            Err(refusal) => {
                let object = format!("{tenant}/{message_type}");
                self.api.audited(&who, action, &object, None, Err(refusal))
            }
        }
    }

    /// The caller of a change. Reads tokens on a blocking thread.
    async fn changer(self: Arc<Self>, headers: HeaderMap, tenant: String) -> Result<Caller, ApiError> {
        blocking(move || self.caller(&headers, &tenant, true)).await?
    }
}

/// Has the version before the present one serve again.
#[utoipa::path(post, path = "/api/v1/guests/{tenant}/{type}/rollback", tag = "decoders",
    params(("tenant" = String, Path, description = "The folder: a tenant, or _default"),
        ("type" = String, Path, description = "A message type, or _any")),
    responses((status = 200, description = "The version that serves now", body = Object), (status = 409, description = "There is no version before it", body = ApiErrorBody)))]
pub(crate) async fn roll_back(
    State(guests): Guests,
    Path((tenant, message_type)): GuestPath,
    headers: HeaderMap,
) -> Response {
    match guests.clone().changer(headers, tenant.clone()).await {
        Ok(caller) => answer(guests.api.roll_back(&tenant, &message_type, &caller.author()).await),
        Err(refusal) => refusal.into_response(),
    }
}

/// Takes a decoder out of the folder.
#[utoipa::path(delete, path = "/api/v1/guests/{tenant}/{type}", tag = "decoders",
    params(("tenant" = String, Path, description = "The folder: a tenant, or _default"),
        ("type" = String, Path, description = "A message type, or _any")),
    responses((status = 200, description = "It is gone", body = Object), (status = 404, description = "There is none", body = ApiErrorBody)))]
pub(crate) async fn remove(
    State(guests): Guests,
    Path((tenant, message_type)): GuestPath,
    headers: HeaderMap,
) -> Response {
    match guests.clone().changer(headers, tenant.clone()).await {
        Ok(caller) => answer(guests.api.remove(&tenant, &message_type, &caller.author()).await),
        Err(refusal) => refusal.into_response(),
    }
}

/// Calls on guests by the names of their folder and file.
pub struct GuestApi {
    guests: Arc<GuestStore>,
    spool: Spool,
    tenants: Arc<Tenants>,
    audit: AuditLog,
    began: Instant,
    /// Changes, by who makes them and the tenant's folder; only of those who brought a token.
    buckets: Mutex<HashMap<(PutAuthor, String), TokenBucket>>,
}

impl std::fmt::Debug for GuestApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GuestApi").finish_non_exhaustive()
    }
}

impl GuestApi {
    pub fn new(guests: Arc<GuestStore>, spool: Spool, tenants: Arc<Tenants>, audit: AuditLog) -> Self {
        Self { guests, spool, tenants, audit, began: Instant::now(), buckets: Mutex::default() }
    }

    /// The route of a change, if its tenant has not made too many.
    fn key_to_change(
        &self,
        author: &PutAuthor,
        tenant: &str,
        message_type: &str,
    ) -> Result<RouteKey, ApiError> {
        let now_s = self.began.elapsed().as_secs_f64();
        let mut buckets = self.buckets.lock();
        let bucket = buckets
            .entry((author.clone(), tenant.to_owned()))
            .or_insert_with(|| TokenBucket::full(GUEST_CHANGES_RATE, now_s));
        if bucket.take(GUEST_CHANGES_RATE, now_s) {
            return route_key(tenant, message_type);
        }
        let message = format!("at most {} changes a second", GUEST_CHANGES_RATE.per_s);
        Err(ApiError { status: 429, code: OVER_RATE, message })
    }
}

/// The answer to a fault of a change.
pub fn refusal(error: &RolloutError) -> ApiError {
    let (status, code) = match error {
        RolloutError::NotThere => (404, "NO_SUCH_GUEST"),
        RolloutError::DiskLow(_) => (507, "DISK_LOW"),
        RolloutError::NoPrevious => (409, "NO_PREVIOUS_VERSION"),
        RolloutError::Changed { .. } => (409, "CHANGED_MEANWHILE"),
        RolloutError::TooLarge { .. } | RolloutError::NeedsLarge { .. } => (413, "TOO_LARGE"),
        RolloutError::Quota(_) => (422, "QUOTA"),
        RolloutError::Different(_) => (422, "DIFFERENT"),
        RolloutError::Paused { .. } => (429, "PAUSED"),
        RolloutError::OverBudget(_) => (507, "OVER_BUDGET"),
        error if error.is_ours() => (500, "NOT_DONE"),
        _ => (422, "MAY_NOT_SERVE"),
    };
    ApiError { status, code, message: error.to_string() }
}

fn value(of: &impl serde::Serialize) -> Value {
    serde_json::to_value(of).expect("it is JSON")
}

impl GuestApi {
    fn list(&self, tenant: &str) -> ApiResult {
        let guests = self.guests.list().into_iter().filter(|guest| guest.tenant == tenant);
        Ok(json!({"guests": guests.map(|guest| value(&guest)).collect::<Vec<_>>()}))
    }

    fn history(&self, tenant: &str, message_type: &str) -> ApiResult {
        let versions = self.guests.history(&route_key(tenant, message_type)?);
        let versions = versions.ok_or_else(|| refusal(&RolloutError::NotThere))?;
        Ok(json!({"tenant": tenant, "type": message_type, "versions": versions}))
    }

    fn log(&self, tenant: &str, message_type: &str) -> ApiResult {
        let log = self.guests.log(&route_key(tenant, message_type)?);
        let (lines, dropped) = log.ok_or_else(|| refusal(&RolloutError::NotThere))?;
        Ok(json!({"tenant": tenant, "type": message_type, "lines": lines, "dropped": dropped}))
    }

    fn source(&self, tenant: &str, message_type: &str) -> ApiResult {
        let texts = self.guests.texts(&route_key(tenant, message_type)?).map_err(|error| refusal(&error))?;
        let mut shown = json!({"tenant": tenant, "type": message_type});
        let texts = value(&texts);
        shown.as_object_mut().expect("an object").extend(texts.as_object().expect("an object").clone());
        Ok(shown)
    }

    /// State of a tenant's message type, of all its partitions or of one.
    fn state(&self, tenant: &str, message_type: &str, partition: Option<&str>) -> ApiResult {
        decoder_state::show(tenant, message_type, partition, || {
            let excerpt = |state: &_| decoder_state::excerpt(state, tenant, message_type, partition);
            self.spool.read_durable_state(excerpt)
        })
    }

    /// Charges a component to the memory of its tenant, until it is judged.
    fn charge_upload(&self, (folder, _): &RouteKey, bytes: u64) -> Result<Charge, ApiError> {
        let budgets = match name_of(folder) {
            Some(tenant) => self.tenants.budgets_of(&tenant),
            None => self.tenants.budgets().gateway().clone(),
        };
        let charge = budgets.memory.try_charge(BudgetKind::Uploads, bytes);
        charge.map_err(|over| refusal(&RolloutError::OverBudget(over)))
    }

    /// Notes a change in the audit log, refused ones too. Calls over the rate are not noted: a flood of them
    /// would push the others out of the file.
    fn audited(
        &self,
        who: &str,
        action: &'static str,
        object: &str,
        digest: Option<&str>,
        result: ApiResult,
    ) -> ApiResult {
        let outcome = result.as_ref().map_or_else(|refusal| refusal.code, |_| "done");
        if outcome != OVER_RATE {
            let object = truncate(object, AUDIT_OBJECT_BYTES_MAX);
            self.audit.record(&AuditEvent { who, action, object, digest, outcome });
        }
        result
    }

    async fn put(&self, put: PutRequest, charge: Charge) -> ApiResult {
        let (tenant, message_type) = put.route_key.clone();
        let (who, digest) = (put.author.to_string(), digest(put.file.bytes()));
        let action = put_action(put.trial.is_some());
        let result = self.put_component(put, charge).await;
        self.audited(&who, action, &format!("{tenant}/{message_type}"), Some(&digest), result)
    }

    async fn put_component(&self, put: PutRequest, charge: Charge) -> ApiResult {
        let (tenant, message_type) = put.route_key.clone();
        let (answer, judged) = tokio::sync::oneshot::channel();
        let answer = Box::new(move |judged| {
            drop(charge);
            let _ = answer.send(judged);
        });
        if !self.guests.put(put, answer) {
            let message = "too many components wait for their checks; try again".to_owned();
            return Err(ApiError { status: 503, code: "BUSY", message });
        }
        match judged.await {
            Ok(Ok(put)) => {
                let mut shown = json!({"tenant": tenant, "type": message_type});
                shown.as_object_mut().expect("an object").extend(
                    value(&put).as_object().expect("an object").iter().map(|(k, v)| (k.clone(), v.clone())),
                );
                Ok(shown)
            }
            Ok(Err(error)) => Err(refusal(&error)),
            Err(_) => {
                let message = "the gateway stops".to_owned();
                Err(ApiError { status: 503, code: "BUSY", message })
            }
        }
    }

    async fn roll_back(&self, tenant: &str, message_type: &str, author: &PutAuthor) -> ApiResult {
        let result = self.roll_back_version(tenant, message_type, author).await;
        let digest = result.as_ref().ok().and_then(|back| back["digest"].as_str()).map(str::to_owned);
        let (who, object) = (author.to_string(), format!("{tenant}/{message_type}"));
        self.audited(&who, "guest rollback", &object, digest.as_deref(), result)
    }

    async fn roll_back_version(&self, tenant: &str, message_type: &str, author: &PutAuthor) -> ApiResult {
        let key = self.key_to_change(author, tenant, message_type)?;
        let (guests, who) = (self.guests.clone(), author.to_string());
        let back = off_the_task(move || guests.roll_back(&key, &who)).await?;
        Ok(
            json!({"tenant": tenant, "type": message_type, "guest": back.guest, "digest": back.digest, "from": back.from}),
        )
    }

    async fn remove(&self, tenant: &str, message_type: &str, author: &PutAuthor) -> ApiResult {
        let result = self.remove_file(tenant, message_type, author).await;
        let (who, object) = (author.to_string(), format!("{tenant}/{message_type}"));
        self.audited(&who, "guest rm", &object, None, result)
    }

    async fn remove_file(&self, tenant: &str, message_type: &str, author: &PutAuthor) -> ApiResult {
        let key = self.key_to_change(author, tenant, message_type)?;
        let guests = self.guests.clone();
        off_the_task(move || guests.remove(&key)).await?;
        Ok(json!({"tenant": tenant, "type": message_type, "state": "gone"}))
    }
}

/// Runs a change that waits for a disk on a blocking thread.
async fn off_the_task<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RolloutError> + Send + 'static,
) -> Result<T, ApiError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| refusal(&error)),
        Err(error) => Err(ApiError { status: 500, code: "NOT_DONE", message: error.to_string() }),
    }
}
