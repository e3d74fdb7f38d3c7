//! The thread that makes batches durable. It takes all that waits, writes it, syncs once, and passes it on.
//! The next group forms meanwhile. A trickle is gathered for some milliseconds (`tidegate_core::batching`).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;
use tracing::{error, info, warn};

use crate::commit_queue::{AppendBody, CommitQueue, ParkedBatch, QueueItem, WaitReason};
use crate::error::SpoolError;
use crate::ids::FrameId;
use crate::index::HandoffState;
use crate::limits;
use crate::log::{Append, Appended, SegmentLog};
use crate::shared::Shared;
use tidegate_core::ack::settle::SettleBatch;
use tidegate_core::batching;
use tidegate_core::batching::{BatchDelay, SPOOL_DELAY};
use tidegate_core::books::Outcome;
use tidegate_core::durable::{Durable, DurableMessage, FrameLines, Handoff, StreamPosition, message_set};
use tidegate_core::ids::DatabaseName;
use tidegate_core::message::{CheckedBatch, CheckedMessage};
use tidegate_core::synced::Synced;

/// Runs until the spool is closed; then what waits and cannot be written stays unacknowledged.
pub fn run(shared: &Arc<Shared>, mut log: SegmentLog, handoff: &dyn Handoff) {
    let started = Instant::now();
    let mut marked = started;
    let mut batch_delay = BatchDelay::new(SPOOL_DELAY, batching::LARGE_GROUP);
    let mut synced = Instant::now();
    loop {
        let every = mark_interval(started.elapsed());
        let (group, copies, closed) = {
            let mut queue = shared.queue.lock();
            queue.busy = false;
            while queue.items.is_empty() && queue.copies.is_empty() && !queue.closed {
                if shared.more.wait_until(&mut queue, marked + every).timed_out() {
                    break;
                }
            }
            queue.busy = true;
            wait_for_batch(shared, &mut queue, &mut batch_delay, synced);
            let group = take_group(&mut queue);
            (group, std::mem::take(&mut queue.copies), queue.closed && queue.items.is_empty())
        };
        let made = !group.is_empty();
        if made {
            let messages = group.iter().map(QueueItem::messages).sum();
            batch_delay.record_group(messages, synced.elapsed());
            synced = Instant::now();
        }
        if made && !commit(shared, &mut log, handoff, group) {
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
            run_housekeeping(shared, &mut log);
            let unannounced = shared.index.lock().take_unannounced();
            unannounced.iter().for_each(|database| handoff.waits(database));
        }
        if closed && !made {
            return;
        }
    }
}

/// The interval of marks, so long after the start.
fn mark_interval(since_start: Duration) -> Duration {
    Duration::from_millis(match since_start.as_secs() < limits::SPOOL_MARK_OFTEN_S {
        true => limits::SPOOL_MARK_OFTEN_MS,
        false => limits::SPOOL_MARK_INTERVAL_MS,
    })
}

/// Waits for more to come, where that pays.
fn wait_for_batch(
    shared: &Shared,
    queue: &mut MutexGuard<'_, CommitQueue>,
    batch_delay: &mut BatchDelay,
    synced: Instant,
) {
    let waiting = queue.messages();
    if waiting == 0 || queue.closed {
        return;
    }
    let likely = batch_delay.wait(synced.elapsed(), waiting);
    if !likely.is_zero() {
        let half = Instant::now() + likely / 2;
        wait(shared, queue, WaitReason::Likely, likely);
        match queue.last_push {
            Some(last) if last > half => batch_delay.record_wait(queue.messages() - waiting),
            _ => batch_delay.record_stall(),
        }
    } else if queue.more_comes && batch_delay.is_trickle(waiting) {
        let known = Duration::from_micros(limits::SPOOL_KNOWN_WAIT_US);
        wait(shared, queue, WaitReason::Known, known);
    }
}

fn wait(shared: &Shared, queue: &mut MutexGuard<'_, CommitQueue>, wait_reason: WaitReason, wait: Duration) {
    let until = Instant::now() + wait;
    queue.wait_reason = wait_reason;
    while !queue.closed
        && queue.messages() < batching::LARGE_GROUP
        && (wait_reason == WaitReason::Likely || queue.more_comes)
        && !shared.more.wait_until(queue, until).timed_out()
    {}
    queue.wait_reason = WaitReason::Nothing;
}

fn take_group(queue: &mut CommitQueue) -> VecDeque<QueueItem> {
    let mut bytes = 0;
    let fits = |item: &&QueueItem| {
        let room = bytes < limits::SPOOL_GROUP_BYTES;
        bytes += item.bytes();
        room
    };
    let items = queue.items.iter().take_while(fits).count();
    // All of it, mostly: what is left takes its place, and no item is moved.
    let left = queue.items.split_off(items);
    std::mem::replace(&mut queue.items, left)
}

/// Marks what is released, and gives room back.
fn run_housekeeping(shared: &Arc<Shared>, log: &mut SegmentLog) {
    let result = log.mark_durably(&shared.index).and_then(|()| log.remove_empty(&shared.index));
    match result {
        Ok(()) if shared.fault.lock().is_some() && log.ensure_current(&shared.index).is_ok() => {
            clear_fault(shared)
        }
        Ok(()) => {}
        // While nothing comes in, this is where a failing disk shows.
        Err(error) => set_fault(shared, &error),
    }
    shared.drop_abandoned();
    let backlogs = shared.index.lock().shrink_places();
    {
        let mut quotas = shared.quotas.lock();
        quotas.shares.charge_backlogs(&backlogs);
        quotas.shares.forget_idle();
        quotas.parked.forget_idle();
    }
    // Tenants' shares may have grown meanwhile.
    shared.release_deferred(shared.quotas.lock());
}

fn set_fault(shared: &Shared, error: &SpoolError) {
    let mut fault = shared.fault.lock();
    if fault.is_none() {
        error!(%error, "the spool cannot be written to: nothing is acknowledged until it can");
    }
    *fault = Some(error.to_string());
}

fn clear_fault(shared: &Shared) {
    if shared.fault.lock().take().is_some() {
        info!("the spool can be written to again");
    }
}

/// Tries until the group is durable. False when the spool was closed meanwhile.
fn commit(
    shared: &Arc<Shared>,
    log: &mut SegmentLog,
    handoff: &dyn Handoff,
    group: VecDeque<QueueItem>,
) -> bool {
    let streams: Vec<u32> = {
        let mut index = shared.index.lock();
        group.iter().map(|item| item.stream(&mut index)).collect()
    };
    // What brings nothing only waits for what was before it.
    let appends: Vec<Append> = group
        .iter()
        .zip(&streams)
        .filter(|(item, _)| !item.draft.is_empty())
        .map(|(item, &stream)| Append { stream, draft: &item.draft, lines: item.lines() })
        .collect();
    let appended = loop {
        if appends.is_empty() {
            break Vec::new();
        }
        match log.append(&shared.index, &appends) {
            Ok(appended) => break appended,
            Err(error) => set_fault(shared, &error),
        }
        // A release meanwhile may make room.
        if let Err(error) = log.remove_empty(&shared.index) {
            tracing::debug!(%error, "no quotas was made");
        }
        let mut queue = shared.queue.lock();
        if queue.closed {
            return false;
        }
        let until = Instant::now() + Duration::from_millis(limits::SPOOL_RETRY_MS);
        while !queue.closed && !shared.more.wait_until(&mut queue, until).timed_out() {}
    };
    if !appends.is_empty() {
        clear_fault(shared);
    }
    drop(appends);
    // Most go to the output at which their tenant had its database when they were decoded.
    let moved: Vec<Option<DatabaseName>> = {
        let index = shared.index.lock();
        let moved = group.iter().zip(&streams).map(|(item, &stream)| {
            let database = index.names(stream).1;
            item.database().is_none_or(|own| own != database).then(|| database.clone())
        });
        moved.collect()
    };
    let mut settling = SettleBatch::default();
    let mut delivery = Delivery { handoff, durables: Vec::new() };
    let mut appended = appended.into_iter();
    for (item, moved) in group.into_iter().zip(moved) {
        let bytes = item.bytes();
        let appended = if item.draft.is_empty() { None } else { appended.next() };
        match (item.load, appended) {
            (AppendBody::Lines(mut batch), Some(Appended::Lines(id, handoff_state, synced))) => {
                if let Some(database) = moved {
                    batch.database = database;
                }
                publish_durable(shared, &mut delivery, batch, (id, handoff_state, &synced), &mut settling);
            }
            (AppendBody::Lines(batch), Some(Appended::State) | None) => {
                let tenant = batch.tenant.id.clone();
                shared.messages.fetch_add(batch.message_count(), Ordering::Relaxed);
                batch.settle();
                // Nothing of it is ever read again.
                shared.freed(&tenant, bytes);
            }
            (AppendBody::Parked(batch), Some(Appended::Lines(id, ..))) => {
                publish_parked(shared, batch, id, &mut settling);
            }
            (AppendBody::Parked(_), Some(Appended::State) | None) => {
                unreachable!("what is parked has a frame, and one that is read again")
            }
        }
    }
    // The PUBACKs leave before the lines go on.
    drop(settling);
    delivery.deliver();
    shared.index.lock().delivering = false;
    shared.delivered.notify_all();
    true
}

/// Lines of one group on their way to the writer.
struct Delivery<'a> {
    handoff: &'a dyn Handoff,
    durables: Vec<Durable>,
}

impl Delivery<'_> {
    fn deliver(&mut self) {
        if !self.durables.is_empty() {
            self.handoff.deliver_all(std::mem::take(&mut self.durables));
        }
    }

    /// Tells that lines of a database wait, after those in front of them are delivered.
    fn announce(&mut self, database: &DatabaseName) {
        self.deliver();
        self.handoff.waits(database);
    }
}

/// Messages are parked: they are settled, and then they may be taken up.
fn publish_parked(shared: &Arc<Shared>, batch: ParkedBatch, id: FrameId, settling: &mut SettleBatch) {
    let messages = batch.messages.len();
    shared.messages.fetch_add(messages as u64, Ordering::Relaxed);
    let tokens = batch.messages.into_iter().map(|message| message.token);
    settling.settle_all(tokens, Outcome::Parked, &batch.account);
    shared.index.lock().return_messages(id, message_set(0..messages));
    shared.parked.notify_one();
}

/// A batch is durable: its messages are settled and its lines go on their way.
fn publish_durable(
    shared: &Arc<Shared>,
    delivery: &mut Delivery<'_>,
    batch: CheckedBatch,
    (id, handoff_state, synced): (FrameId, HandoffState, &Synced),
    settling: &mut SettleBatch,
) {
    let lines = batch.line_count();
    let account = batch.tenant.account.clone();
    account.spool_lines(lines);
    shared.lines_pending.fetch_add(lines, Ordering::Relaxed);
    shared.messages.fetch_add(batch.message_count(), Ordering::Relaxed);
    let split = |message: CheckedMessage| {
        let rest = DurableMessage {
            topic: message.topic,
            received_ns: message.received_ns,
            lines_end: message.lines_end,
            line_count: message.line_count,
            affinity: message.affinity,
        };
        (message.token, rest)
    };
    let messages = settling.add_tokens_of(batch.messages, Outcome::Lines, account.clone(), split);
    for (token, outcome) in batch.state_delta.into_iter().flat_map(|kept| kept.messages) {
        settling.add([token], outcome, account.clone());
    }
    match handoff_state {
        HandoffState::Hot { overtakes, returns } => {
            let frame = FrameLines {
                database: batch.database,
                guest: batch.guest,
                lines: batch.lines,
                wanted: message_set(0..messages.len()),
                messages,
                overtakes,
                arrived: Instant::now(),
                account,
            };
            let position = StreamPosition { stream: id.stream, number: id.seq, returns, is_last: false };
            delivery.durables.push(Durable::new(position, frame, shared.clone(), synced));
        }
        HandoffState::Waits { first: true } => delivery.announce(&batch.database),
        HandoffState::Waits { first: false } => {}
    }
}
