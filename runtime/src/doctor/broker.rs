//! The broker: can it be reached, and does it lose messages?

use std::path::Path;
use std::time::Duration;

use crate::config::words::Retained;
use crate::config::{Config, settings};
use crate::data_dir;
use crate::doctor::finding::{Finding, Level};
use crate::doctor::running_gateway::RunningGateway;
use crate::limits::BROKER_LOOK_MS;
use crate::source::broker::{BrokerReport, ProbeSession, SessionRecord, probe, recorded_session};

const BROKER: &str = "broker";

const SESSION: &str = "broker session";

/// Topics of Mosquitto's figures.
const VERSION: &str = "$SYS/broker/version";

const DROPPED: &str = "$SYS/broker/publish/messages/dropped";

const RETAINED: &str = "$SYS/broker/retained messages/count";

/// No findings where no broker is configured.
///
/// # Errors
/// The password's file cannot be read.
pub async fn check(config: &Config, gateway: &RunningGateway) -> anyhow::Result<Vec<Finding>> {
    if config.mqtt.url.is_empty() {
        return Ok(Vec::new());
    }
    let client_id = data_dir::client_id_if_run(Path::new(&config.data_dir), &config.mqtt.client_id)?;
    let settings = settings::broker(config, client_id.clone().unwrap_or_default())?;
    let patience = Duration::from_millis(BROKER_LOOK_MS);
    let name = format!("tidegate-doctor-{}", std::process::id());
    let mut findings = match probe(&settings, ProbeSession::Temporary(&name), patience).await {
        Ok(report) => judge(&report, config),
        Err(error) => {
            let state = format!("There is no session at {}: {error}.", settings.url);
            let advice = "Check mqtt.url, the credentials, and the broker's log.";
            return Ok(vec![Finding::new(BROKER, Level::Error, state, advice)]);
        }
    };
    findings.push(match &gateway.readiness {
        Some(readiness) => judge_running(&readiness["source"]),
        None if gateway.runs => Finding::new(
            SESSION,
            Level::Note,
            "The gateway runs, but does not answer at admin.listen.",
            "Look at /readyz yourself.",
        ),
        None if client_id.is_none() => no_session_yet(),
        None => {
            let record = recorded_session(&settings);
            match probe(&settings, ProbeSession::Own, patience).await {
                Ok(report) => judge_session(&report, record.as_ref(), &settings.client_id),
                Err(error) => Finding::new(
                    SESSION,
                    Level::Error,
                    format!("The broker refuses the client_id {:?}: {error}.", settings.client_id),
                    "Check mqtt.client_id and the broker's rights.",
                ),
            }
        }
    });
    Ok(findings)
}

fn judge(report: &BrokerReport, config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    let number = |topic: &str| report.figures.get(topic)?.trim().parse::<u64>().ok();
    let version = report.figures.get(VERSION).map_or("of an unknown version", String::as_str);
    let state = format!("The broker ({version}) speaks MQTT {}.", report.protocol);
    findings.push(Finding::ok(BROKER, state));
    if report.figures.is_empty() {
        findings.push(Finding::new(
            BROKER,
            Level::Note,
            "The broker shows this user no figures ($SYS), so it does not say whether it drops messages.",
            "Allow the gateway's user to read $SYS/#.",
        ));
    }
    if let Some(dropped) = number(DROPPED).filter(|&dropped| dropped > 0) {
        findings.push(Finding::new(
            BROKER,
            Level::Warning,
            format!("The broker has dropped {dropped} messages since it started."),
            "Set max_queued_messages 0 in Mosquitto: its stock limit for a client that is away is 1,000.",
        ));
    }
    if report.qos_max < 1 {
        findings.push(Finding::new(
            BROKER,
            Level::Error,
            "The broker takes no QoS 1, so messages are lost whenever the gateway is away.",
            "Allow QoS 1 at the broker.",
        ));
    }
    if let Some(bytes) =
        report.packet_bytes_max.filter(|&bytes| u64::from(bytes) < config.admission.payload_bytes_max)
    {
        findings.push(Finding::new(
            BROKER,
            Level::Note,
            format!(
                "The broker takes packets of at most {bytes} bytes; admission.payload_bytes_max is larger."
            ),
            "Make the two limits agree.",
        ));
    }
    // The figures themselves are retained messages.
    let retained = number(RETAINED).map(|messages| messages.saturating_sub(report.figures.len() as u64));
    let retained = retained.filter(|&messages| messages > 0);
    if let (Some(messages), Retained::Drop) = (retained, config.mqtt.retained.get()) {
        findings.push(Finding::new(
            BROKER,
            Level::Note,
            format!("The broker retains {messages} messages; those of the gateway's topics are dropped (RETAINED)."),
            "Publish without retain, or set mqtt.retained = \"accept\".",
        ));
    }
    findings
}

/// The session of a gateway that runs, by its own word.
fn judge_running(source: &serde_json::Value) -> Finding {
    let why = source["why"].as_str().unwrap_or("no reason is given").to_owned();
    if source["ready"] == true {
        return Finding::ok(SESSION, "The running gateway has its session.");
    }
    let advice = if why.contains("another program") {
        "Give each gateway a mqtt.client_id of its own: two with one id take the session from each other."
    } else {
        "Check the broker and the log of the gateway."
    };
    Finding::new(SESSION, Level::Error, format!("The running gateway has no session: {why}."), advice)
}

/// The session that waits for a stopped gateway.
fn judge_session(report: &BrokerReport, record: Option<&SessionRecord>, client_id: &str) -> Finding {
    if report.taken_over {
        return Finding::new(
            SESSION,
            Level::Error,
            format!(
                "Another client uses the client_id {client_id:?}: it took the session back from this check."
            ),
            "Give each gateway a mqtt.client_id of its own.",
        );
    }
    if let Some(seconds) = report.session_expiry_s {
        return Finding::new(
            SESSION,
            Level::Warning,
            format!(
                "The broker forgets the session, and what waits in it, {seconds} s after the gateway has gone."
            ),
            "Set persistent_client_expiration in Mosquitto longer than an outage can last, or remove it.",
        );
    }
    match (report.session_present, record) {
        (true, _) => Finding::ok(SESSION, "The broker keeps the session of the stopped gateway."),
        (false, Some(_)) => Finding::new(
            SESSION,
            Level::Warning,
            "The broker has lost the session: what was published since the gateway stopped does not come.",
            "Set persistence true in Mosquitto, and start the gateway soon: it subscribes anew.",
        ),
        (false, None) => no_session_yet(),
    }
}

fn no_session_yet() -> Finding {
    Finding::new(
        SESSION,
        Level::Note,
        "The broker has no session yet: it keeps messages from the first start of the gateway on.",
        "Start the gateway once.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::broker::Protocol;

    fn report() -> BrokerReport {
        BrokerReport {
            protocol: Protocol::V5,
            session_present: true,
            taken_over: false,
            session_expiry_s: None,
            qos_max: 2,
            packet_bytes_max: None,
            figures: [(VERSION.to_owned(), "mosquitto version 2.0.11".to_owned())].into(),
        }
    }

    fn worst(report: &BrokerReport) -> Level {
        judge(report, &Config::default()).iter().map(|finding| finding.level).max().unwrap()
    }

    #[test]
    fn a_broker_that_drops_messages_is_found() {
        assert_eq!(worst(&report()), Level::Ok);
        let mut drops = report();
        drops.figures.insert(DROPPED.into(), "17".into());
        assert_eq!(worst(&drops), Level::Warning);
        assert_eq!(worst(&BrokerReport { figures: Default::default(), ..report() }), Level::Note);
        assert_eq!(worst(&BrokerReport { qos_max: 0, ..report() }), Level::Error);
        assert_eq!(worst(&BrokerReport { packet_bytes_max: Some(1_000), ..report() }), Level::Note);
        let mut retains = report();
        retains.figures.insert(RETAINED.into(), "3".into());
        assert_eq!(worst(&retains), Level::Note);
    }

    #[test]
    fn a_lost_or_stolen_session_is_found() {
        let record = SessionRecord {
            broker: "mqtt://b:1883".into(),
            client_id: "tidegate".into(),
            filters: vec!["tenant/#".into()],
            unacknowledged: Vec::new(),
            granted: true,
        };
        let level = |report: &BrokerReport, record| judge_session(report, record, "tidegate").level;
        assert_eq!(level(&report(), Some(&record)), Level::Ok);
        let gone = BrokerReport { session_present: false, ..report() };
        assert_eq!(level(&gone, Some(&record)), Level::Warning);
        assert_eq!(level(&gone, None), Level::Note);
        assert_eq!(level(&BrokerReport { taken_over: true, ..report() }, Some(&record)), Level::Error);
        assert_eq!(level(&BrokerReport { session_expiry_s: Some(60), ..report() }, None), Level::Warning);
        assert_eq!(judge_running(&serde_json::json!({"ready": true})).level, Level::Ok);
        let stolen = serde_json::json!({"ready": false, "why": "another program uses the client_id \"t\""});
        assert!(judge_running(&stolen).advice.contains("of its own"));
    }
}
