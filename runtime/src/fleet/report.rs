//! The report of a gateway about itself. It has nothing in it that changes while nothing happens.

use std::time::UNIX_EPOCH;

use serde_json::{Value, json};

use crate::admin::drain::{self, DrainState};
use crate::config::Config;
use crate::config::remote::status::OriginStatus;
use crate::fleet::fleet_books::{FleetAccount, FleetBooks};
use crate::fleet::store::{GatewayReport, GatewayState};
use crate::limits::{FLEET_DECODERS_MAX, FLEET_ERRORS_MAX};
use crate::telemetry::handles::Handles;
use crate::telemetry::readiness::readiness;
use crate::telemetry::tenant_sums;

/// Makes the report from the parts themselves. Takes their locks: not for a thread of the stream.
pub fn make(handles: &Handles, config: &Config, origin: Option<&OriginStatus>) -> GatewayReport {
    let books = tenant_sums::books(&handles.books.accounts()).into_iter();
    let books =
        books.map(|(tenant, books)| (tenant, FleetAccount { messages: books.messages, lines: books.lines }));
    let state = match drain::report(handles).state {
        DrainState::Serves => GatewayState::Serves,
        DrainState::Draining => GatewayState::Draining,
        DrainState::Drained => GatewayState::Drained,
    };
    GatewayReport { state, report: about(handles, config, origin), books: FleetBooks(books.collect()) }
}

fn about(handles: &Handles, config: &Config, origin: Option<&OriginStatus>) -> Value {
    let spool = handles.spool.status();
    let oldest = spool.backlogs.iter().map(|backlog| backlog.oldest_age_s).max().unwrap_or_default();
    let certificates = handles.certificates().into_iter().map(|(key, not_after)| {
        let end_s = not_after.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        json!({"key": key, "not_after_s": end_s})
    });
    let all = handles.guests.list();
    let decoders = all.iter().take(FLEET_DECODERS_MAX).map(|guest| {
        json!({"route": format!("{}/{}", guest.tenant, guest.message_type), "guest": guest.guest, "state": guest.state})
    });
    let gateway = handles.tenants.budgets().gateway();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "listen": config.listen.address,
        "broker": !config.mqtt.url.is_empty(),
        "admin": config.admin.listen,
        "configuration": origin.map(|origin| &origin.version),
        "backlog": {"lines": spool.lines, "bytes": spool.bytes, "oldest_age_s": oldest},
        "budgets": {
            "memory_bytes": gateway.memory.used(), "memory_bytes_max": handles.budget_plan.limits.memory_bytes_max,
            "disk_bytes": gateway.disk.used(), "disk_bytes_max": handles.budget_plan.limits.disk_bytes_max,
        },
        "decoders": decoders.collect::<Vec<_>>(),
        "decoders_all": all.len(),
        "certificates": certificates.collect::<Vec<_>>(),
        "errors": errors(handles, origin),
    })
}

/// The faults that `/readyz` and the configuration have.
fn errors(handles: &Handles, origin: Option<&OriginStatus>) -> Vec<String> {
    let ready = readiness(handles);
    let parts = [
        ("source", ready.source),
        ("registry", ready.registry),
        ("spool", ready.spool),
        ("output", ready.output),
        ("clock", ready.clock),
    ];
    let faults = parts.into_iter().filter_map(|(part, health)| Some(format!("{part}: {}", health.why?)));
    let configuration = origin.and_then(OriginStatus::fault).map(|why| format!("configuration: {why}"));
    let refused = handles.guests.list().into_iter().filter(|guest| guest.state == "refused");
    let refused = refused.map(|guest| format!("decoder {}/{} is refused", guest.tenant, guest.message_type));
    faults.chain(configuration).chain(refused).take(FLEET_ERRORS_MAX).collect()
}
