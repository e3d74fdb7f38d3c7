//! The configuration as people read it: what holds and why, and what every key means.

use std::fmt::Write;

use toml::{Table, Value};

use super::Effective;
use super::sections::{Config, reference};

/// Keys whose values are never shown.
const SECRETS: &[&str] = &["mqtt.password", "output.token", "output.password"];

/// The effective configuration as TOML, each value with its source behind it. Secrets are hidden.
pub fn effective(effective: &Effective) -> String {
    let table = Table::try_from(effective.config.clone()).expect("a configuration is a table");
    let mut text = String::new();
    write_table(&mut text, &table, "", effective);
    text
}

fn write_table(text: &mut String, table: &Table, prefix: &str, effective: &Effective) {
    let (sections, keys): (Vec<_>, Vec<_>) = table.iter().partition(|(_, value)| value.is_table());
    if !prefix.is_empty() && (!keys.is_empty() || sections.is_empty()) {
        let _ = writeln!(text, "\n[{prefix}]");
    }
    for (key, value) in keys {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        let shown = shown(&path, value);
        let _ = writeln!(text, "{:<48} # {}", format!("{key} = {shown}"), effective.sources.of(&path));
    }
    for (key, value) in sections {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        write_table(text, value.as_table().expect("partitioned"), &path, effective);
    }
}

fn shown(path: &str, value: &Value) -> String {
    match value {
        Value::String(secret) if SECRETS.contains(&path) && !secret.is_empty() => "\"(hidden)\"".into(),
        Value::String(url) if path == "registry.url" => Value::String(without_password(url)).to_string(),
        value => value.to_string(),
    }
}

/// The effective configuration as JSON: for each key its value and its source.
pub fn effective_json(effective: &Effective) -> serde_json::Value {
    fn walk(value: &Value, path: &str, effective: &Effective) -> serde_json::Value {
        match value {
            Value::Table(table) => table
                .iter()
                .map(|(key, value)| {
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    (key.clone(), walk(value, &path, effective))
                })
                .collect::<serde_json::Map<_, _>>()
                .into(),
            leaf => {
                let shown = match leaf {
                    Value::String(secret) if SECRETS.contains(&path) && !secret.is_empty() => {
                        "(hidden)".into()
                    }
                    Value::String(url) if path == "registry.url" => without_password(url).into(),
                    leaf => serde_json::to_value(leaf).expect("a TOML value is a JSON value"),
                };
                serde_json::json!({"value": shown, "source": effective.sources.of(path).to_string()})
            }
        }
    }
    let table = Table::try_from(effective.config.clone()).expect("a configuration is a table");
    walk(&Value::Table(table), "", effective)
}

/// A URL with the password taken out.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.into() };
    match rest.rsplit_once('@') {
        Some((credentials, host)) => {
            let user = credentials.split(':').next().unwrap_or_default();
            format!("{scheme}://{user}:(hidden)@{host}")
        }
        None => url.into(),
    }
}

/// The reference page: every key with its default and its meaning, as a TOML file.
pub fn reference_page() -> String {
    let defaults = Table::try_from(Config::default()).expect("the default configuration is a table");
    let mut text = String::new();
    for (section, keys) in reference() {
        if !section.is_empty() {
            let _ = writeln!(text, "\n[{section}]");
        }
        let mut place = Some(&defaults);
        for name in section.split('.').filter(|name| !name.is_empty()) {
            place = place.and_then(|table| table.get(name)).and_then(Value::as_table);
        }
        for key in keys {
            for line in key.doc.lines() {
                let _ = writeln!(text, "#{line}");
            }
            match place.and_then(|table| table.get(key.key)) {
                Some(Value::Table(_)) => {}
                Some(value) => {
                    let _ = writeln!(text, "{} = {value}", key.key);
                }
                None => {
                    let _ = writeln!(text, "# {} = …", key.key);
                }
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, load};

    #[test]
    fn secrets_are_hidden_and_sources_are_named() {
        let environment: Environment = [
            ("INFLUXDB_TOKEN".to_string(), "very-secret".to_string()),
            ("TIDEGATE_OUTPUT__BATCH_LINES".to_string(), "100".to_string()),
        ]
        .into();
        let loaded = load(None, &environment).unwrap();
        let text = effective(&loaded);
        assert!(!text.contains("very-secret"));
        assert!(text.contains("variable INFLUXDB_TOKEN"));
        assert!(text.contains("batch_lines = 100"));
        assert!(!effective_json(&loaded).to_string().contains("very-secret"));
    }

    #[test]
    fn the_reference_page_is_a_configuration_that_loads() {
        let page = reference_page();
        toml::from_str::<Config>(&page).unwrap();
    }
}
