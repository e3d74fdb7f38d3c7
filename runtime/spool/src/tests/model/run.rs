//! The effect of each step, and the sums that hold after it.

use std::collections::{BTreeSet, HashMap};

use crate::ids::{FrameId, FrameLocation};
use crate::tests::model::rig::{HOT, Key, Rig};
use crate::tests::model::step::Step;
use crate::{compaction, ids};
use tidegate_core::ids::{DatabaseName, TenantId};

impl Rig {
    /// The open frames as the index has them.
    pub fn open(&self) -> Vec<(Key, FrameId, FrameLocation)> {
        let index = self.index.lock();
        let frames = index.open_frames().into_iter().map(|(tenant, database, seq, place)| {
            let id = index.is_live_at(&tenant, &database, seq, place).expect("it is open there");
            ((tenant, database, seq), id, place)
        });
        frames.collect()
    }

    pub fn settle(&mut self, choice: usize, messages: u64) {
        let open = self.open();
        if open.is_empty() {
            return;
        }
        let (key, id, _) = &open[choice % open.len()];
        if self.index.lock().settle(*id, messages | 1, 0).is_some() {
            self.known.get_mut(key).expect("it was appended").open = false;
        }
    }

    pub fn run(&mut self, step: &Step) {
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
                let tenant = format!("t{tenant}");
                let oldest_left = before.iter().filter(|(key, id, _)| {
                    let is_own = key.0 == tenant && key.1 != ids::NO_DATABASE;
                    is_own && after.contains(key) && self.index.lock().is_untouched(*id)
                });
                let oldest_left = oldest_left.map(|(key, ..)| self.known[key].kept_s).min();
                for (key, ..) in before {
                    let known = self.known.get_mut(&key).expect("it was appended");
                    if !after.contains(&key) {
                        let is_oldest = oldest_left.is_none_or(|oldest| known.kept_s <= oldest);
                        assert!(is_oldest || self.careless, "{key:?} is dropped before older ones");
                        known.open = false;
                    }
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
                        index.return_messages(wanted.id, wanted.messages);
                        assert!(index.has_parked());
                    }
                }
            }
            Step::Mark => _ = self.log.mark(&self.index),
            Step::RemoveEmpty => _ = self.log.remove_empty(&self.index),
            Step::Compact => {
                let victim =
                    compaction::to_copy(&self.index.lock(), self.log.current(), 2000, 20_000, u32::MAX);
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
            Step::Kill => _ = self.recover(),
            Step::Flush => {
                let _ = self.log.mark(&self.index);
                self.disk.flush();
            }
            Step::Begin => {
                let begun = self.log.ensure_current(&self.index);
                let _ = begun.and_then(|()| self.log.remove_empty(&self.index));
            }
            Step::SettleAll => {
                for (key, id, _) in self.open() {
                    if self.index.lock().settle(id, u64::MAX, 0).is_some() {
                        self.known.get_mut(&key).expect("it was appended").open = false;
                    }
                }
            }
            Step::Wait(seconds) => self.now_s += u32::from(*seconds),
            Step::Fetch(tenant, written) => self.fetch(*tenant, *written),
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

    /// Fetches lines; some frames are written, the others are given back.
    fn fetch(&mut self, tenant: u8, written: u64) {
        let database = DatabaseName::new(&format!("d{tenant}"));
        let fetched = self.index.lock().fetch(&database, 500, &HOT).0;
        let mut last = 0;
        for (place, frame) in fetched.into_iter().enumerate() {
            assert!(frame.messages != 0 && frame.id.seq > last, "each once, in the order of their numbers");
            last = frame.id.seq;
            if written & (1 << (place % 64)) == 0 {
                self.index.lock().return_messages(frame.id, frame.messages);
                continue;
            }
            if self.index.lock().settle(frame.id, frame.messages, frame.lines).is_some() {
                let key = (format!("t{tenant}"), format!("d{tenant}"), frame.id.seq);
                self.known.get_mut(&key).expect("it was appended").open = false;
            }
        }
    }
}
