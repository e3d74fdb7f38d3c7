//! The readiness of the gateway's parts at this moment, with the words of what is wrong.

use std::collections::BTreeMap;
use std::time::SystemTime;

use crate::app::wall_clock;
use crate::core::receive_clock::wall_ns;
use crate::limits::SPOOL_NEAR_PERCENT;
use crate::spool::limits::{SHOWN_UNREADABLE_FILES, SHOWN_WAITING_TENANTS};
use crate::telemetry::expiry;
use crate::telemetry::handles::{Handles, SourceHealth};
use crate::telemetry::health::{PartHealth, Readiness, registry_health};
use crate::writer::{DatabaseHealth, DatabaseStatus, ServerInfo};

/// Databases that `/readyz` names.
const SHOWN_DATABASES: usize = 5;

/// The readiness of all parts, as `/readyz` answers it.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spool_near_its_ceiling_says_so_and_is_ready() {
        let health = |bytes| spool_health(&[], &BTreeMap::new(), bytes, 1_000);
        assert_eq!(health(599).why, None);
        let near = health(600);
        assert!(near.ready && near.why.unwrap().contains("600 of spool.bytes_max = 1000"));
    }
}
