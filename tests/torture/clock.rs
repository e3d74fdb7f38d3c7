//! A wall clock that steps.

use super::event::Event;
use super::plan::Random;
use super::world::World;

struct Step(i64);

pub fn step(random: &mut Random) -> Box<dyn Event> {
    let seconds = [-86_400, -3_600, -10, 10, 3_600, 86_400, 10 * 86_400, -1_700_000_000];
    Box::new(Step(random.one_of(&seconds)))
}

impl Event for Step {
    fn name(&self) -> String {
        format!("clock: {:+} s", self.0)
    }

    fn apply(&mut self, world: &mut World<'_>) {
        world.faults.step_clock(self.0);
    }

    fn undo(&mut self, world: &mut World<'_>) {
        world.faults.step_clock(0);
    }
}
