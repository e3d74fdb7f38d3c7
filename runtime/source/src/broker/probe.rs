//! A look at a broker: the answer to a CONNECT, and the figures that it publishes under `$SYS`. Nothing that
//! it delivers is acknowledged, and nothing is subscribed to but `$SYS`.

use std::collections::BTreeMap;
use std::time::Duration;

use rumqttc::v5::mqttbytes::v5::{
    ConnAckProperties, ConnectProperties, ConnectReturnCode, DisconnectReasonCode, SubscribeReasonCode,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};

use crate::broker::session::ConnectError;
use crate::broker::settings::{BrokerSettings, Protocol};
use crate::broker::transport::{BrokerStream, TlsError, Transport};
use crate::limits;
use crate::mqtt::control::{Frame, encode};
use crate::mqtt::framing::{FrameLimits, Framer};
use crate::mqtt::publish::Peer;

/// The session that a probe opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeSession<'a> {
    /// One under this client id, which ends with the probe. It reads `$SYS`.
    Temporary(&'a str),
    /// The gateway's own session. If another client has it, that one loses it and takes it back.
    Own,
}

/// The answers of a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerReport {
    pub protocol: Protocol,
    pub session_present: bool,
    /// The broker ended the probe's connection: another one took the session.
    pub taken_over: bool,
    /// Seconds for which the broker keeps a session, where it allows less than was asked for.
    pub session_expiry_s: Option<u32>,
    /// The highest QoS that the broker takes.
    pub qos_max: u8,
    pub packet_bytes_max: Option<u32>,
    /// Topics below `$SYS/` with their values. Empty: the broker shows none to this user.
    pub figures: BTreeMap<String, String>,
}

/// The reason for which a broker cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Connect(#[from] ConnectError),
}

/// The filter of all figures.
const FIGURES: &str = "$SYS/#";

/// The packet id of the one SUBSCRIBE.
const SUBSCRIBE_ID: u16 = 1;

/// Bytes of a figure.
const FIGURE_BYTES_MAX: usize = 1_024;

/// Figures that a report has.
const FIGURES_MAX: usize = 1_000;

/// The time without a further figure after which there are no more: they are retained, so they come at once.
const FIGURES_QUIET: Duration = Duration::from_millis(500);

/// Connects, looks for at most `patience` after the CONNACK, and disconnects.
///
/// # Errors
/// The broker cannot be reached, or refuses.
pub async fn probe(
    settings: &BrokerSettings,
    session: ProbeSession<'_>,
    patience: Duration,
) -> Result<BrokerReport, ProbeError> {
    let transport = Transport::new(settings.url.clone(), settings.ca_file.as_deref())?;
    let mut protocol = settings.protocol;
    loop {
        let patience_of_connect = Duration::from_secs(limits::BROKER_CONNECT_TIMEOUT_S);
        let opened = timeout(patience_of_connect, Probed::open(&transport, settings, session, protocol));
        match opened.await.unwrap_or(Err(ConnectError::Timeout)) {
            Ok(probed) => {
                let report = probed.look(session, patience).await;
                if protocol == Protocol::V4
                    && session == ProbeSession::Own
                    && !report.session_present
                    && !report.taken_over
                {
                    // In MQTT 3.1.1 a session ends when its client connects once without one.
                    let forget = ProbeSession::Temporary(&settings.client_id);
                    let _ =
                        timeout(patience_of_connect, Probed::open(&transport, settings, forget, protocol))
                            .await;
                }
                return Ok(report);
            }
            Err(error) if protocol == Protocol::V5 && error.may_be_the_version() => protocol = Protocol::V4,
            Err(error) => return Err(error.into()),
        }
    }
}

enum Probed {
    Plain(Probe<tokio::net::TcpStream>),
    Tls(Probe<Box<tokio_rustls::client::TlsStream<tokio::net::TcpStream>>>),
}

impl Probed {
    async fn open(
        transport: &Transport,
        settings: &BrokerSettings,
        session: ProbeSession<'_>,
        protocol: Protocol,
    ) -> Result<Self, ConnectError> {
        Ok(match transport.open().await? {
            BrokerStream::Plain(stream) => {
                Self::Plain(Probe::connect(stream, settings, session, protocol).await?)
            }
            BrokerStream::Tls(stream) => {
                Self::Tls(Probe::connect(stream, settings, session, protocol).await?)
            }
        })
    }

    async fn look(self, session: ProbeSession<'_>, patience: Duration) -> BrokerReport {
        match self {
            Self::Plain(probe) => probe.look(session, patience).await,
            Self::Tls(probe) => probe.look(session, patience).await,
        }
    }
}

/// A connection that the broker has accepted.
struct Probe<S> {
    stream: S,
    framer: Framer,
    report: BrokerReport,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Probe<S> {
    async fn connect(
        mut stream: S,
        settings: &BrokerSettings,
        session: ProbeSession<'_>,
        protocol: Protocol,
    ) -> Result<Self, ConnectError> {
        let connect = encode::Connect {
            client_id: match session {
                ProbeSession::Temporary(client_id) => client_id,
                ProbeSession::Own => &settings.client_id,
            },
            keep_alive_s: settings.keep_alive_s,
            username: (!settings.username.is_empty()).then_some(settings.username.as_str()),
            password: settings.password.as_deref(),
            // The probe is not the host.
            will: None,
        };
        let mut out = Vec::new();
        let peer = match (protocol, session) {
            (Protocol::V4, ProbeSession::Temporary(_)) => {
                encode::connect_clean(&mut out, &connect);
                Peer::V4
            }
            (Protocol::V4, ProbeSession::Own) => {
                encode::connect(&mut out, &connect);
                Peer::V4
            }
            (Protocol::V5, session) => {
                let expiry_s = if session == ProbeSession::Own { limits::BROKER_SESSION_EXPIRY_S } else { 0 };
                let properties = ConnectProperties {
                    session_expiry_interval: Some(expiry_s),
                    // As few messages as can be: none of them is acknowledged.
                    receive_maximum: Some(1),
                    ..ConnectProperties::new()
                };
                encode::connect_v5(&mut out, &connect, properties);
                Peer::BrokerV5
            }
        };
        stream.write_all(&out).await?;
        stream.flush().await?;
        let frames = FrameLimits {
            payload_bytes_max: FIGURE_BYTES_MAX,
            payload_bytes_skipped_max: limits::MQTT_PACKET_BYTES_MAX,
        };
        let mut framer = Framer::for_peer(frames, peer);
        let connack = loop {
            match framer.next_frame()? {
                None => {}
                Some(Frame::ConnAck(connack)) => break *connack,
                Some(_) => return Err(ConnectError::NotConnAck),
            }
            if stream.read_buf(framer.read_buffer(limits::SOCKET_READ_BYTES)).await? == 0 {
                return Err(ConnectError::Closed);
            }
        };
        let properties = connack.properties.unwrap_or_else(encode::connack_properties);
        if connack.code != ConnectReturnCode::Success {
            return Err(ConnectError::Refused { code: connack.code, why: properties.reason_string });
        }
        let report = report(protocol, connack.session_present, session, &properties);
        Ok(Self { stream, framer, report })
    }

    /// Reads until there is nothing more to see.
    async fn look(mut self, session: ProbeSession<'_>, patience: Duration) -> BrokerReport {
        let deadline = Instant::now() + patience;
        let mut quiet_from = deadline;
        if session != ProbeSession::Own {
            let mut out = Vec::new();
            let v5 = self.report.protocol == Protocol::V5;
            encode::subscribe(&mut out, SUBSCRIBE_ID, [(FIGURES, 0)], v5);
            if self.stream.write_all(&out).await.is_err() {
                return self.report;
            }
        }
        loop {
            match take(&mut self.framer, &mut self.report) {
                ProbeStep::Nothing => {}
                ProbeStep::Figure => quiet_from = deadline.min(Instant::now() + FIGURES_QUIET),
                ProbeStep::End => break,
            }
            let room = self.framer.read_buffer(limits::SOCKET_READ_BYTES);
            match timeout_at(quiet_from, self.stream.read_buf(room)).await {
                Ok(Ok(bytes)) if bytes > 0 => {}
                // Brokers close a connection whose session another one has taken; not all say so before.
                Ok(_) => {
                    self.report.taken_over = session == ProbeSession::Own;
                    break;
                }
                Err(_) => break,
            }
        }
        // A session that was not there before is not left behind.
        let is_new = session == ProbeSession::Own && !self.report.session_present;
        let goodbye: &[u8] = match self.report.protocol {
            Protocol::V5 if is_new => &encode::DISCONNECT_AND_FORGET,
            Protocol::V5 | Protocol::V4 => &encode::DISCONNECT,
        };
        let _ = timeout(FIGURES_QUIET, self.stream.write_all(goodbye)).await;
        let _ = timeout(FIGURES_QUIET, self.stream.shutdown()).await;
        self.report
    }
}

fn report(
    protocol: Protocol,
    session_present: bool,
    session: ProbeSession<'_>,
    properties: &ConnAckProperties,
) -> BrokerReport {
    BrokerReport {
        protocol,
        session_present,
        taken_over: false,
        session_expiry_s: properties.session_expiry_interval.filter(|_| session == ProbeSession::Own),
        qos_max: properties.max_qos.unwrap_or(2),
        packet_bytes_max: properties.max_packet_size,
        figures: BTreeMap::new(),
    }
}

/// The effect of the packets that were taken.
enum ProbeStep {
    Nothing,
    Figure,
    End,
}

/// Takes all whole packets out of the buffer.
fn take(framer: &mut Framer, report: &mut BrokerReport) -> ProbeStep {
    let mut step = ProbeStep::Nothing;
    loop {
        match framer.next_frame() {
            Ok(None) => return step,
            Ok(Some(Frame::Publish(publish))) if publish.topic.starts_with(b"$SYS/") => {
                step = ProbeStep::Figure;
                if report.figures.len() < FIGURES_MAX {
                    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
                    report.figures.insert(text(publish.topic), text(publish.payload));
                }
            }
            Ok(Some(Frame::SubAck(suback))) => {
                let refused =
                    suback.return_codes.iter().any(|code| !matches!(code, SubscribeReasonCode::Success(_)));
                if refused {
                    return ProbeStep::End;
                }
                step = ProbeStep::Figure;
            }
            Ok(Some(Frame::Disconnect(end))) => {
                report.taken_over = end.reason_code == DisconnectReasonCode::SessionTakenOver;
                return ProbeStep::End;
            }
            Ok(Some(_)) => {}
            Err(_) => return ProbeStep::End,
        }
    }
}
