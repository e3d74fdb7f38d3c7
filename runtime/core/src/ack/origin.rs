//! The origin of a message: an MQTT connection, quarantine, the parked messages of the spool, or a trial.

use std::fmt;
use std::sync::{Arc, OnceLock};

use tokio::sync::Notify;

use crate::ack::ledger::LedgerIndex;
use crate::ack::tracker::AckTracker;
use crate::ack::window::ReceiveWindow;
use crate::books::Outcome;

/// The source of a message, with everything that learns its outcome.
#[derive(Debug)]
pub(super) enum Origin {
    Mqtt {
        tracker: Arc<AckTracker>,
        /// `None`: QoS 0.
        index: Option<LedgerIndex>,
        packet_id: u16,
        /// It was sent again, and its session may know it.
        may_be_duplicate: bool,
    },
    /// An entry of quarantine.
    Replay { window: Arc<ReceiveWindow>, entry: Arc<ReplayedEntry> },
    /// A parked message; the spool keeps it until it is settled.
    /// Boxed: nearly no message was parked, and each on its way has an origin.
    Parked(Box<ParkedOrigin>),
    /// A trial or a dry run: it takes no room, and nothing learns its outcome.
    Trial,
}

/// The origin of a message that was parked.
#[derive(Debug)]
pub(super) struct ParkedOrigin {
    pub window: Arc<ReceiveWindow>,
    pub guard: Box<dyn UnparkGuard>,
    pub replay: Option<Arc<ReplayedEntry>>,
}

/// The spool's claim on a message that was unparked; it belongs to the message's token.
pub trait UnparkGuard: Send + Sync + fmt::Debug {
    /// Removes the parked message: its outcome is durable elsewhere.
    fn commit(&self);
    /// Leaves the message parked; it is unparked again later.
    fn abort(&self);
}

/// The entry of quarantine that a replayed message comes from; shared by its token and its replay.
#[derive(Debug)]
pub struct ReplayedEntry {
    /// The id of the entry.
    pub of: String,
    /// Replays of the entry, this one included.
    pub replays: u32,
    outcome: OnceLock<Outcome>,
    /// Wakes the replay that waits for the outcome; `None`: none waits.
    settled: Option<Arc<Notify>>,
}

impl ReplayedEntry {
    pub fn new(of: String, replays: u32) -> Self {
        Self { of, replays, outcome: OnceLock::new(), settled: None }
    }

    /// Adds the waker of the replay that waits for the outcome.
    pub fn waking(self, settled: Arc<Notify>) -> Self {
        Self { settled: Some(settled), ..self }
    }

    /// The outcome of the message; `None` while it is on its way.
    pub fn outcome(&self) -> Option<Outcome> {
        self.outcome.get().copied()
    }

    /// Records the outcome; called when the token is settled.
    pub(super) fn settle(&self, outcome: Outcome) {
        // A token is settled once.
        let _ = self.outcome.set(outcome);
        if let Some(settled) = &self.settled {
            settled.notify_one();
        }
    }
}
