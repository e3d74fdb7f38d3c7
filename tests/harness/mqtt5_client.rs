//! A blocking MQTT 5 client that does exactly what a test says, on another implementation's codec,
//! over TCP or TLS.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use rumqttc::v5::mqttbytes::{QoS, v5};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

pub type TlsClient = Mqtt5Client<StreamOwned<ClientConnection, TcpStream>>;

pub struct Mqtt5Client<S> {
    pub stream: S,
    incoming: BytesMut,
    last_packet_id: u16,
}

/// A socket that waits for ten seconds.
pub fn socket(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

impl Mqtt5Client<TcpStream> {
    /// Opens a socket and sends nothing.
    pub fn open(address: SocketAddr) -> Self {
        Self::on(socket(address))
    }
}

impl TlsClient {
    /// Opens a TLS connection that trusts `roots` and shows a certificate, if it has one.
    pub fn open_tls(
        address: SocketAddr,
        roots: &[CertificateDer<'static>],
        shows: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    ) -> Self {
        let mut store = RootCertStore::empty();
        roots.iter().for_each(|root| store.add(root.clone()).unwrap());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(store);
        let config = match shows {
            Some((chain, key)) => config.with_client_auth_cert(chain, key).unwrap(),
            None => config.with_no_client_auth(),
        };
        let name = ServerName::try_from("localhost").unwrap();
        let tls = ClientConnection::new(Arc::new(config), name).unwrap();
        Self::on(StreamOwned::new(tls, socket(address)))
    }
}

impl<S: Read + Write> Mqtt5Client<S> {
    pub fn on(stream: S) -> Self {
        Self { stream, incoming: BytesMut::new(), last_packet_id: 0 }
    }

    /// Sends a CONNECT and gives the CONNACK.
    pub fn greet(
        &mut self,
        client_id: &str,
        login: Option<(&str, &str)>,
        properties: Option<v5::ConnectProperties>,
    ) -> io::Result<v5::ConnAck> {
        let connect =
            v5::Connect { keep_alive: 60, client_id: client_id.into(), clean_start: true, properties };
        let login = login
            .map(|(username, password)| v5::Login { username: username.into(), password: password.into() });
        self.send(&v5::Packet::Connect(connect, None, login))?;
        match self.receive()? {
            v5::Packet::ConnAck(connack) => Ok(connack),
            other => panic!("no CONNACK but {other:?}"),
        }
    }

    /// Connects and asserts that it succeeds.
    pub fn connected(mut self, client_id: &str, login: Option<(&str, &str)>) -> Self {
        let connack = self.greet(client_id, login, None).unwrap();
        assert_eq!(connack.code, v5::ConnectReturnCode::Success, "{connack:?}");
        self
    }

    pub fn send(&mut self, packet: &v5::Packet) -> io::Result<()> {
        let mut out = BytesMut::new();
        packet.write(&mut out, None).unwrap();
        self.stream.write_all(&out)?;
        self.stream.flush()
    }

    /// The next packet, or an error when none comes within the read timeout or the peer closed.
    pub fn receive(&mut self) -> io::Result<v5::Packet> {
        loop {
            match v5::Packet::read(&mut self.incoming, None) {
                Ok(packet) => return Ok(packet),
                Err(rumqttc::v5::mqttbytes::Error::InsufficientBytes(_)) => {}
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
    pub fn publish(&mut self, topic: &str, qos: QoS, payload: impl Into<Vec<u8>>) -> u16 {
        self.publish_with(topic, qos, payload, None)
    }

    pub fn publish_with(
        &mut self,
        topic: &str,
        qos: QoS,
        payload: impl Into<Vec<u8>>,
        properties: Option<v5::PublishProperties>,
    ) -> u16 {
        let mut publish = v5::Publish::new(topic, qos, payload.into(), properties);
        if qos != QoS::AtMostOnce {
            self.last_packet_id = self.last_packet_id.checked_add(1).unwrap_or(1);
            publish.pkid = self.last_packet_id;
        }
        self.send(&v5::Packet::Publish(publish)).unwrap();
        self.last_packet_id
    }

    /// The next PUBACK's packet id, its reason code and its reason string.
    pub fn puback(&mut self) -> (u16, v5::PubAckReason, Option<String>) {
        match self.receive().unwrap() {
            v5::Packet::PubAck(ack) => {
                (ack.pkid, ack.reason, ack.properties.and_then(|told| told.reason_string))
            }
            other => panic!("no PUBACK but {other:?}"),
        }
    }

    /// Waits for a DISCONNECT and the end behind it; gives its code and reason string.
    pub fn disconnected(&mut self) -> (v5::DisconnectReasonCode, String) {
        loop {
            match self.receive().unwrap() {
                v5::Packet::Disconnect(end) => {
                    assert!(self.receive().is_err(), "something came behind a DISCONNECT");
                    let why = end.properties.and_then(|told| told.reason_string);
                    return (end.reason_code, why.unwrap_or_default());
                }
                v5::Packet::PubAck(_) => {}
                other => panic!("no DISCONNECT but {other:?}"),
            }
        }
    }
}
