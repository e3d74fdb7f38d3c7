//! The index and the log on such a disk, beside what a simple model knows of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::frame::{FrameDraft, FrameHeader, FrameKind, HAS_STATE};
use crate::index::Index;
use crate::log::{Append, Appended, SegmentLog};
use crate::settings::MemoryLimits;
use crate::tests::model::disk::{File, Memory};
use crate::{parked, state_log};
use tidegate_core::decoder_state::{StateDelta, StateWrite};
use tidegate_core::durable::MessageSet;
use tidegate_core::ids::{DatabaseName, TenantId};
use tidegate_core::message::Via;
use tidegate_core::parked::ParkedMessage;

/// The content by which a frame is told from others: its lines, or the parked messages.
pub fn content(draft: &FrameDraft, lines: &[u8]) -> Vec<u8> {
    if draft.header.kind == FrameKind::Parked { draft.table.clone() } else { lines.to_vec() }
}

/// A frame as the model knows it.
#[derive(Clone, Debug)]
pub struct Known {
    pub lines: Vec<u8>,
    pub line_count: u64,
    /// The second of the age clock; 0 where nobody remembers it.
    pub kept_s: u32,
    /// It was acknowledged.
    pub durable: bool,
    /// Not released since.
    pub open: bool,
}

/// Tenant, database, sequence number.
pub type Key = (String, String, u64);

/// Tenants from this one on keep state.
pub const KEEPS_STATE: u8 = 3;

/// A value of the state as the model knows it.
#[derive(Clone, Debug, Default)]
pub struct Value {
    /// The value that was acknowledged last.
    pub acknowledged: Option<Box<[u8]>>,
    /// Values that were tried since and failed: a crash may leave any of them behind, with its lines.
    pub tried: Vec<Option<Box<[u8]>>>,
}

pub const HOT: MemoryLimits = MemoryLimits { bytes_max: 1500, database_bytes_min: 100 };

pub struct Rig {
    pub disk: Memory,
    pub index: Mutex<Index>,
    pub log: SegmentLog,
    pub known: BTreeMap<Key, Known>,
    /// Every content that was ever to be written, by its number.
    pub attempted: BTreeSet<Vec<u8>>,
    pub number: u64,
    /// Seconds of the age clock.
    pub now_s: u32,
    /// By tenant and key.
    pub values: BTreeMap<(String, Box<str>), Value>,
    /// Segments that were taken away, and the open frames that were in them, with the segment of each.
    pub away: BTreeMap<u64, File>,
    pub lost: BTreeMap<Key, (u64, Known)>,
    /// Numbers of all frames that were ever acknowledged.
    pub used: BTreeSet<Key>,
    /// Frames that were released. They may be in force again where the marks that say so are away, and
    /// released again when those are back.
    pub released: BTreeSet<Key>,
    /// Lines of each tenant that were acknowledged.
    pub acknowledged: BTreeMap<String, u64>,
    pub careless: bool,
    /// Places that a start has found damaged, but for those at the end of the newest segment.
    pub gaps: usize,
    /// Segments of which the end was damaged while they were the newest.
    pub torn: BTreeSet<u64>,
}

impl Rig {
    pub fn new() -> Self {
        let disk = Memory::default();
        Self {
            log: SegmentLog::new(Arc::new(disk.clone()), 2000, true, HOT, 1),
            disk,
            index: Mutex::default(),
            known: BTreeMap::new(),
            attempted: BTreeSet::new(),
            number: 0,
            now_s: 1,
            values: BTreeMap::new(),
            away: BTreeMap::new(),
            lost: BTreeMap::new(),
            used: BTreeSet::new(),
            released: BTreeSet::new(),
            acknowledged: BTreeMap::new(),
            careless: false,
            gaps: 0,
            torn: BTreeSet::new(),
        }
    }

    /// The changes of a batch in the state of its tenant: some keys, one of them perhaps removed.
    pub fn kept(&mut self, tenant: u8) -> StateDelta {
        let mut kept = StateDelta::new("meter".into());
        for _ in 0..if tenant < KEEPS_STATE { 0 } else { 1 + self.number % 3 } {
            self.number += 1;
            let value = (!self.number.is_multiple_of(7)).then(|| self.number.to_le_bytes().into());
            let key = format!("k{}", self.number % 5).into();
            kept.writes.push(StateWrite { partition: "p".into(), key, value });
        }
        kept
    }

    /// A frame's draft. For parked messages the body stands in the table, and there are no lines.
    pub fn draft(
        &mut self,
        tenant: u8,
        messages: u8,
        lines_each: u8,
    ) -> (FrameDraft, Vec<u8>, Vec<StateWrite>) {
        if lines_each == 0 && messages > 0 {
            let name = format!("t{tenant}");
            let mut draft = parked::draft(&TenantId::new(&name));
            draft.header.tenant = name;
            for _ in 0..messages {
                self.number += 1;
                let payload = Bytes::from(self.number.to_string());
                let message = ParkedMessage {
                    topic: "a/topic".into(),
                    payload_bytes: payload.len(),
                    payload,
                    received_ns: 7,
                    via: Via::Broker,
                    replay: None,
                };
                parked::add(&mut draft, &message, self.now_s);
            }
            return (draft, Vec::new(), Vec::new());
        }
        let (mut lines, mut table) = (Vec::new(), Vec::new());
        let kept = self.kept(tenant);
        let state = state_log::section(&kept);
        let text = |table: &mut Vec<u8>, text: &str| {
            table.extend_from_slice(&(text.len() as u16).to_le_bytes());
            table.extend_from_slice(text.as_bytes());
        };
        if messages > 0 {
            text(&mut table, "guest@1#0");
        }
        for message in 0..messages {
            let before = lines.len();
            for _ in 0..lines_each {
                self.number += 1;
                lines.extend_from_slice(format!("m f={} {}\n", self.number, self.number).as_bytes());
            }
            text(&mut table, "a/topic");
            table.extend_from_slice(&7i64.to_le_bytes());
            table.extend_from_slice(&u32::from(message).to_le_bytes());
            table.extend_from_slice(&((lines.len() - before) as u32).to_le_bytes());
            table.extend_from_slice(&u32::from(lines_each).to_le_bytes());
        }
        let header = FrameHeader {
            kind: if messages == 0 { FrameKind::State } else { FrameKind::Lines },
            flags: if state.is_empty() { 0 } else { HAS_STATE },
            messages: u16::from(messages),
            body_len: (table.len() + lines.len() + state.len()) as u32,
            body_crc: crc32c::crc32c(&[table.as_slice(), &lines, &state].concat()),
            seq: 0,
            spooled: 0,
            first_ns: self.number as i64,
            last_ns: self.number as i64,
            kept_s: self.now_s,
            lines: u32::from(messages) * u32::from(lines_each),
            tenant: format!("t{tenant}"),
            database: format!("d{tenant}"),
        };
        let names_bytes = header.tenant.len() + header.database.len();
        (FrameDraft { header, names_bytes, table, state }, lines, kept.writes)
    }

    pub fn append(&mut self, batches: &[(u8, u8, u8)]) {
        let drafts: Vec<_> =
            batches.iter().map(|&(tenant, messages, lines)| self.draft(tenant, messages, lines)).collect();
        let streams: Vec<u32> = drafts
            .iter()
            .map(|(draft, ..)| {
                let (tenant, database) = (&draft.header.tenant, &draft.header.database);
                self.index.lock().stream(&TenantId::new(tenant), &DatabaseName::new(database))
            })
            .collect();
        let appends: Vec<Append> = drafts
            .iter()
            .zip(&streams)
            .map(|((draft, lines, _), &stream)| Append { stream, draft, lines })
            .collect();
        for (draft, lines, _) in &drafts {
            self.attempted.insert(content(draft, lines));
        }
        let appended = self.log.append(&self.index, &appends);
        for (draft, _, writes) in &drafts {
            // The state is no matter where segments are taken away.
            for write in writes.iter().filter(|_| appended.is_ok() || !self.careless) {
                let of = self.values.entry((draft.header.tenant.clone(), write.key.clone())).or_default();
                match &appended {
                    Ok(_) => *of = Value { acknowledged: write.value.clone(), tried: Vec::new() },
                    Err(_) => of.tried.push(write.value.clone()),
                }
            }
        }
        let Ok(appended) = appended else { return };
        for (appended, (draft, lines, _)) in appended.into_iter().zip(drafts) {
            let Appended::Lines(id, ..) = appended else { continue };
            let line_count = u64::from(draft.header.lines);
            let lines = content(&draft, &lines);
            if draft.header.kind == FrameKind::Parked {
                self.index.lock().return_messages(id, MessageSet::MAX);
            }
            let kept_s = draft.header.kept_s;
            *self.acknowledged.entry(draft.header.tenant.clone()).or_default() += line_count;
            let known = Known { lines, line_count, kept_s, durable: true, open: true };
            let key = (draft.header.tenant, draft.header.database, id.seq);
            let before = self.known.insert(key.clone(), known);
            // Where a disk was so full that not even its release could be noted, and the frame is gone,
            // its number may come again.
            assert!(before.is_none_or(|before| !before.open), "a number names one frame");
            assert!(!self.lost.contains_key(&key), "a number is used once, though its frame is away");
            let is_new = self.used.insert(key);
            assert!(is_new || !self.careless, "a number is used once, whatever was away meanwhile");
        }
    }
}
