use std::sync::Arc;

use crate::auth_cache::CachedDevice;
use crate::registry::RegistryRow;
use tidegate_core::books::Account;
use tidegate_core::detail::Detail;
use tidegate_core::device::Device;
use tidegate_core::message::{Admitted, Received, RefusedMessage, Via};
use tidegate_core::reason::Reason;
use tidegate_core::tenant::Tenant;
use tidegate_core::topic::TopicFields;

/// Whom a message's device is looked up with.
#[derive(Clone, Debug)]
pub(super) enum LookupSource<'a> {
    /// The cache, then the registry.
    Registry,
    /// The same, of a message that was parked: it stands in front of those that wait.
    TakenUp,
    /// A row that stands in for the registry's answer.
    Row(Option<RegistryRow>),
    /// What the registry has answered.
    Device(&'a CachedDevice),
}

/// Why a device was not found good.
pub(super) enum AuthFailure {
    /// The last says whether the sender has proved who it is.
    Refuse(Reason, String, bool),
    Wait,
}

impl From<(Reason, String)> for AuthFailure {
    fn from((reason, detail): (Reason, String)) -> Self {
        Self::Refuse(reason, detail, false)
    }
}

/// What is judged of a message.
#[derive(Clone, Copy, Debug)]
pub struct MessageView<'a> {
    pub topic: &'a str,
    pub payload: &'a [u8],
    /// The size on the wire, which may be more than is at hand.
    pub payload_bytes: usize,
    pub via: Via,
}

/// A message that passed: who sent it.
#[derive(Debug)]
pub struct Sender {
    pub tenant: Arc<Tenant>,
    pub device: Arc<Device>,
    pub places: TopicFields,
}

/// A message that did not pass.
#[derive(Debug, PartialEq, Eq)]
pub struct CheckError {
    pub reason: Reason,
    pub detail: Detail,
    /// Whether its sender has proved who it is.
    pub is_proven: bool,
    /// Where in the topic tenant and device stand, where it is readable.
    pub places: Option<TopicFields>,
}

/// What the rate limit is to do with a message.
#[derive(Clone, Copy, Debug)]
pub(super) enum RateLimitMode {
    /// Nothing.
    Off,
    /// Take a token, at this time.
    Take(f64),
    /// A token was taken when the message came.
    Taken(f64),
}

/// Why a message goes no further now.
#[derive(Debug)]
pub(crate) enum NotAdmitted {
    Refused(CheckError),
    /// The registry must be asked first.
    Cold(TopicFields),
}

pub(super) fn question(message: &Received) -> MessageView<'_> {
    MessageView {
        topic: &message.topic,
        payload: &message.payload,
        payload_bytes: message.payload_bytes,
        via: message.via,
    }
}

pub(super) fn admit(message: Received, judged: Sender) -> Admitted {
    Admitted::new(message, judged.places.message_type, judged.tenant, judged.device)
}

pub(super) fn refuse(message: Received, refusal: CheckError, account: Arc<Account>) -> RefusedMessage {
    let part = |range: &std::ops::Range<usize>| &message.topic[range.clone()];
    let (tenant, device) = match &refusal.places {
        Some(places) => (Some(part(&places.tenant).into()), Some(part(&places.device).into())),
        None => (None, None),
    };
    RefusedMessage::new(message, refusal.reason, refusal.detail, account).with_sender(
        tenant,
        device,
        refusal.is_proven,
    )
}
