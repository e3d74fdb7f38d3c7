//! A broker that dies.

use super::event::Event;
use super::plan::Random;
use super::world::World;

struct Kill;

pub fn kill(_: &mut Random) -> Box<dyn Event> {
    Box::new(Kill)
}

impl Event for Kill {
    fn name(&self) -> String {
        "kill -9 of the broker".into()
    }

    fn apply(&mut self, world: &mut World<'_>) {
        world.broker.kill();
        world.expect_unready("source");
    }

    fn undo(&mut self, world: &mut World<'_>) {
        world.broker.restart();
        world.expect_ready();
    }
}
