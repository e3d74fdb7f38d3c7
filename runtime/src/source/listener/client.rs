//! One device's connection, from its first byte to its end.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rumqttc::QoS;
use rumqttc::v5::mqttbytes::v5::DisconnectReasonCode;
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::Shared;
use super::doors::{Ending, Pass};
use super::greeting::{Greeting, Sender};
use super::input::Input;
use super::packet_memory::PacketMemoryError;
use super::socket::{DeviceSocket, Writer};
use crate::domain::detail::{Detail, truncate};
use crate::domain::identity::Identity;
use crate::domain::limits;
use crate::domain::message::{Received, Via};
use crate::domain::reason::Reason;
use crate::domain::slot::{Connection, Tells};
use crate::domain::topic::TopicTemplate;
use crate::source::gathering::Gathering;
use crate::source::intake::Intake;
use crate::source::link::{Link, WriteEnd};
use crate::source::mqtt::control::{Frame, encode};
use crate::source::mqtt::error::PacketError;
use crate::source::mqtt::framing::FrameLimits;
use crate::source::mqtt::publish::Publish;
use crate::source::mqtt::reader::text;
use crate::source::mqtt::reason_codes::disconnect_code;
use crate::source::reception::{Reception, now_ns};
use crate::source::{Stop, past_deadline, stopped};

/// How a connection ended, with what there is to say about it.
#[derive(Debug)]
pub struct End {
    pub ending: Ending,
    pub detail: String,
    /// The reason code of the DISCONNECT to a device that speaks MQTT 5.
    pub code: DisconnectReasonCode,
    /// The last packet to it may be cut off: nothing can follow.
    pub cut: bool,
}

impl End {
    pub fn new(ending: Ending, detail: impl Into<String>) -> Self {
        let code = match ending {
            Ending::TakenOver => DisconnectReasonCode::SessionTakenOver,
            Ending::KeepAlive => DisconnectReasonCode::KeepAliveTimeout,
            Ending::Stopped => DisconnectReasonCode::ServerShuttingDown,
            Ending::ExactlyOnce => DisconnectReasonCode::QoSNotSupported,
            Ending::Malformed => DisconnectReasonCode::MalformedPacket,
            Ending::Unexpected => DisconnectReasonCode::ProtocolError,
            Ending::Buffers => DisconnectReasonCode::QuotaExceeded,
            _ => DisconnectReasonCode::UnspecifiedError,
        };
        Self { ending, detail: detail.into(), code, cut: false }
    }
}

impl From<Ending> for End {
    fn from(ending: Ending) -> Self {
        Self::new(ending, String::new())
    }
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::new(Ending::Lost, error.to_string())
    }
}

impl From<PacketMemoryError> for End {
    fn from(error: PacketMemoryError) -> Self {
        Self::new(Ending::Buffers, error.to_string())
    }
}

impl From<PacketError> for End {
    fn from(error: PacketError) -> Self {
        Self { code: disconnect_code(&error), ..Self::new(Ending::Malformed, error.to_string()) }
    }
}

/// Serves one connection to its end.
pub async fn serve<I: Intake>(
    mut socket: DeviceSocket,
    certificate: Option<Result<Identity, String>>,
    pass: &Pass,
    shared: &Shared<I>,
    mut stop: Stop,
) -> End {
    let (reader, mut writer) = socket.split();
    let payload_bytes_max = shared.settings.payload_bytes_max;
    let frames = FrameLimits {
        payload_bytes_max,
        payload_bytes_skipped_max: payload_bytes_max.saturating_mul(limits::LISTENER_OVERSIZE_FACTOR),
    };
    let taken_over = Arc::new(Notify::new());
    let lease = pass.packet_lease(taken_over.clone());
    let mut input = Input::new(reader, frames, shared.doors.counters.clone(), lease);
    let greeting = Greeting { shared, pass, certificate, taken_over: &taken_over, frames };
    let greeted = tokio::select! {
        biased;
        _ = stopped(&mut stop) => return Ending::Stopped.into(),
        greeted = greeting.greet(&mut input, &mut writer) => greeted,
    };
    input.packet_began = None;
    let greeted = match greeted {
        Ok(greeted) => greeted,
        Err(end) => return end,
    };

    let tells = if greeted.peer_limits.is_some() { Tells::Acknowledgement } else { Tells::Nothing };
    let session = greeted.session.as_ref().map(|(_, session)| session.clone());
    let connection = Connection::of_device(shared.window.clone(), tells, session);
    // Also where a panic ends this task: what is unsettled is to come again.
    let _ended = Ended(connection.clone());
    let link = Link::speaking(connection.clone(), greeted.peer_limits);
    let sender = greeted.sender.as_ref();
    if let Some(sender) = sender {
        input.lease.set_tenant(&sender.identity.tenant);
    }
    let device = Device {
        reception: Reception {
            intake: shared.intake.clone(),
            connection: connection.clone(),
            via: if sender.is_some() { Via::Proven } else { Via::Listener },
            // To us a message that a device wants retained is a message like any other.
            drops_retained: false,
            redelivered: shared.doors.counters.redelivered.clone(),
        },
        silence_max: (greeted.keep_alive_s > 0)
            .then(|| Duration::from_millis(u64::from(greeted.keep_alive_s) * 1500)),
        taken_over: &taken_over,
        link: &link,
        sender,
        topics: &shared.settings.topics,
        speaks_5: greeted.peer_limits.is_some(),
        foreign_publishes: &shared.doors.counters.foreign_publishes,
    };
    let end = device.run(&mut input, &mut writer, &mut stop).await;
    connection.end();
    if let Some((of, session)) = &greeted.session {
        shared.sessions.leave(of, session);
    }
    // Its client id is free before it has taken the news.
    drop(greeted.name);
    let said_by_us = !end.cut && !matches!(end.ending, Ending::Left | Ending::Lost | Ending::SlowReader);
    if let Some(limits) = greeted.peer_limits.filter(|_| said_by_us) {
        let mut out = Vec::new();
        encode::disconnect(&mut out, end.code, &end.detail, limits);
        let said = timeout(Duration::from_millis(limits::LINGER_MS), async {
            writer.write_all(&out).await?;
            writer.shutdown().await
        });
        if let Ok(Ok(())) = said.await {
            input.linger().await;
        }
    } else if said_by_us {
        // In TLS the peer can tell this from a connection that was cut.
        let said = timeout(Duration::from_millis(limits::LINGER_MS), writer.shutdown()).await;
        if let (Ok(Ok(())), Ending::Stopped) = (said, &end.ending) {
            // Its last packets are PUBACKs.
            input.linger().await;
        }
    }
    end
}

/// A connection that is over when this is dropped.
struct Ended(Arc<Connection>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// A device that was greeted.
struct Device<'a, I> {
    reception: Reception<I>,
    silence_max: Option<Duration>,
    /// Notified when another connection takes the client id over, or the memory of unfinished packets
    /// is given to others.
    taken_over: &'a Notify,
    link: &'a Link,
    /// Who it is, where it has proved that: then only its own topics are its to publish to.
    sender: Option<&'a Sender>,
    topics: &'a TopicTemplate,
    speaks_5: bool,
    foreign_publishes: &'a std::sync::atomic::AtomicU64,
}

impl<I: Intake> Device<'_, I> {
    async fn run(&self, input: &mut Input<'_>, writer: &mut Writer<'_>, stop: &mut Stop) -> End {
        let connection = &self.reception.connection;
        let deadline = stop.clone();
        let mut reading = std::pin::pin!(self.read(input, stop));
        let mut writing = std::pin::pin!(self.link.write(writer, None));
        let end = tokio::select! {
            end = &mut reading => end,
            () = past_deadline(deadline.clone()) => return End { cut: true, ..Ending::Stopped.into() },
            end = &mut writing => {
                connection.end();
                self.link.close();
                // What downstream is just taking it takes whole; then reading ends.
                let _ = reading.await;
                return match end {
                    WriteEnd::SlowReader => End::new(Ending::SlowReader, end.to_string()),
                    WriteEnd::Unsettled => End::new(Ending::Unsettled, end.to_string()),
                    end => End::new(Ending::Lost, end.to_string()),
                };
            }
        };
        let Err(end) = end else {
            // Stopping: the PUBACKs of what settles in time still leave.
            let deadline = deadline.borrow().unwrap_or_else(Instant::now);
            self.link.drain(deadline);
            writing.await;
            return End::new(Ending::Stopped, "the gateway stops");
        };
        if self.speaks_5 && !matches!(end.ending, Ending::Left | Ending::Lost) {
            // What is settled is acknowledged, and no packet is cut off before the DISCONNECT.
            self.link.drain(Instant::now());
            if !matches!(
                timeout(Duration::from_millis(limits::LINGER_MS), writing).await,
                Ok(WriteEnd::Drained)
            ) {
                return End { ending: Ending::SlowReader, ..end };
            }
        }
        end
    }

    /// Reads until the connection ends, or Ok when we are to stop.
    async fn read(&self, input: &mut Input<'_>, stop: &mut Stop) -> Result<(), End> {
        let connection = &self.reception.connection;
        let window = connection.window();
        let mut gathering = Gathering::of(input.socket());
        loop {
            let mut group = Vec::new();
            let left = self.take(input, &mut group);
            gathering.took(group.len());
            let pause = self.sender.map_or(Duration::ZERO, |sender| sender.pass.pause(group.len()));
            // What came before a fault or a DISCONNECT counts all the same.
            let more = group.len() == limits::INTAKE_GROUP_MESSAGES_MAX;
            if !group.is_empty() {
                self.reception.intake.accept(group).await;
            }
            left?;
            if !pause.is_zero() {
                tokio::select! {
                    biased;
                    () = self.link.closed() => return Err(Ending::Lost.into()),
                    () = self.taken_over.notified() => return Err(input.woken()),
                    _ = stopped(stop) => return Ok(()),
                    () = tokio::time::sleep(pause) => {}
                }
                input.packet_began = None;
            }
            let crowded = || {
                let (held, stalled) = (connection.held(), connection.is_stalled());
                connection.outstanding() >= limits::LISTENER_UNACKNOWLEDGED_MAX
                    || self.link.waiting_bytes() >= limits::CONTROL_PACKET_BYTES_MAX
                    // What waits for its own tenant's share may not take the room of the others.
                    || held >= limits::HELD_MESSAGES_A_CONNECTION
                    || held > 0 && stalled
            };
            if window.is_full() || crowded() {
                {
                    let mut gone = std::pin::pin!(self.gone(input));
                    tokio::select! {
                        biased;
                        () = self.link.closed() => return Err(Ending::Lost.into()),
                        () = self.taken_over.notified() => return Err(input.woken()),
                        _ = stopped(stop) => return Ok(()),
                        end = &mut gone => return Err(end),
                        () = window.room() => {}
                    }
                    tokio::select! {
                        biased;
                        () = self.taken_over.notified() => return Err(input.woken()),
                        _ = stopped(stop) => return Ok(()),
                        end = &mut gone => return Err(end),
                        () = self.link.written_until(|| !crowded()) => {}
                    }
                }
                // The device could not go on while we did not read.
                input.packet_began = None;
            }
            if more {
                if stop.borrow().is_some() {
                    return Ok(());
                }
                continue;
            }
            if !input.framer.is_midway() {
                gathering.pause().await;
            }
            tokio::select! {
                biased;
                () = self.link.closed() => return Err(Ending::Lost.into()),
                () = self.taken_over.notified() => return Err(input.woken()),
                _ = stopped(stop) => return Ok(()),
                filled = input.fill(self.silence_max) => filled?,
            }
        }
    }

    /// Completes when the device is gone while its messages wait for room and it is not read: it has
    /// closed its side, or nothing came for longer than its keep-alive allows. What it sent lies in the
    /// socket meanwhile; where that is full nothing more can come, and its silence means nothing.
    async fn gone(&self, input: &Input<'_>) -> End {
        let mut look = tokio::time::interval(Duration::from_millis(limits::HELD_LOOK_MS));
        let (mut unread, mut heard) = (input.unread_in_socket(), Instant::now());
        loop {
            look.tick().await;
            // Others fill the window: what this one has sent is still to be taken.
            if self.reception.connection.held() == 0 {
                heard = Instant::now();
                continue;
            }
            if input.is_hung_up() {
                return End::new(Ending::Left, "it left while its messages waited for room in the spool");
            }
            let before = std::mem::replace(&mut unread, input.unread_in_socket());
            if unread != before || input.is_socket_full() {
                heard = Instant::now();
            } else if self.silence_max.is_some_and(|silence_max| heard.elapsed() > silence_max) {
                return End::new(
                    Ending::KeepAlive,
                    "nothing came for 1.5 times the keep-alive, while its messages waited for room in the spool",
                );
            }
        }
    }

    /// Whether a topic is the sender's own, or nobody's: what is no topic of a device is for admission
    /// to refuse.
    fn owns(&self, sender: &Sender, topic: &str) -> bool {
        let Some(places) = self.topics.matches(topic) else { return true };
        let Identity { tenant, device } = &sender.identity;
        topic[places.tenant] == *tenant.as_str() && topic[places.device] == *device.as_str()
    }

    /// A PUBLISH to another device's topic. MQTT 5 has a PUBACK for it; MQTT 3.1.1 has not, and leaves
    /// to acknowledge it as if all were well or to close the connection [MQTT-3.3.5-2]: we never
    /// acknowledge what we do not take.
    fn refuse_foreign(
        &self,
        sender: &Sender,
        publish: &Publish<'_>,
        topic: &str,
        received_ns: i64,
    ) -> Result<(), End> {
        self.foreign_publishes.fetch_add(1, Ordering::Relaxed);
        let topic = truncate(topic, limits::QUOTED_BYTES_MAX);
        let detail =
            format!("{} may publish to its own topics only, and this is none: {topic}", sender.identity);
        let message = self.reception.message(publish, received_ns);
        let told = Detail::redacted(&detail, &message.payload);
        self.reception.intake.refuse_message(message, &sender.identity, Reason::NotOwnTopic, told);
        if self.speaks_5 { Ok(()) } else { Err(End::new(Ending::NotOwnTopic, detail)) }
    }

    /// Takes whole packets out of the buffer, up to one group of messages.
    fn take(&self, input: &mut Input<'_>, group: &mut Vec<Received>) -> Result<(), End> {
        let received_ns = now_ns();
        self.reception.connection.note_read();
        while group.len() < limits::INTAKE_GROUP_MESSAGES_MAX {
            let Some(packet) = input.next_packet()? else { return Ok(()) };
            match packet {
                Frame::Publish(publish) => {
                    if publish.qos == QoS::ExactlyOnce {
                        let detail = "a PUBLISH at QoS 2; this listener takes QoS 0 and 1";
                        return Err(End::new(Ending::ExactlyOnce, detail));
                    }
                    let topic = text(publish.topic).ok_or(PacketError::NotText("topic"))?;
                    if topic.is_empty() || topic.contains(['+', '#']) {
                        // [MQTT-3.3.2-2], [MQTT-4.7.3-1]
                        return Err(End::new(Ending::Malformed, "a topic that is empty or holds a wildcard"));
                    }
                    if let Some(sender) = self.sender
                        && !self.owns(sender, topic)
                    {
                        self.refuse_foreign(sender, &publish, topic, received_ns)?;
                    } else {
                        self.reception.receive(&publish, received_ns, group);
                    }
                }
                Frame::PingReq => self.link.send(|out| out.extend_from_slice(&encode::PINGRESP)),
                Frame::Subscribe { packet_id, filters } => {
                    self.link.send(|out| encode::suback_refusing(out, packet_id, filters, self.speaks_5));
                }
                Frame::Unsubscribe { packet_id, filters } => {
                    self.link.send(|out| encode::unsuback(out, packet_id, filters, self.speaks_5));
                }
                Frame::Disconnect(_) => return Err(Ending::Left.into()),
                Frame::Connect(_) => return Err(End::new(Ending::Unexpected, "a second CONNECT")),
                _ => return Err(End::new(Ending::Unexpected, "a packet that only servers send")),
            }
            input.packet_began = None;
        }
        Ok(())
    }
}
