//! One device's connection, from its first byte to its end.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rumqttc::QoS;
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use crate::limits;
use crate::listener::close::CloseInfo;
use crate::listener::connection_table::{CloseReason, ConnectionPermit};
use crate::listener::context::ListenerContext;
use crate::listener::frame_reader::FrameReader;
use crate::listener::handshake::{AuthenticatedDevice, Handshake};
use crate::listener::socket::{DeviceSocket, SocketWriter};
use crate::mqtt::connection_writer::{ConnectionWriter, WriteEnd};
use crate::mqtt::control::{Frame, encode};
use crate::mqtt::error::PacketError;
use crate::mqtt::framing::FrameLimits;
use crate::mqtt::publish::Publish;
use crate::mqtt::reader::text;
use crate::publish_receiver::{PublishReceiver, now_ns};
use crate::read_coalescer::ReadCoalescer;
use crate::sink::MessageSink;
use crate::status::{StopSignal, past_deadline, stopped};
use tidegate_core::ack::tracker::{AckTracker, RefusalChannel};
use tidegate_core::detail::{Detail, truncate};
use tidegate_core::identity::Identity;
use tidegate_core::message::{Received, Via};
use tidegate_core::reason::Reason;
use tidegate_core::topic::TopicTemplate;

/// Serves one connection to its end.
pub async fn serve<I: MessageSink>(
    mut socket: DeviceSocket,
    certificate: Option<Result<Identity, String>>,
    pass: &ConnectionPermit,
    shared: &ListenerContext<I>,
    mut stop: StopSignal,
) -> CloseInfo {
    let (reader, mut writer) = socket.split();
    let payload_bytes_max = shared.settings.payload_bytes_max;
    let frames = FrameLimits {
        payload_bytes_max,
        payload_bytes_skipped_max: payload_bytes_max.saturating_mul(limits::LISTENER_OVERSIZE_FACTOR),
    };
    let taken_over = Arc::new(Notify::new());
    let lease = pass.packet_lease(taken_over.clone());
    let mut input = FrameReader::new(reader, frames, shared.doors.counters.clone(), lease);
    let greeting = Handshake { shared, pass, certificate, taken_over: &taken_over, frames };
    let greeted = tokio::select! {
        biased;
        _ = stopped(&mut stop) => return CloseReason::Stopped.into(),
        greeted = greeting.greet(&mut input, &mut writer) => greeted,
    };
    input.packet_began = None;
    let greeted = match greeted {
        Ok(greeted) => greeted,
        Err(end) => return end,
    };

    let tells =
        if greeted.peer_limits.is_some() { RefusalChannel::Acknowledgement } else { RefusalChannel::Nothing };
    let session = greeted.session.as_ref().map(|(_, session)| session.clone());
    let connection = AckTracker::builder(shared.window.clone())
        .refusal_channel(tells)
        .session(session)
        .from_device()
        .build();
    // Also where a panic ends this task: what is unsettled is to come again.
    let _ended = Ended(connection.clone());
    let link = ConnectionWriter::speaking(connection.clone(), greeted.peer_limits);
    let sender = greeted.sender.as_ref();
    if let Some(sender) = sender {
        input.lease.set_tenant(&sender.identity.tenant);
    }
    let device = DeviceConnection {
        reception: PublishReceiver {
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
        shared.sessions.suspend(of, session);
    }
    // Its client id is free before it has taken the news.
    drop(greeted.name);
    let said_by_us =
        !end.cut && !matches!(end.ending, CloseReason::Left | CloseReason::Lost | CloseReason::SlowReader);
    if let Some(limits) = greeted.peer_limits.filter(|_| said_by_us) {
        let mut out = Vec::new();
        encode::disconnect(&mut out, end.code, &end.detail, limits);
        let said = timeout(Duration::from_millis(limits::CLOSE_DRAIN_MS), async {
            writer.write_all(&out).await?;
            writer.shutdown().await
        });
        if let Ok(Ok(())) = said.await {
            input.drain_before_close().await;
        }
    } else if said_by_us {
        // In TLS the peer can tell this from a connection that was cut.
        let said = timeout(Duration::from_millis(limits::CLOSE_DRAIN_MS), writer.shutdown()).await;
        if let (Ok(Ok(())), CloseReason::Stopped) = (said, &end.ending) {
            // Its last packets are PUBACKs.
            input.drain_before_close().await;
        }
    }
    end
}

/// A connection that is over when this is dropped.
struct Ended(Arc<AckTracker>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// A device that was greeted.
struct DeviceConnection<'a, I> {
    reception: PublishReceiver<I>,
    silence_max: Option<Duration>,
    /// Notified when another connection takes the client id over, or the memory of unfinished packets
    /// is given to others.
    taken_over: &'a Notify,
    link: &'a ConnectionWriter,
    /// Who it is, where it has proved that: then only its own topics are its to publish to.
    sender: Option<&'a AuthenticatedDevice>,
    topics: &'a TopicTemplate,
    speaks_5: bool,
    foreign_publishes: &'a std::sync::atomic::AtomicU64,
}

impl<I: MessageSink> DeviceConnection<'_, I> {
    async fn run(
        &self,
        input: &mut FrameReader<'_>,
        writer: &mut SocketWriter<'_>,
        stop: &mut StopSignal,
    ) -> CloseInfo {
        let connection = &self.reception.connection;
        let deadline = stop.clone();
        let mut reading = std::pin::pin!(self.read(input, stop));
        let mut writing = std::pin::pin!(self.link.write(writer, None));
        let end = tokio::select! {
            end = &mut reading => end,
            () = past_deadline(deadline.clone()) => return CloseInfo { cut: true, ..CloseReason::Stopped.into() },
            end = &mut writing => {
                connection.end();
                self.link.close();
                // What downstream is just taking it takes whole; then reading ends.
                let _ = reading.await;
                return match end {
                    WriteEnd::SlowReader => CloseInfo::new(CloseReason::SlowReader, end.to_string()),
                    WriteEnd::Unsettled => CloseInfo::new(CloseReason::Unsettled, end.to_string()),
                    end => CloseInfo::new(CloseReason::Lost, end.to_string()),
                };
            }
        };
        let Err(end) = end else {
            // Stopping: the PUBACKs of what settles in time still leave.
            let deadline = deadline.borrow().unwrap_or_else(Instant::now);
            self.link.drain(deadline);
            writing.await;
            return CloseInfo::new(CloseReason::Stopped, "the gateway stops");
        };
        if self.speaks_5 && !matches!(end.ending, CloseReason::Left | CloseReason::Lost) {
            // What is settled is acknowledged, and no packet is cut off before the DISCONNECT.
            self.link.drain(Instant::now());
            if !matches!(
                timeout(Duration::from_millis(limits::CLOSE_DRAIN_MS), writing).await,
                Ok(WriteEnd::Drained)
            ) {
                return CloseInfo { ending: CloseReason::SlowReader, ..end };
            }
        }
        end
    }

    /// Reads until the connection ends, or Ok when we are to stop.
    async fn read(&self, input: &mut FrameReader<'_>, stop: &mut StopSignal) -> Result<(), CloseInfo> {
        let connection = &self.reception.connection;
        let window = connection.window();
        let mut gathering = ReadCoalescer::of(input.socket());
        loop {
            let mut group = Vec::new();
            let left = self.take(input, &mut group);
            gathering.took(group.len());
            let pause = self.sender.map_or(Duration::ZERO, |sender| sender.pass.pause(group.len()));
            // What came before a fault or a DISCONNECT counts all the same.
            let more = group.len() == limits::GROUP_MESSAGES_MAX;
            if !group.is_empty() {
                self.reception.intake.accept(group).await;
            }
            left?;
            if !pause.is_zero() {
                tokio::select! {
                    biased;
                    () = self.link.closed() => return Err(CloseReason::Lost.into()),
                    () = self.taken_over.notified() => return Err(input.woken()),
                    _ = stopped(stop) => return Ok(()),
                    () = tokio::time::sleep(pause) => {}
                }
                input.packet_began = None;
            }
            let crowded = || {
                let (held, stalled) = (connection.deferred(), connection.is_stalled());
                connection.outstanding() >= limits::LISTENER_UNACKNOWLEDGED_MAX
                    || self.link.waiting_bytes() >= limits::CONTROL_PACKET_BYTES_MAX
                    // What waits for its own tenant's share may not take the room of the others.
                    || held >= limits::DEFERRED_MESSAGES_A_CONNECTION
                    || held > 0 && stalled
            };
            if window.is_full() || crowded() {
                {
                    let mut gone = std::pin::pin!(self.gone(input));
                    tokio::select! {
                        biased;
                        () = self.link.closed() => return Err(CloseReason::Lost.into()),
                        () = self.taken_over.notified() => return Err(input.woken()),
                        _ = stopped(stop) => return Ok(()),
                        end = &mut gone => return Err(end),
                        () = window.until_not_full() => {}
                    }
                    tokio::select! {
                        biased;
                        () = self.taken_over.notified() => return Err(input.woken()),
                        _ = stopped(stop) => return Ok(()),
                        end = &mut gone => return Err(end),
                        () = self.link.until_written(|| !crowded()) => {}
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
            if !input.framer.has_partial_frame() {
                gathering.pause().await;
            }
            tokio::select! {
                biased;
                () = self.link.closed() => return Err(CloseReason::Lost.into()),
                () = self.taken_over.notified() => return Err(input.woken()),
                _ = stopped(stop) => return Ok(()),
                filled = input.fill(self.silence_max) => filled?,
            }
        }
    }

    /// Completes when the device is gone while its messages wait for room and it is not read: it has
    /// closed its side, or nothing came for longer than its keep-alive allows. What it sent lies in the
    /// socket meanwhile; where that is full nothing more can come, and its silence means nothing.
    async fn gone(&self, input: &FrameReader<'_>) -> CloseInfo {
        let mut look = tokio::time::interval(Duration::from_millis(limits::HELD_LOOK_MS));
        let (mut unread, mut heard) = (input.unread_in_socket(), Instant::now());
        loop {
            look.tick().await;
            // Others fill the window: what this one has sent is still to be taken.
            if self.reception.connection.deferred() == 0 {
                heard = Instant::now();
                continue;
            }
            if input.is_hung_up() {
                return CloseInfo::new(
                    CloseReason::Left,
                    "it left while its messages waited for room in the spool",
                );
            }
            let before = std::mem::replace(&mut unread, input.unread_in_socket());
            if unread != before || input.is_socket_full() {
                heard = Instant::now();
            } else if self.silence_max.is_some_and(|silence_max| heard.elapsed() > silence_max) {
                return CloseInfo::new(
                    CloseReason::KeepAlive,
                    "nothing came for 1.5 times the keep-alive, while its messages waited for room in the spool",
                );
            }
        }
    }

    /// Whether a topic is the sender's own, or nobody's: what is no topic of a device is for admission
    /// to refuse.
    fn owns(&self, sender: &AuthenticatedDevice, topic: &str) -> bool {
        let Some(places) = self.topics.matches(topic) else { return true };
        let Identity { tenant, device } = &sender.identity;
        topic[places.tenant] == *tenant.as_str() && topic[places.device] == *device.as_str()
    }

    /// A PUBLISH to another device's topic. MQTT 5 has a PUBACK for it; MQTT 3.1.1 has not, and leaves
    /// to acknowledge it as if all were well or to close the connection [MQTT-3.3.5-2]: we never
    /// acknowledge what we do not take.
    fn refuse_foreign(
        &self,
        sender: &AuthenticatedDevice,
        publish: &Publish<'_>,
        topic: &str,
        received_ns: i64,
    ) -> Result<(), CloseInfo> {
        self.foreign_publishes.fetch_add(1, Ordering::Relaxed);
        let topic = truncate(topic, tidegate_core::limits::QUOTED_BYTES_MAX);
        let detail =
            format!("{} may publish to its own topics only, and this is none: {topic}", sender.identity);
        let message = self.reception.message(publish, received_ns);
        let told = Detail::redacted(&detail, &message.payload);
        self.reception.intake.refuse(message, &sender.identity, Reason::NotOwnTopic, told);
        if self.speaks_5 { Ok(()) } else { Err(CloseInfo::new(CloseReason::NotOwnTopic, detail)) }
    }

    /// Takes whole packets out of the buffer, up to one group of messages.
    fn take(&self, input: &mut FrameReader<'_>, group: &mut Vec<Received>) -> Result<(), CloseInfo> {
        let received_ns = now_ns();
        self.reception.connection.record_read();
        while group.len() < limits::GROUP_MESSAGES_MAX {
            let Some(packet) = input.next_packet()? else { return Ok(()) };
            match packet {
                Frame::Publish(publish) => {
                    if publish.qos == QoS::ExactlyOnce {
                        let detail = "a PUBLISH at QoS 2; this listener takes QoS 0 and 1";
                        return Err(CloseInfo::new(CloseReason::ExactlyOnce, detail));
                    }
                    let topic = text(publish.topic).ok_or(PacketError::NotText("topic"))?;
                    if topic.is_empty() || topic.contains(['+', '#']) {
                        // [MQTT-3.3.2-2], [MQTT-4.7.3-1]
                        return Err(CloseInfo::new(
                            CloseReason::Malformed,
                            "a topic that is empty or holds a wildcard",
                        ));
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
                Frame::Disconnect(_) => return Err(CloseReason::Left.into()),
                Frame::Connect(_) => return Err(CloseInfo::new(CloseReason::Unexpected, "a second CONNECT")),
                _ => return Err(CloseInfo::new(CloseReason::Unexpected, "a packet that only servers send")),
            }
            input.packet_began = None;
        }
        Ok(())
    }
}
