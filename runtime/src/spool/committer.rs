//! The thread that makes batches durable: takes all that waits, one write, one sync, then tells
//! everybody. The next group forms meanwhile, so there is no delay to tune.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;
use tracing::{error, info, warn};

use crate::domain::books::Outcome;
use crate::domain::durable::{Durable, DurableMessage, message_set};
use crate::domain::limits;
use crate::domain::message::CheckedBatch;
use crate::domain::pacing::{self, Pacing};
use crate::domain::slot::{Slot, settle_all};

use super::frame::Draft;
use super::index::{FrameId, Standing};
use super::log::{self, Append, Appended, Copy, Log, SpoolError};
use super::{Delivery, FrameReceipt, Shared};

/// A batch that waits for the disk.
pub struct Item {
    pub batch: CheckedBatch,
    pub draft: Draft,
}

impl Queue {
    /// Takes an item. True: the thread is to be woken.
    pub fn push(&mut self, item: Item) -> bool {
        self.items.push_back(item);
        !self.gathering || self.items.len() >= pacing::LARGE_GROUP
    }
}

impl Item {
    pub fn bytes(&self) -> u64 {
        if self.draft.is_empty() { 0 } else { self.draft.header.frame_len() as u64 }
    }

    pub fn slots(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.batch.slots_mut()
    }
}

/// What the thread is to do.
#[derive(Default)]
pub struct Queue {
    pub items: std::collections::VecDeque<Item>,
    /// Frames to stand elsewhere.
    pub copies: Vec<Copy>,
    /// The thread has items in hand.
    pub busy: bool,
    /// The thread waits for more, and need not be woken for a few.
    pub gathering: bool,
    pub closed: bool,
}

/// Runs until the spool is closed; then what waits and cannot be written stays unacknowledged.
pub fn run(shared: &Arc<Shared>, mut log: Log, delivery: &dyn Delivery) {
    let every = Duration::from_millis(limits::SPOOL_MARK_INTERVAL_MS);
    let mut marked = Instant::now();
    let mut pacing = Pacing::new(Duration::from_millis(limits::SPOOL_GATHER_MS));
    let mut synced = Instant::now();
    loop {
        let (group, copies, closed) = {
            let mut queue = shared.queue.lock();
            queue.busy = false;
            while queue.items.is_empty() && queue.copies.is_empty() && !queue.closed {
                if shared.more.wait_until(&mut queue, marked + every).timed_out() {
                    break;
                }
            }
            queue.busy = true;
            gather(shared, &mut queue, &mut pacing, synced);
            let group = take_group(&mut queue);
            (group, std::mem::take(&mut queue.copies), queue.closed && queue.items.is_empty())
        };
        let made = !group.is_empty();
        if made {
            pacing.took(group.len(), synced.elapsed());
            synced = Instant::now();
        }
        if made && !commit(shared, &mut log, delivery, group) {
            return;
        }
        if !copies.is_empty() {
            match log.append_copies(&shared.index, &copies) {
                Ok(()) => _ = shared.copied.notify_one(),
                // They stay where they are, until the next look.
                Err(error) => warn!(%error, "frames could not be copied"),
            }
        }
        shared.syncs.store(log.stats.syncs, Ordering::Relaxed);
        shared.current.store(log.current().unwrap_or(0), Ordering::Relaxed);
        if marked.elapsed() >= every || (closed && !made) {
            marked = Instant::now();
            tend(shared, &mut log);
        }
        if closed && !made {
            return;
        }
    }
}

/// Waits for more to come, where that pays.
fn gather(shared: &Shared, queue: &mut MutexGuard<'_, Queue>, pacing: &mut Pacing, synced: Instant) {
    let waiting = queue.items.len();
    if waiting == 0 || queue.closed {
        return;
    }
    let wait = pacing.wait(synced.elapsed(), waiting);
    if wait.is_zero() {
        return;
    }
    let until = Instant::now() + wait;
    queue.gathering = true;
    while !queue.closed
        && queue.items.len() < pacing::LARGE_GROUP
        && !shared.more.wait_until(queue, until).timed_out()
    {}
    queue.gathering = false;
    pacing.waited(queue.items.len() - waiting);
}

fn take_group(queue: &mut Queue) -> Vec<Item> {
    let mut bytes = 0;
    let mut group = Vec::with_capacity(queue.items.len());
    while let Some(item) = queue.items.front()
        && bytes < limits::SPOOL_GROUP_BYTES
    {
        bytes += item.bytes();
        group.extend(queue.items.pop_front());
    }
    group
}

/// Marks what is released, and gives room back.
fn tend(shared: &Arc<Shared>, log: &mut Log) {
    let tended = log.mark(&shared.index).and_then(|()| log.remove_empty(&shared.index));
    match tended {
        Ok(()) if shared.fault.lock().is_some() && log.ensure_current(&shared.index).is_ok() => mend(shared),
        Ok(()) => {}
        // While nothing comes in, this is where a failing disk shows.
        Err(error) => fail(shared, &error),
    }
    shared.drop_held_of_ended();
}

fn fail(shared: &Shared, error: &SpoolError) {
    let mut fault = shared.fault.lock();
    if fault.is_none() {
        error!(%error, "the spool cannot be written to: nothing is acknowledged until it can");
    }
    *fault = Some(error.to_string());
}

fn mend(shared: &Shared) {
    if shared.fault.lock().take().is_some() {
        info!("the spool can be written to again");
    }
}

/// Tries until the group is durable. False when the spool was closed meanwhile.
fn commit(shared: &Arc<Shared>, log: &mut Log, delivery: &dyn Delivery, group: Vec<Item>) -> bool {
    let streams: Vec<u32> = {
        let mut index = shared.index.lock();
        group.iter().map(|item| index.stream(&item.batch.tenant.id, &item.batch.database)).collect()
    };
    // What brings nothing only waits for what was before it.
    let appends: Vec<Append> = group
        .iter()
        .zip(&streams)
        .filter(|(item, _)| !item.draft.is_empty())
        .map(|(item, &stream)| Append { stream, draft: &item.draft, lines: &item.batch.lines })
        .collect();
    let appended = loop {
        if appends.is_empty() {
            break Vec::new();
        }
        match log.append(&shared.index, &appends) {
            Ok(appended) => break appended,
            Err(error) => fail(shared, &error),
        }
        // What is released meanwhile may be what makes room.
        if let Err(error) = log.remove_empty(&shared.index) {
            tracing::debug!(%error, "no room was made");
        }
        let mut queue = shared.queue.lock();
        if queue.closed {
            return false;
        }
        let until = Instant::now() + Duration::from_millis(limits::SPOOL_RETRY_MS);
        while !queue.closed && !shared.more.wait_until(&mut queue, until).timed_out() {}
    };
    if !appends.is_empty() {
        mend(shared);
    }
    drop(appends);
    let mut appended = appended.into_iter();
    for item in group {
        let appended = if item.draft.is_empty() { None } else { appended.next() };
        match appended {
            Some(Appended::Lines(id, standing)) => tell(shared, delivery, item, id, standing),
            Some(Appended::State) | None => {
                let (tenant, bytes) = (item.batch.tenant.id.clone(), item.bytes());
                shared.messages.fetch_add(item.batch.message_count(), Ordering::Relaxed);
                item.batch.settle();
                // Nothing of it is ever read again.
                shared.freed(&tenant, bytes);
            }
        }
    }
    true
}

/// A batch is durable: its messages are settled and its lines go on their way.
fn tell(shared: &Arc<Shared>, delivery: &dyn Delivery, item: Item, id: FrameId, standing: Standing) {
    let batch = item.batch;
    let lines = batch.line_count();
    let account = batch.tenant.account.clone();
    account.spool_lines(lines);
    shared.lines_pending.fetch_add(lines, Ordering::Relaxed);
    shared.messages.fetch_add(batch.message_count(), Ordering::Relaxed);
    let mut slots = Vec::with_capacity(batch.messages.len());
    let messages: Vec<DurableMessage> = batch
        .messages
        .into_iter()
        .map(|message| {
            slots.push(message.slot);
            DurableMessage {
                topic: message.topic,
                received_ns: message.received_ns,
                lines_end: message.lines_end,
                line_count: message.line_count,
                affinity: message.affinity,
            }
        })
        .collect();
    settle_all(slots, Outcome::Lines, &account);
    for (slot, outcome) in batch.kept.into_iter().flat_map(|kept| kept.messages) {
        slot.settle(outcome, &account);
    }
    match standing {
        Standing::Hot { overtakes } => delivery.deliver(Durable {
            database: batch.database,
            tenant: batch.tenant.id.clone(),
            guest: batch.guest,
            lines: batch.lines,
            wanted: message_set(0..messages.len()),
            messages,
            overtakes,
            arrived: Instant::now(),
            receipt: receipt(shared, id, &account),
            account,
        }),
        Standing::Waits { first: true } => delivery.waits(&batch.database),
        Standing::Waits { first: false } => {}
    }
}

pub fn receipt(
    shared: &Arc<Shared>,
    id: FrameId,
    account: &Arc<crate::domain::books::Account>,
) -> Box<FrameReceipt> {
    Box::new(FrameReceipt { shared: shared.clone(), id, account: account.clone() })
}

/// Looks for segments worth copying out of, beside the committer: reading is no work for the
/// thread that everybody's acknowledgement waits for.
pub fn tidy(shared: &Arc<Shared>) {
    let every = Duration::from_millis(limits::SPOOL_MARK_INTERVAL_MS);
    let mut found = false;
    loop {
        {
            let mut queue = shared.queue.lock();
            // One after the other while there is any, and then a look each second.
            while !queue.closed && (!found || !queue.copies.is_empty()) {
                if shared.copied.wait_for(&mut queue, every).timed_out() && queue.copies.is_empty() {
                    break;
                }
                if found && queue.copies.is_empty() {
                    break;
                }
            }
            if queue.closed {
                return;
            }
        }
        let current = Some(shared.current.load(Ordering::Relaxed));
        let settings = &shared.settings;
        let checkpoint = log::wants_checkpoint(&shared.index.lock(), current, settings.bytes_max);
        if checkpoint && let Err(error) = log::checkpoint(&*shared.disk, &shared.index) {
            warn!(%error, "segments of the spool stay until the state can be written down");
        }
        let victim =
            log::to_copy(&shared.index.lock(), current, settings.segment_bytes(), settings.bytes_max);
        found = victim.is_some();
        let Some(segment) = victim else { continue };
        match log::live_frames(&*shared.disk, &shared.index, segment) {
            Ok((copies, damaged)) => {
                for (id, place) in damaged {
                    shared.damaged(id, place, "its checksum is wrong");
                }
                found = !copies.is_empty();
                shared.queue.lock().copies = copies;
                shared.more.notify_one();
            }
            Err(error) => {
                warn!(%error, "a segment could not be tidied");
                found = false;
            }
        }
    }
}
