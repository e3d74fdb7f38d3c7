//! The state that the spool's threads and callers share.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

use crate::commit_queue::CommitQueue;
use crate::disk::Disk;
use crate::ids::{FrameId, FrameLocation};
use crate::index::Index;
use crate::quota_state::QuotaState;
use crate::settings::SpoolSettings;
use tidegate_core::books::Books;

pub(crate) struct Shared {
    pub(crate) settings: SpoolSettings,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) books: Arc<Books>,
    pub(crate) index: Mutex<Index>,
    /// The writer has all of a group that it is to have at once.
    pub(crate) delivered: Condvar,
    pub(crate) quotas: Mutex<QuotaState>,
    pub(crate) queue: Mutex<CommitQueue>,
    pub(crate) more: Condvar,
    /// Wakes the tidying thread.
    pub(crate) copied: Condvar,
    /// Notified when a parked message can be unparked.
    pub(crate) parked: Notify,
    /// The frame of each segment that the disk did not give.
    pub(crate) unread: Mutex<HashMap<u64, UnreadFrame>>,
    /// The reason why nothing can be written; `None` if it can.
    pub(crate) fault: Mutex<Option<String>>,
    pub(crate) lines_pending: AtomicU64,
    pub(crate) messages: AtomicU64,
    pub(crate) syncs: AtomicU64,
    /// The segment that is written to.
    pub(crate) current: AtomicU64,
}

/// A frame that the disk did not give, and is asked for again.
pub(crate) struct UnreadFrame {
    pub(crate) id: FrameId,
    pub(crate) place: FrameLocation,
    /// The disk's last error.
    pub(crate) error: String,
    /// The time of the last warning in the log.
    pub(crate) logged: Instant,
}
