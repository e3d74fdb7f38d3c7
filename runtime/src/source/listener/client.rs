//! One device's connection, from its first byte to its end.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::debug;

use super::Shared;
use super::doors::{Ending, ListenerCounters, Name, Pass};
use super::sessions::Sessions;
use crate::domain::limits;
use crate::domain::message::{Received, Via};
use crate::domain::session::Session;
use crate::domain::slot::Connection;
use crate::source::framer::{FrameLimits, Framer};
use crate::source::gathering::Gathering;
use crate::source::intake::Intake;
use crate::source::link::{Link, WriteEnd};
use crate::source::packet::{self, Packet, PacketError, QoS, encode};
use crate::source::reception::{Reception, now_ns};
use crate::source::{Stop, past_deadline, stopped};

/// How a connection ended, with what there is to say about it.
#[derive(Debug)]
pub struct End {
    pub ending: Ending,
    pub detail: String,
}

impl End {
    fn new(ending: Ending, detail: impl Into<String>) -> Self {
        Self { ending, detail: detail.into() }
    }
}

impl From<Ending> for End {
    fn from(ending: Ending) -> Self {
        Self { ending, detail: String::new() }
    }
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::new(Ending::Lost, error.to_string())
    }
}

impl From<PacketError> for End {
    fn from(error: PacketError) -> Self {
        Self::new(Ending::Malformed, error.to_string())
    }
}

/// Return codes of a CONNACK (section 3.2.2.3).
const ACCEPTED: u8 = 0;
const UNACCEPTABLE_LEVEL: u8 = 1;
const CLIENT_ID_REFUSED: u8 = 2;

/// Reads into the framer, without a buffer while nothing is under way: ten thousand devices that
/// say nothing cost no buffer at all.
struct Input<'s> {
    reader: ReadHalf<'s>,
    framer: Framer,
    counters: Arc<ListenerCounters>,
    /// Whether it is counted among the connections with a buffer.
    has_buffer: bool,
    /// Bytes of the framer's buffer that were taken from the shared memory.
    shared_bytes: usize,
    /// How much to ask for: it follows what the device sends.
    read_bytes: usize,
    /// When the packet that is under way began.
    packet_began: Option<Instant>,
}

impl Input<'_> {
    /// Waits for bytes and reads what is there.
    async fn fill(&mut self, silence_max: Option<Duration>) -> Result<(), End> {
        loop {
            if !self.framer.is_midway() {
                self.release();
            }
            self.wait(silence_max).await?;
            self.make_room()?;
            let asked = self.read_bytes.max(self.framer.needed());
            let room = self.framer.room(self.read_bytes);
            let before = room.len();
            if !std::mem::replace(&mut self.has_buffer, true) {
                self.counters.buffers.fetch_add(1, Ordering::Relaxed);
            }
            match self.reader.try_read_buf(room) {
                Ok(0) => {
                    return Err(if self.framer.is_midway() {
                        End::new(Ending::Lost, "the connection closed in the middle of a packet")
                    } else {
                        Ending::Left.into()
                    });
                }
                Ok(read) => {
                    if before + read >= asked {
                        self.read_bytes = (self.read_bytes * 4).min(limits::SOCKET_READ_BYTES);
                    } else if read < self.read_bytes / 8 {
                        self.read_bytes = (self.read_bytes / 2).max(limits::LISTENER_FIRST_READ_BYTES);
                    }
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn wait(&mut self, silence_max: Option<Duration>) -> Result<(), End> {
        if self.framer.is_midway() {
            let began = *self.packet_began.get_or_insert_with(Instant::now);
            let deadline = began + Duration::from_secs(limits::PACKET_TIMEOUT_S);
            match timeout_at(deadline, self.reader.readable()).await {
                Ok(ready) => Ok(ready?),
                Err(_) => Err(End::new(
                    Ending::PacketTimeout,
                    format!("a packet was not complete after {} s", limits::PACKET_TIMEOUT_S),
                )),
            }
        } else {
            match silence_max {
                None => Ok(self.reader.readable().await?),
                Some(silence_max) => match timeout(silence_max, self.reader.readable()).await {
                    Ok(ready) => Ok(ready?),
                    Err(_) => Err(End::new(Ending::KeepAlive, "nothing came for 1.5 times the keep-alive")),
                },
            }
        }
    }

    /// Takes what the buffer grows to beyond its first size from the memory that all share.
    fn make_room(&mut self) -> Result<(), End> {
        let beyond = |bytes: usize| bytes.saturating_sub(limits::LISTENER_FIRST_READ_BYTES);
        let mut wanted = beyond(self.framer.needed().max(self.framer.unread() + self.read_bytes));
        if wanted <= self.shared_bytes {
            return Ok(());
        }
        let mut granted =
            self.counters.take_buffer(wanted - self.shared_bytes, limits::LISTENER_BUFFER_BYTES_MAX);
        if !granted {
            // A larger buffer is a favour; what the packet needs is not.
            self.read_bytes = limits::LISTENER_FIRST_READ_BYTES.min(self.read_bytes);
            wanted = beyond(self.framer.needed().max(self.framer.unread() + self.read_bytes));
            granted = wanted <= self.shared_bytes
                || self.counters.take_buffer(wanted - self.shared_bytes, limits::LISTENER_BUFFER_BYTES_MAX);
        }
        if !granted {
            return Err(End::new(
                Ending::Buffers,
                format!(
                    "unfinished packets of all connections hold {} bytes",
                    limits::LISTENER_BUFFER_BYTES_MAX
                ),
            ));
        }
        self.shared_bytes = self.shared_bytes.max(wanted);
        Ok(())
    }

    /// Gives the buffer back.
    fn release(&mut self) {
        self.framer.shrink(0);
        self.counters.give_buffer_back(std::mem::take(&mut self.shared_bytes));
        if std::mem::take(&mut self.has_buffer) {
            debug_assert_eq!(self.framer.capacity(), 0);
            self.counters.buffers.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// The next packet; notes when one is under way.
    fn next_packet(&mut self) -> Result<Option<Packet<'_>>, PacketError> {
        self.framer.next_packet()
    }
}

impl Drop for Input<'_> {
    fn drop(&mut self) {
        self.counters.give_buffer_back(self.shared_bytes);
        self.counters.buffers.fetch_sub(usize::from(self.has_buffer), Ordering::Relaxed);
    }
}

/// Serves one connection to its end.
pub async fn serve<I: Intake>(mut stream: TcpStream, pass: &Pass, shared: &Shared<I>, mut stop: Stop) -> End {
    let (reader, mut writer) = stream.split();
    let payload_bytes_max = shared.settings.payload_bytes_max;
    let mut input = Input {
        reader,
        framer: Framer::new(FrameLimits {
            payload_bytes_max,
            payload_bytes_skipped_max: payload_bytes_max.saturating_mul(limits::LISTENER_OVERSIZE_FACTOR),
        }),
        counters: shared.doors.counters.clone(),
        has_buffer: false,
        shared_bytes: 0,
        read_bytes: limits::LISTENER_FIRST_READ_BYTES,
        packet_began: None,
    };
    let taken_over = Arc::new(Notify::new());
    let greeting = tokio::select! {
        biased;
        _ = stopped(&mut stop) => return Ending::Stopped.into(),
        greeting = timeout(
            Duration::from_secs(limits::LISTENER_CONNECT_TIMEOUT_S),
            greet(&mut input, &mut writer, pass, &taken_over, &shared.sessions),
        ) => greeting,
    };
    input.packet_began = None;
    let Greeted { name, keep_alive_s, session } = match greeting {
        Ok(Ok(greeted)) => greeted,
        Ok(Err(end)) => return end,
        Err(_) => {
            let detail = format!("no whole CONNECT within {} s", limits::LISTENER_CONNECT_TIMEOUT_S);
            return End::new(Ending::ConnectTimeout, detail);
        }
    };

    let of_connection = session.as_ref().map(|(_, session)| session.clone());
    let connection = Connection::of_session(shared.window.clone(), of_connection);
    let link = Link::new(connection.clone());
    let device = Device {
        reception: Reception {
            intake: shared.intake.clone(),
            connection: connection.clone(),
            via: Via::Listener,
            // To us a message that a device wants retained is a message like any other.
            drops_retained: false,
            redelivered: shared.doors.counters.redelivered.clone(),
        },
        silence_max: (keep_alive_s > 0).then(|| Duration::from_millis(u64::from(keep_alive_s) * 1500)),
        taken_over: &taken_over,
        link: &link,
    };
    let end = device.run(&mut input, &mut writer, &mut stop).await;
    connection.end();
    if let Some((client_id, session)) = &session {
        shared.sessions.leave(client_id, session);
    }
    drop(name);
    end
}

/// A CONNECT that was taken.
struct Greeted {
    /// The client id that is held now.
    name: Name,
    keep_alive_s: u16,
    /// The session that was asked for, by its client id.
    session: Option<(String, Arc<Session>)>,
}

/// Reads the CONNECT and answers it.
async fn greet(
    input: &mut Input<'_>,
    writer: &mut WriteHalf<'_>,
    pass: &Pass,
    taken_over: &Arc<Notify>,
    sessions: &Sessions,
) -> Result<Greeted, End> {
    let (answer, taken) = loop {
        match input.next_packet()? {
            None => {}
            Some(Packet::Connect(connect)) => {
                let id = connect.client_id;
                break if connect.level != 4 {
                    let detail = format!("protocol level {}, we speak 4 (MQTT 3.1.1)", connect.level);
                    (UNACCEPTABLE_LEVEL, Err(End::new(Ending::ProtocolLevel, detail)))
                } else if id.is_empty() && !connect.clean_session {
                    let detail = "an empty client id wants a clean session";
                    (CLIENT_ID_REFUSED, Err(End::new(Ending::ClientId, detail)))
                } else if id.len() > limits::CLIENT_ID_BYTES_MAX {
                    let detail = format!(
                        "a client id of {} bytes, over the limit of {}",
                        id.len(),
                        limits::CLIENT_ID_BYTES_MAX
                    );
                    (CLIENT_ID_REFUSED, Err(End::new(Ending::ClientId, detail)))
                } else {
                    // A generated id holds U+0000, so that no client can name it and take it over.
                    let name = if id.is_empty() {
                        pass.take_client_id(&format!("\0{}", pass.connection), taken_over.clone())
                    } else {
                        pass.take_client_id(id, taken_over.clone())
                    };
                    debug!(client_id = id, "device connected");
                    let session = if connect.clean_session {
                        sessions.forget(id);
                        None
                    } else {
                        sessions.go_on(id).map(|session| (id.to_owned(), session))
                    };
                    (ACCEPTED, Ok(Greeted { name, keep_alive_s: connect.keep_alive_s, session }))
                };
            }
            Some(_) => return Err(End::new(Ending::Unexpected, "the first packet is no CONNECT")),
        }
        input.fill(None).await?;
    };
    let mut out = Vec::with_capacity(4);
    encode::connack(&mut out, answer);
    writer.write_all(&out).await?;
    taken
}

/// A device that was greeted.
struct Device<'a, I> {
    reception: Reception<I>,
    silence_max: Option<Duration>,
    taken_over: &'a Notify,
    link: &'a Link,
}

impl<I: Intake> Device<'_, I> {
    async fn run(&self, input: &mut Input<'_>, writer: &mut WriteHalf<'_>, stop: &mut Stop) -> End {
        let connection = &self.reception.connection;
        let deadline = stop.clone();
        let mut reading = std::pin::pin!(self.read(input, stop));
        let mut writing = std::pin::pin!(self.link.write(writer, None));
        let end = tokio::select! {
            end = &mut reading => end,
            () = past_deadline(deadline.clone()) => return Ending::Stopped.into(),
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
            return Ending::Stopped.into();
        };
        end
    }

    /// Reads until the connection ends, or Ok when we are to stop.
    async fn read(&self, input: &mut Input<'_>, stop: &mut Stop) -> Result<(), End> {
        let window = self.reception.connection.window();
        let mut gathering = Gathering::default();
        loop {
            let mut group = Vec::new();
            let left = self.take(input, &mut group);
            gathering.took(group.len());
            // What came before a fault or a DISCONNECT counts all the same.
            let more = group.len() == limits::INTAKE_GROUP_MESSAGES_MAX;
            if !group.is_empty() {
                self.reception.intake.accept(group).await;
            }
            left?;
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
                    () = self.taken_over.notified() => return Err(Ending::TakenOver.into()),
                    _ = stopped(stop) => return Ok(()),
                    () = window.room() => {}
                }
                tokio::select! {
                    biased;
                    () = self.taken_over.notified() => return Err(Ending::TakenOver.into()),
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
            if let Some(wait) = gathering.wait().filter(|_| !input.framer.is_midway()) {
                tokio::time::sleep(wait).await;
            }
            tokio::select! {
                biased;
                () = self.link.closed() => return Err(Ending::Lost.into()),
                () = self.taken_over.notified() => return Err(Ending::TakenOver.into()),
                _ = stopped(stop) => return Ok(()),
                filled = input.fill(self.silence_max) => filled?,
            }
        }
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
                    self.reception.receive(&publish, received_ns, group);
                }
                Packet::PingReq => self.link.send(|out| out.extend_from_slice(&encode::PINGRESP)),
                Packet::Subscribe { packet_id, filters } => {
                    self.link.send(|out| encode::suback_refusing(out, packet_id, filters));
                }
                Packet::Unsubscribe { packet_id } => {
                    self.link.send(|out| encode::unsuback(out, packet_id));
                }
                Packet::Disconnect => return Err(Ending::Left.into()),
                Packet::Connect(_) => return Err(End::new(Ending::Unexpected, "a second CONNECT")),
                _ => return Err(End::new(Ending::Unexpected, "a packet that only servers send")),
            }
            input.packet_began = None;
        }
        Ok(())
    }
}
