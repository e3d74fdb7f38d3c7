//! Messages that are parked: frames of a kind of their own, in a stream of each tenant beside those of
//! its databases, so that release, copying and recovery are the same for both.
//!
//! The body is for each message its topic (length in 2 bytes), time of receipt (8), how it came in and
//! what follows (1: bit 0 the listener, bit 1 a replay), its size on the wire (4), bytes of payload
//! that are kept (4), the payload; of a replay the entry of quarantine (length in 2 bytes) and how many
//! times it was replayed (4). Such a frame has no lines.

use std::collections::HashSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;

use crate::codec::{ByteReader, put_text};
use crate::commit_queue::{AppendBody, CommitQueue, ParkedBatch, QueueItem};
use crate::frame::{FrameDraft, FrameHeader, FrameKind};
use crate::handle::Spool;
use crate::ids::{FrameId, NO_DATABASE};
use crate::index::database::FetchRequest;
use crate::limits;
use crate::quota::QuotaCheck;
use crate::shared::Shared;
use tidegate_core::ack::origin::UnparkGuard;
use tidegate_core::books::Account;
use tidegate_core::durable::{MessageSet, message_set};
use tidegate_core::ids::{DatabaseName, TenantId};
use tidegate_core::message::{Received, Via};
use tidegate_core::parked::{ParkedMessage, UnparkedMessage};
use tidegate_core::synced::Synced;
use tidegate_core::tenant::settings::WhenFull;

const BY_LISTENER: u8 = 1;

const IS_REPLAY: u8 = 2;

const IS_PROVEN: u8 = 4;

fn put(message: &ParkedMessage, out: &mut Vec<u8>) {
    let ParkedMessage { topic, payload, payload_bytes, received_ns, via, replay } = message;
    put_text(out, topic);
    out.extend_from_slice(&received_ns.to_le_bytes());
    let via = match via {
        Via::Broker => 0,
        Via::Listener => BY_LISTENER,
        Via::Proven => IS_PROVEN,
    };
    out.push(via | if replay.is_some() { IS_REPLAY } else { 0 });
    out.extend_from_slice(&(*payload_bytes as u32).to_le_bytes());
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(payload);
    if let Some((of, replays)) = replay {
        put_text(out, of);
        out.extend_from_slice(&replays.to_le_bytes());
    }
}

/// Reads a body whose CRC was good. `None` where it does not hold what its header says.
pub fn read(header: &FrameHeader, body: &[u8]) -> Option<Vec<ParkedMessage>> {
    let mut reader = ByteReader(body);
    let mut messages = Vec::with_capacity(usize::from(header.messages));
    for _ in 0..header.messages {
        let topic = reader.text()?;
        let received_ns = reader.u64()? as i64;
        let flags = reader.u8()?;
        let payload_bytes = reader.u32()? as usize;
        let kept = reader.u32()? as usize;
        let payload = Bytes::copy_from_slice(reader.take(kept)?);
        let replay = if flags & IS_REPLAY != 0 { Some((reader.text()?, reader.u32()?)) } else { None };
        let via = match flags & (BY_LISTENER | IS_PROVEN) {
            0 => Via::Broker,
            IS_PROVEN => Via::Proven,
            _ => Via::Listener,
        };
        messages.push(ParkedMessage { topic, payload, payload_bytes, received_ns, via, replay });
    }
    reader.0.is_empty().then_some(messages)
}

/// A frame of no message yet.
pub fn draft(tenant: &TenantId) -> FrameDraft {
    let header = FrameHeader {
        kind: FrameKind::Parked,
        flags: 0,
        messages: 0,
        body_len: 0,
        body_crc: crc32c::crc32c(&[]),
        seq: 0,
        spooled: 0,
        first_ns: i64::MIN,
        last_ns: i64::MIN,
        kept_s: 0,
        lines: 0,
        tenant: String::new(),
        database: String::new(),
    };
    let names_bytes = tenant.as_str().len() + NO_DATABASE.len();
    FrameDraft { header, names_bytes, table: Vec::new(), state: Vec::new() }
}

/// One more message for the frame, parked at the second `kept_s` of the age clock.
pub fn add(draft: &mut FrameDraft, message: &ParkedMessage, kept_s: u32) {
    let before = draft.table.len();
    put(message, &mut draft.table);
    let FrameDraft { header, table, .. } = draft;
    if header.messages == 0 {
        header.kept_s = kept_s;
    }
    header.messages += 1;
    header.body_len = table.len() as u32;
    header.body_crc = crc32c::crc32c_append(header.body_crc, &table[before..]);
}

impl CommitQueue {
    /// Takes a message, into a frame that waits where there is one with room.
    fn park(&mut self, tenant: &TenantId, account: &Arc<Account>, message: Received, kept_s: u32) -> u64 {
        let kept = ParkedMessage::of(&message);
        let bytes = kept.topic.len() + kept.payload.len();
        let recent = self.items.iter_mut().rev().take(limits::PARKED_FRAMES_SEARCHED);
        let mut own = recent.filter_map(|item| match &mut item.load {
            AppendBody::Parked(batch) if batch.tenant == *tenant => Some((&mut item.draft, batch)),
            _ => None,
        });
        // The last one, so that their order stays.
        let joined = own.next().filter(|(draft, batch)| {
            batch.messages.len() < 64 && draft.table.len() + bytes < limits::PARKED_FRAME_BYTES
        });
        if let Some((draft, batch)) = joined {
            let before = draft.table.len();
            add(draft, &kept, kept_s);
            batch.messages.push(message);
            return (draft.table.len() - before) as u64;
        }
        let mut draft = draft(tenant);
        add(&mut draft, &kept, kept_s);
        let taken = draft.frame_len() as u64;
        let batch = ParkedBatch { tenant: tenant.clone(), account: account.clone(), messages: vec![message] };
        self.items.push_back(QueueItem { load: AppendBody::Parked(batch), draft });
        taken
    }
}

impl Spool {
    /// Takes a message to park it; its token is settled once it is durable. Does no I/O; from any
    /// thread.
    ///
    /// # Errors
    /// The message, where its tenant has no room for it.
    pub fn park(
        &self,
        tenant: &TenantId,
        account: &Arc<Account>,
        message: Received,
    ) -> Result<(), Box<Received>> {
        let shared = &self.shared;
        let most = draft(tenant).frame_len() + message.topic.len() + message.payload.len() + 64;
        let most = most as u64;
        let mut quotas = shared.quotas.lock();
        let has_room = !quotas.held.contains(tenant)
            && quotas.room_to_park(tenant, most) == QuotaCheck::Free
            && (account.was_admitted() || shared.index.lock().accepts_unauthenticated(tenant));
        let fits = has_room
            && match quotas.room(tenant, most) {
                QuotaCheck::Free => true,
                full if shared.when_full(&quotas, tenant) == WhenFull::DropOldest => {
                    shared.drop_oldest(&mut quotas, tenant, full)
                }
                _ => false,
            };
        if !fits {
            return Err(Box::new(message));
        }
        // A tenant that has something parked has an account of its own, whoever it is.
        let own = shared.books.of_known(tenant.as_str());
        if !Arc::ptr_eq(&own, account) {
            own.receive(1);
            account.withdraw(1);
        }
        let kept_s = shared.settings.age_clock.now_s();
        let taken = shared.queue.lock().park(tenant, &own, message, kept_s);
        quotas.shares.take_charged(tenant, taken);
        quotas.parked.take(tenant, taken);
        drop(quotas);
        shared.more.notify_one();
        Ok(())
    }

    /// Bytes of frames of parked messages.
    pub fn parked_bytes(&self) -> u64 {
        self.shared.index.lock().parked_bytes().map(|(_, bytes)| bytes).sum()
    }

    /// Waits until a parked message can be unparked.
    pub async fn parked(&self) {
        loop {
            let notified = self.shared.parked.notified();
            if self.shared.index.lock().has_parked() {
                return;
            }
            notified.await;
        }
    }

    /// Unparks messages, in order, about `bytes_max` at once. Tenants whose lines wait for room are left
    /// out: their messages would only wait with them. Reads from the disk.
    pub fn unpark(&self, bytes_max: u64) -> Vec<UnparkedMessage> {
        let shared = &self.shared;
        let blocked: HashSet<TenantId> = shared.quotas.lock().held.tenants().cloned().collect();
        let memory = shared.settings.memory_limits();
        let of = DatabaseName::new(NO_DATABASE);
        let wanted =
            shared.index.lock().fetch_of(&of, bytes_max, &memory, |tenant| !blocked.contains(tenant)).0;
        let unparked = |wanted: &FetchRequest, header: &FrameHeader, body: &[u8], _: &Synced| {
            let messages = read(header, body).ok_or("it does not hold what its header says")?;
            let open = messages.into_iter().enumerate();
            let open = open.filter(|(place, _)| wanted.messages & (1 << place) != 0);
            let unparked = open.map(|(message, parked)| {
                let release =
                    Box::new(ParkedClaim { shared: Arc::downgrade(shared), id: wanted.id, message });
                UnparkedMessage { tenant: TenantId::new(&header.tenant), message: parked, guard: release }
            });
            Ok(unparked.collect())
        };
        crate::reader::FetchReader::new(shared).read_all(wanted, unparked).0
    }

    /// The topics of all that is parked, in order; for a start. Reads from the disk.
    pub fn parked_topics(&self, mut each: impl FnMut(&str)) {
        let mut frames = self.shared.index.lock().parked_frames();
        let mut reader = crate::reader::FetchReader::new(&self.shared);
        let topics = |_: &FetchRequest, header: &FrameHeader, body: &[u8], _: &Synced| {
            let messages = read(header, body).ok_or("it does not hold what its header says")?;
            Ok(messages.into_iter().map(|message| message.topic).collect())
        };
        for frame in frames.drain(..) {
            let (read, _) = reader.read_all(vec![frame], topics);
            read.iter().for_each(|topic: &String| each(topic));
        }
    }
}

/// Keeps a message that was unparked until its outcome is durable.
#[derive(Debug)]
struct ParkedClaim {
    shared: Weak<Shared>,
    id: FrameId,
    message: usize,
}

impl ParkedClaim {
    fn set(&self) -> MessageSet {
        message_set(self.message..self.message + 1)
    }
}

impl UnparkGuard for ParkedClaim {
    fn commit(&self) {
        let Some(shared) = self.shared.upgrade() else { return };
        let (gone, tenant) = {
            let mut index = shared.index.lock();
            (index.settle(self.id, self.set(), 0), index.names(self.id.stream).0.clone())
        };
        if let Some(gone) = gone {
            shared.freed_parked(&tenant, gone.bytes);
        }
    }

    fn abort(&self) {
        let Some(shared) = self.shared.upgrade() else { return };
        shared.index.lock().return_messages(self.id, self.set());
        shared.parked.notify_one();
    }
}

impl Shared {
    /// A frame of parked messages is released.
    pub fn freed_parked(&self, tenant: &TenantId, bytes: u64) {
        let mut quotas = self.quotas.lock();
        quotas.parked.release(tenant, bytes);
        quotas.shares.release_charged(tenant, bytes);
        self.release_deferred(quotas);
    }

    /// Counts messages as dropped whose frame cannot be read.
    pub fn lose_parked(&self, tenant: &TenantId, messages: u32) {
        let account = self.books.of_known(tenant.as_str());
        account.unpark(u64::from(messages));
        account.record_drops(tidegate_core::reason::Reason::RegistryUnavailable, u64::from(messages));
        account.settle(tidegate_core::books::Outcome::Dropped, u64::from(messages));
    }
}

/// The parked messages of one tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct ParkedStatus {
    pub messages: u64,
    pub bytes: u64,
    pub oldest_age_ms: u64,
}

impl ParkedStatus {
    pub fn new(messages: u64, bytes: u64, oldest_s: Option<u32>, now: Duration) -> Self {
        let age = oldest_s
            .map_or(Duration::ZERO, |oldest_s| now.saturating_sub(Duration::from_secs(u64::from(oldest_s))));
        Self { messages, bytes, oldest_age_ms: age.as_millis() as u64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::FrameDraft;
    use bytes::Bytes;
    use tidegate_core::message::Via;
    use tidegate_core::parked::ParkedMessage;

    fn message(payload: &'static str, via: Via, replay: Option<(String, u32)>) -> ParkedMessage {
        ParkedMessage {
            topic: "tenant/acme/device/d/telemetry".into(),
            payload: Bytes::from_static(payload.as_bytes()),
            payload_bytes: payload.len() + 7,
            received_ns: 1_700_000_000_000_000_123,
            via,
            replay,
        }
    }

    #[test]
    fn messages_are_read_back_as_they_were_parked() {
        let messages = [
            message("one", Via::Broker, None),
            message("", Via::Listener, Some(("entry-7".into(), 3))),
            message("three", Via::Proven, Some(("entry-8".into(), 1))),
            message("four", Via::Listener, None),
        ];
        let mut draft = draft(&"acme".into());
        messages.iter().for_each(|message| add(&mut draft, message, 1_700_000_000));
        let FrameDraft { header, table, .. } = draft;
        assert_eq!((header.messages, header.lines, header.kept_s), (4, 0, 1_700_000_000));
        assert_eq!((header.body_len as usize, header.body_crc), (table.len(), crc32c::crc32c(&table)));
        assert_eq!(read(&header, &table).unwrap(), messages);
        for cut in 0..table.len() {
            assert_eq!(read(&header, &table[..cut]), None);
        }
    }
}
