//! deny.toml, as far as it can be checked without cargo-deny: licences, sources, duplicates.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use toml::{Table, Value};

use crate::supply::graph::CrateGraph;
use crate::supply::licence::is_allowed;

/// The policy on dependencies.
#[derive(Debug)]
pub struct Policy {
    licences: BTreeSet<String>,
    registries: BTreeSet<String>,
    /// Crates that may be there in more than one version.
    several: BTreeSet<String>,
}

impl Policy {
    /// # Errors
    /// A section is missing.
    pub fn parse(text: &str) -> Result<Self> {
        let table: Table = text.parse().context("deny.toml is no TOML")?;
        let list = |section: &str, key: &str| -> Result<Vec<Value>> {
            let list = table.get(section).and_then(|section| section.get(key)).and_then(Value::as_array);
            Ok(list.with_context(|| format!("deny.toml has no list {section}.{key}"))?.clone())
        };
        let texts = |values: Vec<Value>| values.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        let skipped = list("bans", "skip")?;
        let name = |skip: &Value| Some(skip.get("crate")?.as_str()?.to_owned());
        Ok(Self {
            licences: texts(list("licenses", "allow")?),
            registries: texts(list("sources", "allow-registry")?),
            several: skipped.iter().filter_map(name).collect(),
        })
    }

    /// All that the policy does not allow. A line that allows what is not there is one too.
    pub fn faults(&self, graph: &CrateGraph) -> Vec<String> {
        let mut faults = Vec::new();
        let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for found in graph.crates.values() {
            let named = format!("{} {}", found.name, found.version);
            versions.entry(&found.name).or_default().insert(&found.version);
            match &found.licence {
                Some(licence) if is_allowed(licence, &self.licences) => {}
                Some(licence) => faults.push(format!("{named}: the licence {licence} is not allowed")),
                None => faults.push(format!("{named}: it names no licence")),
            }
            if let Some(source) = &found.source {
                let registry = source.strip_prefix("registry+").unwrap_or(source);
                if !self.registries.contains(registry) {
                    faults.push(format!("{named}: it comes from {source}"));
                } else if found.checksum.is_none() {
                    faults.push(format!("{named}: Cargo.lock has no checksum for it"));
                }
            }
        }
        for (name, versions) in &versions {
            if versions.len() > 1 && !self.several.contains(*name) {
                let versions: Vec<&str> = versions.iter().copied().collect();
                faults.push(format!("{name}: it is there in the versions {}", versions.join(", ")));
            }
        }
        for name in &self.several {
            if versions.get(name.as_str()).is_none_or(|versions| versions.len() < 2) {
                faults.push(format!("{name}: bans.skip names it, but it is there in one version at most"));
            }
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supply::graph::Crate;

    const POLICY: &str = "[licenses]\nallow = [\"MIT\"]\n[sources]\nallow-registry = [\"https://r\"]\n\
                          [bans]\nskip = [{ crate = \"twice\" }]\n";

    fn graph(crates: &[Crate]) -> CrateGraph {
        let mut graph = CrateGraph::default();
        for (number, found) in crates.iter().enumerate() {
            graph.crates.insert(number.to_string(), found.clone());
        }
        graph
    }

    fn good(name: &str, version: &str) -> Crate {
        Crate {
            name: name.into(),
            version: version.into(),
            licence: Some("MIT".into()),
            source: Some("registry+https://r".into()),
            checksum: Some("ab".into()),
            ..Crate::default()
        }
    }

    #[test]
    fn each_breach_of_the_policy_is_named() {
        let policy = Policy::parse(POLICY).unwrap();
        let twice = [good("twice", "1.0.0"), good("twice", "2.0.0")];
        assert_eq!(policy.faults(&graph(&twice)), Vec::<String>::new());
        for (bad, word) in [
            (Crate { licence: Some("GPL-3.0".into()), ..good("a", "1.0.0") }, "GPL-3.0"),
            (Crate { licence: None, ..good("a", "1.0.0") }, "no licence"),
            (Crate { source: Some("git+https://g".into()), ..good("a", "1.0.0") }, "comes from git"),
            (Crate { checksum: None, ..good("a", "1.0.0") }, "no checksum"),
        ] {
            let faults = policy.faults(&graph(&[twice[0].clone(), twice[1].clone(), bad]));
            assert_eq!(faults.len(), 1, "{faults:?}");
            assert!(faults[0].contains(word), "{faults:?}");
        }
        let faults = policy.faults(&graph(&[good("b", "1.0.0"), good("b", "2.0.0")]));
        assert!(faults[0].contains("1.0.0, 2.0.0") && faults[1].contains("twice"), "{faults:?}");
        assert!(Policy::parse("").is_err());
    }
}
