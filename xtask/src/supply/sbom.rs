//! A bill of materials in the form of CycloneDX 1.5 (ECMA-424): the program and all crates in it.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::supply::graph::{Crate, CrateGraph};

const PROGRAM: &str = "tidegate";

/// The bill of the program. It is the same for the same Cargo.lock: no time and no random number is in it.
///
/// # Errors
/// The program is not in the graph.
pub fn bill(graph: &CrateGraph) -> Result<Value> {
    let program = graph.own(PROGRAM).context("the package tidegate is not in the workspace")?;
    let below = graph.below(&program.id);
    let crates = below.iter().filter_map(|id| graph.crates.get(id));
    let mut components: Vec<Value> = crates.map(|found| component(found, "library")).collect();
    components.sort_by(|a, b| a["bom-ref"].as_str().cmp(&b["bom-ref"].as_str()));
    let mut dependencies: Vec<Value> =
        below.iter().chain([&program.id]).filter_map(|id| edges(graph, id)).collect();
    dependencies.sort_by(|a, b| a["ref"].as_str().cmp(&b["ref"].as_str()));
    Ok(json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": component(program, "application"),
            "tools": {"components": [{"type": "application", "name": "cargo xtask sbom", "version": program.version}]},
        },
        "components": components,
        "dependencies": dependencies,
    }))
}

/// The package URL of a crate.
fn purl(found: &Crate) -> String {
    format!("pkg:cargo/{}@{}", found.name, found.version.replace('+', "%2B"))
}

fn component(found: &Crate, kind: &str) -> Value {
    let mut component = json!({
        "type": kind,
        "bom-ref": purl(found),
        "name": found.name,
        "version": found.version,
        "purl": purl(found),
        "scope": "required",
    });
    if let Some(licence) = &found.licence {
        component["licenses"] = json!([{"expression": licence.replace(" / ", " OR ").replace('/', " OR ")}]);
    }
    if let Some(checksum) = &found.checksum {
        component["hashes"] = json!([{"alg": "SHA-256", "content": checksum}]);
    }
    if let Some(description) = &found.description {
        component["description"] = description.trim().into();
    }
    if let Some(repository) = &found.repository {
        component["externalReferences"] = json!([{"type": "vcs", "url": repository}]);
    }
    if found.runs_at_build {
        component["properties"] = json!([{"name": "tidegate:runs-at-build", "value": "true"}]);
    }
    component
}

fn edges(graph: &CrateGraph, id: &str) -> Option<Value> {
    let mut needs: Vec<String> =
        graph.needs.get(id)?.iter().filter_map(|needed| graph.crates.get(needed)).map(purl).collect();
    needs.sort();
    Some(json!({"ref": purl(graph.crates.get(id)?), "dependsOn": needs}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// The required keys and the forms of CycloneDX 1.5, for all that is written.
    #[test]
    fn the_bill_has_the_form_of_cyclonedx() {
        let bill = bill(&CrateGraph::load().unwrap()).unwrap();
        assert_eq!((&bill["bomFormat"], &bill["specVersion"]), (&json!("CycloneDX"), &json!("1.5")));
        assert_eq!(bill["metadata"]["component"]["name"], PROGRAM);
        let components = bill["components"].as_array().unwrap();
        assert!(components.len() > 150, "{}", components.len());
        let mut known: BTreeSet<&str> = [bill["metadata"]["component"]["bom-ref"].as_str().unwrap()].into();
        for component in components {
            let text = |key: &str| component[key].as_str().unwrap_or_else(|| panic!("{key}: {component}"));
            assert_eq!(text("type"), "library");
            assert!(text("purl").starts_with("pkg:cargo/") && text("purl").contains('@'), "{component}");
            assert!(known.insert(text("bom-ref")), "{component} is there twice");
            assert!(!component["licenses"][0]["expression"].as_str().unwrap().contains('/'), "{component}");
            if text("name").starts_with("tidegate") {
                continue;
            }
            let hash = &component["hashes"][0];
            assert_eq!(hash["alg"], "SHA-256");
            let content = hash["content"].as_str().unwrap();
            assert!(content.len() == 64 && content.bytes().all(|byte| byte.is_ascii_hexdigit()));
        }
        for dependency in bill["dependencies"].as_array().unwrap() {
            assert!(known.contains(dependency["ref"].as_str().unwrap()), "{dependency}");
            for needed in dependency["dependsOn"].as_array().unwrap() {
                assert!(known.contains(needed.as_str().unwrap()), "{dependency}");
            }
        }
        for test_only in ["proptest", "rcgen"] {
            assert!(!components.iter().any(|component| component["name"] == test_only), "{test_only}");
        }
    }
}
