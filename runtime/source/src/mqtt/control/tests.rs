//! Against another implementation's packets, and against bytes that nobody sends on purpose.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use rumqttc::mqttbytes::v4;
use rumqttc::v5::mqttbytes::QoS as TheirQoS;
use rumqttc::v5::mqttbytes::v5 as theirs;

use crate::limits;
use crate::mqtt::control::{ConnectRequest, Frame, check_first_byte, encode, parse};
use crate::mqtt::error::PacketError;
use crate::mqtt::framing::{FrameLimits, Framer};
use crate::mqtt::publish::{Peer, PeerLimits, puback, puback_refusing};
use crate::mqtt::reader::variable;
use crate::mqtt::reason_codes::{code, disconnect_code};

const UNLIMITED: PeerLimits = PeerLimits { packet_bytes_max: usize::MAX, reason_strings: true };

fn written(write: impl FnOnce(&mut BytesMut)) -> Vec<u8> {
    let mut out = BytesMut::new();
    write(&mut out);
    out.to_vec()
}

/// The body of a packet whose length takes one or two bytes.
fn body(packet: &[u8]) -> &[u8] {
    let (_, length) = variable(&packet[1..]).unwrap().unwrap();
    &packet[1 + length..]
}

fn read(packet: &[u8]) -> theirs::Packet {
    theirs::Packet::read(&mut BytesMut::from(packet), None).unwrap()
}

fn full_publish() -> theirs::Publish {
    let mut publish = theirs::Publish::new("a/b", TheirQoS::AtLeastOnce, "payload", None);
    publish.pkid = 7;
    publish.properties = Some(theirs::PublishProperties {
        payload_format_indicator: Some(1),
        message_expiry_interval: Some(60),
        topic_alias: None,
        response_topic: Some("c".into()),
        correlation_data: Some(Bytes::from_static(b"\0\xff")),
        user_properties: vec![("a".into(), "1".into()), ("a".into(), "2".into())],
        subscription_identifiers: vec![],
        content_type: Some("text/plain".into()),
    });
    publish
}

#[test]
fn a_connect_with_every_property_is_read() {
    let connect = theirs::Connect {
        keep_alive: 30,
        client_id: "pump".into(),
        clean_start: true,
        properties: Some(theirs::ConnectProperties {
            session_expiry_interval: Some(100),
            receive_maximum: Some(20),
            max_packet_size: Some(1000),
            topic_alias_max: Some(5),
            request_response_info: Some(1),
            request_problem_info: Some(0),
            user_properties: vec![("site".into(), "weir".into())],
            authentication_method: Some("SCRAM".into()),
            authentication_data: Some(Bytes::from_static(b"x")),
        }),
    };
    let mut will = theirs::LastWill::new("will", "bye", TheirQoS::AtMostOnce, false, None);
    will.properties = Some(theirs::LastWillProperties {
        delay_interval: Some(1),
        payload_format_indicator: Some(1),
        message_expiry_interval: Some(1),
        content_type: Some("t".into()),
        response_topic: Some("r".into()),
        correlation_data: Some(Bytes::from_static(b"c")),
        user_properties: vec![("a".into(), "b".into())],
    });
    let login = Some(theirs::Login { username: "acme/pump".into(), password: "secret".into() });
    let packet = written(|out| {
        connect.write(&Some(will), &login, out).unwrap();
    });
    let Ok(Frame::Connect(read)) = parse(packet[0], body(&packet), Peer::V4) else { panic!("no CONNECT") };
    let wanted = ConnectRequest {
        level: 5,
        client_id: "pump".into(),
        clean_session: true,
        keep_alive_s: 30,
        username: Some("acme/pump".into()),
        password: Some((*b"secret").into()),
        packet_bytes_max: 1000,
        reason_strings: false,
        authentication: true,
        will_qos: 0,
    };
    assert_eq!(*read, wanted);
}

#[test]
fn a_publish_is_read_past_its_properties_and_may_have_none() {
    let mut publish = full_publish();
    for _ in 0..2 {
        let packet = written(|out| {
            publish.write(out).unwrap();
        });
        for peer in [Peer::ClientV5, Peer::BrokerV5] {
            let Ok(Frame::Publish(read)) = parse(packet[0], body(&packet), peer) else {
                panic!("no PUBLISH")
            };
            assert_eq!((read.topic, read.payload, read.packet_id), (&b"a/b"[..], &b"payload"[..], 7));
            assert_eq!(read.payload_bytes, 7);
        }
        publish.properties = None;
    }
}

fn publish_with(properties: &[u8], peer: Peer) -> Result<Frame<'static>, PacketError> {
    let mut body = vec![0, 1, b't', 0, 1, properties.len() as u8];
    body.extend_from_slice(properties);
    body.extend_from_slice(b"payload");
    parse(0x32, body.leak(), peer)
}

#[test]
fn properties_that_may_not_stand_there_are_refused_by_the_code_that_says_why() {
    let refused = |properties: &[u8]| {
        let error = publish_with(properties, Peer::ClientV5).unwrap_err();
        (error, disconnect_code(&error))
    };
    assert_eq!(
        refused(&[0x23, 0, 1]),
        (PacketError::TopicAlias, theirs::DisconnectReasonCode::TopicAliasInvalid)
    );
    assert_eq!(refused(&[1, 0, 1, 1]).1, theirs::DisconnectReasonCode::ProtocolError);
    assert_eq!(refused(&[1, 2]).1, theirs::DisconnectReasonCode::ProtocolError);
    assert_eq!(
        refused(&[0x0b, 1]).1,
        theirs::DisconnectReasonCode::MalformedPacket,
        "a subscription identifier of a client"
    );
    assert_eq!(refused(&[0x7f]).1, theirs::DisconnectReasonCode::MalformedPacket);
    assert_eq!(refused(&[2, 0, 0]).1, theirs::DisconnectReasonCode::MalformedPacket, "cut off");
    assert_eq!(
        refused(&[0x26, 0, 1, b'a', 0, 1, 0]).1,
        theirs::DisconnectReasonCode::MalformedPacket,
        "U+0000"
    );
    assert!(
        publish_with(&[0x26, 0, 0, 0, 0, 0x26, 0, 0, 0, 0], Peer::ClientV5).is_ok(),
        "user properties repeat"
    );
    let mut long = vec![0, 1, b't', 0, 1, 0x81, 0x40];
    long.resize(20_000, 0);
    assert_eq!(
        disconnect_code(&parse(0x32, &long, Peer::ClientV5).unwrap_err()),
        theirs::DisconnectReasonCode::PacketTooLarge
    );
}

#[test]
fn a_disconnect_may_say_why_and_an_unsubscribe_has_filters() {
    let parse = |first, body| parse(first, body, Peer::ClientV5);
    use theirs::DisconnectReasonCode::*;
    for (body, code) in [
        (&[][..], NormalDisconnection),
        (&[4], DisconnectWithWillMessage),
        (&[0x8e], SessionTakenOver),
        (&[0x8e, 0], SessionTakenOver),
        (&[4, 5, 0x11, 0, 0, 0, 0], DisconnectWithWillMessage),
        (&[0x8b, 6, 0x1f, 0, 3, b'b', b'y', b'e'], ServerShuttingDown),
    ] {
        let Ok(Frame::Disconnect(end)) = parse(0xe0, body) else { panic!("no DISCONNECT: {body:02x?}") };
        assert_eq!(end.reason_code, code);
        let why = end.properties.and_then(|properties| properties.reason_string);
        assert_eq!(why.is_some(), code == ServerShuttingDown);
    }
    assert!(parse(0xe0, &[4, 2, 0x11, 0]).is_err());
    assert_eq!(parse(0xe0, &[0x44]), Err(PacketError::UnknownCode { packet: "DISCONNECT", code: 0x44 }));
    assert_eq!(
        parse(0xa2, &[0, 1, 0, 0, 1, b'a', 0, 1, b'b']),
        Ok(Frame::Unsubscribe { packet_id: 1, filters: 2 })
    );
    assert_eq!(parse(0x82, &[0, 1, 0, 0, 1, b'a', 1]), Ok(Frame::Subscribe { packet_id: 1, filters: 1 }));
    assert!(parse(0x82, &[0, 1, 0]).is_err());
}

#[test]
fn what_we_write_is_what_a_common_client_library_reads() {
    let mut out = Vec::new();
    let terms = theirs::ConnAckProperties {
        session_expiry_interval: Some(0),
        receive_max: Some(10_000),
        reason_string: Some("why".into()),
        ..encode::connack_properties()
    };
    encode::connack_v5(&mut out, theirs::ConnectReturnCode::Success, terms, UNLIMITED);
    let theirs::Packet::ConnAck(connack) = read(&out) else { panic!("no CONNACK") };
    assert_eq!((connack.code, connack.session_present), (theirs::ConnectReturnCode::Success, false));
    let told = connack.properties.unwrap();
    assert_eq!((told.receive_max, told.session_expiry_interval), (Some(10_000), Some(0)));
    assert_eq!(told.reason_string.as_deref(), Some("why"));

    let long = "x".repeat(300);
    for why in [None, Some("why"), Some(long.as_str())] {
        out.clear();
        puback_refusing(&mut out, 0x1234, code::QUOTA_EXCEEDED, why, UNLIMITED);
        let theirs::Packet::PubAck(ack) = read(&out) else { panic!("no PUBACK") };
        assert_eq!((ack.pkid, ack.reason), (0x1234, theirs::PubAckReason::QuotaExceeded));
        assert_eq!(ack.properties.and_then(|told| told.reason_string).as_deref(), why);
    }
    out.clear();
    encode::disconnect(&mut out, theirs::DisconnectReasonCode::SessionTakenOver, "another came", UNLIMITED);
    let theirs::Packet::Disconnect(end) = read(&out) else { panic!("no DISCONNECT") };
    assert_eq!(end.reason_code, theirs::DisconnectReasonCode::SessionTakenOver);
    out.clear();
    encode::suback_refusing(&mut out, 9, 2, true);
    assert!(
        matches!(read(&out), theirs::Packet::SubAck(ack) if ack.pkid == 9 && ack.return_codes.len() == 2)
    );
    out.clear();
    encode::unsuback(&mut out, 9, 2, true);
    assert!(matches!(read(&out), theirs::Packet::UnsubAck(ack) if ack.pkid == 9 && ack.reasons.len() == 2));
}

#[test]
fn a_reason_string_leaves_only_where_it_is_wanted_and_fits() {
    for (packet_bytes_max, reason_strings) in [(12, true), (usize::MAX, false)] {
        let limits = PeerLimits { packet_bytes_max, reason_strings };
        let mut out = Vec::new();
        puback_refusing(&mut out, 1, code::QUOTA_EXCEEDED, Some("too many"), limits);
        assert!(out.len() <= 6, "{out:02x?}");
        let theirs::Packet::PubAck(ack) = read(&out) else { panic!("no PUBACK") };
        assert_eq!(ack.reason, theirs::PubAckReason::QuotaExceeded);
        out.clear();
        encode::disconnect(&mut out, theirs::DisconnectReasonCode::QuotaExceeded, "too many", limits);
        assert!(out.len() <= 4, "{out:02x?}");
        out.clear();
        let why = Some("too many words".into());
        let properties = theirs::ConnAckProperties { reason_string: why, ..encode::connack_properties() };
        encode::connack_v5(&mut out, theirs::ConnectReturnCode::ServerBusy, properties, limits);
        assert!(out.len() <= 5, "{out:02x?}");
    }
}

fn connect_body(name: &[u8], level: u8, flags: u8, rest: &[&[u8]]) -> Vec<u8> {
    let mut body = Vec::new();
    let bytes = |body: &mut Vec<u8>, text: &[u8]| {
        body.extend_from_slice(&(text.len() as u16).to_be_bytes());
        body.extend_from_slice(text);
    };
    bytes(&mut body, name);
    body.extend_from_slice(&[level, flags, 0, 30]);
    if level == 5 {
        body.push(0);
    }
    for text in rest {
        bytes(&mut body, text);
    }
    body
}

fn connect(body: &[u8]) -> Result<ConnectRequest, PacketError> {
    match parse(0x10, body, Peer::V4)? {
        Frame::Connect(connect) => Ok(*connect),
        other => panic!("no CONNECT but {other:?}"),
    }
}

#[test]
fn a_connect_is_read_past_its_will() {
    let body = connect_body(b"MQTT", 4, 0b1100_0110, &[b"pump", b"will/topic", b"\0bye", b"user", b"pass"]);
    let wanted = ConnectRequest {
        client_id: "pump".into(),
        keep_alive_s: 30,
        username: Some("user".into()),
        password: Some((*b"pass").into()),
        ..ConnectRequest::with_level(4)
    };
    assert_eq!(connect(&body).unwrap(), wanted);
}

#[test]
fn a_password_may_be_binary_or_empty_and_is_told_from_a_missing_one() {
    for level in [4, 5] {
        let password = |flags, rest: &[&[u8]]| {
            let read = connect(&connect_body(b"MQTT", level, flags, rest)).unwrap();
            (read.username, read.password.map(Vec::from))
        };
        let user = Some("u".to_owned());
        assert_eq!(password(0b1100_0010, &[b"id", b"u", b"\xff\0"]), (user.clone(), Some(vec![0xff, 0])));
        assert_eq!(password(0b1100_0010, &[b"id", b"u", b""]), (user.clone(), Some(vec![])));
        assert_eq!(password(0b1000_0010, &[b"id", b"u"]), (user, None));
        assert_eq!(password(0b1000_0010, &[b"id", b""]), (Some(String::new()), None));
        assert_eq!(password(0b0000_0010, &[b"id"]), (None, None));
    }
}

#[test]
fn a_connect_that_contradicts_itself_is_malformed() {
    let fault = |flags, rest: &[&[u8]]| connect(&connect_body(b"MQTT", 4, flags, rest)).unwrap_err();
    assert_eq!(fault(1, &[b"id"]), PacketError::ImpossibleFlags("CONNECT"));
    assert_eq!(fault(0b0100_0000, &[b"id", b"p"]), PacketError::ImpossibleFlags("CONNECT"));
    assert_eq!(fault(0b0001_1100, &[b"id", b"t", b"m"]), PacketError::ImpossibleFlags("CONNECT"));
    assert_eq!(fault(0b0000_1000, &[b"id"]), PacketError::ImpossibleFlags("CONNECT"));
    assert_eq!(fault(0, &[b"i\0d"]), PacketError::NotText("client id"));
    assert_eq!(fault(0, &[b"id", b"more"]), PacketError::WrongLength("CONNECT"));
    assert_eq!(fault(0b1000_0000, &[b"id"]), PacketError::WrongLength("CONNECT"));
    assert_eq!(fault(0b1000_0000, &[b"id", b"u\0"]), PacketError::NotText("username"));
    assert_eq!(fault(0b0000_0100, &[b"id", b"t\0", b"m"]), PacketError::NotText("will topic"));
}

/// rumqttc reads a CONNECT of level 5 as one of level 4, and none of level 3: it needs the version.
#[test]
fn another_protocol_level_is_told_apart_from_another_protocol() {
    for (name, number) in [(&b"MQTT"[..], 6), (b"MQTT", 3), (b"MQIsdp", 3), (b"MQIsdp", 4), (b"MQIsdp", 5)] {
        let read = connect(&connect_body(name, number, 0, &[b"id"])).unwrap();
        assert!(!matches!(read.level, 4 | 5), "{name:?} {number}");
    }
    assert_eq!(connect(&connect_body(b"HTTP", 4, 0, &[b"id"])), Err(PacketError::NotMqtt));
    // Level 5 has a layout of its own, whatever was spoken before.
    let five = [&[0, 4][..], b"MQTT", &[5, 2, 0, 30, 5, 0x27, 0, 0, 1, 0, 0, 1, b'd']].concat();
    assert_eq!(connect(&five).unwrap().packet_bytes_max, 256);
}

#[test]
fn properties_of_a_control_packet_neither_repeat_nor_reach_beyond_their_length() {
    let five = |properties: &[u8]| {
        let length = properties.len() as u8;
        connect(&[&[0, 4][..], b"MQTT", &[5, 2, 0, 30, length], properties, &[0, 1, b'd']].concat())
    };
    assert_eq!(five(&[0x21, 0, 9, 0x27, 0, 0, 1, 0]).unwrap().packet_bytes_max, 256);
    let twice = PacketError::PropertyTwice { id: 0x21, packet: "CONNECT" };
    assert_eq!(five(&[0x21, 0, 9, 0x21, 0, 9]), Err(twice));
    assert_eq!(five(&[0x21, 0, 0]), Err(PacketError::PropertyValue { id: 0x21 }));
    assert_eq!(five(&[0x16, 0, 1, b'x']), Err(PacketError::PropertyValue { id: 0x16 }), "data of no method");
    assert_eq!(five(&[0x23, 0, 1]), Err(PacketError::Property { id: 0x23, packet: "CONNECT" }));
    assert_eq!(five(&[0x15, 0, 2, b'a', 0]), Err(PacketError::NotText("property")));
    // A length of two, and a property of five that ends where the client id would begin.
    let beyond = [&[0, 4][..], b"MQTT", &[5, 2, 0, 30, 2, 0x27, 0, 0, 1, 0, 0, 1, b'd']].concat();
    assert_eq!(connect(&beyond), Err(PacketError::WrongLength("CONNECT")));
    // The same in an answer of a broker.
    let connack = |body| parse(0x20, body, Peer::BrokerV5);
    assert!(connack(&[0, 0, 3, 0x21, 0, 9]).is_ok());
    assert_eq!(connack(&[0, 0, 1, 0x21, 0, 9]), Err(PacketError::WrongLength("CONNACK")));
    assert!(connack(&[0, 0, 6, 0x21, 0, 9, 0x21, 0, 9]).is_err());
    assert_eq!(connack(&[2, 0, 0]), Err(PacketError::ImpossibleFlags("CONNACK")));
}

#[test]
fn what_reaches_beyond_or_stays_within_a_whole_packet_is_malformed() {
    // rumqttc asks for more bytes of most of them, or does not see the rest.
    for (peer, first, body) in [
        (Peer::BrokerV5, 0x20, &[0][..]),
        (Peer::BrokerV5, 0x20, &[0, 0, 9]),
        (Peer::BrokerV5, 0x20, &[0, 0, 0, 0]),
        (Peer::BrokerV5, 0x90, &[0, 1]),
        (Peer::BrokerV5, 0x90, &[0, 1, 0]),
        (Peer::BrokerV5, 0xb0, &[0, 1]),
        (Peer::BrokerV5, 0xb0, &[0, 1, 0]),
        (Peer::BrokerV5, 0xe0, &[0, 0, 0]),
        (Peer::BrokerV5, 0xe0, &[0, 0x80]),
        (Peer::BrokerV5, 0xd0, &[0]),
        (Peer::ClientV5, 0xc0, &[0]),
        (Peer::ClientV5, 0x40, &[0, 1, 0, 0, 0]),
        (Peer::ClientV5, 0x82, &[0, 1, 0, 0, 9, b'a', 1]),
        (Peer::ClientV5, 0xa2, &[0, 1, 0]),
        (Peer::V4, 0x20, &[0]),
        (Peer::V4, 0x20, &[0, 0, 0]),
        (Peer::V4, 0x40, &[0, 1, 0]),
        (Peer::V4, 0x82, &[0, 1, 0, 1, b'a']),
        (Peer::V4, 0x90, &[0, 1]),
        (Peer::V4, 0xa2, &[0]),
        (Peer::V4, 0xa2, &[0, 1]),
        (Peer::V4, 0xb0, &[0, 1, 0]),
        (Peer::V4, 0xe0, &[0]),
    ] {
        assert!(parse(first, body, peer).is_err(), "{peer:?} {first:#x} {body:02x?}");
    }
}

#[test]
fn text_with_nul_and_reserved_options_are_malformed_in_both_versions() {
    assert_eq!(parse(0x82, &[0, 1, 0, 1, 0, 1], Peer::V4), Err(PacketError::NotText("filter")));
    assert_eq!(parse(0xa2, &[0, 1, 0, 1, 0], Peer::V4), Err(PacketError::NotText("filter")));
    assert_eq!(parse(0x82, &[0, 1, 0, 0, 1, 0, 1], Peer::ClientV5), Err(PacketError::NotText("filter")));
    let reserved = Err(PacketError::ImpossibleFlags("SUBSCRIBE"));
    assert_eq!(parse(0x82, &[0, 1, 0, 1, b'a', 4], Peer::V4), reserved);
    assert_eq!(parse(0x82, &[0, 1, 0, 0, 1, b'a', 0x41], Peer::ClientV5), reserved);
    assert!(parse(0x82, &[0, 1, 0, 0, 1, b'a', 3], Peer::ClientV5).is_err(), "QoS 3");
    assert_eq!(parse(0x82, &[0, 0, 0, 1, b'a', 1], Peer::V4), Err(PacketError::PacketIdZero));
}

#[test]
fn reserved_types_and_flags_are_refused() {
    // 0xf0 is AUTH, which nobody here asks for.
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
    assert_eq!(parse(0x32, &[0, 1, b'a', 0, 0], Peer::V4), Err(PacketError::PacketIdZero));
    let Ok(Frame::Publish(publish)) = parse(0x30, &[0, 1, b'a', 0, 0], Peer::V4) else {
        panic!("no PUBLISH")
    };
    assert_eq!((publish.payload, publish.packet_id), (&[0, 0][..], 0));
}

/// Whatever a stranger's PUBLISH carries, a broker's session goes on.
#[test]
fn properties_of_a_brokers_publish_are_skipped_whatever_they_are() {
    for properties in [
        &[0x0b, 0x81, 0x01, 0x0b, 1][..],
        &[0x23, 0, 1],
        &[1, 7, 1, 7],
        &[0x26, 0, 1, 0, 0, 1, 0xff],
        &[0x7f, 0x7f],
    ] {
        let Ok(Frame::Publish(publish)) = publish_with(properties, Peer::BrokerV5) else {
            panic!("{properties:02x?}")
        };
        assert_eq!(publish.payload, b"payload");
    }
    let beyond = parse(0x32, &[0, 1, b't', 0, 1, 9, 0], Peer::BrokerV5);
    assert_eq!(beyond, Err(PacketError::WrongLength("PUBLISH")));
}

#[test]
fn answers_of_a_broker_are_read_in_both_versions() {
    let connack = |body, peer| match parse(0x20, body, peer) {
        Ok(Frame::ConnAck(connack)) => (connack.session_present, connack.code),
        other => panic!("no CONNACK but {other:?}"),
    };
    use theirs::ConnectReturnCode as Code;
    assert_eq!(connack(&[1, 0], Peer::V4), (true, Code::Success));
    assert_eq!(connack(&[0, 5], Peer::V4), (false, Code::NotAuthorized));
    assert_eq!(connack(&[1, 0, 0], Peer::BrokerV5), (true, Code::Success));
    assert_eq!(connack(&[0, 0x84, 0], Peer::BrokerV5), (false, Code::UnsupportedProtocolVersion));
    // A broker of MQTT 3.1.1 alone, also one that has not looked at the level.
    for body in [&[0, 0], &[0, 1]] {
        assert_eq!(connack(body, Peer::BrokerV5), (false, Code::RefusedProtocolVersion));
    }
    let unknown = PacketError::UnknownCode { packet: "CONNACK", code: 9 };
    assert_eq!(parse(0x20, &[0, 9], Peer::V4), Err(unknown));

    let suback = |body, peer| match parse(0x90, body, peer) {
        Ok(Frame::SubAck(suback)) => suback.return_codes,
        other => panic!("no SUBACK but {other:?}"),
    };
    use theirs::SubscribeReasonCode::*;
    assert_eq!(suback(&[0, 1, 1, 0x80, 0x87], Peer::V4), [Success(TheirQoS::AtLeastOnce), Failure, Failure]);
    assert_eq!(
        suback(&[0, 1, 0, 0, 0x9e], Peer::BrokerV5),
        [Success(TheirQoS::AtMostOnce), SharedSubscriptionsNotSupported]
    );
    let Ok(Frame::UnsubAck(unsuback)) = parse(0xb0, &[0, 1, 0, 0x11], Peer::BrokerV5) else {
        panic!("no UNSUBACK")
    };
    assert_eq!(unsuback.reasons, [theirs::UnsubAckReason::NoSubscriptionExisted]);
    let Ok(Frame::UnsubAck(unsuback)) = parse(0xb0, &[0, 1], Peer::V4) else { panic!("no UNSUBACK") };
    assert_eq!((unsuback.pkid, unsuback.reasons.len()), (1, 0));
}

#[test]
fn what_we_write_in_version_3_1_1_is_what_was_written_before_by_hand() {
    let mut out = Vec::new();
    let login = encode::Connect {
        client_id: "tidegate",
        keep_alive_s: 30,
        username: Some("u"),
        password: Some("p"),
        will: None,
    };
    encode::connect(&mut out, &login);
    let wanted =
        [&[0x10, 26, 0, 4][..], b"MQTT", &[4, 0xc0, 0, 30, 0, 8], b"tidegate", &[0, 1, b'u', 0, 1, b'p']];
    assert_eq!(out, wanted.concat());
    out.clear();
    encode::connect(&mut out, &encode::Connect { username: None, ..login });
    let wanted = [&[0x10, 20, 0, 4][..], b"MQTT", &[4, 0, 0, 30, 0, 8], b"tidegate"];
    assert_eq!(out, wanted.concat(), "a password without a user name");
    let long = format!("tenant/{}/#", "x".repeat(200));
    out.clear();
    encode::subscribe(&mut out, 7, [(&*long, 1)], false);
    assert_eq!(out, [&[0x82, 0xd6, 1, 0, 7, 0, 209][..], long.as_bytes(), &[1]].concat());
    out.clear();
    encode::unsubscribe(&mut out, 8, "a/#", false);
    assert_eq!(out, [0xa2, 7, 0, 8, 0, 3, b'a', b'/', b'#']);
    out.clear();
    encode::publish(&mut out, "t", b"x", false);
    assert_eq!(out, [0x30, 4, 0, 1, b't', b'x']);
    out.clear();
    puback(&mut out, 0x1234);
    assert_eq!(out, [0x40, 2, 0x12, 0x34]);
    out.clear();
    encode::suback_refusing(&mut out, 9, 2, false);
    assert_eq!(out, [0x90, 4, 0, 9, 0x80, 0x80]);
    out.clear();
    encode::unsuback(&mut out, 9, 2, false);
    assert_eq!(out, [0xb0, 2, 0, 9]);
    out.clear();
    encode::connack(&mut out, v4::ConnectReturnCode::BadClientId);
    assert_eq!(out, [0x20, 2, 0, 2]);
}

#[test]
fn what_we_write_in_version_5_has_its_properties() {
    let mut out = Vec::new();
    let login =
        encode::Connect { client_id: "t", keep_alive_s: 30, username: None, password: None, will: None };
    let properties = theirs::ConnectProperties {
        session_expiry_interval: Some(u32::MAX),
        ..theirs::ConnectProperties::new()
    };
    encode::connect_v5(&mut out, &login, properties);
    let wanted = [&[0x10, 19, 0, 4][..], b"MQTT", &[5, 0, 0, 30, 5, 0x11, 255, 255, 255, 255, 0, 1, b't']];
    assert_eq!(out, wanted.concat());
    out.clear();
    encode::subscribe(&mut out, 7, [("a", 1), ("b", 0)], true);
    assert_eq!(out, [0x82, 11, 0, 7, 0, 0, 1, b'a', 1, 0, 1, b'b', 0]);
    out.clear();
    encode::unsubscribe(&mut out, 8, "a", true);
    assert_eq!(out, [0xa2, 6, 0, 8, 0, 0, 1, b'a']);
    out.clear();
    encode::publish(&mut out, "t", b"x", true);
    assert_eq!(out, [0x30, 5, 0, 1, b't', 0, b'x']);
}

const LIMITS: FrameLimits = FrameLimits { payload_bytes_max: 2000, payload_bytes_skipped_max: 20_000 };

/// Feeds `bytes` in pieces; gives payloads with their sizes, until the bytes end or are refused.
fn feed(bytes: &[u8], pieces: &[usize]) -> Result<Vec<(Vec<u8>, usize)>, PacketError> {
    let mut framer = Framer::new(LIMITS);
    framer.set_v5();
    let (mut rest, mut seen) = (bytes, Vec::new());
    for &piece in pieces.iter().cycle() {
        while let Some(packet) = framer.next_frame()? {
            if let Frame::Publish(publish) = packet {
                seen.push((publish.payload.to_vec(), publish.payload_bytes));
            }
        }
        let most = 5 + 4 + 65_536 + 4 + limits::PROPERTIES_BYTES_MAX + 2000;
        assert!(framer.needed() <= most, "needs {}", framer.needed());
        assert!(framer.capacity() <= 5000 + most, "holds {}", framer.capacity());
        if rest.is_empty() {
            break;
        }
        let (now, later) = rest.split_at(piece.clamp(1, rest.len()));
        framer.read_buffer(now.len()).extend_from_slice(now);
        rest = later;
    }
    Ok(seen)
}

proptest! {
    /// Rubbish is refused or waited for, in bounded memory.
    #[test]
    fn no_bytes_break_the_framer(
        bytes in proptest::collection::vec(any::<u8>(), 0..4000),
        pieces in proptest::collection::vec(1usize..600, 1..8),
    ) {
        let _ = feed(&bytes, &pieces);
    }

    /// Almost-packets: a plausible header, and a body of bytes that properties are made of.
    #[test]
    fn no_body_breaks_the_parser(
        first in any::<u8>(),
        body in proptest::collection::vec(prop_oneof![any::<u8>(), 0u8..0x30, Just(0), Just(0x26)], 0..200),
    ) {
        let mut bytes = vec![first, 0x80 | (body.len() & 0x7f) as u8, (body.len() >> 7) as u8];
        bytes.extend(&body);
        let _ = feed(&bytes, &[64]);
        let _ = parse(0x10, &[&[0, 4, b'M', b'Q', b'T', b'T', 5][..], &body].concat(), Peer::V4);
        for peer in [Peer::V4, Peer::ClientV5, Peer::BrokerV5] {
            if check_first_byte(first).is_ok() {
                let _ = parse(first, &body, peer);
            }
        }
    }

    /// However the bytes are cut and whatever the properties, payloads are the same.
    #[test]
    fn payloads_do_not_depend_on_how_their_bytes_arrive(
        messages in proptest::collection::vec(("[a-z/]{1,40}", 0usize..6000, 0usize..20), 1..12),
        pieces in proptest::collection::vec(1usize..5000, 1..10),
    ) {
        let mut bytes = BytesMut::new();
        for (topic, length, pairs) in &messages {
            let mut publish = theirs::Publish::new(topic.as_str(), TheirQoS::AtLeastOnce, vec![1; *length], None);
            publish.pkid = 1;
            publish.properties = (*pairs > 0).then(|| theirs::PublishProperties {
                user_properties: vec![("key".into(), "v".repeat(*pairs)); *pairs],
                ..Default::default()
            });
            publish.write(&mut bytes).unwrap();
        }
        let seen = feed(&bytes, &pieces).unwrap();
        prop_assert_eq!(seen.len(), messages.len());
        for ((payload, size), (_, length, _)) in seen.iter().zip(&messages) {
            let kept = if *length > 2000 { (*length).min(limits::OVERSIZE_PAYLOAD_KEPT_BYTES) } else { *length };
            prop_assert_eq!((payload.len(), *size), (kept, *length));
        }
    }
}

/// Properties of any length may come with a message from a stranger: they neither end the session nor lie
/// in memory, and the payload is as without them.
#[test]
fn long_properties_of_a_brokers_publish_are_thrown_away_as_they_come() {
    let mut bytes = BytesMut::new();
    let mut publish = |properties: usize, payload: usize| {
        let mut publish =
            theirs::Publish::new("a/b", TheirQoS::AtLeastOnce, vec![payload as u8; payload], None);
        publish.pkid = 7;
        publish.properties = Some(theirs::PublishProperties {
            user_properties: vec![("key".into(), "v".repeat(50_000)); properties],
            ..Default::default()
        });
        publish.write(&mut bytes).unwrap();
    };
    // Whole, cut, empty, and one without long properties.
    for (properties, payload) in [(20, 1500), (20, 19_000), (20, 0), (0, 5)] {
        publish(properties, payload);
    }
    for piece in [1, 700, 64 << 10] {
        let frames = FrameLimits { payload_bytes_skipped_max: limits::MQTT_PACKET_BYTES_MAX, ..LIMITS };
        let mut framer = Framer::for_peer(frames, Peer::BrokerV5);
        let mut seen = Vec::new();
        for piece in bytes.chunks(piece) {
            framer.read_buffer(piece.len()).extend_from_slice(piece);
            while let Some(Frame::Publish(publish)) = framer.next_frame().unwrap() {
                assert_eq!((publish.topic, publish.packet_id), (&b"a/b"[..], 7));
                assert!(publish.payload.iter().all(|&byte| byte == publish.payload_bytes as u8));
                seen.push((publish.payload.len(), publish.payload_bytes));
            }
            assert!(framer.capacity() <= 256 << 10, "holds {}", framer.capacity());
        }
        assert_eq!(seen, [(1500, 1500), (1024, 19_000), (0, 0), (5, 5)]);
        assert!(!framer.has_partial_frame());
    }
}

#[test]
fn a_will_and_a_retained_publish_are_at_qos_1_in_both_versions() {
    let mut out = Vec::new();
    let will = Some(encode::Will { topic: "s".into(), payload: b"off".to_vec() });
    let login = encode::Connect { client_id: "t", keep_alive_s: 30, username: None, password: None, will };
    encode::connect(&mut out, &login);
    // The flags of the CONNECT: will (4), its QoS 1 (8), retained (32).
    let behind = [0, 1, b't', 0, 1, b's', 0, 3, b'o', b'f', b'f'];
    assert_eq!(out, [&[0x10, 21, 0, 4][..], b"MQTT", &[4, 0x2c, 0, 30], &behind].concat());
    out.clear();
    encode::connect_v5(&mut out, &login, theirs::ConnectProperties::new());
    let behind = [0, 0, 1, b't', 0, 0, 1, b's', 0, 3, b'o', b'f', b'f'];
    assert_eq!(out, [&[0x10, 23, 0, 4][..], b"MQTT", &[5, 0x2c, 0, 30], &behind].concat());
    let publish = encode::RetainedPublish { packet_id: 9, topic: "s", payload: b"on" };
    out.clear();
    encode::publish_retained(&mut out, &publish, false);
    assert_eq!(out, [0x33, 7, 0, 1, b's', 0, 9, b'o', b'n']);
    out.clear();
    encode::publish_retained(&mut out, &publish, true);
    assert_eq!(out, [0x33, 8, 0, 1, b's', 0, 9, 0, b'o', b'n']);
}
