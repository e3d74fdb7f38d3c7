//! The gateway's state as JSON: books, guests, spool.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::admin::scope::Scope;
use crate::spool::BacklogStatus;
use crate::telemetry::handles::Handles;
use crate::writer::{DatabaseStatus, ServerInfo};

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
