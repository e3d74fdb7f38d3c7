//! Another certificate of the listener, of another authority.

use std::time::{Duration, Instant};

use super::client::Client;
use super::event::Event;
use super::plan::Random;
use super::world::World;

struct Change;

pub fn change(_: &mut Random) -> Box<dyn Event> {
    Box::new(Change)
}

impl Event for Change {
    fn name(&self) -> String {
        "another certificate of the listener".into()
    }

    /// Does nothing while the listener speaks plain MQTT.
    fn apply(&mut self, world: &mut World<'_>) {
        if !world.setup.tls {
            return;
        }
        world.write_certificate();
        let tls = world.watch.tls.lock().clone();
        let deadline = Instant::now() + Duration::from_secs(60);
        while Client::connect(&world.watch.listener, tls.clone(), "certificate").is_err() {
            assert!(Instant::now() < deadline, "the new certificate does not serve within 60 s");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn undo(&mut self, _: &mut World<'_>) {}
}
