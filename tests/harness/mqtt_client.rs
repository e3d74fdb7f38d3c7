//! A blocking MQTT client that does exactly what a test says, on another implementation's codec.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::BytesMut;
use rumqttc::QoS;
use rumqttc::mqttbytes::v4::{ConnAck, Connect, Login, Packet, Publish};

pub struct MqttClient {
    pub stream: TcpStream,
    incoming: BytesMut,
    last_packet_id: u16,
}

impl MqttClient {
    /// Opens a socket and sends nothing.
    pub fn open(address: SocketAddr) -> Self {
        Self::on(TcpStream::connect(address).unwrap())
    }

    /// A client on an open socket, from either side.
    pub fn on(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, incoming: BytesMut::new(), last_packet_id: 0 }
    }

    pub fn connect(address: SocketAddr, client_id: &str) -> Self {
        let mut client = Self::open(address);
        let connack = client.greet(client_id, true, 60, None);
        assert_eq!(connack.unwrap().code, rumqttc::ConnectReturnCode::Success);
        client
    }

    pub fn to_broker(port: u16, client_id: &str) -> Self {
        Self::connect(SocketAddr::from(([127, 0, 0, 1], port)), client_id)
    }

    pub fn greet(
        &mut self,
        client_id: &str,
        clean_session: bool,
        keep_alive: u16,
        login: Option<Login>,
    ) -> io::Result<ConnAck> {
        let mut connect = Connect::new(client_id);
        connect.clean_session = clean_session;
        connect.keep_alive = keep_alive;
        connect.login = login;
        self.send(&Packet::Connect(connect))?;
        match self.receive()? {
            Packet::ConnAck(connack) => Ok(connack),
            other => panic!("no CONNACK but {other:?}"),
        }
    }

    pub fn send(&mut self, packet: &Packet) -> io::Result<()> {
        let mut out = BytesMut::new();
        packet.write(&mut out, usize::MAX).unwrap();
        self.stream.write_all(&out)
    }

    /// The next packet, or an error when none comes within the read timeout or the peer closed.
    pub fn receive(&mut self) -> io::Result<Packet> {
        loop {
            match Packet::read(&mut self.incoming, 1 << 28) {
                Ok(packet) => return Ok(packet),
                Err(rumqttc::mqttbytes::Error::InsufficientBytes(_)) => {}
                Err(error) => panic!("unreadable packet: {error}"),
            }
            let mut piece = [0; 4096];
            match self.stream.read(&mut piece)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => self.incoming.extend_from_slice(&piece[..read]),
            }
        }
    }

    /// Sends a PUBLISH and gives its packet id.
    pub fn publish(&mut self, topic: &str, qos: QoS, retain: bool, payload: impl Into<Vec<u8>>) -> u16 {
        let mut publish = Publish::new(topic, qos, payload);
        publish.retain = retain;
        if qos != QoS::AtMostOnce {
            self.last_packet_id = self.last_packet_id.checked_add(1).unwrap_or(1);
            publish.pkid = self.last_packet_id;
        }
        self.send(&Packet::Publish(publish)).unwrap();
        self.last_packet_id
    }

    pub fn puback(&mut self) -> u16 {
        match self.receive().unwrap() {
            Packet::PubAck(ack) => ack.pkid,
            other => panic!("no PUBACK but {other:?}"),
        }
    }

    pub fn pubacks(&mut self, count: usize) -> Vec<u16> {
        (0..count).map(|_| self.puback()).collect()
    }

    /// Publishes at QoS 1 with up to a hundred unacknowledged, and waits until all are acknowledged.
    pub fn publish_all(&mut self, messages: impl IntoIterator<Item = (String, Vec<u8>)>) {
        let mut waiting = 0;
        for (topic, payload) in messages {
            self.publish(&topic, QoS::AtLeastOnce, false, payload);
            waiting += 1;
            if waiting == 100 {
                self.pubacks(100);
                waiting = 0;
            }
        }
        self.pubacks(waiting);
    }

    /// Waits until the peer has closed the connection.
    pub fn expect_closed(&mut self, within: Duration) {
        self.stream.set_read_timeout(Some(within)).unwrap();
        loop {
            match self.receive() {
                Ok(_) => {}
                Err(error) => {
                    let closed = !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
                    assert!(closed, "still open after {within:?}");
                    return;
                }
            }
        }
    }
}
