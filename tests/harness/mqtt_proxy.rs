//! A proxy between a client and a broker that records the PUBLISHes that came and the PUBACKs that
//! went, connection by connection, in either version of MQTT.

use std::sync::Arc;

use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// The bytes of a payload that are kept, from its end.
pub const PAYLOAD_END_BYTES: usize = 16;

/// The packets of one connection.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Packet ids of PUBLISHes at QoS 1, with their DUP flags.
    pub published: Vec<(u16, bool)>,
    /// The ends of their payloads, so many bytes as a test reads.
    pub ends: Vec<[u8; PAYLOAD_END_BYTES]>,
    /// Packet ids of PUBACKs, in order.
    pub acknowledged: Vec<u16>,
    pub pings: usize,
    pub disconnected: bool,
}

impl Record {
    /// True if the PUBACKs answer the PUBLISHes of this connection, in their order.
    pub fn assert_ordered(&self) {
        assert!(self.acknowledged.len() <= self.published.len(), "more PUBACKs than PUBLISHes");
        for (n, (acknowledged, (published, _))) in self.acknowledged.iter().zip(&self.published).enumerate() {
            assert_eq!(acknowledged, published, "PUBACK {n} answers another PUBLISH");
        }
    }
}

pub struct MqttProxy {
    pub port: u16,
    records: Arc<Mutex<Vec<Record>>>,
    task: tokio::task::JoinHandle<()>,
}

impl MqttProxy {
    pub async fn to(target: u16) -> Self {
        let socket = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = socket.local_addr().unwrap().port();
        let records: Arc<Mutex<Vec<Record>>> = Arc::default();
        let task = tokio::spawn({
            let records = records.clone();
            async move {
                loop {
                    let (client, _) = socket.accept().await.unwrap();
                    let Ok(broker) = TcpStream::connect(("127.0.0.1", target)).await else { continue };
                    let number = records.lock().len();
                    records.lock().push(Record::default());
                    let (client_read, client_write) = client.into_split();
                    let (broker_read, broker_write) = broker.into_split();
                    tokio::spawn(pass(broker_read, client_write, records.clone(), number));
                    tokio::spawn(pass(client_read, broker_write, records.clone(), number));
                }
            }
        });
        Self { port, records, task }
    }

    pub fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }

    pub fn records(&self) -> Vec<Record> {
        self.records.lock().clone()
    }
}

impl Drop for MqttProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    records: Arc<Mutex<Vec<Record>>>,
    number: usize,
) {
    let mut stream = BytesMut::new();
    loop {
        let begin = stream.len();
        match from.read_buf(&mut stream).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let bytes = stream[begin..].to_vec();
        while let Some((first, body)) = next_frame(&mut stream) {
            note(&mut records.lock()[number], first, &body);
        }
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

/// The first byte and the body of the next packet, once it is there whole.
fn next_frame(stream: &mut BytesMut) -> Option<(u8, BytesMut)> {
    let (mut body_bytes, mut head) = (0, 1);
    loop {
        let byte = *stream.get(head)?;
        body_bytes |= usize::from(byte & 0x7f) << (7 * (head - 1));
        head += 1;
        if byte & 0x80 == 0 {
            break;
        }
        assert!(head < 5, "unreadable packet on the wire");
    }
    if stream.len() < head + body_bytes {
        return None;
    }
    let mut frame = stream.split_to(head + body_bytes);
    let body = frame.split_off(head);
    Some((frame[0], body))
}

/// Records a packet; the recorded parts have the same place in both versions of the protocol.
fn note(record: &mut Record, first: u8, body: &[u8]) {
    let number = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
    match first >> 4 {
        3 if first & 6 == 2 => {
            let topic = usize::from(number(0));
            record.published.push((number(2 + topic), first & 8 != 0));
            let mut end = [0; PAYLOAD_END_BYTES];
            let bytes = body.len().min(PAYLOAD_END_BYTES);
            end[PAYLOAD_END_BYTES - bytes..].copy_from_slice(&body[body.len() - bytes..]);
            record.ends.push(end);
        }
        4 => record.acknowledged.push(number(0)),
        12 => record.pings += 1,
        14 => record.disconnected = true,
        _ => {}
    }
}
