//! A Prometheus that watches gateways, and the values that panels and alerts are to show there.

use std::time::{Duration, Instant};

use super::alerts::rules_text;
use super::boards::{PanelQuery, queries};
use crate::harness::prometheus::{Prometheus, Series};

/// The operator's token of every gateway that is watched.
pub const TOKEN: &str = "of-the-operator";

/// Time for one fault to be seen on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A value that a query is to give.
#[derive(Clone, Copy, Debug)]
pub enum Check {
    Is(f64),
    Above(f64),
    Below(f64),
}

impl Check {
    fn takes(self, value: f64) -> bool {
        match self {
            Check::Is(expected) => value == expected,
            Check::Above(bound) => value > bound,
            Check::Below(bound) => value < bound,
        }
    }
}

pub type Labels = &'static [(&'static str, &'static str)];

/// One thing that is to be seen.
#[derive(Clone, Copy, Debug)]
pub enum Shown {
    /// A query of a panel gives a series with these labels, and this value.
    Panel { board: &'static str, panel: &'static str, letter: &'static str, labels: Labels, check: Check },
    /// An alert fires.
    Alert { name: &'static str, severity: &'static str, labels: Labels },
}

pub const fn panel(
    board: &'static str,
    panel: &'static str,
    letter: &'static str,
    labels: Labels,
    check: Check,
) -> Shown {
    Shown::Panel { board, panel, letter, labels, check }
}

pub const fn alert(name: &'static str, severity: &'static str, labels: Labels) -> Shown {
    Shown::Alert { name, severity, labels }
}

/// Ages and ranges of the rules that a test cannot wait for, and what stands in their place.
const SHORTENED: [(&str, &str); 3] = [
    ("age_seconds > 300'", "age_seconds > 1'"),
    ("age_seconds > 3600'", "age_seconds > 2'"),
    // As it is: it counts starts, and a start takes its time.
    (
        "process_start_time_seconds{job=\"tidegate\"}[30m]",
        "process_start_time_seconds{job=\"tidegate\"}[1800s]",
    ),
];

/// Durations become a hundred and twentieth, those of ranges at least five seconds.
fn shortened(rules: &str) -> String {
    let mut rules = rules.to_owned();
    for (from, to) in SHORTENED {
        assert!(rules.contains(from), "no rule has {from}");
        rules = rules.replace(from, to);
    }
    let mut text = String::new();
    let mut rest = rules.as_str();
    while let Some((begin, least_ms)) = ["[", "offset ", "for: "]
        .into_iter()
        .filter_map(|begin| Some((rest.find(begin)?, begin)))
        .min()
        .map(|(at, begin)| (at + begin.len(), if begin == "for: " { 500 } else { 5_000 }))
    {
        text.push_str(&rest[..begin]);
        rest = &rest[begin..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        let (number, unit) = rest[..end].split_at(end - 1);
        let unit_s = match unit {
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            // Seconds stay as they are.
            _ => 0,
        };
        match number.parse::<u64>() {
            Ok(number) if unit_s > 0 => {
                text.push_str(&format!("{}ms", (number * unit_s * 1_000 / 120).max(least_ms)));
            }
            _ => text.push_str(&rest[..end]),
        }
        rest = &rest[end..];
    }
    text + rest
}

/// A Prometheus that scrapes some gateways, with the shipped rules in short.
pub struct Watch {
    pub prometheus: Prometheus,
    queries: Vec<PanelQuery>,
}

impl Watch {
    pub async fn on(gateways: &[&str]) -> Self {
        let prometheus = Prometheus::start(gateways, &shortened(&rules_text()), TOKEN).await;
        Self { prometheus, queries: queries() }
    }

    /// The expression of a panel as Grafana sends it, with acme chosen on the page of a tenant.
    pub fn expr(&self, board: &str, panel: &str, letter: &str, gateway: &str) -> String {
        let found = self
            .queries
            .iter()
            .find(|query| query.board == board && query.panel == panel && query.letter == letter)
            .unwrap_or_else(|| panic!("no query {letter} in {board}: {panel}"));
        let tenant = if board == "tenant" { "acme" } else { ".*" };
        let expr = found.expr.replace("$gateway", gateway).replace("$tenant", tenant);
        expr.replace("$type", ".*").replace("$__rate_interval", "5s")
    }

    /// The series of it.
    async fn look(&self, gateway: &str, shown: &Shown) -> Result<(), String> {
        match shown {
            Shown::Panel { board, panel, letter, labels, check } => {
                let series = self.prometheus.query(&self.expr(board, panel, letter, gateway)).await;
                let fits = |one: &Series| one.has(labels) && check.takes(one.value);
                if series.iter().any(fits) { Ok(()) } else { Err(format!("{series:?}")) }
            }
            Shown::Alert { name, severity, labels } => {
                let alerts = self.prometheus.alerts().await;
                let fits = |one: &serde_json::Value| {
                    let has = |name: &str, value: &str| one["labels"][name] == value;
                    let words = one["annotations"]["summary"].as_str().unwrap_or_default();
                    one["state"] == "firing"
                        && has("alertname", name)
                        && has("severity", severity)
                        && (*name == "TidegateAbsent" || has("instance", gateway))
                        && labels.iter().all(|(name, value)| has(name, value))
                        && labels.iter().all(|(_, value)| words.contains(value))
                        && !words.contains("error expanding")
                        && !words.contains("no value")
                };
                if alerts.iter().any(fits) {
                    return Ok(());
                }
                let of_name = alerts.iter().filter(|one| one["labels"]["alertname"] == *name);
                Err(format!("{:?}", of_name.collect::<Vec<_>>()))
            }
        }
    }

    /// Waits until each of these was seen once. Meanwhile `act` keeps the fault up, or the traffic.
    pub async fn sees(&self, gateway: &str, expected: &[Shown], mut act: impl FnMut()) {
        let deadline = Instant::now() + PATIENCE;
        let mut left: Vec<&Shown> = expected.iter().collect();
        loop {
            act();
            let mut unseen = Vec::new();
            let mut why = Vec::new();
            for shown in left {
                if let Err(instead) = self.look(gateway, shown).await {
                    unseen.push(shown);
                    why.push(format!("{shown:?}\n    but {instead}"));
                }
            }
            if unseen.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "not seen within {PATIENCE:?}:\n{}", why.join("\n"));
            left = unseen;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until an alert fires no more.
    pub async fn no_longer(&self, gateway: &str, name: &str, mut act: impl FnMut()) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            act();
            let alerts = self.prometheus.alerts().await;
            let fires = |one: &serde_json::Value| {
                one["labels"]["alertname"] == name && one["labels"]["instance"] == gateway
            };
            if !alerts.iter().any(fires) {
                return;
            }
            assert!(Instant::now() < deadline, "{name} still fires after {PATIENCE:?}: {alerts:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The alerts that fire while every rule is evaluated so many times.
    pub async fn fired_in(&self, evaluations: usize, mut act: impl FnMut()) -> Vec<String> {
        let mut fired = Vec::new();
        let (mut last, mut left) = (Vec::new(), evaluations);
        let deadline = Instant::now() + PATIENCE;
        while left > 0 {
            act();
            let now = self.prometheus.evaluations().await;
            let is_next = now.iter().zip(&last).all(|(now, last)| now != last);
            if !now.is_empty() && (last.is_empty() || is_next) {
                (last, left) = (now, left - 1);
            }
            for one in self.prometheus.alerts().await.iter().filter(|one| one["state"] == "firing") {
                fired.push(format!("{}: {}", one["labels"]["alertname"], one["annotations"]["summary"]));
            }
            assert!(Instant::now() < deadline, "rules are not evaluated");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        fired
    }
}

#[test]
fn durations_of_rules_become_short_and_nothing_else_changes() {
    let rules = shortened(&rules_text());
    for part in ["> 1'", "> 2'", "[1800s]", "[180000ms] offset 15000ms", "for: 2500ms", "< 14 * 86400'"] {
        assert!(rules.contains(part), "{part} is not in\n{rules}");
    }
    for part in ["[10m]", "offset 30m", "for: 5m", "> 300'"] {
        assert!(!rules.contains(part), "{part} is still in\n{rules}");
    }
}
