//! The packets of MQTT 3.1.1 that either source meets, borrowed from the bytes they came in. What
//! MQTT 5 does otherwise stands in `packet5`.
//!
//! Not a general codec: what a publisher and a subscriber at QoS 0 and 1 send and receive, and
//! nothing else. Section numbers are those of the OASIS standard of 29 October 2014.

use super::packet5;

/// Why bytes are not a packet. None of these is the fault of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    #[error("a remaining length of more than four bytes")]
    LengthOfLength,
    #[error("packet type {0} does not exist")]
    UnknownType(u8),
    #[error("packet type {kind} with flags {flags:#06b}, which the protocol reserves")]
    ReservedFlags { kind: u8, flags: u8 },
    #[error("a packet of {bytes} bytes, over the limit of {bytes_max}")]
    TooLong { bytes: usize, bytes_max: usize },
    #[error("a {0} packet that ends too early or too late")]
    WrongLength(&'static str),
    #[error("packet id 0")]
    PacketIdZero,
    #[error("a {0} that is not UTF-8 or holds U+0000")]
    NotText(&'static str),
    #[error("a {0} packet with impossible flags")]
    ImpossibleFlags(&'static str),
    #[error("a protocol name other than MQTT")]
    NotMqtt,
    #[error("property {id:#04x}, which a {packet} packet cannot have")]
    Property { id: u32, packet: &'static str },
    #[error("property {id:#04x} twice in a {packet} packet")]
    PropertyTwice { id: u32, packet: &'static str },
    #[error("property {id:#04x} with an impossible value")]
    PropertyValue { id: u32 },
    #[error("properties of {bytes} bytes, over the limit of {bytes_max}")]
    PropertiesTooLong { bytes: usize, bytes_max: usize },
    #[error("a topic alias, though the topic alias maximum is 0")]
    TopicAlias,
}

/// The packet types (section 2.2.1), as they stand in the upper half of the first byte.
pub mod kind {
    pub const CONNECT: u8 = 1;
    pub const CONNACK: u8 = 2;
    pub const PUBLISH: u8 = 3;
    pub const PUBACK: u8 = 4;
    pub const PUBREC: u8 = 5;
    pub const PUBREL: u8 = 6;
    pub const PUBCOMP: u8 = 7;
    pub const SUBSCRIBE: u8 = 8;
    pub const SUBACK: u8 = 9;
    pub const UNSUBSCRIBE: u8 = 10;
    pub const UNSUBACK: u8 = 11;
    pub const PINGREQ: u8 = 12;
    pub const PINGRESP: u8 = 13;
    pub const DISCONNECT: u8 = 14;
}

/// The answer of a SUBACK to one filter that was refused (section 3.9.3).
pub const SUBSCRIBE_REFUSED: u8 = 0x80;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QoS {
    AtMostOnce,
    AtLeastOnce,
    ExactlyOnce,
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

/// A CONNECT (section 3.1). The will is read over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connect<'a> {
    /// 4 is MQTT 3.1.1, 5 is MQTT 5.
    pub level: u8,
    pub client_id: &'a str,
    pub clean_session: bool,
    pub keep_alive_s: u16,
    pub username: Option<&'a str>,
    pub password: Option<&'a [u8]>,
    pub wishes: Wishes,
}

/// What the properties of an MQTT 5 CONNECT ask for, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wishes {
    /// The largest packet that the client takes.
    pub packet_bytes_max: u32,
    /// Reason strings may be sent.
    pub reason_strings: bool,
    /// An authentication method is named.
    pub authentication: bool,
}

impl Default for Wishes {
    fn default() -> Self {
        Self { packet_bytes_max: u32::MAX, reason_strings: true, authentication: false }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    Connect(Connect<'a>),
    ConnAck {
        session_present: bool,
        code: u8,
    },
    Publish(Publish<'a>),
    PubAck {
        packet_id: u16,
    },
    /// PUBREC, PUBREL and PUBCOMP: QoS 2, which nobody here speaks.
    ExactlyOnce,
    Subscribe {
        packet_id: u16,
        filters: usize,
    },
    SubAck {
        packet_id: u16,
        codes: &'a [u8],
    },
    Unsubscribe {
        packet_id: u16,
        filters: usize,
    },
    UnsubAck {
        packet_id: u16,
    },
    PingReq,
    PingResp,
    Disconnect,
}

/// Reads along the body of one packet.
pub(super) struct Body<'a> {
    pub rest: &'a [u8],
    pub packet: &'static str,
}

impl<'a> Body<'a> {
    pub fn u8(&mut self) -> Result<u8, PacketError> {
        Ok(self.take(1)?[0])
    }

    pub fn u16(&mut self) -> Result<u16, PacketError> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    pub fn take(&mut self, bytes: usize) -> Result<&'a [u8], PacketError> {
        let (taken, rest) = self.rest.split_at_checked(bytes).ok_or(PacketError::WrongLength(self.packet))?;
        self.rest = rest;
        Ok(taken)
    }

    pub fn bytes(&mut self) -> Result<&'a [u8], PacketError> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }

    pub fn text(&mut self, name: &'static str) -> Result<&'a str, PacketError> {
        text(self.bytes()?).ok_or(PacketError::NotText(name))
    }

    pub fn packet_id(&mut self) -> Result<u16, PacketError> {
        match self.u16()? {
            0 => Err(PacketError::PacketIdZero),
            id => Ok(id),
        }
    }

    pub fn end(self) -> Result<(), PacketError> {
        if self.rest.is_empty() { Ok(()) } else { Err(PacketError::WrongLength(self.packet)) }
    }
}

/// Text as the protocol has it: UTF-8 without U+0000 [MQTT-1.5.3-1, MQTT-1.5.3-2].
pub fn text(bytes: &[u8]) -> Option<&str> {
    if memchr::memchr(0, bytes).is_some() {
        return None;
    }
    std::str::from_utf8(bytes).ok()
}

/// The flags of a PUBLISH's first byte.
pub fn publish_qos(first: u8) -> Result<QoS, PacketError> {
    match (first >> 1) & 3 {
        0 => Ok(QoS::AtMostOnce),
        1 => Ok(QoS::AtLeastOnce),
        2 => Ok(QoS::ExactlyOnce),
        _ => Err(PacketError::ImpossibleFlags("PUBLISH")),
    }
}

/// Reads a PUBLISH of which `body` is at least topic and packet id; `body_bytes` is its true length.
///
/// # Errors
/// When `body` ends before the payload begins, or the packet contradicts itself.
pub fn parse_publish(first: u8, body: &[u8], body_bytes: usize) -> Result<Publish<'_>, PacketError> {
    let qos = publish_qos(first)?;
    let mut rest = Body { rest: body, packet: "PUBLISH" };
    let topic = rest.bytes()?;
    let packet_id = if qos == QoS::AtMostOnce { 0 } else { rest.packet_id()? };
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

/// Checks the first byte of a packet: its type exists and its reserved flags are as they must be
/// (section 2.2.2).
///
/// # Errors
/// When they are not.
pub fn check_first_byte(first: u8) -> Result<(), PacketError> {
    let (kind, flags) = (first >> 4, first & 0x0f);
    let wanted = match kind {
        0 | 15 => return Err(PacketError::UnknownType(kind)),
        kind::PUBLISH => return publish_qos(first).map(|_| ()),
        kind::PUBREL | kind::SUBSCRIBE | kind::UNSUBSCRIBE => 2,
        _ => 0,
    };
    if flags == wanted { Ok(()) } else { Err(PacketError::ReservedFlags { kind, flags }) }
}

/// Reads the body of a whole packet whose first byte was checked.
///
/// # Errors
/// When the body is not what the type asks for.
pub fn parse(first: u8, body: &[u8]) -> Result<Packet<'_>, PacketError> {
    let kind = first >> 4;
    let named = |packet| Body { rest: body, packet };
    match kind {
        kind::PUBLISH => parse_publish(first, body, body.len()).map(Packet::Publish),
        kind::PUBACK => {
            let mut body = named("PUBACK");
            let packet_id = body.packet_id()?;
            body.end().map(|()| Packet::PubAck { packet_id })
        }
        kind::PINGREQ => named("PINGREQ").end().map(|()| Packet::PingReq),
        kind::PINGRESP => named("PINGRESP").end().map(|()| Packet::PingResp),
        kind::DISCONNECT => named("DISCONNECT").end().map(|()| Packet::Disconnect),
        kind::CONNECT => parse_connect(named("CONNECT")).map(Packet::Connect),
        kind::CONNACK => {
            let mut body = named("CONNACK");
            let (flags, code) = (body.u8()?, body.u8()?);
            body.end().map(|()| Packet::ConnAck { session_present: flags & 1 == 1, code })
        }
        kind::SUBSCRIBE => {
            let mut body = named("SUBSCRIBE");
            let packet_id = body.packet_id()?;
            let mut filters = 0;
            while !body.rest.is_empty() {
                body.bytes()?;
                body.u8()?;
                filters += 1;
            }
            if filters == 0 {
                return Err(PacketError::WrongLength("SUBSCRIBE"));
            }
            Ok(Packet::Subscribe { packet_id, filters })
        }
        kind::SUBACK => {
            let mut body = named("SUBACK");
            Ok(Packet::SubAck { packet_id: body.packet_id()?, codes: body.rest })
        }
        kind::UNSUBSCRIBE => {
            let mut body = named("UNSUBSCRIBE");
            let packet_id = body.packet_id()?;
            let mut filters = 0;
            while !body.rest.is_empty() {
                body.bytes()?;
                filters += 1;
            }
            Ok(Packet::Unsubscribe { packet_id, filters })
        }
        kind::UNSUBACK => {
            let mut body = named("UNSUBACK");
            let packet_id = body.packet_id()?;
            body.end().map(|()| Packet::UnsubAck { packet_id })
        }
        _ => Ok(Packet::ExactlyOnce),
    }
}

fn parse_connect(mut body: Body<'_>) -> Result<Connect<'_>, PacketError> {
    let name = body.bytes()?;
    let level = body.u8()?;
    // What follows is known for levels 4 and 5 only; the answer to any other level needs no more.
    match (name, level) {
        (b"MQTT", 4 | 5) => {}
        (b"MQTT" | b"MQIsdp", _) => {
            return Ok(Connect {
                level: if matches!(level, 4 | 5) { 3 } else { level },
                client_id: "",
                clean_session: true,
                keep_alive_s: 0,
                username: None,
                password: None,
                wishes: Wishes::default(),
            });
        }
        _ => return Err(PacketError::NotMqtt),
    }
    let flags = body.u8()?;
    let keep_alive_s = body.u16()?;
    let wishes = if level == 5 { packet5::connect_properties(&mut body)? } else { Wishes::default() };
    let client_id = body.text("client id")?;
    let (will, will_qos, will_retain) = (flags & 4 != 0, (flags >> 3) & 3, flags & 32 != 0);
    let (has_password, has_username) = (flags & 64 != 0, flags & 128 != 0);
    let will_fits = if will { will_qos < 3 } else { will_qos == 0 && !will_retain };
    // A password of its own came with MQTT 5 [MQTT-3.1.2-22 of 3.1.1].
    let password_fits = has_username || !has_password || level == 5;
    if flags & 1 != 0 || !will_fits || !password_fits {
        return Err(PacketError::ImpossibleFlags("CONNECT"));
    }
    if will {
        if level == 5 {
            packet5::will_properties(&mut body)?;
        }
        body.text("will topic")?;
        body.bytes()?;
    }
    let username = if has_username { Some(body.text("username")?) } else { None };
    let password = if has_password { Some(body.bytes()?) } else { None };
    body.end()?;
    let clean_session = flags & 2 != 0;
    Ok(Connect { level, client_id, clean_session, keep_alive_s, username, password, wishes })
}

/// What is written, appended to a buffer that goes out as one.
pub mod encode {
    use super::kind;

    /// A CONNECT with a persistent session and no will.
    pub struct Connect<'a> {
        pub client_id: &'a str,
        pub keep_alive_s: u16,
        pub username: Option<&'a str>,
        /// Ignored without a username, as the protocol has it.
        pub password: Option<&'a str>,
    }

    /// A variable byte integer.
    pub(in crate::source) fn length(out: &mut Vec<u8>, mut bytes: usize) {
        loop {
            let low = (bytes & 0x7f) as u8;
            bytes >>= 7;
            if bytes == 0 {
                return out.push(low);
            }
            out.push(low | 0x80);
        }
    }

    /// Text is at most 65,535 bytes: settings are checked where they are made.
    pub(in crate::source) fn text(out: &mut Vec<u8>, text: &str) {
        out.extend_from_slice(&(text.len() as u16).to_be_bytes());
        out.extend_from_slice(text.as_bytes());
    }

    pub fn connect(out: &mut Vec<u8>, connect: &Connect<'_>) {
        let password = connect.username.and(connect.password);
        let mut body = Vec::with_capacity(64);
        text(&mut body, "MQTT");
        body.push(4);
        body.push(u8::from(connect.username.is_some()) << 7 | u8::from(password.is_some()) << 6);
        body.extend_from_slice(&connect.keep_alive_s.to_be_bytes());
        text(&mut body, connect.client_id);
        for credential in [connect.username, password].into_iter().flatten() {
            text(&mut body, credential);
        }
        out.push(kind::CONNECT << 4);
        length(out, body.len());
        out.extend_from_slice(&body);
    }

    /// A SUBSCRIBE to one filter at QoS 1.
    pub fn subscribe(out: &mut Vec<u8>, packet_id: u16, filter: &str) {
        out.push(kind::SUBSCRIBE << 4 | 2);
        length(out, 2 + 2 + filter.len() + 1);
        out.extend_from_slice(&packet_id.to_be_bytes());
        text(out, filter);
        out.push(1);
    }

    pub fn unsubscribe(out: &mut Vec<u8>, packet_id: u16, filter: &str) {
        out.push(kind::UNSUBSCRIBE << 4 | 2);
        length(out, 2 + 2 + filter.len());
        out.extend_from_slice(&packet_id.to_be_bytes());
        text(out, filter);
    }

    /// A PUBLISH at QoS 0.
    pub fn publish(out: &mut Vec<u8>, topic: &str, payload: &[u8]) {
        out.push(kind::PUBLISH << 4);
        length(out, 2 + topic.len() + payload.len());
        text(out, topic);
        out.extend_from_slice(payload);
    }

    pub fn connack(out: &mut Vec<u8>, code: u8) {
        out.extend_from_slice(&[kind::CONNACK << 4, 2, 0, code]);
    }

    /// Refuses every filter of a SUBSCRIBE.
    pub fn suback_refusing(out: &mut Vec<u8>, packet_id: u16, filters: usize) {
        out.push(kind::SUBACK << 4);
        length(out, 2 + filters);
        out.extend_from_slice(&packet_id.to_be_bytes());
        out.resize(out.len() + filters, super::SUBSCRIBE_REFUSED);
    }

    pub fn unsuback(out: &mut Vec<u8>, packet_id: u16) {
        out.extend_from_slice(&[kind::UNSUBACK << 4, 2]);
        out.extend_from_slice(&packet_id.to_be_bytes());
    }

    pub fn puback(out: &mut Vec<u8>, packet_id: u16) {
        let [high, low] = packet_id.to_be_bytes();
        out.extend_from_slice(&[kind::PUBACK << 4, 2, high, low]);
    }

    pub const PINGREQ: [u8; 2] = [kind::PINGREQ << 4, 0];
    pub const PINGRESP: [u8; 2] = [kind::PINGRESP << 4, 0];
    pub const DISCONNECT: [u8; 2] = [kind::DISCONNECT << 4, 0];
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connect_body(name: &[u8], level: u8, flags: u8, rest: &[&[u8]]) -> Vec<u8> {
        let mut body = Vec::new();
        let bytes = |body: &mut Vec<u8>, text: &[u8]| {
            body.extend_from_slice(&(text.len() as u16).to_be_bytes());
            body.extend_from_slice(text);
        };
        bytes(&mut body, name);
        body.extend_from_slice(&[level, flags, 0, 30]);
        for text in rest {
            bytes(&mut body, text);
        }
        body
    }

    #[test]
    fn a_connect_is_read_past_its_will() {
        let body =
            connect_body(b"MQTT", 4, 0b1100_0110, &[b"pump", b"will/topic", b"\0bye", b"user", b"pass"]);
        let Packet::Connect(connect) = parse(0x10, &body).unwrap() else { panic!("no CONNECT") };
        let wanted = Connect {
            level: 4,
            client_id: "pump",
            clean_session: true,
            keep_alive_s: 30,
            username: Some("user"),
            password: Some(b"pass"),
            wishes: Wishes::default(),
        };
        assert_eq!(connect, wanted);
    }

    #[test]
    fn a_connect_that_contradicts_itself_is_malformed() {
        let fault = |flags, rest: &[&[u8]]| parse(0x10, &connect_body(b"MQTT", 4, flags, rest)).unwrap_err();
        assert_eq!(fault(1, &[b"id"]), PacketError::ImpossibleFlags("CONNECT"));
        assert_eq!(fault(0b0100_0000, &[b"id", b"p"]), PacketError::ImpossibleFlags("CONNECT"));
        assert_eq!(fault(0b0001_1100, &[b"id", b"t", b"m"]), PacketError::ImpossibleFlags("CONNECT"));
        assert_eq!(fault(0b0000_1000, &[b"id"]), PacketError::ImpossibleFlags("CONNECT"));
        assert_eq!(fault(0, &[b"i\0d"]), PacketError::NotText("client id"));
        assert_eq!(fault(0, &[b"id", b"more"]), PacketError::WrongLength("CONNECT"));
        assert_eq!(fault(0b1000_0000, &[b"id"]), PacketError::WrongLength("CONNECT"));
    }

    #[test]
    fn another_protocol_level_is_told_apart_from_another_protocol() {
        for (name, number) in [(&b"MQTT"[..], 6), (b"MQIsdp", 3), (b"MQIsdp", 4), (b"MQIsdp", 5)] {
            let body = connect_body(name, number, 0, &[b"id"]);
            let Packet::Connect(connect) = parse(0x10, &body).unwrap() else { panic!("no CONNECT") };
            assert!(!matches!(connect.level, 4 | 5));
        }
        assert_eq!(parse(0x10, &connect_body(b"HTTP", 4, 0, &[b"id"])), Err(PacketError::NotMqtt));
    }

    #[test]
    fn reserved_types_and_flags_are_refused() {
        for first in [0x00, 0xf0] {
            assert_eq!(check_first_byte(first), Err(PacketError::UnknownType(first >> 4)));
        }
        for first in [0x11, 0x80, 0x83, 0xa0, 0xc1, 0xe8, 0x60] {
            assert!(matches!(check_first_byte(first), Err(PacketError::ReservedFlags { .. })), "{first:#x}");
        }
        assert_eq!(check_first_byte(0x36), Err(PacketError::ImpossibleFlags("PUBLISH")));
        for first in [0x10, 0x30, 0x3b, 0x3d, 0x82, 0xa2, 0xc0, 0xe0, 0x62] {
            assert_eq!(check_first_byte(first), Ok(()), "{first:#x}");
        }
    }

    #[test]
    fn a_publish_with_packet_id_0_is_malformed_only_where_it_has_one() {
        assert_eq!(parse(0x32, &[0, 1, b'a', 0, 0]), Err(PacketError::PacketIdZero));
        let Ok(Packet::Publish(publish)) = parse(0x30, &[0, 1, b'a', 0, 0]) else { panic!("no PUBLISH") };
        assert_eq!((publish.payload, publish.packet_id), (&[0, 0][..], 0));
    }

    /// What we write is read by another implementation.
    #[test]
    fn what_we_write_is_what_a_common_client_library_reads() {
        use rumqttc::mqttbytes::v4::Packet as Theirs;
        let theirs = |bytes: &[u8]| Theirs::read(&mut bytes::BytesMut::from(bytes), 1 << 20).unwrap();
        let mut out = Vec::new();
        let login = encode::Connect {
            client_id: "tidegate",
            keep_alive_s: 30,
            username: Some("u"),
            password: Some("p"),
        };
        encode::connect(&mut out, &login);
        let Theirs::Connect(connect) = theirs(&out) else { panic!("no CONNECT") };
        assert_eq!(
            (connect.client_id.as_str(), connect.keep_alive, connect.clean_session),
            ("tidegate", 30, false)
        );
        assert!(connect.login.unwrap().validate("u", "p"));

        let long = format!("tenant/{}/#", "x".repeat(200));
        out.clear();
        encode::subscribe(&mut out, 7, &long);
        let Theirs::Subscribe(subscribe) = theirs(&out) else { panic!("no SUBSCRIBE") };
        assert_eq!((subscribe.pkid, subscribe.filters[0].path.as_str()), (7, long.as_str()));
        assert_eq!(subscribe.filters[0].qos, rumqttc::QoS::AtLeastOnce);

        out.clear();
        encode::unsubscribe(&mut out, 8, "a/#");
        let Theirs::Unsubscribe(unsubscribe) = theirs(&out) else { panic!("no UNSUBSCRIBE") };
        assert_eq!((unsubscribe.pkid, unsubscribe.topics), (8, vec!["a/#".to_owned()]));

        out.clear();
        encode::puback(&mut out, 0x1234);
        assert!(matches!(theirs(&out), Theirs::PubAck(ack) if ack.pkid == 0x1234));
        out.clear();
        encode::suback_refusing(&mut out, 9, 2);
        assert!(matches!(theirs(&out), Theirs::SubAck(ack) if ack.pkid == 9 && ack.return_codes.len() == 2));
        out.clear();
        encode::connack(&mut out, 2);
        assert!(matches!(theirs(&out), Theirs::ConnAck(ack)
            if ack.code == rumqttc::mqttbytes::v4::ConnectReturnCode::BadClientId));
    }
}
