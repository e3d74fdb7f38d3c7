//! Single cases on the same disk.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::disk::Disk;
use crate::log::SegmentLog;
use crate::settings::MemoryLimits;
use crate::tests::model::disk::Fault;
use crate::tests::model::rig::{HOT, Rig};
use crate::tests::model::step::Step;
use crate::{compaction, recovery};
use tidegate_core::device_hash::SeedTag;
use tidegate_core::durable::{MessageSet, message_set};
use tidegate_core::ids::TenantId;

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
    let no_memory = MemoryLimits { bytes_max: 0, database_bytes_min: 0 };
    let (_, recovered) = recovery::recover(&rig.disk, &no_memory, SeedTag::default()).unwrap();
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
    let no_memory = MemoryLimits { bytes_max: 0, database_bytes_min: 0 };
    let contents = |rig: &Rig| -> BTreeSet<Vec<u8>> {
        rig.open().into_iter().map(|(.., place)| rig.read(place)).collect()
    };
    let mut expected = rig.attempted.clone();
    expected.extend(other.attempted.clone());
    assert_eq!(expected.len(), 7);
    for _ in 0..3 {
        let (index, recovered) = recovery::recover(&other.disk, &no_memory, SeedTag::default()).unwrap();
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
    let (index, _) = recovery::recover(&other.disk, &no_memory, SeedTag::default()).unwrap();
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
    index.return_messages(id, 0b10);
    assert_eq!(index.damage(id).unwrap().lines, 1);
    let (_, totals, pending) = index.totals().next().unwrap();
    assert_eq!((totals.spooled, totals.written, totals.damaged, pending), (2, 1, 1, 0));
}
