//! Tenants that take more than their shares: of the spool, of quarantine, of the messages a second.

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
use crate::harness::fake_influxdb3::Fault;

/// Messages in one go.
const BURST: u64 = 100;

#[derive(Clone, Copy, PartialEq, Debug)]
enum Share {
    /// Lines of a database that is away. Few have times of their own, so that they take little of it.
    Spool,
    /// Large messages that the decoder refuses.
    Quarantine,
    /// Small messages of which many make no line.
    Rate,
}

struct Fill {
    share: Share,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

pub fn fill(random: &mut Random) -> Box<dyn Event> {
    let share = random.one_of(&[Share::Spool, Share::Quarantine, Share::Rate]);
    Box::new(Fill { share, stop: Arc::default(), thread: None })
}

impl Event for Fill {
    fn name(&self) -> String {
        format!("share of {:?} filled", self.share)
    }

    fn apply(&mut self, world: &mut World<'_>) {
        if self.share == Share::Spool {
            let away = Fault::Status { status: 503, retry_after: None, body: "away" };
            world.front.fail_database("backlog", Some(away));
        }
        let (share, stop, watch) = (self.share, self.stop.clone(), world.watch.clone());
        self.thread = Some(std::thread::spawn(move || {
            while !stop.load(Ordering::SeqCst) {
                let _ = send(&watch, &stop, share);
                std::thread::sleep(Duration::from_millis(50));
            }
        }));
    }

    fn undo(&mut self, world: &mut World<'_>) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
        if self.share == Share::Spool {
            world.front.fail_database("backlog", None);
        }
    }
}

fn send(watch: &Watch, stop: &AtomicBool, share: Share) -> std::io::Result<()> {
    let mut client = Client::connect(&watch.listener, watch.tls.lock().clone(), "filler")?;
    let (topic, payload) = match share {
        Share::Spool => {
            let text = "x".repeat(4_000);
            let head = r#"{"site_id":"lab-1","provision_token":"tok-filler""#;
            (topic("backlog", "filler", "reading"), format!(r#"{head},"text":"{text}"}}"#))
        }
        Share::Quarantine => {
            let text = " ".repeat(8_000);
            let head = r#"{"site_id":"lab-1","provision_token":"tok-attacker","do":"refuse""#;
            (topic("hostile", "attacker", "refused"), format!("{head}{text}}}"))
        }
        Share::Rate => {
            let head = r#"{"site_id":"lab-1","provision_token":"tok-rated""#;
            (topic("rated", "rated", "telemetry"), format!("{head},\"metrics\":{{}}}}"))
        }
    };
    let mut id = 0_u16;
    while !stop.load(Ordering::SeqCst) {
        let ids: Vec<u16> = (0..BURST)
            .map(|_| {
                id = id.checked_add(1).unwrap_or(1);
                id
            })
            .collect();
        client.publish(ids.iter().map(|id| (*id, topic.as_str(), payload.as_bytes())))?;
        let mut left = BURST;
        while left > 0 && !stop.load(Ordering::SeqCst) {
            if let Answer::Puback(..) = client.answer()? {
                left -= 1;
            }
        }
    }
    Ok(())
}
