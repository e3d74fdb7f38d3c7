//! Strangers at the listener: random bytes, crafted packets, announced lengths that never come, slow
//! readers, and connections on which nothing happens.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tidegate_simulator::packet;

use super::event::Event;
use super::plan::Random;
use super::world::World;

/// Connections that a stranger keeps.
const KEPT_MAX: usize = 60;

#[derive(Clone, Copy, Debug)]
enum Habit {
    Noise,
    Crafted,
    AnnouncedLengths,
    SlowReader,
    HalfOpen,
}

struct Come {
    habit: Habit,
    random: Random,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

pub fn come(random: &mut Random) -> Box<dyn Event> {
    let habits = [Habit::Noise, Habit::Crafted, Habit::AnnouncedLengths, Habit::SlowReader, Habit::HalfOpen];
    let habit = random.one_of(&habits);
    Box::new(Come { habit, random: Random::new(random.below(u64::MAX)), stop: Arc::default(), thread: None })
}

impl Event for Come {
    fn name(&self) -> String {
        format!("strangers: {:?}", self.habit)
    }

    fn apply(&mut self, world: &mut World<'_>) {
        let (habit, mut random, stop) = (self.habit, self.random.clone(), self.stop.clone());
        let address = world.scene.listener.clone();
        self.thread = Some(std::thread::spawn(move || {
            let mut kept = Vec::new();
            while !stop.load(Ordering::SeqCst) {
                if let Ok(stream) = TcpStream::connect(&address) {
                    let _ = stream.set_write_timeout(Some(Duration::from_millis(200)));
                    let _ = stream.set_read_timeout(Some(Duration::from_millis(50)));
                    if let Some(stream) = visit(stream, habit, &mut random) {
                        kept.push(stream);
                    }
                }
                if kept.len() > KEPT_MAX {
                    kept.clear();
                }
                std::thread::sleep(Duration::from_millis(10));
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

fn noise(random: &mut Random, most: u64) -> Vec<u8> {
    (0..random.below(most) + 1).map(|_| random.below(256) as u8).collect()
}

/// Plays a stranger on one connection; gives it back if it stays open.
fn visit(mut stream: TcpStream, habit: Habit, random: &mut Random) -> Option<TcpStream> {
    let hello = packet::connect(&format!("stranger-{}", random.below(1 << 40)), 60);
    match habit {
        Habit::Noise => {
            let _ = stream.write_all(&noise(random, 2_000));
            let _ = stream.read(&mut [0; 64]);
            None
        }
        Habit::Crafted => {
            let _ = stream.write_all(&hello);
            for _ in 0..5 {
                let _ = stream.write_all(&crafted(random));
            }
            let _ = stream.read(&mut [0; 64]);
            None
        }
        Habit::AnnouncedLengths => {
            if random.below(2) == 0 {
                let _ = stream.write_all(&hello);
            }
            // A PUBLISH of 256 MiB, of which some bytes come.
            let _ = stream.write_all(&[0x32, 0xff, 0xff, 0xff, 0x7f, 0, 30, b't', b'e']);
            Some(stream)
        }
        Habit::SlowReader => {
            let _ = stream.write_all(&hello);
            let topic = "tenant/strange/device/d/telemetry";
            for id in 1..200 {
                let payload = noise(random, 500);
                if stream.write_all(&packet::publish(topic, &payload, Some(id))).is_err() {
                    break;
                }
            }
            Some(stream)
        }
        Habit::HalfOpen => {
            let _ = stream.write_all(&hello[..random.below(hello.len() as u64) as usize]);
            if random.below(2) == 0 {
                let _ = stream.shutdown(std::net::Shutdown::Write);
            }
            Some(stream)
        }
    }
}

fn crafted(random: &mut Random) -> Vec<u8> {
    let topic = ["tenant/steady/device/timed/telemetry", "tenant/strange/device/d/telemetry", "no/topic"]
        [random.below(3) as usize];
    match random.below(8) {
        0 => packet::publish(topic, &br#""provision_token":"x","#.repeat(3_000), Some(1)),
        1 => packet::publish(topic, &[b'['; 20_000], Some(2)),
        2 => packet::publish(topic, br#"{"site_id":"lab-1","provision_token":"wrong"}"#, Some(3)),
        3 => packet::publish(&format!("tenant/{}/device/d/t", "x".repeat(3_000)), b"{}", Some(4)),
        4 => packet::publish("tenant/strange/device/\u{1b}[2J/telemetry", b"{}", None),
        5 => packet::frame(0x10, &noise(random, 200)),
        6 => packet::frame(0x36, &noise(random, 200)),
        _ => packet::frame((random.below(16) << 4) as u8, &noise(random, 100)),
    }
}
