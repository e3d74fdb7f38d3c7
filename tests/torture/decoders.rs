//! Attacks by a decoder: it traps, loops, takes memory, and floods its output and its log.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::client::{Answer, Client};
use super::event::Event;
use super::plan::Random;
use super::watch::Watch;
use super::world::World;
use crate::end_to_end::topic;

const ATTACKS: [&str; 14] = [
    "loop",
    "recurse",
    "trap",
    "grow",
    "big",
    "many-lines",
    "too-many-lines",
    "forge-tag",
    "not-utf8",
    "log-flood",
    "million-measurements",
    "escaped-newline",
    "say-much",
    "burn",
];

struct Attack {
    random: Random,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

pub fn attack(random: &mut Random) -> Box<dyn Event> {
    Box::new(Attack { random: Random::new(random.below(u64::MAX)), stop: Arc::default(), thread: None })
}

impl Event for Attack {
    fn name(&self) -> String {
        "attacks by a decoder".into()
    }

    fn apply(&mut self, world: &mut World<'_>) {
        let (mut random, stop, watch) = (self.random.clone(), self.stop.clone(), world.watch.clone());
        self.thread = Some(std::thread::spawn(move || {
            while !stop.load(Ordering::SeqCst) {
                let _ = send(&watch, &stop, &mut random);
                std::thread::sleep(Duration::from_millis(50));
            }
        }));
    }

    fn undo(&mut self, _: &mut World<'_>) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn send(watch: &Watch, stop: &AtomicBool, random: &mut Random) -> std::io::Result<()> {
    let mut client = Client::connect(&watch.listener, watch.tls.lock().clone(), "attacker")?;
    let mut id = 0_u16;
    while !stop.load(Ordering::SeqCst) {
        id = id.checked_add(1).unwrap_or(1);
        let attack = random.one_of(&ATTACKS);
        let payload =
            format!(r#"{{"site_id":"lab-1","provision_token":"tok-attacker","do":"{attack}","seq":{id}}}"#);
        let topic = topic("hostile", "attacker", &format!("type-{}", random.below(30)));
        client.publish([(id, topic.as_str(), payload.as_bytes())])?;
        while matches!(client.answer()?, Answer::Nothing) && !stop.load(Ordering::SeqCst) {}
    }
    Ok(())
}
