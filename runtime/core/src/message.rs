//! The states of a message on its way: `Received -> Admitted -> Checked`. Each state is a type,
//! and holds the token that must be settled at the end.

use std::sync::Arc;

use bytes::Bytes;

use crate::ack::token::{AckToken, settle_all};
use crate::books::{Account, Outcome};
use crate::decoder_state::StateDelta;
use crate::detail::Detail;
use crate::device::Device;
use crate::ids::{DatabaseName, DeviceId, GuestTag, TenantId};
use crate::reason::Reason;
use crate::tenant::Tenant;

/// How a message came in; who vouches for its sender depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// By a broker, which has its own authentication.
    Broker,
    /// From a device that connected to our listener and has proved nothing.
    Listener,
    /// From a device that proved who it is when it connected to our listener, on a topic of its own.
    Proven,
}

impl Via {
    /// The name that quarantine knows it by.
    pub fn name(self) -> &'static str {
        match self {
            Via::Broker => "broker",
            Via::Listener => "listener",
            Via::Proven => "proven",
        }
    }
}

/// A message as it came from the wire.
#[derive(Debug)]
pub struct Received {
    pub topic: String,
    pub payload: Bytes,
    /// When it was received, in nanoseconds since the Unix epoch. A source gives the time of the read;
    /// the message enters the flow with a stamp of `ReceiveClock`.
    pub received_ns: i64,
    pub via: Via,
    pub token: AckToken,
    /// The size on the wire. More than `payload.len()` where a source kept only the beginning of
    /// a payload that was over the limit anyway.
    pub payload_bytes: usize,
}

/// A message that passed every check of admission.
#[derive(Debug)]
pub struct Admitted {
    pub topic: String,
    /// Where in `topic` the message type stands.
    pub message_type: std::ops::Range<usize>,
    pub payload: Bytes,
    pub received_ns: i64,
    pub tenant: Arc<Tenant>,
    pub device: Arc<Device>,
    pub token: AckToken,
}

impl Admitted {
    pub fn message_type(&self) -> &str {
        &self.topic[self.message_type.clone()]
    }
}

/// A message that ends in quarantine.
#[derive(Debug)]
pub struct RefusedMessage {
    pub topic: String,
    pub payload: Bytes,
    /// The size on the wire; `payload` may hold only the beginning.
    pub payload_bytes: usize,
    pub received_ns: i64,
    pub reason: Reason,
    /// For the person who owns the device: what was wrong, where, and what would be right.
    pub detail: Detail,
    pub guest: Option<GuestTag>,
    /// The tenant and device that the topic names, where it names them.
    pub tenant: Option<TenantId>,
    pub device: Option<DeviceId>,
    /// The site of the device: known of what passed admission, and of nothing else.
    pub site: Option<String>,
    /// How it came in; `None` where admission no longer matters.
    pub via: Option<Via>,
    /// Whether the sender has proved who it is: by its token, when it connected, or by what a broker lets
    /// it do.
    pub is_proven: bool,
    pub account: Arc<Account>,
    pub token: AckToken,
}

impl RefusedMessage {
    /// Whether the message had passed admission. Its reason alone does not say so: a tenant that no
    /// database can be named after may be turned away before anybody is authenticated.
    pub fn was_admitted(&self) -> bool {
        self.site.is_some()
    }

    /// Whether the sender may be told the reason in words: they tell a stranger nothing about which
    /// devices and sites there are.
    pub fn may_be_told(&self) -> bool {
        !self.reason.reveals_identity() && (self.is_proven || !self.reason.shows_a_device())
    }
}

impl Admitted {
    /// Turns away a message after admission. No credential of its payload is left in `detail`.
    pub fn refused(self, reason: Reason, detail: impl AsRef<str>, guest: Option<GuestTag>) -> RefusedMessage {
        let detail = Detail::redacted(detail.as_ref(), &self.payload);
        self.refused_with(reason, detail, guest)
    }

    /// Turns away a message after admission, with a text that was made for it.
    pub fn refused_with(self, reason: Reason, detail: Detail, guest: Option<GuestTag>) -> RefusedMessage {
        RefusedMessage {
            topic: self.topic,
            payload_bytes: self.payload.len(),
            payload: self.payload,
            received_ns: self.received_ns,
            reason,
            detail,
            guest,
            tenant: Some(self.tenant.id.clone()),
            device: Some(self.device.id.clone()),
            site: Some(self.device.site.clone()),
            via: None,
            is_proven: true,
            account: self.tenant.account.clone(),
            token: self.token,
        }
    }
}

/// One message of a `CheckedBatch`: where its lines are and what is needed to speak of it later.
#[derive(Debug)]
pub struct CheckedMessage {
    pub topic: String,
    pub received_ns: i64,
    /// Where this message's lines end in `CheckedBatch::lines`.
    pub lines_end: u32,
    pub line_count: u32,
    /// `DeviceHash::folded`: what has the same is written in order.
    pub affinity: u32,
    pub token: AckToken,
}

/// Messages of one tenant, decoded by one guest in one call, whose every line has passed the line
/// check and carries identity and time.
#[derive(Debug)]
pub struct CheckedBatch {
    pub database: DatabaseName,
    pub tenant: Arc<Tenant>,
    pub guest: GuestTag,
    /// Complete lines, each ended by a newline. Empty only where something is `kept`.
    pub lines: Vec<u8>,
    /// In the order of their lines; each has at least one.
    pub messages: Vec<CheckedMessage>,
    /// Of a route that keeps state: what goes to the disk with the lines.
    pub kept: Option<Box<StateDelta>>,
}

impl CheckedBatch {
    /// The tokens of all its messages.
    pub fn tokens_mut(&mut self) -> impl Iterator<Item = &mut AckToken> {
        let kept = self.kept.iter_mut().flat_map(|kept| kept.messages.iter_mut().map(|(token, _)| token));
        self.messages.iter_mut().map(|message| &mut message.token).chain(kept)
    }

    /// Messages, those without lines among them.
    pub fn message_count(&self) -> u64 {
        let kept = self.kept.as_ref().map_or(0, |kept| kept.messages.len());
        (self.messages.len() + kept) as u64
    }

    /// Takes out messages, with their lines. Of those without lines it gives what they came to.
    pub fn take_out(
        &mut self,
        leaves: impl Fn(&AckToken) -> bool,
    ) -> (Vec<AckToken>, Vec<(AckToken, Outcome)>) {
        let (mut out, mut lines, mut begin) = (Vec::new(), Vec::new(), 0);
        let all = std::mem::take(&mut self.messages);
        if all.iter().all(|message| leaves(&message.token)) {
            self.lines = Vec::new();
            out = all.into_iter().map(|message| message.token).collect();
        } else {
            for mut message in all {
                let own = begin..message.lines_end as usize;
                begin = own.end;
                if leaves(&message.token) {
                    out.push(message.token);
                    continue;
                }
                lines.extend_from_slice(&self.lines[own]);
                message.lines_end = lines.len() as u32;
                self.messages.push(message);
            }
            self.lines = lines;
        }
        let Some(kept) = &mut self.kept else { return (out, Vec::new()) };
        let messages = std::mem::take(&mut kept.messages);
        let (gone, stay) = messages.into_iter().partition(|(token, _)| leaves(token));
        kept.messages = stay;
        (out, gone)
    }

    /// Settles all its messages, as what they came to.
    pub fn settle(self) {
        let account = &self.tenant.account;
        settle_all(self.messages.into_iter().map(|message| message.token), Outcome::Lines, account);
        for (token, outcome) in self.kept.into_iter().flat_map(|kept| kept.messages) {
            token.settle(outcome, account);
        }
    }

    pub fn line_count(&self) -> u64 {
        self.messages.iter().map(|message| u64::from(message.line_count)).sum()
    }
}
