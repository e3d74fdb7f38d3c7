//! The gateway's state as JSON: readiness, books, guests, spool.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::admin::scope::Scope;
use crate::app::wall_clock;
use crate::core::receive_clock::wall_ns;
use crate::limits::SPOOL_NEAR_PERCENT;
use crate::spool::BacklogStatus;
use crate::spool::limits::{SHOWN_UNREADABLE_FILES, SHOWN_WAITING_TENANTS};
use crate::telemetry::expiry;
use crate::telemetry::handles::{Handles, SourceHealth};
use crate::telemetry::health::{PartHealth, Readiness, registry_health};
use crate::writer::{DatabaseHealth, DatabaseStatus, ServerInfo};

/// Databases that `/readyz` names.
const SHOWN_DATABASES: usize = 5;

/// A spool that takes messages is ready. In words: the files that cannot be read back, the tenants whose
/// messages wait for room, and how near its ceiling it is.
fn spool_health(
    unreadable: &[String],
    waiting: &BTreeMap<String, u64>,
    bytes: u64,
    bytes_max: u64,
) -> PartHealth {
    let mut why = Vec::new();
    if bytes.saturating_mul(100) >= bytes_max.saturating_mul(SPOOL_NEAR_PERCENT) {
        why.push(format!("the spool has {bytes} of spool.bytes_max = {bytes_max} bytes"));
    }
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
    PartHealth { why: (!why.is_empty()).then(|| why.join("; ")), ..PartHealth::ready() }
}

/// The databases that do not take their lines, and what does not hold with a server's version.
fn output_health(databases: &[DatabaseStatus], servers: &[(String, ServerInfo)]) -> PartHealth {
    let mut troubled: Vec<&DatabaseStatus> =
        databases.iter().filter(|database| database.state != DatabaseHealth::Well).collect();
    troubled.sort_by_key(|database| std::cmp::Reverse(database.trouble_s));
    let mut why: Vec<String> =
        troubled.iter().take(SHOWN_DATABASES).map(|database| words_of(database)).collect();
    if let Some(more @ 1..) = troubled.len().checked_sub(SHOWN_DATABASES) {
        why.push(format!("and {more} more databases"));
    }
    for (server, info) in servers {
        why.extend(
            info.caveats.iter().map(|caveat| format!("{server} has version {}; {caveat}", info.version)),
        );
    }
    if why.is_empty() { PartHealth::ready() } else { PartHealth::degraded(why.join("; ")) }
}

fn words_of(database: &DatabaseStatus) -> String {
    let since = database.trouble_s.map(|s| format!(" for {s} s")).unwrap_or_default();
    let output =
        database.output_of.as_ref().map(|tenant| format!(" (output of {tenant})")).unwrap_or_default();
    format!("{}{output} is {}{since}: {}", database.database, database.state.name(), database.last_answer)
}

pub(crate) fn readiness(handles: &Handles) -> Readiness {
    let mut source = PartHealth::from(handles.sources.iter().try_for_each(SourceHealth::check));
    if handles.drain.is_on() {
        source = PartHealth::not_ready("the gateway is drained: it takes no new devices");
    }
    if source.ready {
        let now = SystemTime::now();
        let expiring: Vec<String> =
            handles.certificates().into_iter().filter_map(|one| expiry::in_words(one, now)).collect();
        source.why = (!expiring.is_empty()).then(|| expiring.join("; "));
    }
    let spool = match handles.spool.fault() {
        Some(fault) => PartHealth::not_ready(&fault),
        None if !handles.quarantine.is_usable() => {
            PartHealth::not_ready("quarantine cannot be written; see the log for the file")
        }
        None => {
            let mut health = spool_health(
                &handles.spool.unreadable(),
                &handles.spool.waiting_messages(),
                handles.spool.disk_bytes(),
                handles.spool_ceilings.bytes_max,
            );
            if let Err(low) = handles.disk_reserve.check() {
                let others = health.why.map(|why| format!("; {why}")).unwrap_or_default();
                health.why = Some(format!("{low}{others}"));
            }
            health
        }
    };
    let registry = handles.admission.registry();
    let registry = registry_health(registry, handles.registry_fault.lock().as_ref());
    let output = output_health(&handles.writer.databases(), &handles.writer.servers());
    Readiness::new(source, registry, spool, output, wall_clock::unset(wall_ns()))
}

pub(crate) fn books(handles: &Handles, scope: &Scope) -> Value {
    let accounts = handles.books.accounts();
    let mut balanced = true;
    let tenants: serde_json::Map<String, Value> = accounts
        .iter()
        .filter(|account| scope.takes(account.tenant().as_str()))
        .map(|account| {
            let books = account.snapshot();
            balanced &= books.balanced();
            let mut books = json!(books);
            let drops = account.drops();
            books["dropped_by_reason"] = drops.iter().map(|(reason, n)| (reason.code(), *n)).collect();
            (account.tenant().to_string(), books)
        })
        .collect();
    json!({"balanced": balanced, "tenants": tenants})
}

pub(crate) fn guests(handles: &Handles, scope: &Scope) -> Value {
    let mut guests = handles.guests.list();
    guests.retain(|guest| scope.takes_folder(&guest.tenant));
    json!({"guests": guests})
}

/// The spool and its databases; of a tenant its own part of them.
pub(crate) fn spool(handles: &Handles, scope: &Scope) -> Value {
    match scope.tenant() {
        None => whole_spool(handles),
        Some(tenant) => spool_of(handles, tenant),
    }
}

/// The databases of one tenant, and the messages of it that wait. Where others write to its database too, the server's
/// answers are not shown: they may quote lines of others.
fn spool_of(handles: &Handles, tenant: &str) -> Value {
    let status = handles.spool.status();
    let own = handles.tenants.known(tenant).and_then(|tenant| tenant.database().ok());
    let mut databases: Vec<Value> = Vec::new();
    for written in handles.writer.databases() {
        let is_own_output = written.output_of.as_deref() == Some(tenant);
        let of_tenant = |backlog: &&BacklogStatus| {
            backlog.tenant == tenant
                && backlog.database == written.database
                && backlog.output_of == written.output_of
        };
        let backlog = status.backlogs.iter().find(of_tenant);
        let is_default =
            written.output_of.is_none() && own.as_ref().is_some_and(|own| own.as_str() == written.database);
        if !is_own_output && backlog.is_none() && !is_default {
            continue;
        }
        let name = written.database.clone();
        let is_shared = !is_own_output
            && handles.books.accounts().iter().any(|account| {
                let other = account.tenant().as_str();
                other != tenant
                    && handles
                        .tenants
                        .known(other)
                        .and_then(|other| other.database().ok())
                        .is_some_and(|database| database.as_str() == name)
            });
        let waits = match backlog {
            Some(backlog) => json!({
                "tenant": tenant,
                "lines": backlog.lines,
                "bytes": backlog.bytes,
                "oldest_age_ms": backlog.oldest_age_s * 1000,
            }),
            None => json!({"tenant": tenant, "lines": 0, "bytes": 0, "oldest_age_ms": 0}),
        };
        let answer = if is_shared { String::new() } else { written.last_answer.clone() };
        databases.push(database_json(&name, waits, Some(&DatabaseStatus { last_answer: answer, ..written })));
    }
    databases.sort_by(|a, b| a["database"].as_str().cmp(&b["database"].as_str()));
    json!({
        "databases": databases,
        "waiting_messages": own_member(&status.waiting_messages, tenant),
        "parked": own_member(&status.parked, tenant),
    })
}

/// The member of one tenant.
fn own_member<'a, T>(of: &'a BTreeMap<String, T>, tenant: &str) -> BTreeMap<String, &'a T> {
    of.get_key_value(tenant).into_iter().map(|(name, value)| (name.clone(), value)).collect()
}

fn whole_spool(handles: &Handles) -> Value {
    let status = handles.spool.status();
    // Two of one name at two outputs are two.
    let written: BTreeMap<(String, Option<String>), DatabaseStatus> = handles
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
    all["messages_unsettled"] = handles.window.messages().into();
    all["bytes_unsettled"] = handles.window.bytes().into();
    all["databases"] = databases.into();
    let server = |(server, info): (String, ServerInfo)| json!({"server": server, "version": info.version, "caveats": info.caveats});
    all["servers"] = handles.writer.servers().into_iter().map(server).collect();
    all
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spool_near_its_ceiling_says_so_and_is_ready() {
        let health = |bytes| spool_health(&[], &BTreeMap::new(), bytes, 1_000);
        assert_eq!(health(799).why, None);
        let near = health(800);
        assert!(near.ready && near.why.unwrap().contains("800 of spool.bytes_max = 1000"));
    }
}
