//! The databases: does each answer, and which version is it?

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::{Config, settings};
use crate::core::redacted_url::RedactedUrl;
use crate::doctor::finding::{Finding, Level};
use crate::writer::{HttpSettings, OutputSettings, ServerKind};

const CHECK: &str = "database";

/// The time limit of one answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Faults of InfluxDB 3 Core: the version that mends each, and the fault.
const CORE_FAULTS: [((u32, u32, u32), &str); 3] = [
    ((3, 11, 4), "takes either of two writes of one point that come soon after each other"),
    ((3, 11, 2), "can spoil the series of a line beside one that it refuses"),
    ((3, 10, 3), "can stop for good after a line with a tag that is there twice, from another client"),
];

/// No findings where lines go to files.
///
/// # Errors
/// A secret's file cannot be read.
pub async fn check(config: &Config) -> anyhow::Result<Vec<Finding>> {
    let OutputSettings::Http(common) = settings::writer(config)?.output else { return Ok(Vec::new()) };
    let own = settings::own_outputs(config)?;
    let mut servers: BTreeMap<String, HttpSettings> = BTreeMap::new();
    for server in std::iter::once(common).chain(own.into_values()) {
        servers.entry(server.url.clone()).or_insert(server);
    }
    let client = reqwest::Client::builder().timeout(PATIENCE).build()?;
    let mut findings = Vec::new();
    for server in servers.values() {
        findings.extend(ask(&client, server).await);
    }
    Ok(findings)
}

async fn ask(client: &reqwest::Client, server: &HttpSettings) -> Vec<Finding> {
    let shown = RedactedUrl(&server.url).to_string();
    let mut request = client.get(format!("{}/ping", server.url.trim_end_matches('/')));
    if !server.token.is_empty() {
        let scheme = if server.kind == ServerKind::InfluxDb3 { "Bearer" } else { "Token" };
        request = request.header("Authorization", format!("{scheme} {}", server.token));
    } else if !server.username.is_empty() {
        request = request.basic_auth(&server.username, Some(&server.password));
    }
    let answer = match request.send().await {
        Ok(answer) => answer,
        Err(error) => {
            let state = format!("{shown} does not answer: {}.", error.without_url());
            let advice = "Check output.url and the server. Lines wait in the spool meanwhile.";
            return vec![Finding::new(CHECK, Level::Error, state, advice)];
        }
    };
    let status = answer.status();
    if matches!(status.as_u16(), 401 | 403) {
        let state = format!("{shown} does not accept the credentials ({status}).");
        return vec![Finding::new(
            CHECK,
            Level::Error,
            state,
            "Check output.token_file, or the user and password.",
        )];
    }
    if !status.is_success() {
        let state = format!("{shown} answers {status} to /ping.");
        return vec![Finding::new(
            CHECK,
            Level::Error,
            state,
            "Check output.url: another program may answer there.",
        )];
    }
    let header = |name: &str| {
        let value = answer.headers().get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let (mut version, build) = (header("x-influxdb-version"), header("x-influxdb-build"));
    if version.is_empty() {
        // InfluxDB 3 says it in the body too.
        let body = answer.bytes().await.unwrap_or_default();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        version = body["version"].as_str().unwrap_or_default().to_owned();
    }
    judge(server.kind, &shown, &version, &build)
}

fn judge(kind: ServerKind, shown: &str, version: &str, build: &str) -> Vec<Finding> {
    let Some(number) = parse(version) else {
        let state = format!("{shown} answers, but does not say its version.");
        return vec![Finding::new(
            CHECK,
            Level::Note,
            state,
            "Check output.url if it should be an InfluxDB.",
        )];
    };
    let expected = match kind {
        ServerKind::InfluxDb3 => 3..=3,
        // 2 has the API of 1.x too, and 1.8 has that of 2.
        ServerKind::InfluxDb2 | ServerKind::InfluxDb1 => 1..=2,
    };
    if !expected.contains(&number.0) {
        let state = format!("{shown} is InfluxDB {version}, but output.kind names another one.");
        return vec![Finding::new(
            CHECK,
            Level::Error,
            state,
            "Set output.kind to the version of the server.",
        )];
    }
    let mut findings: Vec<Finding> = CORE_FAULTS
        .iter()
        .filter(|(mended, _)| number.0 == 3 && number < *mended && !build.eq_ignore_ascii_case("enterprise"))
        .map(|((major, minor, patch), fault)| {
            let state = format!("{shown} is InfluxDB 3 Core {version}, which {fault}.");
            let advice = format!("Update it to {major}.{minor}.{patch} or later.");
            Finding::new(CHECK, Level::Warning, state, advice)
        })
        .collect();
    if findings.is_empty() {
        findings.push(Finding::ok(CHECK, format!("{shown} is InfluxDB {version}.")));
    }
    findings
}

/// The numbers of `3.10.1`, `v2.7.1` or `1.6.7~rc0`.
fn parse(version: &str) -> Option<(u32, u32, u32)> {
    let mut numbers = version.trim_start_matches('v').split('.').map(|part| {
        let digits: String = part.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    });
    Some((numbers.next()??, numbers.next()??, numbers.next().flatten().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_with_faults_are_found_and_others_are_not() {
        let levels = |version: &str| {
            let findings = judge(ServerKind::InfluxDb3, "u", version, "Core");
            findings.into_iter().map(|finding| finding.level).collect::<Vec<_>>()
        };
        assert_eq!(levels("3.11.4"), [Level::Ok]);
        assert_eq!(levels("3.12.0"), [Level::Ok]);
        assert_eq!(levels("3.11.3"), [Level::Warning]);
        assert_eq!(levels("3.11.1"), [Level::Warning; 2]);
        assert_eq!(levels("3.10.1"), [Level::Warning; 3]);
        assert_eq!(levels("2.7.1"), [Level::Error]);
        assert_eq!(levels("VictoriaMetrics"), [Level::Note]);
        assert_eq!(judge(ServerKind::InfluxDb3, "u", "3.10.1", "Enterprise")[0].level, Level::Ok);
        assert_eq!(judge(ServerKind::InfluxDb1, "u", "1.6.7~rc0", "OSS")[0].level, Level::Ok);
        assert_eq!(judge(ServerKind::InfluxDb1, "u", "3.11.4", "Core")[0].level, Level::Error);
    }
}
