//! The framing of packets: from the bytes of a socket to frames, in bounded memory.
//!
//! One buffer, parsed in place. A PUBLISH over the payload limit never lies in it whole: its topic
//! and the first bytes of its payload are kept, the rest is thrown away as it comes, and the
//! packet appears once its last byte has come (a PUBACK must not overtake its own PUBLISH).

use rumqttc::QoS;

use crate::limits;
use crate::mqtt::control::Frame;
use crate::mqtt::error::{PacketError, kind};
use crate::mqtt::publish::{Peer, Publish, parse_publish, publish_qos};
use crate::mqtt::{control, publish};

/// The limits of the packets of one peer.
#[derive(Clone, Copy, Debug)]
pub struct FrameLimits {
    /// Bytes of a payload that are kept whole.
    pub payload_bytes_max: usize,
    /// Bytes of a payload that are read at all; a packet that announces more is an error.
    pub payload_bytes_skipped_max: usize,
}

impl FrameLimits {
    /// The length of the topic, the topic, and the packet id.
    const PUBLISH_HEAD_BYTES_MAX: usize = 2 + u16::MAX as usize + 2;

    /// The largest packet that is read at all, with the five bytes before its body.
    pub fn packet_bytes_max(&self) -> usize {
        5 + self.body_bytes_max(kind::PUBLISH << 4, true)
    }

    fn body_bytes_max(&self, first: u8, v5: bool) -> usize {
        // The properties, and their length.
        let properties = if v5 { limits::PROPERTIES_BYTES_MAX + 4 } else { 0 };
        match first >> 4 {
            kind::PUBLISH => self
                .payload_bytes_skipped_max
                .saturating_add(Self::PUBLISH_HEAD_BYTES_MAX + properties)
                .min(limits::MQTT_PACKET_BYTES_MAX),
            _ => limits::CONTROL_PACKET_BYTES_MAX,
        }
    }
}

/// A PUBLISH whose payload or properties are too long to lie in memory.
#[derive(Debug)]
struct OversizePublish {
    first: u8,
    /// Topic, packet id, properties and the bytes of the payload that are kept.
    head: Vec<u8>,
    /// The length of the packet, without properties that were not kept.
    body_bytes: usize,
    /// Bytes of properties that are still to be thrown away.
    skip: usize,
    /// Bytes behind those that are still to be kept.
    keep: usize,
    /// Bytes behind those that are still to be thrown away.
    left: usize,
}

impl OversizePublish {
    fn is_complete(&self) -> bool {
        self.skip + self.keep + self.left == 0
    }

    /// Takes its own bytes from the front of `unread`, and gives their number.
    fn take(&mut self, unread: &[u8]) -> usize {
        let skipped = self.skip.min(unread.len());
        let kept = self.keep.min(unread.len() - skipped);
        let gone = self.left.min(unread.len() - skipped - kept);
        self.head.extend_from_slice(&unread[skipped..skipped + kept]);
        self.skip -= skipped;
        self.keep -= kept;
        self.left -= gone;
        skipped + kept + gone
    }
}

/// Splits the bytes of one connection into frames.
#[derive(Debug)]
pub struct Framer {
    limits: FrameLimits,
    peer: Peer,
    buffer: Vec<u8>,
    /// The place in `buffer` at which the bytes begin that were not parsed yet.
    start: usize,
    /// The length that the unread bytes must have before the next packet can be parsed.
    wanted: usize,
    oversize: Option<Box<OversizePublish>>,
}

/// The beginning of some bytes.
enum FrameStart {
    /// Too few bytes: this many are needed.
    Short(usize),
    /// A whole packet: the place of its body, and its length.
    Whole { body_at: usize, body_bytes: usize },
    /// A PUBLISH over the payload limit, of which the part to keep is here.
    Oversize { body_at: usize, body_bytes: usize, keep: usize },
    /// A PUBLISH with properties over their limit, of which `head` bytes are here; `skip` bytes of
    /// properties follow, and then the payload.
    LongProperties { body_at: usize, head: usize, skip: usize, payload: usize },
}

fn peek_frame(bytes: &[u8], limits: &FrameLimits, peer: Peer) -> Result<FrameStart, PacketError> {
    let Some(&first) = bytes.first() else { return Ok(FrameStart::Short(2)) };
    control::check_first_byte(first)?;
    let (mut body_bytes, mut body_at) = (0, 1);
    loop {
        let Some(&byte) = bytes.get(body_at) else { return Ok(FrameStart::Short(body_at + 1)) };
        body_bytes |= usize::from(byte & 0x7f) << (7 * (body_at - 1));
        body_at += 1;
        if byte & 0x80 == 0 {
            break;
        }
        if body_at == 5 {
            return Err(PacketError::LengthOfLength);
        }
    }
    let bytes_max = limits.body_bytes_max(first, peer != Peer::V4);
    if body_bytes > bytes_max {
        return Err(PacketError::TooLong { bytes: body_bytes, bytes_max });
    }
    if first >> 4 == kind::PUBLISH && body_bytes > limits.payload_bytes_max {
        let Some(length) = bytes.get(body_at..body_at + 2) else {
            return Ok(FrameStart::Short(body_at + 2));
        };
        let topic = usize::from(u16::from_be_bytes([length[0], length[1]]));
        let id = if publish_qos(first)? == QoS::AtMostOnce { 0 } else { 2 };
        let mut head = 2 + topic + id;
        if peer != Peer::V4 {
            let body = &bytes[body_at..];
            let Some((at, properties)) = publish::properties_at(body, head, body_bytes)? else {
                let there = body.len().saturating_sub(head).min(3);
                return Ok(FrameStart::Short(body_at + head + there + 1));
            };
            if peer == Peer::BrokerV5 && properties > limits::PROPERTIES_BYTES_MAX {
                let (skip, payload) = (at - head + properties, body_bytes - at - properties);
                return Ok(FrameStart::LongProperties { body_at, head, skip, payload });
            }
            publish::check_properties_length(properties)?;
            head = at + properties;
        }
        let payload = body_bytes.checked_sub(head).ok_or(PacketError::WrongLength("PUBLISH"))?;
        if payload > limits.payload_bytes_skipped_max {
            return Err(PacketError::TooLong { bytes: payload, bytes_max: limits.payload_bytes_skipped_max });
        }
        if payload > limits.payload_bytes_max {
            let keep = head + payload.min(limits::OVERSIZE_PAYLOAD_KEPT_BYTES);
            if bytes.len() < body_at + keep {
                return Ok(FrameStart::Short(body_at + keep));
            }
            return Ok(FrameStart::Oversize { body_at, body_bytes, keep });
        }
    }
    if bytes.len() < body_at + body_bytes {
        return Ok(FrameStart::Short(body_at + body_bytes));
    }
    Ok(FrameStart::Whole { body_at, body_bytes })
}

impl Framer {
    /// Reads a device, of MQTT 3.1.1 until its CONNECT says otherwise.
    pub fn new(limits: FrameLimits) -> Self {
        Self::for_peer(limits, Peer::V4)
    }

    pub fn for_peer(limits: FrameLimits, peer: Peer) -> Self {
        Self { limits, peer, buffer: Vec::new(), start: 0, wanted: 0, oversize: None }
    }

    /// The packets that follow are a client's of MQTT 5.
    pub fn set_v5(&mut self) {
        self.peer = Peer::ClientV5;
    }

    /// The next packet of the bytes that were read, if it is there whole.
    ///
    /// # Errors
    /// The bytes are no MQTT or break a limit; the connection cannot be read on.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, PacketError> {
        if self.oversize.as_ref().is_some_and(|oversize| oversize.is_complete()) {
            // Its packet has been given out before.
            self.oversize = None;
        }
        if self.oversize.is_none() {
            match peek_frame(&self.buffer[self.start..], &self.limits, self.peer)? {
                FrameStart::Short(wanted) => {
                    self.wanted = wanted;
                    return Ok(None);
                }
                FrameStart::Whole { body_at, body_bytes } => {
                    let (first, body) = (self.buffer[self.start], self.start + body_at);
                    self.start = body + body_bytes;
                    return control::parse(first, &self.buffer[body..self.start], self.peer).map(Some);
                }
                FrameStart::Oversize { body_at, body_bytes, keep } => {
                    let body = self.start + body_at;
                    self.oversize = Some(Box::new(OversizePublish {
                        first: self.buffer[self.start],
                        head: self.buffer[body..body + keep].to_vec(),
                        body_bytes,
                        skip: 0,
                        keep: 0,
                        left: body_bytes - keep,
                    }));
                    self.start = body + keep;
                }
                FrameStart::LongProperties { body_at, head, skip, payload } => {
                    let body = self.start + body_at;
                    let keep = match payload > self.limits.payload_bytes_max {
                        true => payload.min(limits::OVERSIZE_PAYLOAD_KEPT_BYTES),
                        false => payload,
                    };
                    let first = self.buffer[self.start];
                    let mut kept = self.buffer[body..body + head].to_vec();
                    // In their place stand none.
                    kept.push(0);
                    self.oversize = Some(Box::new(OversizePublish {
                        first,
                        body_bytes: kept.len() + payload,
                        head: kept,
                        skip,
                        keep,
                        left: payload - keep,
                    }));
                    self.start = body + head;
                }
            }
        }
        let oversize = self.oversize.as_mut().expect("set above");
        self.start += oversize.take(&self.buffer[self.start..]);
        if !oversize.is_complete() {
            self.wanted = 1;
            return Ok(None);
        }
        let publish: Publish<'_> =
            parse_publish(oversize.first, &oversize.head, oversize.body_bytes, self.peer)?;
        Ok(Some(Frame::Publish(publish)))
    }

    /// Makes room to read at least `bytes`, or as many as the packet lacks that has begun, and
    /// gives the buffer to read into. Call it after `next_frame` gave nothing.
    pub fn read_buffer(&mut self, bytes: usize) -> &mut Vec<u8> {
        self.compact();
        let missing = self.missing_bytes();
        self.buffer.reserve_exact(bytes.max(missing));
        &mut self.buffer
    }

    /// Makes room to read at least `bytes`, however many the packet lacks, and gives the buffer to read
    /// into. Call it after `next_frame` gave nothing.
    pub fn read_buffer_of(&mut self, bytes: usize) -> &mut Vec<u8> {
        self.compact();
        self.buffer.reserve_exact(bytes);
        &mut self.buffer
    }

    /// Bytes that were read and not yet parsed, from the first byte of a packet on.
    pub fn unread_bytes(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    /// The capacity that the buffer must have for the packet that has begun.
    pub fn needed(&self) -> usize {
        self.unread() + self.missing_bytes()
    }

    pub fn capacity(&self) -> usize {
        self.buffer.capacity()
    }

    /// True if a packet has begun and not ended.
    pub fn has_partial_frame(&self) -> bool {
        self.unread() > 0 || self.oversize.as_ref().is_some_and(|oversize| !oversize.is_complete())
    }

    /// Gives memory back: all of it if nothing is unread, else all beyond `bytes_max`.
    pub fn shrink(&mut self, bytes_max: usize) {
        self.compact();
        if self.buffer.is_empty() && bytes_max == 0 {
            self.buffer = Vec::new();
        } else if self.buffer.capacity() > bytes_max {
            self.buffer.shrink_to(bytes_max);
        }
    }

    /// Bytes that were read and not yet parsed.
    pub fn unread(&self) -> usize {
        self.buffer.len() - self.start
    }

    fn missing_bytes(&self) -> usize {
        self.wanted.saturating_sub(self.unread())
    }

    fn compact(&mut self) {
        if self.start > 0 {
            let unread = self.unread();
            self.buffer.copy_within(self.start.., 0);
            self.buffer.truncate(unread);
            self.start = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits;
    use crate::mqtt::control::Frame;
    use crate::mqtt::error::PacketError;

    use proptest::prelude::*;

    const LIMITS: FrameLimits = FrameLimits { payload_bytes_max: 2000, payload_bytes_skipped_max: 20_000 };

    /// A packet when its borrow has ended.
    #[derive(Debug, PartialEq, Eq)]
    enum OwnedFrame {
        Publish { topic: Vec<u8>, payload: Vec<u8>, payload_bytes: usize, packet_id: u16 },
        Other(String),
    }

    fn seen(packet: &Frame<'_>) -> OwnedFrame {
        match packet {
            Frame::Publish(publish) => OwnedFrame::Publish {
                topic: publish.topic.to_vec(),
                payload: publish.payload.to_vec(),
                payload_bytes: publish.payload_bytes,
                packet_id: publish.packet_id,
            },
            other => OwnedFrame::Other(format!("{other:?}")),
        }
    }

    fn publish(topic: &str, packet_id: u16, payload: &[u8]) -> Vec<u8> {
        use rumqttc::mqttbytes::v4::Publish;
        let mut theirs = Publish::new(topic, rumqttc::QoS::AtLeastOnce, payload);
        theirs.pkid = packet_id;
        let mut out = bytes::BytesMut::new();
        theirs.write(&mut out).unwrap();
        out.to_vec()
    }

    /// Feeds `bytes` in pieces of the given lengths, over and over.
    fn feed(framer: &mut Framer, bytes: &[u8], pieces: &[usize]) -> Result<Vec<OwnedFrame>, PacketError> {
        let mut packets = Vec::new();
        let mut rest = bytes;
        for &piece in pieces.iter().cycle() {
            while let Some(packet) = framer.next_frame()? {
                packets.push(seen(&packet));
            }
            if rest.is_empty() {
                return Ok(packets);
            }
            let (now, later) = rest.split_at(piece.clamp(1, rest.len()));
            framer.read_buffer(now.len()).extend_from_slice(now);
            rest = later;
        }
        Ok(packets)
    }

    #[test]
    fn an_oversized_payload_is_cut_and_the_next_packet_is_whole() {
        let big = vec![b'x'; 19_000];
        let mut bytes = publish("big", 1, &big);
        bytes.extend(publish("small", 2, b"good"));
        for pieces in [vec![1], vec![7, 900], vec![50_000]] {
            let mut framer = Framer::new(LIMITS);
            let packets = feed(&mut framer, &bytes, &pieces).unwrap();
            assert_eq!(
                packets,
                [
                    OwnedFrame::Publish {
                        topic: b"big".into(),
                        payload: big[..limits::OVERSIZE_PAYLOAD_KEPT_BYTES].into(),
                        payload_bytes: 19_000,
                        packet_id: 1,
                    },
                    OwnedFrame::Publish {
                        topic: b"small".into(),
                        payload: b"good".into(),
                        payload_bytes: 4,
                        packet_id: 2,
                    },
                ]
            );
        }
    }

    #[test]
    fn an_oversized_payload_appears_only_with_its_last_byte_and_is_never_held() {
        let limits =
            FrameLimits { payload_bytes_max: 2000, payload_bytes_skipped_max: limits::MQTT_PACKET_BYTES_MAX };
        let mut framer = Framer::new(limits);
        let bytes = publish("big", 1, &vec![0; 8 << 20]);
        let (last, before) = bytes.split_last().unwrap();
        for piece in before.chunks(64 << 10) {
            framer.read_buffer(64 << 10).extend_from_slice(piece);
            assert!(framer.next_frame().unwrap().is_none());
            assert!(framer.capacity() <= 160 << 10, "{} bytes held", framer.capacity());
        }
        assert!(framer.has_partial_frame());
        framer.read_buffer(1).push(*last);
        assert!(framer.next_frame().unwrap().is_some());
        assert!(framer.next_frame().unwrap().is_none());
        assert!(!framer.has_partial_frame());
        framer.shrink(0);
        assert_eq!(framer.capacity(), 0);
    }

    #[test]
    fn the_limit_is_the_payload_and_not_the_packet() {
        let mut framer = Framer::new(LIMITS);
        let topic = "t".repeat(3000);
        for payload in [1999, 2000, 2001] {
            let bytes = publish(&topic, 1, &vec![1; payload]);
            let packets = feed(&mut framer, &bytes, &[4096]).unwrap();
            let OwnedFrame::Publish { payload: kept, payload_bytes, .. } = &packets[0] else {
                panic!("no PUBLISH")
            };
            assert_eq!(*payload_bytes, payload);
            assert_eq!(
                kept.len(),
                if payload > 2000 { limits::OVERSIZE_PAYLOAD_KEPT_BYTES } else { payload }
            );
        }
    }

    #[test]
    fn absurd_lengths_are_refused_before_their_bytes_come() {
        let error = |bytes: &[u8]| feed(&mut Framer::new(LIMITS), bytes, &[1]).unwrap_err();
        assert!(matches!(error(&[0x30, 0xff, 0xff, 0xff, 0x7f]), PacketError::TooLong { .. }));
        assert_eq!(error(&[0x30, 0xff, 0xff, 0xff, 0xff, 0x7f]), PacketError::LengthOfLength);
        assert!(matches!(error(&[0x10, 0x81, 0x80, 0x04]), PacketError::TooLong { .. }));
        assert!(matches!(error(&publish("t", 1, &vec![0; 20_001])), PacketError::TooLong { .. }));
        // A topic that is longer than its packet, in one that is over the payload limit.
        assert_eq!(error(&[0x32, 0xd1, 0x0f, 0xff, 0xff]), PacketError::WrongLength("PUBLISH"));
    }

    proptest! {
        /// Rubbish is refused or waited for, in bounded memory.
        #[test]
        fn no_bytes_break_the_framer(
            bytes in proptest::collection::vec(any::<u8>(), 0..4000),
            pieces in proptest::collection::vec(1usize..600, 1..8),
        ) {
            let mut framer = Framer::new(LIMITS);
            let _ = feed(&mut framer, &bytes, &pieces);
            prop_assert!(framer.needed() <= 5 + 4 + 65_536 + 2000, "needs {}", framer.needed());
            prop_assert!(framer.capacity() <= 5000 + framer.needed(), "holds {}", framer.capacity());
        }

        /// Almost-packets: a plausible header before rubbish.
        #[test]
        fn no_body_breaks_the_parser(
            first in any::<u8>(),
            body in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut bytes = vec![first, 0x80 | (body.len() & 0x7f) as u8, (body.len() >> 7) as u8];
            bytes.extend(&body);
            let _ = feed(&mut Framer::new(LIMITS), &bytes, &[64]);
        }

        /// However the bytes are cut, the packets are the same.
        #[test]
        fn packets_do_not_depend_on_how_their_bytes_arrive(
            messages in proptest::collection::vec(("[a-z/]{1,40}", 0usize..6000), 1..20),
            pieces in proptest::collection::vec(1usize..5000, 1..10),
        ) {
            let mut bytes = Vec::new();
            for (n, (topic, length)) in messages.iter().enumerate() {
                bytes.extend(publish(topic, n as u16 + 1, &vec![n as u8; *length]));
                bytes.extend([0xc0, 0]);
            }
            let packets = feed(&mut Framer::new(LIMITS), &bytes, &pieces).unwrap();
            prop_assert_eq!(packets.len(), 2 * messages.len());
            for (n, (topic, length)) in messages.iter().enumerate() {
                let kept = if *length > 2000 { (*length).min(limits::OVERSIZE_PAYLOAD_KEPT_BYTES) } else { *length };
                prop_assert_eq!(&packets[2 * n], &OwnedFrame::Publish {
                    topic: topic.clone().into_bytes(),
                    payload: vec![n as u8; kept],
                    payload_bytes: *length,
                    packet_id: n as u16 + 1,
                });
            }
        }
    }
}
