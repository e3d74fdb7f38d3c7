//! The outcome of the checks of one message: its sender, or the check that failed.

use std::sync::Arc;

use crate::auth_cache::CachedDevice;
use crate::limits;
use crate::registry::RegistryRow;
use tidegate_core::books::Account;
use tidegate_core::detail::Detail;
use tidegate_core::device::Device;
use tidegate_core::envelope_content::EnvelopeContent;
use tidegate_core::message::{Admitted, Received, RefusedMessage, Via};
use tidegate_core::reason::Reason;
use tidegate_core::tenant::Tenant;
use tidegate_core::topic::{TopicFields, TopicName};

/// The source of a device's row.
#[derive(Clone, Debug)]
pub(super) enum LookupSource<'a> {
    /// The cache, then the registry. The message waits behind others of its device.
    Registry,
    /// The cache, then the registry, for a message that was parked: it stands before those that wait.
    Unparked,
    /// A row given in place of the registry's answer; None: there is no such device.
    Row(Option<RegistryRow>),
    /// The device as the registry has just answered.
    Device(&'a CachedDevice),
}

/// The reason that a device was not authenticated.
pub(super) enum AuthFailure {
    Refuse {
        reason: Reason,
        detail: String,
        /// True if the sender has proved its identity.
        is_proven: bool,
        /// True if the registry has the device.
        is_known: bool,
    },
    /// The registry must be asked first.
    Wait,
}

impl From<(Reason, String)> for AuthFailure {
    fn from((reason, detail): (Reason, String)) -> Self {
        Self::Refuse { reason, detail, is_proven: false, is_known: false }
    }
}

/// The part of a message that the checks read. `explain` builds one by hand.
#[derive(Clone, Copy, Debug)]
pub struct MessageView<'a> {
    pub topic: &'a str,
    pub payload: &'a [u8],
    /// The size on the wire; `payload` may be shorter.
    pub payload_bytes: usize,
    pub via: Via,
}

/// The tenant and the device of a message that passed.
#[derive(Debug)]
pub struct Sender {
    pub tenant: Arc<Tenant>,
    pub device: Arc<Device>,
    /// The content of its envelope.
    pub content: Option<Arc<EnvelopeContent>>,
    pub fields: TopicFields,
    /// The entries of the payload's tape; none if its envelope was not read.
    pub tape: Box<[u64]>,
}

/// The check that failed, as the refusal tells it.
#[derive(Debug, PartialEq, Eq)]
pub struct CheckError {
    pub reason: Reason,
    pub detail: Detail,
    /// True if the sender has proved its identity.
    pub is_proven: bool,
    /// True if the registry has the device.
    pub is_known: bool,
    /// The places of tenant and device in the topic; None if the topic cannot be read.
    pub fields: Option<TopicFields>,
}

/// The use of the rate limit for a message.
#[derive(Clone, Copy, Debug)]
pub(super) enum RateLimitMode {
    /// No limit, no token.
    Off,
    /// Takes a token, at this time in seconds since the start.
    Take(f64),
    /// A token was taken when the message came; the time is now, in seconds since the start.
    Taken(f64),
    /// The device was over its rate when the message came. It is refused, and the registry says as whose.
    Exceeded,
}

/// The reason that a message is not admitted now.
#[derive(Debug)]
pub(crate) enum NotAdmitted {
    Refused(CheckError),
    /// The registry must be asked first.
    Cold {
        fields: TopicFields,
        /// The device was over its rate.
        over_rate: bool,
    },
    /// The message is to come again after so many seconds: its device, or its tenant, is over its rate.
    OverRate(f64),
}

impl<'a> MessageView<'a> {
    pub(crate) fn new(message: &'a Received) -> Self {
        Self {
            topic: &message.topic,
            payload: &message.payload,
            payload_bytes: message.payload_bytes,
            via: message.via,
        }
    }
}

impl Sender {
    /// The message of this sender, admitted.
    pub(crate) fn admit(self, mut message: Received) -> Admitted {
        // A small one is part of what every message may take.
        if self.tape.len() > limits::TAPE_ENTRIES_UNCHARGED {
            message.token.grow(size_of_val(&*self.tape));
        }
        if let Some(content) = &self.content {
            message.token.grow(content.memory_bytes());
        }
        Admitted::new(message, self.fields.message_type, self.tenant, self.device)
            .with_tape(self.tape)
            .with_content(self.content)
    }
}

impl CheckError {
    /// The message that failed this check, refused; `account` is the one that it was counted in.
    pub(crate) fn refuse(self, message: Received, account: Arc<Account>) -> RefusedMessage {
        let part = |name: &TopicName| name.of(&message.topic).to_owned();
        let (tenant, device) = match &self.fields {
            Some(fields) => {
                (Some(part(&fields.tenant).as_str().into()), Some(part(&fields.device).as_str().into()))
            }
            None => (None, None),
        };
        RefusedMessage::new(message, self.reason, self.detail, account)
            .with_sender(tenant, device, self.is_proven)
            .with_known(self.is_known)
    }
}
