//! The names of metrics: those of a gateway, those that dashboards and alerts use, and those of the page about them.

use std::collections::BTreeSet;

use super::alerts::rules;
use super::boards::{queries, repository, variables};
use crate::harness::gateway::GatewayDir;

/// Series that Prometheus itself makes.
const OF_PROMETHEUS: [&str; 2] = ["up", "ALERTS"];

/// The names of metrics in an expression: words with one of our beginnings.
fn names_in(expr: &str) -> BTreeSet<String> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut quoted = false;
    let plain: String = expr
        .chars()
        .map(|c| {
            quoted ^= c == '"';
            if quoted { ' ' } else { c }
        })
        .collect();
    let words = plain.split(|c| !is_word(c));
    let known = words.filter(|word| {
        word.starts_with("tidegate_") || word.starts_with("process_") || OF_PROMETHEUS.contains(word)
    });
    known.map(str::to_owned).collect()
}

/// The names of all series that a gateway can have, by the lines about types in its answer.
fn names_of_a_gateway() -> BTreeSet<String> {
    let scene = GatewayDir::new();
    let gateway = scene.start();
    let (status, text) = gateway.get("/metrics");
    assert_eq!(status, 200);
    let mut names = BTreeSet::new();
    for line in text.lines() {
        let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) else {
            continue;
        };
        match kind {
            "counter" => _ = names.insert(format!("{name}_total")),
            "histogram" => names.extend(["bucket", "sum", "count"].map(|end| format!("{name}_{end}"))),
            _ => _ = names.insert(name.to_owned()),
        }
    }
    names
}

#[test]
fn every_metric_of_dashboards_and_alerts_is_one_of_the_gateway_and_every_metric_is_on_the_page() {
    let gateway = names_of_a_gateway();
    assert!(gateway.contains("tidegate_messages_received_total"), "{gateway:?}");
    let mut used: Vec<(String, String)> = Vec::new();
    for query in queries() {
        used.push((format!("{}: {}", query.board, query.panel), query.expr));
    }
    for (board, name, query) in variables() {
        used.push((format!("{board}: ${name}"), query));
    }
    for rule in rules() {
        used.push((rule["alert"].to_string(), rule["expr"].as_str().unwrap().to_owned()));
    }
    for (place, expr) in &used {
        let names = names_in(expr);
        assert!(!names.is_empty(), "{place}: no metric in {expr}");
        for name in names.iter().filter(|name| !OF_PROMETHEUS.contains(&name.as_str())) {
            assert!(gateway.contains(name), "{place}: the gateway has no {name}");
        }
    }
    let page = std::fs::read_to_string(repository().join("docs/MONITORING.md")).unwrap();
    let rows: BTreeSet<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|line| line.split(['`', '{']).next())
        .map(str::to_owned)
        .collect();
    let shown = |name: &String| {
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        rows.contains(name) || base.is_some_and(|base| rows.contains(base))
    };
    let missing: Vec<&String> = gateway.iter().filter(|name| !shown(name)).collect();
    assert!(missing.is_empty(), "docs/MONITORING.md does not have {missing:?}");
    let is_there = |name: &str| gateway.contains(name) || gateway.contains(&format!("{name}_bucket"));
    let gone: Vec<&String> = rows
        .iter()
        .filter(|name| name.starts_with("tidegate_") || name.starts_with("process_"))
        .filter(|name| !is_there(name))
        .collect();
    assert!(gone.is_empty(), "docs/MONITORING.md has {gone:?}, and the gateway has not");
}

#[test]
fn names_are_found_outside_of_strings_alone() {
    let expr = r#"sum(rate(tidegate_a_total{x="tidegate_b"}[5m])) / up > process_c"#;
    let names: Vec<String> = names_in(expr).into_iter().collect();
    assert_eq!(names, ["process_c", "tidegate_a_total", "up"]);
}
