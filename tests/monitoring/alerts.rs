//! The alerts, by promtool and by their runbooks.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::boards::repository;
use crate::harness::prometheus::{promtool, shipped};

pub fn rules_text() -> String {
    std::fs::read_to_string(shipped().join("alerts.yml")).unwrap()
}

/// Every rule, as JSON.
pub fn rules() -> Vec<Value> {
    let all: Value = serde_saphyr::from_str(&rules_text()).unwrap();
    let groups = all["groups"].as_array().unwrap().iter();
    groups.flat_map(|group| group["rules"].as_array().unwrap()).cloned().collect()
}

/// Name and severity of every rule.
pub fn names() -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    rules().iter().map(|rule| (text(&rule["alert"]), text(&rule["labels"]["severity"]))).collect()
}

#[test]
fn promtool_takes_the_rules_and_their_tests_pass() {
    let (good, said) = promtool(&shipped(), &["check", "rules", "alerts.yml"]);
    assert!(good && said.contains("SUCCESS"), "{said}");
    let (good, said) = promtool(&shipped(), &["test", "rules", "alerts_test.yml"]);
    assert!(good, "{said}");
}

/// promtool compares what fires with what is expected: a threshold that is too low is found too.
#[test]
fn a_rule_that_is_wrong_fails_its_test() {
    let folder = tempfile::tempdir().unwrap();
    let rules = rules_text();
    let tests = std::fs::read_to_string(shipped().join("alerts_test.yml")).unwrap();
    std::fs::write(folder.path().join("alerts_test.yml"), tests).unwrap();
    for (right, wrong) in [
        ("tidegate_database_state == 2", "tidegate_database_state >= 1"),
        ("tidegate_spool_bytes_max > 0.6", "tidegate_spool_bytes_max > 0.4"),
        ("tidegate_guest_state == 4", "tidegate_guest_state == 3"),
        ("< 14 * 86400", "< 1 * 86400"),
        ("tidegate_books_difference > 0", "tidegate_books_difference > 5"),
    ] {
        assert!(rules.contains(right), "{right}");
        std::fs::write(folder.path().join("alerts.yml"), rules.replace(right, wrong)).unwrap();
        let (good, said) = promtool(folder.path(), &["test", "rules", "alerts_test.yml"]);
        assert!(!good, "{wrong} passes: {said}");
    }
}

#[test]
fn every_alert_has_a_test_of_firing_and_one_of_silence() {
    let tests: Value = {
        let text = std::fs::read_to_string(shipped().join("alerts_test.yml")).unwrap();
        serde_saphyr::from_str(&text).unwrap()
    };
    let mut fires = BTreeSet::new();
    let mut silent = BTreeSet::new();
    for case in tests["tests"].as_array().unwrap().iter().flat_map(|test| {
        test["alert_rule_test"].as_array().unwrap_or_else(|| panic!("{test:#}: alert_rule_test"))
    }) {
        let name = case["alertname"].as_str().unwrap().to_owned();
        let expected = case["exp_alerts"].as_array().map(Vec::as_slice).unwrap_or_default();
        for alert in expected {
            fires.insert((name.clone(), alert["exp_labels"]["severity"].as_str().unwrap().to_owned()));
        }
        if expected.is_empty() {
            silent.insert(name);
        }
    }
    for (name, severity) in names() {
        assert!(silent.contains(&name), "{name}: no test says when it is silent");
        assert!(fires.contains(&(name.clone(), severity.clone())), "{name} ({severity}): no test of firing");
    }
}

#[test]
fn every_alert_has_a_severity_words_with_the_value_and_a_runbook() {
    let runbooks = std::fs::read_to_string(repository().join("docs/RUNBOOKS.md")).unwrap();
    let headings: BTreeMap<String, &str> = runbooks
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .map(|heading| (heading.to_lowercase().replace(' ', "-"), heading))
        .collect();
    let mut used = BTreeSet::new();
    for rule in rules() {
        let (name, notes) = (rule["alert"].as_str().unwrap(), &rule["annotations"]);
        assert!(
            matches!(rule["labels"]["severity"].as_str(), Some("critical" | "warning" | "info")),
            "{name}"
        );
        assert!(
            notes["summary"].as_str().unwrap().contains("{{ $value"),
            "{name}: its value is in the summary"
        );
        assert!(notes["description"].as_str().unwrap().ends_with('.'), "{name}: a description in sentences");
        let url = notes["runbook_url"].as_str().unwrap();
        let (page, anchor) = url.split_once('#').unwrap_or_else(|| panic!("{name}: {url}"));
        assert!(page.ends_with("/docs/RUNBOOKS.md"), "{name}: {url}");
        assert_eq!(headings.get(anchor), Some(&name), "{name}: {url} is no section");
        used.insert(anchor.to_owned());
    }
    for (anchor, heading) in headings.iter().filter(|(anchor, _)| anchor.starts_with("tidegate")) {
        assert!(used.contains(anchor), "{heading} is about no alert");
    }
}

/// The parts of a section: what an operator needs at night, in this order.
#[test]
fn every_runbook_says_what_it_means_what_is_seen_how_to_find_the_cause_what_to_do_and_when_it_is_over() {
    let runbooks = std::fs::read_to_string(repository().join("docs/RUNBOOKS.md")).unwrap();
    let sections: Vec<&str> = runbooks.split("\n## ").skip(1).collect();
    let alerts: BTreeSet<String> = names().into_iter().map(|(name, _)| name).collect();
    let about = sections.iter().filter(|section| alerts.contains(section.lines().next().unwrap()));
    let mut seen = 0;
    for section in about {
        let mut rest = *section;
        for part in ["**It means:**", "**You see:**", "**Find the cause:**", "**Do:**", "**It is over when**"]
        {
            let place = rest.find(part);
            let place =
                place.unwrap_or_else(|| panic!("{part} is missing or in another place in\n{section}"));
            rest = &rest[place..];
        }
        assert!(section.contains("tidegate ") || section.contains("curl "), "no command in\n{section}");
        seen += 1;
    }
    assert_eq!(seen, alerts.len());
}
