//! One connection to the broker, from CONNECT to its end.

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{error, info, warn};

use super::backoff::Backoff;
use super::subscription::{Answer, Subscription};
use super::{BrokerSettings, Outbox, Outgoing};
use crate::domain::limits;
use crate::domain::message::Received;
use crate::domain::reason::Reason;
use crate::source::framer::{FrameLimits, Framer};
use crate::source::gathering::Gathering;
use crate::source::intake::Intake;
use crate::source::link::{Link, Ping, WriteEnd};
use crate::source::packet::{Packet, PacketError, QoS, encode};
use crate::source::reception::{Reception, now_ns};
use crate::source::{SourceStatus, Stop, past_deadline, stopped};

/// How long a SUBSCRIBE may stay without an answer before it is sent again.
const SUBACK_TIMEOUT: Duration = Duration::from_secs(30);

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("cannot reach the broker: {0}")]
    Io(#[from] std::io::Error),
    #[error("no CONNACK within {} s", limits::BROKER_CONNECT_TIMEOUT_S)]
    Timeout,
    #[error("the broker refused us: {}", refusal(*.0))]
    Refused(u8),
    #[error("the peer does not speak MQTT 3.1.1: {0}")]
    Packet(#[from] PacketError),
    #[error("the broker closed the connection instead of answering our CONNECT")]
    Closed,
    #[error("the broker answered our CONNECT with another packet than CONNACK")]
    NotConnAck,
}

/// What a CONNACK's return code says (section 3.2.2.3), and what the operator may look at.
fn refusal(code: u8) -> String {
    match code {
        1 => "it does not speak MQTT 3.1.1".into(),
        2 => "it does not accept this client_id".into(),
        3 => "it is unavailable".into(),
        4 => "bad user name or password; see mqtt.username and mqtt.password_file".into(),
        5 => "not authorised; see mqtt.username, mqtt.password_file and the broker's access list".into(),
        code => format!("return code {code}"),
    }
}

/// Why a session ended.
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
    #[error("the broker sent something that is not MQTT 3.1.1: {0}")]
    Packet(#[from] PacketError),
    #[error(
        "the session delivers at QoS 2, which another program must have asked for under this client_id; \
         choose another client_id"
    )]
    ExactlyOnce,
    #[error("the broker sent a packet that only clients send")]
    Unexpected,
    #[error("{0}")]
    Write(WriteEnd),
    #[error("the session file cannot be written: {0}")]
    File(std::io::Error),
}

/// A broker that has taken our CONNECT.
pub struct Accepted<S> {
    gathering: Gathering,
    stream: S,
    framer: Framer,
    pub session_present: bool,
}

/// CONNECT and CONNACK; the caller bounds the time.
pub async fn connect<S>(mut stream: S, settings: &BrokerSettings) -> Result<Accepted<S>, ConnectError>
where
    S: AsyncRead + AsyncWrite + AsRawFd + Unpin,
{
    let mut out = Vec::new();
    encode::connect(
        &mut out,
        &encode::Connect {
            client_id: &settings.client_id,
            keep_alive_s: settings.keep_alive_s,
            username: (!settings.username.is_empty()).then_some(settings.username.as_str()),
            password: settings.password.as_deref(),
        },
    );
    stream.write_all(&out).await?;
    stream.flush().await?;
    let mut framer = Framer::new(FrameLimits {
        payload_bytes_max: settings.payload_bytes_max,
        payload_bytes_skipped_max: limits::MQTT_PACKET_BYTES_MAX,
    });
    let session_present = loop {
        match framer.next_packet()? {
            None => {}
            Some(Packet::ConnAck { session_present, code: 0 }) => break session_present,
            Some(Packet::ConnAck { code, .. }) => return Err(ConnectError::Refused(code)),
            Some(_) => return Err(ConnectError::NotConnAck),
        }
        if stream.read_buf(framer.room(limits::SOCKET_READ_BYTES)).await? == 0 {
            return Err(ConnectError::Closed);
        }
    };
    Ok(Accepted { gathering: Gathering::of(&stream), stream, framer, session_present })
}

/// What one session works with.
pub struct Session<'a, I> {
    pub settings: &'a BrokerSettings,
    pub reception: Reception<I>,
    pub subscription: Subscription<'a>,
    pub status: &'a watch::Sender<SourceStatus>,
    pub outbox: &'a mut Outbox,
}

impl<I: Intake> Session<'_, I> {
    /// Receives until something ends it. Nothing of this connection is acknowledged afterwards.
    pub async fn run<S>(mut self, accepted: Accepted<S>, stop: &mut Stop) -> SessionEnd
    where
        S: AsyncRead + AsyncWrite + Send,
    {
        let keep_alive = Duration::from_secs(u64::from(self.settings.keep_alive_s));
        let ping = Ping { every: keep_alive / 2, silence_max: keep_alive * 3 / 4 };
        let connection = self.reception.connection.clone();
        let link = Arc::new(Link::new(connection.clone()));
        let (mut reader, mut writer) = tokio::io::split(accepted.stream);
        let (mut framer, mut gathering) = (accepted.framer, accepted.gathering);
        let deadline = stop.clone();

        let end = {
            let mut reading =
                std::pin::pin!(self.read(&mut reader, &mut framer, &mut gathering, &link, stop));
            let mut writing = std::pin::pin!(link.write(&mut writer, Some(ping)));
            let end = tokio::select! {
                end = &mut reading => end,
                () = past_deadline(deadline.clone()) => {
                    connection.end();
                    return SessionEnd::Stopped;
                }
                end = &mut writing => {
                    connection.end();
                    link.close();
                    // What downstream is just taking it takes whole; then reading ends.
                    let _ = reading.await;
                    return SessionEnd::Write(end);
                }
            };
            let drained_by = match end {
                SessionEnd::Stopped => deadline.borrow().unwrap_or_else(Instant::now),
                // What is settled already still leaves; the rest comes again.
                SessionEnd::Blocked => Instant::now(),
                _ => {
                    connection.end();
                    return end;
                }
            };
            link.drain(drained_by);
            match writing.await {
                WriteEnd::Drained => end,
                lost => {
                    connection.end();
                    return match end {
                        SessionEnd::Stopped => end,
                        _ => SessionEnd::Write(lost),
                    };
                }
            }
        };
        connection.end();
        let patience = Instant::now() + Duration::from_secs(limits::BROKER_GOODBYE_S);
        let until = match end {
            SessionEnd::Stopped => deadline.borrow().map_or(patience, |deadline| patience.min(deadline)),
            _ => patience,
        };
        let _ = timeout_at(until, say_goodbye(&mut reader, &mut writer)).await;
        end
    }

    async fn read<S: AsyncRead>(
        &mut self,
        reader: &mut ReadHalf<S>,
        framer: &mut Framer,
        gathering: &mut Gathering,
        link: &Link,
        stop: &mut Stop,
    ) -> SessionEnd {
        match self.read_on(reader, framer, gathering, link, stop).await {
            Ok(end) | Err(end) => end,
        }
    }

    async fn read_on<S: AsyncRead>(
        &mut self,
        reader: &mut ReadHalf<S>,
        framer: &mut Framer,
        gathering: &mut Gathering,
        link: &Link,
        stop: &mut Stop,
    ) -> Result<SessionEnd, SessionEnd> {
        let window = self.reception.connection.window().clone();
        let blocked_max = Duration::from_secs(u64::from(self.settings.keep_alive_s)) / 2;
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        let mut asking = Backoff::default();
        let mut ask_at = Some(Instant::now());
        loop {
            let mut group = Vec::new();
            let mut granted = None;
            self.take(framer, &mut group, &mut granted)?;
            match granted {
                Some(true) => {
                    asking.reset();
                    ask_at = Some(Instant::now());
                }
                Some(false) => ask_at = Some(Instant::now() + asking.next()),
                None => {}
            }
            if ask_at.is_some_and(|at| Instant::now() >= at) {
                self.ask(link)?;
                // A broker that never answers is asked again.
                ask_at = (!self.subscription.is_granted()).then(|| Instant::now() + SUBACK_TIMEOUT);
            }
            let more = group.len() == limits::INTAKE_GROUP_MESSAGES_MAX;
            gathering.took(group.len());
            if !group.is_empty() {
                link.note_pause();
                self.reception.intake.accept(group).await;
            }
            if window.is_full() {
                link.note_pause();
                tokio::select! {
                    biased;
                    () = link.closed() => return Ok(SessionEnd::Closed),
                    _ = stopped(stop) => return Ok(SessionEnd::Stopped),
                    room = timeout(blocked_max, window.room()) => {
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
            if framer.capacity() > 2 * limits::SOCKET_READ_BYTES && !framer.is_midway() {
                framer.shrink(limits::SOCKET_READ_BYTES);
            }
            if !framer.is_midway() {
                gathering.pause().await;
            }
            link.note_reading();
            let room = framer.room(limits::SOCKET_READ_BYTES);
            loop {
                tokio::select! {
                    biased;
                    () = link.closed() => return Ok(SessionEnd::Closed),
                    _ = stopped(stop) => return Ok(SessionEnd::Stopped),
                    Outgoing { topic, payload } = outgoing(self.outbox),
                        if link.waiting_bytes() < limits::CONTROL_PACKET_BYTES_MAX =>
                    {
                        link.send(|out| encode::publish(out, &topic, &payload));
                    }
                    _ = tick.tick() => {
                        self.subscription.touch();
                        if ask_at.is_some_and(|at| Instant::now() >= at) {
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

    fn ask(&mut self, link: &Link) -> Result<(), SessionEnd> {
        let mut out = Vec::new();
        self.subscription.ask(&mut out).map_err(SessionEnd::File)?;
        if self.subscription.is_granted() {
            self.status.send_modify(|status| {
                status.subscribed = true;
                status.last_error = None;
            });
        }
        link.send(|outbox| outbox.extend_from_slice(&out));
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
        self.reception.connection.note_read();
        while group.len() < limits::INTAKE_GROUP_MESSAGES_MAX {
            let Some(packet) = framer.next_packet()? else { return Ok(()) };
            match packet {
                Packet::Publish(publish) if publish.qos == QoS::ExactlyOnce => {
                    return Err(SessionEnd::ExactlyOnce);
                }
                Packet::Publish(publish) if self.is_answer(publish.topic) => {
                    // Ours come at QoS 0 and are nothing to count.
                    if publish.qos == QoS::AtLeastOnce {
                        let message = self.reception.message(&publish, received_ns);
                        self.reception.intake.drop_message(message, Reason::AnswerTopic);
                    }
                }
                Packet::Publish(publish) => self.reception.receive(&publish, received_ns, group),
                Packet::PingResp => {}
                Packet::SubAck { packet_id, codes } => {
                    let answer = self.subscription.suback(packet_id, codes).map_err(SessionEnd::File)?;
                    *granted = self.note(answer).or(*granted);
                }
                Packet::UnsubAck { packet_id } => {
                    let answer = self.subscription.unsuback(packet_id).map_err(SessionEnd::File)?;
                    *granted = self.note(answer).or(*granted);
                }
                _ => return Err(SessionEnd::Unexpected),
            }
        }
        Ok(())
    }

    /// Whether a message came on the topic that we answer on: an answer to it would come back, too.
    fn is_answer(&self, topic: &[u8]) -> bool {
        let answers = self.settings.answer_topic.as_ref().filter(|answers| answers.own_type().is_some());
        answers.is_some_and(|answers| std::str::from_utf8(topic).is_ok_and(|topic| answers.is_answer(topic)))
    }

    /// Tells the operator; Some where there is something more to ask for.
    fn note(&self, answer: Answer) -> Option<bool> {
        let filter = self.settings.filter.as_str();
        match answer {
            Answer::Granted(qos) => {
                info!(filter, qos, "subscribed");
                if qos == 0 {
                    warn!(filter, "the broker grants QoS 0 only: what it loses on the way is lost");
                }
                Some(true)
            }
            Answer::Refused => {
                error!(filter, "the broker refused our subscription; see its access list");
                self.status.send_modify(|status| {
                    status.subscribed = false;
                    status.last_error = Some(format!("the broker refused the subscription to {filter:?}"));
                });
                Some(false)
            }
            Answer::Dropped => {
                info!("an earlier filter of this session was given up");
                None
            }
            Answer::Unasked => None,
        }
    }
}

/// Sends DISCONNECT and reads on, throwing it away, until the broker has closed the connection: a
/// socket that is closed while the broker still sends is reset, and the broker then forgets PUBACKs
/// that it has not read yet.
async fn say_goodbye<S: AsyncRead + AsyncWrite>(
    reader: &mut ReadHalf<S>,
    writer: &mut WriteHalf<S>,
) -> std::io::Result<()> {
    writer.write_all(&encode::DISCONNECT).await?;
    writer.shutdown().await?;
    tokio::io::copy(reader, &mut tokio::io::sink()).await.map(drop)
}

/// The next message to publish; never where nothing is published.
async fn outgoing(outbox: &mut Outbox) -> Outgoing {
    let next = match outbox {
        Some(outbox) => outbox.recv().await,
        None => None,
    };
    match next {
        Some(next) => next,
        None => std::future::pending().await,
    }
}
