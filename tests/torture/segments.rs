//! A segment of the spool that is moved away and put back.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use super::event::Event;
use super::plan::Random;
use super::world::World;

struct Lose {
    /// Chooses the segment.
    choice: u64,
    missing: Option<PathBuf>,
}

pub fn lose(random: &mut Random) -> Box<dyn Event> {
    Box::new(Lose { choice: random.below(1 << 20), missing: None })
}

impl Event for Lose {
    fn name(&self) -> String {
        "segment moved away".into()
    }

    fn apply(&mut self, world: &mut World<'_>) {
        world.watch.disturb();
        world.stop();
        // Lines that come back late must not meet newer ones of their point.
        world.watch.generation.fetch_add(1, Ordering::SeqCst);
        let segments = world.segments();
        if !segments.is_empty() {
            let chosen = &segments[self.choice as usize % segments.len()];
            world.watch.record(&format!("away: {} of {} segments", chosen.display(), segments.len()));
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
