//! Tenants as JSON: the accounts and the budgets of each.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use serde_json::{Map, Value, json};

use crate::admin::access::Visitor;
use crate::admin::context::AdminContext;
use crate::admin::respond::{ApiError, ApiResult, answer_blocking};
use crate::admin::schemas::{ApiErrorBody, TenantDetail, TenantList};
use crate::admin::scope::Scope;
use crate::core::books::Account;
use crate::core::tenant::budget::Budget;
use crate::core::tenant::budget_kind::Resource;
use crate::core::tenant::budgets::BudgetPair;
use crate::telemetry::handles::Handles;

/// The paths below `/api/v1/tenants`.
pub(crate) fn routes() -> Router<Arc<AdminContext>> {
    Router::new().route("/api/v1/tenants", get(all)).route("/api/v1/tenants/{tenant}", get(one))
}

/// Tenants with their budgets; the gateway's, for those who see all.
#[utoipa::path(get, path = "/api/v1/tenants", tag = "tenants",
    responses((status = 200, description = "Budgets by tenant", body = TenantList)))]
pub(crate) async fn all(
    State(context): State<Arc<AdminContext>>,
    Extension(visitor): Extension<Visitor>,
) -> Response {
    answer_blocking(move || Ok(tenants(&context.handles, &Scope::of(&visitor)))).await
}

/// One tenant.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}", tag = "tenants",
    params(("tenant" = String, Path, description = "A tenant")),
    responses((status = 200, description = "Its books and budgets", body = TenantDetail),
        (status = 404, description = "Nothing is known of it", body = ApiErrorBody)))]
pub(crate) async fn one(
    State(context): State<Arc<AdminContext>>,
    Extension(visitor): Extension<Visitor>,
    Path(name): Path<String>,
) -> Response {
    answer_blocking(move || {
        if !Scope::of(&visitor).takes(&name) {
            return Err(ApiError::not_yours(&name));
        }
        tenant(&context.handles, &name)
    })
    .await
}

/// One tenant: its books, and each kind of use of its budgets.
fn tenant(handles: &Handles, name: &str) -> ApiResult {
    let account = handles.books.accounts().into_iter().find(|account| account.tenant().as_str() == name);
    let budgets = handles.tenants.budgets().known(name);
    if account.is_none() && budgets.is_none() {
        let message = format!("nothing was received of a tenant {name:?}, and nothing is kept of it");
        return Err(ApiError { status: 404, code: "NO_SUCH_TENANT", message });
    }
    let budgets = budgets.unwrap_or_else(|| handles.tenants.budgets_of(name));
    let mut all = budgets_json(&budgets, true);
    all["tenant"] = name.into();
    all["books"] = json!(account.map(|account| account.snapshot()));
    Ok(all)
}

/// All tenants with a budget, and the gateway.
fn tenants(handles: &Handles, scope: &Scope) -> Value {
    let budgets = handles.tenants.budgets();
    let accounts: BTreeMap<String, Arc<Account>> =
        handles.books.accounts().into_iter().map(|account| (account.tenant().to_string(), account)).collect();
    let tenants: Map<String, Value> = budgets
        .all()
        .into_iter()
        .filter(|(tenant, pair)| {
            if !scope.takes(tenant.as_str()) {
                return false;
            }
            let admitted = accounts.get(tenant.as_str()).is_some_and(|account| account.was_admitted());
            admitted || pair.memory.used() > 0 || pair.disk.used() > 0
        })
        .map(|(tenant, pair)| (tenant.to_string(), budgets_json(&pair, false)))
        .collect();
    if scope.tenant().is_some() {
        return json!({"tenants": tenants});
    }
    let plan = &handles.budget_plan;
    let mut gateway = budgets_json(budgets.gateway(), true);
    gateway["memory"]["process_max"] = plan.memory_bytes_max.into();
    let reserved = plan.reserves.iter().map(|reserve| (reserve.name.to_owned(), reserve.bytes.into()));
    gateway["memory"]["reserved"] = Value::Object(reserved.collect());
    json!({"gateway": gateway, "tenants": tenants})
}

fn budgets_json(pair: &BudgetPair, with_kinds: bool) -> Value {
    let one = |resource: Resource| budget_json(pair.of(resource), with_kinds);
    json!({"memory": one(Resource::Memory), "disk": one(Resource::Disk)})
}

fn budget_json(budget: &Budget, with_kinds: bool) -> Value {
    let mut all = json!({"used": budget.used(), "max": budget.max()});
    if with_kinds {
        let kinds = budget.resource().kinds().iter().map(|kind| {
            let (used, max) = (budget.used_by(*kind), budget.max_of(*kind));
            (kind.as_str().to_owned(), json!({"used": used, "max": max}))
        });
        all["kinds"] = Value::Object(kinds.collect());
    }
    all
}
