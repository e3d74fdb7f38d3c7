//! A publisher of MQTT 5 over TCP or TLS, which learns from each PUBACK whether its message was refused.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use tidegate_simulator::packet;

/// The time after which a read gives up and its caller looks around.
const READ_PATIENCE: Duration = Duration::from_millis(500);

trait Stream: Read + Write + Send {}

impl<T: Read + Write + Send> Stream for T {}

pub struct Client {
    stream: Box<dyn Stream>,
    incoming: Vec<u8>,
}

/// A packet of the server that a publisher knows.
pub enum Answer {
    /// Packet id and reason code.
    Puback(u16, u8),
    /// Nothing within the patience.
    Nothing,
}

fn ended(words: String) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, words)
}

/// Opens a connection, with TLS if there are settings for it.
fn open(address: &str, tls: Option<Arc<ClientConfig>>) -> io::Result<Box<dyn Stream>> {
    let socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    socket.set_write_timeout(Some(Duration::from_secs(30)))?;
    let Some(config) = tls else {
        socket.set_read_timeout(Some(READ_PATIENCE))?;
        return Ok(Box::new(socket));
    };
    let name = ServerName::try_from("localhost").unwrap();
    let mut connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
    let mut reading = socket.try_clone()?;
    while connection.is_handshaking() {
        connection.complete_io(&mut reading)?;
    }
    socket.set_read_timeout(Some(READ_PATIENCE))?;
    Ok(Box::new(StreamOwned::new(connection, socket)))
}

impl Client {
    /// Connects with a clean session and waits for the CONNACK.
    ///
    /// # Errors
    /// Nobody listens, or CONNECT is refused.
    pub fn connect(address: &str, tls: Option<Arc<ClientConfig>>, client_id: &str) -> io::Result<Self> {
        let mut client = Self { stream: open(address, tls)?, incoming: Vec::new() };
        // MQTT 5 section 3.1: clean start, no keep-alive, no properties.
        let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 0, 0];
        body.extend_from_slice(&(client_id.len() as u16).to_be_bytes());
        body.extend_from_slice(client_id.as_bytes());
        client.stream.write_all(&packet::frame(0x10, &body))?;
        client.stream.flush()?;
        for _ in 0..20 {
            match client.frame()? {
                Some((0x20, body)) if body.get(1) == Some(&0) => return Ok(client),
                Some((first, body)) => return Err(ended(format!("no CONNACK but {first:02x} {body:02x?}"))),
                None => {}
            }
        }
        Err(ended("no CONNACK".into()))
    }

    /// Sends PUBLISHes at QoS 1.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn publish<'a>(
        &mut self,
        messages: impl IntoIterator<Item = (u16, &'a str, &'a [u8])>,
    ) -> io::Result<()> {
        let mut packets = Vec::new();
        for (id, topic, payload) in messages {
            packets.push(0x32);
            packet::remaining_length(&mut packets, 2 + topic.len() + 2 + 1 + payload.len());
            packets.extend_from_slice(&(topic.len() as u16).to_be_bytes());
            packets.extend_from_slice(topic.as_bytes());
            packets.extend_from_slice(&id.to_be_bytes());
            packets.push(0);
            packets.extend_from_slice(payload);
        }
        self.stream.write_all(&packets)?;
        self.stream.flush()
    }

    /// The next PUBACK.
    ///
    /// # Errors
    /// The connection is gone, or another packet came.
    pub fn answer(&mut self) -> io::Result<Answer> {
        match self.frame()? {
            None => Ok(Answer::Nothing),
            Some((0x40, body)) if body.len() >= 2 => {
                let id = u16::from_be_bytes([body[0], body[1]]);
                Ok(Answer::Puback(id, body.get(2).copied().unwrap_or(0)))
            }
            Some((first, body)) => Err(ended(format!("packet {first:02x} {body:02x?}"))),
        }
    }

    /// The next packet; none if nothing came within the patience.
    fn frame(&mut self) -> io::Result<Option<(u8, Vec<u8>)>> {
        loop {
            if let Some((first, body)) = take_frame(&mut self.incoming) {
                return Ok(Some((first, body)));
            }
            let mut piece = [0; 4096];
            match self.stream.read(&mut piece) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => self.incoming.extend_from_slice(&piece[..read]),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

fn take_frame(incoming: &mut Vec<u8>) -> Option<(u8, Vec<u8>)> {
    let (mut length, mut head) = (0, 1);
    loop {
        let byte = *incoming.get(head)?;
        length |= usize::from(byte & 0x7f) << (7 * (head - 1));
        head += 1;
        if byte & 0x80 == 0 || head == 5 {
            break;
        }
    }
    if incoming.len() < head + length {
        return None;
    }
    let frame: Vec<u8> = incoming.drain(..head + length).collect();
    Some((frame[0], frame[head..].to_vec()))
}
