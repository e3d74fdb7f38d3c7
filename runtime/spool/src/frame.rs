//! The frame: one decoded batch of one database as it lies on disk. Pure.
//!
//! All numbers are little endian.
//!
//! | at | size | what |
//! |---|---|---|
//! | 0 | 4 | magic `FF 'T' 'G' FE`: no UTF-8 text has these bytes |
//! | 4 | 4 | CRC-32C of the header from byte 8 on, names included, seeded with the segment's salt |
//! | 8 | 1 | kind: 1 lines, 2 marks, 3 parked messages (their body: `parked`), 4 state |
//! | 9 | 1 | flags: 1 the body ends in changes of the state, 2 it is a copy, whose changes are not applied; the upper 5 bits: the tag of the seed of the affinities in it, 0 where nobody knows it any more |
//! | 10 | 2 | messages |
//! | 12 | 2 + 2 | length of the tenant's name, of the database's |
//! | 16 | 4 + 4 | length of the body, its CRC-32C |
//! | 24 | 8 | sequence number among the frames of this tenant and database |
//! | 32 | 8 | lines of this tenant that were ever spooled, those of this frame included |
//! | 40 | 8 + 8 | the earliest and the latest time of its lines, ns since the epoch |
//! | 56 | 4 + 4 | second of the age clock at which it came (earlier versions: of the wall clock), lines |
//! | 64 | | the tenant's name, the database's name, the body |
//!
//! The body of a frame of lines: the guest's tag (its length in 2 bytes), then for each message its
//! topic (length in 2 bytes), time of receipt (8), affinity (4), bytes of lines (4) and lines (4),
//! then the lines, and where the flag says so the changes of the state (`state`), which is all that the
//! body of a frame of state holds. The salt is random and known to nobody outside: nothing that a tenant writes
//! passes for a header when recovery searches for one.

use std::ops::Range;

use crate::codec::{ByteReader, put_text};
use crate::{limits, state_log};
use tidegate_core::device_hash::SeedTag;
use tidegate_core::durable::DurableMessage;
use tidegate_core::message::CheckedBatch;

pub const MAGIC: [u8; 4] = [0xFF, b'T', b'G', 0xFE];

/// Bytes of a header without the names.
pub const HEADER_BYTES: usize = 64;

/// The kind of a frame's contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    Lines,
    Marks,
    /// Messages as they came, in a stream without a database.
    Parked,
    /// Changes of the state that no line came of.
    State,
}

/// The body ends in changes of the state.
pub const HAS_STATE: u8 = 1;

/// A copy: the changes of the state stand, or stood, where it was copied from.
pub const IS_COPY: u8 = 2;

/// The place of the seed's tag in the flags.
const SEED_SHIFT: u32 = 3;

/// The header of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    pub kind: FrameKind,
    pub flags: u8,
    pub messages: u16,
    pub body_len: u32,
    pub body_crc: u32,
    pub seq: u64,
    pub spooled: u64,
    pub first_ns: i64,
    pub last_ns: i64,
    pub kept_s: u32,
    pub lines: u32,
    pub tenant: String,
    pub database: String,
}

impl FrameHeader {
    /// Bytes of the whole frame.
    pub fn frame_len(&self) -> usize {
        HEADER_BYTES + self.tenant.len() + self.database.len() + self.body_len as usize
    }

    /// The seed of the affinities in it.
    pub fn seed(&self) -> SeedTag {
        SeedTag::new(self.flags >> SEED_SHIFT)
    }

    pub fn with_seed(self, seed: SeedTag) -> Self {
        Self { flags: self.flags | seed.get() << SEED_SHIFT, ..self }
    }

    /// The same header, with other numbers and without the names.
    pub fn numbered(&self, seq: u64, spooled: u64) -> Self {
        // Field by field: a copy of the names would be two allocations for each frame.
        Self {
            kind: self.kind,
            flags: self.flags,
            messages: self.messages,
            body_len: self.body_len,
            body_crc: self.body_crc,
            seq,
            spooled,
            first_ns: self.first_ns,
            last_ns: self.last_ns,
            kept_s: self.kept_s,
            lines: self.lines,
            tenant: String::new(),
            database: String::new(),
        }
    }

    pub fn put(&self, salt: u32, out: &mut Vec<u8>) {
        self.put_with_names(&self.tenant, &self.database, salt, out);
    }

    /// Puts the header with these names in place of its own.
    pub fn put_with_names(&self, tenant: &str, database: &str, salt: u32, out: &mut Vec<u8>) {
        let begin = out.len();
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[0; 4]);
        out.push(match self.kind {
            FrameKind::Lines => 1,
            FrameKind::Marks => 2,
            FrameKind::Parked => 3,
            FrameKind::State => 4,
        });
        out.push(self.flags);
        out.extend_from_slice(&self.messages.to_le_bytes());
        out.extend_from_slice(&(tenant.len() as u16).to_le_bytes());
        out.extend_from_slice(&(database.len() as u16).to_le_bytes());
        out.extend_from_slice(&self.body_len.to_le_bytes());
        out.extend_from_slice(&self.body_crc.to_le_bytes());
        out.extend_from_slice(&self.seq.to_le_bytes());
        out.extend_from_slice(&self.spooled.to_le_bytes());
        out.extend_from_slice(&self.first_ns.to_le_bytes());
        out.extend_from_slice(&self.last_ns.to_le_bytes());
        out.extend_from_slice(&self.kept_s.to_le_bytes());
        out.extend_from_slice(&self.lines.to_le_bytes());
        out.extend_from_slice(tenant.as_bytes());
        out.extend_from_slice(database.as_bytes());
        let crc = crc32c::crc32c_append(salt, &out[begin + 8..]);
        out[begin + 4..begin + 8].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads the header that `bytes` begin with; `None` where there is none, or a damaged one.
    pub fn read(salt: u32, bytes: &[u8]) -> Option<Self> {
        let fixed = bytes.get(..HEADER_BYTES)?;
        if fixed[..4] != MAGIC {
            return None;
        }
        let mut reader = ByteReader(&fixed[4..]);
        let crc = reader.u32()?;
        let (kind, flags) = (reader.u8()?, reader.u8()?);
        let messages = reader.u16()?;
        let (tenant_len, database_len) = (reader.u16()? as usize, reader.u16()? as usize);
        let names = bytes.get(HEADER_BYTES..HEADER_BYTES + tenant_len + database_len)?;
        if crc32c::crc32c_append(salt, &bytes[8..HEADER_BYTES + names.len()]) != crc {
            return None;
        }
        let kind = match kind {
            1 => FrameKind::Lines,
            2 => FrameKind::Marks,
            3 => FrameKind::Parked,
            4 => FrameKind::State,
            _ => return None,
        };
        Some(Self {
            kind,
            flags,
            messages,
            body_len: reader.u32()?,
            body_crc: reader.u32()?,
            seq: reader.u64_to(limits::SPOOL_FRAME_NUMBER_MAX)?,
            spooled: reader.u64_to(limits::SPOOL_LINES_MAX)?,
            first_ns: reader.u64()? as i64,
            last_ns: reader.u64()? as i64,
            kept_s: reader.u32()?,
            lines: reader.u32()?,
            tenant: std::str::from_utf8(&names[..tenant_len]).ok()?.to_owned(),
            database: std::str::from_utf8(&names[tenant_len..]).ok()?.to_owned(),
        })
    }
}

/// A batch made ready for the disk, but for what is known only once its turn has come: sequence
/// number, total and salt.
#[derive(Debug)]
pub struct FrameDraft {
    /// `seq` and `spooled` are 0, and the names are those of its stream.
    pub header: FrameHeader,
    /// Bytes of the names.
    pub names_bytes: usize,
    /// The body up to the lines.
    pub table: Vec<u8>,
    /// The body behind the lines.
    pub state: Vec<u8>,
}

impl FrameDraft {
    /// `kept_s`: the second of the age clock.
    ///
    /// # Panics
    /// With more messages than a set of them can tell apart.
    pub fn new(batch: &CheckedBatch, kept_s: u32) -> Self {
        assert!(batch.messages.len() <= 64, "a batch has at most 64 messages");
        let state = batch.state_delta.as_ref().map(|kept| state_log::section(kept)).unwrap_or_default();
        let mut table = Vec::with_capacity(64 + batch.messages.len() * 80);
        // The body of a frame of state is nothing but that.
        if !batch.messages.is_empty() {
            put_text(&mut table, batch.guest.as_str());
        }
        let mut begin = 0;
        for message in &batch.messages {
            put_text(&mut table, &message.topic);
            table.extend_from_slice(&message.received_ns.to_le_bytes());
            table.extend_from_slice(&message.affinity.to_le_bytes());
            table.extend_from_slice(&(message.lines_end - begin).to_le_bytes());
            table.extend_from_slice(&message.line_count.to_le_bytes());
            begin = message.lines_end;
        }
        let (first_ns, last_ns) = times_of(&batch.lines);
        let body_crc = crc32c::crc32c_append(crc32c::crc32c(&table), &batch.lines);
        let header = FrameHeader {
            kind: if batch.messages.is_empty() { FrameKind::State } else { FrameKind::Lines },
            flags: if state.is_empty() { 0 } else { HAS_STATE },
            messages: batch.messages.len() as u16,
            // 64 messages have some 80 MiB of lines at most, and their state less.
            body_len: u32::try_from(table.len() + batch.lines.len() + state.len())
                .expect("a batch is bounded"),
            body_crc: if state.is_empty() { body_crc } else { crc32c::crc32c_append(body_crc, &state) },
            seq: 0,
            spooled: 0,
            first_ns,
            last_ns,
            kept_s,
            lines: batch.line_count() as u32,
            tenant: String::new(),
            database: String::new(),
        };
        let names_bytes = batch.tenant.id.as_str().len() + batch.database.as_str().len();
        Self { header, names_bytes, table, state }
    }

    /// Bytes of the frame.
    pub fn frame_len(&self) -> usize {
        HEADER_BYTES + self.names_bytes + self.header.body_len as usize
    }

    /// True if nothing of it goes to the disk.
    pub fn is_empty(&self) -> bool {
        self.header.body_len == 0
    }
}

/// The earliest and the latest time of checked lines. A string value with something like a time
/// before a newline can only widen it.
fn times_of(lines: &[u8]) -> (i64, i64) {
    let (mut first, mut last) = (i64::MAX, i64::MIN);
    for newline in memchr::memchr_iter(b'\n', lines) {
        // The longest time is -9223372036854775808.
        let tail = &lines[newline.saturating_sub(21)..newline];
        let time = memchr::memrchr(b' ', tail).and_then(|space| std::str::from_utf8(&tail[space + 1..]).ok());
        if let Some(time) = time.and_then(|time| time.parse::<i64>().ok()) {
            first = first.min(time);
            last = last.max(time);
        }
    }
    if first > last { (i64::MIN, i64::MAX) } else { (first, last) }
}

/// The body of a frame of lines.
#[derive(Debug, PartialEq, Eq)]
pub struct FrameBody {
    pub guest: String,
    pub messages: Vec<DurableMessage>,
    /// The place of the lines in the body.
    pub lines: Range<usize>,
}

impl FrameBody {
    /// Reads a body whose CRC was good. `None` where it does not hold what its header says.
    pub fn read(header: &FrameHeader, body: &[u8]) -> Option<Self> {
        let mut reader = ByteReader(body);
        let guest = reader.text()?;
        let mut messages = Vec::with_capacity(usize::from(header.messages));
        let mut lines_end = 0u32;
        for _ in 0..header.messages {
            let topic = reader.text()?;
            let received_ns = reader.u64()? as i64;
            let affinity = reader.u32()?;
            lines_end = lines_end.checked_add(reader.u32()?)?;
            messages.push(DurableMessage {
                topic,
                received_ns,
                lines_end,
                line_count: reader.u32()?,
                affinity,
            });
        }
        let begin = body.len() - reader.0.len();
        let (len, lines) = (lines_end as usize, begin..begin + lines_end as usize);
        let fits = match header.flags & HAS_STATE {
            0 => reader.0.len() == len,
            _ => reader.0.len() >= len,
        };
        fits.then_some(Self { guest, messages, lines })
    }
}

/// The changes of the state in a body whose CRC was good, if it has any that are to be applied.
pub fn state_of<'a>(header: &FrameHeader, body: &'a [u8]) -> Option<&'a [u8]> {
    if header.flags & (HAS_STATE | IS_COPY) != HAS_STATE {
        return None;
    }
    match header.kind {
        FrameKind::State => Some(body),
        FrameKind::Lines => body.get(FrameBody::read(header, body)?.lines.end..),
        FrameKind::Marks | FrameKind::Parked => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_of_lines_are_found_from_their_ends() {
        assert_eq!(times_of(b"m f=1 5\nm f=2 -3\nm f=\"x\ny\" 9\n"), (-3, 9));
        assert_eq!(times_of(b"m f=1 9223372036854775807\n"), (i64::MAX, i64::MAX));
        assert_eq!(times_of(b"m f=1 -9223372036854775808\n"), (i64::MIN, i64::MIN));
        assert_eq!(times_of(b"m f=\"no time\"\n"), (i64::MIN, i64::MAX));
    }

    #[test]
    fn a_header_is_read_back_only_as_it_was_written_and_with_its_salt() {
        let header = FrameHeader {
            kind: FrameKind::Lines,
            flags: HAS_STATE,
            messages: 3,
            body_len: 77,
            body_crc: 5,
            seq: 9,
            spooled: 1 << 40,
            first_ns: -1,
            last_ns: i64::MAX,
            kept_s: 1,
            lines: 4,
            tenant: "acme".into(),
            database: "telemetry_acme".into(),
        };
        let mut bytes = Vec::new();
        header.put(7, &mut bytes);
        assert_eq!(bytes.len() + 77, header.frame_len());
        assert_eq!(FrameHeader::read(7, &bytes), Some(header));
        assert_eq!(FrameHeader::read(8, &bytes), None);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert_eq!(FrameHeader::read(7, &damaged), None, "byte {at}");
        }
    }
}
