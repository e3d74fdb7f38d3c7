//! The spool against a simple model, on a disk that fills up, fails, and at a crash keeps of what
//! was never synced whatever it likes. Failing cases are kept beside this file by proptest.

mod disk;
mod step;
mod rig;
mod run;
mod restart;
mod cases;
mod sequences;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use crate::disk::Disk;
use crate::ids::{FrameId, FrameLocation};
use crate::settings::MemoryLimits;
use crate::tests::model::rig::{Key, Rig};
use crate::tests::model::step::{Step, step, step_of_a_careless_hand};
use crate::{ids, recovery};
use tidegate_core::device_hash::SeedTag;

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
            prop_assert_eq!(rig.gaps, 0, "a crash reads as damage");
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
        let no_memory = MemoryLimits { bytes_max: 0, database_bytes_min: 0 };
        let (index, recovered) = recovery::recover(&rig.disk, &no_memory, SeedTag::default()).unwrap();
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
