//! Against another implementation's packets, and against bytes that nobody sends on purpose.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use rumqttc::v5::mqttbytes::QoS as TheirQoS;
use rumqttc::v5::mqttbytes::v5 as theirs;

use super::super::framer::{FrameLimits, Framer};
use super::super::packet::Connect;
use super::encode::{Taste, Terms};
use super::*;

const TASTE: Taste = Taste { packet_bytes_max: usize::MAX, reason_strings: true };

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
    let Ok(Packet::Connect(read)) = packet::parse(packet[0], body(&packet)) else { panic!("no CONNECT") };
    let wanted = Connect {
        level: 5,
        client_id: "pump",
        clean_session: true,
        keep_alive_s: 30,
        username: Some("acme/pump"),
        password: Some(b"secret"),
        wishes: Wishes { packet_bytes_max: 1000, reason_strings: false, authentication: true },
    };
    assert_eq!(read, wanted);
}

#[test]
fn a_publish_is_read_past_its_properties_and_may_have_none() {
    let mut publish = full_publish();
    for _ in 0..2 {
        let packet = written(|out| {
            publish.write(out).unwrap();
        });
        let Ok(Packet::Publish(read)) = parse(packet[0], body(&packet)) else { panic!("no PUBLISH") };
        assert_eq!((read.topic, read.payload, read.packet_id), (&b"a/b"[..], &b"payload"[..], 7));
        assert_eq!(read.payload_bytes, 7);
        publish.properties = None;
    }
}

fn publish_with(properties: &[u8]) -> Result<Packet<'static>, PacketError> {
    let mut body = vec![0, 1, b't', 0, 1, properties.len() as u8];
    body.extend_from_slice(properties);
    body.extend_from_slice(b"payload");
    parse(0x32, body.leak())
}

#[test]
fn properties_that_may_not_stand_there_are_refused_by_the_code_that_says_why() {
    let refused = |properties: &[u8]| {
        let error = publish_with(properties).unwrap_err();
        (error, disconnect_code(&error))
    };
    assert_eq!(refused(&[0x23, 0, 1]), (PacketError::TopicAlias, code::TOPIC_ALIAS_INVALID));
    assert_eq!(refused(&[1, 0, 1, 1]).1, code::PROTOCOL_ERROR);
    assert_eq!(refused(&[1, 2]).1, code::PROTOCOL_ERROR);
    assert_eq!(refused(&[0x0b, 1]).1, code::MALFORMED, "a subscription identifier of a client");
    assert_eq!(refused(&[0x7f]).1, code::MALFORMED);
    assert_eq!(refused(&[2, 0, 0]).1, code::MALFORMED, "cut off");
    assert_eq!(refused(&[0x26, 0, 1, b'a', 0, 1, 0]).1, code::MALFORMED, "U+0000");
    assert!(publish_with(&[0x26, 0, 0, 0, 0, 0x26, 0, 0, 0, 0]).is_ok(), "user properties repeat");
    let mut long = vec![0, 1, b't', 0, 1, 0x81, 0x40];
    long.resize(20_000, 0);
    assert_eq!(disconnect_code(&parse(0x32, &long).unwrap_err()), code::PACKET_TOO_LARGE);
}

#[test]
fn a_disconnect_may_say_why_and_an_unsubscribe_has_filters() {
    assert_eq!(parse(0xe0, &[]), Ok(Packet::Disconnect));
    assert_eq!(parse(0xe0, &[4]), Ok(Packet::Disconnect));
    assert_eq!(parse(0xe0, &[4, 5, 0x11, 0, 0, 0, 0]), Ok(Packet::Disconnect));
    assert!(parse(0xe0, &[4, 2, 0x11, 0]).is_err());
    assert_eq!(
        parse(0xa2, &[0, 1, 0, 0, 1, b'a', 0, 1, b'b']),
        Ok(Packet::Unsubscribe { packet_id: 1, filters: 2 })
    );
    assert_eq!(parse(0x82, &[0, 1, 0, 0, 1, b'a', 1]), Ok(Packet::Subscribe { packet_id: 1, filters: 1 }));
    assert!(parse(0x82, &[0, 1, 0]).is_err());
}

#[test]
fn what_we_write_is_what_a_common_client_library_reads() {
    let mut out = Vec::new();
    let terms =
        Terms { receive_maximum: 10_000, packet_bytes_max: 70_000, assigned_client_id: Some("given") };
    encode::connack(&mut out, &terms, TASTE);
    let theirs::Packet::ConnAck(connack) = read(&out) else { panic!("no CONNACK") };
    assert_eq!((connack.code, connack.session_present), (theirs::ConnectReturnCode::Success, false));
    let told = connack.properties.unwrap();
    assert_eq!((told.receive_max, told.max_packet_size, told.max_qos), (Some(10_000), Some(70_000), Some(1)));
    assert_eq!((told.session_expiry_interval, told.topic_alias_max), (Some(0), Some(0)));
    assert_eq!(told.assigned_client_identifier.as_deref(), Some("given"));
    let missing = [
        told.wildcard_subscription_available,
        told.subscription_identifiers_available,
        told.shared_subscription_available,
    ];
    assert_eq!(missing, [Some(0); 3]);

    out.clear();
    encode::connack_refusing(&mut out, code::BAD_USER_NAME_OR_PASSWORD, "no such", TASTE);
    let theirs::Packet::ConnAck(connack) = read(&out) else { panic!("no CONNACK") };
    assert_eq!(connack.code, theirs::ConnectReturnCode::BadUserNamePassword);
    assert_eq!(connack.properties.unwrap().reason_string.as_deref(), Some("no such"));

    let long = "x".repeat(300);
    for why in [None, Some("why"), Some(long.as_str())] {
        out.clear();
        encode::puback_refusing(&mut out, 0x1234, code::QUOTA_EXCEEDED, why, TASTE);
        let theirs::Packet::PubAck(ack) = read(&out) else { panic!("no PUBACK") };
        assert_eq!((ack.pkid, ack.reason), (0x1234, theirs::PubAckReason::QuotaExceeded));
        assert_eq!(ack.properties.and_then(|told| told.reason_string).as_deref(), why);
    }
    out.clear();
    encode::disconnect(&mut out, code::TAKEN_OVER, "another came", TASTE);
    let theirs::Packet::Disconnect(end) = read(&out) else { panic!("no DISCONNECT") };
    assert_eq!(end.reason_code, theirs::DisconnectReasonCode::SessionTakenOver);
    out.clear();
    encode::suback_refusing(&mut out, 9, 2);
    assert!(
        matches!(read(&out), theirs::Packet::SubAck(ack) if ack.pkid == 9 && ack.return_codes.len() == 2)
    );
    out.clear();
    encode::unsuback(&mut out, 9, 2);
    assert!(matches!(read(&out), theirs::Packet::UnsubAck(ack) if ack.pkid == 9 && ack.reasons.len() == 2));
}

#[test]
fn a_reason_string_leaves_only_where_it_is_wanted_and_fits() {
    for (packet_bytes_max, reason_strings) in [(12, true), (usize::MAX, false)] {
        let taste = Taste { packet_bytes_max, reason_strings };
        let mut out = Vec::new();
        encode::puback_refusing(&mut out, 1, code::QUOTA_EXCEEDED, Some("too many"), taste);
        assert!(out.len() <= 6, "{out:02x?}");
        let theirs::Packet::PubAck(ack) = read(&out) else { panic!("no PUBACK") };
        assert_eq!(ack.reason, theirs::PubAckReason::QuotaExceeded);
    }
}

#[test]
fn every_refusal_has_a_code_that_a_puback_may_carry() {
    // Section 3.4.2.1, those of 0x80 and more.
    let allowed = [0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
    for &reason in Reason::ALL {
        assert!(allowed.contains(&puback_code(reason)), "{reason}");
    }
}

const LIMITS: FrameLimits = FrameLimits { payload_bytes_max: 2000, payload_bytes_skipped_max: 20_000 };

/// Feeds `bytes` in pieces; gives payloads with their sizes, until the bytes end or are refused.
fn feed(bytes: &[u8], pieces: &[usize]) -> Result<Vec<(Vec<u8>, usize)>, PacketError> {
    let mut framer = Framer::new(LIMITS);
    framer.speak_5();
    let (mut rest, mut seen) = (bytes, Vec::new());
    for &piece in pieces.iter().cycle() {
        while let Some(packet) = framer.next_packet()? {
            if let Packet::Publish(publish) = packet {
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
        framer.room(now.len()).extend_from_slice(now);
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
        let _ = packet::parse(0x10, &[&[0, 4, b'M', b'Q', b'T', b'T', 5][..], &body].concat());
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
