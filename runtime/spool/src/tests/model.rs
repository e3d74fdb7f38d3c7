//! The spool against a simple model, on a disk that fills up, fails, and at a crash keeps of what
//! was never synced whatever it likes. Failing cases are kept beside this file by proptest.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use proptest::prelude::*;

use crate::disk::{Disk, SegmentWriter};
use crate::frame::{FrameBody, FrameDraft, FrameHeader, FrameKind, HAS_STATE};
use crate::ids::{FrameId, FrameLocation};
use crate::index::Index;
use crate::log::{Append, Appended, SegmentLog};
use crate::settings::MemoryLimits;
use crate::{compaction, ids, parked, recovery, segment_scan, state_log};
use tidegate_core::decoder_state::{StateDelta, StateScope, StateWrite};
use tidegate_core::device_hash::SeedTag;
use tidegate_core::durable::{MessageSet, message_set};
use tidegate_core::ids::{DatabaseName, TenantId};
use tidegate_core::message::Via;
use tidegate_core::parked::ParkedMessage;

/// A fault of the disk, once.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// A write ends after so many bytes, with ENOSPC.
    Write(usize),
    /// A sync fails; what it was to sync never becomes durable by that file.
    Sync,
    Create,
    /// A checkpoint of the state fails; which one is there afterwards shows at the next crash.
    State,
}

#[derive(Clone, Debug, Default)]
struct File {
    bytes: Vec<u8>,
    synced: usize,
    /// From here on nothing becomes durable any more.
    poisoned: Option<usize>,
    named: bool,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<u64, File>,
    /// Removed, but not durably.
    ghosts: BTreeMap<u64, File>,
    /// Retired segments, their lines, and what they are if that turns out not to be durable.
    retired: BTreeMap<u64, (u64, Option<File>)>,
    /// Put out of the way for a person to look at.
    aside: BTreeMap<u64, File>,
    /// Made and not noted yet.
    made: Option<u64>,
    newest: Option<u64>,
    checkpoint: Option<Vec<u8>>,
    /// Segments that were missing at one start and there at a later one. They are never removed.
    returned: BTreeSet<u64>,
    /// One that failed.
    half_checkpoint: Option<Vec<u8>>,
    faults: Vec<Fault>,
}

#[derive(Clone, Debug, Default)]
struct Memory(Arc<Mutex<State>>);

impl State {
    fn fault(&mut self, is: impl Fn(&Fault) -> bool) -> Option<Fault> {
        let place = self.faults.iter().position(is)?;
        Some(self.faults.remove(place))
    }
}

fn full() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOSPC)
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Memory {
    /// Power goes: of what was not synced any beginning is left, perhaps with a hole in it.
    fn crash(&self, mut random: impl FnMut(usize) -> usize) {
        let mut state = self.0.lock();
        for (segment, (lines, file)) in std::mem::take(&mut state.retired) {
            // Renaming is one step, durable or not.
            match file {
                Some(file) if random(2) == 0 => _ = state.files.insert(segment, file),
                _ => _ = state.retired.insert(segment, (lines, None)),
            }
        }
        for (segment, file) in std::mem::take(&mut state.ghosts) {
            if random(2) == 0 {
                state.files.insert(segment, file);
            }
        }
        if let Some(half) = state.half_checkpoint.take()
            && random(2) == 0
        {
            state.checkpoint = Some(half);
        }
        let mut files = BTreeMap::new();
        for (segment, mut file) in std::mem::take(&mut state.files) {
            if !file.named && random(2) == 0 {
                continue;
            }
            let unsynced = file.bytes.len() - file.synced;
            file.bytes.truncate(file.synced + random(unsynced + 1));
            if random(4) == 0 {
                let from = file.synced + random(file.bytes.len() - file.synced + 1);
                file.bytes[from..].fill(0);
            }
            file.synced = file.bytes.len();
            (file.poisoned, file.named) = (None, true);
            files.insert(segment, file);
        }
        state.files = files;
        state.faults.clear();
    }
}

impl Disk for Memory {
    fn list(&self) -> io::Result<Vec<u64>> {
        Ok(self.0.lock().files.keys().copied().collect())
    }

    fn newest(&self) -> io::Result<Option<u64>> {
        Ok(self.0.lock().newest)
    }

    fn create(&self, segment: u64, _: u64) -> io::Result<Box<dyn SegmentWriter>> {
        let mut state = self.0.lock();
        if state.fault(|fault| *fault == Fault::Create).is_some() {
            return Err(full());
        }
        assert!(state.files.insert(segment, File::default()).is_none(), "a number is used once");
        state.made = Some(segment);
        Ok(Box::new(End { disk: self.clone(), segment }))
    }

    fn record_newest(&self) -> io::Result<()> {
        let mut state = self.0.lock();
        state.newest = state.made.take();
        Ok(())
    }

    fn read_all(&self, segment: u64) -> io::Result<Vec<u8>> {
        self.0.lock().files.get(&segment).map(|file| file.bytes.clone()).ok_or_else(missing)
    }

    fn read_at(&self, segment: u64, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let bytes = self.read_all(segment)?;
        let from = bytes.get(offset as usize..offset as usize + into.len()).ok_or_else(missing)?;
        into.copy_from_slice(from);
        Ok(())
    }

    fn truncate(&self, segment: u64, len: u64) -> io::Result<()> {
        let mut state = self.0.lock();
        let file = state.files.get_mut(&segment).ok_or_else(missing)?;
        file.bytes.truncate(len as usize);
        file.synced = file.synced.min(len as usize);
        Ok(())
    }

    fn remove(&self, segment: u64) -> io::Result<()> {
        let mut state = self.0.lock();
        assert!(!state.returned.contains(&segment), "what was missing once is never removed");
        let file = state.files.remove(&segment).ok_or_else(missing)?;
        state.ghosts.insert(segment, file);
        Ok(())
    }

    fn retire(&self, segment: u64, lines: u64) -> io::Result<()> {
        let mut state = self.0.lock();
        assert!(!state.returned.contains(&segment), "what was missing once is never removed");
        let file = state.files.remove(&segment).ok_or_else(missing)?;
        state.retired.insert(segment, (lines, Some(file)));
        Ok(())
    }

    fn retired_lines(&self) -> io::Result<u64> {
        Ok(self.0.lock().retired.values().map(|(lines, _)| lines).sum())
    }

    fn forget_retired(&self) -> io::Result<()> {
        self.0.lock().retired.clear();
        Ok(())
    }

    fn move_aside(&self, segment: u64, _: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        let file = state.files.remove(&segment).ok_or_else(missing)?;
        state.aside.insert(segment, file);
        Ok(())
    }

    fn read_state(&self) -> io::Result<Option<Vec<u8>>> {
        Ok(self.0.lock().checkpoint.clone())
    }

    fn replace_state(&self, checkpoint: &[u8]) -> io::Result<()> {
        let mut state = self.0.lock();
        if state.fault(|fault| *fault == Fault::State).is_some() {
            state.half_checkpoint = Some(checkpoint.to_vec());
            return Err(full());
        }
        state.checkpoint = Some(checkpoint.to_vec());
        state.half_checkpoint = None;
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.0.lock();
        state.ghosts.clear();
        state.files.values_mut().for_each(|file| file.named = true);
        Ok(())
    }

    fn path(&self, segment: u64) -> PathBuf {
        format!("spool/{segment}").into()
    }
}

struct End {
    disk: Memory,
    segment: u64,
}

impl SegmentWriter for End {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        let fault = state.fault(|fault| matches!(fault, Fault::Write(_)));
        let file = state.files.get_mut(&self.segment).ok_or_else(missing)?;
        match fault {
            Some(Fault::Write(written)) => {
                file.bytes.extend_from_slice(&bytes[..written.min(bytes.len())]);
                Err(full())
            }
            _ => {
                file.bytes.extend_from_slice(bytes);
                Ok(())
            }
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        let fails = state.fault(|fault| *fault == Fault::Sync).is_some();
        let file = state.files.get_mut(&self.segment).ok_or_else(missing)?;
        if fails {
            file.poisoned.get_or_insert(file.synced);
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        file.synced = file.poisoned.unwrap_or(file.bytes.len());
        Ok(())
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.disk.truncate(self.segment, len)
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// Batches: tenant, messages, lines a message; without lines the messages are parked, without
    /// messages there are changes of the state alone.
    Append(Vec<(u8, u8, u8)>),
    /// Takes up what is parked, and lets go of some of it again.
    TakeUp(u64),
    Checkpoint,
    /// Settles messages of an open frame; the numbers choose which.
    Settle(usize, u64),
    Refuse(usize),
    DropOldest(u8, u16),
    Mark,
    RemoveEmpty,
    Compact,
    Fail(Fault),
    Crash(u64),
    /// A segment is taken away while the gateway does not run.
    Lose(usize),
    /// One that was taken away is there again.
    ReturnOne(usize),
    /// All that were taken away are there again.
    Return,
}

fn step() -> impl Strategy<Value = Step> {
    let batch = prop_oneof![5 => (0u8..3, 1u8..5, 0u8..4), 2 => (3u8..5, 0u8..5, 1u8..4)];
    prop_oneof![
        6 => proptest::collection::vec(batch, 1..5).prop_map(Step::Append),
        6 => (any::<usize>(), any::<u64>()).prop_map(|(frame, messages)| Step::Settle(frame, messages)),
        2 => any::<u64>().prop_map(Step::TakeUp),
        1 => any::<usize>().prop_map(Step::Refuse),
        1 => (0u8..5, 1u16..2000).prop_map(|(tenant, bytes)| Step::DropOldest(tenant, bytes)),
        2 => Just(Step::Mark),
        2 => Just(Step::RemoveEmpty),
        2 => Just(Step::Compact),
        1 => (0usize..300).prop_map(|bytes| Step::Fail(Fault::Write(bytes))),
        1 => Just(Step::Fail(Fault::Sync)),
        1 => Just(Step::Fail(Fault::Create)),
        1 => Just(Step::Fail(Fault::State)),
        2 => Just(Step::Checkpoint),
        2 => any::<u64>().prop_map(Step::Crash),
    ]
}

/// Steps on a disk that does what it is told, and of which segments are taken away and put back.
fn step_of_a_careless_hand() -> impl Strategy<Value = Step> {
    let careless = prop_oneof![
        3 => any::<usize>().prop_map(Step::Lose),
        2 => any::<usize>().prop_map(Step::ReturnOne),
        1 => Just(Step::Return),
    ];
    let calm = step().prop_map(|step| match step {
        Step::Fail(_) => Step::Mark,
        step => step,
    });
    prop_oneof![1 => careless, 4 => calm]
}

/// The content by which a frame is told from others: its lines, or the parked messages.
fn content(draft: &FrameDraft, lines: &[u8]) -> Vec<u8> {
    if draft.header.kind == FrameKind::Parked { draft.table.clone() } else { lines.to_vec() }
}

/// A frame as the model knows it.
#[derive(Clone, Debug)]
struct Known {
    lines: Vec<u8>,
    line_count: u64,
    /// It was acknowledged.
    durable: bool,
    /// Not released since.
    open: bool,
}

/// Tenant, database, sequence number.
type Key = (String, String, u64);

/// Tenants from this one on keep state.
const KEEPS_STATE: u8 = 3;

/// A value of the state as the model knows it.
#[derive(Clone, Debug, Default)]
struct Value {
    /// The value that was acknowledged last.
    acknowledged: Option<Box<[u8]>>,
    /// Values that were tried since and failed: a crash may leave any of them behind, with its lines.
    tried: Vec<Option<Box<[u8]>>>,
}

const HOT: MemoryLimits = MemoryLimits { bytes_max: 1500, database_bytes_min: 100 };

struct Rig {
    disk: Memory,
    index: Mutex<Index>,
    log: SegmentLog,
    known: BTreeMap<Key, Known>,
    /// Every content that was ever to be written, by its number.
    attempted: BTreeSet<Vec<u8>>,
    number: u64,
    /// By tenant and key.
    values: BTreeMap<(String, Box<str>), Value>,
    /// Segments that were taken away, and the open frames that were in them, with the segment of each.
    away: BTreeMap<u64, File>,
    lost: BTreeMap<Key, (u64, Known)>,
    /// Numbers of all frames that were ever acknowledged.
    used: BTreeSet<Key>,
    /// Frames that were released. They may be in force again where the marks that say so are away, and
    /// released again when those are back.
    released: BTreeSet<Key>,
    careless: bool,
}

impl Rig {
    fn new() -> Self {
        let disk = Memory::default();
        Self {
            log: SegmentLog::new(Arc::new(disk.clone()), 2000, true, HOT, 1),
            disk,
            index: Mutex::default(),
            known: BTreeMap::new(),
            attempted: BTreeSet::new(),
            number: 0,
            values: BTreeMap::new(),
            away: BTreeMap::new(),
            lost: BTreeMap::new(),
            used: BTreeSet::new(),
            released: BTreeSet::new(),
            careless: false,
        }
    }

    /// The changes of a batch in the state of its tenant: some keys, one of them perhaps removed.
    fn kept(&mut self, tenant: u8) -> StateDelta {
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
    fn draft(&mut self, tenant: u8, messages: u8, lines_each: u8) -> (FrameDraft, Vec<u8>, Vec<StateWrite>) {
        if lines_each == 0 && messages > 0 {
            let mut draft = parked::draft(&TenantId::new(&format!("t{tenant}")));
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
                parked::add(&mut draft, &message, 1);
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
            kept_s: 1,
            lines: u32::from(messages) * u32::from(lines_each),
            tenant: format!("t{tenant}"),
            database: format!("d{tenant}"),
        };
        (FrameDraft { header, table, state }, lines, kept.writes)
    }

    fn append(&mut self, batches: &[(u8, u8, u8)]) {
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
            for write in writes {
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
                self.index.lock().give_back(id, MessageSet::MAX);
            }
            let known = Known { lines, line_count, durable: true, open: true };
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

    /// The open frames as the index has them.
    fn open(&self) -> Vec<(Key, FrameId, FrameLocation)> {
        let index = self.index.lock();
        let frames = index.open_frames().into_iter().map(|(tenant, database, seq, place)| {
            let id = index.is_live_at(&tenant, &database, seq, place).expect("it is open there");
            ((tenant, database, seq), id, place)
        });
        frames.collect()
    }

    fn settle(&mut self, choice: usize, messages: u64) {
        let open = self.open();
        if open.is_empty() {
            return;
        }
        let (key, id, _) = &open[choice % open.len()];
        if self.index.lock().settle(*id, messages | 1, 0).is_some() {
            self.known.get_mut(key).expect("it was appended").open = false;
        }
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Append(batches) => self.append(batches),
            Step::Settle(choice, messages) => self.settle(*choice, *messages),
            Step::Refuse(choice) => {
                let open = self.open();
                if !open.is_empty() {
                    self.index.lock().refuse(open[choice % open.len()].1, 1);
                }
            }
            Step::DropOldest(tenant, bytes) => {
                let before = self.open();
                self.index.lock().drop_oldest(&TenantId::new(&format!("t{tenant}")), u64::from(*bytes));
                let after: BTreeSet<_> = self.open().into_iter().map(|(key, ..)| key).collect();
                let parked = before.iter().filter(|(key, ..)| key.1 == ids::NO_DATABASE);
                assert!(
                    parked.clone().all(|(key, ..)| after.contains(key)),
                    "what is parked is never dropped"
                );
                for (key, ..) in before {
                    self.known.get_mut(&key).expect("it was appended").open &= after.contains(&key);
                }
            }
            Step::TakeUp(back) => {
                let of = DatabaseName::new(ids::NO_DATABASE);
                let mut index = self.index.lock();
                let (taken, more) = index.fetch(&of, 200, &HOT);
                assert_eq!(more, index.has_parked());
                // In the order of their numbers, each once, and what is let go comes again.
                let mut last = HashMap::new();
                for wanted in &taken {
                    assert!(wanted.messages != 0 && wanted.lines == 0);
                    assert!(
                        last.insert(wanted.id.stream, wanted.id.seq).is_none_or(|seq| seq < wanted.id.seq)
                    );
                }
                for (place, wanted) in taken.iter().enumerate() {
                    if back & (1 << (place % 64)) != 0 {
                        index.give_back(wanted.id, wanted.messages);
                        assert!(index.has_parked());
                    }
                }
            }
            Step::Mark => _ = self.log.mark(&self.index),
            Step::RemoveEmpty => _ = self.log.remove_empty(&self.index),
            Step::Compact => {
                let victim = compaction::to_copy(&self.index.lock(), self.log.current(), 2000, 20_000);
                if let Some(segment) = victim {
                    let (copies, damaged) =
                        compaction::live_frames(&self.disk, &self.index, segment).unwrap();
                    assert!(damaged.is_empty());
                    let _ = self.log.append_copies(&self.index, &copies);
                }
            }
            Step::Checkpoint => _ = compaction::checkpoint(&self.disk, &self.index),
            Step::Fail(fault) => self.disk.0.lock().faults.push(*fault),
            Step::Crash(seed) => {
                let mut seed = *seed | 1;
                self.disk.crash(|below| {
                    seed ^= seed << 13;
                    seed ^= seed >> 7;
                    seed ^= seed << 17;
                    (seed % below.max(1) as u64) as usize
                });
                self.recover();
            }
            Step::Lose(choice) => self.lose(*choice),
            Step::ReturnOne(choice) => {
                let chosen = self.away.keys().nth(choice % self.away.len().max(1)).copied();
                self.put_back(|segment| Some(segment) == chosen);
            }
            Step::Return => self.put_back(|_| true),
        }
        self.check_books();
        self.check_state();
    }

    /// Puts segments back that were taken away.
    fn put_back(&mut self, is_chosen: impl Fn(u64) -> bool) {
        self.disk.crash(|_| 0);
        let files = self.away.extract_if(.., |segment, _| is_chosen(*segment));
        self.disk.0.lock().files.extend(files);
        for (key, (_, known)) in self.lost.extract_if(.., |_, (segment, _)| is_chosen(*segment)) {
            self.known.entry(key).or_insert(known);
        }
        self.recover();
    }

    fn lose(&mut self, choice: usize) {
        self.careless = true;
        self.disk.crash(|_| 0);
        let segments = self.disk.list().unwrap();
        let Some(&segment) = segments.get(choice % segments.len().max(1)) else { return };
        let was_open: Vec<_> =
            self.open().into_iter().filter(|(.., place)| place.segment == segment).collect();
        self.away.extend(self.disk.0.lock().files.remove(&segment).map(|file| (segment, file)));
        // The state is no matter of these steps: what is missing of it is lost.
        self.values.clear();
        for (key, ..) in &was_open {
            self.lost.extend(self.known.remove(key).map(|known| (key.clone(), (segment, known))));
        }
        self.recover();
    }

    /// A value of the state as the spool has it.
    fn value(&self, (tenant, key): &(String, Box<str>)) -> Option<Box<[u8]>> {
        let scope = StateScope { tenant: TenantId::new(tenant), message_type: "meter".into() };
        self.index.lock().state.image().route(&scope)?.get("p", key).map(Into::into)
    }

    /// It is what the acknowledged messages imply.
    fn check_state(&self) {
        for (name, value) in &self.values {
            assert_eq!(self.value(name), value.acknowledged, "{name:?}");
        }
    }

    /// After a crash it is that too, but where something was tried that was never acknowledged: then it
    /// may be that, and holds from now on.
    fn recover_state(&mut self) {
        for (name, mut known) in std::mem::take(&mut self.values) {
            let now = self.value(&name);
            assert!(now == known.acknowledged || known.tried.contains(&now), "{name:?}: {now:?}, {known:?}");
            (known.acknowledged, known.tried) = (now, Vec::new());
            self.values.insert(name, known);
        }
    }

    fn recover(&mut self) -> recovery::RecoveryReport {
        let nothing_hot = MemoryLimits { bytes_max: 0, database_bytes_min: 0 };
        let (index, recovered) = recovery::recover(&self.disk, &nothing_hot, SeedTag::default()).unwrap();
        self.index = Mutex::new(index);
        let wrote = self.log.current().is_some();
        self.log = SegmentLog::new(Arc::new(self.disk.clone()), 2000, true, HOT, recovered.next_segment);
        self.recover_state();
        let open: BTreeMap<Key, FrameLocation> =
            self.open().into_iter().map(|(key, _, place)| (key, place)).collect();
        self.released.extend(self.known.iter().filter(|(_, known)| !known.open).map(|(key, _)| key.clone()));
        // What was acknowledged and not released is here, as it was.
        for (key, known) in &self.known {
            if self.careless && self.released.contains(key) {
                continue;
            }
            if known.durable && known.open && !recovered.damaged.contains_key(key.0.as_str()) {
                assert!(open.contains_key(key), "{key:?} is lost");
            }
        }
        // And nothing is here that nobody wrote.
        let mut now = BTreeMap::new();
        for (key, place) in open {
            let lines = self.read(place);
            assert!(self.attempted.contains(&lines), "{key:?} holds what nobody wrote");
            if let Some(known) = self.known.get(&key).filter(|known| known.durable) {
                assert_eq!(known.lines, lines, "{key:?}");
            }
            let line_count = lines.iter().filter(|&&byte| byte == b'\n').count() as u64;
            now.insert(key, Known { lines, line_count, durable: true, open: true });
        }
        // What was released stays a number that is used up; what was never acknowledged is free.
        for (key, mut known) in std::mem::take(&mut self.known) {
            known.open = false;
            if known.durable {
                now.entry(key).or_insert(known);
            }
        }
        self.known = now;
        // Of some there was another copy.
        self.lost.retain(|key, _| !self.known.contains_key(key));
        let returned = &mut self.disk.0.lock().returned;
        if recovered.newest_missing || self.careless && !wrote {
            // The newest is missing with what it said of others, or the last run noted nothing of them and
            // the segment that did may be away.
            returned.clear();
        }
        returned.extend(&recovered.returned);
        recovered
    }

    fn read(&self, place: FrameLocation) -> Vec<u8> {
        let bytes = self.disk.read_all(place.segment).unwrap();
        let frame = &bytes[place.offset as usize..][..place.len as usize];
        let salt = segment_scan::read_segment_header(place.segment, &bytes).unwrap();
        let header = FrameHeader::read(salt, frame).unwrap();
        let body = &frame[frame.len() - header.body_len as usize..];
        if header.kind == FrameKind::Parked {
            let messages = parked::read(&header, body).unwrap();
            assert_eq!(messages.len(), usize::from(header.messages));
            return body.to_vec();
        }
        let parts = FrameBody::read(&header, body).unwrap();
        body[parts.lines].to_vec()
    }

    fn check_books(&self) {
        let index = self.index.lock();
        for (tenant, totals, pending) in index.totals() {
            assert_eq!(totals.spooled, totals.done() + pending, "{tenant} {totals:?}");
            let open = self.known.iter().filter(|(key, known)| key.0 == tenant.as_str() && known.open);
            assert_eq!(pending, open.map(|(_, known)| known.line_count).sum::<u64>(), "{tenant}");
        }
    }
}

/// `PROPTEST_CASES` can ask for more cases.
fn config() -> ProptestConfig {
    let default = ProptestConfig::default();
    ProptestConfig { cases: default.cases.max(1500), ..default }
}

proptest! {
    #![proptest_config(config())]

    /// Whatever happens in whatever order: what was acknowledged is there until it is released,
    /// nothing else is, no line counts as damaged, and the books balance.
    #[test]
    fn nothing_acknowledged_is_lost_by_any_crash(steps in proptest::collection::vec(step(), 1..60)) {
        let mut rig = Rig::new();
        for step in &steps {
            rig.run(step);
            let damaged: u64 = rig.index.lock().totals().map(|(_, totals, _)| totals.damaged).sum();
            prop_assert_eq!(damaged, 0);
        }
        rig.run(&Step::Crash(9));
    }

    /// Segments that are taken away and put back cost nothing, whatever is written meanwhile.
    #[test]
    fn what_was_missing_is_in_force_again_when_it_is_back(
        steps in proptest::collection::vec(step_of_a_careless_hand(), 1..60)
    ) {
        let mut rig = Rig::new();
        for step in &steps {
            rig.run(step);
        }
        rig.run(&Step::Return);
        prop_assert!(rig.away.is_empty() && rig.lost.is_empty());
    }

    /// A flipped stretch costs at most the frames that it touches, and is told.
    #[test]
    fn damage_costs_what_it_touches_and_is_told(
        batches in proptest::collection::vec(proptest::collection::vec((0u8..3, 1u8..5, 0u8..4), 1..5), 1..20),
        at in any::<usize>(),
        len in 1usize..64,
    ) {
        let mut rig = Rig::new();
        for batch in &batches {
            rig.append(batch);
        }
        let places: Vec<(Key, FrameId, FrameLocation)> = rig.open();
        let segments = rig.disk.list().unwrap();
        let segment = segments[at % segments.len()];
        let (from, to) = {
            let mut state = rig.disk.0.lock();
            let bytes = &mut state.files.get_mut(&segment).unwrap().bytes;
            let from = (at / 7) % bytes.len();
            let to = (from + len).min(bytes.len());
            bytes[from..to].iter_mut().for_each(|byte| *byte ^= 0x55);
            (from as u64, to as u64)
        };
        let nothing_hot = MemoryLimits { bytes_max: 0, database_bytes_min: 0 };
        let (index, recovered) = recovery::recover(&rig.disk, &nothing_hot, SeedTag::default()).unwrap();
        let open: BTreeSet<Key> = index.open_frames().into_iter().map(|(tenant, database, seq, _)| (tenant, database, seq)).collect();
        let (mut lost, mut parked_lost) = (BTreeMap::new(), 0);
        for (key, _, place) in places {
            let touched = place.segment == segment && place.offset < to && place.offset + u64::from(place.len) > from;
            if !open.contains(&key) {
                prop_assert!(touched, "{:?} at {:?} is lost by {}..{} of {}", key, place, from, to, segment);
                *lost.entry(key.0.clone()).or_insert(0) += rig.known[&key].line_count;
                parked_lost += u64::from(key.1 == ids::NO_DATABASE);
            }
        }
        if !lost.is_empty() {
            let told = recovered.gaps.iter().any(|(of, gap)| *of == segment && gap.offset < to && gap.offset + gap.bytes > from);
            prop_assert!(told, "{:?} lost in silence: {:?}", lost, recovered);
        }
        // Where the header of a frame can still be read its messages are told, and never others.
        prop_assert!(recovered.parked_lost.values().sum::<u64>() <= parked_lost * 4);
        for (tenant, totals, pending) in index.totals() {
            prop_assert_eq!(totals.spooled, totals.done() + pending);
            prop_assert!(totals.damaged <= lost.get(tenant.as_str()).copied().unwrap_or(0));
        }
    }
}

#[test]
fn a_segment_stays_until_a_checkpoint_covers_what_it_changed() {
    let mut rig = Rig::new();
    for _ in 0..60 {
        rig.append(&[(3, 2, 1), (4, 0, 0)]);
    }
    while !rig.open().is_empty() {
        rig.settle(0, u64::MAX);
    }
    let before = rig.disk.list().unwrap().len();
    assert!(before > 4);
    rig.log.remove_empty(&rig.index).unwrap();
    assert_eq!(rig.disk.list().unwrap().len(), before);
    assert!(compaction::wants_checkpoint(&rig.index.lock(), rig.log.current(), 20_000));
    rig.disk.0.lock().faults.push(Fault::State);
    compaction::checkpoint(&rig.disk, &rig.index).unwrap_err();
    rig.log.remove_empty(&rig.index).unwrap();
    assert_eq!(rig.disk.list().unwrap().len(), before);
    compaction::checkpoint(&rig.disk, &rig.index).unwrap();
    rig.log.remove_empty(&rig.index).unwrap();
    // The marks that say so may have begun another.
    assert!(rig.disk.list().unwrap().len() <= 2);
    rig.run(&Step::Crash(7));
    assert!(rig.values.values().any(|value| value.acknowledged.is_some()));
}

/// Sequences that failed once, kept for ever.
#[test]
fn what_failed_once_does_not_fail_again() {
    let batch = |tenant, messages, lines| (tenant, messages, lines);
    let cases: [Vec<Step>; 6] = [
        // The disk fills up between a release and its mark.
        vec![
            Step::Append(vec![batch(0, 2, 2), batch(0, 4, 1), batch(1, 1, 2), batch(2, 1, 3)]),
            Step::Append(vec![batch(0, 1, 1), batch(0, 1, 1), batch(0, 2, 1), batch(0, 4, 2)]),
            Step::Append(vec![batch(0, 2, 1), batch(0, 1, 1), batch(0, 1, 1), batch(0, 4, 2)]),
            Step::Append(vec![batch(1, 1, 1), batch(1, 1, 1), batch(0, 2, 2)]),
            Step::Mark,
            Step::Append(vec![batch(0, 1, 1)]),
            Step::Settle(7_449_662_386_298_886_762, 7_277_488_056_389_847_766),
            Step::Compact,
            Step::Compact,
            Step::Fail(Fault::Write(0)),
            Step::Mark,
            Step::RemoveEmpty,
            Step::RemoveEmpty,
            Step::Crash(9_337_244_966_920_535_040),
        ],
        // No new segment can be made, so marks go to the end of the old one.
        vec![
            Step::Append(vec![batch(2, 1, 1), batch(2, 1, 1), batch(2, 1, 1)]),
            Step::Append(vec![batch(2, 1, 1), batch(1, 1, 1), batch(1, 3, 1), batch(0, 1, 1)]),
            Step::Append(vec![batch(0, 1, 1), batch(0, 2, 1), batch(0, 4, 2), batch(2, 1, 1)]),
            Step::Settle(3_124_919_247_168_088_459, 0),
            Step::Append(vec![batch(2, 4, 3), batch(2, 1, 3)]),
            Step::Settle(6_656_437_076_499_015_073, 0),
            Step::Mark,
            Step::Settle(11_754_509_119_984_581_998, 516_894_212_137_151_792),
            Step::Append(vec![batch(0, 1, 1), batch(1, 1, 1), batch(1, 2, 2)]),
            Step::Crash(0),
            Step::Compact,
            Step::Append(vec![batch(1, 1, 1), batch(0, 1, 1)]),
            Step::Append(vec![batch(0, 1, 1)]),
            Step::Append(vec![batch(1, 1, 1), batch(1, 1, 1)]),
            Step::Settle(7_877_495_541_062_172_331, 0),
            Step::Compact,
            Step::Fail(Fault::Create),
            Step::RemoveEmpty,
            Step::Crash(10_433_762_581_724_979_234),
        ],
        // All marks are in segments that are done with, and no new one can be written to.
        vec![
            Step::Append(vec![batch(0, 4, 2)]),
            Step::Crash(0),
            Step::Mark,
            Step::Settle(0, 7_022_951_934_112_876_124),
            Step::Settle(0, 4_401_156_940_854_402_746),
            Step::Append(vec![batch(2, 1, 1), batch(0, 4, 1)]),
            Step::Append(vec![batch(2, 1, 3), batch(0, 4, 3)]),
            Step::Append(vec![batch(0, 1, 1)]),
            Step::Crash(0),
            Step::Fail(Fault::Write(0)),
            Step::Fail(Fault::Write(0)),
            Step::Settle(1_614_001_942_618_280_957, 0),
            Step::RemoveEmpty,
            Step::Crash(11_808_359_092_961_670_986),
        ],
        // A tenant has nothing parked any more at a restart, and something again after it.
        vec![
            Step::Append(vec![batch(1, 1, 0)]),
            Step::Crash(0),
            Step::Settle(0, 0),
            Step::RemoveEmpty,
            Step::Append(vec![batch(0, 1, 1)]),
            Step::Crash(0),
            Step::Append(vec![batch(1, 1, 0)]),
            Step::Crash(0),
        ],
        // More refusals told than the frame has lines.
        vec![
            Step::Append(vec![batch(1, 1, 1)]),
            Step::Refuse(0),
            Step::Refuse(0),
            Step::Settle(0, u64::MAX),
            Step::Crash(1),
        ],
        // A damaged segment is done with, and no mark that says so can be written.
        vec![
            Step::Append(vec![batch(0, 3, 1)]),
            Step::Mark,
            Step::Fail(Fault::Write(0)),
            Step::Append(vec![batch(2, 4, 0)]),
            Step::Fail(Fault::Write(0)),
            Step::Append(vec![batch(1, 1, 0)]),
            Step::Append(vec![batch(0, 1, 0), batch(0, 1, 1)]),
            Step::Crash(7_628_596_419_942),
            Step::TakeUp(0),
            Step::Append(vec![batch(3, 1, 1)]),
            Step::Append(vec![batch(0, 1, 0)]),
            Step::Append(vec![batch(0, 1, 0), batch(0, 1, 0)]),
            Step::Append(vec![batch(1, 1, 1), batch(2, 1, 1)]),
            Step::Append(vec![batch(3, 2, 1), batch(0, 2, 3)]),
            Step::Compact,
            Step::Append(vec![batch(0, 3, 2)]),
            Step::Mark,
            Step::DropOldest(0, 1),
            Step::Fail(Fault::Write(0)),
            Step::Fail(Fault::Write(0)),
            Step::RemoveEmpty,
            Step::Crash(0),
        ],
    ];
    for steps in cases {
        let mut rig = Rig::new();
        steps.iter().for_each(|step| rig.run(step));
        assert!(rig.index.lock().totals().all(|(_, totals, _)| totals.damaged == 0));
    }
}

#[test]
fn a_segment_that_goes_missing_is_counted_to_the_line_and_the_newest_is_named() {
    let mut rig = Rig::new();
    for _ in 0..40 {
        rig.append(&[(0, 4, 3), (1, 2, 2)]);
    }
    let segments = rig.disk.list().unwrap();
    assert!(segments.len() > 4);
    let (first, newest) = (segments[1], *segments.last().unwrap());
    let lost: u64 =
        rig.open().iter().filter(|(key, _, place)| key.0 == "t0" && place.segment == first).count() as u64
            * 12;
    rig.disk.0.lock().files.remove(&first);
    let recovered = rig.recover();
    assert_eq!(recovered.damaged[&TenantId::new("t0")], lost);
    assert!(recovered.missing.contains(&first) && !recovered.newest_missing);
    rig.disk.0.lock().files.remove(&newest);
    let nothing_hot = MemoryLimits { bytes_max: 0, database_bytes_min: 0 };
    let (_, recovered) = recovery::recover(&rig.disk, &nothing_hot, SeedTag::default()).unwrap();
    assert!(recovered.newest_missing && recovered.missing.contains(&newest));
    assert!(recovered.next_segment > newest);
}

#[test]
fn a_segment_that_came_to_nothing_is_not_missed() {
    let mut rig = Rig::new();
    rig.append(&[(0, 1, 1)]);
    rig.recover();
    rig.disk.0.lock().faults.extend([Fault::Write(0), Fault::Write(0)]);
    rig.append(&[(0, 1, 1)]);
    let recovered = rig.recover();
    assert!(!recovered.newest_missing && recovered.missing.is_empty(), "{recovered:?}");
}

#[test]
fn what_was_never_synced_is_never_acknowledged() {
    let mut rig = Rig::new();
    rig.append(&[(0, 1, 1)]);
    // Both tries fail: nothing of it is durable.
    rig.disk.0.lock().faults.extend([Fault::Sync, Fault::Sync]);
    rig.append(&[(0, 2, 1)]);
    assert_eq!(rig.known.len(), 1);
    // One fails: the group is durable in another segment, and stays when the first one's is lost.
    rig.disk.0.lock().faults = vec![Fault::Sync];
    rig.append(&[(0, 3, 1)]);
    assert_eq!(rig.known.len(), 2);
    rig.disk.crash(|_| 0);
    rig.recover();
    assert_eq!(rig.open().len(), 2);
    assert_eq!(message_set(0..3), 0b111);
}

#[test]
fn a_full_disk_is_freed_by_what_is_done_with() {
    let mut rig = Rig::new();
    for _ in 0..40 {
        rig.append(&[(0, 4, 3)]);
    }
    for _ in 0..30 {
        rig.settle(0, u64::MAX);
    }
    let before = rig.disk.list().unwrap().len();
    rig.disk.0.lock().faults.push(Fault::Write(0));
    rig.log.remove_empty(&rig.index).unwrap();
    assert!(rig.disk.list().unwrap().len() + 3 < before);
    rig.disk.crash(|_| 0);
    let recovered = rig.recover();
    assert!(recovered.damaged.is_empty() && rig.open().len() == 10, "{recovered:?}");
}

/// The log with segments that were written by a version which used numbers twice.
#[test]
fn two_frames_of_one_number_are_both_kept() {
    let mut rig = Rig::new();
    rig.append(&[(0, 2, 1), (0, 1, 1), (1, 1, 0)]);
    let of_first = rig.disk.0.lock().files.clone();
    // Another run that knows nothing of the first, in segments of higher numbers.
    let mut other = Rig::new();
    other.number = 1_000;
    other.log = SegmentLog::new(Arc::new(other.disk.clone()), 2000, true, HOT, 7);
    other.append(&[(0, 1, 2), (0, 2, 1), (0, 1, 1), (1, 2, 0)]);
    other.disk.0.lock().files.extend(of_first);
    let nothing_hot = MemoryLimits { bytes_max: 0, database_bytes_min: 0 };
    let contents = |rig: &Rig| -> BTreeSet<Vec<u8>> {
        rig.open().into_iter().map(|(.., place)| rig.read(place)).collect()
    };
    let mut expected = rig.attempted.clone();
    expected.extend(other.attempted.clone());
    assert_eq!(expected.len(), 7);
    for _ in 0..3 {
        let (index, recovered) = recovery::recover(&other.disk, &nothing_hot, SeedTag::default()).unwrap();
        other.index = Mutex::new(index);
        other.log = SegmentLog::new(Arc::new(other.disk.clone()), 2000, true, HOT, recovered.next_segment);
        other.log.separate(&other.index, &recovered.twins).unwrap();
        assert_eq!(contents(&other), expected);
        for (tenant, totals, pending) in other.index.lock().totals() {
            assert_eq!(totals.spooled, pending, "{tenant} {totals:?}");
        }
    }
    while let Some((_, id, _)) = other.open().into_iter().next() {
        other.index.lock().settle(id, MessageSet::MAX, 0);
    }
    other.log.mark(&other.index).unwrap();
    other.log.remove_empty(&other.index).unwrap();
    let (index, _) = recovery::recover(&other.disk, &nothing_hot, SeedTag::default()).unwrap();
    assert_eq!(index.open_frames(), vec![]);
}

#[test]
fn lines_that_are_written_do_not_count_as_damaged_too() {
    let mut rig = Rig::new();
    rig.append(&[(0, 2, 1)]);
    let (_, id, _) = rig.open()[0];
    let mut index = rig.index.lock();
    assert_eq!(index.settle(id, 0b01, 1), None);
    assert_eq!(index.damage(id), None, "the writer has the rest of it");
    index.give_back(id, 0b10);
    assert_eq!(index.damage(id).unwrap().lines, 1);
    let (_, totals, pending) = index.totals().next().unwrap();
    assert_eq!((totals.spooled, totals.written, totals.damaged, pending), (2, 1, 1, 0));
}
