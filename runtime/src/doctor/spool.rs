//! The spool: its faults, and how near its ceilings are.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use crate::config::Config;
use crate::config::words::OutputKind;
use crate::core::age_clock::AgeClock;
use crate::doctor::finding::{Finding, Level};
use crate::doctor::running_gateway::RunningGateway;
use crate::limits::{DOCTOR_DATABASES_MAX, SPOOL_NEAR_PERCENT};
use crate::spool::Spool;

const CHECK: &str = "spool";

/// The check to which the answer of one database belongs.
const DATABASE_CHECK: &str = "database";

pub fn check(config: &Config, gateway: &RunningGateway) -> Vec<Finding> {
    if let Some(status) = &gateway.spool {
        return judge(config, status);
    }
    if gateway.runs {
        let state = "The gateway runs, but does not answer at admin.listen.";
        return vec![Finding::new(CHECK, Level::Note, state, "Look at its log and at tidegate_spool_bytes.")];
    }
    let folder = Path::new(&config.data_dir).join("spool");
    if !folder.exists() {
        return vec![Finding::ok(CHECK, "The spool is empty: the gateway has not run yet.")];
    }
    match Spool::open_read_only(&folder, &AgeClock::open(Path::new(&config.data_dir))) {
        Ok((status, _)) => {
            let mut all = json!(status);
            all["databases"] = json!(status.backlogs);
            judge(config, &all)
        }
        Err(error) => vec![Finding::new(
            CHECK,
            Level::Error,
            format!("The spool cannot be read: {error}."),
            "Run this as the gateway's user; if it stays so, see docs/DURABILITY.md.",
        )],
    }
}

fn judge(config: &Config, status: &Value) -> Vec<Finding> {
    let mut findings = Vec::new();
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let near = |bytes: u64, most: u64| bytes.saturating_mul(100) >= most.saturating_mul(SPOOL_NEAR_PERCENT);
    if let Some(fault) = status["fault"].as_str() {
        let state = format!("The spool cannot be written: {fault}.");
        findings.push(Finding::new(
            CHECK,
            Level::Error,
            state,
            "Mend the disk: nothing is acknowledged until then.",
        ));
    }
    let (bytes, most) = (number(&status["bytes"]), config.spool.bytes_max);
    if near(bytes, most) {
        let state = format!("The spool has {bytes} of spool.bytes_max = {most} bytes.");
        let advice =
            "See `tidegate spool` for the database that does not take its lines, or raise the ceiling.";
        findings.push(Finding::new(CHECK, Level::Warning, state, advice));
    }
    let mut tenants: BTreeMap<&str, u64> = BTreeMap::new();
    for backlog in status["databases"].as_array().into_iter().flatten() {
        if let Some(tenant) = backlog["tenant"].as_str() {
            *tenants.entry(tenant).or_default() += number(&backlog["bytes"]);
        }
    }
    for (tenant, bytes) in tenants {
        let own = config.tenants.get(tenant).and_then(|own| own.spool_bytes_max);
        let most = own.unwrap_or(config.spool.tenant_bytes_max);
        if near(bytes, most) {
            let state = format!("The backlog of the tenant {tenant} has {bytes} of its {most} bytes.");
            let advice = "See `tidegate spool` for its database, or raise spool.tenant_bytes_max.";
            findings.push(Finding::new(CHECK, Level::Warning, state, advice));
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok(CHECK, format!("The spool has {bytes} of {most} bytes.")));
    }
    findings.extend(refusing_databases(config, status));
    findings
}

/// The databases for which lines wait and whose last answer was no: a finding each, and one for all beyond
/// the first few.
fn refusing_databases(config: &Config, status: &Value) -> Vec<Finding> {
    let databases = status["databases"].as_array().map(Vec::as_slice).unwrap_or_default();
    let refusing: Vec<&Value> = databases.iter().filter(|database| refuses(database)).collect();
    let mut findings: Vec<Finding> = refusing
        .iter()
        .take(DOCTOR_DATABASES_MAX)
        .map(|database| {
            let name = database["database"].as_str().unwrap_or_default();
            let answer = database["last_answer"].as_str().unwrap_or_default();
            let lines = &database["lines"];
            let state = format!("{lines} lines wait for the database {name}. Its last answer: {answer}.");
            let advice = if !answer.starts_with("404") {
                "Mend what the answer says. `tidegate spool retry` tries again at once."
            } else if config.output.kind.is(OutputKind::InfluxDb1) {
                "Create the database, and `tidegate spool retry`; or set output.create_database = true."
            } else {
                "Create the database or bucket, and `tidegate spool retry`; or correct output.database."
            };
            Finding::new(DATABASE_CHECK, Level::Error, state, advice)
        })
        .collect();
    if let Some(more) = refusing.len().checked_sub(DOCTOR_DATABASES_MAX).filter(|more| *more > 0) {
        let state = format!("Lines wait for {more} more databases whose last answer was no.");
        findings.push(Finding::new(DATABASE_CHECK, Level::Error, state, "`tidegate spool` lists them."));
    }
    findings
}

fn refuses(database: &Value) -> bool {
    let is_troubled = matches!(database["state"].as_str(), Some("retrying" | "paused"));
    is_troubled && database["lines"].as_u64().unwrap_or(0) > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spool_near_a_ceiling_and_one_that_cannot_be_written_are_found() {
        let config: Config = toml::from_str(
            "[spool]\nbytes_max = 1000000\ntenant_bytes_max = 100000\n[tenants.big]\nspool_bytes_max = 900000\n",
        )
        .unwrap();
        let levels = |status: Value| {
            judge(&config, &status).into_iter().map(|finding| finding.level).collect::<Vec<_>>()
        };
        let of = |tenant: &str, bytes: u64| json!({"bytes": bytes, "databases": [{"tenant": tenant, "bytes": bytes}]});
        assert_eq!(levels(of("acme", 50_000)), [Level::Ok]);
        assert_eq!(levels(of("acme", 90_000)), [Level::Warning]);
        assert_eq!(levels(of("big", 90_000)), [Level::Ok]);
        assert_eq!(levels(of("big", 850_000)), [Level::Warning; 2]);
        assert_eq!(levels(json!({"bytes": 0, "fault": "EIO", "databases": []})), [Level::Error]);
    }

    #[test]
    fn databases_that_refuse_are_named_and_counted_beyond_the_first() {
        let config: Config = toml::from_str("[output]\nkind = \"influxdb1\"\n").unwrap();
        let one = |name: &str, lines: u64, answer: &str| {
            let state = if answer == "accepted" { "well" } else { "paused" };
            json!({"tenant": "acme", "database": name, "bytes": 1, "lines": lines, "state": state, "last_answer": answer})
        };
        let of = |databases: Vec<Value>| judge(&config, &json!({"bytes": 1, "databases": databases}));
        let findings = of(vec![one("gone", 3, "404: database not found"), one("good", 3, "accepted")]);
        let [spool, gone] = &findings[..] else { panic!("{findings:?}") };
        assert_eq!((spool.level, gone.level), (Level::Ok, Level::Error));
        assert!(gone.state.contains("gone") && gone.advice.contains("create_database"), "{gone:?}");
        assert_eq!(of(vec![one("written", 0, "404: database not found")]).len(), 1);
        let many = (0..DOCTOR_DATABASES_MAX + 7).map(|n| one(&n.to_string(), 1, "401: no")).collect();
        let findings = of(many);
        assert_eq!(findings.len(), 1 + DOCTOR_DATABASES_MAX + 1);
        assert!(findings.last().unwrap().state.contains("7 more"), "{findings:?}");
    }
}
