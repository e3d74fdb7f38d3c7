//! The answer of the playground: the way and the end of a message, step by step.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::admin::playground::target::Target;
use crate::admin::playground::trial::TrialVerdict;
use crate::core::reason::Reason;
use crate::explain::mapping_trace::MappedValue;
use crate::explain::verdict::{ExplainOutcome, ExplainVerdict};

/// One step of a message on its way.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PlaygroundStep {
    /// `topic`, `device`, `decoder`, `decode` or `lines`.
    step: String,
    ok: bool,
    text: String,
}

/// The way and the end that a message would have.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PlaygroundResult {
    steps: Vec<PlaygroundStep>,
    /// `lines`, `empty` or `quarantined`.
    outcome: String,
    reason: Option<String>,
    detail: Option<String>,
    tenant: Option<String>,
    device: Option<String>,
    database: Option<String>,
    /// The decoder, as `name@version#digest`.
    guest: Option<String>,
    lines: Vec<String>,
    /// Values that the decoder left out and reported.
    ignored: Vec<String>,
    /// CPU time of the decoder in microseconds, its start included.
    cpu_us: u64,
    /// The time of receipt that the message had (RFC 3339, UTC, nanoseconds).
    received_at: String,
    /// Values that a mapping looked for, each with its bytes in the payload; `null`: the decoder is no mapping.
    values: Option<Vec<MappedValue>>,
    /// Values beside those.
    values_left_out: u64,
    /// The bytes that the values stand in, where those are a part of the payload only, in base64.
    decoder_payload_base64: Option<String>,
    /// The decoder that was brought along: its digest, and how it decodes the route's last messages beside the
    /// decoder that serves.
    #[schema(value_type = Option<Object>)]
    put: Option<Value>,
    /// The reason why the decoder that was brought along may not serve, though it runs.
    may_not_serve: Option<String>,
}

impl PlaygroundResult {
    pub fn new(target: &Target, sent: &Bytes, trial: TrialVerdict) -> Self {
        let TrialVerdict { verdict, received_ns, mapped } = trial;
        let received = jiff::Timestamp::from_nanosecond(i128::from(received_ns));
        let of_a_part =
            verdict.decoder_payload.as_ref().filter(|payload| mapped.is_some() && *payload != sent);
        let decoder_payload_base64 = of_a_part.map(|payload| BASE64.encode(payload));
        Self {
            steps: steps(target, &verdict),
            outcome: verdict.outcome.name().to_owned(),
            reason: verdict.reason.map(|reason| reason.code().to_owned()),
            detail: verdict.detail,
            tenant: verdict.tenant,
            device: verdict.device,
            database: verdict.database,
            guest: verdict.guest,
            lines: verdict.lines,
            ignored: verdict.ignored,
            cpu_us: verdict.cpu.as_micros().min(u128::from(u64::MAX)) as u64,
            received_at: format!("{:.9}", received.unwrap_or(jiff::Timestamp::UNIX_EPOCH)),
            values_left_out: mapped.as_ref().map_or(0, |mapped| mapped.left_out as u64),
            values: mapped.map(|mapped| mapped.values),
            decoder_payload_base64,
            put: None,
            may_not_serve: None,
        }
    }

    /// The same, of a decoder that was brought along and may serve.
    pub fn with_put(self, put: Option<Value>) -> Self {
        Self { put, ..self }
    }

    /// The same, of one that runs and may not serve.
    pub fn with_refusal(self, why: String) -> Self {
        Self { may_not_serve: Some(why), ..self }
    }
}

/// The way in steps, up to the one at which it ends.
fn steps(target: &Target, verdict: &ExplainVerdict) -> Vec<PlaygroundStep> {
    let step = |name: &str, ok: bool, text: String| PlaygroundStep { step: name.to_owned(), ok, text };
    let why = || {
        let detail = verdict.detail.clone().unwrap_or_default();
        format!("{}: {detail}", verdict.reason.map_or("refused", Reason::code))
    };
    let mut steps =
        vec![step("topic", true, format!("tenant {}, type {}", target.tenant, target.message_type))];
    if !verdict.admitted {
        steps.push(step("device", false, why()));
        return steps;
    }
    let site = match &target.site {
        Some(site) => {
            format!("the gateway knows it, at the site {site:?}; its credentials are not checked here")
        }
        None => "the gateway has not seen it; it is taken as registered, and its credentials are not checked"
            .into(),
    };
    steps.push(step("device", true, site));
    let Some(guest) = &verdict.guest else {
        steps.push(step("decoder", false, why()));
        return steps;
    };
    steps.push(step("decoder", true, guest.clone()));
    let cpu = format!("{} µs of CPU time, its start included", verdict.cpu.as_micros());
    match verdict.outcome {
        ExplainOutcome::Lines => {
            steps.push(step("decode", true, cpu));
            let database = verdict.database.as_deref().unwrap_or("no database");
            steps.push(step("lines", true, format!("{} for {database}", counted(verdict.lines.len()))));
        }
        ExplainOutcome::Empty => {
            steps.push(step("decode", true, cpu));
            steps.push(step("lines", true, "none, on purpose".into()));
        }
        ExplainOutcome::Quarantined | ExplainOutcome::Parked => {
            steps.push(step("decode", false, format!("{}; {cpu}", why())));
        }
    }
    steps
}

/// A number of lines, for people.
fn counted(lines: usize) -> String {
    if lines == 1 { "1 line".to_owned() } else { format!("{lines} lines") }
}
