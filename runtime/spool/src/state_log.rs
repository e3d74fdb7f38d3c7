//! The decoders' state as the disk has it: the frames' changes, and checkpoints of the whole. Pure.
//!
//! - A change states the whole of its value, so changes may be applied twice, as long as they are
//!   applied in the order of the log. That is the order of their places, since segments are numbered in
//!   the order in which they are written; a copy of a frame, which stands elsewhere, brings no change.
//! - Frames go when their lines are written, and the segments with them. So the whole is written down
//!   from time to time, with the place of the last frame that it covers: a segment with a change behind
//!   that place stays.
//! - After a restart: the checkpoint, and then the changes behind its place.
//!
//! All numbers are little endian; a text is its length in 2 bytes and the text. Changes: the message type
//! (a text), their number (4), and of each the partition and the key (texts), whether there is a value
//! (1), its length (4) and the value. A checkpoint: `TGSTATE1`, segment (8) and offset (8) of the last
//! frame that it covers, the number of scopes (4); of each scope tenant and message type (texts) and the
//! number of partitions (4); of each its name (a text) and the number of values (4); of each its key (a
//! text), length (4) and value; at the end the CRC-32C of all before it (4).

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::codec::{ByteReader, put_text};
use crate::ids::FrameLocation;
use crate::limits;
use tidegate_core::decoder_state::{StateDelta, StateScope, StateSnapshot, StateWrite};
use tidegate_core::ids::TenantId;

const MAGIC: &[u8; 8] = b"TGSTATE1";

/// The beginning of a frame: of two, the later one was written later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogPosition {
    pub segment: u64,
    pub offset: u64,
}

impl From<FrameLocation> for LogPosition {
    fn from(place: FrameLocation) -> Self {
        Self { segment: place.segment, offset: place.offset }
    }
}

/// The changes of a batch; empty where there are none.
pub fn section(kept: &StateDelta) -> Vec<u8> {
    let mut out = Vec::new();
    if kept.writes.is_empty() {
        return out;
    }
    put_text(&mut out, &kept.message_type);
    put_len(&mut out, kept.writes.len());
    for write in &kept.writes {
        put_text(&mut out, &write.partition);
        put_text(&mut out, &write.key);
        out.push(u8::from(write.value.is_some()));
        put_value(&mut out, write.value.as_deref().unwrap_or_default());
    }
    out
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    out.extend_from_slice(&(len as u32).to_le_bytes());
}

fn put_value(out: &mut Vec<u8>, value: &[u8]) {
    put_len(out, value.len());
    out.extend_from_slice(value);
}

fn value<'a>(reader: &mut ByteReader<'a>) -> Option<&'a [u8]> {
    let len = reader.u32()? as usize;
    reader.take(len)
}

/// Reads what `section` wrote. `None` where it is none.
fn read_section(bytes: &[u8]) -> Option<(Arc<str>, Vec<StateWrite>)> {
    let mut reader = ByteReader(bytes);
    let message_type = reader.text()?.into();
    let mut writes = Vec::new();
    for _ in 0..reader.u32()? {
        let (partition, key) = (reader.text()?.into(), reader.text()?.into());
        let is_there = reader.u8()? == 1;
        let value = value(&mut reader)?;
        writes.push(StateWrite { partition, key, value: is_there.then(|| value.into()) });
    }
    reader.0.is_empty().then_some((message_type, writes))
}

/// The state as the disk has it, and what of it only frames hold.
#[derive(Clone, Debug, Default)]
pub struct StateLog {
    image: StateSnapshot,
    /// The last frame that was applied.
    at: LogPosition,
    /// The last frame that a checkpoint covers.
    covered: LogPosition,
    /// The last frame with changes in each segment that holds some which no checkpoint covers.
    uncovered: BTreeMap<u64, u64>,
}

impl StateLog {
    /// Reads a checkpoint.
    ///
    /// # Errors
    /// It is damaged.
    pub fn read(bytes: &[u8]) -> Result<Self, &'static str> {
        let Some((body, crc)) = bytes.split_last_chunk::<4>() else { return Err("it is cut off") };
        if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
            return Err("its checksum is wrong");
        }
        Self::read_body(body).ok_or("it is no checkpoint of this version")
    }

    fn read_body(body: &[u8]) -> Option<Self> {
        let mut reader = ByteReader(body.strip_prefix(MAGIC)?);
        let segment = reader.u64_to(limits::SPOOL_SEGMENT_NUMBER_MAX)?;
        let covered = LogPosition { segment, offset: reader.u64()? };
        let mut image = StateSnapshot::default();
        for _ in 0..reader.u32()? {
            let (tenant, message_type) = (TenantId::new(&reader.text()?), reader.text()?.into());
            let scope = StateScope { tenant, message_type };
            for _ in 0..reader.u32()? {
                let partition: Arc<str> = reader.text()?.into();
                let mut writes = Vec::new();
                for _ in 0..reader.u32()? {
                    let key = reader.text()?.into();
                    let value = Some(value(&mut reader)?.into());
                    writes.push(StateWrite { partition: partition.clone(), key, value });
                }
                image.apply(&scope, writes);
            }
        }
        reader.0.is_empty().then_some(Self { image, at: covered, covered, uncovered: BTreeMap::new() })
    }

    /// Applies the changes of a frame, unless they are covered. False: they are none.
    pub fn apply(&mut self, tenant: &str, place: FrameLocation, section: &[u8]) -> bool {
        let position = LogPosition::from(place);
        if position <= self.covered {
            return true;
        }
        let Some((message_type, writes)) = read_section(section) else { return false };
        self.image.apply(&StateScope { tenant: TenantId::new(tenant), message_type }, writes);
        self.at = self.at.max(position);
        self.uncovered.insert(place.segment, place.offset);
        true
    }

    pub fn image(&self) -> &StateSnapshot {
        &self.image
    }

    /// The segment of the last frame that a checkpoint covers.
    pub fn covered_segment(&self) -> Option<u64> {
        (self.covered != LogPosition::default()).then_some(self.covered.segment)
    }

    /// True if a segment must stay: it holds changes that no checkpoint covers.
    pub fn pins(&self, segment: u64) -> bool {
        self.uncovered.contains_key(&segment)
    }

    /// The contents of a checkpoint that is made now.
    pub fn snapshot(&self) -> CheckpointSnapshot {
        CheckpointSnapshot { image: self.image.clone(), covers: self.at }
    }

    /// A checkpoint is durable that covers everything up to `covers`.
    pub fn cover(&mut self, covers: LogPosition) {
        self.covered = self.covered.max(covers);
        let covered = self.covered;
        self.uncovered.retain(|&segment, &mut offset| LogPosition { segment, offset } > covered);
    }
}

/// The whole state at one moment.
#[derive(Clone, Debug)]
pub struct CheckpointSnapshot {
    image: StateSnapshot,
    pub covers: LogPosition,
}

impl CheckpointSnapshot {
    /// The checkpoint as it lies on disk.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&self.covers.segment.to_le_bytes());
        out.extend_from_slice(&self.covers.offset.to_le_bytes());
        put_len(&mut out, self.image.routes().len());
        for (scope, values) in self.image.routes() {
            put_text(&mut out, scope.tenant.as_str());
            put_text(&mut out, &scope.message_type);
            put_len(&mut out, values.partitions().len());
            for (partition, values) in values.partitions() {
                put_text(&mut out, partition);
                put_len(&mut out, values.len());
                for (key, value) in values {
                    put_text(&mut out, key);
                    put_value(&mut out, value);
                }
            }
        }
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::FrameLocation;
    use tidegate_core::decoder_state::{StateDelta, StateScope, StateWrite};

    fn kept(writes: &[(&str, &str, Option<&[u8]>)]) -> StateDelta {
        let writes = writes.iter().map(|&(partition, key, value)| StateWrite {
            partition: partition.into(),
            key: key.into(),
            value: value.map(Into::into),
        });
        StateDelta { writes: writes.collect(), ..StateDelta::new("meter".into()) }
    }

    fn place(segment: u64, offset: u64) -> FrameLocation {
        FrameLocation { segment, offset, len: 1 }
    }

    #[test]
    fn a_checkpoint_gives_back_what_it_covers_and_changes_behind_it_are_applied() {
        let mut log = StateLog::default();
        let first =
            section(&kept(&[("d1", "n", Some(b"1")), ("d2", "n", Some(b"")), ("d1", "m", Some(b"x"))]));
        let second = section(&kept(&[("d1", "n", Some(b"2")), ("d1", "m", None)]));
        assert!(log.apply("acme", place(1, 100), &first));
        let snapshot = log.snapshot();
        let checkpoint = snapshot.bytes();
        assert!(log.apply("acme", place(2, 50), &second));
        assert!(log.pins(1) && log.pins(2));
        log.cover(snapshot.covers);
        assert!(!log.pins(1) && log.pins(2));

        let mut read = StateLog::read(&checkpoint).unwrap();
        assert_eq!(read.image, snapshot.image);
        // What is covered is not applied again.
        assert!(read.apply("acme", place(1, 100), &second));
        assert_eq!(read.image, snapshot.image);
        assert!(read.apply("acme", place(2, 50), &second));
        assert_eq!(read.image, log.image);
        let scope = StateScope { tenant: "acme".into(), message_type: "meter".into() };
        let values = read.image.route(&scope).unwrap();
        assert_eq!((values.get("d1", "n"), values.get("d1", "m")), (Some(&b"2"[..]), None));
        assert_eq!(values.get("d2", "n"), Some(&b""[..]));
    }

    #[test]
    fn what_is_damaged_is_not_read() {
        let mut log = StateLog::default();
        let changes = section(&kept(&[("d1", "n", Some(b"1"))]));
        assert!(!log.apply("acme", place(1, 1), &changes[..changes.len() - 1]));
        assert!(log.apply("acme", place(1, 1), &changes));
        let checkpoint = log.snapshot().bytes();
        for at in 0..checkpoint.len() {
            let mut damaged = checkpoint.clone();
            damaged[at] ^= 4;
            assert!(StateLog::read(&damaged).is_err(), "byte {at}");
            assert!(StateLog::read(&checkpoint[..at]).is_err(), "cut at {at}");
        }
    }
}
