//! The configuration in force: each value with its source, secrets hidden.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::admin::access::Visitor;
use crate::admin::context::AdminContext;
use crate::admin::respond::{ApiError, ApiResult, answer_blocking, typed};
use crate::admin::schemas::ApiErrorBody;
use crate::admin::scope::Scope;
use crate::config::in_force::ConfigInForce;
use crate::config::remote::status::OriginStatus;
use crate::config::report;

/// The path; tokens are asked for by the router that it is merged into.
pub(super) fn routes() -> Router<Arc<AdminContext>> {
    Router::new().route("/api/v1/configuration", get(configuration))
}

/// One value and its source.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ConfigValue {
    /// The path of the key, as `mqtt.url`.
    key: String,
    /// Secrets are hidden.
    value: Value,
    /// `default`, a file, or a variable of the environment.
    source: String,
}

/// All values that hold.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ConfigReport {
    values: Vec<ConfigValue>,
    /// The place of a configuration from afar, the version that holds, and a newer one that is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<OriginStatus>,
    /// Keys that have another value in the files now: it holds after a restart.
    needs_restart: Vec<String>,
    /// Remarks on accepted settings.
    notes: Vec<String>,
}

/// The configuration in force; a tenant sees its own settings.
#[utoipa::path(get, path = "/api/v1/configuration", tag = "gateway",
    responses((status = 200, description = "All values that hold", body = ConfigReport),
        (status = 409, description = "The files hold no valid configuration any more", body = ApiErrorBody)))]
pub(crate) async fn configuration(
    State(context): State<Arc<AdminContext>>,
    Extension(visitor): Extension<Visitor>,
) -> Response {
    answer_blocking(move || report_for(&context.config, &Scope::of(&visitor))).await
}

fn report_for(config: &ConfigInForce, scope: &Scope) -> ApiResult {
    let (effective, needs_restart) = config.report().map_err(|fault| ApiError {
        status: 409,
        code: "BAD_CONFIGURATION",
        message: match scope.tenant() {
            None => {
                format!("the files hold no valid configuration any more, and a restart would fail: {fault}")
            }
            Some(_) => "the configuration cannot be read now".to_owned(),
        },
    })?;
    let report = match scope.tenant() {
        None => {
            let mut values = Vec::new();
            flatten(&report::effective_json(&effective), "", &mut values);
            ConfigReport { values, origin: config.origin(), needs_restart, notes: effective.notes }
        }
        Some(tenant) => {
            let own = report::tenant_values(&effective, tenant).into_iter();
            // The operator's server and its credentials are not a tenant's to know.
            let own =
                own.filter(|(key, _, source)| !(key.starts_with("output_") && source.starts_with("as ")));
            let values = own.map(|(key, value, source)| ConfigValue {
                key,
                value: json!(value),
                source: source.split(',').next().unwrap_or_default().to_owned(),
            });
            ConfigReport {
                values: values.collect(),
                origin: None,
                needs_restart: Vec::new(),
                notes: Vec::new(),
            }
        }
    };
    typed(&report)
}

/// Lists the leaves of a report by their paths.
fn flatten(value: &Value, path: &str, values: &mut Vec<ConfigValue>) {
    let Value::Object(members) = value else { return };
    if let (2, Some(leaf), Some(Value::String(source))) =
        (members.len(), members.get("value"), members.get("source"))
    {
        values.push(ConfigValue { key: path.to_owned(), value: leaf.clone(), source: source.clone() });
        return;
    }
    for (key, member) in members {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        flatten(member, &path, values);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn a_report_has_each_value_with_its_source_and_no_secret_and_a_tenant_its_own() {
        let folder = tempfile::TempDir::new().unwrap();
        let file = folder.path().join("tidegate.toml");
        let write = |more: &str| {
            let text = format!(
                "[listen]\naddress = \"127.0.0.1:1884\"\n{more}[output]\nurl = \"http://db:8086\"\ntoken = \"hush\"\n\
                 [tenants.acme]\nrate_per_s = 7\n"
            );
            std::fs::write(&file, text).unwrap();
        };
        write("");
        let load = {
            let file = file.clone();
            move || config::load(Some(&file), &config::Environment::default())
        };
        let current = config::CurrentConfig::new(load().unwrap().config);
        let in_force = ConfigInForce::new(current, Arc::new(load), None);
        let all = report_for(&in_force, &Scope::All).unwrap();
        assert!(!all.to_string().contains("hush"), "{all}");
        let value = |report: &Value, key: &str| {
            let values = report["values"].as_array().unwrap().iter();
            values.clone().find(|value| value["key"] == key).cloned().unwrap_or_default()
        };
        assert_eq!(value(&all, "listen.address")["value"], "127.0.0.1:1884");
        assert_ne!(value(&all, "listen.address")["source"], "default");
        assert_eq!(value(&all, "listen.connections_max")["source"], "default");
        assert_eq!(value(&all, "tenants.acme.rate_per_s")["value"], 7.0);
        assert_eq!(all["needs_restart"], json!([]));
        write("connections_max = 77\n");
        let all = report_for(&in_force, &Scope::All).unwrap();
        assert_eq!(all["needs_restart"], json!(["listen.connections_max"]));
        assert_ne!(value(&all, "listen.connections_max")["value"], 77);
        let own = Scope::Tenant { name: "acme".into(), folder: "acme".into() };
        let own = report_for(&in_force, &own).unwrap();
        assert_eq!(value(&own, "rate_per_s")["value"], 7.0);
        assert!(!own.to_string().contains("db:8086"), "{own}");
        std::fs::write(&file, "[listen]\nadress = \"x\"\n").unwrap();
        assert_eq!(report_for(&in_force, &Scope::All).unwrap_err().status, 409);
    }
}
