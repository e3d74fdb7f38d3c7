//! A message that came out of quarantine: which entry it was, and how it ended this time.

use std::fmt;
use std::sync::{Arc, OnceLock};

use tokio::sync::Notify;

use crate::books::Outcome;

/// Told what became of a message that was taken up; it goes along with its token.
pub trait UnparkGuard: Send + Sync + fmt::Debug {
    /// Its outcome is durable elsewhere: it is not needed here any more.
    fn done(&self);
    /// Nothing became of it: it waits where it is durable, and is taken up again.
    fn back(&self);
}

/// Goes along with the token of a replayed message.
#[derive(Debug)]
pub struct ReplayedEntry {
    /// The entry in quarantine that the message comes from.
    pub of: String,
    /// How many times it was replayed, this time included.
    pub replays: u32,
    outcome: OnceLock<Outcome>,
    /// Wakes the replay that waits for its outcome; `None`: nobody does.
    settled: Option<Arc<Notify>>,
}

impl ReplayedEntry {
    pub fn new(of: String, replays: u32) -> Self {
        Self { of, replays, outcome: OnceLock::new(), settled: None }
    }

    /// The same, with the waker of the replay that waits for its outcome.
    pub fn waking(self, settled: Arc<Notify>) -> Self {
        Self { settled: Some(settled), ..self }
    }

    /// How the message ended; `None` while it is on its way.
    pub fn outcome(&self) -> Option<Outcome> {
        self.outcome.get().copied()
    }

    /// Told when its token is settled.
    pub(super) fn settle(&self, outcome: Outcome) {
        // A token is settled once.
        let _ = self.outcome.set(outcome);
        if let Some(settled) = &self.settled {
            settled.notify_one();
        }
    }
}
