//! A configuration file: an unknown key is refused, and each fault names a key of ours or a line of the file.

use std::collections::BTreeSet;
use std::fs;
use std::sync::LazyLock;

use tidegate::config;
use tidegate::config::sections::reference;
use tidegate::config::{ConfigError, Environment, report};

use crate::folder::temporary;

/// Every key of the reference page, with its section before it.
static KEYS: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
    let sections = reference().into_iter();
    let keys = sections.flat_map(|(section, keys)| {
        keys.iter().map(move |doc| match section {
            "" => doc.key.to_owned(),
            section => format!("{section}.{}", doc.key),
        })
    });
    keys.collect()
});

/// The report of a configuration that says nothing.
static DEFAULTS: LazyLock<String> = LazyLock::new(|| {
    let effective = config::load(None, &Environment::new());
    report::effective(&effective.expect("the defaults hold together"))
});

/// Checks that every value of a table stands at a key of the reference page.
fn check_known(table: &toml::Table, section: &str) {
    for (key, value) in table {
        let path = match section {
            "" => key.clone(),
            "tenants" => "tenants.NAME".to_owned(),
            "admission.types" => "admission.types.TYPE".to_owned(),
            section => format!("{section}.{key}"),
        };
        match value {
            toml::Value::Array(items) if path == "topics" => {
                items.iter().filter_map(toml::Value::as_table).for_each(|inner| check_known(inner, &path));
            }
            toml::Value::Table(inner) if !KEYS.contains(&path) => check_known(inner, &path),
            _ => assert!(KEYS.contains(&path), "an unknown key is taken: {path}"),
        }
    }
}

/// The first part of the path of a key.
fn first_part(key: &str) -> &str {
    key.split(['.', '[', ' ', ',']).next().unwrap_or(key)
}

pub fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let folder = temporary();
    let file = folder.path().join("tidegate.toml");
    fs::write(&file, text).expect("the file can be written");
    match config::load(Some(&file), &Environment::new()) {
        Ok(effective) => {
            check_known(&text.parse().expect("what is read is TOML"), "");
            let shown = report::effective(&effective);
            let parsed = shown.parse::<toml::Table>();
            assert!(parsed.is_ok(), "{parsed:?} {shown}");
            let _ = report::effective_json(&effective);
            let config = &effective.config;
            for secret in [&config.mqtt.password, &config.output.token, &config.output.password] {
                // Such as the name of a section.
                let is_elsewhere =
                    text.matches(secret.as_str()).count() != 1 || DEFAULTS.contains(secret.as_str());
                assert!(secret.len() < 8 || is_elsewhere || !shown.contains(secret.as_str()), "{shown}");
            }
        }
        Err(ConfigError::File { message, .. }) => {
            let number = message.split("line ").nth(1).and_then(|rest| rest.split([',', ':']).next());
            let number: usize = number.and_then(|number| number.parse().ok()).expect(&message);
            assert!((1..=text.lines().count() + 1).contains(&number), "{message}");
        }
        Err(ConfigError::Value { key, expected, .. }) => {
            let is_known = KEYS.iter().any(|known| first_part(known) == first_part(&key));
            assert!(is_known, "{key:?} is no key of ours");
            assert!(!expected.is_empty(), "{key}");
        }
        Err(other) => panic!("{other}"),
    }
}
