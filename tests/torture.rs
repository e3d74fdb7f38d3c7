//! Everything at once, for as long as `RIG_TORTURE_S` says (`cargo xtask torture --for 10m`): kills,
//! stops, a failing disk, lost segments, clocks that step, databases and brokers that fail in every way they
//! can, strangers, hostile decoders, and tenants above their shares, while devices count. In the end all that
//! was acknowledged is in the databases, and the books balanced all the time.
//!
//! `RIG_TORTURE_SEED` repeats a plan. What threads do between its events differs from run to run.

mod plan;
mod event;
mod watch;
mod client;
mod devices;
mod world;
mod process;
mod segments;
mod disk;
mod broker;
mod database;
mod clock;
mod registry;
mod certificate;
mod strangers;
mod decoders;
mod shares;
mod checks;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use self::checks::Figures;
use self::plan::Planned;
use self::watch::Watch;
use self::world::World;
use crate::harness::gateway::GatewayDir;

/// The length of a run that is not told one.
const SECONDS: u64 = 40;

/// The seed of a run that is not told one.
const SEED: u64 = 1;

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("invalid value for `{name}`: {text} (expected a number)")))
}

/// Says at a failure what a person needs to find its cause, and keeps the gateway's folder.
struct Report<'a> {
    seed: u64,
    watch: Arc<Watch>,
    scene: &'a GatewayDir,
}

impl Drop for Report<'_> {
    fn drop(&mut self) {
        self.watch.stop.store(true, Ordering::SeqCst);
        if !std::thread::panicking() {
            return;
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let kept = root.join(format!("target/torture/{}", self.seed));
        let _ = std::fs::remove_dir_all(&kept);
        let _ = std::fs::create_dir_all(&kept);
        let copied = Command::new("cp").arg("-r").arg(self.scene.path(".")).arg(&kept).status();
        println!("seed {}; the gateway's folder is in {} ({copied:?})", self.seed, kept.display());
        println!("{}", self.watch.time_line());
    }
}

/// Applies and undoes events at their times.
fn play(world: &mut World<'_>, plan: Vec<Planned>, length: Duration) {
    let begin = Instant::now();
    let mut waiting = plan.into_iter().peekable();
    let mut current: Vec<Planned> = Vec::new();
    while begin.elapsed() < length && waiting.peek().is_some() || !current.is_empty() {
        world.watch.check();
        let now = begin.elapsed();
        if let Some(at) = current.iter().position(|planned| planned.end <= now) {
            let mut planned = current.remove(at);
            world.watch.record(&format!("end of {}", planned.event.name()));
            planned.event.undo(world);
        } else if now < length && waiting.peek().is_some_and(|planned| planned.begin <= now) {
            let mut planned = waiting.next().unwrap();
            // A late plan does not make its events shorter.
            planned.end += now - planned.begin;
            world.watch.record(&planned.event.name());
            planned.event.apply(world);
            current.push(planned);
        } else {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn whatever_happens_nothing_acknowledged_is_lost() {
    let length = Duration::from_secs(setting("RIG_TORTURE_S").unwrap_or(SECONDS));
    let seed = setting("RIG_TORTURE_SEED").unwrap_or(SEED);
    println!("seed {seed}, {length:?}");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let scene = GatewayDir::new();
    let watch = Arc::new(Watch::new(&scene.listener, &scene.admin));
    let report = Report { seed, watch: watch.clone(), scene: &scene };
    let mut world = runtime.block_on(World::new(&scene, watch.clone(), runtime.handle().clone()));
    world.devices = devices::fleet(world.broker.port);
    world.write_registry();
    world.start();
    world.expect_ready();
    let new = Figures::of(world.gateway().pid()).unwrap();
    let sampling = checks::start(&watch);
    let counting = devices::start(&world.devices, &watch);

    play(&mut world, plan::make(seed, length), length);

    watch.record("all events are over");
    world.expect_ready();
    watch.ending.store(true, Ordering::SeqCst);
    for thread in counting {
        thread.join().unwrap();
    }
    watch.check();
    watch.stop.store(true, Ordering::SeqCst);
    sampling.join().unwrap();
    checks::assert_no_growth(world.gateway().pid(), new);
    // A database that was out of order may be asked again a minute later: a new process asks at once.
    world.stop();
    world.start();
    world.expect_ready();
    checks::assert_all_written(world.gateway());
    checks::assert_all_stored(&world);
    watch.check();
    println!("{}", watch.time_line());
    drop(report);
}
