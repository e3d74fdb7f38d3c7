//! The question and the verdict of `explain` and `test`.

use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::core::books::Outcome;
use crate::core::reason::Reason;

/// A registry row that stands in for the registry's answer.
#[derive(Clone, Debug, Deserialize)]
pub struct RowOverride {
    /// Absent: the tenant that the topic names.
    pub tenant_id: Option<String>,
    /// Absent: the device that the topic names.
    pub device_id: Option<String>,
    pub site_id: String,
    pub status: String,
    #[serde(default)]
    pub provision_token_hash: Option<String>,
}

/// A message to ask about.
#[derive(Clone, Debug)]
pub struct ExplainRequest {
    pub topic: String,
    pub payload: Bytes,
    pub received_ns: i64,
    /// None: the registry is asked. `Some(None)`: the device is not registered.
    pub registry_row: Option<Option<RowOverride>>,
}

/// The end that a message would have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExplainOutcome {
    Lines,
    Empty,
    Quarantined,
    /// The registry could not be asked: it would wait in the spool.
    Parked,
}

impl ExplainOutcome {
    pub fn name(self) -> &'static str {
        match self {
            Self::Lines => Outcome::Lines.name(),
            Self::Empty => Outcome::Empty.name(),
            Self::Quarantined => Outcome::Quarantined.name(),
            Self::Parked => "parked",
        }
    }
}

/// The verdict on a message.
#[derive(Clone, Debug)]
pub struct ExplainVerdict {
    pub outcome: ExplainOutcome,
    pub reason: Option<Reason>,
    pub detail: Option<String>,
    pub admitted: bool,
    pub tenant: Option<String>,
    pub device: Option<String>,
    pub database: Option<String>,
    pub guest: Option<String>,
    /// Complete lines, as they would be posted.
    pub lines: Vec<String>,
    /// Values that the decoder left out and reported.
    pub ignored: Vec<String>,
    /// The payload that the decoder got: that of a network server's message is a part of it. None: it got none.
    pub decoder_payload: Option<Bytes>,
    /// CPU time of the decoder; zero if none was called.
    pub cpu: Duration,
}

impl ExplainVerdict {
    pub fn is_refusal(&self) -> bool {
        matches!(self.outcome, ExplainOutcome::Quarantined | ExplainOutcome::Parked)
    }

    /// The verdict record.
    pub fn record(&self, id: Value) -> Value {
        json!({
            "id": id,
            "outcome": self.outcome.name(),
            "reason": self.reason.map(Reason::code),
            "detail": self.detail,
            "tenant": self.tenant,
            "device": self.device,
            "database": self.database,
            "guest": self.guest,
            "lines": self.lines,
            "ignored": self.ignored,
        })
    }
}
