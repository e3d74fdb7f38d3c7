//! Guests over HTTP: put, roll back, take out, history, log. The operator's token is for all of
//! them, a tenant's own for its folder.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::Response;
use axum::routing::{get, post, put};
use serde_json::Value;
use tokio::sync::Semaphore;

use super::tokens::{Caller, TenantTokens};
use super::{error, json_answer};

/// Why a call did nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    pub code: &'static str,
    pub message: String,
}

/// What a call gives.
pub type Answer = Result<Value, Refusal>;

/// What may be done with guests, by the names of their folder and file; answered by the pipeline.
pub trait GuestControl: Send + Sync + fmt::Debug + 'static {
    fn list(&self, tenant: &str) -> Answer;
    fn history(&self, tenant: &str, message_type: &str) -> Answer;
    fn log(&self, tenant: &str, message_type: &str) -> Answer;
    /// The largest component that may be put there.
    fn component_bytes_max(&self, tenant: &str, message_type: &str) -> u64;
    /// What is kept for a tenant's message type, of all its partitions or of one.
    fn state(&self, tenant: &str, message_type: &str, partition: Option<&str>) -> Answer;
    fn put(
        &self,
        tenant: &str,
        message_type: &str,
        component: Vec<u8>,
        who: &str,
    ) -> impl Future<Output = Answer> + Send;
    fn roll_back(&self, tenant: &str, message_type: &str, who: &str) -> impl Future<Output = Answer> + Send;
    fn remove(&self, tenant: &str, message_type: &str, who: &str) -> impl Future<Output = Answer> + Send;
}

/// What the calls need.
#[derive(Debug)]
pub struct Guests<C> {
    control: C,
    tokens: TenantTokens,
    /// Components that are being received: each may be as large as a component.
    receiving: Semaphore,
}

/// Components received at once.
const RECEIVING_MAX: usize = 4;
/// How long a component may take to come in.
const RECEIVE_TIMEOUT: Duration = Duration::from_secs(60);

impl<C: GuestControl> Guests<C> {
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
    fn caller(&self, headers: &HeaderMap, tenant: &str, needs_token: bool) -> Result<Caller, Refusal> {
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let given = given.and_then(|value| value.strip_prefix("Bearer "));
        self.tokens.caller(given, tenant, needs_token)
    }
}

type Place = Path<(String, String)>;
type Shared<C> = State<Arc<Guests<C>>>;

fn answer(answer: Answer) -> Response {
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
    Path((tenant, message_type)): Place,
    headers: HeaderMap,
) -> Response {
    let caller = guests.caller(&headers, &tenant, false);
    answer(caller.and_then(|_| guests.control.history(&tenant, &message_type)))
}

/// A guest may log what it was given: like a payload, that is for those with a token.
async fn log<C: GuestControl>(
    State(guests): Shared<C>,
    Path((tenant, message_type)): Place,
    headers: HeaderMap,
) -> Response {
    let caller = guests.caller(&headers, &tenant, true);
    answer(caller.and_then(|_| guests.control.log(&tenant, &message_type)))
}

/// What devices sent, in other words: for those with a token.
async fn state<C: GuestControl>(
    State(guests): Shared<C>,
    Path((tenant, message_type)): Place,
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
fn partition(query: &str) -> Result<Option<String>, Refusal> {
    let refusal = |message: String| Refusal { status: 400, code: "BAD_QUERY", message };
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
    Path((tenant, message_type)): Place,
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

impl<C> Guests<C> {
    async fn receive(&self, body: Body, most: usize) -> Result<Bytes, Refusal> {
        let Ok(_place) = self.receiving.try_acquire() else {
            let message = format!("{RECEIVING_MAX} uploads run already; try again");
            return Err(Refusal { status: 503, code: "BUSY", message });
        };
        match tokio::time::timeout(RECEIVE_TIMEOUT, to_bytes(body, most)).await {
            Ok(Ok(component)) => Ok(component),
            Ok(Err(_)) => {
                let message = format!(
                    "the upload ended early, or the component has more than {most} bytes (for larger ones the operator sets guests.large)"
                );
                Err(Refusal { status: 413, code: "TOO_LARGE", message })
            }
            Err(_) => {
                let message = format!("the upload took longer than {RECEIVE_TIMEOUT:?}");
                Err(Refusal { status: 408, code: "TOO_SLOW", message })
            }
        }
    }
}

async fn roll_back<C: GuestControl>(
    State(guests): Shared<C>,
    Path((tenant, message_type)): Place,
    headers: HeaderMap,
) -> Response {
    match guests.caller(&headers, &tenant, true) {
        Ok(caller) => answer(guests.control.roll_back(&tenant, &message_type, &caller.to_string()).await),
        Err(refusal) => answer(Err(refusal)),
    }
}

async fn remove<C: GuestControl>(
    State(guests): Shared<C>,
    Path((tenant, message_type)): Place,
    headers: HeaderMap,
) -> Response {
    match guests.caller(&headers, &tenant, true) {
        Ok(caller) => answer(guests.control.remove(&tenant, &message_type, &caller.to_string()).await),
        Err(refusal) => answer(Err(refusal)),
    }
}
