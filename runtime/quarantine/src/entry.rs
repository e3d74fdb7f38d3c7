//! One refusal as it lies on disk: a JSON object on a line of its own.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::limits;
use crate::segment::{AccountKey, Series};
use tidegate_core::books::NO_TENANT;
use tidegate_core::message::{RefusedMessage, Via};
use tidegate_core::reason::Reason;
use tidegate_core::redact::redact_payload;
use tidegate_core::refused_lines::{RefusedLine, RefusedLines};
use tidegate_core::topic::{TopicFields, TopicName, TopicTemplates};

/// One refused message, or one refused line of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// `{segment}-{offset}`: its first location, and its name for `show` and `replay`.
    pub id: String,
    /// The time of the refusal (RFC 3339, UTC).
    pub time: String,
    /// The second of the age clock at which it was refused: entries expire by that, whatever becomes of the
    /// wall clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_s: Option<u64>,
    /// The time of receipt of its message (RFC 3339, UTC, nanoseconds).
    pub received_at: String,
    /// A code of the table of reasons.
    pub reason: String,
    pub detail: String,
    pub topic: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub message_type: Option<String>,
    /// The device's site, if the message had passed admission. Without it a replay is admitted anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// The way in, if admission refused it: `broker`, `listener` or `proven`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<String>,
    /// The payload, if it is text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
    /// The payload, if it is not text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_base64: Option<String>,
    /// The size of the payload on the wire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_bytes: Option<u64>,
    /// Only the beginning of the payload is stored: it cannot be replayed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// The line that the database refused; then there is no payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<String>,
    /// The database's words about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// The account that it is counted in, if that is not the tenant's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// The number of replays of its message so far.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub replays: u32,
    /// The entry that was replayed, and refused again as this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay_of: Option<String>,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Entry {
    pub(super) fn from_message(
        refused: &RefusedMessage,
        id: String,
        time: &str,
        topics: Option<&TopicTemplates>,
    ) -> Self {
        let kept = match Series::of(refused) {
            Series::Known | Series::Unproven => refused.payload.len(),
            // An entry that is replayed may have been whole.
            Series::Strangers if refused.token.replay().is_some() => refused.payload.len(),
            Series::Strangers => refused.payload.len().min(limits::STRANGER_PAYLOAD_KEPT_BYTES),
        };
        let truncated = kept < refused.payload_bytes;
        let bytes = &refused.payload[..kept];
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => Some(text),
            // Cut in the middle of a character.
            Err(error) if truncated && error.error_len().is_none() => {
                std::str::from_utf8(&bytes[..error.valid_up_to()]).ok()
            }
            Err(_) => None,
        };
        let tenant = refused.tenant.as_ref().map(ToString::to_string);
        Self {
            id,
            time: time.to_owned(),
            received_at: rfc3339(refused.received_ns),
            reason: refused.reason.code().to_owned(),
            detail: refused.detail.to_string(),
            topic: refused.topic.clone(),
            account: other_account(tenant.as_deref(), refused.account.tenant().as_str()),
            tenant,
            device: refused.device.as_ref().map(ToString::to_string),
            message_type: topic_fields(&refused.topic, topics)
                .map(|fields| fields.message_type.of(&refused.topic).to_owned()),
            site: refused.site.clone(),
            via: refused.via.map(|via| via.name().to_owned()),
            replays: refused.token.replay().map_or(0, |replay| replay.replays),
            replay_of: refused.token.replay().map(|replay| replay.of.clone()),
            guest: refused.guest.as_ref().map(ToString::to_string),
            payload_base64: text.is_none().then(|| STANDARD.encode(bytes)),
            payload: text.map(str::to_owned),
            payload_bytes: Some(refused.payload_bytes as u64),
            truncated,
            ..Self::default()
        }
    }

    pub(super) fn from_line(
        refused: &RefusedLines,
        line: &RefusedLine,
        id: String,
        time: &str,
        topics: Option<&TopicTemplates>,
    ) -> Self {
        let fields = topic_fields(&refused.topic, topics);
        let part = |name: &TopicName| name.of(&refused.topic).to_owned();
        let tenant = refused.tenant.to_string();
        Self {
            id,
            time: time.to_owned(),
            received_at: rfc3339(refused.received_ns),
            reason: Reason::DatabaseRefused.code().to_owned(),
            detail: line.answer.clone(),
            topic: refused.topic.clone(),
            account: other_account(Some(&tenant), refused.account.tenant().as_str()),
            tenant: Some(tenant),
            device: fields.as_ref().map(|fields| part(&fields.device)),
            message_type: fields.map(|fields| part(&fields.message_type)),
            guest: Some(refused.guest.to_string()),
            database: Some(refused.database.to_string()),
            line: Some(String::from_utf8_lossy(&line.line).into_owned()),
            answer: Some(line.answer.clone()),
            ..Self::default()
        }
    }

    /// The same with credentials masked, for people to see, and without what is of use to the ring alone.
    pub fn masked(mut self) -> Self {
        self.kept_s = None;
        if let Some(payload) = &self.payload {
            self.payload = Some(redact_payload(payload).into_owned());
        }
        if let Some(bytes) = self.payload_base64.as_ref().and_then(|text| STANDARD.decode(text).ok()) {
            let text = String::from_utf8_lossy(&bytes);
            // It is then shown as text, as far as it is text.
            if let std::borrow::Cow::Owned(masked) = redact_payload(&text) {
                self.payload_base64 = None;
                self.payload = Some(masked);
            }
        }
        self
    }

    /// The payload as it came, if it is stored.
    pub fn payload_bytes_kept(&self) -> Option<Vec<u8>> {
        match (&self.payload, &self.payload_base64) {
            (Some(text), _) => Some(text.clone().into_bytes()),
            (None, Some(text)) => STANDARD.decode(text).ok(),
            (None, None) => None,
        }
    }

    /// The key that the entry is counted under: its reason and its account's name.
    pub(super) fn key(&self) -> AccountKey {
        let account = self.account.as_deref().or(self.tenant.as_deref()).unwrap_or(NO_TENANT);
        (self.reason.clone(), account.to_owned())
    }

    /// The way in. An unknown one counts as the listener without authentication.
    pub fn via(&self) -> Via {
        let known =
            [Via::Broker, Via::Proven].into_iter().find(|via| self.via.as_deref() == Some(via.name()));
        known.unwrap_or(Via::Listener)
    }
}

fn topic_fields(topic: &str, topics: Option<&TopicTemplates>) -> Option<TopicFields> {
    topics?.matches(topic)
}

fn other_account(tenant: Option<&str>, account: &str) -> Option<String> {
    (tenant != Some(account)).then(|| account.to_owned())
}

/// Nanoseconds since the Unix epoch as RFC 3339 with nine decimals.
pub(super) fn rfc3339(ns: i64) -> String {
    let time = jiff::Timestamp::from_nanosecond(i128::from(ns)).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    format!("{time:.9}")
}
