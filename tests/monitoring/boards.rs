//! The dashboards of Grafana, read as JSON models.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// Panels that every Grafana has.
const BUILT_IN: [&str; 6] = ["row", "stat", "timeseries", "bargauge", "state-timeline", "table"];

/// The dashboards, by the names of their files.
pub const BOARDS: [&str; 3] = ["overview", "tenant", "decoders"];

pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

pub fn board(name: &str) -> Value {
    let path = repository().join(format!("deploy/grafana/{name}.json"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// One query of one panel.
#[derive(Clone, Debug)]
pub struct PanelQuery {
    pub board: &'static str,
    pub panel: String,
    /// The letter of the query in its panel.
    pub letter: String,
    pub expr: String,
}

/// Every query of every panel.
pub fn queries() -> Vec<PanelQuery> {
    let mut queries = Vec::new();
    for name in BOARDS {
        let model = board(name);
        for panel in list(&model["panels"]) {
            for target in list(&panel["targets"]) {
                queries.push(PanelQuery {
                    board: name,
                    panel: text(&panel["title"]).into(),
                    letter: text(&target["refId"]).into(),
                    expr: text(&target["expr"]).into(),
                });
            }
        }
    }
    queries
}

/// The queries of the variables: board, name and expression.
pub fn variables() -> Vec<(&'static str, String, String)> {
    let mut variables = Vec::new();
    for name in BOARDS {
        for variable in list(&board(name)["templating"]["list"]) {
            if variable["type"] == "query" {
                let (of, query) = (text(&variable["name"]), text(&variable["query"]["query"]));
                variables.push((name, of.to_owned(), query.to_owned()));
            }
        }
    }
    variables
}

#[test]
fn every_panel_is_built_in_and_has_a_unit_a_description_and_the_chosen_data_source() {
    let mut uids = BTreeSet::new();
    for name in BOARDS {
        let model = board(name);
        assert!(uids.insert(text(&model["uid"]).to_owned()), "{name}: its uid is another's");
        for key in ["id", "__inputs", "__requires"] {
            assert!(model.get(key).is_none(), "{name}: {key} belongs to one Grafana");
        }
        let (mut ids, mut titles) = (BTreeSet::new(), BTreeSet::new());
        for panel in list(&model["panels"]) {
            let (title, kind) = (text(&panel["title"]), text(&panel["type"]));
            let place = format!("{name}: {title}");
            assert!(BUILT_IN.contains(&kind), "{place}: {kind} is no built-in panel");
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{place}: its id is another's");
            assert!(titles.insert(title.to_owned()), "{place}: its title is another's");
            if kind == "row" {
                continue;
            }
            assert!(text(&panel["description"]).ends_with('.'), "{place}: a description in sentences");
            assert!(!text(&panel["fieldConfig"]["defaults"]["unit"]).is_empty(), "{place}: a unit");
            assert!(!list(&panel["targets"]).is_empty(), "{place}: a query");
            for source in list(&panel["targets"]).iter().chain([panel]) {
                assert_eq!(
                    source["datasource"]["uid"], "${datasource}",
                    "{place}: the data source is chosen"
                );
            }
        }
    }
}

#[test]
fn no_panels_lie_over_each_other() {
    for name in BOARDS {
        let model = board(name);
        let mut cells = BTreeSet::new();
        for panel in list(&model["panels"]) {
            let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
            let (x, y, w, h) = (at("x"), at("y"), at("w"), at("h"));
            assert!(x + w <= 24, "{name}: {} is beyond the 24 columns", panel["title"]);
            for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
                assert!(cells.insert(cell), "{name}: {} lies over another", panel["title"]);
            }
        }
    }
}

#[test]
fn every_query_is_of_the_chosen_gateways_and_of_the_chosen_tenant() {
    for query in queries() {
        let place = format!("{}: {}: {}", query.board, query.panel, query.expr);
        assert!(query.expr.contains("$gateway"), "{place}");
        let of_tenant = query.expr.contains("tenant=\"$tenant\"");
        assert!(query.board != "tenant" || of_tenant, "{place}");
        assert!(!query.expr.contains("rate(") || query.expr.contains("[$__rate_interval]"), "{place}");
    }
    for board_name in BOARDS {
        let model = board(board_name);
        let first = &model["templating"]["list"][0];
        assert_eq!((&first["type"], &first["name"]), (&"datasource".into(), &"datasource".into()));
    }
}
