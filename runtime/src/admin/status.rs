//! What the gateway shows of itself: the admin side's view and the metrics' source.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::admin::context::View;
use crate::core::books::TenantBooks;
use crate::limits::LATEST_REFUSALS_SHOWN;
use crate::pipeline::desk::show;
use crate::pipeline::replay::Replays;
use crate::quarantine::{Filter, Quarantine};
use crate::spool::limits::{SHOWN_UNREADABLE_FILES, SHOWN_WAITING_TENANTS};
use crate::telemetry::gauges::{Handles, SourceHealth};
use crate::telemetry::health::{PartHealth, Readiness, registry_health};
use crate::telemetry::metrics::Metrics;
use crate::writer::DatabaseStatus;

/// The admin side's view.
#[derive(Debug)]
pub struct AdminContext {
    parts: Arc<Handles>,
    metrics: Metrics,
}

impl AdminContext {
    pub fn new(parts: Arc<Handles>) -> Self {
        Self { metrics: Metrics::new(parts.clone()), parts }
    }

    pub(crate) fn store(&self) -> &Quarantine {
        &self.parts.quarantine
    }

    pub(crate) fn replays(&self) -> &Replays {
        &self.parts.replays
    }
}

/// A spool that takes messages is ready. In words: the files that cannot be read back, and the tenants whose
/// messages wait for room.
fn spool_health(unreadable: &[String], waiting: &BTreeMap<String, u64>) -> PartHealth {
    let mut why = Vec::new();
    if !unreadable.is_empty() {
        let more = match unreadable.len().saturating_sub(SHOWN_UNREADABLE_FILES) {
            0 => String::new(),
            more => format!(" and {more} more files"),
        };
        let named = unreadable.iter().take(SHOWN_UNREADABLE_FILES).cloned().collect::<Vec<_>>().join(", ");
        why.push(format!("the disk does not give back lines of the spool, which wait: {named}{more}"));
    }
    if !waiting.is_empty() {
        let named = waiting.iter().take(SHOWN_WAITING_TENANTS);
        let named: Vec<String> =
            named.map(|(tenant, messages)| format!("{tenant} ({messages} messages)")).collect();
        let more = match waiting.len().saturating_sub(SHOWN_WAITING_TENANTS) {
            0 => String::new(),
            more => format!(" and {more} more tenants"),
        };
        why.push(format!("wait for room in their share of the spool: {}{more}", named.join(", ")));
    }
    PartHealth { ready: true, why: (!why.is_empty()).then(|| why.join("; ")) }
}

impl View for AdminContext {
    fn readiness(&self) -> Readiness {
        let source = self.parts.sources.iter().try_for_each(SourceHealth::check);
        let spool = match self.parts.spool.fault() {
            Some(fault) => PartHealth::not_ready(&fault),
            None if !self.parts.quarantine.is_usable() => {
                PartHealth::not_ready("quarantine cannot be written; see the log for the file")
            }
            None => spool_health(&self.parts.spool.unreadable(), &self.parts.spool.waiting_messages()),
        };
        let registry = self.parts.admission.registry();
        let registry = registry_health(registry, self.parts.registry_fault.lock().as_ref());
        Readiness::of(source.into(), registry, spool)
    }

    fn metrics(&self) -> String {
        self.metrics.text()
    }

    fn books(&self) -> Value {
        let books: BTreeMap<String, TenantBooks> = self
            .parts
            .books
            .accounts()
            .iter()
            .map(|account| (account.tenant().to_string(), account.snapshot()))
            .collect();
        json!({"balanced": books.values().all(TenantBooks::balanced), "tenants": books})
    }

    fn guests(&self) -> Value {
        json!({"guests": self.parts.guests.list()})
    }

    fn spool(&self) -> Value {
        let status = self.parts.spool.status();
        // Two of one name at two outputs are two.
        let written: BTreeMap<(String, Option<String>), DatabaseStatus> = self
            .parts
            .writer
            .databases()
            .into_iter()
            .map(|status| ((status.database.clone(), status.output_of.clone()), status))
            .collect();
        let mut databases: Vec<Value> = Vec::new();
        let mut idle: BTreeMap<&(String, Option<String>), &DatabaseStatus> = written.iter().collect();
        for backlog in &status.backlogs {
            let of = (backlog.database.clone(), backlog.output_of.clone());
            idle.remove(&of);
            databases.push(database_json(
                &backlog.database,
                json!({
                    "tenant": backlog.tenant,
                    "lines": backlog.lines,
                    "bytes": backlog.bytes,
                    "oldest_age_ms": backlog.oldest_age_s * 1000,
                }),
                written.get(&of),
            ));
        }
        for ((name, _), status) in idle {
            let nothing = json!({"lines": 0, "bytes": 0, "oldest_age_ms": 0});
            databases.push(database_json(name, nothing, Some(status)));
        }
        databases.sort_by(|a, b| a["database"].as_str().cmp(&b["database"].as_str()));
        let mut all = serde_json::to_value(&status).expect("a status is JSON");
        all["messages_unsettled"] = self.parts.window.messages().into();
        all["bytes_unsettled"] = self.parts.window.bytes().into();
        all["databases"] = databases.into();
        all
    }

    fn quarantine(&self, payloads: bool) -> Value {
        let quarantine = &self.parts.quarantine;
        let (mut reasons, mut tenants) = (BTreeMap::new(), BTreeMap::new());
        for count in quarantine.counts() {
            *reasons.entry(count.reason).or_insert(0) += count.entries;
            *tenants.entry(count.tenant).or_insert(0) += count.entries;
        }
        let since_start: BTreeMap<&str, u64> = quarantine
            .refused_since_start()
            .into_iter()
            .map(|(reason, count)| (reason.code(), count))
            .collect();
        json!({
            "bytes": quarantine.bytes(),
            "reasons": reasons,
            "tenants": tenants,
            "refused_since_start": since_start,
            "latest": self.latest(payloads),
        })
    }
}

/// One database's backlog, and how it is being written.
fn database_json(name: &str, backlog: Value, status: Option<&DatabaseStatus>) -> Value {
    let mut all = json!({"database": name});
    for part in [backlog, status.map_or(Value::Null, |status| json!(status))] {
        if let (Value::Object(all), Value::Object(part)) = (&mut all, part) {
            all.extend(part);
        }
    }
    all
}

impl AdminContext {
    /// The last refusals, newest first; payloads only where they may be shown, secrets masked.
    fn latest(&self, payloads: bool) -> Vec<Value> {
        let dir = self.parts.quarantine.dir();
        let latest = Quarantine::latest(dir, Filter::default(), LATEST_REFUSALS_SHOWN);
        let found = latest.and_then(|(places, _)| Quarantine::find(dir, &places)).unwrap_or_else(|error| {
            tracing::error!(%error, "quarantine cannot be read");
            Vec::new()
        });
        let mut entries: Vec<_> = found.into_iter().map(|(_, entry)| entry).collect();
        entries.sort_by(|a, b| b.time.cmp(&a.time));
        entries.into_iter().map(|entry| show(entry, payloads)).collect()
    }
}
