//! A route's TOML file: options for the guest, and limits that are lower than the gateway's.

use std::time::Duration;

use serde::Deserialize;

use super::DecodeSettings;
use super::partition::PartitionTemplate;
use super::probation::ProbationRules;
use crate::domain::limits::{
    FAILURES_PERCENT_MAX, PROBATION_MESSAGES, PROBATION_MESSAGES_MAX, PROBATION_S, PROBATION_S_MAX,
};

/// What a route allows and asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteRules {
    pub options: Vec<(String, String)>,
    pub deadline_ms: u64,
    pub memory_bytes_max: u64,
    /// Bad lines are left out, and the rest of the message is kept.
    pub keep_rest: bool,
    /// A fresh instance for every batch.
    pub fresh_instance: bool,
    /// Which values of its state a message sees.
    pub partition: PartitionTemplate,
    /// How a new version is tried and watched.
    pub probation: ProbationRules,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RouteFile {
    options: toml::Table,
    deadline_ms: Option<u64>,
    memory_bytes_max: Option<u64>,
    on_bad_line: Option<OnBadLine>,
    isolation: Option<Isolation>,
    failures_percent_max: Option<u64>,
    probation_messages: Option<u64>,
    probation_s: Option<u64>,
    state: StateKeys,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct StateKeys {
    partition: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OnBadLine {
    Quarantine,
    KeepRest,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Isolation {
    Instance,
    Batch,
}

impl RouteRules {
    /// The rules of a route without a file.
    pub fn of_gateway(settings: &DecodeSettings) -> Self {
        Self {
            options: Vec::new(),
            deadline_ms: settings.deadline_ms,
            memory_bytes_max: settings.memory_bytes_max,
            keep_rest: false,
            fresh_instance: false,
            partition: PartitionTemplate::default(),
            probation: ProbationRules {
                messages: PROBATION_MESSAGES,
                duration: Duration::from_secs(PROBATION_S),
                failures_percent_max: FAILURES_PERCENT_MAX,
            },
        }
    }

    /// Reads a route file.
    ///
    /// # Errors
    /// Names the key and the line, never the content: the file may hold secrets.
    pub fn parse(text: &str, settings: &DecodeSettings) -> Result<Self, String> {
        let file: RouteFile = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
            format!("the route's TOML file, line {line}: {}", error.message())
        })?;
        let mut rules = Self::of_gateway(settings);
        for (key, value) in file.options {
            let text = match value {
                toml::Value::String(text) => text,
                toml::Value::Integer(_) | toml::Value::Float(_) | toml::Value::Boolean(_) => {
                    value.to_string()
                }
                _ => {
                    return Err(format!(
                        "the route's TOML file: options.{key} must be a text, a number or a boolean"
                    ));
                }
            };
            rules.options.push((key, text));
        }
        lower("deadline_ms", file.deadline_ms, &mut rules.deadline_ms)?;
        lower("memory_bytes_max", file.memory_bytes_max, &mut rules.memory_bytes_max)?;
        rules.keep_rest = matches!(file.on_bad_line, Some(OnBadLine::KeepRest));
        let probation = &mut rules.probation;
        take("failures_percent_max", file.failures_percent_max, 100, &mut probation.failures_percent_max)?;
        take("probation_messages", file.probation_messages, PROBATION_MESSAGES_MAX, &mut probation.messages)?;
        let mut seconds = probation.duration.as_secs();
        take("probation_s", file.probation_s, PROBATION_S_MAX, &mut seconds)?;
        probation.duration = Duration::from_secs(seconds);
        if let Some(partition) = file.state.partition {
            rules.partition = PartitionTemplate::parse(&partition).map_err(|fault| {
                format!("the route's TOML file: state.partition = {partition:?}: {fault}")
            })?;
        }
        rules.fresh_instance = matches!(file.isolation, Some(Isolation::Batch));
        Ok(rules)
    }
}

fn take(key: &str, asked: Option<u64>, most: u64, value: &mut u64) -> Result<(), String> {
    match asked {
        Some(asked) if asked > most => {
            Err(format!("the route's TOML file: {key} = {asked}: expected 0 to {most}"))
        }
        Some(asked) => {
            *value = asked;
            Ok(())
        }
        None => Ok(()),
    }
}

fn lower(key: &str, asked: Option<u64>, limit: &mut u64) -> Result<(), String> {
    match asked {
        Some(asked) if asked == 0 || asked > *limit => Err(format!(
            "the route's TOML file: {key} = {asked}: expected 1 to {limit}, a route may only lower the gateway's limit"
        )),
        Some(asked) => {
            *limit = asked;
            Ok(())
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::CompilerSettings;
    use crate::domain::line::Dialect;

    fn settings() -> DecodeSettings {
        DecodeSettings {
            threads: 1,
            deadline_ms: 10,
            memory_bytes_max: 1 << 24,
            component_bytes_max: 1 << 20,
            dialect: Dialect::V3,
            compiler: CompilerSettings::new(None),
        }
    }

    #[test]
    fn a_route_may_lower_limits_and_never_raise_them() {
        let rules = RouteRules::parse("deadline_ms = 2\non_bad_line = \"keep_rest\"", &settings()).unwrap();
        assert_eq!((rules.deadline_ms, rules.keep_rest), (2, true));
        let error = RouteRules::parse("deadline_ms = 11", &settings()).unwrap_err();
        assert!(error.contains("deadline_ms = 11") && error.contains("1 to 10"), "{error}");
    }

    #[test]
    fn options_are_texts_in_their_order() {
        let rules = RouteRules::parse("[options]\nz = 1\na = \"x\"\nb = true", &settings()).unwrap();
        let keys: Vec<_> = rules.options.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(keys, ["z=1", "a=x", "b=true"]);
    }

    #[test]
    fn a_partition_is_read_and_a_bad_one_is_named() {
        let rules = RouteRules::parse("[state]\npartition = \"{device}/{6}\"", &settings()).unwrap();
        assert_eq!(rules.partition, PartitionTemplate::parse("{device}/{6}").unwrap());
        let error = RouteRules::parse("[state]\npartition = \"{type}\"", &settings()).unwrap_err();
        assert!(error.contains("state.partition = \"{type}\"") && error.contains("{device}"), "{error}");
    }

    #[test]
    fn faults_name_key_and_line_and_not_the_content() {
        let error = RouteRules::parse("\nsecret_thing = \"hunter2\"", &settings()).unwrap_err();
        assert!(error.contains("line 2") && !error.contains("hunter2"), "{error}");
    }
}
