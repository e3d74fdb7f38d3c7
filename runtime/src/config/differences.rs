//! Differences of two configurations that need a restart.

use toml::{Table, Value};

use crate::config::sections::Config;

/// Keys outside of `[tenants]` that differ, by their paths.
pub(crate) fn differences(was: &Config, is: &Config) -> Vec<String> {
    fn walk(was: &Table, is: &Table, path: &str, found: &mut Vec<String>) {
        let keys: std::collections::BTreeSet<&String> = was.keys().chain(is.keys()).collect();
        for key in keys {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            match (was.get(key), is.get(key)) {
                (Some(Value::Table(was)), Some(Value::Table(is))) => walk(was, is, &path, found),
                (was, is) if was != is => found.push(path),
                _ => {}
            }
        }
    }
    let table = |config: &Config| {
        let mut table = Table::try_from(config).expect("a configuration is a table");
        table.remove("tenants");
        table
    };
    let mut found = Vec::new();
    walk(&table(was), &table(is), "", &mut found);
    found
}
