//! Groups: messages that came together, parted into those that can be decoded together.

use std::sync::Arc;

use crate::limits::PARTITION_BYTES_MAX;
use crate::route::version::RouteVersion;
use tidegate_core::ack::token::AckToken;
use tidegate_core::ids::GuestTag;
use tidegate_core::message::{Admitted, RefusedMessage};
use tidegate_core::reason::Reason;

/// Parts messages by tenant and type; within a part they keep their order.
pub(super) fn group(messages: Vec<Admitted>) -> Vec<Vec<Admitted>> {
    let key = |message: &Admitted| (Arc::as_ptr(&message.tenant) as usize, message.message_type.len());
    let same = |a: &Admitted, b: &Admitted| {
        Arc::ptr_eq(&a.tenant, &b.tenant) && a.message_type() == b.message_type()
    };
    let first = &messages[0];
    if messages.iter().all(|message| same(first, message)) {
        return vec![messages];
    }
    let mut messages = messages;
    // Stable, so the order within a tenant and type stays.
    messages.sort_by(|a, b| key(a).cmp(&key(b)).then_with(|| a.message_type().cmp(b.message_type())));
    let mut groups: Vec<Vec<Admitted>> = Vec::new();
    for message in messages {
        match groups.last_mut() {
            Some(group) if same(&group[0], &message) => group.push(message),
            _ => groups.push(vec![message]),
        }
    }
    groups
}

/// Parts from the rest messages with an identity that no line can carry.
pub(super) fn nameable(messages: Vec<Admitted>) -> (Vec<Admitted>, Vec<RefusedMessage>) {
    if messages.iter().all(|message| message.device.identity_tags.is_ok()) {
        return (messages, Vec::new());
    }
    let (good, bad): (Vec<_>, Vec<_>) =
        messages.into_iter().partition(|message| message.device.identity_tags.is_ok());
    let refused = bad.into_iter().map(|message| {
        let detail = message.device.identity_tags.clone().unwrap_err();
        message.refused(Reason::BadLine, detail, None)
    });
    (good, refused.collect())
}

/// Messages of one route by what a decoder gets of them.
pub(super) struct MessagesByPayload {
    pub with_payload: Vec<Admitted>,
    /// The tokens of messages with nothing for a decoder: a network server sends such for its own commands.
    pub empty: Vec<AckToken>,
    pub refused: Vec<RefusedMessage>,
}

/// Parts from the rest messages of a network server without what the decoder takes.
pub(super) fn by_payload(messages: Vec<Admitted>, version: &RouteVersion) -> MessagesByPayload {
    let mut parted = MessagesByPayload { with_payload: messages, empty: Vec::new(), refused: Vec::new() };
    if parted.with_payload.iter().all(|message| message.content.is_none()) {
        return parted;
    }
    let prefers_object = version.rules.prefers_object;
    for message in std::mem::take(&mut parted.with_payload) {
        let uplink = message.content.as_ref().and_then(|content| content.uplink.as_ref());
        let lacks_object = prefers_object && uplink.is_some_and(|uplink| uplink.object.is_none());
        match uplink.is_some_and(|uplink| uplink.bytes.is_empty()) {
            true if lacks_object || !prefers_object => parted.empty.push(message.token),
            false if lacks_object => {
                let detail = "the route's file says prefer = \"object\", and the network server has decoded nothing: \
                              give it a codec for this device, or take its bytes";
                let tag = version.guest.tag.clone();
                parted.refused.push(message.refused(Reason::NoObject, detail, Some(tag)));
            }
            _ => parted.with_payload.push(message),
        }
    }
    parted
}

/// Parts from the rest messages whose topics make a partition that is too long.
pub(super) fn with_partition(
    messages: Vec<Admitted>,
    version: &RouteVersion,
) -> (Vec<Admitted>, Vec<RefusedMessage>) {
    let template = &version.rules.partition;
    if !version.guest.imports_state || template.always_fits() {
        return (messages, Vec::new());
    }
    let bytes = |message: &Admitted| {
        template.bytes(message.device.id.as_str(), message.message_type(), &message.topic)
    };
    let (good, bad): (Vec<_>, Vec<_>) =
        messages.into_iter().partition(|message| bytes(message) <= PARTITION_BYTES_MAX);
    let refused = bad.into_iter().map(|message| {
        let detail = format!(
            "state.partition makes a name of {} bytes from this topic; at most {PARTITION_BYTES_MAX} are allowed",
            bytes(&message)
        );
        message.refused(Reason::BadTopicFormat, detail, Some(version.guest.tag.clone()))
    });
    (good, refused.collect())
}

pub(super) fn refuse_all(
    messages: Vec<Admitted>,
    reason: Reason,
    detail: &str,
    guest: Option<&GuestTag>,
) -> Vec<RefusedMessage> {
    messages.into_iter().map(|message| message.refused(reason, detail, guest.cloned())).collect()
}
