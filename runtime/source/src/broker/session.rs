//! One connection to the broker, from CONNECT to its end.

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use rumqttc::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, ConnAckProperties, ConnectProperties, ConnectReturnCode, Disconnect, DisconnectReasonCode,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{debug, error, info, warn};

use crate::broker::backoff::Backoff;
use crate::broker::host_state::HostState;
use crate::broker::settings::{BrokerSettings, Outbox, OutgoingPublish, Protocol, TopicFilter};
use crate::broker::subscription::{Subscription, SubscriptionEvent};
use crate::limits;
use crate::mqtt::connection_writer::{ConnectionWriter, KeepAlive, WriteEnd};
use crate::mqtt::control::{Frame, encode};
use crate::mqtt::error::PacketError;
use crate::mqtt::framing::{FrameLimits, Framer};
use crate::mqtt::publish::{Peer, Publish};
use crate::publish_receiver::{PublishReceiver, now_ns};
use crate::read_coalescer::ReadCoalescer;
use crate::sink::MessageSink;
use crate::status::{SourceStatus, StopSignal, past_deadline, stopped};
use tidegate_core::message::Received;
use tidegate_core::reason::Reason;

/// The time after which a SUBSCRIBE without an answer is sent again.
const SUBACK_TIMEOUT: Duration = Duration::from_secs(30);

/// The reason for which there is no session.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("cannot reach the broker: {0}")]
    Io(#[from] std::io::Error),
    #[error("no CONNACK within {} s", limits::BROKER_CONNECT_TIMEOUT_S)]
    Timeout,
    #[error("the broker refused us ({code:?}): {}{}", refusal(*.code), said(.why))]
    Refused { code: ConnectReturnCode, why: Option<String> },
    #[error("{0}; mqtt.share needs MQTT 5")]
    ShareNeedsV5(Box<ConnectError>),
    #[error("the broker has no shared subscriptions; mqtt.share must be empty")]
    NoSharedSubscriptions,
    #[error("the peer does not speak MQTT: {0}")]
    Packet(#[from] PacketError),
    #[error("the broker closed the connection instead of answering our CONNECT")]
    Closed,
    #[error("the broker answered our CONNECT with another packet than CONNACK")]
    NotConnAck,
}

impl ConnectError {
    /// True if the broker has refused the version of our CONNECT, or closed the connection on it, as brokers
    /// do that know no other version.
    pub fn may_be_the_version(&self) -> bool {
        self.is_the_version() || matches!(self, Self::Closed)
    }

    /// True if the broker has refused the version of our CONNECT.
    pub fn is_the_version(&self) -> bool {
        matches!(
            self,
            Self::Refused {
                code: ConnectReturnCode::RefusedProtocolVersion
                    | ConnectReturnCode::UnsupportedProtocolVersion,
                ..
            }
        )
    }

    /// The end of a connection after our CONNECT.
    fn after_connect(error: std::io::Error) -> Self {
        use std::io::ErrorKind;
        match error.kind() {
            ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::BrokenPipe
            | ErrorKind::UnexpectedEof => Self::Closed,
            _ => Self::Io(error),
        }
    }
}

/// A CONNACK's code (MQTT 3.1.1 section 3.2.2.3, MQTT 5 section 3.2.2.2) in words, with the settings that the
/// operator may look at.
fn refusal(code: ConnectReturnCode) -> &'static str {
    use ConnectReturnCode::*;
    match code {
        RefusedProtocolVersion | UnsupportedProtocolVersion => {
            "it does not speak this version of MQTT; see mqtt.protocol"
        }
        BadClientId | ClientIdentifierNotValid => "it does not accept this client_id",
        ServiceUnavailable | ServerUnavailable | ServerBusy => "it is unavailable",
        BadUserNamePassword => "bad user name or password; see mqtt.username and mqtt.password_file",
        NotAuthorized => "not authorised; see mqtt.username, mqtt.password_file and the broker's access list",
        _ => "see its log",
    }
}

/// A peer's reason string as it is shown: quoted, and no longer than a line.
fn said(why: &Option<String>) -> String {
    const CHARS_MAX: usize = 200;
    match why {
        Some(why) => format!(": {:?}", why.chars().take(CHARS_MAX).collect::<String>()),
        None => String::new(),
    }
}

/// The reason for which a session ended.
#[derive(Debug, thiserror::Error)]
pub enum SessionEnd {
    #[error("stopped")]
    Stopped,
    #[error("the output is blocked: admission.unsettled_messages_max messages wait for a result")]
    Blocked,
    #[error("the broker closed the connection")]
    Closed,
    #[error("the connection was lost: {0}")]
    Lost(#[from] std::io::Error),
    #[error("the broker ended the session ({code:?}){}", said(.why))]
    Disconnected { code: DisconnectReasonCode, why: Option<String> },
    #[error("the broker gave the session to another connection (SessionTakenOver)")]
    TakenOver,
    #[error("the broker sent something that is not MQTT: {0}")]
    Packet(#[from] PacketError),
    #[error(
        "the session delivers at QoS 2, which another program must have asked for under this client_id; \
         choose another client_id"
    )]
    ExactlyOnce,
    #[error("the broker sent a packet that only clients send")]
    Unexpected,
    #[error("the broker sent a PUBACK with code {code:#04x}, and we publish nothing that has one")]
    PubAck { code: u8 },
    #[error("{0}")]
    Write(WriteEnd),
    #[error("the session file cannot be written: {0}")]
    File(std::io::Error),
}

/// A broker that has taken our CONNECT.
pub struct AcceptedConnection<S> {
    coalescer: ReadCoalescer,
    stream: S,
    framer: Framer,
    pub session_present: bool,
    pub protocol: Protocol,
    /// Ours, or a shorter one that the broker asks for.
    keep_alive_s: u16,
    /// The largest packet that the broker takes.
    pub packet_bytes_max: usize,
    /// The state of the primary host that our CONNECT named in its will.
    pub host_state: Option<HostState>,
}

/// Sends CONNECT and reads CONNACK; the caller bounds the time.
pub async fn connect<S>(
    mut stream: S,
    settings: &BrokerSettings,
    protocol: Protocol,
) -> Result<AcceptedConnection<S>, ConnectError>
where
    S: AsyncRead + AsyncWrite + AsRawFd + Unpin,
{
    let mut out = Vec::new();
    let host_state = settings.sparkplug_host_id.as_ref().map(|host_id| HostState::new(host_id, now_ns()));
    let connect = encode::Connect {
        client_id: &settings.client_id,
        keep_alive_s: settings.keep_alive_s,
        username: (!settings.username.is_empty()).then_some(settings.username.as_str()),
        password: settings.password.as_deref(),
        will: host_state.as_ref().map(HostState::will),
    };
    let peer = match protocol {
        Protocol::V4 => {
            encode::connect(&mut out, &connect);
            Peer::V4
        }
        Protocol::V5 => {
            let properties = ConnectProperties {
                session_expiry_interval: Some(limits::BROKER_SESSION_EXPIRY_S),
                receive_maximum: Some(limits::BROKER_RECEIVE_MAXIMUM),
                ..ConnectProperties::new()
            };
            encode::connect_v5(&mut out, &connect, properties);
            Peer::BrokerV5
        }
    };
    stream.write_all(&out).await.map_err(ConnectError::after_connect)?;
    stream.flush().await.map_err(ConnectError::after_connect)?;
    let frames = FrameLimits {
        payload_bytes_max: settings.payload_bytes_max,
        payload_bytes_skipped_max: limits::MQTT_PACKET_BYTES_MAX,
    };
    let mut framer = Framer::for_peer(frames, peer);
    let connack = loop {
        match framer.next_frame()? {
            None => {}
            Some(Frame::ConnAck(connack)) => break *connack,
            Some(_) => return Err(ConnectError::NotConnAck),
        }
        let room = framer.read_buffer(limits::SOCKET_READ_BYTES);
        if stream.read_buf(room).await.map_err(ConnectError::after_connect)? == 0 {
            return Err(ConnectError::Closed);
        }
    };
    let ConnAck { session_present, code, properties } = connack;
    let properties = properties.unwrap_or_else(encode::connack_properties);
    if code != ConnectReturnCode::Success {
        return Err(ConnectError::Refused { code, why: properties.reason_string });
    }
    if settings.share.is_some() && properties.shared_subscription_available == Some(0) {
        return Err(ConnectError::NoSharedSubscriptions);
    }
    if let Some(expiry_s) =
        properties.session_expiry_interval.filter(|&s| s < limits::BROKER_SESSION_EXPIRY_S)
    {
        warn!(expiry_s, "the broker forgets our session, and what waits in it, when we are gone for so long");
    }
    Ok(AcceptedConnection {
        coalescer: ReadCoalescer::new(&stream),
        stream,
        framer,
        session_present,
        protocol,
        keep_alive_s: keep_alive_s(settings.keep_alive_s, &properties),
        packet_bytes_max: properties.max_packet_size.map_or(usize::MAX, |bytes| bytes as usize),
        host_state,
    })
}

/// A broker's keep-alive is to be used instead of ours [MQTT-3.1.2-21]; pings may come sooner, and 0 means
/// that it asks for none.
fn keep_alive_s(ours: u16, properties: &ConnAckProperties) -> u16 {
    properties.server_keep_alive.filter(|&s| s > 0).map_or(ours, |theirs| theirs.min(ours))
}

/// One connection of the session, with all that it uses.
pub struct BrokerSession<'a, I> {
    pub settings: &'a BrokerSettings,
    pub receiver: PublishReceiver<I>,
    pub subscription: Subscription<'a>,
    pub status: &'a watch::Sender<SourceStatus>,
    pub outbox: &'a mut Outbox,
    pub protocol: Protocol,
    /// The largest packet that the broker takes.
    pub packet_bytes_max: usize,
    /// The state of the primary host that this session is.
    pub host_state: Option<HostState>,
    /// Somebody said that this host is offline.
    pub is_contradicted: bool,
}

/// Bytes of a PUBLISH at QoS 0 that are neither topic nor payload, at most.
const PUBLISH_OVERHEAD_BYTES: usize = 5 + 2 + 1;

/// The end of a session by a DISCONNECT.
fn disconnected(end: Disconnect) -> SessionEnd {
    match end.reason_code {
        DisconnectReasonCode::SessionTakenOver => SessionEnd::TakenOver,
        code => {
            let why = end.properties.and_then(|properties| properties.reason_string);
            SessionEnd::Disconnected { code, why }
        }
    }
}

impl<I: MessageSink> BrokerSession<'_, I> {
    /// Receives until the connection ends. Nothing of it is acknowledged afterwards.
    pub async fn run<S>(mut self, accepted: AcceptedConnection<S>, stop: &mut StopSignal) -> SessionEnd
    where
        S: AsyncRead + AsyncWrite + Send,
    {
        let keep_alive = Duration::from_secs(u64::from(accepted.keep_alive_s));
        let ping = KeepAlive { every: keep_alive / 2, silence_max: keep_alive * 3 / 4 };
        let tracker = self.receiver.tracker.clone();
        let connection_writer = Arc::new(ConnectionWriter::new(tracker.clone()));
        let (mut reader, mut writer) = tokio::io::split(accepted.stream);
        let (mut framer, mut coalescer) = (accepted.framer, accepted.coalescer);
        let deadline = stop.clone();

        let end = {
            let mut reading =
                std::pin::pin!(self.read(&mut reader, &mut framer, &mut coalescer, &connection_writer, stop));
            let mut writing = std::pin::pin!(connection_writer.write(&mut writer, Some(ping)));
            let end = tokio::select! {
                end = &mut reading => end,
                () = past_deadline(deadline.clone()) => {
                    tracker.end();
                    return SessionEnd::Stopped;
                }
                end = &mut writing => {
                    tracker.end();
                    connection_writer.close();
                    // A group that downstream is just taking is taken whole; then reading ends.
                    let _ = reading.await;
                    return SessionEnd::Write(end);
                }
            };
            let written = match end {
                SessionEnd::Stopped => {
                    connection_writer.drain_until_stopped(0, writing, deadline.clone()).await
                }
                // Messages that are settled already are still acknowledged; the rest comes again.
                SessionEnd::Blocked => {
                    connection_writer.drain(Instant::now());
                    writing.await
                }
                _ => {
                    tracker.end();
                    return end;
                }
            };
            match written {
                WriteEnd::Drained => end,
                lost => {
                    tracker.end();
                    return match end {
                        SessionEnd::Stopped => end,
                        _ => SessionEnd::Write(lost),
                    };
                }
            }
        };
        tracker.end();
        let patience = Instant::now() + Duration::from_secs(limits::BROKER_DISCONNECT_S);
        let until = match end {
            SessionEnd::Stopped => deadline.borrow().map_or(patience, |deadline| patience.min(deadline)),
            _ => patience,
        };
        let mut last = Vec::new();
        if let Some(state) = &mut self.host_state {
            state.say_offline(now_ns(), &mut last, self.protocol == Protocol::V5);
        }
        last.extend_from_slice(&encode::DISCONNECT);
        let _ = timeout_at(until, disconnect_gracefully(&mut reader, &mut writer, &last)).await;
        end
    }

    async fn read<S: AsyncRead>(
        &mut self,
        reader: &mut ReadHalf<S>,
        framer: &mut Framer,
        coalescer: &mut ReadCoalescer,
        connection_writer: &ConnectionWriter,
        stop: &mut StopSignal,
    ) -> SessionEnd {
        match self.read_until_end(reader, framer, coalescer, connection_writer, stop).await {
            Ok(end) | Err(end) => end,
        }
    }

    async fn read_until_end<S: AsyncRead>(
        &mut self,
        reader: &mut ReadHalf<S>,
        framer: &mut Framer,
        coalescer: &mut ReadCoalescer,
        connection_writer: &ConnectionWriter,
        stop: &mut StopSignal,
    ) -> Result<SessionEnd, SessionEnd> {
        let window = self.receiver.tracker.window().clone();
        let blocked_max = Duration::from_secs(u64::from(self.settings.keep_alive_s)) / 2;
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        let mut subscribe_backoff = Backoff::default();
        let mut subscribe_at = Some(Instant::now());
        loop {
            let mut group = Vec::new();
            let mut granted = None;
            self.take(framer, &mut group, &mut granted)?;
            if self.is_contradicted
                && let Some(state) = self.host_state.as_mut().filter(|state| state.may_repeat())
            {
                self.is_contradicted = false;
                warn!(
                    topic = state.topic(),
                    "somebody says that this host is offline: it says again that it is not"
                );
                connection_writer.send(|out| state.say_online_again(out, self.protocol == Protocol::V5));
            }
            match granted {
                Some(true) => {
                    subscribe_backoff.reset();
                    subscribe_at = Some(Instant::now());
                }
                Some(false) => subscribe_at = Some(Instant::now() + subscribe_backoff.next()),
                None => {}
            }
            if subscribe_at.is_some_and(|at| Instant::now() >= at) {
                self.send_subscribe(connection_writer)?;
                // A broker that never answers is asked again.
                subscribe_at = (!self.subscription.is_granted()).then(|| Instant::now() + SUBACK_TIMEOUT);
            }
            let more = group.len() == limits::GROUP_MESSAGES_MAX;
            coalescer.record_read(group.len());
            if !group.is_empty() {
                connection_writer.record_pause();
                let back = self.receiver.sink.accept(group).await;
                debug_assert!(back.is_none(), "a broker's messages are refused over their rate");
            }
            if window.is_full() {
                connection_writer.record_pause();
                tokio::select! {
                    biased;
                    () = connection_writer.closed() => return Ok(SessionEnd::Closed),
                    _ = stopped(stop) => return Ok(SessionEnd::Stopped),
                    room = timeout(blocked_max, window.until_not_full()) => {
                        if room.is_err() {
                            return Ok(SessionEnd::Blocked);
                        }
                    }
                }
            }
            if more {
                // The next groups lie in the buffer; look up between them all the same.
                if stop.borrow().is_some() {
                    return Ok(SessionEnd::Stopped);
                }
                continue;
            }
            if framer.capacity() > 2 * limits::SOCKET_READ_BYTES && !framer.has_partial_frame() {
                framer.shrink(limits::SOCKET_READ_BYTES);
            }
            if !framer.has_partial_frame() {
                coalescer.wait().await;
            }
            connection_writer.record_reading();
            let room = framer.read_buffer(limits::SOCKET_READ_BYTES);
            loop {
                tokio::select! {
                    biased;
                    () = connection_writer.closed() => return Ok(SessionEnd::Closed),
                    _ = stopped(stop) => return Ok(SessionEnd::Stopped),
                    OutgoingPublish { topic, payload } = outgoing(self.outbox),
                        if connection_writer.waiting_bytes() < limits::CONTROL_PACKET_BYTES_MAX =>
                    {
                        if topic.len() + payload.len() + PUBLISH_OVERHEAD_BYTES > self.packet_bytes_max {
                            debug!(topic, bytes = payload.len(), "larger than what the broker takes: not published");
                        } else {
                            connection_writer.send(|out| encode::publish(out, &topic, &payload, self.protocol == Protocol::V5));
                        }
                    }
                    _ = tick.tick() => {
                        self.subscription.record_alive();
                        if self.is_contradicted || subscribe_at.is_some_and(|at| Instant::now() >= at) {
                            break;
                        }
                    }
                    read = reader.read_buf(room) => match read? {
                        0 => return Ok(SessionEnd::Closed),
                        _ => break,
                    }
                }
            }
        }
    }

    fn send_subscribe(&mut self, connection_writer: &ConnectionWriter) -> Result<(), SessionEnd> {
        let mut out = Vec::new();
        self.subscription.encode_requests(&mut out).map_err(SessionEnd::File)?;
        if self.subscription.is_granted() {
            self.status.send_modify(|status| {
                status.subscribed = true;
                status.last_error = None;
            });
        }
        if self.subscription.is_granted()
            && let Some(state) = &mut self.host_state
        {
            state.say_online(&mut out, self.protocol == Protocol::V5);
        }
        connection_writer.send(|outbox| outbox.extend_from_slice(&out));
        Ok(())
    }

    /// Takes whole packets out of the buffer, up to one group of messages.
    fn take(
        &mut self,
        framer: &mut Framer,
        group: &mut Vec<Received>,
        granted: &mut Option<bool>,
    ) -> Result<(), SessionEnd> {
        let received_ns = now_ns();
        self.receiver.tracker.record_read();
        while group.len() < limits::GROUP_MESSAGES_MAX {
            let Some(packet) = framer.next_frame()? else { return Ok(()) };
            match packet {
                Frame::Publish(publish) if publish.qos == QoS::ExactlyOnce => {
                    return Err(SessionEnd::ExactlyOnce);
                }
                Frame::Publish(publish) if self.is_refused_topic(publish.topic) => {
                    // Ours come at QoS 0 and are nothing to count.
                    if publish.qos == QoS::AtLeastOnce {
                        let message = self.receiver.message(&publish, received_ns);
                        self.receiver.sink.discard(message, Reason::AnswerTopic);
                    }
                }
                Frame::Publish(publish) if self.is_host_state(&publish) => {
                    // Subscribed to at QoS 0: nothing to acknowledge, and nothing to decode.
                }
                Frame::Publish(publish) => self.receiver.receive(&publish, received_ns, group),
                Frame::PingResp => {}
                Frame::SubAck(suback) => {
                    let event = self.subscription.suback(suback.pkid, &suback.return_codes);
                    let event = event.map_err(SessionEnd::File)?;
                    *granted = self.record_event(event).or(*granted);
                }
                Frame::UnsubAck(unsuback) => {
                    let event = self.subscription.unsuback(unsuback.pkid, &unsuback.reasons);
                    let event = event.map_err(SessionEnd::File)?;
                    *granted = self.record_event(event).or(*granted);
                }
                Frame::Disconnect(end) if self.protocol == Protocol::V5 => return Err(disconnected(*end)),
                Frame::PubAck { packet_id, code } => self.record_puback(packet_id, code)?,
                _ => return Err(SessionEnd::Unexpected),
            }
        }
        Ok(())
    }

    /// True for the state of the host that this session is, and of no other.
    fn is_host_state(&mut self, publish: &Publish<'_>) -> bool {
        let Some(state) = &self.host_state else { return false };
        if !state.is_topic(publish.topic) || publish.qos != QoS::AtMostOnce {
            return false;
        }
        self.is_contradicted |= state.is_contradicted(publish.payload, publish.retain);
        true
    }

    /// Takes the PUBACK of a message of our own.
    fn record_puback(&self, packet_id: u16, code: u8) -> Result<(), SessionEnd> {
        match &self.host_state {
            Some(state) if state.sent(packet_id) && code < 0x80 => Ok(()),
            Some(state) if state.sent(packet_id) => {
                let topic = state.topic();
                error!(topic, code, "the broker does not take the state of this host; see its access list");
                Ok(())
            }
            _ => Err(SessionEnd::PubAck { code }),
        }
    }

    /// True for the topic on which refusals are published: a refusal of such a message would come back, too.
    fn is_refused_topic(&self, topic: &[u8]) -> bool {
        let answers = self.settings.answer_topic.as_ref().filter(|answers| answers.own_type().is_some());
        answers.is_some_and(|answers| std::str::from_utf8(topic).is_ok_and(|topic| answers.is_answer(topic)))
    }

    /// Logs an event. Some(true) if the next request can be sent, Some(false) if it is to be tried again later.
    fn record_event(&self, event: SubscriptionEvent) -> Option<bool> {
        match event {
            SubscriptionEvent::Granted(granted) => {
                for (TopicFilter { filter, qos: wanted }, qos) in
                    self.subscription.wanted().iter().zip(granted)
                {
                    info!(filter, qos, "subscribed");
                    if qos < *wanted {
                        warn!(filter, "the broker grants QoS 0 only: what it loses on the way is lost");
                    }
                }
                Some(true)
            }
            SubscriptionEvent::Refused { index, reason } => {
                let TopicFilter { filter, .. } = &self.subscription.wanted()[index];
                error!(filter, ?reason, "the broker refused our subscription; see its access list");
                self.status.send_modify(|status| {
                    status.subscribed = false;
                    status.last_error =
                        Some(format!("the broker refused the subscription to {filter:?} ({reason:?})"));
                });
                Some(false)
            }
            SubscriptionEvent::Dropped => {
                info!("an earlier filter of this session was given up");
                None
            }
            SubscriptionEvent::Kept(reason) => {
                warn!(?reason, "the broker does not give up an earlier filter of this session");
                None
            }
            SubscriptionEvent::Unasked => None,
        }
    }
}

/// Sends the last packets and reads on, throwing it away, until the broker has closed the connection: a
/// socket that is closed while the broker still sends is reset, and the broker then forgets PUBACKs
/// that it has not read yet.
async fn disconnect_gracefully<S: AsyncRead + AsyncWrite>(
    reader: &mut ReadHalf<S>,
    writer: &mut WriteHalf<S>,
    last: &[u8],
) -> std::io::Result<()> {
    writer.write_all(last).await?;
    writer.shutdown().await?;
    tokio::io::copy(reader, &mut tokio::io::sink()).await.map(drop)
}

/// The next message to publish; it never completes if nothing is published.
async fn outgoing(outbox: &mut Outbox) -> OutgoingPublish {
    let next = match outbox {
        Some(outbox) => outbox.recv().await,
        None => None,
    };
    match next {
        Some(next) => next,
        None => std::future::pending().await,
    }
}
