//! Revocations and changed tokens while devices send.

use std::time::{Duration, Instant};

use super::devices::{Fate, TURNED};
use super::event::Event;
use super::plan::Random;
use super::world::World;

struct Change {
    revokes: bool,
    number: u64,
}

pub fn change(random: &mut Random) -> Box<dyn Event> {
    Box::new(Change { revokes: random.below(2) == 0, number: random.below(1 << 30) })
}

/// Waits until a device has more readings of a fate.
fn wait_more(world: &World<'_>, what: &str, fate: fn(Fate) -> bool) {
    let device = world.devices.iter().find(|device| device.name == TURNED).unwrap();
    let before = device.count(fate);
    let deadline = Instant::now() + Duration::from_secs(60);
    // While the gateway cannot keep anything, nothing is answered.
    while device.count(fate) <= before && !world.watch.is_disturbed() {
        world.watch.check();
        assert!(Instant::now() < deadline, "{TURNED}: no reading is {what} within 60 s");
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Event for Change {
    fn name(&self) -> String {
        if self.revokes { "device revoked".into() } else { "token of a device changed".into() }
    }

    fn apply(&mut self, world: &mut World<'_>) {
        if self.revokes {
            world.revoked.push(TURNED.into());
            world.write_registry();
            wait_more(world, "refused", |fate| matches!(fate, Fate::Refused(_)));
        } else {
            world.watch.tokens.lock().insert(TURNED.into(), format!("token-{}", self.number));
            world.write_registry();
            wait_more(world, "acknowledged", |fate| fate == Fate::Acknowledged);
        }
    }

    fn undo(&mut self, world: &mut World<'_>) {
        world.revoked.clear();
        world.write_registry();
        wait_more(world, "acknowledged", |fate| fate == Fate::Acknowledged);
    }
}
