//! The overview: what is wrong first, in words and with what to do, and the state of each part.

pub(crate) mod problems;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use serde::Serialize;
use utoipa::ToSchema;

use crate::admin::access::Visitor;
use crate::admin::context::AdminContext;
use crate::admin::overview::problems::Problem;
use crate::admin::respond::{ApiResult, answer_blocking, typed};
use crate::admin::scope::Scope;
use crate::admin::status;
use crate::core::books::TenantBooks;
use crate::telemetry::handles::Handles;
use crate::telemetry::health::PartHealth;
use crate::telemetry::readiness::readiness;
use crate::writer::DatabaseHealth;

/// The path; tokens are asked for by the router that it is merged into.
pub(super) fn routes() -> Router<Arc<AdminContext>> {
    Router::new().route("/api/v1/overview", get(overview))
}

/// One part of the gateway.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PartState {
    name: String,
    ready: bool,
    /// It does its work, but something needs a person or more time.
    degraded: bool,
    why: Option<String>,
}

/// Messages and lines since the start of the gateway, of all tenants that are seen.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct Totals {
    received: u64,
    refused: u64,
    dropped: u64,
    parked: u64,
    in_flight: u64,
    lines_written: u64,
    lines_pending: u64,
}

/// Bytes in use, and their ceiling.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Usage {
    used: u64,
    max: u64,
}

/// The gateway, or the part of it that a tenant sees.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Overview {
    /// The tenant that it is about; `null`: the whole gateway.
    tenant: Option<String>,
    version: String,
    uptime_s: u64,
    /// Milliseconds since 1970 at the gateway.
    now_ms: i64,
    ready: bool,
    /// Problems, the worst first.
    problems: Vec<Problem>,
    /// Sources, registry, spool, output and clock; for a tenant those that concern it without a name of others.
    parts: Vec<PartState>,
    totals: Totals,
    /// True if every message and line is accounted for.
    balanced: bool,
    /// Refused messages since the start, by reason; for a tenant its entries in quarantine.
    refusals: BTreeMap<String, u64>,
    tenants: u64,
    /// Devices in the cache; `null` for a tenant.
    devices: Option<u64>,
    /// Databases by state: well, retrying, paused.
    databases: BTreeMap<String, u64>,
    /// Decoders by state: serving, refused, waiting.
    decoders: BTreeMap<String, u64>,
    memory: Usage,
    disk: Usage,
    /// The spool on disk; `null` for a tenant, whose part of it is in `disk`.
    spool: Option<Usage>,
    /// Viewers of the tap.
    viewers: u64,
}

/// The state of the gateway, what is wrong first.
#[utoipa::path(get, path = "/api/v1/overview", tag = "gateway",
    responses((status = 200, description = "The gateway; a tenant sees its own part", body = Overview)))]
pub(crate) async fn overview(
    State(context): State<Arc<AdminContext>>,
    Extension(visitor): Extension<Visitor>,
) -> Response {
    answer_blocking(move || report(&context.handles, &Scope::of(&visitor))).await
}

fn report(handles: &Handles, scope: &Scope) -> ApiResult {
    let readiness = readiness(handles);
    let accounts = handles.books.accounts();
    let seen = accounts.iter().filter(|account| scope.takes(account.tenant().as_str()));
    let (mut totals, mut balanced, mut tenants) = (Totals::default(), true, 0);
    for account in seen {
        let books = account.snapshot();
        balanced &= books.balanced();
        tenants += u64::from(account.was_admitted());
        totals.add(&books);
    }
    let guests = handles.guests.list();
    let guests: Vec<_> = guests.into_iter().filter(|guest| scope.takes_folder(&guest.tenant)).collect();
    let mut decoders: BTreeMap<String, u64> = BTreeMap::new();
    for guest in &guests {
        *decoders.entry(guest.state.to_owned()).or_default() += 1;
    }
    let spool = status::spool(handles, scope);
    let mut databases: BTreeMap<String, u64> =
        DatabaseHealth::ALL.iter().map(|state| (state.name().to_owned(), 0)).collect();
    for database in spool["databases"].as_array().into_iter().flatten() {
        let state = database["state"].as_str().unwrap_or("well");
        *databases.entry(state.to_owned()).or_default() += 1;
    }
    let budgets = match scope.tenant() {
        None => handles.tenants.budgets().gateway().clone(),
        Some(tenant) => handles.tenants.budgets_of(tenant),
    };
    let usage = |used, max| Usage { used, max };
    let problems = problems::find(
        handles,
        scope,
        &problems::Found { readiness: &readiness, balanced, guests: &guests, spool: &spool },
    );
    let is_whole = scope.tenant().is_none();
    let refusals = match scope.tenant() {
        None => {
            let since = handles.quarantine.refused_since_start().into_iter();
            since.map(|(reason, count)| (reason.code().to_owned(), count)).collect()
        }
        Some(_) => {
            let counts = handles.quarantine.counts().into_iter().filter(|count| scope.takes(&count.tenant));
            counts.map(|count| (count.reason, count.entries)).collect()
        }
    };
    let parts = readiness.parts();
    let part = |(name, health): (&str, &PartHealth)| PartState {
        name: name.to_owned(),
        ready: health.ready,
        degraded: health.degraded && is_whole,
        why: health.why.clone().filter(|_| is_whole),
    };
    typed(&Overview {
        tenant: scope.tenant().map(str::to_owned),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_s: handles.started.elapsed().as_secs(),
        now_ms: jiff::Timestamp::now().as_millisecond(),
        ready: readiness.ready,
        problems,
        parts: parts.into_iter().map(part).collect(),
        totals,
        balanced,
        refusals,
        tenants,
        devices: is_whole.then(|| handles.admission.cache().entries() as u64),
        databases,
        decoders,
        memory: usage(budgets.memory.used(), budgets.memory.max()),
        disk: usage(budgets.disk.used(), budgets.disk.max()),
        spool: is_whole.then(|| usage(handles.spool.disk_bytes(), handles.spool_ceilings.bytes_max)),
        viewers: handles.tap.viewers() as u64,
    })
}

impl Totals {
    fn add(&mut self, books: &TenantBooks) {
        self.received += books.messages.received;
        self.refused += books.messages.quarantined;
        self.dropped += books.messages.dropped;
        self.parked += books.messages.parked;
        self.in_flight += books.messages.in_flight;
        self.lines_written += books.lines.written;
        self.lines_pending += books.lines.pending;
    }
}
