//! One device's connection, from its first byte to its end.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::Shared;
use super::doors::{Ending, Pass};
use super::greeting::{Greeting, Sender};
use super::input::Input;
use super::socket::{DeviceSocket, Writer};
use crate::domain::detail::{Detail, truncate};
use crate::domain::identity::Identity;
use crate::domain::limits;
use crate::domain::message::{Received, Via};
use crate::domain::reason::Reason;
use crate::domain::slot::{Connection, Tells};
use crate::domain::topic::TopicTemplate;
use crate::source::framer::FrameLimits;
use crate::source::gathering::Gathering;
use crate::source::intake::Intake;
use crate::source::link::{Link, WriteEnd};
use crate::source::packet::{self, Packet, PacketError, Publish, QoS, encode};
use crate::source::packet5::{self, code};
use crate::source::reception::{Reception, now_ns};
use crate::source::{Stop, past_deadline, stopped};

/// How a connection ended, with what there is to say about it.
#[derive(Debug)]
pub struct End {
    pub ending: Ending,
    pub detail: String,
    /// The reason code of the DISCONNECT to a device that speaks MQTT 5.
    pub code: u8,
    /// The last packet to it may be cut off: nothing can follow.
    pub cut: bool,
}

impl End {
    pub fn new(ending: Ending, detail: impl Into<String>) -> Self {
        let code = match ending {
            Ending::TakenOver => code::TAKEN_OVER,
            Ending::KeepAlive => code::KEEP_ALIVE_TIMEOUT,
            Ending::Stopped => code::SHUTTING_DOWN,
            Ending::ExactlyOnce => code::QOS_NOT_SUPPORTED,
            Ending::Malformed => code::MALFORMED,
            Ending::Unexpected => code::PROTOCOL_ERROR,
            Ending::Buffers => code::QUOTA_EXCEEDED,
            _ => code::UNSPECIFIED,
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

impl From<PacketError> for End {
    fn from(error: PacketError) -> Self {
        Self { code: packet5::disconnect_code(&error), ..Self::new(Ending::Malformed, error.to_string()) }
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
    let mut input = Input::new(reader, frames, shared.doors.counters.clone());
    let taken_over = Arc::new(Notify::new());
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

    let tells = if greeted.taste.is_some() { Tells::Acknowledgement } else { Tells::Nothing };
    let session = greeted.session.as_ref().map(|(_, session)| session.clone());
    let connection = Connection::open(shared.window.clone(), tells, session);
    let link = Link::speaking(connection.clone(), greeted.taste);
    let sender = greeted.sender.as_ref();
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
        speaks_5: greeted.taste.is_some(),
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
    if let Some(taste) = greeted.taste.filter(|_| said_by_us) {
        let mut out = Vec::new();
        packet5::encode::disconnect(&mut out, end.code, &end.detail, taste);
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

/// A device that was greeted.
struct Device<'a, I> {
    reception: Reception<I>,
    silence_max: Option<Duration>,
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
        let window = self.reception.connection.window();
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
                    () = self.taken_over.notified() => return Err(taken_over()),
                    _ = stopped(stop) => return Ok(()),
                    () = tokio::time::sleep(pause) => {}
                }
                input.packet_began = None;
            }
            let crowded = || {
                let held = self.reception.connection.held();
                self.reception.connection.outstanding() >= limits::LISTENER_UNACKNOWLEDGED_MAX
                    || self.link.waiting_bytes() >= limits::CONTROL_PACKET_BYTES_MAX
                    // What waits for its own tenant's share may not take the room of the others.
                    || held >= limits::HELD_MESSAGES_A_CONNECTION
                    || held > 0 && window.is_half_full()
            };
            if window.is_full() || crowded() {
                tokio::select! {
                    biased;
                    () = self.link.closed() => return Err(Ending::Lost.into()),
                    () = self.taken_over.notified() => return Err(taken_over()),
                    _ = stopped(stop) => return Ok(()),
                    () = window.room() => {}
                }
                tokio::select! {
                    biased;
                    () = self.taken_over.notified() => return Err(taken_over()),
                    _ = stopped(stop) => return Ok(()),
                    () = self.link.written_until(|| !crowded()) => {}
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
                () = self.taken_over.notified() => return Err(taken_over()),
                _ = stopped(stop) => return Ok(()),
                filled = input.fill(self.silence_max) => filled?,
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
                Packet::Publish(publish) => {
                    if publish.qos == QoS::ExactlyOnce {
                        let detail = "a PUBLISH at QoS 2; this listener takes QoS 0 and 1";
                        return Err(End::new(Ending::ExactlyOnce, detail));
                    }
                    let topic = packet::text(publish.topic).ok_or(PacketError::NotText("topic"))?;
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
                Packet::PingReq => self.link.send(|out| out.extend_from_slice(&encode::PINGRESP)),
                Packet::Subscribe { packet_id, filters } => self.link.send(|out| {
                    let refuse = if self.speaks_5 {
                        packet5::encode::suback_refusing
                    } else {
                        encode::suback_refusing
                    };
                    refuse(out, packet_id, filters);
                }),
                Packet::Unsubscribe { packet_id, filters } => self.link.send(|out| {
                    if self.speaks_5 {
                        packet5::encode::unsuback(out, packet_id, filters);
                    } else {
                        encode::unsuback(out, packet_id);
                    }
                }),
                Packet::Disconnect => return Err(Ending::Left.into()),
                Packet::Connect(_) => return Err(End::new(Ending::Unexpected, "a second CONNECT")),
                _ => return Err(End::new(Ending::Unexpected, "a packet that only servers send")),
            }
            input.packet_began = None;
        }
        Ok(())
    }
}

fn taken_over() -> End {
    End::new(Ending::TakenOver, "another connection came with the same client id")
}
