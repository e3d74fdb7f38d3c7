//! One device's connection, from its first byte to its end.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rumqttc::QoS;
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use crate::limits;
use crate::listener::client_certificate::ClientCertificate;
use crate::listener::close::{CloseInfo, CloseReason};
use crate::listener::connection_table::ConnectionPermit;
use crate::listener::context::ListenerContext;
use crate::listener::frame_reader::FrameReader;
use crate::listener::handshake::{AuthenticatedDevice, Handshake};
use crate::listener::proven_connections::Revocation;
use crate::listener::rate_queue::RateQueue;
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
use tidegate_core::topic::TopicTemplates;

/// Serves one connection to its end.
pub async fn serve<I: MessageSink>(
    mut socket: DeviceSocket,
    certificate: Option<ClientCertificate>,
    permit: &ConnectionPermit,
    context: &ListenerContext<I>,
    mut stop: StopSignal,
) -> CloseInfo {
    let (reader, mut writer) = socket.split();
    let payload_bytes_max = context.settings.payload_bytes_max;
    let frames = FrameLimits {
        payload_bytes_max,
        payload_bytes_skipped_max: payload_bytes_max.saturating_mul(limits::LISTENER_OVERSIZE_FACTOR),
    };
    let taken_over = Arc::new(Notify::new());
    let lease = permit.packet_lease(taken_over.clone());
    let revocation = Revocation::new(taken_over.clone());
    let counters = context.connections.counters.clone();
    let mut frames_in = FrameReader::new(reader, frames, counters, lease, revocation.clone());
    let handshake =
        Handshake { context, permit, certificate, taken_over: &taken_over, revocation: &revocation, frames };
    let established = tokio::select! {
        biased;
        _ = stopped(&mut stop) => return CloseReason::Stopped.into(),
        established = handshake.run(&mut frames_in, &mut writer) => established,
    };
    frames_in.packet_began = None;
    let established = match established {
        Ok(established) => established,
        Err(end) => return end,
    };

    let refusals = if established.peer_limits.is_some() {
        RefusalChannel::Acknowledgement
    } else {
        RefusalChannel::Nothing
    };
    let session = established.session.as_ref().map(|(_, session)| session.clone());
    let tracker = AckTracker::builder(context.window.clone())
        .refusal_channel(refusals)
        .session(session)
        .from_device()
        .build();
    // A panic that ends this task ends the tracker, too: unsettled messages are to come again.
    let _ended = EndOnDrop(tracker.clone());
    let connection_writer = ConnectionWriter::with_peer_limits(tracker.clone(), established.peer_limits);
    let sender = established.sender.as_ref();
    if let Some(sender) = sender {
        let tenant = &sender.identity.tenant;
        frames_in.lease.set_tenant(tenant, context.settings.memory(tenant).as_ref());
    }
    let device = DeviceConnection {
        receiver: PublishReceiver {
            sink: context.sink.clone(),
            tracker: tracker.clone(),
            via: if sender.is_some() { Via::Proven } else { Via::Listener },
            // To us a message that a device wants retained is a message like any other.
            drops_retained: false,
            redelivered: context.connections.counters.redelivered.clone(),
        },
        silence_max: (established.keep_alive_s > 0)
            .then(|| Duration::from_millis(u64::from(established.keep_alive_s) * 1500)),
        taken_over: &taken_over,
        connection_writer: &connection_writer,
        sender,
        topics: &context.settings.topics,
        speaks_5: established.peer_limits.is_some(),
        foreign_publishes: &context.connections.counters.foreign_publishes,
    };
    let mut end = device.run(&mut frames_in, &mut writer, &mut stop).await;
    end.device = sender.map(|sender| (sender.identity.clone(), established.client_id.client_id().to_owned()));
    tracker.end();
    if let Some((of, session)) = &established.session {
        context.sessions.suspend(of, session);
    }
    // Its client id is free before it has read its last packet.
    drop(established.client_id);
    let said_by_us =
        !end.cut && !matches!(end.reason, CloseReason::Left | CloseReason::Lost | CloseReason::SlowReader);
    if let Some(limits) = established.peer_limits.filter(|_| said_by_us) {
        let mut out = Vec::new();
        encode::disconnect(&mut out, end.code, &end.detail, limits);
        let said = timeout(Duration::from_millis(limits::CLOSE_DRAIN_MS), async {
            writer.write_all(&out).await?;
            writer.shutdown().await
        });
        if let Ok(Ok(())) = said.await {
            frames_in.drain_before_close().await;
        }
    } else if said_by_us {
        // In TLS the peer can tell this from a connection that was cut.
        let said = timeout(Duration::from_millis(limits::CLOSE_DRAIN_MS), writer.shutdown()).await;
        if let (Ok(Ok(())), CloseReason::Stopped) = (said, &end.reason) {
            // Its last packets are PUBACKs.
            frames_in.drain_before_close().await;
        }
    }
    end
}

/// A guard that ends the tracker of a connection when dropped.
struct EndOnDrop(Arc<AckTracker>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// The queue of a connection, which is cleared when it ends.
struct RateQueueGuard<'a, I: MessageSink> {
    queue: RateQueue,
    sink: &'a I,
}

impl<I: MessageSink> Drop for RateQueueGuard<'_, I> {
    fn drop(&mut self) {
        self.queue.clear(self.sink);
    }
}

/// The connection of a device after its CONNACK.
struct DeviceConnection<'a, I> {
    receiver: PublishReceiver<I>,
    silence_max: Option<Duration>,
    /// Notified when another connection takes the client id over, or the memory of unfinished packets
    /// is given to others.
    taken_over: &'a Notify,
    connection_writer: &'a ConnectionWriter,
    /// The device, if it is authenticated: it may then publish to its own topics only.
    sender: Option<&'a AuthenticatedDevice>,
    topics: &'a TopicTemplates,
    speaks_5: bool,
    foreign_publishes: &'a std::sync::atomic::AtomicU64,
}

impl<I: MessageSink> DeviceConnection<'_, I> {
    async fn run(
        &self,
        frames_in: &mut FrameReader<'_>,
        writer: &mut SocketWriter<'_>,
        stop: &mut StopSignal,
    ) -> CloseInfo {
        let tracker = &self.receiver.tracker;
        let deadline = stop.clone();
        // It is cleared after the last PUBACK has left.
        let mut queue = RateQueueGuard { queue: RateQueue::new(), sink: &*self.receiver.sink };
        let mut reading = std::pin::pin!(self.read(frames_in, &mut queue.queue, stop));
        let mut writing = std::pin::pin!(self.connection_writer.write(writer, None));
        let end = tokio::select! {
            end = &mut reading => end,
            () = past_deadline(deadline.clone()) => return CloseInfo { cut: true, ..CloseReason::Stopped.into() },
            end = &mut writing => {
                tracker.end();
                self.connection_writer.close();
                // A group that downstream is just taking is taken whole; then reading ends.
                let _ = reading.await;
                return match end {
                    WriteEnd::SlowReader => CloseInfo::new(CloseReason::SlowReader, end.to_string()),
                    WriteEnd::Unsettled => CloseInfo::new(CloseReason::Unsettled, end.to_string()),
                    end => CloseInfo::new(CloseReason::Lost, end.to_string()),
                };
            }
        };
        let end = match end {
            Err(end) => end,
            Ok(left_behind) => {
                // Stopping: the PUBACKs of messages that settle in time still leave.
                self.connection_writer.drain_until_stopped(left_behind, writing, deadline).await;
                return CloseInfo::new(CloseReason::Stopped, "the gateway stops");
            }
        };
        if self.speaks_5 && !matches!(end.reason, CloseReason::Left | CloseReason::Lost) {
            // Settled messages are acknowledged, and no packet is cut off before the DISCONNECT.
            self.connection_writer.drain(Instant::now());
            if !matches!(
                timeout(Duration::from_millis(limits::CLOSE_DRAIN_MS), writing).await,
                Ok(WriteEnd::Drained)
            ) {
                return CloseInfo { reason: CloseReason::SlowReader, ..end };
            }
        }
        end
    }

    /// Reads until the connection ends, or Ok when we are to stop: the messages that wait for their rate. They are
    /// offered no more; the device sends them again.
    async fn read(
        &self,
        frames_in: &mut FrameReader<'_>,
        queue: &mut RateQueue,
        stop: &mut StopSignal,
    ) -> Result<usize, CloseInfo> {
        let tracker = &self.receiver.tracker;
        let window = tracker.window();
        let mut coalescer = ReadCoalescer::new(frames_in.socket());
        loop {
            let mut group = Vec::new();
            let left = self.take(frames_in, &mut group);
            coalescer.record_read(group.len());
            let delay = self.sender.map_or(Duration::ZERO, |sender| sender.permit.delay(group.len()));
            // Messages before a fault or a DISCONNECT count all the same.
            let more = group.len() == limits::GROUP_MESSAGES_MAX;
            if !group.is_empty() || !queue.is_empty() {
                queue.offer(group, &*self.receiver.sink).await;
                frames_in.set_queued_bytes(queue.bytes())?;
            }
            if left.is_err() || queue.is_full() {
                {
                    let mut gone = std::pin::pin!(self.gone(frames_in, true));
                    while !queue.is_empty() && (left.is_err() || queue.is_full()) {
                        tokio::select! {
                            biased;
                            () = self.connection_writer.closed() => return Err(CloseReason::Lost.into()),
                            () = self.taken_over.notified() => return Err(frames_in.woken()),
                            _ = stopped(stop) => return Ok(queue.len()),
                            end = &mut gone, if left.is_ok() => return Err(end),
                            () = queue.until_due() => queue.offer(Vec::new(), &*self.receiver.sink).await,
                        }
                    }
                }
                // The device could not send more while we did not read.
                frames_in.packet_began = None;
            }
            left?;
            frames_in.set_queued_bytes(queue.bytes())?;
            if !delay.is_zero() {
                tokio::select! {
                    biased;
                    () = self.connection_writer.closed() => return Err(CloseReason::Lost.into()),
                    () = self.taken_over.notified() => return Err(frames_in.woken()),
                    _ = stopped(stop) => return Ok(queue.len()),
                    () = tokio::time::sleep(delay) => {}
                }
                frames_in.packet_began = None;
            }
            let crowded = || {
                // Those that wait for their rate are counted apart.
                let held = tracker.deferred().saturating_sub(queue.len() as u64);
                let stalled = tracker.is_stalled();
                tracker.outstanding() >= limits::LISTENER_UNACKNOWLEDGED_MAX
                    || self.connection_writer.waiting_bytes() >= limits::CONTROL_PACKET_BYTES_MAX
                    // Messages that wait for their own tenant's share may not take the room of the others.
                    || held >= limits::DEFERRED_MESSAGES_A_CONNECTION
                    || held > 0 && stalled
            };
            if window.is_full() || crowded() {
                {
                    let mut gone = std::pin::pin!(self.gone(frames_in, false));
                    tokio::select! {
                        biased;
                        () = self.connection_writer.closed() => return Err(CloseReason::Lost.into()),
                        () = self.taken_over.notified() => return Err(frames_in.woken()),
                        _ = stopped(stop) => return Ok(queue.len()),
                        end = &mut gone => return Err(end),
                        () = window.until_not_full() => {}
                    }
                    tokio::select! {
                        biased;
                        () = self.taken_over.notified() => return Err(frames_in.woken()),
                        _ = stopped(stop) => return Ok(queue.len()),
                        end = &mut gone => return Err(end),
                        () = self.connection_writer.until_written(|| !crowded()) => {}
                    }
                }
                // The device could not send more while we did not read.
                frames_in.packet_began = None;
            }
            if more {
                if stop.borrow().is_some() {
                    return Ok(queue.len());
                }
                continue;
            }
            if !frames_in.framer.has_partial_frame() {
                coalescer.wait().await;
            }
            tokio::select! {
                biased;
                () = self.connection_writer.closed() => return Err(CloseReason::Lost.into()),
                () = self.taken_over.notified() => return Err(frames_in.woken()),
                _ = stopped(stop) => return Ok(queue.len()),
                () = queue.until_due() => {}
                filled = frames_in.fill(self.silence_max) => filled?,
            }
        }
    }

    /// Waits until the device is gone, while its messages wait and it is not read: it has closed its
    /// side, or nothing came for longer than its keep-alive allows. Its bytes lie in the socket meanwhile; if
    /// that is full no more can come, and its silence means nothing.
    async fn gone(&self, frames_in: &FrameReader<'_>, over_rate: bool) -> CloseInfo {
        let mut poll = tokio::time::interval(Duration::from_millis(limits::DEFERRED_POLL_MS));
        let wants = if over_rate { "its rate" } else { "room in the spool" };
        let (mut unread, mut heard) = (frames_in.unread_in_socket(), Instant::now());
        loop {
            poll.tick().await;
            // Others fill the window: the messages of this one are still to be taken.
            if !over_rate && self.receiver.tracker.deferred() == 0 {
                heard = Instant::now();
                continue;
            }
            if frames_in.is_hung_up() {
                return CloseInfo::new(
                    CloseReason::Left,
                    format!("it left while its messages waited for {wants}"),
                );
            }
            let before = std::mem::replace(&mut unread, frames_in.unread_in_socket());
            if unread != before || frames_in.is_socket_full() {
                heard = Instant::now();
            } else if self.silence_max.is_some_and(|silence_max| heard.elapsed() > silence_max) {
                return CloseInfo::new(
                    CloseReason::KeepAlive,
                    format!(
                        "nothing came for 1.5 times the keep-alive, while its messages waited for {wants}"
                    ),
                );
            }
        }
    }

    /// True for a topic of the sender's own, or of no device: admission refuses the latter.
    fn owns(&self, sender: &AuthenticatedDevice, topic: &str) -> bool {
        let Some(names) = self.topics.matches(topic) else { return true };
        let Identity { tenant, device } = &sender.identity;
        names.tenant.of(topic) == tenant.as_str() && names.device.of(topic) == device.as_str()
    }

    /// A PUBLISH to another device's topic. MQTT 5 has a PUBACK for it; MQTT 3.1.1 has none: a
    /// server acknowledges it as if all were well, or closes the connection [MQTT-3.3.5-2]. We close it, as we
    /// never acknowledge a message that we do not take.
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
        let message = self.receiver.message(publish, received_ns);
        let notice = Detail::redacted(&detail, &message.payload);
        self.receiver.sink.refuse(message, &sender.identity, Reason::NotOwnTopic, notice);
        if self.speaks_5 { Ok(()) } else { Err(CloseInfo::new(CloseReason::NotOwnTopic, detail)) }
    }

    /// Takes whole packets out of the buffer, up to one group of messages.
    fn take(&self, frames_in: &mut FrameReader<'_>, group: &mut Vec<Received>) -> Result<(), CloseInfo> {
        let received_ns = now_ns();
        self.receiver.tracker.record_read();
        while group.len() < limits::GROUP_MESSAGES_MAX {
            let Some(packet) = frames_in.next_frame()? else { return Ok(()) };
            match packet {
                Frame::Publish(publish) => {
                    if publish.qos == QoS::ExactlyOnce {
                        let detail = "a PUBLISH at QoS 2; this listener takes QoS 0 and 1";
                        return Err(CloseInfo::new(CloseReason::ExactlyOnce, detail));
                    }
                    let topic = text(publish.topic).ok_or(PacketError::NotText("topic"))?;
                    if topic.is_empty() || memchr::memchr2(b'+', b'#', topic.as_bytes()).is_some() {
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
                        self.receiver.receive_on(&publish, topic.to_owned(), received_ns, group);
                    }
                }
                Frame::PingReq => self.connection_writer.send(|out| out.extend_from_slice(&encode::PINGRESP)),
                Frame::Subscribe { packet_id, filters } => {
                    self.connection_writer
                        .send(|out| encode::suback_refusing(out, packet_id, filters, self.speaks_5));
                }
                Frame::Unsubscribe { packet_id, filters } => {
                    self.connection_writer
                        .send(|out| encode::unsuback(out, packet_id, filters, self.speaks_5));
                }
                Frame::Disconnect(_) => return Err(CloseReason::Left.into()),
                Frame::Connect(_) => return Err(CloseInfo::new(CloseReason::Unexpected, "a second CONNECT")),
                _ => return Err(CloseInfo::new(CloseReason::Unexpected, "a packet that only servers send")),
            }
            frames_in.packet_began = None;
        }
        Ok(())
    }
}
