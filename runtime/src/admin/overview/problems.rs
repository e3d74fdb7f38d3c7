//! Problems in words, each with its remedy.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::admin::scope::Scope;
use crate::core::tenant::budget::Budget;
use crate::rollout::GuestInfo;
use crate::telemetry::handles::Handles;
use crate::telemetry::health::Readiness;

/// Problems of one kind that are listed one by one.
const SHOWN_OF_A_KIND: usize = 5;

/// The part of a budget, in percent, from which it is near.
const BUDGET_NEAR_PERCENT: u64 = 90;

/// Refusals of the last minutes are a problem from this part of the messages on, in percent.
const REFUSED_PERCENT: f64 = 1.0;

/// Samples of the history that count as the last minutes.
const RECENT_SAMPLES: usize = 60;

/// The weight of a problem, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Severity {
    /// Messages are not taken, or something may be lost.
    Error,
    /// Something waits or is refused, and needs a person or time.
    Warning,
    /// Good to know.
    Note,
}

/// One thing that is wrong.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Problem {
    pub severity: Severity,
    /// The part: source, registry, spool, output, clock, decoder, books, quarantine or budget.
    pub part: String,
    pub what: String,
    /// The remedy.
    pub todo: String,
}

/// The things that problems are derived from.
pub(super) struct Found<'a> {
    pub readiness: &'a Readiness,
    pub balanced: bool,
    /// The decoders that the caller sees.
    pub guests: &'a [GuestInfo],
    /// The answer of `/api/v1/spool`, as far as it is seen.
    pub spool: &'a Value,
}

/// Problems of the gateway, or of a tenant.
pub(super) fn find(handles: &Handles, scope: &Scope, found: &Found<'_>) -> Vec<Problem> {
    let mut problems = Vec::new();
    match scope.tenant() {
        None => of_parts(found.readiness, &mut problems),
        Some(_) if !found.readiness.ready => problems.push(problem(
            Severity::Error,
            "gateway",
            "the gateway does not take messages now".into(),
            "the operator is told why; devices send again what was not acknowledged",
        )),
        Some(_) => {}
    }
    if !found.balanced {
        problems.push(problem(
            Severity::Error,
            "books",
            "the books do not balance: a message or a line is not accounted for".into(),
            "keep the log and the output of `tidegate books --json`, and report it as a fault of Tidegate",
        ));
    }
    of_databases(found.spool, &mut problems);
    of_decoders(found.guests, &mut problems);
    of_budgets(handles, scope, &mut problems);
    of_refusals(handles, scope, &mut problems);
    problems.sort_by_key(|problem| problem.severity);
    problems
}

fn problem(severity: Severity, part: &str, what: String, todo: &str) -> Problem {
    Problem { severity, part: part.to_owned(), what, todo: todo.to_owned() }
}

fn of_parts(readiness: &Readiness, problems: &mut Vec<Problem>) {
    let parts = [
        (
            "source",
            &readiness.source,
            "check the broker or the listener's address, and the certificates that are named",
        ),
        (
            "registry",
            &readiness.registry,
            "look at the registry's server or file; known devices go on, messages of unknown ones wait",
        ),
        (
            "spool",
            &readiness.spool,
            "give the disk room, or raise spool.bytes_max; while it is full, devices wait and nothing is lost",
        ),
        (
            "clock",
            &readiness.clock,
            "set the clock of this machine: lines without a time of their own get its time",
        ),
    ];
    for (name, health, todo) in parts {
        let Some(why) = &health.why else { continue };
        let severity = if health.ready { Severity::Warning } else { Severity::Error };
        problems.push(problem(severity, name, why.clone(), todo));
    }
}

/// The databases that do not take their lines.
fn of_databases(spool: &Value, problems: &mut Vec<Problem>) {
    let databases = spool["databases"].as_array().into_iter().flatten();
    let troubled =
        databases.filter(|database| database["state"].as_str().is_some_and(|state| state != "well"));
    let mut troubled: Vec<&Value> = troubled.collect();
    troubled.sort_by_key(|database| std::cmp::Reverse(database["trouble_s"].as_u64()));
    for database in troubled.iter().take(SHOWN_OF_A_KIND) {
        let text = |key: &str| database[key].as_str().unwrap_or_default();
        let (name, state, answer) = (text("database"), text("state"), text("last_answer"));
        let since = database["trouble_s"].as_u64().map(|s| format!(" for {s} s")).unwrap_or_default();
        let waits = database["lines"].as_u64().unwrap_or_default();
        let answer = if answer.is_empty() { String::new() } else { format!(": {answer}") };
        let what =
            format!("the database {name} is {state}{since}, and {waits} lines wait in the spool{answer}");
        let (severity, todo) = match state {
            "paused" => (
                Severity::Error,
                "it needs a person: mend its credentials or its settings, then press Retry now on the page Databases",
            ),
            _ => (
                Severity::Warning,
                "see if the database runs and can be reached; the gateway tries again by itself and keeps every line",
            ),
        };
        problems.push(problem(severity, "output", what, todo));
    }
    if let Some(more @ 1..) = troubled.len().checked_sub(SHOWN_OF_A_KIND) {
        let what = format!("{more} more databases do not take their lines");
        problems.push(problem(Severity::Warning, "output", what, "see the page Databases"));
    }
}

/// The decoders that do not serve as their files say.
fn of_decoders(guests: &[GuestInfo], problems: &mut Vec<Problem>) {
    let troubled: Vec<&GuestInfo> = guests.iter().filter(|guest| guest.error.is_some()).collect();
    for guest in troubled.iter().take(SHOWN_OF_A_KIND) {
        let place = format!("{}/{}", guest.tenant, guest.message_type);
        let error = guest.error.as_deref().unwrap_or_default();
        let (severity, what, todo) = match (&guest.guest, guest.file_state) {
            (Some(serving), "set_aside") => (
                Severity::Warning,
                format!("the new decoder of {place} was rolled back, and {serving} serves: {error}"),
                "look at its log and its failures on the page Decoders, mend it, and put it again",
            ),
            (Some(serving), _) => (
                Severity::Warning,
                format!("the new decoder of {place} was refused, and {serving} serves: {error}"),
                "mend the decoder and put it again; what serves goes on",
            ),
            (None, _) => (
                Severity::Error,
                format!("no decoder serves {place}: {error}"),
                "put a decoder that may serve; its messages are in quarantine, and can be replayed then",
            ),
        };
        problems.push(problem(severity, "decoder", what, todo));
    }
    if let Some(more @ 1..) = troubled.len().checked_sub(SHOWN_OF_A_KIND) {
        let what = format!("{more} more decoders do not serve as their files say");
        problems.push(problem(Severity::Warning, "decoder", what, "see the page Decoders"));
    }
    for guest in guests.iter().filter(|guest| guest.probation.is_some()).take(SHOWN_OF_A_KIND) {
        let Some(probation) = &guest.probation else { continue };
        let what = format!(
            "the decoder of {}/{} is on probation: {} failures in {} messages so far",
            guest.tenant, guest.message_type, probation.failures, probation.messages
        );
        let todo = "nothing: the version before it comes back by itself if this one fails too often";
        problems.push(problem(Severity::Note, "decoder", what, todo));
    }
}

fn is_near(budget: &Budget) -> bool {
    budget.max() > 0 && budget.used().saturating_mul(100) >= budget.max().saturating_mul(BUDGET_NEAR_PERCENT)
}

fn of_budgets(handles: &Handles, scope: &Scope, problems: &mut Vec<Problem>) {
    let pairs = match scope.tenant() {
        Some(tenant) => vec![(tenant.to_owned(), handles.tenants.budgets_of(tenant))],
        None => {
            let all = handles.tenants.budgets().all().into_iter();
            all.map(|(tenant, pair)| (tenant.to_string(), pair)).collect()
        }
    };
    let near = pairs.iter().flat_map(|(tenant, pair)| {
        [("memory", &pair.memory), ("disk", &pair.disk)].map(|(name, budget)| (tenant, name, budget))
    });
    let near: Vec<_> = near.filter(|(_, _, budget)| is_near(budget)).collect();
    for (tenant, name, budget) in near.iter().take(SHOWN_OF_A_KIND) {
        let what = format!("{tenant} uses {} of {} bytes of its {name}", budget.used(), budget.max());
        let todo = "see by kind on the page Tenants what takes it; at the ceiling only this tenant waits";
        problems.push(problem(Severity::Warning, "budget", what, todo));
    }
    if let Some(more @ 1..) = near.len().checked_sub(SHOWN_OF_A_KIND) {
        let what = format!("{more} more budgets are near their ceilings");
        problems.push(problem(Severity::Warning, "budget", what, "see the page Tenants"));
    }
}

/// Many refusals in the last minutes.
fn of_refusals(handles: &Handles, scope: &Scope, problems: &mut Vec<Problem>) {
    let recent: Vec<(f32, f32)> = match scope.tenant() {
        None => handles.history.gateway().iter().map(|one| (one.messages_per_s, one.refused_per_s)).collect(),
        Some(tenant) => {
            handles.history.tenant(tenant).iter().map(|one| (one.messages_per_s, one.refused_per_s)).collect()
        }
    };
    let recent = &recent[recent.len().saturating_sub(RECENT_SAMPLES)..];
    if let Some(percent) = refused_percent(recent).filter(|percent| *percent >= REFUSED_PERCENT) {
        let what = format!("{percent:.1} % of the messages of the last minutes were refused");
        let todo =
            "see by reason on the page Quarantine what is wrong with them; mended, they can be replayed";
        problems.push(problem(Severity::Warning, "quarantine", what, todo));
    }
}

/// Refused messages in percent; `None` without messages.
fn refused_percent(samples: &[(f32, f32)]) -> Option<f64> {
    let messages: f64 = samples.iter().map(|(messages, _)| f64::from(*messages)).sum();
    let refused: f64 = samples.iter().map(|(_, refused)| f64::from(*refused)).sum();
    (messages > 0.0).then(|| refused / messages * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_paused_database_is_worse_than_one_that_is_tried_again_and_many_are_counted() {
        let database = |name: String, state: &str| json!({"database": name, "state": state, "trouble_s": 7, "lines": 3, "last_answer": "401"});
        let mut databases = vec![database("a".into(), "paused"), database("b".into(), "retrying")];
        let mut problems = Vec::new();
        of_databases(&json!({"databases": databases}), &mut problems);
        assert_eq!((problems[0].severity, problems[1].severity), (Severity::Error, Severity::Warning));
        assert!(problems[0].what.contains("a is paused for 7 s, and 3 lines wait"), "{:?}", problems[0]);
        databases.extend((0..SHOWN_OF_A_KIND).map(|n| database(format!("c{n}"), "retrying")));
        databases.push(json!({"database": "well", "state": "well"}));
        problems.clear();
        of_databases(&json!({"databases": databases}), &mut problems);
        assert_eq!(problems.len(), SHOWN_OF_A_KIND + 1);
        assert!(problems.last().unwrap().what.starts_with("2 more databases"));
    }

    #[test]
    fn refusals_are_counted_against_the_messages_of_the_same_time() {
        assert_eq!(refused_percent(&[]), None);
        assert_eq!(refused_percent(&[(0.0, 0.0)]), None);
        assert_eq!(refused_percent(&[(100.0, 0.0), (100.0, 4.0)]), Some(2.0));
    }
}
