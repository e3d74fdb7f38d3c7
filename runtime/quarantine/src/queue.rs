//! The queue between the callers of quarantine and the thread that writes.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::SystemTime;

use parking_lot::{Condvar, Mutex};

use crate::ring::Ring;
use crate::sampler::Sampler;
use tidegate_core::age_clock::AgeClock;
use tidegate_core::message::RefusedMessage;
use tidegate_core::refused_lines::RefusedLines;
use tidegate_core::topic::TopicTemplates;

/// An observer of messages that were stored, once their entries are durable.
pub trait StoredObserver: Send + Sync {
    /// Called on the writer's thread; it must not block.
    fn kept(&self, refused: &RefusedMessage, id: &str);
}

/// A refusal that waits for the writer's thread.
pub(crate) enum QuarantineJob {
    Message(RefusedMessage),
    Lines(RefusedLines),
}

/// The jobs that wait, and the state of the thread.
#[derive(Default)]
pub(crate) struct QuarantineQueue {
    pub(crate) jobs: Vec<QuarantineJob>,
    /// The thread has jobs in hand.
    pub(crate) busy: bool,
    pub(crate) closed: bool,
}

/// The state that all handles and the thread share.
pub(crate) struct Shared {
    pub(crate) dir: PathBuf,
    /// Finds the type, and the device of a refused line, in a topic.
    pub(crate) topics: Option<Arc<TopicTemplates>>,
    pub(crate) queue: Mutex<QuarantineQueue>,
    pub(crate) more: Condvar,
    pub(crate) usable: AtomicBool,
    pub(crate) sampler: Mutex<Sampler>,
    /// Refusals since the start, stored or not, in the order of `Reason::ALL`.
    pub(crate) refused: Vec<AtomicU64>,
    pub(crate) ring: Mutex<Ring>,
    pub(crate) observer: Option<Arc<dyn StoredObserver>>,
    pub(crate) age_clock: Arc<AgeClock>,
}

impl Shared {
    /// The time of the age clock, by which entries expire.
    pub(crate) fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + self.age_clock.now()
    }
}
