//! What MQTT 5 does otherwise than 3.1.1: properties, reason codes, reason strings.
//!
//! Properties are checked whole (each known, at its place, once) and read where they matter: the
//! client's packet limit, whether it wants reason strings, whether it asks for an authentication of its
//! own. The rest is read over. Section numbers are those of the OASIS standard of 7 March 2019.

use super::packet::{self, Body, Packet, PacketError, Publish, QoS, Wishes, kind};
use crate::domain::limits;
use crate::domain::reason::Reason;

/// Reason codes (section 2.4).
pub mod code {
    pub const SUCCESS: u8 = 0x00;
    pub const NO_SUBSCRIPTION_EXISTED: u8 = 0x11;
    pub const UNSPECIFIED: u8 = 0x80;
    pub const MALFORMED: u8 = 0x81;
    pub const PROTOCOL_ERROR: u8 = 0x82;
    pub const UNSUPPORTED_VERSION: u8 = 0x84;
    pub const CLIENT_ID: u8 = 0x85;
    pub const BAD_USER_NAME_OR_PASSWORD: u8 = 0x86;
    pub const NOT_AUTHORIZED: u8 = 0x87;
    pub const SERVER_UNAVAILABLE: u8 = 0x88;
    pub const SHUTTING_DOWN: u8 = 0x8b;
    pub const BAD_AUTHENTICATION_METHOD: u8 = 0x8c;
    pub const KEEP_ALIVE_TIMEOUT: u8 = 0x8d;
    pub const TAKEN_OVER: u8 = 0x8e;
    pub const TOPIC_NAME_INVALID: u8 = 0x90;
    pub const TOPIC_ALIAS_INVALID: u8 = 0x94;
    pub const PACKET_TOO_LARGE: u8 = 0x95;
    pub const QUOTA_EXCEEDED: u8 = 0x97;
    pub const PAYLOAD_FORMAT_INVALID: u8 = 0x99;
    pub const QOS_NOT_SUPPORTED: u8 = 0x9b;
    pub const CONNECTION_RATE: u8 = 0x9f;
}

/// The reason code of the PUBACK (section 3.4.2.1) for a message that was refused. All are 0x80 or
/// more: the message has its outcome, and is not to be sent again.
pub fn puback_code(reason: Reason) -> u8 {
    match reason {
        Reason::BadTopicFormat => code::TOPIC_NAME_INVALID,
        Reason::NotOwnTopic
        | Reason::TenantMismatch
        | Reason::UnregisteredDevice
        | Reason::DeviceRevoked
        | Reason::SiteMismatch
        | Reason::TokenNotSet
        | Reason::TokenMissing
        | Reason::TokenInvalid => code::NOT_AUTHORIZED,
        // 0x95 would be the word for a payload, but a PUBACK cannot have it.
        Reason::PayloadTooLarge | Reason::RateLimited => code::QUOTA_EXCEEDED,
        Reason::BadPayload | Reason::MissingSiteId | Reason::GuestRefused => code::PAYLOAD_FORMAT_INVALID,
        _ => code::UNSPECIFIED,
    }
}

/// The reason code of the DISCONNECT for what is no packet of MQTT 5, or one that we told not to send.
pub fn disconnect_code(error: &PacketError) -> u8 {
    match error {
        PacketError::TooLong { .. } | PacketError::PropertiesTooLong { .. } => code::PACKET_TOO_LARGE,
        PacketError::TopicAlias => code::TOPIC_ALIAS_INVALID,
        PacketError::PropertyTwice { .. } | PacketError::PropertyValue { .. } => code::PROTOCOL_ERROR,
        _ => code::MALFORMED,
    }
}

/// Reads a variable byte integer (section 1.5.5) and its length; None where it is not there whole.
///
/// # Errors
/// It has more than four bytes.
pub fn variable(bytes: &[u8]) -> Result<Option<(usize, usize)>, PacketError> {
    let mut value = 0;
    for (place, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Ok(Some((value, place + 1)));
        }
    }
    if bytes.len() >= 4 { Err(PacketError::LengthOfLength) } else { Ok(None) }
}

/// Properties that are too long are not waited for.
///
/// # Errors
/// They are.
pub fn check_properties_length(bytes: usize) -> Result<(), PacketError> {
    let bytes_max = limits::PROPERTIES_BYTES_MAX;
    if bytes > bytes_max { Err(PacketError::PropertiesTooLong { bytes, bytes_max }) } else { Ok(()) }
}

/// Property identifiers (section 2.2.2.2).
mod property {
    pub const PAYLOAD_FORMAT: u32 = 0x01;
    pub const MESSAGE_EXPIRY: u32 = 0x02;
    pub const CONTENT_TYPE: u32 = 0x03;
    pub const RESPONSE_TOPIC: u32 = 0x08;
    pub const CORRELATION_DATA: u32 = 0x09;
    pub const SUBSCRIPTION_ID: u32 = 0x0b;
    pub const SESSION_EXPIRY: u32 = 0x11;
    pub const ASSIGNED_CLIENT_ID: u8 = 0x12;
    pub const AUTHENTICATION_METHOD: u32 = 0x15;
    pub const AUTHENTICATION_DATA: u32 = 0x16;
    pub const PROBLEM_INFORMATION: u32 = 0x17;
    pub const WILL_DELAY: u32 = 0x18;
    pub const RESPONSE_INFORMATION: u32 = 0x19;
    pub const REASON_STRING: u32 = 0x1f;
    pub const RECEIVE_MAXIMUM: u32 = 0x21;
    pub const TOPIC_ALIAS_MAXIMUM: u32 = 0x22;
    pub const TOPIC_ALIAS: u32 = 0x23;
    pub const MAXIMUM_QOS: u8 = 0x24;
    pub const USER: u32 = 0x26;
    pub const PACKET_MAXIMUM: u32 = 0x27;
    pub const WILDCARDS: u8 = 0x28;
    pub const SUBSCRIPTION_IDS: u8 = 0x29;
    pub const SHARED: u8 = 0x2a;

    /// Which properties each packet of a client may have.
    pub const CONNECT: &[u32] = &[
        SESSION_EXPIRY,
        AUTHENTICATION_METHOD,
        AUTHENTICATION_DATA,
        PROBLEM_INFORMATION,
        RESPONSE_INFORMATION,
        RECEIVE_MAXIMUM,
        TOPIC_ALIAS_MAXIMUM,
        USER,
        PACKET_MAXIMUM,
    ];
    pub const WILL: &[u32] =
        &[PAYLOAD_FORMAT, MESSAGE_EXPIRY, CONTENT_TYPE, RESPONSE_TOPIC, CORRELATION_DATA, WILL_DELAY, USER];
    /// A client sends no subscription identifier [MQTT-3.3.4-6].
    pub const PUBLISH: &[u32] =
        &[PAYLOAD_FORMAT, MESSAGE_EXPIRY, CONTENT_TYPE, RESPONSE_TOPIC, CORRELATION_DATA, TOPIC_ALIAS, USER];
    pub const SUBSCRIBE: &[u32] = &[SUBSCRIPTION_ID, USER];
    pub const UNSUBSCRIBE: &[u32] = &[USER];
    pub const DISCONNECT: &[u32] = &[SESSION_EXPIRY, REASON_STRING, USER];
    pub const ACKNOWLEDGEMENT: &[u32] = &[REASON_STRING, USER];
}

/// The value of one property.
#[derive(Clone, Copy, Debug)]
enum Value {
    Number(u32),
    /// Text or bytes, checked and of no matter here.
    Other,
}

fn property_value(id: u32, body: &mut Body<'_>) -> Result<Value, PacketError> {
    use property::*;
    let impossible = PacketError::PropertyValue { id };
    let number = match id {
        PAYLOAD_FORMAT | PROBLEM_INFORMATION | RESPONSE_INFORMATION => match body.u8()? {
            flag @ (0 | 1) => u32::from(flag),
            _ => return Err(impossible),
        },
        RECEIVE_MAXIMUM | TOPIC_ALIAS_MAXIMUM | TOPIC_ALIAS => u32::from(body.u16()?),
        MESSAGE_EXPIRY | SESSION_EXPIRY | WILL_DELAY | PACKET_MAXIMUM => {
            let bytes = body.take(4)?;
            u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
        }
        SUBSCRIPTION_ID => take_variable(body)? as u32,
        CORRELATION_DATA | AUTHENTICATION_DATA => {
            body.bytes()?;
            return Ok(Value::Other);
        }
        USER => {
            body.text("user property")?;
            body.text("user property")?;
            return Ok(Value::Other);
        }
        _ => {
            body.text("property")?;
            return Ok(Value::Other);
        }
    };
    // [MQTT-3.1.2-24], sections 3.1.2.11.3 and 3.8.2.1.2
    if number == 0 && matches!(id, RECEIVE_MAXIMUM | PACKET_MAXIMUM | SUBSCRIPTION_ID) {
        return Err(impossible);
    }
    Ok(Value::Number(number))
}

fn take_variable(body: &mut Body<'_>) -> Result<usize, PacketError> {
    let (value, length) = variable(body.rest)?.ok_or(PacketError::WrongLength(body.packet))?;
    body.take(length)?;
    Ok(value)
}

/// Reads properties, each of which must be allowed here, and at most once but for user properties.
fn properties(
    body: &mut Body<'_>,
    allowed: &[u32],
    mut each: impl FnMut(u32, Value) -> Result<(), PacketError>,
) -> Result<(), PacketError> {
    let length = take_variable(body)?;
    check_properties_length(length)?;
    let packet = body.packet;
    let mut body = Body { rest: body.take(length)?, packet };
    // Every identifier is below 64.
    let mut seen = 0_u64;
    while !body.rest.is_empty() {
        let id = take_variable(&mut body)? as u32;
        if !allowed.contains(&id) {
            return Err(PacketError::Property { id, packet });
        }
        if id != property::USER && seen & 1 << id != 0 {
            return Err(PacketError::PropertyTwice { id, packet });
        }
        seen |= 1 << id;
        each(id, property_value(id, &mut body)?)?;
    }
    Ok(())
}

fn read_over(body: &mut Body<'_>, allowed: &[u32]) -> Result<(), PacketError> {
    properties(body, allowed, |_, _| Ok(()))
}

/// The properties of a CONNECT (section 3.1.2.11).
pub(super) fn connect_properties(body: &mut Body<'_>) -> Result<Wishes, PacketError> {
    let mut wishes = Wishes::default();
    let mut authentication_data = false;
    properties(body, property::CONNECT, |id, value| {
        match (id, value) {
            (property::PACKET_MAXIMUM, Value::Number(bytes)) => wishes.packet_bytes_max = bytes,
            (property::PROBLEM_INFORMATION, Value::Number(flag)) => wishes.reason_strings = flag == 1,
            (property::AUTHENTICATION_METHOD, _) => wishes.authentication = true,
            (property::AUTHENTICATION_DATA, _) => authentication_data = true,
            _ => {}
        }
        Ok(())
    })?;
    if authentication_data && !wishes.authentication {
        // Section 3.1.2.11.10
        return Err(PacketError::PropertyValue { id: property::AUTHENTICATION_DATA });
    }
    Ok(wishes)
}

/// The properties of a will (section 3.1.3.2).
pub(super) fn will_properties(body: &mut Body<'_>) -> Result<(), PacketError> {
    read_over(body, property::WILL)
}

/// As `packet::parse_publish`, with properties before the payload (section 3.3.2.3).
///
/// # Errors
/// When `body` ends before the payload begins, or the packet contradicts itself.
pub fn parse_publish(first: u8, body: &[u8], body_bytes: usize) -> Result<Publish<'_>, PacketError> {
    let qos = packet::publish_qos(first)?;
    let mut rest = Body { rest: body, packet: "PUBLISH" };
    let topic = rest.bytes()?;
    let packet_id = if qos == QoS::AtMostOnce { 0 } else { rest.packet_id()? };
    properties(&mut rest, property::PUBLISH, |id, _| {
        // We told a topic alias maximum of 0 [MQTT-3.3.2-9].
        if id == property::TOPIC_ALIAS { Err(PacketError::TopicAlias) } else { Ok(()) }
    })?;
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

/// As `packet::parse`, of MQTT 5.
///
/// # Errors
/// When the body is not what the type asks for.
pub fn parse(first: u8, body: &[u8]) -> Result<Packet<'_>, PacketError> {
    let named = |packet| Body { rest: body, packet };
    match first >> 4 {
        kind::PUBLISH => parse_publish(first, body, body.len()).map(Packet::Publish),
        kind::PUBACK => {
            let mut body = named("PUBACK");
            let packet_id = body.packet_id()?;
            reason_and_properties(&mut body, property::ACKNOWLEDGEMENT)?;
            body.end().map(|()| Packet::PubAck { packet_id })
        }
        kind::DISCONNECT => {
            let mut body = named("DISCONNECT");
            reason_and_properties(&mut body, property::DISCONNECT)?;
            body.end().map(|()| Packet::Disconnect)
        }
        kind::SUBSCRIBE => {
            let mut body = named("SUBSCRIBE");
            let packet_id = body.packet_id()?;
            read_over(&mut body, property::SUBSCRIBE)?;
            let mut filters = 0;
            while !body.rest.is_empty() {
                body.text("filter")?;
                body.u8()?;
                filters += 1;
            }
            if filters == 0 {
                return Err(PacketError::WrongLength("SUBSCRIBE"));
            }
            Ok(Packet::Subscribe { packet_id, filters })
        }
        kind::UNSUBSCRIBE => {
            let mut body = named("UNSUBSCRIBE");
            let packet_id = body.packet_id()?;
            read_over(&mut body, property::UNSUBSCRIBE)?;
            let mut filters = 0;
            while !body.rest.is_empty() {
                body.text("filter")?;
                filters += 1;
            }
            if filters == 0 {
                return Err(PacketError::WrongLength("UNSUBSCRIBE"));
            }
            Ok(Packet::Unsubscribe { packet_id, filters })
        }
        // These have no properties, or are none of a client's.
        kind::CONNECT | kind::PINGREQ | kind::PINGRESP => packet::parse(first, body),
        _ => Ok(Packet::ExactlyOnce),
    }
}

/// A reason code and properties, either of which may be left out at the end.
fn reason_and_properties(body: &mut Body<'_>, allowed: &[u32]) -> Result<(), PacketError> {
    if !body.rest.is_empty() {
        body.u8()?;
    }
    if !body.rest.is_empty() {
        read_over(body, allowed)?;
    }
    Ok(())
}

/// What is written, appended to a buffer that goes out as one.
pub mod encode {
    use super::super::packet::encode::{length, text};
    use super::super::packet::kind;
    use super::{code, property};
    use crate::domain::acks::Told;

    /// How much a client takes of us.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Taste {
        pub packet_bytes_max: usize,
        pub reason_strings: bool,
    }

    /// What a CONNACK tells of us to a client that was let in (section 3.2.2.3).
    #[derive(Clone, Copy, Debug)]
    pub struct Terms<'a> {
        pub receive_maximum: u16,
        pub packet_bytes_max: u32,
        pub assigned_client_id: Option<&'a str>,
    }

    /// A packet of this head, with properties behind it that end in the reason string where it fits
    /// and is wanted.
    fn packet(out: &mut Vec<u8>, kind: u8, head: &[u8], properties: &[u8], why: Option<&str>, taste: Taste) {
        let whole = |why: Option<&str>| {
            let properties = properties.len() + why.map_or(0, |why| 3 + why.len());
            let body = head.len() + length_bytes(properties) + properties;
            (1 + length_bytes(body) + body, body, properties)
        };
        let why = why.filter(|why| taste.reason_strings && whole(Some(why)).0 <= taste.packet_bytes_max);
        let (_, body, properties_bytes) = whole(why);
        out.push(kind << 4);
        length(out, body);
        out.extend_from_slice(head);
        length(out, properties_bytes);
        out.extend_from_slice(properties);
        if let Some(why) = why {
            out.push(property::REASON_STRING as u8);
            text(out, why);
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

    /// A CONNACK that lets in. No session outlives its connection, no topic alias is taken, QoS 1 is
    /// the most, and nobody can subscribe.
    pub fn connack(out: &mut Vec<u8>, terms: &Terms<'_>, taste: Taste) {
        let mut properties = vec![property::SESSION_EXPIRY as u8, 0, 0, 0, 0];
        properties.push(property::RECEIVE_MAXIMUM as u8);
        properties.extend_from_slice(&terms.receive_maximum.to_be_bytes());
        properties.extend_from_slice(&[property::MAXIMUM_QOS, 1]);
        properties.push(property::PACKET_MAXIMUM as u8);
        properties.extend_from_slice(&terms.packet_bytes_max.to_be_bytes());
        properties.extend_from_slice(&[property::TOPIC_ALIAS_MAXIMUM as u8, 0, 0]);
        for missing in [property::WILDCARDS, property::SUBSCRIPTION_IDS, property::SHARED] {
            properties.extend_from_slice(&[missing, 0]);
        }
        if let Some(id) = terms.assigned_client_id {
            properties.push(property::ASSIGNED_CLIENT_ID);
            text(&mut properties, id);
        }
        packet(out, kind::CONNACK, &[0, code::SUCCESS], &properties, None, taste);
    }

    /// A CONNACK that turns away.
    pub fn connack_refusing(out: &mut Vec<u8>, code: u8, why: &str, taste: Taste) {
        packet(out, kind::CONNACK, &[0, code], &[], Some(why), taste);
    }

    /// A PUBACK for a message that was refused.
    pub fn puback_refusing(out: &mut Vec<u8>, packet_id: u16, code: u8, why: Option<&str>, taste: Taste) {
        let [high, low] = packet_id.to_be_bytes();
        let why = why.filter(|_| taste.reason_strings);
        if why.is_none() {
            // Without properties their length may be left out (section 3.4.2.2.1).
            return out.extend_from_slice(&[kind::PUBACK << 4, 3, high, low, code]);
        }
        packet(out, kind::PUBACK, &[high, low, code], &[], why, taste);
    }

    /// A PUBACK that tells its sender why, in words where there are some for it.
    pub fn puback_told(out: &mut Vec<u8>, packet_id: u16, told: &Told, taste: Taste) {
        let has_words = !told.reason.helps_a_guesser() && !told.detail.is_empty();
        let why = has_words.then(|| format!("{}: {}", told.reason, told.detail));
        puback_refusing(out, packet_id, super::puback_code(told.reason), why.as_deref(), taste);
    }

    pub fn disconnect(out: &mut Vec<u8>, code: u8, why: &str, taste: Taste) {
        packet(out, kind::DISCONNECT, &[code], &[], Some(why), taste);
    }

    /// Refuses every filter of a SUBSCRIBE.
    pub fn suback_refusing(out: &mut Vec<u8>, packet_id: u16, filters: usize) {
        codes(out, kind::SUBACK, packet_id, filters, code::UNSPECIFIED);
    }

    pub fn unsuback(out: &mut Vec<u8>, packet_id: u16, filters: usize) {
        codes(out, kind::UNSUBACK, packet_id, filters, code::NO_SUBSCRIPTION_EXISTED);
    }

    fn codes(out: &mut Vec<u8>, kind: u8, packet_id: u16, filters: usize, code: u8) {
        out.push(kind << 4);
        length(out, 3 + filters);
        out.extend_from_slice(&packet_id.to_be_bytes());
        out.push(0);
        out.resize(out.len() + filters, code);
    }
}

#[cfg(test)]
mod tests;
