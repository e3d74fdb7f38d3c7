//! A route's TOML file: limits are only lowered, and a fault never shows an option, which may be a secret.

use std::collections::BTreeSet;

use tidegate_core::line_protocol::Dialect;
use tidegate_decode::{DecodeSettings, GuestClass, LargeClassSettings};
use tidegate_rollout::route_file::parse;

use crate::choices::Choices;
use crate::memory::peak_bytes_of;

/// Bytes of memory of a document of TOML, for each byte of text and beside it.
const BYTES_A_BYTE: usize = 512;

const OVERHEAD_BYTES: usize = 64 * 1024;

fn settings() -> DecodeSettings {
    DecodeSettings {
        threads: 1,
        deadline_ms: 10,
        memory_bytes_max: 1 << 24,
        component_bytes_max: 1 << 20,
        dialect: Dialect::V3,
        large: Some(LargeClassSettings {
            routes: BTreeSet::from([("acme".to_owned(), "large".to_owned())]),
            deadline_ms: 50,
            memory_bytes_max: 1 << 26,
            component_bytes_max: 1 << 25,
            instances_max: 4,
        }),
    }
}

pub fn run(input: &[u8]) {
    let mut choices = Choices::new(input);
    let is_large = choices.u8() & 1 == 1;
    let Ok(text) = std::str::from_utf8(choices.rest) else { return };
    let settings = settings();
    let route = ("acme".to_owned(), if is_large { "large" } else { "telemetry" }.to_owned());
    let (parsed, peak) = peak_bytes_of(|| parse(text, &settings, &route));
    assert!(peak <= OVERHEAD_BYTES + BYTES_A_BYTE * text.len(), "{peak} bytes for {}", text.len());
    let table = text.parse::<toml::Table>();
    match parsed {
        Ok(rules) => {
            let ceilings = settings.ceilings(rules.class);
            assert!(is_large || rules.class == GuestClass::Normal, "{text:?}");
            assert!((1..=ceilings.deadline_ms).contains(&rules.deadline_ms), "{text:?}");
            assert!((1..=ceilings.memory_bytes_max).contains(&rules.memory_bytes_max), "{text:?}");
            assert_eq!(rules.component_bytes_max, ceilings.component_bytes_max, "{text:?}");
            assert!(rules.probation.failures_percent_max <= 100, "{text:?}");
            let table = table.expect("what is read is TOML");
            const KEYS: [&str; 11] = [
                "decoder",
                "options",
                "class",
                "deadline_ms",
                "memory_bytes_max",
                "on_bad_line",
                "isolation",
                "failures_percent_max",
                "probation_messages",
                "probation_s",
                "state",
            ];
            assert!(table.keys().all(|key| KEYS.contains(&key.as_str())), "an unknown key: {text:?}");
            let options = table.get("options").and_then(toml::Value::as_table).map_or(0, toml::Table::len);
            assert_eq!(rules.options.len(), options, "{text:?}");
        }
        Err(fault) => {
            assert!(fault.starts_with("the route's TOML file"), "{fault}");
            let Ok(mut table) = table else { return };
            let Some(toml::Value::Table(options)) = table.remove("options") else { return };
            // A value of another key may be shown, and may be the same.
            let others = format!("{table:?}");
            // Other values may be words of ours.
            let secrets = options.values().filter_map(toml::Value::as_str);
            for value in secrets.filter(|value| value.contains("hunter2")) {
                let is_elsewhere = others.contains(value.escape_debug().to_string().as_str());
                assert!(is_elsewhere || !fault.contains(value), "{fault}");
            }
        }
    }
}
