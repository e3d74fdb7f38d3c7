use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};

use parking_lot::{Condvar, Mutex};

use crate::ring::Ring;
use crate::sampler::Sampler;
use tidegate_core::message::RefusedMessage;
use tidegate_core::refused_lines::RefusedLines;
use tidegate_core::topic::TopicTemplate;

/// Is told of messages that were kept, once their entries are durable.
pub trait StoredObserver: Send + Sync {
    /// It is called on the writer's thread and must not block.
    fn kept(&self, refused: &RefusedMessage, id: &str);
}

/// What waits for the writer's thread.
pub(crate) enum QuarantineJob {
    Message(RefusedMessage),
    Lines(RefusedLines),
}

#[derive(Default)]
pub(crate) struct QuarantineQueue {
    pub(crate) jobs: Vec<QuarantineJob>,
    /// The thread has jobs in hand.
    pub(crate) busy: bool,
    pub(crate) closed: bool,
}

pub(crate) struct Shared {
    pub(crate) dir: PathBuf,
    /// Finds the type, and the device of a refused line, in a topic.
    pub(crate) template: Option<TopicTemplate>,
    pub(crate) queue: Mutex<QuarantineQueue>,
    pub(crate) more: Condvar,
    pub(crate) usable: AtomicBool,
    pub(crate) sampler: Mutex<Sampler>,
    /// Refusals since the start, kept or not, in the order of `Reason::ALL`.
    pub(crate) refused: Vec<AtomicU64>,
    pub(crate) ring: Mutex<Ring>,
    pub(crate) kept: OnceLock<Arc<dyn StoredObserver>>,
}
