//! Each query of each panel, and each alert, is seen in one of the faults.

use std::collections::BTreeSet;

use super::alerts;
use super::boards::queries;
use super::faults::{away, databases, decoders, disk, refusals, tenants, well};
use super::shown::Shown;

const ALL: &[&[Shown]] = &[
    well::SHOWN,
    databases::AWAY,
    databases::PAUSED,
    refusals::SHOWN,
    decoders::PROBATION,
    decoders::SHOWN,
    disk::FULL,
    disk::DROPPING,
    disk::FAILING,
    disk::SLOW,
    disk::PASSED_OVER,
    disk::UNSET_CLOCK,
    disk::UNREADABLE,
    disk::DAMAGED,
    tenants::SILENT,
    tenants::REGISTRY_ASKED,
    tenants::REGISTRY_AWAY,
    tenants::STALE,
    away::BROKER_AWAY,
    away::CROWDED,
    away::STARTED_AGAIN,
    away::DOWN,
    away::ABSENT,
    away::CERTIFICATES,
];

/// Alerts that only promtool makes fire, and why.
const BY_PROMTOOL: [(&str, &str); 2] = [
    ("TidegateBooksOutOfBalance", "no fault that a test can make does it: that is the promise"),
    ("TidegateLogLinesDropped", "a megabyte of log must wait first, which another test has made already"),
];

#[test]
fn every_query_of_every_panel_and_every_alert_is_seen_in_a_fault() {
    let (mut panels, mut fired) = (BTreeSet::new(), BTreeSet::new());
    for shown in ALL.iter().copied().flatten() {
        match *shown {
            Shown::Panel { board, panel, letter, .. } => _ = panels.insert((board, panel, letter)),
            Shown::Alert { name, severity, .. } => _ = fired.insert((name, severity)),
        }
    }
    let all = queries();
    let unseen: Vec<_> = all
        .iter()
        .filter(|one| !panels.contains(&(one.board, one.panel.as_str(), one.letter.as_str())))
        .map(|one| format!("{}: {} {}", one.board, one.panel, one.letter))
        .collect();
    assert!(unseen.is_empty(), "no fault shows {unseen:#?}");
    for (board, panel, letter) in &panels {
        let is_there = |one: &super::boards::PanelQuery| {
            (one.board, one.panel.as_str(), one.letter.as_str()) == (*board, *panel, *letter)
        };
        assert!(all.iter().any(is_there), "{board}: {panel} {letter} is no query");
    }
    let names = alerts::names();
    for (name, severity) in &names {
        let known = BY_PROMTOOL.iter().any(|(only, _)| only == name);
        assert!(known != fired.contains(&(name.as_str(), severity.as_str())), "{name} ({severity})");
    }
    for one in &fired {
        let is_there = |(name, severity): &(String, String)| (name.as_str(), severity.as_str()) == *one;
        assert!(names.iter().any(is_there), "{one:?} is no alert");
    }
}
