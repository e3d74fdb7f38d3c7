//! A route's TOML file, read: options for the guest, and limits that are lower than the gateway's.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use crate::definition::RouteDefinition;
use crate::limits::{
    FAILURES_PERCENT_MAX, PROBATION_MESSAGES, PROBATION_MESSAGES_MAX, PROBATION_S, PROBATION_S_MAX,
};
use tidegate_core::route_key::{DEFAULT, RouteKey};
use tidegate_decode::route::rules::{Isolation, ProbationRules, RouteRules};
use tidegate_decode::sandbox::class::grant;
use tidegate_decode::state::partition::PartitionTemplate;
use tidegate_decode::{DecodeSettings, GuestClass};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RouteFile {
    /// The built-in decoder, unless a component lies beside the file.
    decoder: Option<String>,
    options: toml::Table,
    class: Option<GuestClass>,
    deadline_ms: Option<u64>,
    memory_bytes_max: Option<u64>,
    on_bad_line: Option<OnBadLine>,
    isolation: Option<IsolationKey>,
    prefer: Option<PreferKey>,
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

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum IsolationKey {
    Instance,
    Batch,
    Route,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum PreferKey {
    Bytes,
    Object,
}

/// The rules of a route whose file says nothing: the ceilings of the class.
fn of_class(settings: &DecodeSettings, class: GuestClass) -> RouteRules {
    let ceilings = settings.ceilings(class);
    RouteRules {
        options: Vec::new(),
        class: ceilings.class,
        deadline_ms: ceilings.deadline_ms,
        memory_bytes_max: ceilings.memory_bytes_max,
        component_bytes_max: ceilings.component_bytes_max,
        keep_rest: false,
        isolation: Isolation::Instance,
        prefers_object: false,
        partition: Arc::default(),
        probation: ProbationRules {
            messages: PROBATION_MESSAGES,
            duration: Duration::from_secs(PROBATION_S),
            failures_percent_max: FAILURES_PERCENT_MAX,
        },
    }
}

/// The built-in decoder that a route file names, if it names one. The rest of the file is not checked.
///
/// # Errors
/// It is not TOML, or the key is not a text.
pub fn decoder(text: &str) -> Result<Option<String>, String> {
    let mut file: toml::Table = toml::from_str(text).map_err(|error| fault(text, &error))?;
    match file.remove("decoder") {
        None => Ok(None),
        Some(toml::Value::String(name)) => Ok(Some(name)),
        Some(_) => {
            Err("the route's TOML file: decoder: expected the name of a built-in decoder, as text".into())
        }
    }
}

/// The options of a route file as they reach the decoder.
///
/// # Errors
/// Names the key and the line.
pub fn options(text: &str) -> Result<Vec<(String, String)>, String> {
    let file: RouteFile = toml::from_str(text).map_err(|error| fault(text, &error))?;
    option_texts(file.options)
}

fn option_texts(options: toml::Table) -> Result<Vec<(String, String)>, String> {
    let text = |(key, value): (String, toml::Value)| match option_text(value) {
        Ok(text) => Ok((key, text)),
        Err(why) => Err(format!("the route's TOML file: options.{key}: {why}")),
    };
    options.into_iter().map(text).collect()
}

fn fault(text: &str, error: &toml::de::Error) -> String {
    let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
    format!("the route's TOML file, line {line}: {}", error.message())
}

/// The rules of a version.
///
/// # Errors
/// The errors of `parse`; an option that the source file already gives.
pub fn rules(
    definition: &RouteDefinition,
    settings: &DecodeSettings,
    route_key: &RouteKey,
) -> Result<RouteRules, String> {
    let text = definition.route_file.as_deref().unwrap_or_default();
    let mut rules = parse_for(text, settings, route_key, definition.built_in.is_some())?;
    if let Some((option, source)) = definition.source_option() {
        if rules.options.iter().any(|(key, _)| key == option) {
            return Err(format!(
                "the route's TOML file: options.{option}: a file beside the route file gives this; leave one of them out"
            ));
        }
        rules.options.push((option.to_owned(), source.to_owned()));
    }
    Ok(rules)
}

/// Reads the route file of a component.
///
/// # Errors
/// Names the key and the line, never the content: the file may hold secrets.
pub fn parse(text: &str, settings: &DecodeSettings, route_key: &RouteKey) -> Result<RouteRules, String> {
    parse_for(text, settings, route_key, false)
}

fn parse_for(
    text: &str,
    settings: &DecodeSettings,
    route_key: &RouteKey,
    is_built_in: bool,
) -> Result<RouteRules, String> {
    let file: RouteFile = toml::from_str(text).map_err(|error| fault(text, &error))?;
    let granted = settings.granted(route_key);
    if file.class == Some(GuestClass::Large) && granted == GuestClass::Normal {
        return Err(format!(
            "the route's TOML file: class = \"large\": only the operator grants it, in the gateway's configuration: {}",
            grant(route_key)
        ));
    }
    let mut rules = of_class(settings, file.class.unwrap_or(granted));
    rules.options = option_texts(file.options)?;
    lower("deadline_ms", file.deadline_ms, &mut rules.deadline_ms)?;
    lower("memory_bytes_max", file.memory_bytes_max, &mut rules.memory_bytes_max)?;
    rules.prefers_object = file.prefer == Some(PreferKey::Object);
    rules.keep_rest = matches!(file.on_bad_line, Some(OnBadLine::KeepRest));
    let probation = &mut rules.probation;
    take("failures_percent_max", file.failures_percent_max, 100, &mut probation.failures_percent_max)?;
    take("probation_messages", file.probation_messages, PROBATION_MESSAGES_MAX, &mut probation.messages)?;
    let mut seconds = probation.duration.as_secs();
    take("probation_s", file.probation_s, PROBATION_S_MAX, &mut seconds)?;
    probation.duration = Duration::from_secs(seconds);
    if let Some(partition) = file.state.partition {
        let template = PartitionTemplate::parse(&partition)
            .map_err(|fault| format!("the route's TOML file: state.partition = {partition:?}: {fault}"))?;
        rules.partition = Arc::new(template);
    }
    rules.isolation = isolation(file.isolation, rules.class, route_key, is_built_in)?;
    Ok(rules)
}

/// An option as it reaches the decoder. A list or a table is JSON: a decoder reads JSON anyway.
fn option_text(value: toml::Value) -> Result<String, String> {
    match value {
        toml::Value::String(text) => Ok(text),
        toml::Value::Array(_) | toml::Value::Table(_) => {
            serde_json::to_string(&json_value(value)?).map_err(|error| error.to_string())
        }
        value => Ok(value.to_string()),
    }
}

fn json_value(value: toml::Value) -> Result<serde_json::Value, String> {
    Ok(match value {
        toml::Value::Array(values) => values.into_iter().map(json_value).collect::<Result<_, _>>()?,
        toml::Value::Table(table) => {
            let members = table.into_iter().map(|(key, value)| Ok::<_, String>((key, json_value(value)?)));
            members.collect::<Result<serde_json::Map<_, _>, _>>()?.into()
        }
        toml::Value::Float(number) => match serde_json::Number::from_f64(number) {
            Some(number) => number.into(),
            None => return Err(format!("{number} inside a list or table: expected a finite number")),
        },
        toml::Value::String(text) => text.into(),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Boolean(flag) => flag.into(),
        toml::Value::Datetime(time) => time.to_string().into(),
    })
}

/// Reads the isolation. A tenant's own decoder is never shared: the operator did not choose it. A built-in decoder of
/// all tenants is shared unless the file says otherwise: those keep nothing from message to message.
fn isolation(
    asked: Option<IsolationKey>,
    class: GuestClass,
    (folder, stem): &RouteKey,
    is_built_in: bool,
) -> Result<Isolation, String> {
    let refused = |why: &str| Err(format!("the route's TOML file: isolation = \"route\": {why}"));
    match asked {
        None if is_built_in && folder == DEFAULT && class == GuestClass::Normal => Ok(Isolation::Route),
        None | Some(IsolationKey::Instance) => Ok(Isolation::Instance),
        Some(IsolationKey::Batch) => Ok(Isolation::Batch),
        Some(IsolationKey::Route) if folder != DEFAULT => refused(&format!(
            "{folder}/{stem} is a tenant's own decoder; only one in {DEFAULT} can be shared"
        )),
        Some(IsolationKey::Route) if class == GuestClass::Large => {
            refused("a decoder of the class large is never shared")
        }
        Some(IsolationKey::Route) => Ok(Isolation::Route),
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
            "the route's TOML file: {key} = {asked}: expected 1 to {limit}; a route can only lower the gateway's limit"
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
    use super::rules;
    use crate::definition::RouteDefinition;
    use tidegate_core::line_protocol::Dialect;
    use tidegate_core::route_key::RouteKey;
    use tidegate_decode::route::rules::{Isolation, RouteRules};
    use tidegate_decode::state::partition::PartitionTemplate;
    use tidegate_decode::{DecodeSettings, GuestClass, LargeClassSettings};

    fn settings() -> DecodeSettings {
        DecodeSettings {
            threads: 1,
            deadline_ms: 10,
            memory_bytes_max: 1 << 24,
            component_bytes_max: 1 << 20,
            dialect: Dialect::V3,
            large: Some(LargeClassSettings {
                routes: [route_key("acme", "js"), route_key("_default", "js")].into(),
                deadline_ms: 50,
                memory_bytes_max: 1 << 26,
                component_bytes_max: 1 << 25,
                instances_max: 4,
            }),
        }
    }

    fn route_key(tenant: &str, stem: &str) -> RouteKey {
        (tenant.to_owned(), stem.to_owned())
    }

    fn parse(text: &str) -> Result<RouteRules, String> {
        crate::route_file::parse(text, &settings(), &route_key("acme", "telemetry"))
    }

    #[test]
    fn the_class_large_is_the_operators_to_grant_and_a_route_may_go_without() {
        let error = parse("class = \"large\"").unwrap_err();
        assert!(error.contains("guests.large.routes = [\"acme/telemetry\"]"), "{error}");
        let granted = |text| crate::route_file::parse(text, &settings(), &route_key("acme", "js"));
        let rules = granted("class = \"large\"\ndeadline_ms = 40").unwrap();
        assert_eq!(
            (rules.class, rules.deadline_ms, rules.memory_bytes_max),
            (GuestClass::Large, 40, 1 << 26)
        );
        assert_eq!(granted("").unwrap().class, GuestClass::Large, "what is granted needs no asking for");
        assert!(granted("deadline_ms = 51").unwrap_err().contains("1 to 50"));
        let rules = granted("class = \"normal\"").unwrap();
        assert_eq!(
            (rules.class, rules.deadline_ms, rules.component_bytes_max),
            (GuestClass::Normal, 10, 1 << 20)
        );
        assert!(parse("class = \"huge\"").unwrap_err().contains("line 1"));
    }

    #[test]
    fn a_route_may_lower_limits_and_never_raise_them() {
        let rules = parse("deadline_ms = 2\non_bad_line = \"keep_rest\"").unwrap();
        assert_eq!((rules.deadline_ms, rules.keep_rest), (2, true));
        let error = parse("deadline_ms = 11").unwrap_err();
        assert!(error.contains("deadline_ms = 11") && error.contains("1 to 10"), "{error}");
    }

    #[test]
    fn the_object_of_a_network_server_is_taken_where_the_file_says_so() {
        assert!(parse("prefer = \"object\"").unwrap().prefers_object);
        for text in ["", "prefer = \"bytes\""] {
            assert!(!parse(text).unwrap().prefers_object);
        }
        assert!(parse("prefer = \"json\"").unwrap_err().contains("line 1"));
    }

    #[test]
    fn options_are_texts_in_their_order() {
        let rules = parse("[options]\nz = 1\na = \"x\"\nb = true").unwrap();
        let keys: Vec<_> = rules.options.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(keys, ["z=1", "a=x", "b=true"]);
    }

    #[test]
    fn a_list_or_a_table_is_an_option_in_json() {
        let rules =
            parse("[options]\nfields = { a = \"u8@1\", b = [1, 2.5, true] }\nnames = [\"x\"]").unwrap();
        let options: Vec<_> = rules.options.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(options, [r#"fields={"a":"u8@1","b":[1,2.5,true]}"#, r#"names=["x"]"#]);
        let error = parse("[options]\nlist = [nan]").unwrap_err();
        assert!(error.contains("options.list") && error.contains("finite"), "{error}");
    }

    #[test]
    fn a_built_in_decoder_of_all_tenants_is_shared_unless_the_file_says_otherwise() {
        let isolation = |folder: &str, stem: &str, built_in: bool, text: &str| {
            let definition = RouteDefinition {
                built_in: built_in.then(|| "json".to_owned()),
                route_file: Some(text.to_owned()),
                source: None,
            };
            rules(&definition, &settings(), &route_key(folder, stem)).unwrap().isolation
        };
        assert_eq!(isolation("_default", "telemetry", true, "decoder = \"json\""), Isolation::Route);
        assert_eq!(isolation("_default", "telemetry", false, "decoder = \"json\""), Isolation::Instance);
        assert_eq!(isolation("acme", "telemetry", true, ""), Isolation::Instance);
        assert_eq!(isolation("_default", "js", true, ""), Isolation::Instance, "the class large");
        assert_eq!(isolation("_default", "telemetry", true, "isolation = \"instance\""), Isolation::Instance);
    }

    #[test]
    fn a_partition_is_read_and_a_bad_one_is_named() {
        let rules = parse("[state]\npartition = \"{device}/{6}\"").unwrap();
        assert_eq!(*rules.partition, PartitionTemplate::parse("{device}/{6}").unwrap());
        let error = parse("[state]\npartition = \"{type}\"").unwrap_err();
        assert!(error.contains("state.partition = \"{type}\"") && error.contains("{device}"), "{error}");
    }

    #[test]
    fn only_a_decoder_of_all_tenants_and_of_the_class_normal_is_shared() {
        let shared = |folder: &str, stem: &str, text: &str| {
            crate::route_file::parse(text, &settings(), &route_key(folder, stem))
        };
        let rules = shared("_default", "telemetry", "isolation = \"route\"").unwrap();
        assert_eq!(rules.isolation, Isolation::Route);
        assert_eq!(shared("_default", "telemetry", "").unwrap().isolation, Isolation::Instance);
        let error = parse("isolation = \"route\"").unwrap_err();
        assert!(error.contains("acme/telemetry") && error.contains("_default"), "{error}");
        let error = shared("_default", "js", "isolation = \"route\"").unwrap_err();
        assert!(error.contains("class large"), "{error}");
        assert!(parse("isolation = \"tenant\"").unwrap_err().contains("line 1"));
    }

    #[test]
    fn faults_name_key_and_line_and_not_the_content() {
        let error = parse("\nsecret_thing = \"hunter2\"").unwrap_err();
        assert!(error.contains("line 2") && !error.contains("hunter2"), "{error}");
    }
}
