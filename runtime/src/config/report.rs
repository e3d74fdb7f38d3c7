//! The configuration as people read it: what holds and why, and what every key means.

use std::fmt::Write;

use toml::{Table, Value};

use crate::config::effective::EffectiveConfig;
use crate::config::sections::{Config, TopicSection, reference};
use crate::config::tenants::{CREDENTIALS, DEFAULTS};
use crate::core::redacted_url::RedactedUrl;

/// Keys of URLs, which may contain a password.
const URLS: &[&str] = &["mqtt.url", "registry.url", "output.url", "fleet.postgres"];

/// Keys whose values are never shown.
const SECRETS: &[&str] = &["mqtt.password", "output.token", "output.password"];

/// The effective configuration as TOML, each value with its source behind it. Secrets are hidden.
pub fn effective(effective: &EffectiveConfig) -> String {
    let table = Table::try_from(effective.config.clone()).expect("a configuration is a table");
    let mut text = String::new();
    write_table(&mut text, &table, "", effective);
    text
}

fn write_table(text: &mut String, table: &Table, prefix: &str, effective: &EffectiveConfig) {
    if prefix == "tenants" {
        return write_tenants(text, effective);
    }
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

/// Each tenant with settings of its own: all that holds for it, by what is its own and what is not.
fn write_tenants(text: &mut String, effective: &EffectiveConfig) {
    for name in effective.config.tenants.keys() {
        let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
        let quoted =
            if plain && !name.is_empty() { name.clone() } else { Value::from(name.as_str()).to_string() };
        let _ = writeln!(text, "\n[tenants.{quoted}]");
        for (key, value, source) in tenant_values(effective, name) {
            let _ = writeln!(text, "{:<48} # {source}", format!("{key} = {value}"));
        }
    }
}

/// A named tenant's settings: keys, values with secrets hidden, and their sources.
pub fn tenant_values(effective: &EffectiveConfig, name: &str) -> Vec<(String, Value, String)> {
    let config = Table::try_from(&effective.config).expect("a configuration is a table");
    let own = effective.config.tenants.get(name).cloned().unwrap_or_default();
    let is_elsewhere = own.output_url.as_ref().is_some_and(|url| *url != effective.config.output.url);
    let own = Table::try_from(own).expect("settings are a table");
    let source_of = |key: &str| effective.sources.of(&format!("tenants.{name}.{key}")).to_string();
    let mut values = Vec::new();
    for (key, common) in DEFAULTS {
        let (section, common_key) = common.split_once('.').expect("keys lie in sections");
        let of_pair = |key: &str| {
            own.contains_key(key.trim_end_matches("_file"))
                || own.contains_key(&format!("{}_file", key.trim_end_matches("_file")))
        };
        let (value, source) = match own.get(*key) {
            Some(value) => (value.clone(), source_of(key)),
            None if CREDENTIALS.contains(key) && (is_elsewhere || of_pair(key)) => {
                (Value::String(String::new()), format!("none: not as {common}"))
            }
            None => (
                config[section][common_key].clone(),
                format!("as {common}, {}", effective.sources.of(common)),
            ),
        };
        let secret = matches!(*key, "output_token" | "output_password");
        let value = match value {
            Value::String(text) if secret && !text.is_empty() => Value::String("(hidden)".into()),
            Value::String(url) if *key == "output_url" => Value::String(RedactedUrl(&url).to_string()),
            value => value,
        };
        values.push(((*key).to_owned(), value, source));
    }
    if let Some(Value::Table(tables)) = own.get("fields_of") {
        for (table, fields) in tables {
            let source = effective.sources.of(&format!("tenants.{name}.fields_of.{table}")).to_string();
            let source = if source == "default" { source_of("fields_of") } else { source };
            values.push((format!("fields_of.{}", Value::from(table.as_str())), fields.clone(), source));
        }
    }
    values
}

fn shown(path: &str, value: &Value) -> String {
    match value {
        Value::String(secret) if SECRETS.contains(&path) && !secret.is_empty() => "\"(hidden)\"".into(),
        Value::String(url) if URLS.contains(&path) => Value::String(RedactedUrl(url).to_string()).to_string(),
        value => value.to_string(),
    }
}

/// The effective configuration as JSON: for each key its value and its source.
pub fn effective_json(effective: &EffectiveConfig) -> serde_json::Value {
    fn walk(value: &Value, path: &str, effective: &EffectiveConfig) -> serde_json::Value {
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
                    Value::String(url) if URLS.contains(&path) => RedactedUrl(url).to_string().into(),
                    leaf => serde_json::to_value(leaf).expect("a TOML value is a JSON value"),
                };
                serde_json::json!({"value": shown, "source": effective.sources.of(path).to_string()})
            }
        }
    }
    let mut table = Table::try_from(effective.config.clone()).expect("a configuration is a table");
    table.remove("tenants");
    let mut all = walk(&Value::Table(table), "", effective);
    let tenants = effective.config.tenants.keys().map(|name| {
        let values = tenant_values(effective, name).into_iter().map(|(key, value, source)| {
            let value = serde_json::to_value(value).expect("a TOML value is a JSON value");
            (key, serde_json::json!({"value": value, "source": source}))
        });
        (name.clone(), values.collect::<serde_json::Map<_, _>>().into())
    });
    all["tenants"] = tenants.collect::<serde_json::Map<_, _>>().into();
    all
}

/// The reference page: every key with its default and its meaning, as a TOML file.
pub fn reference_page() -> String {
    let defaults = Table::try_from(Config::default()).expect("the default configuration is a table");
    let mut text = String::new();
    for (section, keys) in reference() {
        // The page is a configuration that loads, and a template means nothing without its text.
        let is_example = section == "topics";
        if is_example {
            let _ = writeln!(text, "\n# [[topics]]");
        } else if !section.is_empty() {
            let _ = writeln!(text, "\n[{section}]");
        }
        let example = Table::try_from(TopicSection::default()).expect("a section is a table");
        let mut place = Some(&defaults);
        for name in section.split('.').filter(|name| !name.is_empty()) {
            place = place.and_then(|table| table.get(name)).and_then(Value::as_table);
        }
        if is_example {
            place = Some(&example);
        }
        let comment = if is_example { "# " } else { "" };
        for key in keys {
            for line in key.doc.lines() {
                let _ = writeln!(text, "#{line}");
            }
            match place.and_then(|table| table.get(key.key)) {
                Some(Value::Table(_)) => {}
                Some(value) => {
                    let _ = writeln!(text, "{comment}{} = {value}", key.key);
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
    use crate::config::load;
    use crate::config::sections::Config;
    use crate::config::source::Environment;

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
        let url = [("INFLUXDB_URL".to_string(), "http://u:very-secret@db:8086".to_string())].into();
        let loaded = load(None, &url).unwrap();
        assert!(!effective(&loaded).contains("very-secret") && effective(&loaded).contains("db:8086"));
        assert!(!effective_json(&loaded).to_string().contains("very-secret"));
    }

    #[test]
    fn a_tenant_is_shown_with_all_that_holds_for_it_and_why() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tidegate.toml");
        let text = "[output]\nurl = \"http://common\"\ntoken = \"common-secret\"\n[tenants.\"a b\"]\nburst = 3\ndatabase = \"own\"\n\
                    output_url = \"http://own\"\n[tenants.c]\noutput_token = \"own-secret\"\nfields_of = {t = [\"f\"]}\n";
        std::fs::write(&file, text).unwrap();
        let environment: Environment =
            [("TIDEGATE_TENANTS__C__CPU_SHARE".to_string(), "0.5".to_string())].into();
        let loaded = load(Some(&file), &environment).unwrap();
        let text = effective(&loaded);
        let own = &text[text.find("[tenants.\"a b\"]").unwrap()..];
        let line = |key: &str| own.lines().find(|line| line.starts_with(&format!("{key} = "))).unwrap();
        assert!(line("burst").starts_with("burst = 3.0 ") && line("burst").ends_with("# file"), "{own}");
        assert!(line("rate_per_s").ends_with("# as admission.rate_per_s, default"), "{own}");
        assert!(line("output_token").contains("\"\"") && line("output_token").contains("none"), "{own}");
        assert!(!text.contains("-secret"), "{text}");
        let json = effective_json(&loaded);
        let c = &json["tenants"]["c"];
        assert_eq!(c["cpu_share"]["source"], "variable TIDEGATE_TENANTS__C__CPU_SHARE");
        assert_eq!(c["output_url"]["value"], "http://common");
        assert_eq!(c["output_token"]["value"], "(hidden)");
        assert_eq!(c["fields_of.\"t\""]["value"], serde_json::json!(["f"]));
        assert!(!json.to_string().contains("-secret"));
    }

    #[test]
    fn a_password_in_a_url_is_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tidegate.toml");
        let text = "[output]\nurl = \"http://u:s3cret@common:1\"\n[tenants.a]\noutput_url = \"http://u:s3cret@own:1\"\n";
        std::fs::write(&file, text).unwrap();
        let loaded = load(Some(&file), &Environment::default()).unwrap();
        for shown in [effective(&loaded), effective_json(&loaded).to_string()] {
            assert!(!shown.contains("s3cret"), "{shown}");
            assert!(
                shown.contains("http://u:(hidden)@common:1") && shown.contains("http://u:(hidden)@own:1"),
                "{shown}"
            );
        }
        for bad in ["http://u:s3cret@h:port", "u:s3cret@h", "http://u:s3cret@"] {
            std::fs::write(&file, format!("[output]\nurl = \"{bad}\"\n")).unwrap();
            let error = load(Some(&file), &Environment::default()).unwrap_err().to_string();
            assert!(error.contains("output.url") && !error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn the_reference_page_is_a_configuration_that_loads() {
        let page = reference_page();
        toml::from_str::<Config>(&page).unwrap();
    }
}
