//! A stream of MQTT packets, of a device or of a broker, in MQTT 3.1.1 or 5.
//!
//! However the stream is cut into reads, it is the same frames and the same end. What lies in memory is
//! bounded by the limits, and where the reader asks for it by what came.

use tidegate_source::mqtt::control::{Frame, encode};
use tidegate_source::mqtt::error::PacketError;
use tidegate_source::mqtt::framing::{FrameLimits, Framer};
use tidegate_source::mqtt::publish::{Peer, PeerLimits, puback, puback_refusing};

use crate::choices::Choices;
use crate::memory::peak_bytes_of;

/// Small, so that short streams reach them.
const LIMITS: FrameLimits = FrameLimits { payload_bytes_max: 100, payload_bytes_skipped_max: 1000 };

/// Bytes of memory beside those that came: a boxed frame, and the text of an assertion.
const OVERHEAD_BYTES: usize = 16 * 1024;

/// Bytes of memory for each byte that came: rumqttc makes a structure of each filter and property, and
/// the owned frames here are another.
const BYTES_A_BYTE: usize = 256;

/// A frame when its borrow has ended.
#[derive(Debug, PartialEq, Eq)]
enum OwnedFrame {
    Publish {
        topic: Vec<u8>,
        payload: Vec<u8>,
        payload_bytes: usize,
        packet_id: u16,
        flags: (u8, bool, bool),
    },
    Other(String),
}

fn owned(frame: &Frame<'_>) -> OwnedFrame {
    match frame {
        Frame::Publish(publish) => OwnedFrame::Publish {
            topic: publish.topic.to_vec(),
            payload: publish.payload.to_vec(),
            payload_bytes: publish.payload_bytes,
            packet_id: publish.packet_id,
            flags: (publish.qos as u8, publish.dup, publish.retain),
        },
        other => OwnedFrame::Other(format!("{other:?}")),
    }
}

/// The frames of a stream, and its fault.
#[derive(Debug, PartialEq, Eq)]
struct ReadFrames {
    frames: Vec<OwnedFrame>,
    end: Result<(), PacketError>,
}

/// Reads a stream that comes in pieces of the given lengths, over and over. `announced`: the reader
/// makes room for what a packet announces, as for a peer that proved itself.
fn read(stream: &[u8], peer: Peer, pieces: &[u8], announced: bool) -> ReadFrames {
    let mut framer = match peer {
        Peer::V4 => Framer::new(LIMITS),
        peer => Framer::for_peer(LIMITS, peer),
    };
    let mut frames = Vec::new();
    let mut rest = stream;
    let mut pieces = pieces.iter().cycle();
    loop {
        let unread = framer.unread();
        let is_v5 = match framer.next_frame() {
            Ok(Some(frame)) => {
                check(&frame);
                frames.push(owned(&frame));
                matches!(frame, Frame::Connect(connect) if connect.level == 5)
            }
            Ok(None) if rest.is_empty() => return ReadFrames { frames, end: Ok(()) },
            Ok(None) => {
                let length = pieces.next().map_or(rest.len(), |&piece| usize::from(piece).max(1));
                let (now, later) = rest.split_at(length.min(rest.len()));
                let buffer = match announced {
                    true => framer.read_buffer(now.len()),
                    false => framer.read_buffer_of(now.len()),
                };
                buffer.extend_from_slice(now);
                rest = later;
                assert!(framer.unread() <= unread + now.len());
                continue;
            }
            Err(error) => return ReadFrames { frames, end: Err(error) },
        };
        // A device tells its version by its CONNECT.
        if is_v5 && peer == Peer::V4 {
            framer.set_v5();
        }
        framer.shrink(usize::from(pieces.next().copied().unwrap_or(0)));
    }
}

fn check(frame: &Frame<'_>) {
    if let Frame::Publish(publish) = frame {
        assert!(publish.payload.len() <= publish.payload_bytes);
        assert!(publish.payload_bytes <= LIMITS.payload_bytes_skipped_max);
        let is_whole = publish.payload.len() == publish.payload_bytes;
        assert!(is_whole || publish.payload_bytes > LIMITS.payload_bytes_max, "{publish:?}");
        assert_eq!(publish.packet_id == 0, publish.qos == rumqttc::QoS::AtMostOnce, "{publish:?}");
    }
}

/// Packets of ours with parts of the input in them, which the other side's reader takes as they were meant.
fn check_encoded(choices: &mut Choices<'_>) {
    let v5 = choices.u8() & 1 == 1;
    let packet_id = choices.u16().max(1);
    let packet_bytes_max = usize::from(choices.u8());
    let (one, other) = (choices.part(), choices.part());
    let (Ok(one), Ok(other)) = (std::str::from_utf8(one), std::str::from_utf8(other)) else { return };
    // An empty name and an empty password are none, and are not written.
    if [one, other].iter().any(|text| text.is_empty() || text.contains('\0')) {
        return;
    }
    let peer = if v5 { Peer::ClientV5 } else { Peer::V4 };
    let frames = |bytes: &[u8], peer| {
        let seen = read(bytes, peer, &[], true);
        assert_eq!(seen.end, Ok(()), "{bytes:?}");
        seen.frames
    };
    let mut out = Vec::new();
    encode::subscribe(&mut out, packet_id, [(one, 1), (other, 0)], v5);
    encode::unsubscribe(&mut out, packet_id, other, v5);
    let meant = [Frame::Subscribe { packet_id, filters: 2 }, Frame::Unsubscribe { packet_id, filters: 1 }];
    assert_eq!(frames(&out, peer), meant.each_ref().map(owned));

    out.clear();
    let connect = encode::Connect {
        client_id: one,
        keep_alive_s: 7,
        username: Some(one),
        password: Some(other),
        will: Some(encode::Will { topic: other.to_owned(), payload: one.into() }),
    };
    encode::connect(&mut out, &connect);
    let seen = frames(&out, Peer::V4);
    let [OwnedFrame::Other(text)] = &seen[..] else { panic!("{seen:?}") };
    assert!(text.contains(&format!("client_id: {one:?}")), "{text}");
    assert!(text.contains(&format!("{:?}", other.as_bytes())), "{text}");

    out.clear();
    encode::publish(&mut out, one, other.as_bytes(), v5);
    let seen = frames(&out, peer);
    let [OwnedFrame::Publish { topic, payload_bytes, .. }] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!((&topic[..], *payload_bytes), (one.as_bytes(), other.len()));

    out.clear();
    puback(&mut out, packet_id);
    let shortest = out.len();
    puback_refusing(
        &mut out,
        packet_id,
        0x83,
        Some(other),
        PeerLimits { packet_bytes_max, reason_strings: true },
    );
    assert!(out.len() - shortest <= packet_bytes_max.max(5), "{packet_bytes_max}");
    let meant = [Frame::PubAck { packet_id, code: 0 }, Frame::PubAck { packet_id, code: 0x83 }];
    assert_eq!(frames(&out, Peer::BrokerV5), meant.each_ref().map(owned));
}

pub fn run(input: &[u8]) {
    let mut choices = Choices::new(input);
    let peer = match choices.u8() % 4 {
        0 => Peer::V4,
        1 => Peer::ClientV5,
        2 => Peer::BrokerV5,
        _ => return check_encoded(&mut choices),
    };
    let pieces = [choices.u8(), choices.u8(), choices.u8()];
    let stream = choices.rest;
    let whole = read(stream, peer, &[], true);
    assert_eq!(read(stream, peer, &[1], true), whole);
    let (in_pieces, peak) = peak_bytes_of(|| read(stream, peer, &pieces, false));
    assert_eq!(in_pieces, whole);
    let most = OVERHEAD_BYTES + BYTES_A_BYTE * stream.len();
    assert!(peak <= most, "{peak} bytes of memory for {} of a stream", stream.len());
    let (_, peak) = peak_bytes_of(|| read(stream, peer, &pieces, true));
    let most = most + LIMITS.packet_bytes_max();
    assert!(peak <= most, "{peak} bytes of memory for {} of a stream", stream.len());
}
