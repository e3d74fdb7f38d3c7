//! The queue between the callers and the committer's thread.

use std::sync::Arc;
use std::time::Instant;

use crate::frame::FrameDraft;
use crate::ids::NO_DATABASE;
use crate::index::Index;
use crate::limits;
use crate::log::FrameCopy;
use tidegate_core::ack::token::AckToken;
use tidegate_core::batching;
use tidegate_core::books::Account;
use tidegate_core::ids::{DatabaseName, TenantId};
use tidegate_core::message::{CheckedBatch, Received};

/// The work of the committer's thread.
#[derive(Default)]
pub struct CommitQueue {
    pub items: std::collections::VecDeque<QueueItem>,
    /// Frames to stand elsewhere.
    pub copies: Vec<FrameCopy>,
    /// The thread has items in hand.
    pub busy: bool,
    /// The reason why the thread waits with items in hand.
    pub(crate) wait_reason: WaitReason,
    /// Whoever appended last knows of more.
    pub(crate) more_comes: bool,
    pub(crate) last_push: Option<Instant>,
    pub closed: bool,
}

impl CommitQueue {
    /// Takes items. True: the thread is to be woken.
    pub fn push(&mut self, items: Vec<QueueItem>, more_comes: bool) -> bool {
        let some = !items.is_empty();
        self.items.extend(items);
        self.more_comes = more_comes;
        self.last_push = some.then(Instant::now).or(self.last_push);
        match self.wait_reason {
            WaitReason::Nothing => some,
            WaitReason::Known if !more_comes => true,
            _ => self.messages() >= batching::LARGE_GROUP,
        }
    }

    /// Messages that wait, counted up to a large group.
    pub(crate) fn messages(&self) -> usize {
        let mut messages = 0;
        for item in &self.items {
            messages += item.messages();
            if messages >= batching::LARGE_GROUP {
                break;
            }
        }
        messages
    }
}

/// The reason why a group is not made durable yet. Meanwhile the thread need not be woken for a few
/// items.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum WaitReason {
    #[default]
    Nothing,
    /// Messages that will come if they come as before.
    Likely,
    /// Messages that are known to be on their way: the thread is woken once they are here.
    Known,
}

/// A frame that waits for the disk.
pub struct QueueItem {
    pub load: AppendBody,
    pub draft: FrameDraft,
}

/// The messages that a frame is made of.
pub enum AppendBody {
    Lines(CheckedBatch),
    Parked(ParkedBatch),
}

impl QueueItem {
    pub fn bytes(&self) -> u64 {
        if self.draft.is_empty() { 0 } else { self.draft.frame_len() as u64 }
    }

    pub(crate) fn messages(&self) -> usize {
        match &self.load {
            AppendBody::Lines(batch) => batch.message_count() as usize,
            AppendBody::Parked(batch) => batch.messages.len(),
        }
    }

    /// The database of its lines.
    pub(crate) fn database(&self) -> Option<&DatabaseName> {
        match &self.load {
            AppendBody::Lines(batch) => Some(&batch.database),
            AppendBody::Parked(_) => None,
        }
    }

    /// The stream that it goes to.
    pub(crate) fn stream(&self, index: &mut Index) -> u32 {
        match &self.load {
            AppendBody::Lines(batch) => index.stream(&batch.tenant.id, &batch.database),
            AppendBody::Parked(batch) => index.stream(&batch.tenant, &DatabaseName::new(NO_DATABASE)),
        }
    }

    pub(crate) fn lines(&self) -> &[u8] {
        match &self.load {
            AppendBody::Lines(batch) => &batch.lines,
            AppendBody::Parked(_) => &[],
        }
    }
}

/// Charges each message of a large batch for its lines. Others take about as much as their payloads, which
/// are charged already.
pub fn charge_lines(batch: &mut CheckedBatch) {
    if batch.lines.capacity() < limits::LARGE_BATCH_BYTES {
        return;
    }
    let spare = batch.lines.capacity() - batch.lines.len();
    let mut begin = 0;
    for (place, message) in batch.messages.iter_mut().enumerate() {
        let own = message.lines_end as usize - begin;
        begin = message.lines_end as usize;
        message.token.grow(if place == 0 { own + spare } else { own });
    }
}

/// A batch that waits for room, or for the disk.
pub struct DeferredBatch {
    pub batch: CheckedBatch,
    pub draft: FrameDraft,
}

impl DeferredBatch {
    /// `kept_s`: the second of the age clock.
    pub fn new(batch: CheckedBatch, kept_s: u32) -> Self {
        Self { draft: FrameDraft::new(&batch, kept_s), batch }
    }

    /// The rest of a batch of which messages were taken out; as old as the whole was.
    pub fn rest(self) -> Self {
        Self::new(self.batch, self.draft.header.kept_s)
    }

    pub fn bytes(&self) -> u64 {
        if self.draft.is_empty() { 0 } else { self.draft.frame_len() as u64 }
    }

    /// The bytes that it counts as while it waits.
    pub fn memory_bytes(&self) -> u64 {
        // The table holds the topics, which the messages hold too.
        let (lines, FrameDraft { table, state, .. }) = (&self.batch.lines, &self.draft);
        let bytes = lines.capacity() + 2 * table.capacity() + 2 * state.capacity();
        bytes as u64 + self.batch.message_count() * limits::DEFERRED_OVERHEAD_BYTES
    }

    pub fn tokens(&mut self) -> impl Iterator<Item = &mut AckToken> {
        self.batch.tokens_mut()
    }
}

impl From<DeferredBatch> for QueueItem {
    fn from(DeferredBatch { batch, draft }: DeferredBatch) -> Self {
        QueueItem { load: AppendBody::Lines(batch), draft }
    }
}

/// Messages of one tenant on their way to be parked.
#[derive(Debug)]
pub struct ParkedBatch {
    pub tenant: TenantId,
    pub account: Arc<Account>,
    pub messages: Vec<Received>,
}
