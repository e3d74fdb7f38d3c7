//! The layers of the configuration, laid over each other with the source of each value.

use std::path::Path;

use toml::{Table, Value};

use crate::config::effective::EffectiveConfig;
use crate::config::error::ConfigError;
use crate::config::redaction;
use crate::config::remote::origin::{CA_FILE, TOKEN_FILE};
use crate::config::sections::{Config, TenantSection};
use crate::config::source::{Environment, ValueSource, ValueSources};

const PREFIX: &str = "TIDEGATE_";

/// Variables about the place of the configuration, which are no keys of it.
const OUTSIDE: [&str; 3] = ["TIDEGATE_CONFIG", TOKEN_FILE, CA_FILE];

/// The way in which a variable of the Python service is read.
enum LegacyVariable {
    /// Text as it stands.
    Text(&'static str),
    /// A whole number.
    Integer(&'static str),
    /// Exactly "1" is on, everything else off.
    Switch(&'static str),
    /// Accepted, and noted as without effect.
    NoEffect,
    /// Read together with others.
    Combined,
}

const LEGACY: &[(&str, LegacyVariable)] = &[
    ("MQTT_HOST", LegacyVariable::Combined),
    ("MQTT_PORT", LegacyVariable::Combined),
    ("MQTT_TOPIC", LegacyVariable::Combined),
    ("PG_HOST", LegacyVariable::Combined),
    ("PG_PORT", LegacyVariable::Combined),
    ("PG_DB", LegacyVariable::Combined),
    ("PG_USER", LegacyVariable::Combined),
    ("PG_PASS", LegacyVariable::Combined),
    ("AUTO_PROVISION", LegacyVariable::Switch("registry.auto_provision")),
    ("REQUIRE_TOKEN", LegacyVariable::Switch("registry.require_token")),
    ("COUNTERS_ENABLED", LegacyVariable::Switch("registry.counters")),
    ("LOG_STATS_EVERY_SECONDS", LegacyVariable::Integer("log.stats_interval_s")),
    ("SETTINGS_POLL_SECONDS", LegacyVariable::Integer("registry.settings_poll_s")),
    ("INFLUXDB_URL", LegacyVariable::Text("output.url")),
    ("INFLUXDB_TOKEN", LegacyVariable::Text("output.token")),
    ("AUTH_CACHE_TTL_SECONDS", LegacyVariable::Integer("registry.cache_ttl_s")),
    ("AUTH_CACHE_MAX_SIZE", LegacyVariable::Integer("registry.cache_entries_max")),
    ("INFLUX_BATCH_SIZE", LegacyVariable::Integer("output.batch_lines")),
    ("INFLUX_FLUSH_INTERVAL_MS", LegacyVariable::Integer("output.flush_interval_ms")),
    ("INGEST_WORKER_COUNT", LegacyVariable::NoEffect),
    ("INGEST_QUEUE_SIZE", LegacyVariable::NoEffect),
];

/// Lays the layers over each other.
pub(super) fn merge(
    file: Option<(&Path, &str)>,
    environment: &Environment,
) -> Result<EffectiveConfig, ConfigError> {
    let mut table = Table::try_from(Config::default()).expect("the default configuration is a table");
    let mut sources = ValueSources::default();
    let mut notes = Vec::new();

    legacy(&mut table, &mut sources, &mut notes, environment)?;

    if let Some((path, text)) = file {
        let refuse = |error: &toml::de::Error| ConfigError::File {
            path: path.into(),
            message: if toml::from_str::<Table>(text).is_err() {
                place_of(text, error)
            } else if error.message().starts_with("unknown field") {
                // Who mistypes the key of a secret has its value there.
                without_secrets(text, error)
            } else {
                redaction::toml_error(&error.to_string())
            },
        };
        // Once as the real type, for errors that name the line; once as a table, to lay over.
        toml::from_str::<Config>(text).map_err(|error| refuse(&error))?;
        let over: Table = toml::from_str(text).map_err(|error| refuse(&error))?;
        lay_over(&mut table, over, "", &mut sources);
    }

    for (variable, value) in environment.iter().filter(|(name, _)| name.starts_with(PREFIX)) {
        if OUTSIDE.contains(&variable.as_str()) {
            continue;
        }
        let mut path: Vec<String> = variable[PREFIX.len()..].split("__").map(str::to_lowercase).collect();
        name_tenant(&table, &mut path);
        set_by_variable(&mut table, &path, variable, value)?;
        fits(&table, variable, value)?;
        sources.note(&path.join("."), ValueSource::Variable(variable.clone()));
    }

    for (variable, meaning) in LEGACY {
        if let LegacyVariable::Switch(path) = meaning
            && let Some(value) = environment.get(*variable)
            && !matches!(value.as_str(), "0" | "1" | "")
            && sources.of(path) == ValueSource::Variable((*variable).into())
        {
            notes.push(format!(
                "{variable} = {value:?} means off, as in the Python service: use \"1\" for on, \"0\" for off"
            ));
        }
    }

    let mut config: Config =
        Value::Table(table).try_into().map_err(|error: toml::de::Error| ConfigError::Value {
            key: "configuration".into(),
            value: String::new(),
            expected: error.message().to_owned(),
        })?;
    // Who listens for devices need not have a broker.
    if sources.of("mqtt.url") == ValueSource::Default && !config.listen.address.is_empty() {
        config.mqtt.url.clear();
    }
    // Longer waits are for those who ask for them.
    if sources.of("output.flush_interval_max_ms") == ValueSource::Default {
        config.output.flush_interval_max_ms = config.output.flush_interval_ms;
    }
    Ok(EffectiveConfig { config, sources, notes })
}

/// A fault in the syntax of the file: its place, and the key if there surely is one. Nothing else of the file: what is
/// no TOML does not tell its values from its secrets.
fn place_of(text: &str, error: &toml::de::Error) -> String {
    let at = error.span().map_or(0, |span| text.floor_char_boundary(span.start.min(text.len())));
    let begin = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let line = text[..at].matches('\n').count() + 1;
    let column = text[begin..at].chars().count() + 1;
    let is_bare = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-' | '.');
    let is_in_text = |quotes: &str| text[..begin].matches(quotes).count() % 2 == 1;
    let key = text[begin..].lines().next().and_then(|line| line.split_once('=')).map(|(key, _)| key.trim());
    let key = key.filter(|key| !key.is_empty() && key.chars().all(is_bare));
    let key = key.filter(|_| !is_in_text("\"\"\"") && !is_in_text("'''"));
    let key = key.map(|key| format!(", `{key}`")).unwrap_or_default();
    format!("line {line}, column {column}{key}: {}", error.message().trim_end())
}

/// A fault of the file: the line, its key, and the fault. The value stays out, for it may be a secret.
fn without_secrets(text: &str, error: &toml::de::Error) -> String {
    const SECRETS: [&str; 6] = ["pass", "token", "secret", "url", "key", "postgres"];
    let at = error.span().map_or(0, |span| span.start.min(text.len()));
    let number = text[..at].matches('\n').count() + 1;
    let line = text.lines().nth(number - 1).unwrap_or_default();
    let mut message = error.message().trim_end().to_owned();
    let lower = line.to_lowercase();
    // "invalid type: integer `1234`, expected a string" has the value in it.
    if SECRETS.iter().any(|word| lower.contains(word))
        && let Some((kind, expected)) = message.rsplit_once(", expected ")
        && let Some((kind, _)) = kind.split_once(": ")
        && kind.starts_with("invalid ")
    {
        message = format!("{kind}, expected {expected}");
    }
    match line.split_once('=') {
        Some((key, _)) => format!("line {number}, `{}`: {message}", key.trim()),
        None if line.trim_start().starts_with('[') => format!("line {number}, `{}`: {message}", line.trim()),
        None => format!("line {number}: {message}"),
    }
}

/// Lays `over` on `table`, noting each leaf as the file's.
fn lay_over(table: &mut Table, over: Table, prefix: &str, sources: &mut ValueSources) {
    for (key, value) in over {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match (table.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => lay_over(below, above, &path, sources),
            (None, Value::Table(above)) => {
                let mut below = Table::new();
                lay_over(&mut below, above, &path, sources);
                table.insert(key, Value::Table(below));
            }
            (_, value) => {
                table.insert(key, value);
                sources.note(&path, ValueSource::File);
            }
        }
    }
}

fn bad(variable: &str, value: &str, expected: impl Into<String>) -> ConfigError {
    let expected: String = expected.into();
    ConfigError::Variable {
        variable: variable.into(),
        value: if redaction::is_secret(variable) { "(hidden)".into() } else { value.into() },
        expected: format!("expected {expected}"),
    }
}

/// Variables have no case: where the file names a tenant with capitals, that one is meant.
fn name_tenant(table: &Table, path: &mut [String]) {
    let [section, tenant, ..] = path else { return };
    let known = table.get("tenants").and_then(Value::as_table).filter(|_| section == "tenants");
    let mut same = known.into_iter().flat_map(Table::keys).filter(|name| name.to_lowercase() == *tenant);
    if let (Some(name), None) = (same.next(), same.next()) {
        name.clone_into(tenant);
    }
}

/// Sets the key that a `TIDEGATE_` variable names, read as the type that the key has.
fn set_by_variable(
    table: &mut Table,
    path: &[String],
    variable: &str,
    value: &str,
) -> Result<(), ConfigError> {
    let unknown = || {
        // Who mistypes the name of a secret has its value here.
        bad(
            variable,
            "(hidden)",
            format!(
                "the name of a key; there is no key {:?}, see tidegate validate --explain",
                path.join(".")
            ),
        )
    };
    let (last, sections) = path.split_last().ok_or_else(unknown)?;
    // `[admission.types.TYPE]` and `[tenants.NAME]` are the places where a section may be new.
    let of_type = matches!(sections, [a, t, _] if a == "admission" && t == "types");
    let of_tenant = matches!(sections, [t, _] if t == "tenants");
    let fields_of = matches!(sections, [t, _, f] if t == "tenants" && f == "fields_of");
    let open_section = of_type || of_tenant || fields_of;
    let mut section = table;
    for name in sections {
        if open_section && !section.contains_key(name) {
            section.insert(name.clone(), Value::Table(Table::new()));
        }
        section = section.get_mut(name).and_then(Value::as_table_mut).ok_or_else(unknown)?;
    }
    // What is not named there has no value yet, but a type.
    let example = match (of_type, of_tenant, fields_of) {
        (true, ..) if last == "credentials" => Some(Value::String(String::new())),
        (_, true, _) => TenantSection::example().get(last.as_str()).cloned(),
        (.., true) => Some(Value::Array(Vec::new())),
        _ => None,
    };
    let parsed = match example.as_ref().or_else(|| section.get(last.as_str())) {
        None | Some(Value::Table(_) | Value::Datetime(_)) => return Err(unknown()),
        Some(Value::String(_)) => Value::String(value.into()),
        Some(Value::Integer(_)) => {
            Value::Integer(value.trim().parse().map_err(|_| bad(variable, value, "a whole number"))?)
        }
        Some(Value::Float(_)) => {
            Value::Float(value.trim().parse().map_err(|_| bad(variable, value, "a number"))?)
        }
        Some(Value::Boolean(_)) => Value::Boolean(match value.trim() {
            "true" | "1" => true,
            "false" | "0" => false,
            _ => return Err(bad(variable, value, "true or false")),
        }),
        Some(Value::Array(_)) => Value::Array(
            value
                .split(',')
                .map(str::trim)
                .filter(|part| !part.is_empty())
                .map(|part| Value::String(part.into()))
                .collect(),
        ),
    };
    section.insert(last.clone(), parsed);
    Ok(())
}

/// Checks that a key can hold the value that a variable has just set.
fn fits(table: &Table, variable: &str, value: &str) -> Result<(), ConfigError> {
    let Err(error) = Value::Table(table.clone()).try_into::<Config>() else { return Ok(()) };
    let message = error.message().trim_end();
    let most = match message.rsplit_once("expected ") {
        Some((_, "u8")) => u64::from(u8::MAX),
        Some((_, "u16")) => u64::from(u16::MAX),
        Some((_, "u32")) => u64::from(u32::MAX),
        Some((_, "u64" | "usize")) => return Err(bad(variable, value, "a whole number, 0 or more")),
        _ => return Err(bad(variable, value, message)),
    };
    Err(bad(variable, value, format!("a whole number, 0 to {most}")))
}

fn set(table: &mut Table, path: &str, value: Value) {
    let (section, key) = path.split_once('.').expect("legacy keys lie in a section");
    table[section].as_table_mut().expect("a section is a table").insert(key.into(), value);
}

/// Applies the variables of the Python service.
fn legacy(
    table: &mut Table,
    sources: &mut ValueSources,
    notes: &mut Vec<String>,
    environment: &Environment,
) -> Result<(), ConfigError> {
    for (variable, meaning) in LEGACY {
        let Some(value) = environment.get(*variable) else { continue };
        let (path, parsed) = match meaning {
            LegacyVariable::Text(path) => (path, Value::String(value.clone())),
            LegacyVariable::Integer(path) => {
                let number = value.trim().parse().map_err(|_| bad(variable, value, "a whole number"))?;
                (path, Value::Integer(number))
            }
            LegacyVariable::Switch(path) => (path, Value::Boolean(value == "1")),
            LegacyVariable::NoEffect => {
                notes.push(format!(
                    "{variable} is accepted and has no effect: Tidegate sizes its own threads and queues"
                ));
                continue;
            }
            LegacyVariable::Combined => continue,
        };
        set(table, path, parsed);
        fits(table, variable, value)?;
        sources.note(path, ValueSource::Variable((*variable).into()));
    }

    let port = |variable: &str, default: u16| match environment.get(variable) {
        Some(value) => value.trim().parse().map_err(|_| bad(variable, value, "a port, 1 to 65535")),
        None => Ok(default),
    };
    if environment.contains_key("MQTT_HOST") || environment.contains_key("MQTT_PORT") {
        let host = environment.get("MQTT_HOST").map_or("127.0.0.1", String::as_str);
        let url = format!("mqtt://{host}:{}", port("MQTT_PORT", 1883)?);
        set(table, "mqtt.url", Value::String(url));
        let variable = if environment.contains_key("MQTT_HOST") { "MQTT_HOST" } else { "MQTT_PORT" };
        sources.note("mqtt.url", ValueSource::Variable(variable.into()));
    }
    if let Some(filter) = environment.get("MQTT_TOPIC") {
        let template = crate::core::topic::template_of_filter(filter)
            .map_err(|fault| bad("MQTT_TOPIC", filter, fault.to_string()))?;
        set(table, "mqtt.topic", Value::String(template));
        sources.note("mqtt.topic", ValueSource::Variable("MQTT_TOPIC".into()));
    }
    if let Some(host) = environment.get("PG_HOST") {
        let part = |variable: &str, default: &'static str| {
            let value = environment.get(variable).map_or(default, String::as_str);
            percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC).to_string()
        };
        // A folder of sockets stands for a host too.
        let host = if host.starts_with('/') { part("PG_HOST", "") } else { host.clone() };
        let url = format!(
            "postgres://{}:{}@{host}:{}/{}",
            part("PG_USER", "iot"),
            part("PG_PASS", "iot_dev"),
            port("PG_PORT", 5432)?,
            part("PG_DB", "iotcloud"),
        );
        set(table, "registry.kind", Value::String("postgres".into()));
        set(table, "registry.url", Value::String(url));
        for path in ["registry.kind", "registry.url"] {
            sources.note(path, ValueSource::Variable("PG_HOST".into()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::effective::EffectiveConfig;
    use crate::config::error::ConfigError;
    use std::path::Path;

    fn merged(file: &str, variables: &[(&str, &str)]) -> Result<EffectiveConfig, ConfigError> {
        let environment =
            variables.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        merge(Some((Path::new("test.toml"), file)), &environment)
    }

    #[test]
    fn a_number_that_does_not_fit_is_named_with_its_variable_and_what_is_allowed() {
        for (variable, value, allowed) in [
            ("TIDEGATE_GUESTS__THREADS", "-1", "0 or more"),
            ("TIDEGATE_MQTT__KEEP_ALIVE_S", "70000", "0 to 65535"),
            ("TIDEGATE_TENANTS__ACME__SPOOL_BYTES_MAX", "-1", "0 or more"),
            ("INFLUX_BATCH_SIZE", "-1", "0 or more"),
            ("SETTINGS_POLL_SECONDS", "-5", "0 or more"),
        ] {
            let error = merged("", &[(variable, value)]).unwrap_err().to_string();
            for word in [variable, value, allowed] {
                assert!(error.contains(word), "{error}");
            }
        }
    }

    #[test]
    fn a_fault_in_the_syntax_is_named_by_its_place_and_quotes_nothing() {
        for (file, place) in [
            ("[mqtt]\npassword: \"s3cret\"\n", "line 2, column "),
            ("x = { password = \"s3cret\",, }\n", ", `x`: "),
            ("[mqtt]\nusername = \"a\", password = \"s3cret\"\n", ", `username`: "),
            ("Authorization: Bearer s3cret=\n", "line 1, column "),
            ("[output]\ntoken = \"\"\"\ns3cret=\n", "line 4"),
            ("root:s3cret:19000:0:\n", "line 1"),
            ("[mqtt]\nqos = 1x\n", ", `qos`: "),
        ] {
            let error = merged(file, &[]).unwrap_err().to_string();
            assert!(error.contains(place) && !error.contains("s3cret"), "{file}: {error}");
        }
    }

    #[test]
    fn an_error_names_key_and_line_and_never_a_secret() {
        for (file, words) in [
            ("[mqtt]\npassword = 123456\n", ["line 2", "password"]),
            ("[mqtt]\npasword = \"123456\"\n", ["line 2", "pasword"]),
            ("[output]\ntoken = 123456 x\n", ["line 2", "token"]),
            ("[output]\ntoken = [\"123456\"]\n", ["line 2", "token"]),
            ("[admin]\noutput_token = \"123456\"\n", ["line 2", "output_token"]),
            ("[guests]\nthreads = \"many\"\n", ["line 2", "many"]),
        ] {
            let error = merged(file, &[]).unwrap_err().to_string();
            assert!(words.iter().all(|word| error.contains(word)), "{error}");
            assert!(!error.contains("123456"), "{error}");
        }
        let error = merged("", &[("TIDEGATE_OUTPUT__TOKN", "123456")]).unwrap_err().to_string();
        assert!(error.contains("TIDEGATE_OUTPUT__TOKN") && !error.contains("123456"), "{error}");
    }

    #[test]
    fn a_switch_of_the_python_service_that_is_neither_0_nor_1_is_off_and_noted() {
        for variable in ["REQUIRE_TOKEN", "AUTO_PROVISION", "COUNTERS_ENABLED"] {
            for value in ["true", "yes", "maybe", " 1"] {
                let notes = merged("", &[(variable, value)]).unwrap().notes;
                assert!(notes.len() == 1 && notes[0].contains(variable), "{value}: {notes:?}");
            }
            for value in ["0", "1", ""] {
                assert_eq!(merged("", &[(variable, value)]).unwrap().notes, [""; 0], "{value:?}");
            }
        }
        let loaded = merged("[registry]\nrequire_token = true\n", &[("REQUIRE_TOKEN", "yes")]).unwrap();
        assert!(loaded.config.registry.require_token && loaded.notes.is_empty(), "the file says otherwise");
    }
}
