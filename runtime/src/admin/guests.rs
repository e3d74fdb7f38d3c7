//! Guests over HTTP: put, roll back, take out, history, log. The operator's token is for all of
//! them, a tenant's own for its folder.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::Response;
use axum::routing::{get, post, put};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::admin::decoder_state;
use crate::admin::respond::{ApiError, ApiResult, error, json_answer, place};
use crate::admin::tokens::{Caller, TenantTokens};
use crate::core::route_key::RouteKey;
use crate::core::token_bucket::TokenBucket;
use crate::limits::GUEST_CHANGES_RATE;
use crate::rollout::{GuestStore, RolloutError};
use crate::spool::Spool;

/// What may be done with guests, by the names of their folder and file; answered by the pipeline.
pub trait GuestControl: Send + Sync + fmt::Debug + 'static {
    fn list(&self, tenant: &str) -> ApiResult;
    fn history(&self, tenant: &str, message_type: &str) -> ApiResult;
    fn log(&self, tenant: &str, message_type: &str) -> ApiResult;
    /// The largest component that may be put there.
    fn component_bytes_max(&self, tenant: &str, message_type: &str) -> u64;
    /// What is kept for a tenant's message type, of all its partitions or of one.
    fn state(&self, tenant: &str, message_type: &str, partition: Option<&str>) -> ApiResult;
    fn put(
        &self,
        tenant: &str,
        message_type: &str,
        component: Vec<u8>,
        who: &str,
    ) -> impl Future<Output = ApiResult> + Send;
    fn roll_back(
        &self,
        tenant: &str,
        message_type: &str,
        who: &str,
    ) -> impl Future<Output = ApiResult> + Send;
    fn remove(&self, tenant: &str, message_type: &str, who: &str) -> impl Future<Output = ApiResult> + Send;
}

/// What the calls need.
#[derive(Debug)]
pub struct GuestRoutes<C> {
    control: C,
    tokens: TenantTokens,
    /// Components that are being received: each may be as large as a component.
    receiving: Semaphore,
}

/// Components received at once.
const RECEIVING_MAX: usize = 4;

/// How long a component may take to come in.
const RECEIVE_TIMEOUT: Duration = Duration::from_secs(60);

impl<C: GuestControl> GuestRoutes<C> {
    /// `operator` is the operator's token; empty: nothing may be changed but with a tenant's.
    pub fn new(control: C, operator: String, tenants: Option<PathBuf>) -> Arc<Self> {
        Arc::new(Self {
            control,
            tokens: TenantTokens::new(operator, tenants),
            receiving: Semaphore::new(RECEIVING_MAX),
        })
    }

    /// The calls, to stand beside others.
    pub fn router<S: Clone + Send + Sync + 'static>(self: Arc<Self>) -> Router<S> {
        Router::new()
            .route("/api/v1/guests/{tenant}", get(list::<C>))
            .route("/api/v1/guests/{tenant}/{type}", put(put_guest::<C>).delete(remove::<C>))
            .route("/api/v1/guests/{tenant}/{type}/history", get(history::<C>))
            .route("/api/v1/guests/{tenant}/{type}/log", get(log::<C>))
            .route("/api/v1/guests/{tenant}/{type}/state", get(state::<C>))
            .route("/api/v1/guests/{tenant}/{type}/rollback", post(roll_back::<C>))
            .with_state(self)
    }

    /// Who calls, if it may do this in a tenant's folder.
    fn caller(&self, headers: &HeaderMap, tenant: &str, needs_token: bool) -> Result<Caller, ApiError> {
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let given = given.and_then(|value| value.strip_prefix("Bearer "));
        self.tokens.caller(given, tenant, needs_token)
    }
}

type GuestPath = Path<(String, String)>;

type Shared<C> = State<Arc<GuestRoutes<C>>>;

fn answer(answer: ApiResult) -> Response {
    match answer {
        Ok(value) => json_answer(value),
        Err(refusal) => {
            let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            error(status, refusal.code, refusal.message)
        }
    }
}

async fn list<C: GuestControl>(
    State(guests): Shared<C>,
    Path(tenant): Path<String>,
    headers: HeaderMap,
) -> Response {
    answer(guests.caller(&headers, &tenant, false).and_then(|_| guests.control.list(&tenant)))
}

async fn history<C: GuestControl>(
    State(guests): Shared<C>,
    Path((tenant, message_type)): GuestPath,
    headers: HeaderMap,
) -> Response {
    let caller = guests.caller(&headers, &tenant, false);
    answer(caller.and_then(|_| guests.control.history(&tenant, &message_type)))
}

/// A guest may log what it was given: like a payload, that is for those with a token.
async fn log<C: GuestControl>(
    State(guests): Shared<C>,
    Path((tenant, message_type)): GuestPath,
    headers: HeaderMap,
) -> Response {
    let caller = guests.caller(&headers, &tenant, true);
    answer(caller.and_then(|_| guests.control.log(&tenant, &message_type)))
}

/// What devices sent, in other words: for those with a token.
async fn state<C: GuestControl>(
    State(guests): Shared<C>,
    Path((tenant, message_type)): GuestPath,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let caller = guests.caller(&headers, &tenant, true);
    answer(caller.and_then(|_| {
        let partition = partition(uri.query().unwrap_or_default())?;
        guests.control.state(&tenant, &message_type, partition.as_deref())
    }))
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

async fn put_guest<C: GuestControl>(
    State(guests): Shared<C>,
    Path((tenant, message_type)): GuestPath,
    headers: HeaderMap,
    body: Body,
) -> Response {
    // Who it is comes first: nothing of a stranger's is read.
    let caller = match guests.caller(&headers, &tenant, true) {
        Ok(caller) => caller,
        Err(refusal) => return answer(Err(refusal)),
    };
    let most = guests.control.component_bytes_max(&tenant, &message_type);
    let component = match guests.receive(body, most as usize).await {
        Ok(component) => component,
        Err(refusal) => return answer(Err(refusal)),
    };
    answer(guests.control.put(&tenant, &message_type, component.into(), &caller.to_string()).await)
}

impl<C> GuestRoutes<C> {
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

async fn roll_back<C: GuestControl>(
    State(guests): Shared<C>,
    Path((tenant, message_type)): GuestPath,
    headers: HeaderMap,
) -> Response {
    match guests.caller(&headers, &tenant, true) {
        Ok(caller) => answer(guests.control.roll_back(&tenant, &message_type, &caller.to_string()).await),
        Err(refusal) => answer(Err(refusal)),
    }
}

async fn remove<C: GuestControl>(
    State(guests): Shared<C>,
    Path((tenant, message_type)): GuestPath,
    headers: HeaderMap,
) -> Response {
    match guests.caller(&headers, &tenant, true) {
        Ok(caller) => answer(guests.control.remove(&tenant, &message_type, &caller.to_string()).await),
        Err(refusal) => answer(Err(refusal)),
    }
}

/// What the admin side may do with guests.
pub struct GuestApi {
    guests: Arc<GuestStore>,
    spool: Spool,
    began: Instant,
    /// Changes, by the tenant's folder; only of those who brought a token.
    buckets: Mutex<HashMap<String, TokenBucket>>,
}

impl std::fmt::Debug for GuestApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").finish_non_exhaustive()
    }
}

impl GuestApi {
    pub fn new(guests: Arc<GuestStore>, spool: Spool) -> Self {
        Self { guests, spool, began: Instant::now(), buckets: Mutex::default() }
    }

    /// The place of a change, if its tenant has not made too many.
    fn place_to_change(&self, tenant: &str, message_type: &str) -> Result<RouteKey, ApiError> {
        let place = place(tenant, message_type)?;
        let now_s = self.began.elapsed().as_secs_f64();
        let mut buckets = self.buckets.lock();
        let bucket =
            buckets.entry(tenant.to_owned()).or_insert_with(|| TokenBucket::full(GUEST_CHANGES_RATE, now_s));
        if bucket.take(GUEST_CHANGES_RATE, now_s) {
            return Ok(place);
        }
        let message = format!("at most {} changes a second", GUEST_CHANGES_RATE.per_s);
        Err(ApiError { status: 429, code: "RATE_LIMITED", message })
    }
}

/// What a fault means to the caller.
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

pub(crate) fn value(of: &impl serde::Serialize) -> Value {
    serde_json::to_value(of).expect("it is JSON")
}

impl GuestControl for GuestApi {
    fn list(&self, tenant: &str) -> ApiResult {
        let guests = self.guests.list().into_iter().filter(|guest| guest.tenant == tenant);
        Ok(json!({"guests": guests.map(|guest| value(&guest)).collect::<Vec<_>>()}))
    }

    fn history(&self, tenant: &str, message_type: &str) -> ApiResult {
        let versions = self.guests.history(&place(tenant, message_type)?);
        let versions = versions.ok_or_else(|| refusal(&RolloutError::NotThere))?;
        Ok(json!({"tenant": tenant, "type": message_type, "versions": versions}))
    }

    fn log(&self, tenant: &str, message_type: &str) -> ApiResult {
        let log = self.guests.log(&place(tenant, message_type)?);
        let (lines, dropped) = log.ok_or_else(|| refusal(&RolloutError::NotThere))?;
        Ok(json!({"tenant": tenant, "type": message_type, "lines": lines, "dropped": dropped}))
    }

    fn component_bytes_max(&self, tenant: &str, message_type: &str) -> u64 {
        self.guests.component_bytes_max(&(tenant.to_owned(), message_type.to_owned()))
    }

    fn state(&self, tenant: &str, message_type: &str, partition: Option<&str>) -> ApiResult {
        decoder_state::show(&self.spool.state(), tenant, message_type, partition)
    }

    async fn put(&self, tenant: &str, message_type: &str, component: Vec<u8>, who: &str) -> ApiResult {
        let place = self.place_to_change(tenant, message_type)?;
        let (answer, judged) = tokio::sync::oneshot::channel();
        let answer = Box::new(move |judged| {
            let _ = answer.send(judged);
        });
        if !self.guests.put(place, component, who.to_owned(), answer) {
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
        let place = self.place_to_change(tenant, message_type)?;
        let (guests, who) = (self.guests.clone(), who.to_owned());
        let back = off_the_task(move || guests.roll_back(&place, &who)).await?;
        Ok(
            json!({"tenant": tenant, "type": message_type, "guest": back.guest, "digest": back.digest, "from": back.from}),
        )
    }

    async fn remove(&self, tenant: &str, message_type: &str, _who: &str) -> ApiResult {
        let place = self.place_to_change(tenant, message_type)?;
        let guests = self.guests.clone();
        off_the_task(move || guests.remove(&place)).await?;
        Ok(json!({"tenant": tenant, "type": message_type, "state": "gone"}))
    }
}

/// Runs what waits for a disk where no task waits behind it.
pub(crate) async fn off_the_task<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RolloutError> + Send + 'static,
) -> Result<T, ApiError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| refusal(&error)),
        Err(error) => Err(ApiError { status: 500, code: "NOT_DONE", message: error.to_string() }),
    }
}
