//! Databases that die, fail, and are of another version.

use super::event::Event;
use super::plan::Random;
use super::world::{DATABASES, World};
use crate::harness::fake_influxdb3::Fault;

/// A kill of InfluxDB 1.x. VictoriaMetrics is spared: it loses what it has accepted.
struct Kill;

pub fn kill(_: &mut Random) -> Box<dyn Event> {
    Box::new(Kill)
}

impl Event for Kill {
    fn name(&self) -> String {
        "kill -9 of the database".into()
    }

    fn apply(&mut self, world: &mut World<'_>) {
        world.influxdb.kill();
    }

    fn undo(&mut self, world: &mut World<'_>) {
        let runtime = world.runtime.clone();
        runtime.block_on(world.influxdb.restart());
    }
}

/// A fault of all requests for one database.
struct Fail {
    database: &'static str,
    fault: Fault,
}

pub fn fail(random: &mut Random) -> Box<dyn Event> {
    let status = |status| Fault::Status { status, retry_after: None, body: "out of order" };
    let faults = [
        status(500),
        status(503),
        status(401),
        status(403),
        status(404),
        status(200),
        Fault::Status { status: 429, retry_after: Some("1"), body: "slow down" },
        Fault::Redirect("/elsewhere".into()),
        Fault::Drop,
        Fault::ApplyThenDrop,
        Fault::BreakAnswer,
        Fault::Hang,
        Fault::SlowRead,
        Fault::CloseUpload,
    ];
    let databases = ["common", "backlog", "rewrite", "victoria"];
    Box::new(Fail { database: random.one_of(&databases), fault: random.one_of(&faults) })
}

impl Fail {
    fn set(&self, world: &World<'_>, fault: Option<Fault>) {
        let front = if DATABASES.contains(&self.database) { &world.front } else { &world.victoria_front };
        front.fail_database(self.database, fault);
    }
}

impl Event for Fail {
    fn name(&self) -> String {
        format!("database {}: {:?}", self.database, self.fault)
    }

    fn apply(&mut self, world: &mut World<'_>) {
        self.set(world, Some(self.fault.clone()));
    }

    fn undo(&mut self, world: &mut World<'_>) {
        self.set(world, None);
    }
}

/// A server that is slow, as one of another version: answers come at its next flush of a second.
struct ChangeVersion;

pub fn change_version(_: &mut Random) -> Box<dyn Event> {
    Box::new(ChangeVersion)
}

impl Event for ChangeVersion {
    fn name(&self) -> String {
        "database: answers at its flush".into()
    }

    fn apply(&mut self, world: &mut World<'_>) {
        world.front.slow_down(std::time::Duration::from_millis(700));
    }

    fn undo(&mut self, world: &mut World<'_>) {
        world.front.slow_down(std::time::Duration::ZERO);
    }
}
