//! Devices as the gateway knows them: those in the cache of admission, with what was seen of them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::admin::access::Visitor;
use crate::admin::context::AdminContext;
use crate::admin::quarantine::latest_matching;
use crate::admin::query::Query;
use crate::admin::respond::{ApiError, ApiResult, answer_blocking, typed};
use crate::admin::scope::Scope;
use crate::admission::CachedDevice;
use crate::core::receive_clock::wall_ns;
use crate::limits::{DEVICE_REFUSALS_SHOWN, DEVICES_LISTED_MAX};
use crate::quarantine::Filter;
use crate::telemetry::handles::Handles;

/// Devices that a listing gives where no limit is named.
const LISTED_BY_DEFAULT: usize = 500;

/// The paths; tokens are asked for by the router that they are merged into.
pub(super) fn routes() -> Router<Arc<AdminContext>> {
    Router::new()
        .route("/api/v1/devices", get(devices))
        .route("/api/v1/devices/{tenant}/{device}", get(device))
}

/// A device.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeviceInfo {
    tenant: String,
    device: String,
    site: String,
    /// Its status in the registry, as `ACTIVE`.
    status: String,
    /// True if its messages are admitted.
    active: bool,
    /// The time of receipt of its last admitted message, in milliseconds since 1970; `null`: none was seen since the
    /// gateway has it in its cache.
    last_seen_ms: Option<i64>,
    /// Admitted messages since then.
    messages: u64,
    /// Admitted messages in the last whole minute.
    messages_last_minute: u64,
}

impl DeviceInfo {
    fn of(known: &CachedDevice, now_ns: i64) -> Self {
        let sighting = known.device.activity.sighting(now_ns);
        Self {
            tenant: known.tenant.id.to_string(),
            device: known.device.id.to_string(),
            site: known.site.clone(),
            status: known.status.clone(),
            active: known.active,
            last_seen_ms: sighting.map(|sighting| sighting.last_ns / 1_000_000),
            messages: sighting.map_or(0, |sighting| sighting.messages),
            messages_last_minute: sighting.map_or(0, |sighting| sighting.last_minute),
        }
    }
}

/// Devices that the gateway knows, those that were seen last first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeviceList {
    devices: Vec<DeviceInfo>,
    /// Devices that match beside those.
    more: u64,
}

/// A device with its last refusals.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeviceDetail {
    /// `null`: the gateway has no such device in its cache.
    known: Option<DeviceInfo>,
    /// Its last entries in quarantine, newest first; payloads only where they may be seen.
    #[schema(value_type = Vec<Object>)]
    refusals: Vec<Value>,
}

/// Devices in the cache: those that sent something since they were looked up.
#[utoipa::path(get, path = "/api/v1/devices", tag = "devices",
    params(("tenant" = Option<String>, Query, description = "One tenant's"),
        ("search" = Option<String>, Query, description = "A part of the name or of the site"),
        ("limit" = Option<usize>, Query, description = "At most 10000")),
    responses((status = 200, description = "Devices, those that were seen last first", body = DeviceList)))]
pub(crate) async fn devices(
    State(context): State<Arc<AdminContext>>,
    Extension(visitor): Extension<Visitor>,
    request: Request,
) -> Response {
    answer_blocking(move || list(&context.handles, &Scope::of(&visitor), &request)).await
}

/// One device.
#[utoipa::path(get, path = "/api/v1/devices/{tenant}/{device}", tag = "devices",
    params(("tenant" = String, Path, description = "A tenant"), ("device" = String, Path, description = "A device")),
    responses((status = 200, description = "The device, and why its messages were refused", body = DeviceDetail)))]
pub(crate) async fn device(
    State(context): State<Arc<AdminContext>>,
    Extension(visitor): Extension<Visitor>,
    Path((tenant, device)): Path<(String, String)>,
) -> Response {
    answer_blocking(move || detail(&context.handles, &visitor, &tenant, &device)).await
}

fn list(handles: &Handles, scope: &Scope, request: &Request) -> ApiResult {
    let query = Query::of(request.uri(), &["tenant", "search", "limit"])?;
    let tenant = query.text("tenant");
    let scope = scope.narrowed(tenant).ok_or_else(|| ApiError::not_yours(tenant.unwrap_or_default()))?;
    let limit = query.number("limit", DEVICES_LISTED_MAX)?.unwrap_or(LISTED_BY_DEFAULT);
    let search = query.text("search").unwrap_or_default();
    let now_ns = wall_ns();
    // The last seen of all, without a list of all: the heap has the oldest of those on top.
    let mut found: BinaryHeap<Reverse<(i64, String, String)>> = BinaryHeap::new();
    let mut matching = 0_u64;
    handles.admission.cache().for_each(|known| {
        let device = known.device.id.as_str();
        if !scope.takes(known.tenant.id.as_str()) || !(device.contains(search) || known.site.contains(search))
        {
            return;
        }
        matching += 1;
        let seen_ns = known.device.activity.sighting(now_ns).map_or(0, |sighting| sighting.last_ns);
        if found.len() >= limit && found.peek().is_none_or(|Reverse((oldest, ..))| *oldest >= seen_ns) {
            return;
        }
        found.push(Reverse((seen_ns, known.tenant.id.to_string(), device.to_owned())));
        if found.len() > limit {
            found.pop();
        }
    });
    let devices: Vec<DeviceInfo> = found
        .into_sorted_vec()
        .into_iter()
        .filter_map(|Reverse((_, tenant, device))| of_cache(handles, &tenant, &device, now_ns))
        .collect();
    typed(&DeviceList { more: matching.saturating_sub(devices.len() as u64), devices })
}

fn of_cache(handles: &Handles, tenant: &str, device: &str, now_ns: i64) -> Option<DeviceInfo> {
    let admission = &handles.admission;
    let known = admission.cache().peek(admission.device_key(tenant, device), tenant, device)?;
    Some(DeviceInfo::of(&known, now_ns))
}

fn detail(handles: &Handles, visitor: &Visitor, tenant: &str, device: &str) -> ApiResult {
    if !Scope::of(visitor).takes(tenant) {
        return Err(ApiError::not_yours(tenant));
    }
    let filter =
        Filter { tenant: Some(tenant.to_owned()), device: Some(device.to_owned()), ..Filter::default() };
    let payloads = visitor.sees_payloads();
    typed(&DeviceDetail {
        known: of_cache(handles, tenant, device, wall_ns()),
        refusals: latest_matching(&handles.quarantine, filter, DEVICE_REFUSALS_SHOWN, payloads),
    })
}
