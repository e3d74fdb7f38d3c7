//! Ends of the process: killed, stopped, and started with another transport and another kind of output.

use super::event::Event;
use super::plan::Random;
use super::world::{Setup, World};

/// A kill: the gateway is away for as long as the event lasts.
struct Kill;

pub fn kill(_: &mut Random) -> Box<dyn Event> {
    Box::new(Kill)
}

impl Event for Kill {
    fn name(&self) -> String {
        "kill -9 of the gateway".into()
    }

    fn apply(&mut self, world: &mut World<'_>) {
        world.watch.disturb();
        world.kill();
        world.start();
    }

    fn undo(&mut self, world: &mut World<'_>) {
        world.expect_ready();
        world.watch.calm();
    }
}

struct Stop;

pub fn stop(_: &mut Random) -> Box<dyn Event> {
    Box::new(Stop)
}

impl Event for Stop {
    fn name(&self) -> String {
        "SIGTERM of the gateway".into()
    }

    fn apply(&mut self, world: &mut World<'_>) {
        world.watch.disturb();
        world.stop();
        world.start();
    }

    fn undo(&mut self, world: &mut World<'_>) {
        world.expect_ready();
        world.watch.calm();
    }
}

/// A restart by which the listener speaks TLS or not, and the output is InfluxDB 3 or 1.
struct ChangeSetup(Setup);

pub fn change_setup(random: &mut Random) -> Box<dyn Event> {
    Box::new(ChangeSetup(Setup { tls: random.below(2) == 1, direct: random.below(2) == 1 }))
}

impl Event for ChangeSetup {
    fn name(&self) -> String {
        let output = if self.0.direct { "InfluxDB 1.x and VictoriaMetrics" } else { "InfluxDB 3" };
        format!("restart to {}, {output}", if self.0.tls { "TLS" } else { "plain MQTT" })
    }

    fn apply(&mut self, world: &mut World<'_>) {
        world.watch.disturb();
        world.stop();
        world.setup = self.0;
        world.start();
    }

    fn undo(&mut self, world: &mut World<'_>) {
        world.expect_ready();
        world.watch.calm();
    }
}
