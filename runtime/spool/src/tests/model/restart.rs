//! A start after whatever happened, and what must be there then.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::disk::Disk;
use crate::frame::{FrameBody, FrameHeader, FrameKind};
use crate::ids::FrameLocation;
use crate::log::SegmentLog;
use crate::recovery_report::RecoveryReport;
use crate::settings::MemoryLimits;
use crate::tests::model::rig::{HOT, Key, Known, Rig};
use crate::{parked, recovery, segment_scan};
use tidegate_core::decoder_state::StateScope;
use tidegate_core::device_hash::SeedTag;
use tidegate_core::ids::TenantId;

impl Rig {
    /// Puts segments back that were taken away.
    pub fn put_back(&mut self, is_chosen: impl Fn(u64) -> bool) {
        self.disk.crash(|_| 0);
        let files = self.away.extract_if(.., |segment, _| is_chosen(*segment));
        self.disk.0.lock().files.extend(files);
        for (key, (_, known)) in self.lost.extract_if(.., |_, (segment, _)| is_chosen(*segment)) {
            self.known.entry(key).or_insert(known);
        }
        self.recover();
    }

    pub fn lose(&mut self, choice: usize) {
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
    pub fn value(&self, (tenant, key): &(String, Box<str>)) -> Option<Box<[u8]>> {
        let scope = StateScope { tenant: TenantId::new(tenant), message_type: "meter".into() };
        self.index.lock().state.image().route(&scope)?.get("p", key).map(Into::into)
    }

    /// It is what the acknowledged messages imply.
    pub fn check_state(&self) {
        for (name, value) in &self.values {
            assert_eq!(self.value(name), value.acknowledged, "{name:?}");
        }
    }

    /// After a crash it is that too, but where something was tried that was never acknowledged: then it
    /// may be that, and holds from now on.
    pub fn recover_state(&mut self) {
        for (name, mut known) in std::mem::take(&mut self.values) {
            let now = self.value(&name);
            assert!(now == known.acknowledged || known.tried.contains(&now), "{name:?}: {now:?}, {known:?}");
            (known.acknowledged, known.tried) = (now, Vec::new());
            self.values.insert(name, known);
        }
    }

    pub fn recover(&mut self) -> RecoveryReport {
        let no_memory = MemoryLimits { bytes_max: 0, database_bytes_min: 0 };
        let newest = self.disk.newest().unwrap();
        let (index, recovered) = recovery::recover(&self.disk, &no_memory, SeedTag::default()).unwrap();
        self.index = Mutex::new(index);
        for (segment, _) in &recovered.gaps {
            // The end of the newest may be anything after a crash, and stays so.
            if newest.is_none_or(|newest| *segment >= newest) {
                self.torn.insert(*segment);
            } else if !self.torn.contains(segment) {
                self.gaps += 1;
            }
        }
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
            let kept_s = self.known.get(&key).map_or(0, |known| known.kept_s);
            now.insert(key, Known { lines, line_count, kept_s, durable: true, open: true });
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

    pub fn read(&self, place: FrameLocation) -> Vec<u8> {
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

    pub fn check_books(&self) {
        let index = self.index.lock();
        for (tenant, totals, pending) in index.totals() {
            assert_eq!(totals.spooled, totals.done() + pending, "{tenant} {totals:?}");
            let open = self.known.iter().filter(|(key, known)| key.0 == tenant.as_str() && known.open);
            assert_eq!(pending, open.map(|(_, known)| known.line_count).sum::<u64>(), "{tenant}");
            // What was acknowledged is all that was ever spooled: written, counted as lost, or pending.
            if !self.careless {
                let durable =
                    self.known.iter().filter(|(key, known)| key.0 == tenant.as_str() && known.durable);
                let acknowledged: u64 = durable.map(|(_, known)| known.line_count).sum();
                assert_eq!(totals.spooled, acknowledged, "{tenant} {totals:?}");
            } else if self.away.is_empty() {
                let acknowledged = self.acknowledged.get(tenant.as_str()).copied().unwrap_or(0);
                assert_eq!((totals.spooled, totals.damaged), (acknowledged, 0), "{tenant} {totals:?}");
            }
        }
    }
}
