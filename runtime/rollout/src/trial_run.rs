//! The trial run: a new version decodes the route's last messages, beside the version that serves.
//! Nothing is sent, counted or logged; each works on its own copy of the state.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::comparison::Comparison;
use crate::limits::TRIAL_S_MAX;
use tidegate_core::ack::settle::settle_all;
use tidegate_core::ack::token::AckToken;
use tidegate_core::books::{Account, Outcome};
use tidegate_core::ids::TenantId;
use tidegate_core::line_protocol::split_checked;
use tidegate_core::message::{Admitted, CheckedBatch, RefusedMessage};
use tidegate_core::reason::Reason;
use tidegate_core::route_key::RouteKey;
use tidegate_core::tenant::Tenant;
use tidegate_decode::route::recent_messages::RecentMessage;
use tidegate_decode::route::version::RouteVersion;
use tidegate_decode::{DecodeHost, DecodeSink, Decoder};

/// The outcome of a trial.
pub struct TrialVerdict {
    pub comparison: Comparison,
    /// It fails on more of the messages that the other makes lines of than the route allows; in words.
    pub fault: Option<String>,
}

/// Tries a version beside the one that serves, each at its place in the guests folder.
pub fn trial_run(
    host: &DecodeHost,
    (present_key, present): (&RouteKey, &RouteVersion),
    (candidate_key, candidate): (&RouteKey, &RouteVersion),
    messages: Vec<RecentMessage>,
) -> TrialVerdict {
    let mut comparison = Comparison::default();
    let mut present_run = TrialRun::new(host, present_key, present);
    let mut candidate_run = TrialRun::new(host, candidate_key, candidate);
    let ends = Instant::now() + Duration::from_secs(TRIAL_S_MAX);
    let (mut compared, mut failures, mut first) = (0_u64, 0_u64, None);
    for message in messages {
        if Instant::now() >= ends {
            break;
        }
        let (before, after) = (present_run.decode(&message), candidate_run.decode(&message));
        comparison.record(&message.topic, message.received_ns, &before.lines(), &after.lines());
        if !matches!(before, TrialOutput::Lines(_)) {
            continue;
        }
        compared += 1;
        if let TrialOutput::Refused(reason, detail) = after {
            failures += 1;
            first.get_or_insert((reason, detail));
        }
    }
    let percent = candidate.rules.probation.failures_percent_max;
    let fault = first.filter(|_| failures * 100 > percent * compared).map(|(reason, detail)| {
        format!(
            "it fails on {failures} of the last {compared} messages from which {} makes lines; at most {percent} % are allowed: {reason}: {detail}",
            present.guest.tag
        )
    });
    TrialVerdict { comparison, fault }
}

/// The output of a version for a message.
enum TrialOutput {
    Lines(Vec<String>),
    Nothing,
    Refused(Reason, String),
}

impl TrialOutput {
    /// The lines, or the refusal in their place.
    fn lines(&self) -> Vec<String> {
        match self {
            Self::Lines(lines) => lines.clone(),
            Self::Nothing => Vec::new(),
            Self::Refused(reason, detail) => vec![format!("{reason}: {detail}")],
        }
    }
}

/// One version with a decoder of its own.
struct TrialRun {
    decoder: Decoder,
}

impl TrialRun {
    fn new(host: &DecodeHost, route_key: &RouteKey, version: &RouteVersion) -> Self {
        let alone = Arc::new(host.single_route(route_key, version.for_trial(), host.state().copy()));
        Self { decoder: Decoder::new(alone) }
    }

    fn decode(&mut self, message: &RecentMessage) -> TrialOutput {
        let tenant = of_trial(&message.tenant);
        tenant.account.receive(1);
        let message = Admitted::for_trial(
            message.topic.clone(),
            message.message_type.clone(),
            message.payload.clone(),
            message.received_ns,
            tenant,
            message.device.clone(),
        )
        .with_content(message.content.clone());
        let sink = TrialSink(RefCell::new(TrialOutput::Nothing));
        self.decoder.decode(vec![message], &sink);
        sink.0.into_inner()
    }
}

/// The tenant with books that nobody reads.
fn of_trial(tenant: &Tenant) -> Arc<Tenant> {
    let account = Arc::new(Account::new(TenantId::new(tenant.id.as_str())));
    Arc::new(Tenant::new(tenant.id.clone(), account, (*tenant.settings()).clone()))
}

/// Takes the messages of a trial.
struct TrialSink(RefCell<TrialOutput>);

impl DecodeSink for TrialSink {
    fn lines(&self, batches: Vec<CheckedBatch>) {
        for batch in batches {
            if !batch.messages.is_empty() {
                let lines =
                    split_checked(&batch.lines).map(|line| String::from_utf8_lossy(line).into_owned());
                self.0.replace(TrialOutput::Lines(lines.collect()));
            }
            batch.settle();
        }
    }

    fn empty(&self, messages: Vec<AckToken>, account: &Arc<Account>) {
        settle_all(messages, Outcome::Empty, account);
    }

    fn refused(&self, messages: Vec<RefusedMessage>) {
        for message in messages {
            self.0.replace(TrialOutput::Refused(message.reason, message.detail.into()));
            message.token.settle(Outcome::Quarantined, &message.account);
        }
    }
}
