//! A device as the gateway sees it: the publishing half of MQTT 3.1.1, over a blocking socket.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Packets, made by hand so that tests can make wrong ones too.
pub mod packet {
    /// CONNECT (MQTT 3.1.1 section 3.1) with a clean session.
    pub fn connect(client_id: &str, keep_alive_s: u16) -> Vec<u8> {
        let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 4, 2];
        body.extend_from_slice(&keep_alive_s.to_be_bytes());
        text(&mut body, client_id);
        frame(0x10, &body)
    }

    /// PUBLISH (section 3.3) at QoS 1 with a packet id, or at QoS 0 without.
    pub fn publish(topic: &str, payload: &[u8], packet_id: Option<u16>) -> Vec<u8> {
        let mut packet = Vec::with_capacity(topic.len() + payload.len() + 9);
        publish_into(&mut packet, topic, payload, packet_id);
        packet
    }

    /// Does as `publish`, and appends to `packet`.
    pub fn publish_into(packet: &mut Vec<u8>, topic: &str, payload: &[u8], packet_id: Option<u16>) {
        let id_bytes = if packet_id.is_some() { 2 } else { 0 };
        packet.push(if packet_id.is_some() { 0x32 } else { 0x30 });
        remaining_length(packet, 2 + topic.len() + id_bytes + payload.len());
        text(packet, topic);
        if let Some(id) = packet_id {
            packet.extend_from_slice(&id.to_be_bytes());
        }
        packet.extend_from_slice(payload);
    }

    /// DISCONNECT (section 3.14).
    pub const DISCONNECT: [u8; 2] = [0xe0, 0];
    /// PINGREQ (section 3.12).
    pub const PINGREQ: [u8; 2] = [0xc0, 0];

    /// A packet of this first byte and body.
    pub fn frame(first: u8, body: &[u8]) -> Vec<u8> {
        let mut packet = vec![first];
        remaining_length(&mut packet, body.len());
        packet.extend_from_slice(body);
        packet
    }

    fn text(body: &mut Vec<u8>, value: &str) {
        body.extend_from_slice(&(value.len() as u16).to_be_bytes());
        body.extend_from_slice(value.as_bytes());
    }

    /// Appends a remaining length (MQTT 5 section 2.1.4).
    pub fn remaining_length(packet: &mut Vec<u8>, mut length: usize) {
        loop {
            let low = (length % 128) as u8;
            length /= 128;
            packet.push(if length > 0 { low | 0x80 } else { low });
            if length == 0 {
                return;
            }
        }
    }
}

fn wrong(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// One device's connection.
#[derive(Debug)]
pub struct Device {
    pub stream: TcpStream,
    next_packet_id: u16,
}

impl Device {
    /// Connects and waits for the CONNACK.
    ///
    /// # Errors
    /// Nobody listens, or CONNECT is refused.
    pub fn connect(address: &str, client_id: &str) -> io::Result<Self> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        stream.write_all(&packet::connect(client_id, 60))?;
        let mut connack = [0; 4];
        stream.read_exact(&mut connack)?;
        if connack[0] != 0x20 || connack[3] != 0 {
            return Err(wrong(format!("CONNECT was refused: {connack:02x?}")));
        }
        Ok(Self { stream, next_packet_id: 1 })
    }

    fn packet_id(&mut self) -> u16 {
        let id = self.next_packet_id;
        self.next_packet_id = id.checked_add(1).unwrap_or(1);
        id
    }

    /// Publishes at QoS 1 without waiting; gives the packet id.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn send(&mut self, topic: &str, payload: &[u8]) -> io::Result<u16> {
        let id = self.packet_id();
        self.stream.write_all(&packet::publish(topic, payload, Some(id)))?;
        Ok(id)
    }

    /// Waits for the next PUBACK; gives its packet id.
    ///
    /// # Errors
    /// The connection is gone, or another packet came.
    pub fn puback(&mut self) -> io::Result<u16> {
        let mut puback = [0; 4];
        self.stream.read_exact(&mut puback)?;
        if puback[..2] != [0x40, 2] {
            return Err(wrong(format!("expected a PUBACK, got {puback:02x?}")));
        }
        Ok(u16::from_be_bytes([puback[2], puback[3]]))
    }

    /// Publishes at QoS 1 and waits for the PUBACK.
    ///
    /// # Errors
    /// The connection is gone, or the PUBACK is another message's.
    pub fn publish(&mut self, topic: &str, payload: &[u8]) -> io::Result<()> {
        let id = self.send(topic, payload)?;
        match self.puback()? {
            acknowledged if acknowledged == id => Ok(()),
            other => Err(wrong(format!("expected the PUBACK of packet {id}, got that of {other}"))),
        }
    }

    /// Publishes all at QoS 1 with up to `window` unacknowledged; checks the order of the PUBACKs.
    ///
    /// # Errors
    /// The connection is gone, or a PUBACK is out of order [MQTT-4.6.0-2].
    pub fn publish_all<'a>(
        &mut self,
        messages: impl IntoIterator<Item = (&'a str, &'a [u8])>,
        window: usize,
    ) -> io::Result<u64> {
        let mut waiting = std::collections::VecDeque::new();
        let mut acknowledged = 0;
        let mut take = |device: &mut Self, waiting: &mut std::collections::VecDeque<u16>| {
            let (id, expected) = (device.puback()?, waiting.pop_front());
            if Some(id) != expected {
                return Err(wrong(format!("expected the PUBACK of {expected:?}, got that of {id}")));
            }
            acknowledged += 1;
            Ok(())
        };
        for (topic, payload) in messages {
            if waiting.len() >= window {
                take(self, &mut waiting)?;
            }
            waiting.push_back(self.send(topic, payload)?);
        }
        while !waiting.is_empty() {
            take(self, &mut waiting)?;
        }
        Ok(acknowledged)
    }

    /// Sends DISCONNECT.
    ///
    /// # Errors
    /// The connection is gone already.
    pub fn disconnect(mut self) -> io::Result<()> {
        self.stream.write_all(&packet::DISCONNECT)
    }
}
