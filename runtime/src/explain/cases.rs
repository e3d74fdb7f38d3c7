//! Cases: messages with what is expected of each. `test` and `validate` run them, and so does the
//! gateway before a guest may serve.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;

use crate::config::{CurrentConfig, settings};
use crate::core::topic::TopicTemplates;
use crate::decode::DecodeHost;
use crate::explain::dry_run::DryRun;
use crate::explain::verdict::{ExplainRequest, ExplainVerdict, RowOverride};
use crate::limits::CASES_MAX;
use crate::rollout::CaseRunner;
use crate::rollout::limits::TRIAL_S_MAX;

/// The cases of a guest that may be about to serve, in the sandbox and limits that it would have.
pub struct DryRunCases(pub CurrentConfig);

impl CaseRunner for DryRunCases {
    fn run(&self, host: Arc<DecodeHost>, cases: &str) -> Result<(), String> {
        let config = self.0.get();
        let topics = settings::topics(&config);
        let mut dry_run = DryRun::of_host(&config, host);
        let ends = Instant::now() + Duration::from_secs(TRIAL_S_MAX);
        let (mut run, mut failed, mut first) = (0, 0, None);
        let lines = cases.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        for (index, line) in lines {
            if run >= CASES_MAX {
                return Err(format!("more than {CASES_MAX} cases"));
            }
            if Instant::now() >= ends {
                return Err(format!("the cases take more than {TRIAL_S_MAX} s"));
            }
            run += 1;
            let line_number = index + 1;
            let (name, difference) = run_case(&mut dry_run, &topics, line)
                .map_err(|error| format!("line {line_number}: {error:#}"))?;
            if let Some(difference) = difference {
                failed += 1;
                first.get_or_insert_with(|| format!("{name:?} in line {line_number}:\n{difference}"));
            }
        }
        match first {
            Some(first) => Err(format!("{failed} of {run}, the first {first}")),
            None => Ok(()),
        }
    }
}

/// One line of a case file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    topic: String,
    payload: Option<String>,
    payload_base64: Option<String>,
    received_at: String,
    site: Option<String>,
    expect: Option<Expectation>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum Expectation {
    Lines(Vec<String>),
    /// The guest's own code, or one of the gateway's.
    Refusal(String),
}

/// The time of an RFC 3339 text, in nanoseconds since the epoch.
///
/// # Errors
/// It is none.
pub fn received_ns(text: &str) -> anyhow::Result<i64> {
    let time: jiff::Timestamp =
        text.parse().with_context(|| format!("received_at = {text:?}: expected RFC 3339"))?;
    i64::try_from(time.as_nanosecond())
        .with_context(|| format!("received_at = {text:?}: outside 64-bit nanoseconds"))
}

/// The payload of a line that has it as text or in base64.
///
/// # Errors
/// It has none, or both, or no base64.
pub fn payload(text: Option<String>, base64: Option<String>) -> anyhow::Result<Vec<u8>> {
    match (text, base64) {
        (Some(text), None) => Ok(text.into_bytes()),
        (None, Some(base64)) => BASE64.decode(&base64).context("payload_base64: expected base64"),
        (None, None) => anyhow::bail!("expected payload or payload_base64"),
        (Some(_), Some(_)) => anyhow::bail!("expected payload or payload_base64, not both"),
    }
}

/// A case that was run.
pub struct JudgedCase {
    pub name: String,
    pub verdict: ExplainVerdict,
    expect: Option<Expectation>,
}

impl JudgedCase {
    /// The difference to what the case expects; `None`: there is none.
    ///
    /// # Errors
    /// It expects nothing.
    pub fn difference(&self) -> anyhow::Result<Option<String>> {
        let expect = self.expect.as_ref().with_context(|| {
            "expect is missing: expected {\"lines\": […]} or {\"refusal\": \"CODE\"}; tidegate test --bless writes it"
        })?;
        Ok(difference(expect, &self.verdict))
    }
}

/// Runs one line of a case file; gives the case's name, and the difference where there is one.
///
/// # Errors
/// The line is no case.
pub fn run_case(
    dry_run: &mut DryRun,
    topics: &TopicTemplates,
    line: &str,
) -> anyhow::Result<(String, Option<String>)> {
    let case = judge_case(dry_run, topics, line)?;
    let difference = case.difference()?;
    Ok((case.name, difference))
}

/// Runs one line of a case file, whatever it expects.
///
/// # Errors
/// The line is no case.
pub fn judge_case(dry_run: &mut DryRun, topics: &TopicTemplates, line: &str) -> anyhow::Result<JudgedCase> {
    let case: Case = serde_json::from_str(line)?;
    let names = topics
        .matches(&case.topic)
        .with_context(|| format!("topic = {:?} is not of the form {topics}", case.topic))?;
    let row = RowOverride {
        tenant_id: Some(names.tenant.of(&case.topic).to_owned()),
        device_id: Some(names.device.of(&case.topic).to_owned()),
        site_id: case.site.unwrap_or_default(),
        status: "ACTIVE".into(),
        provision_token_hash: None,
    };
    let question = ExplainRequest {
        topic: case.topic,
        payload: payload(case.payload, case.payload_base64)?.into(),
        received_ns: received_ns(&case.received_at)?,
        registry_row: Some(Some(row)),
    };
    let verdict = dry_run.judge(question);
    Ok(JudgedCase { name: case.name, verdict, expect: case.expect })
}

fn difference(expected: &Expectation, verdict: &ExplainVerdict) -> Option<String> {
    let got = || match (&verdict.reason, &verdict.detail) {
        (Some(reason), detail) => format!("  got      {reason}: {}", detail.as_deref().unwrap_or_default()),
        (None, _) => {
            verdict.lines.iter().map(|line| format!("  got      {line}")).collect::<Vec<_>>().join("\n")
        }
    };
    match expected {
        Expectation::Refusal(code) => {
            let own = verdict.detail.as_deref().is_some_and(|detail| {
                detail
                    .strip_prefix(code.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with([':', ' ']))
            });
            let ours = verdict.reason.is_some_and(|reason| reason.code() == code);
            (!(own || ours)).then(|| format!("  expected a refusal with {code}\n{}", got()))
        }
        Expectation::Lines(lines) if verdict.reason.is_none() && *lines == verdict.lines => None,
        Expectation::Lines(lines) if verdict.reason.is_some() => {
            Some(format!("  expected {} lines\n{}", lines.len(), got()))
        }
        Expectation::Lines(lines) => {
            let mut text = Vec::new();
            for index in 0..lines.len().max(verdict.lines.len()) {
                let (expected, got) = (lines.get(index), verdict.lines.get(index));
                if expected == got {
                    continue;
                }
                text.push(format!("  line {}", index + 1));
                text.push(format!("  expected {}", expected.map_or("(no line)", String::as_str)));
                text.push(format!("  got      {}", got.map_or("(no line)", String::as_str)));
            }
            Some(text.join("\n"))
        }
    }
}
