//! All packets but PUBLISH and PUBACK, read and written by rumqttc.
//!
//! A packet is checked before rumqttc reads it, because rumqttc takes more than the protocol allows:
//! U+0000 in text, reserved flags, bytes behind the end, properties that repeat or reach beyond their
//! length. Its v5 types stand for both versions; they know the codes of both.

#[cfg(test)]
mod tests;

use bytes::Bytes;
use rumqttc::mqttbytes;
use rumqttc::mqttbytes::v4;
use rumqttc::v5::mqttbytes as mqttbytes5;
use rumqttc::v5::mqttbytes::v5;

use crate::mqtt::error::{PacketError, kind};
use crate::mqtt::publish::{Peer, Publish, parse_publish, property, publish_qos, skip_properties};
use crate::mqtt::reader::PacketReader;

/// One packet. Large and rare ones are boxed: most packets are PUBLISHes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    Connect(Box<ConnectRequest>),
    ConnAck(Box<v5::ConnAck>),
    Publish(Publish<'a>),
    PubAck {
        packet_id: u16,
        code: u8,
    },
    /// PUBREC, PUBREL and PUBCOMP: QoS 2, which is not supported.
    ExactlyOnce,
    Subscribe {
        packet_id: u16,
        filters: usize,
    },
    SubAck(Box<v5::SubAck>),
    Unsubscribe {
        packet_id: u16,
        filters: usize,
    },
    /// Without reasons in MQTT 3.1.1.
    UnsubAck(Box<v5::UnsubAck>),
    PingReq,
    PingResp,
    Disconnect(Box<v5::Disconnect>),
}

// It is moved for each PUBLISH.
const _: () = assert!(size_of::<Frame<'_>>() <= 64);

/// A CONNECT (section 3.1) without its will.
///
/// User name and password are read here: rumqttc takes no binary password, and does not tell a missing
/// one from an empty one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectRequest {
    /// 4 is MQTT 3.1.1, 5 is MQTT 5; for any other level nothing else is read.
    pub level: u8,
    pub client_id: String,
    pub clean_session: bool,
    pub keep_alive_s: u16,
    pub username: Option<String>,
    pub password: Option<Box<[u8]>>,
    /// The largest packet that the client takes.
    pub packet_bytes_max: u32,
    /// Reason strings may be sent.
    pub reason_strings: bool,
    /// It names an authentication method.
    pub authentication: bool,
    /// The QoS of its will; 0 without one.
    pub will_qos: u8,
}

impl ConnectRequest {
    fn with_level(level: u8) -> Self {
        Self {
            level,
            client_id: String::new(),
            clean_session: true,
            keep_alive_s: 0,
            username: None,
            password: None,
            packet_bytes_max: u32::MAX,
            reason_strings: true,
            authentication: false,
            will_qos: 0,
        }
    }
}

/// Checks the first byte of a packet: its type exists and its reserved flags are as they must be
/// (section 2.2.2). AUTH is no type: no authentication method is taken, and none is named.
///
/// # Errors
/// They are not.
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
/// The body does not have the form of its type.
pub fn parse(first: u8, body: &[u8], peer: Peer) -> Result<Frame<'_>, PacketError> {
    if first >> 4 == kind::PUBLISH {
        return parse_publish(first, body, body.len(), peer).map(Frame::Publish);
    }
    parse_control(first, body, peer != Peer::V4)
}

fn parse_control(first: u8, body: &[u8], v5: bool) -> Result<Frame<'static>, PacketError> {
    let named = |packet| PacketReader { rest: body, packet };
    match first >> 4 {
        kind::CONNECT => parse_connect(first, body).map(|connect| Frame::Connect(Box::new(connect))),
        kind::CONNACK => parse_connack(first, body, v5).map(|connack| Frame::ConnAck(Box::new(connack))),
        kind::PUBACK => {
            let mut rest = named("PUBACK");
            let packet_id = rest.packet_id()?;
            let code = if v5 { reason_and_properties(&mut rest, property::ACKNOWLEDGEMENT)? } else { 0 };
            rest.end().map(|()| Frame::PubAck { packet_id, code })
        }
        kind::SUBSCRIBE => parse_subscribe(first, body, v5),
        kind::SUBACK => parse_suback(first, body, v5).map(|suback| Frame::SubAck(Box::new(suback))),
        kind::UNSUBSCRIBE => parse_unsubscribe(first, body, v5),
        kind::UNSUBACK => parse_unsuback(first, body, v5).map(|unsuback| Frame::UnsubAck(Box::new(unsuback))),
        kind::PINGREQ => named("PINGREQ").end().map(|()| Frame::PingReq),
        kind::PINGRESP => named("PINGRESP").end().map(|()| Frame::PingResp),
        kind::DISCONNECT => {
            parse_disconnect(first, body, v5).map(|disconnect| Frame::Disconnect(Box::new(disconnect)))
        }
        _ => Ok(Frame::ExactlyOnce),
    }
}

/// A whole packet as rumqttc reads it. It skips the length, so one byte stands for that.
fn packet_bytes(first: u8, body: &[u8]) -> Bytes {
    let mut bytes = Vec::with_capacity(2 + body.len());
    bytes.extend_from_slice(&[first, 0]);
    bytes.extend_from_slice(body);
    bytes.into()
}

fn header4(first: u8, body: &[u8]) -> mqttbytes::FixedHeader {
    mqttbytes::FixedHeader::new(first, 1, body.len())
}

fn header5(first: u8, body: &[u8]) -> v5::FixedHeader {
    v5::FixedHeader::new(first, 1, body.len())
}

/// The fault of a whole packet that rumqttc does not read. A request for more bytes is one: there are
/// none to come.
fn fault4(packet: &'static str) -> impl Fn(mqttbytes::Error) -> PacketError {
    use mqttbytes::Error;
    move |error| match error {
        Error::InvalidConnectReturnCode(code) | Error::InvalidSubscribeReasonCode(code) => {
            PacketError::UnknownCode { packet, code }
        }
        _ => PacketError::Malformed(packet),
    }
}

fn fault5(packet: &'static str) -> impl Fn(mqttbytes5::Error) -> PacketError {
    use mqttbytes5::Error;
    move |error| match error {
        Error::InvalidConnectReturnCode(code)
        | Error::InvalidSubscribeReasonCode(code)
        | Error::InvalidReason(code) => PacketError::UnknownCode { packet, code },
        _ => PacketError::Malformed(packet),
    }
}

fn parse_connect(first: u8, body: &[u8]) -> Result<ConnectRequest, PacketError> {
    let mut rest = PacketReader { rest: body, packet: "CONNECT" };
    let name = rest.bytes()?;
    let level = rest.u8()?;
    // The rest is known for levels 4 and 5 only; the answer to any other level needs no more.
    match (name, level) {
        (b"MQTT", 4 | 5) => {}
        (b"MQTT" | b"MQIsdp", _) => {
            return Ok(ConnectRequest::with_level(if matches!(level, 4 | 5) { 3 } else { level }));
        }
        _ => return Err(PacketError::NotMqtt),
    }
    let flags_at = body.len() - rest.rest.len();
    let flags = rest.u8()?;
    rest.u16()?;
    if level == 5 {
        skip_properties(&mut rest, property::CONNECT)?;
    }
    rest.text("client id")?;
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
            skip_properties(&mut rest, property::WILL)?;
        }
        rest.text("will topic")?;
        rest.bytes()?;
    }
    let before_login = body.len() - rest.rest.len();
    let username = if has_username { Some(rest.text("username")?.to_owned()) } else { None };
    let password = if has_password { Some(rest.bytes()?.into()) } else { None };
    rest.end()?;

    let mut without_login = body[..before_login].to_vec();
    without_login[flags_at] &= !(64 | 128);
    let bytes = packet_bytes(first, &without_login);
    if level == 4 {
        let connect = v4::Connect::read(header4(first, &without_login), bytes).map_err(fault4("CONNECT"))?;
        return Ok(ConnectRequest {
            client_id: connect.client_id,
            clean_session: connect.clean_session,
            keep_alive_s: connect.keep_alive,
            username,
            password,
            will_qos,
            ..ConnectRequest::with_level(4)
        });
    }
    let (connect, _, _) =
        v5::Connect::read(header5(first, &without_login), bytes).map_err(fault5("CONNECT"))?;
    let properties = connect.properties.unwrap_or_default();
    if properties.authentication_data.is_some() && properties.authentication_method.is_none() {
        // Section 3.1.2.11.10
        return Err(PacketError::PropertyValue { id: property::AUTHENTICATION_DATA });
    }
    Ok(ConnectRequest {
        level,
        client_id: connect.client_id,
        clean_session: connect.clean_start,
        keep_alive_s: connect.keep_alive,
        username,
        password,
        will_qos,
        packet_bytes_max: properties.max_packet_size.unwrap_or(u32::MAX),
        reason_strings: properties.request_problem_info != Some(0),
        authentication: properties.authentication_method.is_some(),
    })
}

/// A broker that does not speak MQTT 5 answers it with a CONNACK of MQTT 3.1.1: two bytes. Such a CONNACK
/// with success has not understood the CONNECT, and counts as a refusal of its version.
fn parse_connack(first: u8, body: &[u8], v5: bool) -> Result<v5::ConnAck, PacketError> {
    let mut rest = PacketReader { rest: body, packet: "CONNACK" };
    let flags = rest.u8()?;
    rest.u8()?;
    if flags > 1 {
        return Err(PacketError::ImpossibleFlags("CONNACK"));
    }
    let bytes = packet_bytes(first, body);
    if v5 && body.len() > 2 {
        skip_properties(&mut rest, property::CONNACK)?;
        rest.end()?;
        return v5::ConnAck::read(header5(first, body), bytes).map_err(fault5("CONNACK"));
    }
    rest.end()?;
    let connack = v4::ConnAck::read(header4(first, body), bytes).map_err(fault4("CONNACK"))?;
    let code = match connack.code {
        v4::ConnectReturnCode::Success if v5 => v5::ConnectReturnCode::RefusedProtocolVersion,
        v4::ConnectReturnCode::Success => v5::ConnectReturnCode::Success,
        v4::ConnectReturnCode::RefusedProtocolVersion => v5::ConnectReturnCode::RefusedProtocolVersion,
        v4::ConnectReturnCode::BadClientId => v5::ConnectReturnCode::BadClientId,
        v4::ConnectReturnCode::ServiceUnavailable => v5::ConnectReturnCode::ServiceUnavailable,
        v4::ConnectReturnCode::BadUserNamePassword => v5::ConnectReturnCode::BadUserNamePassword,
        v4::ConnectReturnCode::NotAuthorized => v5::ConnectReturnCode::NotAuthorized,
    };
    Ok(v5::ConnAck { session_present: connack.session_present, code, properties: None })
}

fn parse_subscribe(first: u8, body: &[u8], v5: bool) -> Result<Frame<'static>, PacketError> {
    let mut rest = PacketReader { rest: body, packet: "SUBSCRIBE" };
    rest.packet_id()?;
    if v5 {
        skip_properties(&mut rest, property::SUBSCRIBE)?;
    }
    let reserved = if v5 { 0xc0 } else { 0xfc };
    while !rest.rest.is_empty() {
        rest.text("filter")?;
        if rest.u8()? & reserved != 0 {
            return Err(PacketError::ImpossibleFlags("SUBSCRIBE"));
        }
    }
    let bytes = packet_bytes(first, body);
    let (packet_id, filters) = if v5 {
        let packet = v5::Subscribe::read(header5(first, body), bytes).map_err(fault5("SUBSCRIBE"))?;
        (packet.pkid, packet.filters.len())
    } else {
        let packet = v4::Subscribe::read(header4(first, body), bytes).map_err(fault4("SUBSCRIBE"))?;
        (packet.pkid, packet.filters.len())
    };
    Ok(Frame::Subscribe { packet_id, filters })
}

fn parse_unsubscribe(first: u8, body: &[u8], v5: bool) -> Result<Frame<'static>, PacketError> {
    let mut rest = PacketReader { rest: body, packet: "UNSUBSCRIBE" };
    rest.packet_id()?;
    if v5 {
        skip_properties(&mut rest, property::UNSUBSCRIBE)?;
    }
    if rest.rest.is_empty() {
        return Err(PacketError::WrongLength("UNSUBSCRIBE"));
    }
    while !rest.rest.is_empty() {
        rest.text("filter")?;
    }
    let bytes = packet_bytes(first, body);
    let (packet_id, filters) = if v5 {
        let packet = v5::Unsubscribe::read(header5(first, body), bytes).map_err(fault5("UNSUBSCRIBE"))?;
        (packet.pkid, packet.filters.len())
    } else {
        let packet = v4::Unsubscribe::read(header4(first, body), bytes).map_err(fault4("UNSUBSCRIBE"))?;
        (packet.pkid, packet.topics.len())
    };
    Ok(Frame::Unsubscribe { packet_id, filters })
}

fn parse_suback(first: u8, body: &[u8], v5: bool) -> Result<v5::SubAck, PacketError> {
    let mut rest = PacketReader { rest: body, packet: "SUBACK" };
    rest.packet_id()?;
    if v5 {
        skip_properties(&mut rest, property::ACKNOWLEDGEMENT)?;
        let bytes = packet_bytes(first, body);
        return v5::SubAck::read(header5(first, body), bytes).map_err(fault5("SUBACK"));
    }
    // MQTT 3.1.1 knows one code that refuses; a broker that speaks both may send those of MQTT 5.
    let (packet_id, codes) = body.split_at(2);
    let codes = codes.iter().map(|&code| if code > 0x80 { 0x80 } else { code });
    let body: Vec<u8> = packet_id.iter().copied().chain(codes).collect();
    let suback =
        v4::SubAck::read(header4(first, &body), packet_bytes(first, &body)).map_err(fault4("SUBACK"))?;
    let code = |code| match code {
        v4::SubscribeReasonCode::Success(qos) => v5::SubscribeReasonCode::Success(match qos {
            mqttbytes::QoS::AtMostOnce => mqttbytes5::QoS::AtMostOnce,
            mqttbytes::QoS::AtLeastOnce => mqttbytes5::QoS::AtLeastOnce,
            mqttbytes::QoS::ExactlyOnce => mqttbytes5::QoS::ExactlyOnce,
        }),
        v4::SubscribeReasonCode::Failure => v5::SubscribeReasonCode::Failure,
    };
    let return_codes = suback.return_codes.into_iter().map(code).collect();
    Ok(v5::SubAck { pkid: suback.pkid, return_codes, properties: None })
}

fn parse_unsuback(first: u8, body: &[u8], v5: bool) -> Result<v5::UnsubAck, PacketError> {
    let mut rest = PacketReader { rest: body, packet: "UNSUBACK" };
    rest.packet_id()?;
    let bytes = packet_bytes(first, body);
    if v5 {
        skip_properties(&mut rest, property::ACKNOWLEDGEMENT)?;
        return v5::UnsubAck::read(header5(first, body), bytes).map_err(fault5("UNSUBACK"));
    }
    rest.end()?;
    let unsuback = v4::UnsubAck::read(header4(first, body), bytes).map_err(fault4("UNSUBACK"))?;
    Ok(v5::UnsubAck { pkid: unsuback.pkid, reasons: Vec::new(), properties: None })
}

/// Parses a DISCONNECT. In MQTT 5 one without properties may leave out their length; rumqttc waits for it.
fn parse_disconnect(first: u8, body: &[u8], v5: bool) -> Result<v5::Disconnect, PacketError> {
    let mut rest = PacketReader { rest: body, packet: "DISCONNECT" };
    if v5 {
        reason_and_properties(&mut rest, property::DISCONNECT)?;
    }
    rest.end()?;
    let padded: &[u8] = match body {
        [code] => &[*code, 0],
        body => body,
    };
    v5::Disconnect::read(header5(first, padded), packet_bytes(first, padded)).map_err(fault5("DISCONNECT"))
}

/// Reads a reason code and over properties, either of which may be left out at the end.
fn reason_and_properties(rest: &mut PacketReader<'_>, allowed: &[u32]) -> Result<u8, PacketError> {
    let code = if rest.rest.is_empty() { 0 } else { rest.u8()? };
    if !rest.rest.is_empty() {
        skip_properties(rest, allowed)?;
    }
    Ok(code)
}

/// Packets that are written, appended to a buffer that goes out as one.
pub mod encode {

    use crate::mqtt::error::kind;
    use crate::mqtt::publish::PeerLimits;
    use bytes::{Bytes, BytesMut};
    use rumqttc::mqttbytes;
    use rumqttc::mqttbytes::v4;
    use rumqttc::v5::mqttbytes as mqttbytes5;
    use rumqttc::v5::mqttbytes::v5;

    pub const PINGREQ: [u8; 2] = [kind::PINGREQ << 4, 0];
    pub const PINGRESP: [u8; 2] = [kind::PINGRESP << 4, 0];
    /// In both versions, a session that is left on purpose and is to be kept.
    pub const DISCONNECT: [u8; 2] = [kind::DISCONNECT << 4, 0];
    /// In MQTT 5, a session that ends with the connection: its expiry (property 0x11) becomes 0.
    pub const DISCONNECT_AND_FORGET: [u8; 9] = [kind::DISCONNECT << 4, 7, 0, 5, 0x11, 0, 0, 0, 0];

    /// Appends a packet that rumqttc writes. It fails only over 256 MiB, and no packet here comes near.
    fn append<E: std::fmt::Debug>(out: &mut Vec<u8>, write: impl FnOnce(&mut BytesMut) -> Result<usize, E>) {
        let mut bytes = BytesMut::new();
        write(&mut bytes).expect("a packet within the protocol's limit");
        out.extend_from_slice(&bytes);
    }

    /// A CONNECT with a persistent session.
    pub struct Connect<'a> {
        pub client_id: &'a str,
        pub keep_alive_s: u16,
        pub username: Option<&'a str>,
        /// Ignored without a username: MQTT 3.1.1 has it so.
        pub password: Option<&'a str>,
        pub will: Option<Will>,
    }

    /// A message that the broker publishes when the connection is lost, retained and at QoS 1.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Will {
        pub topic: String,
        pub payload: Vec<u8>,
    }

    /// A retained message at QoS 1.
    #[derive(Clone, Copy, Debug)]
    pub struct RetainedPublish<'a> {
        pub packet_id: u16,
        pub topic: &'a str,
        pub payload: &'a [u8],
    }

    /// Appends a CONNECT of MQTT 3.1.1.
    pub fn connect(out: &mut Vec<u8>, connect: &Connect<'_>) {
        connect_v4(out, connect, false);
    }

    /// Appends a CONNECT of MQTT 3.1.1 whose session ends with the connection.
    pub fn connect_clean(out: &mut Vec<u8>, connect: &Connect<'_>) {
        connect_v4(out, connect, true);
    }

    fn connect_v4(out: &mut Vec<u8>, connect: &Connect<'_>, clean_session: bool) {
        let mut packet = v4::Connect::new(connect.client_id);
        packet.clean_session = clean_session;
        packet.keep_alive = connect.keep_alive_s;
        packet.login =
            connect.username.map(|username| v4::Login::new(username, connect.password.unwrap_or_default()));
        packet.last_will = connect
            .will
            .as_ref()
            .map(|will| v4::LastWill::new(&*will.topic, &*will.payload, mqttbytes::QoS::AtLeastOnce, true));
        append(out, |bytes| packet.write(bytes));
    }

    /// Appends a CONNECT of MQTT 5.
    pub fn connect_v5(out: &mut Vec<u8>, connect: &Connect<'_>, properties: v5::ConnectProperties) {
        let packet = v5::Connect {
            keep_alive: connect.keep_alive_s,
            client_id: connect.client_id.to_owned(),
            clean_start: false,
            properties: Some(properties),
        };
        let login =
            connect.username.map(|username| v5::Login::new(username, connect.password.unwrap_or_default()));
        let will = connect.will.as_ref().map(|will| {
            v5::LastWill::new(&*will.topic, &*will.payload, mqttbytes5::QoS::AtLeastOnce, true, None)
        });
        append(out, |bytes| packet.write(&will, &login, bytes));
    }

    /// Appends a SUBSCRIBE to filters, each with its QoS, 0 or 1.
    pub fn subscribe<'a>(
        out: &mut Vec<u8>,
        packet_id: u16,
        filters: impl IntoIterator<Item = (&'a str, u8)>,
        v5: bool,
    ) {
        let filters = filters.into_iter();
        if v5 {
            let qos = |qos| match qos {
                0 => mqttbytes5::QoS::AtMostOnce,
                _ => mqttbytes5::QoS::AtLeastOnce,
            };
            let filters = filters.map(|(filter, most)| v5::Filter::new(filter, qos(most))).collect();
            let packet = v5::Subscribe { pkid: packet_id, filters, properties: None };
            return append(out, |bytes| packet.write(bytes));
        }
        let qos = |qos| match qos {
            0 => mqttbytes::QoS::AtMostOnce,
            _ => mqttbytes::QoS::AtLeastOnce,
        };
        let filters = filters.map(|(filter, most)| v4::SubscribeFilter::new(filter.to_owned(), qos(most)));
        let packet = v4::Subscribe { pkid: packet_id, filters: filters.collect() };
        append(out, |bytes| packet.write(bytes));
    }

    /// Appends an UNSUBSCRIBE from one filter.
    pub fn unsubscribe(out: &mut Vec<u8>, packet_id: u16, filter: &str, v5: bool) {
        if v5 {
            let packet = v5::Unsubscribe { pkid: packet_id, ..v5::Unsubscribe::new(filter, None) };
            return append(out, |bytes| packet.write(bytes));
        }
        let packet = v4::Unsubscribe { pkid: packet_id, ..v4::Unsubscribe::new(filter) };
        append(out, |bytes| packet.write(bytes));
    }

    /// Appends a PUBLISH at QoS 0.
    pub fn publish(out: &mut Vec<u8>, topic: &str, payload: &[u8], v5: bool) {
        if v5 {
            let payload = Bytes::copy_from_slice(payload);
            let packet = v5::Publish::new(topic, mqttbytes5::QoS::AtMostOnce, payload, None);
            return append(out, |bytes| packet.write(bytes));
        }
        let packet = v4::Publish::new(topic, mqttbytes::QoS::AtMostOnce, payload);
        append(out, |bytes| packet.write(bytes));
    }

    /// Appends a retained PUBLISH at QoS 1.
    pub fn publish_retained(out: &mut Vec<u8>, publish: &RetainedPublish<'_>, v5: bool) {
        let RetainedPublish { packet_id, topic, payload } = *publish;
        if v5 {
            let payload = Bytes::copy_from_slice(payload);
            let mut packet = v5::Publish::new(topic, mqttbytes5::QoS::AtLeastOnce, payload, None);
            (packet.pkid, packet.retain) = (packet_id, true);
            return append(out, |bytes| packet.write(bytes));
        }
        let mut packet = v4::Publish::new(topic, mqttbytes::QoS::AtLeastOnce, payload);
        (packet.pkid, packet.retain) = (packet_id, true);
        append(out, |bytes| packet.write(bytes));
    }

    /// Appends a CONNACK of MQTT 3.1.1 without a session.
    pub fn connack(out: &mut Vec<u8>, code: v4::ConnectReturnCode) {
        append(out, |bytes| v4::ConnAck::new(code, false).write(bytes));
    }

    /// Appends a CONNACK of MQTT 5 without a session. The reason string is left out if it does not fit or is
    /// not wanted.
    pub fn connack_v5(
        out: &mut Vec<u8>,
        code: v5::ConnectReturnCode,
        properties: v5::ConnAckProperties,
        limits: PeerLimits,
    ) {
        let mut packet = v5::ConnAck { session_present: false, code, properties: Some(properties) };
        if !limits.reason_strings || packet.size() > limits.packet_bytes_max {
            packet.properties.iter_mut().for_each(|properties| properties.reason_string = None);
        }
        append(out, |bytes| packet.write(bytes));
    }

    /// Properties of a CONNACK, none of them set.
    pub fn connack_properties() -> v5::ConnAckProperties {
        v5::ConnAckProperties {
            session_expiry_interval: None,
            receive_max: None,
            max_qos: None,
            retain_available: None,
            max_packet_size: None,
            assigned_client_identifier: None,
            topic_alias_max: None,
            reason_string: None,
            user_properties: Vec::new(),
            wildcard_subscription_available: None,
            subscription_identifiers_available: None,
            shared_subscription_available: None,
            server_keep_alive: None,
            response_information: None,
            server_reference: None,
            authentication_method: None,
            authentication_data: None,
        }
    }

    /// Appends a DISCONNECT of MQTT 5, with `why` if it fits and is wanted.
    pub fn disconnect(out: &mut Vec<u8>, code: v5::DisconnectReasonCode, why: &str, limits: PeerLimits) {
        let mut packet = v5::Disconnect::new(code);
        packet.properties = Some(v5::DisconnectProperties {
            session_expiry_interval: None,
            reason_string: Some(why.to_owned()),
            user_properties: Vec::new(),
            server_reference: None,
        });
        if !limits.reason_strings || packet.size() > limits.packet_bytes_max {
            packet.properties.iter_mut().for_each(|properties| properties.reason_string = None);
        }
        append(out, |bytes| packet.write(bytes));
    }

    /// Appends a SUBACK that refuses every filter of a SUBSCRIBE.
    pub fn suback_refusing(out: &mut Vec<u8>, packet_id: u16, filters: usize, v5: bool) {
        if v5 {
            let return_codes = vec![v5::SubscribeReasonCode::Unspecified; filters];
            let packet = v5::SubAck { pkid: packet_id, return_codes, properties: None };
            return append(out, |bytes| packet.write(bytes));
        }
        let packet = v4::SubAck::new(packet_id, vec![v4::SubscribeReasonCode::Failure; filters]);
        append(out, |bytes| packet.write(bytes));
    }

    /// Appends an UNSUBACK for filters that nobody had subscribed to.
    pub fn unsuback(out: &mut Vec<u8>, packet_id: u16, filters: usize, v5: bool) {
        if v5 {
            let reasons = vec![v5::UnsubAckReason::NoSubscriptionExisted; filters];
            let packet = v5::UnsubAck { pkid: packet_id, reasons, properties: None };
            return append(out, |bytes| packet.write(bytes));
        }
        append(out, |bytes| v4::UnsubAck::new(packet_id).write(bytes));
    }
}
