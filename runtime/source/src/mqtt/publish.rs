//! PUBLISH and PUBACK, borrowed from the bytes they came in: the most frequent packets.
//!
//! Properties are checked here for every packet: each known, at its place, once, with a value that it
//! may have. Section numbers are those of the OASIS standards (3.1.1: 29 October 2014, 5: 7 March 2019).

use rumqttc::QoS;

use crate::limits;
use crate::mqtt::error::{PacketError, kind};
use crate::mqtt::reader::{PacketReader, variable};
use crate::mqtt::reason_codes::puback_code;
use tidegate_core::ack::ledger::RefusalNotice;

/// The version of MQTT that the peer speaks, and its side where that makes a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// MQTT 3.1.1, either side.
    V4,
    /// A device that speaks MQTT 5. Its properties are checked.
    ClientV5,
    /// A broker that speaks MQTT 5. The properties of its PUBLISHes are strangers' and of any length and
    /// content: they may not end the session, so they are skipped unread.
    BrokerV5,
}

/// A PUBLISH (section 3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    pub topic: &'a [u8],
    /// Only the beginning, where `payload_bytes` is more.
    pub payload: &'a [u8],
    pub payload_bytes: usize,
    /// 0 at QoS 0, never 0 otherwise.
    pub packet_id: u16,
    pub qos: QoS,
    pub dup: bool,
    pub retain: bool,
}

/// The QoS in a PUBLISH's first byte.
pub fn publish_qos(first: u8) -> Result<QoS, PacketError> {
    match (first >> 1) & 3 {
        0 => Ok(QoS::AtMostOnce),
        1 => Ok(QoS::AtLeastOnce),
        2 => Ok(QoS::ExactlyOnce),
        _ => Err(PacketError::ImpossibleFlags("PUBLISH")),
    }
}

/// Reads a PUBLISH. `body` is at least all that stands before the payload; `body_bytes` is its true length.
///
/// # Errors
/// `body` ends before the payload begins, or the packet contradicts itself.
pub fn parse_publish(
    first: u8,
    body: &[u8],
    body_bytes: usize,
    peer: Peer,
) -> Result<Publish<'_>, PacketError> {
    let qos = publish_qos(first)?;
    let mut rest = PacketReader { rest: body, packet: "PUBLISH" };
    let topic = rest.bytes()?;
    let packet_id = if qos == QoS::AtMostOnce { 0 } else { rest.packet_id()? };
    match peer {
        Peer::V4 => {}
        Peer::ClientV5 => skip_properties(&mut rest, property::PUBLISH)?,
        Peer::BrokerV5 => {
            let properties = rest.variable()?;
            rest.take(properties)?;
        }
    }
    let payload = rest.rest;
    Ok(Publish {
        topic,
        payload,
        payload_bytes: body_bytes - (body.len() - payload.len()),
        packet_id,
        qos,
        dup: first & 8 != 0,
        retain: first & 1 != 0,
    })
}

/// Checks the length of properties, before their bytes have come.
///
/// # Errors
/// It is over `PROPERTIES_BYTES_MAX`.
pub fn check_properties_length(bytes: usize) -> Result<(), PacketError> {
    let bytes_max = limits::PROPERTIES_BYTES_MAX;
    if bytes > bytes_max { Err(PacketError::PropertiesTooLong { bytes, bytes_max }) } else { Ok(()) }
}

/// Reads over properties, each of which must be allowed here, and at most once but for user properties.
///
/// # Errors
/// One of them may not stand there, has an impossible value, or reaches beyond their length.
pub(super) fn skip_properties(packet: &mut PacketReader<'_>, allowed: &[u32]) -> Result<(), PacketError> {
    let length = packet.variable()?;
    check_properties_length(length)?;
    let name = packet.packet;
    let mut rest = PacketReader { rest: packet.take(length)?, packet: name };
    // Every identifier is below 64.
    let mut seen = 0_u64;
    while !rest.rest.is_empty() {
        let id = rest.variable()? as u32;
        if !allowed.contains(&id) {
            return Err(PacketError::Property { id, packet: name });
        }
        if id != property::USER && seen & 1 << id != 0 {
            return Err(PacketError::PropertyTwice { id, packet: name });
        }
        seen |= 1 << id;
        skip_value(id, &mut rest)?;
    }
    Ok(())
}

fn skip_value(id: u32, rest: &mut PacketReader<'_>) -> Result<(), PacketError> {
    use property::*;
    let impossible = Err(PacketError::PropertyValue { id });
    match id {
        PAYLOAD_FORMAT
        | PROBLEM_INFORMATION
        | REQUEST_RESPONSE_INFORMATION
        | MAXIMUM_QOS
        | RETAIN_AVAILABLE
        | WILDCARDS
        | SUBSCRIPTION_IDS
        | SHARED => {
            if rest.u8()? > 1 {
                return impossible;
            }
        }
        // We tell a topic alias maximum of 0 [MQTT-3.3.2-9].
        TOPIC_ALIAS => return Err(PacketError::TopicAlias),
        TOPIC_ALIAS_MAXIMUM | SERVER_KEEP_ALIVE => _ = rest.u16()?,
        MESSAGE_EXPIRY | SESSION_EXPIRY | WILL_DELAY => _ = rest.u32()?,
        // [MQTT-3.1.2-24], sections 3.1.2.11.3 and 3.8.2.1.2
        RECEIVE_MAXIMUM => {
            if rest.u16()? == 0 {
                return impossible;
            }
        }
        PACKET_MAXIMUM => {
            if rest.u32()? == 0 {
                return impossible;
            }
        }
        SUBSCRIPTION_ID => {
            if rest.variable()? == 0 {
                return impossible;
            }
        }
        CORRELATION_DATA | AUTHENTICATION_DATA => _ = rest.bytes()?,
        USER => {
            rest.text("user property")?;
            rest.text("user property")?;
        }
        _ => _ = rest.text("property")?,
    }
    Ok(())
}

/// The place of a PUBLISH's properties in its body, behind their length, and that length; None while it
/// has not come yet. `head` is the length of all before it.
///
/// # Errors
/// The properties reach beyond the packet, or their length has more than four bytes.
pub(super) fn properties_at(
    body: &[u8],
    head: usize,
    body_bytes: usize,
) -> Result<Option<(usize, usize)>, PacketError> {
    if head >= body_bytes {
        return Err(PacketError::WrongLength("PUBLISH"));
    }
    let rest = body.get(head..).unwrap_or_default();
    let Some((properties, length)) = variable(rest)? else { return Ok(None) };
    if head + length + properties > body_bytes {
        return Err(PacketError::WrongLength("PUBLISH"));
    }
    Ok(Some((head + length, properties)))
}

/// The limits of a peer that speaks MQTT 5, as its CONNECT names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerLimits {
    /// The largest packet that it takes.
    pub packet_bytes_max: usize,
    /// Reason strings may be sent.
    pub reason_strings: bool,
}

/// Appends a PUBACK that says success. It is the same packet in both versions (MQTT 5 section 3.4.2.1).
pub fn puback(out: &mut Vec<u8>, packet_id: u16) {
    let [high, low] = packet_id.to_be_bytes();
    out.extend_from_slice(&[kind::PUBACK << 4, 2, high, low]);
}

/// Appends a PUBACK for a message that was refused, with `why` if it fits and is wanted.
pub fn puback_refusing(out: &mut Vec<u8>, packet_id: u16, code: u8, why: Option<&str>, limits: PeerLimits) {
    let [high, low] = packet_id.to_be_bytes();
    let fits = |why: &str| {
        let properties = 3 + why.len();
        let body = 3 + length_bytes(properties) + properties;
        1 + length_bytes(body) + body <= limits.packet_bytes_max
    };
    let Some(why) = why.filter(|why| limits.reason_strings && fits(why)) else {
        // Without properties their length may be left out (section 3.4.2.2.1).
        return out.extend_from_slice(&[kind::PUBACK << 4, 3, high, low, code]);
    };
    let properties = 3 + why.len();
    out.push(kind::PUBACK << 4);
    length(out, 3 + length_bytes(properties) + properties);
    out.extend_from_slice(&[high, low, code]);
    length(out, properties);
    out.push(property::REASON_STRING as u8);
    out.extend_from_slice(&(why.len() as u16).to_be_bytes());
    out.extend_from_slice(why.as_bytes());
}

/// Appends a PUBACK with the reason of a refusal, in words if its sender may read them.
pub fn puback_with_reason(out: &mut Vec<u8>, packet_id: u16, notice: &RefusalNotice, limits: PeerLimits) {
    let has_words = !notice.reason.reveals_identity() && !notice.detail.is_empty();
    let why = has_words.then(|| format!("{}: {}", notice.reason, notice.detail));
    puback_refusing(out, packet_id, puback_code(notice.reason), why.as_deref(), limits);
}

/// Appends a variable byte integer.
fn length(out: &mut Vec<u8>, mut bytes: usize) {
    loop {
        let low = (bytes & 0x7f) as u8;
        bytes >>= 7;
        if bytes == 0 {
            return out.push(low);
        }
        out.push(low | 0x80);
    }
}

fn length_bytes(bytes: usize) -> usize {
    match bytes {
        0..=0x7f => 1,
        0x80..=0x3fff => 2,
        0x4000..=0x1f_ffff => 3,
        _ => 4,
    }
}

/// Property identifiers (section 2.2.2.2), and the properties that each packet may have.
pub(super) mod property {

    pub const PAYLOAD_FORMAT: u32 = 0x01;
    pub const MESSAGE_EXPIRY: u32 = 0x02;
    pub const CONTENT_TYPE: u32 = 0x03;
    pub const RESPONSE_TOPIC: u32 = 0x08;
    pub const CORRELATION_DATA: u32 = 0x09;
    pub const SUBSCRIPTION_ID: u32 = 0x0b;
    pub const SESSION_EXPIRY: u32 = 0x11;
    pub const ASSIGNED_CLIENT_ID: u32 = 0x12;
    pub const SERVER_KEEP_ALIVE: u32 = 0x13;
    pub const AUTHENTICATION_METHOD: u32 = 0x15;
    pub const AUTHENTICATION_DATA: u32 = 0x16;
    pub const PROBLEM_INFORMATION: u32 = 0x17;
    pub const WILL_DELAY: u32 = 0x18;
    pub const REQUEST_RESPONSE_INFORMATION: u32 = 0x19;
    pub const RESPONSE_INFORMATION: u32 = 0x1a;
    pub const SERVER_REFERENCE: u32 = 0x1c;
    pub const REASON_STRING: u32 = 0x1f;
    pub const RECEIVE_MAXIMUM: u32 = 0x21;
    pub const TOPIC_ALIAS_MAXIMUM: u32 = 0x22;
    pub const TOPIC_ALIAS: u32 = 0x23;
    pub const MAXIMUM_QOS: u32 = 0x24;
    pub const RETAIN_AVAILABLE: u32 = 0x25;
    pub const USER: u32 = 0x26;
    pub const PACKET_MAXIMUM: u32 = 0x27;
    pub const WILDCARDS: u32 = 0x28;
    pub const SUBSCRIPTION_IDS: u32 = 0x29;
    pub const SHARED: u32 = 0x2a;

    pub const CONNECT: &[u32] = &[
        SESSION_EXPIRY,
        AUTHENTICATION_METHOD,
        AUTHENTICATION_DATA,
        PROBLEM_INFORMATION,
        REQUEST_RESPONSE_INFORMATION,
        RECEIVE_MAXIMUM,
        TOPIC_ALIAS_MAXIMUM,
        USER,
        PACKET_MAXIMUM,
    ];
    pub const WILL: &[u32] =
        &[PAYLOAD_FORMAT, MESSAGE_EXPIRY, CONTENT_TYPE, RESPONSE_TOPIC, CORRELATION_DATA, WILL_DELAY, USER];
    pub const CONNACK: &[u32] = &[
        SESSION_EXPIRY,
        ASSIGNED_CLIENT_ID,
        SERVER_KEEP_ALIVE,
        AUTHENTICATION_METHOD,
        AUTHENTICATION_DATA,
        RESPONSE_INFORMATION,
        SERVER_REFERENCE,
        REASON_STRING,
        RECEIVE_MAXIMUM,
        TOPIC_ALIAS_MAXIMUM,
        MAXIMUM_QOS,
        RETAIN_AVAILABLE,
        USER,
        PACKET_MAXIMUM,
        WILDCARDS,
        SUBSCRIPTION_IDS,
        SHARED,
    ];
    /// A client sends no subscription identifier [MQTT-3.3.4-6].
    pub const PUBLISH: &[u32] =
        &[PAYLOAD_FORMAT, MESSAGE_EXPIRY, CONTENT_TYPE, RESPONSE_TOPIC, CORRELATION_DATA, TOPIC_ALIAS, USER];
    pub const SUBSCRIBE: &[u32] = &[SUBSCRIPTION_ID, USER];
    pub const UNSUBSCRIBE: &[u32] = &[USER];
    /// A client's session expiry and a server's reference are each the other side's fault; nothing
    /// depends on it.
    pub const DISCONNECT: &[u32] = &[SESSION_EXPIRY, REASON_STRING, USER, SERVER_REFERENCE];
    pub const ACKNOWLEDGEMENT: &[u32] = &[REASON_STRING, USER];
}
