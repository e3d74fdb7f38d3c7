//! A segment of the spool that is moved away and put back.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::devices::point_ns;
use super::event::Event;
use super::plan::Random;
use super::world::{DATABASES, World};
use crate::harness::fake_influxdb3::Fault;

struct Lose {
    /// Chooses the segment.
    choice: u64,
    missing: Option<PathBuf>,
}

pub fn lose(random: &mut Random) -> Box<dyn Event> {
    Box::new(Lose { choice: random.below(1 << 20), missing: None })
}

/// The points up to `last` of which a segment holds lines.
fn points_in(segment: &[u8], last: u64) -> BTreeSet<u64> {
    let point_of = |line: &[u8]| {
        let time = line.rsplit(|byte| *byte == b' ').next()?;
        let time: i64 = std::str::from_utf8(time).ok()?.parse().ok()?;
        (0..=last).find(|&point| point_ns(point) == time)
    };
    segment.split(|byte| *byte == b'\n').filter_map(point_of).collect()
}

impl Event for Lose {
    fn name(&self) -> String {
        "segment moved away".into()
    }

    fn apply(&mut self, world: &mut World<'_>) {
        // Its lines shall not be written before: databases are away for a moment.
        let away = Fault::Status { status: 503, retry_after: None, body: "away" };
        DATABASES.iter().for_each(|database| world.front.fail_database(database, Some(away.clone())));
        std::thread::sleep(Duration::from_millis(500 + self.choice % 1_000));
        world.watch.disturb();
        world.stop();
        DATABASES.iter().for_each(|database| world.front.fail_database(database, None));
        // Lines that come back late must not meet newer ones of their point.
        let last_point = world.watch.generation.fetch_add(1, Ordering::SeqCst);
        let segments = world.segments();
        if !segments.is_empty() {
            let chosen = &segments[self.choice as usize % segments.len()];
            world.watch.record(&format!("away: {} of {} segments", chosen.display(), segments.len()));
            if segments.last() != Some(chosen) {
                let points = points_in(&std::fs::read(chosen).unwrap(), last_point);
                world.watch.overtaken_points.lock().extend(points);
            }
            std::fs::rename(chosen, world.scene.path("elsewhere")).unwrap();
            self.missing = Some(chosen.clone());
        }
        world.start();
        world.watch.calm();
    }

    fn undo(&mut self, world: &mut World<'_>) {
        let Some(missing) = self.missing.take() else { return };
        world.watch.disturb();
        world.stop();
        assert!(!missing.exists(), "{} was made again", missing.display());
        std::fs::rename(world.scene.path("elsewhere"), &missing).unwrap();
        world.start();
        world.expect_ready();
        world.watch.calm();
    }
}

#[test]
fn the_points_of_a_segment_are_found() {
    let segment = format!("\0\u{1}m v=1 {}\nm v=2 {}\nm v=3 {}\n\0", point_ns(0), point_ns(2), point_ns(9));
    assert_eq!(points_in(segment.as_bytes(), 5), BTreeSet::from([0, 2]));
}
