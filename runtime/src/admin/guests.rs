//! Guests over HTTP: put, roll back, take out, history, log. The operator's token is for all of
//! them, a tenant's own for its folder.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::admin::access::AdminTokens;
use crate::admin::decoder_state;
use crate::admin::respond::{ApiError, ApiResult, answer, answer_blocking, blocking, route_key};
use crate::admin::tokens::{Caller, TenantTokens};
use crate::core::route_key::RouteKey;
use crate::core::token_bucket::TokenBucket;
use crate::limits::GUEST_CHANGES_RATE;
use crate::rollout::{GuestStore, RolloutError};
use crate::spool::Spool;

/// The calls, with the tokens that they need.
#[derive(Debug)]
pub struct GuestRoutes {
    api: GuestApi,
    tokens: TenantTokens,
    /// Components that are being received: each may be as large as a component.
    receiving: Semaphore,
}

/// Components received at once.
const RECEIVING_MAX: usize = 4;

/// Longest time in which a component must arrive.
const RECEIVE_TIMEOUT: Duration = Duration::from_secs(60);

impl GuestRoutes {
    /// Without an operator's token nothing may be changed but with a tenant's.
    pub fn new(api: GuestApi, admin: AdminTokens, tenants: Option<PathBuf>) -> Arc<Self> {
        Arc::new(Self {
            api,
            tokens: TenantTokens::new(admin, tenants),
            receiving: Semaphore::new(RECEIVING_MAX),
        })
    }

    /// The calls, to stand beside others.
    pub fn router<S: Clone + Send + Sync + 'static>(self: Arc<Self>) -> Router<S> {
        Router::new()
            .route("/api/v1/guests/{tenant}", get(list))
            .route("/api/v1/guests/{tenant}/{type}", put(put_guest).delete(remove))
            .route("/api/v1/guests/{tenant}/{type}/history", get(history))
            .route("/api/v1/guests/{tenant}/{type}/log", get(log))
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

type Guests = State<Arc<GuestRoutes>>;

async fn list(State(guests): Guests, Path(tenant): Path<String>, headers: HeaderMap) -> Response {
    answer_blocking(move || {
        guests.caller(&headers, &tenant, false)?;
        guests.api.list(&tenant)
    })
    .await
}

async fn history(
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

/// A guest may log its payloads: only for those with a token.
async fn log(State(guests): Guests, Path((tenant, message_type)): GuestPath, headers: HeaderMap) -> Response {
    answer_blocking(move || {
        guests.caller(&headers, &tenant, true)?;
        guests.api.log(&tenant, &message_type)
    })
    .await
}

/// State is made of what devices sent: only for those with a token.
async fn state(
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
            let plain = name.replace('+', " ");
            let decoded = percent_encoding::percent_decode_str(&plain).decode_utf8();
            let decoded = decoded.map_err(|_| refusal(format!("partition = {name:?} is not UTF-8")))?;
            Ok(Some(decoded.into_owned()))
        }
        _ => Err(refusal(format!("invalid query {query:?}: expected partition=NAME, or no query"))),
    }
}

async fn put_guest(
    State(guests): Guests,
    Path((tenant, message_type)): GuestPath,
    headers: HeaderMap,
    body: Body,
) -> Response {
    answer(guests.put(tenant, message_type, headers, body).await)
}

impl GuestRoutes {
    async fn put(
        self: Arc<Self>,
        tenant: String,
        message_type: String,
        headers: HeaderMap,
        body: Body,
    ) -> ApiResult {
        // The token comes first: no byte of a stranger's body is read.
        let caller = self.clone().changer(headers, tenant.clone()).await?;
        let most = self.api.component_bytes_max(&tenant, &message_type);
        let component = self.receive(body, most as usize).await?;
        self.api.put(&tenant, &message_type, component.into(), &caller.to_string()).await
    }

    /// The caller of a change. Reads tokens on a blocking thread.
    async fn changer(self: Arc<Self>, headers: HeaderMap, tenant: String) -> Result<Caller, ApiError> {
        blocking(move || self.caller(&headers, &tenant, true)).await?
    }

    async fn receive(&self, body: Body, most: usize) -> Result<Bytes, ApiError> {
        let Ok(_place) = self.receiving.try_acquire() else {
            let message = format!("{RECEIVING_MAX} uploads run already; try again");
            return Err(ApiError { status: 503, code: "BUSY", message });
        };
        match tokio::time::timeout(RECEIVE_TIMEOUT, to_bytes(body, most)).await {
            Ok(Ok(component)) => Ok(component),
            Ok(Err(_)) => {
                let message = format!(
                    "the upload ended early, or the component has more than {most} bytes (for larger ones the operator sets guests.large)"
                );
                Err(ApiError { status: 413, code: "TOO_LARGE", message })
            }
            Err(_) => {
                let message = format!("the upload took longer than {RECEIVE_TIMEOUT:?}");
                Err(ApiError { status: 408, code: "TOO_SLOW", message })
            }
        }
    }
}

async fn roll_back(
    State(guests): Guests,
    Path((tenant, message_type)): GuestPath,
    headers: HeaderMap,
) -> Response {
    match guests.clone().changer(headers, tenant.clone()).await {
        Ok(caller) => answer(guests.api.roll_back(&tenant, &message_type, &caller.to_string()).await),
        Err(refusal) => refusal.into_response(),
    }
}

async fn remove(
    State(guests): Guests,
    Path((tenant, message_type)): GuestPath,
    headers: HeaderMap,
) -> Response {
    match guests.clone().changer(headers, tenant.clone()).await {
        Ok(_) => answer(guests.api.remove(&tenant, &message_type).await),
        Err(refusal) => refusal.into_response(),
    }
}

/// Calls on guests by the names of their folder and file.
pub struct GuestApi {
    guests: Arc<GuestStore>,
    spool: Spool,
    began: Instant,
    /// Changes, by the tenant's folder; only of those who brought a token.
    buckets: Mutex<HashMap<String, TokenBucket>>,
}

impl std::fmt::Debug for GuestApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GuestApi").finish_non_exhaustive()
    }
}

impl GuestApi {
    pub fn new(guests: Arc<GuestStore>, spool: Spool) -> Self {
        Self { guests, spool, began: Instant::now(), buckets: Mutex::default() }
    }

    /// The route of a change, if its tenant has not made too many.
    fn key_to_change(&self, tenant: &str, message_type: &str) -> Result<RouteKey, ApiError> {
        let key = route_key(tenant, message_type)?;
        let now_s = self.began.elapsed().as_secs_f64();
        let mut buckets = self.buckets.lock();
        let bucket =
            buckets.entry(tenant.to_owned()).or_insert_with(|| TokenBucket::full(GUEST_CHANGES_RATE, now_s));
        if bucket.take(GUEST_CHANGES_RATE, now_s) {
            return Ok(key);
        }
        let message = format!("at most {} changes a second", GUEST_CHANGES_RATE.per_s);
        Err(ApiError { status: 429, code: "RATE_LIMITED", message })
    }
}

/// The answer to a fault of a change.
pub fn refusal(error: &RolloutError) -> ApiError {
    let (status, code) = match error {
        RolloutError::NotThere => (404, "NO_SUCH_GUEST"),
        RolloutError::NoPrevious => (409, "NO_PREVIOUS_VERSION"),
        RolloutError::TooLarge { .. } | RolloutError::NeedsLarge { .. } => (413, "TOO_LARGE"),
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

    /// The largest component that may be put there.
    fn component_bytes_max(&self, tenant: &str, message_type: &str) -> u64 {
        self.guests.component_bytes_max(&(tenant.to_owned(), message_type.to_owned()))
    }

    /// State of a tenant's message type, of all its partitions or of one.
    fn state(&self, tenant: &str, message_type: &str, partition: Option<&str>) -> ApiResult {
        decoder_state::show(&self.spool.state(), tenant, message_type, partition)
    }

    async fn put(&self, tenant: &str, message_type: &str, component: Vec<u8>, who: &str) -> ApiResult {
        let key = self.key_to_change(tenant, message_type)?;
        let (answer, judged) = tokio::sync::oneshot::channel();
        let answer = Box::new(move |judged| {
            let _ = answer.send(judged);
        });
        if !self.guests.put(key, component, who.to_owned(), answer) {
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

    async fn roll_back(&self, tenant: &str, message_type: &str, who: &str) -> ApiResult {
        let key = self.key_to_change(tenant, message_type)?;
        let (guests, who) = (self.guests.clone(), who.to_owned());
        let back = off_the_task(move || guests.roll_back(&key, &who)).await?;
        Ok(
            json!({"tenant": tenant, "type": message_type, "guest": back.guest, "digest": back.digest, "from": back.from}),
        )
    }

    async fn remove(&self, tenant: &str, message_type: &str) -> ApiResult {
        let key = self.key_to_change(tenant, message_type)?;
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
