//! A wire between a client and a broker that writes down which PUBLISHes came and which PUBACKs
//! went, connection by connection.

use std::sync::Arc;

use bytes::BytesMut;
use parking_lot::Mutex;
use rumqttc::QoS;
use rumqttc::mqttbytes::Error;
use rumqttc::mqttbytes::v4::Packet;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// What passed on one connection.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Packet ids of PUBLISHes at QoS 1, and whether they came again.
    pub published: Vec<(u16, bool)>,
    /// Packet ids of PUBACKs, in order.
    pub acknowledged: Vec<u16>,
    pub pings: usize,
    pub disconnected: bool,
}

impl Record {
    /// PUBACKs answer the PUBLISHes of this very connection, in their order.
    pub fn assert_ordered(&self) {
        assert!(self.acknowledged.len() <= self.published.len(), "more PUBACKs than PUBLISHes");
        for (n, (acknowledged, (published, _))) in self.acknowledged.iter().zip(&self.published).enumerate() {
            assert_eq!(acknowledged, published, "PUBACK {n} answers another PUBLISH");
        }
    }
}

pub struct Tap {
    pub port: u16,
    records: Arc<Mutex<Vec<Record>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Tap {
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

impl Drop for Tap {
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
        loop {
            match Packet::read(&mut stream, 1 << 28) {
                Ok(packet) => note(&mut records.lock()[number], packet),
                Err(Error::InsufficientBytes(_)) => break,
                Err(error) => panic!("unreadable packet on the wire: {error}"),
            }
        }
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

fn note(record: &mut Record, packet: Packet) {
    match packet {
        Packet::Publish(publish) if publish.qos == QoS::AtLeastOnce => {
            record.published.push((publish.pkid, publish.dup));
        }
        Packet::PubAck(ack) => record.acknowledged.push(ack.pkid),
        Packet::PingReq => record.pings += 1,
        Packet::Disconnect => record.disconnected = true,
        _ => {}
    }
}
