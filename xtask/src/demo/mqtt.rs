//! The little of MQTT 3.1.1 that a simulated device needs: CONNECT, PUBLISH at QoS 1, PUBACK.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// One device's connection.
pub struct Device {
    stream: TcpStream,
    next_packet_id: u16,
}

impl Device {
    /// Connects and waits for the CONNACK.
    pub fn connect(address: &str, client_id: &str) -> Result<Self> {
        let mut stream = TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60];
        text(&mut body, client_id);
        stream.write_all(&packet(0x10, &body))?;
        let mut connack = [0; 4];
        stream.read_exact(&mut connack).context("no CONNACK")?;
        if connack[0] != 0x20 || connack[3] != 0 {
            bail!("CONNECT was refused with code {}", connack[3]);
        }
        Ok(Self { stream, next_packet_id: 1 })
    }

    /// Publishes at QoS 1 and waits for the PUBACK.
    pub fn publish(&mut self, topic: &str, payload: &[u8]) -> Result<()> {
        let id = self.next_packet_id;
        self.next_packet_id = id.checked_add(1).unwrap_or(1);
        let mut body = Vec::with_capacity(topic.len() + payload.len() + 4);
        text(&mut body, topic);
        body.extend_from_slice(&id.to_be_bytes());
        body.extend_from_slice(payload);
        self.stream.write_all(&packet(0x32, &body))?;
        let mut puback = [0; 4];
        self.stream.read_exact(&mut puback).context("no PUBACK")?;
        if puback[..2] != [0x40, 2] || puback[2..] != id.to_be_bytes() {
            bail!("expected the PUBACK of packet {id}, got {puback:02x?}");
        }
        Ok(())
    }
}

fn text(body: &mut Vec<u8>, value: &str) {
    body.extend_from_slice(&(value.len() as u16).to_be_bytes());
    body.extend_from_slice(value.as_bytes());
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    let mut rest = body.len();
    loop {
        let low = (rest % 128) as u8;
        rest /= 128;
        packet.push(if rest > 0 { low | 0x80 } else { low });
        if rest == 0 {
            break;
        }
    }
    packet.extend_from_slice(body);
    packet
}
