//! The states of a message: `Received -> Admitted -> Checked -> Durable`. Each is a type that only its
//! named constructors make, and has the token that must be settled at the end.

use std::sync::Arc;

use bytes::Bytes;

use crate::ack::settle::settle_all;
use crate::ack::token::AckToken;
use crate::books::{Account, Outcome};
use crate::decoder_state::StateDelta;
use crate::detail::Detail;
use crate::device::Device;
use crate::envelope_content::EnvelopeContent;
use crate::ids::{DatabaseName, DeviceId, GuestTag, TenantId};
use crate::reason::Reason;
use crate::tenant::Tenant;
use crate::topic::TopicName;

/// The way of a message into the gateway. The proof of its sender depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// A broker, which has its own authentication.
    Broker,
    /// A device that connected to our listener and has proved nothing.
    Listener,
    /// A device that proved its identity when it connected to our listener, on a topic of its own.
    Proven,
}

impl Via {
    /// Its name in the entries of quarantine.
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
    /// Time of receipt in nanoseconds since the Unix epoch. A source gives the time of the read; ingress
    /// replaces it by a stamp of `ReceiveClock`.
    pub received_ns: i64,
    pub via: Via,
    pub token: AckToken,
    /// The size on the wire. More than `payload.len()` where a source kept only the beginning of
    /// a payload that was over the limit anyway.
    pub payload_bytes: usize,
}

/// A message that passed every check of admission.
#[derive(Debug)]
#[non_exhaustive]
pub struct Admitted {
    pub topic: String,
    pub message_type: TopicName,
    /// The payload as it came. `payload_for` is the decoder's part of it.
    pub payload: Bytes,
    /// The content of its envelope, and what its source knows beside it; `None` if that is the payload alone.
    pub content: Option<Arc<EnvelopeContent>>,
    /// The values of a JSON payload that admission has read, as `tidegate_json::Tape` describes them. Empty:
    /// it did not read them, or they are too many.
    pub tape: Box<[u64]>,
    pub received_ns: i64,
    pub tenant: Arc<Tenant>,
    pub device: Arc<Device>,
    pub token: AckToken,
}

impl Admitted {
    /// A message whose sender passed every check.
    pub fn new(message: Received, message_type: TopicName, tenant: Arc<Tenant>, device: Arc<Device>) -> Self {
        Self {
            topic: message.topic,
            message_type,
            payload: message.payload,
            content: None,
            tape: Box::default(),
            received_ns: message.received_ns,
            tenant,
            device,
            token: message.token,
        }
    }

    /// A message of quarantine that passed admission before. Its message type is empty until the topic is
    /// matched again.
    pub fn from_quarantine(
        topic: String,
        payload: Bytes,
        received_ns: i64,
        tenant: Arc<Tenant>,
        device: Arc<Device>,
        token: AckToken,
    ) -> Self {
        let message_type = TopicName::from(0..0);
        let (content, tape) = (None, Box::default());
        Self { topic, message_type, payload, content, tape, received_ns, tenant, device, token }
    }

    /// A message of a trial or a dry run: nothing learns its outcome.
    pub fn for_trial(
        topic: String,
        message_type: impl Into<TopicName>,
        payload: Bytes,
        received_ns: i64,
        tenant: Arc<Tenant>,
        device: Arc<Device>,
    ) -> Self {
        Self {
            topic,
            message_type: message_type.into(),
            payload,
            content: None,
            tape: Box::default(),
            received_ns,
            tenant,
            device,
            token: AckToken::trial(),
        }
    }

    /// Adds the tape of its payload.
    pub fn with_tape(self, tape: Box<[u64]>) -> Self {
        Self { tape, ..self }
    }

    /// Adds the content of its envelope.
    pub fn with_content(self, content: Option<Arc<EnvelopeContent>>) -> Self {
        Self { content, ..self }
    }

    #[inline]
    pub fn message_type(&self) -> &str {
        self.message_type.of(&self.topic)
    }

    /// The payload for a decoder, which takes the object of a network server's codec if `prefers_object`.
    #[inline]
    pub fn payload_for(&self, prefers_object: bool) -> &[u8] {
        match self.content.as_ref().and_then(|content| content.uplink.as_ref()) {
            None => &self.payload,
            Some(uplink) if prefers_object => {
                uplink.object.as_ref().map_or(&[][..], |object| &self.payload[object.clone()])
            }
            Some(uplink) => &uplink.bytes,
        }
    }
}

/// A message that ends in quarantine.
#[derive(Debug)]
#[non_exhaustive]
pub struct RefusedMessage {
    pub topic: String,
    pub payload: Bytes,
    /// The size on the wire; `payload` may hold only the beginning.
    pub payload_bytes: usize,
    pub received_ns: i64,
    pub reason: Reason,
    /// The fault, its place and its remedy, for the owner of the device.
    pub detail: Detail,
    pub guest: Option<GuestTag>,
    /// The tenant that the topic names; with a device, or neither is known.
    pub tenant: Option<TenantId>,
    pub device: Option<DeviceId>,
    /// The site of the device: known only after admission.
    pub site: Option<String>,
    /// The way into the gateway; `None` after admission.
    pub via: Option<Via>,
    /// True if the sender proved its identity: by its token, when it connected, or by a broker's
    /// permissions.
    pub is_proven: bool,
    /// True if the registry has the device that the topic names.
    pub is_known: bool,
    pub account: Arc<Account>,
    pub token: AckToken,
}

impl RefusedMessage {
    /// A message that did not pass admission, of a sender that is neither named nor proven.
    pub fn new(message: Received, reason: Reason, detail: Detail, account: Arc<Account>) -> Self {
        Self {
            topic: message.topic,
            payload: message.payload,
            payload_bytes: message.payload_bytes,
            received_ns: message.received_ns,
            reason,
            detail,
            guest: None,
            tenant: None,
            device: None,
            site: None,
            via: Some(message.via),
            is_proven: false,
            is_known: false,
            account,
            token: message.token,
        }
    }

    /// Names the sender. `is_proven`: it proved its identity.
    pub fn with_sender(self, tenant: Option<TenantId>, device: Option<DeviceId>, is_proven: bool) -> Self {
        Self { tenant, device, is_proven, ..self }
    }

    /// Marks its device as one that the registry has, or does not.
    pub fn with_known(self, is_known: bool) -> Self {
        Self { is_known, ..self }
    }

    /// Replaces reason and detail by those of a guest.
    pub fn with_verdict(self, reason: Reason, detail: Detail, guest: GuestTag) -> Self {
        Self { reason, detail, guest: Some(guest), ..self }
    }

    /// True if the message had passed admission. Its reason alone does not show that: a tenant whose name gives no
    /// database name may be refused before authentication.
    pub fn was_admitted(&self) -> bool {
        self.site.is_some()
    }

    /// True if the sender may read the reason: it tells a stranger nothing about existing devices and
    /// sites.
    pub fn may_reveal_reason(&self) -> bool {
        !self.reason.reveals_identity() && (self.is_proven || !self.reason.shows_a_device())
    }
}

impl Admitted {
    /// Refuses a message after admission. Credentials of its payload are redacted in `detail`.
    pub fn refused(self, reason: Reason, detail: impl AsRef<str>, guest: Option<GuestTag>) -> RefusedMessage {
        let detail = Detail::redacted(detail.as_ref(), &self.payload);
        self.refused_with(reason, detail, guest)
    }

    /// Refuses a message after admission, with a detail that is redacted already.
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
            is_known: true,
            account: self.tenant.account.clone(),
            token: self.token,
        }
    }
}

/// One message of a `CheckedBatch`: the end of its lines, and what its receipt and quarantine need.
#[derive(Debug)]
pub struct CheckedMessage {
    pub topic: String,
    pub received_ns: i64,
    /// End of this message's lines in `CheckedBatch::lines`.
    pub lines_end: u32,
    pub line_count: u32,
    /// `DeviceHash::folded`: messages with the same value are written in order.
    pub affinity: u32,
    pub token: AckToken,
}

/// Messages of one tenant, decoded by one guest in one call, whose every line has passed the line
/// check and carries identity and time.
#[derive(Debug)]
#[non_exhaustive]
pub struct CheckedBatch {
    pub database: DatabaseName,
    pub tenant: Arc<Tenant>,
    pub guest: GuestTag,
    /// Complete lines, each ended by a newline. Empty only with a change of state in `state_delta`.
    pub lines: Vec<u8>,
    /// In the order of their lines; each has at least one.
    pub messages: Vec<CheckedMessage>,
    /// Changes of decoder state, made durable with the lines; for a route that keeps state.
    pub state_delta: Option<Box<StateDelta>>,
}

impl CheckedBatch {
    /// A batch without lines, with room for `bytes` of them.
    pub fn empty(database: DatabaseName, tenant: Arc<Tenant>, guest: GuestTag, bytes: usize) -> Self {
        Self::new(database, tenant, guest, Vec::with_capacity(bytes), Vec::new())
    }

    /// Messages with lines that have passed the line check.
    pub fn new(
        database: DatabaseName,
        tenant: Arc<Tenant>,
        guest: GuestTag,
        lines: Vec<u8>,
        messages: Vec<CheckedMessage>,
    ) -> Self {
        Self { database, tenant, guest, lines, messages, state_delta: None }
    }

    /// One line of an entry of quarantine: it passed the line check before, and the database refused it.
    pub fn from_quarantine(
        database: DatabaseName,
        tenant: Arc<Tenant>,
        guest: GuestTag,
        line: Vec<u8>,
        message: CheckedMessage,
    ) -> Self {
        Self::new(database, tenant, guest, line, vec![message])
    }

    /// The tokens of all its messages.
    pub fn tokens_mut(&mut self) -> impl Iterator<Item = &mut AckToken> {
        let delta =
            self.state_delta.iter_mut().flat_map(|delta| delta.messages.iter_mut().map(|(token, _)| token));
        self.messages.iter_mut().map(|message| &mut message.token).chain(delta)
    }

    /// Messages with and without lines.
    pub fn message_count(&self) -> u64 {
        let delta = self.state_delta.as_ref().map_or(0, |delta| delta.messages.len());
        (self.messages.len() + delta) as u64
    }

    /// Takes out messages with their lines: first the tokens of messages with lines, then those without, each
    /// with its outcome.
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
        let Some(delta) = &mut self.state_delta else { return (out, Vec::new()) };
        let messages = std::mem::take(&mut delta.messages);
        let (gone, stay) = messages.into_iter().partition(|(token, _)| leaves(token));
        delta.messages = stay;
        (out, gone)
    }

    /// Settles each of its messages with its outcome.
    pub fn settle(self) {
        let account = &self.tenant.account;
        settle_all(self.messages.into_iter().map(|message| message.token), Outcome::Lines, account);
        for (token, outcome) in self.state_delta.into_iter().flat_map(|delta| delta.messages) {
            token.settle(outcome, account);
        }
    }

    pub fn line_count(&self) -> u64 {
        self.messages.iter().map(|message| u64::from(message.line_count)).sum()
    }
}
