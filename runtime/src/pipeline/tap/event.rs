//! One message as a viewer sees it.

use bytes::Bytes;

use crate::core::ack::tap_probe::ProbedMessage;
use crate::core::ids::{DatabaseName, GuestTag};
use crate::core::message::RefusedMessage;
use crate::core::topic::TopicTemplates;
use crate::limits::{TAP_LINES_BYTES_MAX, TAP_PAYLOAD_BYTES_MAX};

/// The outcome of a message at the joint where it was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TapOutcome {
    /// Its lines went to the spool.
    Lines,
    /// No line was made of it, on purpose.
    Empty,
    Quarantined,
    /// It waits for the registry, or it was given up and comes again.
    Unsettled,
}

impl TapOutcome {
    pub const ALL: [TapOutcome; 4] = [Self::Lines, Self::Empty, Self::Quarantined, Self::Unsettled];

    pub fn name(self) -> &'static str {
        match self {
            Self::Lines => "lines",
            Self::Empty => "empty",
            Self::Quarantined => "quarantined",
            Self::Unsettled => "unsettled",
        }
    }
}

/// The names that a topic stands for; empty where it stands for none.
#[derive(Clone, Debug, Default)]
pub(super) struct TopicNames {
    tenant: String,
    device: String,
    message_type: String,
}

/// A message that is shown. It holds copies: no buffer of the data path lives longer for it.
#[derive(Clone, Debug)]
pub struct TapEvent {
    /// Grows with each event; unique in one run of the gateway.
    pub id: u64,
    pub received_ns: i64,
    pub topic: String,
    pub(super) names: TopicNames,
    pub via: &'static str,
    pub outcome: TapOutcome,
    /// The code of a refusal, and its detail.
    pub reason: Option<&'static str>,
    pub detail: Option<String>,
    pub guest: Option<String>,
    pub database: Option<String>,
    /// The first bytes of its lines, whole lines only.
    pub lines: Vec<u8>,
    pub line_count: u64,
    /// The first bytes of the payload.
    pub payload: Bytes,
    /// The size of the payload on the wire.
    pub payload_bytes: usize,
    /// A bit for each viewer that it is for.
    pub(super) viewers: u32,
}

fn beginning(payload: &[u8]) -> Bytes {
    Bytes::copy_from_slice(&payload[..payload.len().min(TAP_PAYLOAD_BYTES_MAX)])
}

/// The whole lines among the first bytes; of one long line its beginning.
fn first_lines(lines: &[u8]) -> Vec<u8> {
    if lines.len() <= TAP_LINES_BYTES_MAX {
        return lines.to_vec();
    }
    let first = &lines[..TAP_LINES_BYTES_MAX];
    let end = first.iter().rposition(|&byte| byte == b'\n').map_or(first.len(), |newline| newline + 1);
    first[..end].to_vec()
}

impl TapEvent {
    pub(super) fn without_lines(message: &ProbedMessage, outcome: TapOutcome) -> Self {
        Self {
            id: 0,
            received_ns: message.received_ns,
            topic: message.topic.clone(),
            names: TopicNames::default(),
            via: message.via,
            outcome,
            reason: None,
            detail: None,
            guest: None,
            database: None,
            lines: Vec::new(),
            line_count: 0,
            payload: beginning(&message.payload),
            payload_bytes: message.payload_bytes,
            viewers: message.viewers,
        }
    }

    pub(super) fn of_lines(
        message: &ProbedMessage,
        lines: &[u8],
        line_count: u64,
        (database, guest): (&DatabaseName, &GuestTag),
    ) -> Self {
        Self {
            lines: first_lines(lines),
            line_count,
            guest: Some(guest.to_string()),
            database: Some(database.to_string()),
            ..Self::without_lines(message, TapOutcome::Lines)
        }
    }

    pub(super) fn of_refusal(refused: &RefusedMessage, probe: Option<&ProbedMessage>, viewers: u32) -> Self {
        Self {
            id: 0,
            received_ns: refused.received_ns,
            topic: refused.topic.clone(),
            names: TopicNames::default(),
            via: probe.map(|probe| probe.via).or(refused.via.map(|via| via.name())).unwrap_or("admitted"),
            outcome: TapOutcome::Quarantined,
            reason: Some(refused.reason.code()),
            detail: Some(refused.detail.to_string()),
            guest: refused.guest.as_ref().map(ToString::to_string),
            database: None,
            lines: Vec::new(),
            line_count: 0,
            payload: beginning(&refused.payload),
            payload_bytes: refused.payload_bytes,
            viewers,
        }
    }

    /// Finds tenant, device and type in the topic.
    pub(super) fn name_from(&mut self, topics: &TopicTemplates) {
        if let Some(fields) = topics.matches(&self.topic) {
            self.names = TopicNames {
                tenant: fields.tenant.of(&self.topic).to_owned(),
                device: fields.device.of(&self.topic).to_owned(),
                message_type: fields.message_type.of(&self.topic).to_owned(),
            };
        }
    }

    /// The tenant that the topic stands for; empty if it stands for none.
    pub fn tenant(&self) -> &str {
        &self.names.tenant
    }

    pub fn device(&self) -> &str {
        &self.names.device
    }

    pub fn message_type(&self) -> &str {
        &self.names.message_type
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let detail = self.detail.as_ref().map_or(0, String::len);
        size_of::<Self>() + self.topic.len() + detail + self.lines.len() + self.payload.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_lines_the_first_whole_ones_are_shown() {
        let line = [b"x".repeat(99), b"\n".to_vec()].concat();
        let lines = line.repeat(TAP_LINES_BYTES_MAX / 100 + 10);
        let first = first_lines(&lines);
        assert_eq!(first.len(), TAP_LINES_BYTES_MAX / 100 * 100);
        assert_eq!(first_lines(&b"y".repeat(2 * TAP_LINES_BYTES_MAX)).len(), TAP_LINES_BYTES_MAX);
        assert_eq!(first_lines(&line), line);
    }
}
