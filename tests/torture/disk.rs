//! A disk that fails.

use super::event::Event;
use super::plan::Random;
use super::world::World;

struct Fail(&'static str);

pub fn fail(random: &mut Random) -> Box<dyn Event> {
    let faults = ["fdatasync EIO", "write ENOSPC", "write EROFS", "fdatasync SLOW", "pread EIO"];
    Box::new(Fail(random.one_of(&faults)))
}

impl Event for Fail {
    fn name(&self) -> String {
        format!("disk: {}", self.0)
    }

    fn apply(&mut self, world: &mut World<'_>) {
        world.watch.disturb();
        world.faults.set(self.0);
        // A message that fails to be kept shows it; devices send all the time.
        if self.0 == "fdatasync EIO" || self.0.starts_with("write") {
            world.expect_unready("spool");
        }
    }

    fn undo(&mut self, world: &mut World<'_>) {
        world.faults.set("");
        world.expect_ready();
        world.watch.calm();
    }
}
