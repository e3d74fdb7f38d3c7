//! Checks of a configuration, key by key and together. None of them opens a socket.

pub(crate) mod listener;
pub(crate) mod files;
pub(crate) mod values;

use crate::config::checks::values::{address, is_loopback, within};
use crate::config::error::ConfigError;
use crate::config::sections::{Config, MqttSection};
use crate::config::words::{MqttProtocol, OutputKind, RegistryKind};
use crate::core::redacted_url::RedactedUrl;
use crate::core::refused_topic::RefusedTopic;
use crate::core::route_key::is_file_name;
use crate::limits::FLEET_NAME_BYTES_MAX;
use crate::source::limits;
use crate::source::limits::MQTT_PACKET_BYTES_MAX;

pub use crate::config::checks::listener::ConnectProof;
pub use crate::config::checks::listener::connect_credentials;
pub use crate::config::checks::values::output_url;
pub use crate::config::checks::values::server_url;

/// Checks every value.
///
/// # Errors
/// The first invalid key, its value, and what is allowed.
pub(super) fn check(config: &Config, notes: &mut Vec<String>) -> Result<(), ConfigError> {
    sources(config)?;
    crate::config::topics::notes(config, notes);
    listener::check(config, notes)?;
    registry(config, notes)?;
    admission(config)?;
    guests(config)?;
    output(config)?;
    rest(config, notes)?;
    crate::config::budget_plan::check(config)?;
    crate::config::tenants::check_common(config)?;
    crate::config::tenants::check(config)
}

fn sources(config: &Config) -> Result<(), ConfigError> {
    let mqtt = &config.mqtt;
    if mqtt.url.is_empty() && config.listen.address.is_empty() {
        return Err(ConfigError::value(
            "mqtt.url",
            &mqtt.url,
            "the URL of a broker, because listen.address is empty too",
        ));
    }
    if !mqtt.url.is_empty() {
        let rest = mqtt.url.strip_prefix("mqtt://").or_else(|| mqtt.url.strip_prefix("mqtts://"));
        let well_formed = rest.is_some_and(|rest| {
            let host_port = rest.trim_end_matches('/');
            !host_port.is_empty()
                && !host_port.contains(['/', '@', '?', '#', ' '])
                && match host_port.rsplit_once(':') {
                    Some((host, port)) if !host.ends_with(':') => {
                        !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
                    }
                    _ => true,
                }
        });
        if !well_formed {
            return Err(ConfigError::value(
                "mqtt.url",
                RedactedUrl(&mqtt.url),
                "mqtt://host:port or mqtts://host:port; use mqtt.username and mqtt.password_file for credentials",
            ));
        }
        if mqtt.client_id.is_empty() {
            return Err(ConfigError::value(
                "mqtt.client_id",
                &mqtt.client_id,
                "a name that stays the same, because the session is persistent",
            ));
        }
        if mqtt.client_id.len() > 65_535 {
            return Err(ConfigError::value("mqtt.client_id", &mqtt.client_id, "at most 65,535 bytes"));
        }
    }
    mqtt.protocol.check("mqtt.protocol")?;
    if !mqtt.share.is_empty() {
        share(mqtt)?;
    }
    let topics = crate::config::topics::read(config)?;
    if mqtt.qos != 1 {
        return Err(ConfigError::value("mqtt.qos", mqtt.qos, "1; with QoS 0 a message can be lost"));
    }
    within("mqtt.keep_alive_s", mqtt.keep_alive_s, 5, 65_535)?;
    mqtt.retained.check("mqtt.retained")?;
    if !mqtt.sparkplug_host_id.is_empty() {
        sparkplug_host_id(mqtt)?;
    }
    if !mqtt.password.is_empty() && !mqtt.password_file.is_empty() {
        return Err(ConfigError::value(
            "mqtt.password",
            "(hidden)",
            "no value, because mqtt.password_file is set",
        ));
    }
    if !mqtt.refused_topic.is_empty() {
        RefusedTopic::parse(&mqtt.refused_topic, &topics).map_err(|fault| {
            ConfigError::value("mqtt.refused_topic", &mqtt.refused_topic, fault.to_string())
        })?;
        if mqtt.url.is_empty() {
            return Err(ConfigError::value(
                "mqtt.refused_topic",
                &mqtt.refused_topic,
                "no value, because mqtt.url is empty and the answers go to the broker; at the listener, MQTT 5 devices \
                 get the reason in their PUBACK",
            ));
        }
    }
    Ok(())
}

/// A group that shares a subscription (MQTT 5 section 4.8.2).
fn share(mqtt: &MqttSection) -> Result<(), ConfigError> {
    let refuse = |expected: String| Err(ConfigError::value("mqtt.share", &mqtt.share, expected));
    let name_max = limits::SHARE_GROUP_BYTES_MAX;
    if mqtt.share.len() > name_max {
        return refuse(format!("a name of at most {name_max} bytes"));
    }
    if mqtt.share.contains(|c: char| matches!(c, '/' | '+' | '#') || c.is_whitespace() || c.is_control()) {
        return refuse("a name without /, +, # and spaces, as \"gateways\"".into());
    }
    if mqtt.protocol.is(MqttProtocol::V4) {
        return refuse("empty with mqtt.protocol = \"3.1.1\", which has no shared subscriptions".into());
    }
    if mqtt.url.is_empty() {
        return refuse("empty without mqtt.url: a subscription is shared at a broker".into());
    }
    Ok(())
}

/// The id of a primary host of Sparkplug: one level of a topic.
fn sparkplug_host_id(mqtt: &MqttSection) -> Result<(), ConfigError> {
    let host_id = &mqtt.sparkplug_host_id;
    let refuse = |expected: String| Err(ConfigError::value("mqtt.sparkplug_host_id", host_id, expected));
    let name_max = limits::SPARKPLUG_HOST_ID_BYTES_MAX;
    if host_id.len() > name_max || host_id.contains(|c: char| matches!(c, '/' | '+' | '#') || c.is_control())
    {
        return refuse(format!(
            "a name of at most {name_max} bytes without /, + and #, such as \"plant-gateway\""
        ));
    }
    if mqtt.url.is_empty() {
        return refuse("empty without mqtt.url: edge nodes read the state of a host at a broker".into());
    }
    if !mqtt.share.is_empty() {
        return refuse("empty with mqtt.share: a host has all messages of its edge nodes".into());
    }
    Ok(())
}

fn registry(config: &Config, notes: &mut Vec<String>) -> Result<(), ConfigError> {
    let registry = &config.registry;
    match registry.kind.check("registry.kind")? {
        RegistryKind::Open if registry.open_tenants.is_empty() => {
            return Err(ConfigError::value(
                "registry.open_tenants",
                &registry.open_tenants,
                "the tenants whose devices are accepted, such as [\"acme\"], because registry.kind = \"open\"",
            ));
        }
        RegistryKind::File if registry.file.is_empty() => {
            return Err(ConfigError::value(
                "registry.file",
                &registry.file,
                "the path of the CSV file of devices",
            ));
        }
        RegistryKind::Postgres => {
            let url = crate::config::postgres_url::parse(&registry.url).map_err(|fault| ConfigError::Value {
                key: "registry.url".into(),
                value: "(hidden)".into(),
                expected: format!(
                    "expected postgres://user:password@host:port/database, because registry.kind = \"postgres\": {fault}"
                ),
            })?;
            if url.believes_anybody() {
                notes.push(
                    "registry.url does not check who the server is: anybody on the way could read and change what the \
                     registry says; add ?sslmode=verify-full"
                        .into(),
                );
            }
            within("registry.query_timeout_ms", registry.query_timeout_ms, 100, 60_000)?;
            within("registry.settings_poll_s", registry.settings_poll_s, 1, 86_400)?;
            within("registry.stale_max_s", registry.stale_max_s, 0, 31_536_000)?;
        }
        RegistryKind::File | RegistryKind::Open => {}
    }
    if registry.cache_entries_max == 0 {
        notes.push("registry.cache_entries_max = 0 means 1000000 entries, not unlimited".into());
    }
    within("registry.cache_entries_max", registry.cache_entries_max, 0, 100_000_000)?;
    within("registry.cache_ttl_s", registry.cache_ttl_s, 0, 31_536_000)
}

fn admission(config: &Config) -> Result<(), ConfigError> {
    let admission = &config.admission;
    admission.credentials.check("admission.credentials")?;
    for (name, rules) in &admission.types {
        rules.credentials.check(&format!("admission.types.{name}.credentials"))?;
    }
    within("admission.payload_bytes_max", admission.payload_bytes_max, 0, MQTT_PACKET_BYTES_MAX as u64)?;
    admission.over_rate.check("admission.over_rate")?;
    within("admission.rate_per_s", admission.rate_per_s, 0.0, 1e9)?;
    within("admission.burst", admission.burst, 1.0, 1e9)?;
    within("admission.unsettled_messages_max", admission.unsettled_messages_max, 100, 10_000_000)?;
    within("admission.unsettled_bytes_max", admission.unsettled_bytes_max, 1_048_576, 17_179_869_184)
}

fn guests(config: &Config) -> Result<(), ConfigError> {
    let guests = &config.guests;
    within("guests.threads", guests.threads, 0, 256)?;
    within("guests.deadline_ms", guests.deadline_ms, 1, 1_000)?;
    within("guests.memory_bytes_max", guests.memory_bytes_max, 65_536, 67_108_864)?;
    within("guests.component_bytes_max", guests.component_bytes_max, 1_024, 104_857_600)?;
    within("guests.tenant_decoders_max", guests.tenant_decoders_max as u64, 1, 100_000)?;
    within("guests.tenant_disk_bytes_max", guests.tenant_disk_bytes_max, 1_048_576, u64::MAX)?;
    let large = &guests.large;
    for route in &large.routes {
        let is_place = route.split_once('/').is_some_and(|(tenant, stem)| {
            (tenant == "_default" || is_file_name(tenant)) && (stem == "_any" || is_file_name(stem))
        });
        if !is_place {
            return Err(ConfigError::value(
                "guests.large.routes",
                &large.routes,
                format!("TENANT/TYPE as in guests.dir, such as \"acme/telemetry\"; {route:?} is not"),
            ));
        }
    }
    within("guests.large.deadline_ms", large.deadline_ms, 1, 1_000)?;
    within("guests.large.memory_bytes_max", large.memory_bytes_max, 1 << 20, 1 << 30)?;
    within(
        "guests.large.instances_max",
        large.instances_max,
        crate::decode::limits::LARGE_TRIAL_INSTANCES + 1,
        1_000,
    )?;
    within("guests.large.component_bytes_max", large.component_bytes_max, 1_024, 104_857_600)?;
    within("guests.large.compile_cpu_s", large.compile_cpu_s, 1, 3_600)?;
    within("guests.large.compile_memory_bytes_max", large.compile_memory_bytes_max, 256 << 20, u64::MAX >> 1)
}

fn output(config: &Config) -> Result<(), ConfigError> {
    let output = &config.output;
    let kind = output.kind.check("output.kind")?;
    if kind != OutputKind::File {
        output_url("output.url", &output.url)?;
    } else if output.path.is_empty() {
        return Err(ConfigError::value("output.path", &output.path, "the folder for the files"));
    }
    if kind == OutputKind::InfluxDb2 && output.org.is_empty() {
        return Err(ConfigError::value(
            "output.org",
            &output.org,
            "the organisation, because output.kind = \"influxdb2\"",
        ));
    }
    if output.create_database && kind != OutputKind::InfluxDb1 {
        return Err(ConfigError::value(
            "output.create_database",
            true,
            "false, because only output.kind = \"influxdb1\" needs it",
        ));
    }
    within("output.batch_lines_max", output.batch_lines_max, 1, 100_000)?;
    within("output.batch_lines", output.batch_lines, 1, output.batch_lines_max)?;
    within("output.flush_interval_ms", output.flush_interval_ms, 1, 60_000)?;
    let (least, longest) = (output.flush_interval_ms, output.flush_interval_max_ms);
    within("output.flush_interval_max_ms", longest, least, 60_000)?;
    within("output.requests_max", output.requests_max, 1, 128)?;
    within("output.request_timeout_ms", output.request_timeout_ms, 100, 300_000)?;
    output.gzip.check("output.gzip")?;
    Ok(())
}

/// The filter itself would take any word for a target, and then log nothing.
fn log_level(level: &str) -> Result<(), ConfigError> {
    let is_level =
        |word: &str| !word.is_empty() && word.parse::<tracing_subscriber::filter::LevelFilter>().is_ok();
    let is_known = |part: &str| match part.trim().rsplit_once('=') {
        Some((target, level)) => !target.trim().is_empty() && is_level(level.trim()),
        None => is_level(part.trim()),
    };
    let filter = level.parse::<tracing_subscriber::EnvFilter>();
    if filter.is_ok() && level.split(',').all(is_known) {
        return Ok(());
    }
    Err(ConfigError::value(
        "log.level",
        level,
        "off, error, warn, info, debug or trace, or a list of levels and target=level, such as \"info,tidegate=debug\"",
    ))
}

/// True for a file that others than its owner and its group can read.
fn others_read(file: &str) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(file).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}

fn fleet(config: &Config, notes: &mut Vec<String>) -> Result<(), ConfigError> {
    let fleet = &config.fleet;
    let is_good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if fleet.name.len() > FLEET_NAME_BYTES_MAX || !fleet.name.chars().all(is_good) {
        let expected = format!("at most {FLEET_NAME_BYTES_MAX} letters, digits, -, _ and .");
        return Err(ConfigError::value("fleet.name", &fleet.name, expected));
    }
    if !fleet.postgres.is_empty() {
        let url =
            crate::config::postgres_url::parse(&fleet.postgres).map_err(|fault| ConfigError::Value {
                key: "fleet.postgres".into(),
                value: "(hidden)".into(),
                expected: format!("expected postgres://user:password@host:port/database: {fault}"),
            })?;
        if url.believes_anybody() {
            notes.push(
                "fleet.postgres does not check who the server is: anybody on the way could read the reports, and have a \
                 gateway drained; add ?sslmode=verify-full"
                    .into(),
            );
        }
        if fleet.name.is_empty() {
            let expected = "a name that no other gateway has, because fleet.postgres is set";
            return Err(ConfigError::value("fleet.name", &fleet.name, expected));
        }
    }
    within("fleet.report_s", fleet.report_s, 1, crate::limits::FLEET_REPORT_S_MAX)?;
    within("fleet.drain_notice_s", config.fleet.drain_notice_s, 0, 3_600)?;
    within("fleet.drain_spread_s", config.fleet.drain_spread_s, 0, 3_600)?;
    within("fleet.config_poll_s", config.fleet.config_poll_s, 1, 86_400)
}

fn rest(config: &Config, notes: &mut Vec<String>) -> Result<(), ConfigError> {
    if config.data_dir.is_empty() {
        return Err(ConfigError::value("data_dir", &config.data_dir, "a folder that the gateway can write"));
    }
    config.spool.when_full.check("spool.when_full")?;
    config.spool.sync.check("spool.sync")?;
    within("spool.bytes_max", config.spool.bytes_max, crate::spool::limits::SPOOL_BYTES_MIN, u64::MAX >> 1)?;
    within(
        "spool.tenant_bytes_max",
        config.spool.tenant_bytes_max,
        crate::spool::limits::SPOOL_TENANT_BYTES_MIN,
        u64::MAX >> 1,
    )?;
    within("spool.reserve_bytes", config.spool.reserve_bytes, 0, u64::MAX >> 1)?;
    within("quarantine.bytes_max", config.quarantine.bytes_max, 1_048_576, u64::MAX >> 1)?;
    within("quarantine.days_max", config.quarantine.days_max, 1, 3_650)?;
    config.log.format.check("log.format")?;
    log_level(&config.log.level)?;
    within("shutdown.deadline_s", config.shutdown.deadline_s, 1, 3_600)?;
    fleet(config, notes)?;
    let admin = &config.admin;
    if admin.cert_file.is_empty() != admin.key_file.is_empty() {
        let (missing, other) = match admin.cert_file.is_empty() {
            true => ("admin.cert_file", "admin.key_file"),
            false => ("admin.key_file", "admin.cert_file"),
        };
        let expected = format!("a PEM file, because {other} is set and TLS needs both");
        return Err(ConfigError::value(missing, "", expected));
    }
    if others_read(&config.admin.token_file) {
        notes.push(format!(
            "admin.token_file = {:?} can be read by every user of this machine; chmod 600 it",
            config.admin.token_file
        ));
    }
    if !config.admin.listen.is_empty() {
        let listen = address("admin.listen", &config.admin.listen)?;
        if !is_loopback(listen) && config.admin.token_file.is_empty() {
            return Err(ConfigError::value(
                "admin.listen",
                &config.admin.listen,
                "a loopback address, or a token in admin.token_file for other addresses",
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::sections::Config;
    use crate::config::words::MqttProtocol;
    use crate::source::limits;

    #[test]
    fn a_log_level_is_a_level_or_a_list_of_targets_with_levels() {
        for good in ["info", "WARN", "off", "info,tidegate::writer=debug"] {
            log_level(good).unwrap();
        }
        for bad in ["", " ", "loud", "tidegate", "info,loud", "tidegate=loud", "=info", "info,", "9"] {
            let error = log_level(bad).unwrap_err().to_string();
            assert!(error.contains("log.level") && error.contains(&format!("{bad:?}")), "{bad:?}: {error}");
        }
    }

    #[test]
    fn a_gateway_of_a_fleet_has_a_name_and_its_database_shows_no_password() {
        let checked = |text: &str| {
            let config = toml::from_str::<Config>(&format!("[fleet]\n{text}\n")).unwrap();
            let mut notes = Vec::new();
            fleet(&config, &mut notes).map(|()| notes.len()).map_err(|error| error.to_string())
        };
        assert_eq!(checked(""), Ok(0));
        assert_eq!(checked("name = \"site-1.g_2\"\npostgres = \"postgres://u:p@127.0.0.1/d\""), Ok(0));
        assert_eq!(checked("name = \"g\"\npostgres = \"postgres://u:p@db.example/d\""), Ok(1));
        for (bad, key) in [
            ("postgres = \"postgres://u:p@127.0.0.1/d\"", "fleet.name"),
            ("name = \"a b\"", "fleet.name"),
            ("name = \"g\"\npostgres = \"postgres://u:s3cret@h:port/d\"", "fleet.postgres"),
            ("report_s = 0", "fleet.report_s"),
            ("config_poll_s = 0", "fleet.config_poll_s"),
        ] {
            let error = checked(bad).unwrap_err();
            assert!(error.contains(key) && !error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn protocol_and_share_are_refused_by_key_and_value_with_what_is_allowed() {
        let checked = |mqtt: &str| {
            let config = toml::from_str::<Config>(&format!("[mqtt]\n{mqtt}\n")).unwrap();
            sources(&config).map_err(|error| error.to_string())
        };
        for good in ["", "protocol = \"3.1.1\"", "protocol = \"5\"\nshare = \"gateways-1\"", "share = \"$x\""]
        {
            checked(good).unwrap();
        }
        for (bad, words) in [
            ("protocol = \"4\"", ["mqtt.protocol", "\"4\"", "one of 5, 3.1.1"]),
            ("protocol = \"\"", ["mqtt.protocol", "\"\"", "one of 5, 3.1.1"]),
            ("protocol = 5", ["mqtt.protocol", ": 5 (", "in quotes"]),
            ("share = \"a/b\"", ["mqtt.share", "\"a/b\"", "without /, +, #"]),
            ("share = \"+\"", ["mqtt.share", "\"+\"", "without /, +, #"]),
            ("share = \"a#\"", ["mqtt.share", "\"a#\"", "without /, +, #"]),
            ("share = \"/\"", ["mqtt.share", "\"/\"", "without /, +, #"]),
            ("share = \" \"", ["mqtt.share", "\" \"", "spaces"]),
            ("share = \"a\\u0000\"", ["mqtt.share", "a", "without"]),
            ("share = \"g\"\nprotocol = \"3.1.1\"", ["mqtt.share", "\"g\"", "no shared subscriptions"]),
        ] {
            let error = checked(bad).unwrap_err();
            for word in words {
                assert!(error.contains(word), "{bad}: {error}");
            }
        }
        let long = "g".repeat(limits::SHARE_GROUP_BYTES_MAX + 1);
        let error = checked(&format!("share = \"{long}\"")).unwrap_err();
        assert!(error.contains("mqtt.share") && error.contains("255 bytes"), "{error}");
        let none =
            toml::from_str::<Config>("[mqtt]\nurl = \"\"\nshare = \"g\"\n[listen]\naddress = \"x\"").unwrap();
        assert!(sources(&none).unwrap_err().to_string().contains("empty without mqtt.url"));
        // A variable gives the same text.
        let environment = [("TIDEGATE_MQTT__PROTOCOL".to_owned(), "3.1.1".to_owned())].into();
        let merged = crate::config::layers::merge(None, &environment).unwrap();
        assert_eq!(merged.config.mqtt.protocol, MqttProtocol::V4.into());
    }
}
