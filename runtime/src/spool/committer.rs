//! The thread that makes batches durable: takes all that waits, one write, one sync, then tells
//! everybody. The next group forms meanwhile, so there is no delay to tune.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;
use tracing::{error, info, warn};

use crate::domain::books::Outcome;
use crate::domain::durable::{Delivery, Durable, DurableMessage, FrameLines, StreamPosition, message_set};
use crate::domain::ids::DatabaseName;
use crate::domain::limits;
use crate::domain::message::CheckedBatch;
use crate::domain::pacing::{self, Pacing};
use crate::domain::slot::Settling;
use crate::domain::synced::Synced;

use super::Shared;
use super::frame::Draft;
use super::index::{FrameId, Index, Standing};
use super::log::{self, Append, Appended, Copy, Log, SpoolError};
use super::parked::{NO_DATABASE, ParkedBatch};
use super::receipt::receipt;

/// What waits for the disk.
pub struct Item {
    pub load: Load,
    pub draft: Draft,
}

/// What a frame is made of.
pub enum Load {
    Lines(CheckedBatch),
    Parked(ParkedBatch),
}

impl Queue {
    /// Takes items. True: the thread is to be woken.
    pub fn push(&mut self, items: Vec<Item>, more_comes: bool) -> bool {
        let some = !items.is_empty();
        self.items.extend(items);
        self.more_comes = more_comes;
        self.last_push = some.then(Instant::now).or(self.last_push);
        match self.gathering {
            Gathering::Nothing => some,
            Gathering::Known if !more_comes => true,
            _ => self.messages() >= pacing::LARGE_GROUP,
        }
    }

    /// Messages that wait, counted up to a large group.
    fn messages(&self) -> usize {
        let mut messages = 0;
        for item in &self.items {
            messages += item.messages();
            if messages >= pacing::LARGE_GROUP {
                break;
            }
        }
        messages
    }
}

impl Item {
    pub fn bytes(&self) -> u64 {
        if self.draft.is_empty() { 0 } else { self.draft.header.frame_len() as u64 }
    }

    fn messages(&self) -> usize {
        match &self.load {
            Load::Lines(batch) => batch.message_count() as usize,
            Load::Parked(batch) => batch.messages.len(),
        }
    }

    /// The stream that it goes to.
    fn stream(&self, index: &mut Index) -> u32 {
        match &self.load {
            Load::Lines(batch) => index.stream(&batch.tenant.id, &batch.database),
            Load::Parked(batch) => index.stream(&batch.tenant, &DatabaseName::new(NO_DATABASE)),
        }
    }

    fn lines(&self) -> &[u8] {
        match &self.load {
            Load::Lines(batch) => &batch.lines,
            Load::Parked(_) => &[],
        }
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
    /// What the thread waits for with items in hand.
    gathering: Gathering,
    /// Whoever appended last knows of more.
    more_comes: bool,
    last_push: Option<Instant>,
    pub closed: bool,
}

/// What is waited for before a group is made durable. Meanwhile the thread need not be woken for a
/// few items.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Gathering {
    #[default]
    Nothing,
    /// What will come if it goes on as it did.
    Likely,
    /// What is known to be on its way: the thread is woken when that is here.
    Known,
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
            let messages = group.iter().map(Item::messages).sum();
            pacing.took(messages, synced.elapsed());
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
            let untold = shared.index.lock().take_untold();
            untold.iter().for_each(|database| delivery.waits(database));
        }
        if closed && !made {
            return;
        }
    }
}

/// Waits for more to come, where that pays.
fn gather(shared: &Shared, queue: &mut MutexGuard<'_, Queue>, pacing: &mut Pacing, synced: Instant) {
    let waiting = queue.messages();
    if waiting == 0 || queue.closed {
        return;
    }
    let likely = pacing.wait(synced.elapsed(), waiting);
    if !likely.is_zero() {
        let half = Instant::now() + likely / 2;
        wait(shared, queue, Gathering::Likely, likely);
        match queue.last_push {
            Some(last) if last > half => pacing.waited(queue.messages() - waiting),
            _ => pacing.stalled(),
        }
    } else if queue.more_comes && pacing.is_trickle(waiting) {
        let known = Duration::from_micros(limits::SPOOL_KNOWN_WAIT_US);
        wait(shared, queue, Gathering::Known, known);
    }
}

fn wait(shared: &Shared, queue: &mut MutexGuard<'_, Queue>, gathering: Gathering, wait: Duration) {
    let until = Instant::now() + wait;
    queue.gathering = gathering;
    while !queue.closed
        && queue.messages() < pacing::LARGE_GROUP
        && (gathering == Gathering::Likely || queue.more_comes)
        && !shared.more.wait_until(queue, until).timed_out()
    {}
    queue.gathering = Gathering::Nothing;
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
    // Tenants' shares may have grown meanwhile.
    shared.go_on(shared.room.lock());
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
    let databases: Vec<DatabaseName> = {
        let index = shared.index.lock();
        streams.iter().map(|&stream| index.names(stream).1.clone()).collect()
    };
    let mut settling = Settling::default();
    let mut appended = appended.into_iter();
    for (item, database) in group.into_iter().zip(databases) {
        let bytes = item.bytes();
        let appended = if item.draft.is_empty() { None } else { appended.next() };
        match (item.load, appended) {
            (Load::Lines(batch), Some(Appended::Lines(id, standing, synced))) => {
                tell(shared, delivery, batch, database, (id, standing, &synced), &mut settling);
            }
            (Load::Lines(batch), Some(Appended::State) | None) => {
                let tenant = batch.tenant.id.clone();
                shared.messages.fetch_add(batch.message_count(), Ordering::Relaxed);
                batch.settle();
                // Nothing of it is ever read again.
                shared.freed(&tenant, bytes);
            }
            (Load::Parked(batch), Some(Appended::Lines(id, ..))) => {
                tell_parked(shared, batch, id, &mut settling);
            }
            (Load::Parked(_), Some(Appended::State) | None) => {
                unreachable!("what is parked has a frame, and one that is read again")
            }
        }
    }
    shared.index.lock().delivering = false;
    shared.delivered.notify_all();
    true
}

/// Messages are parked: they are settled, and then they may be taken up.
fn tell_parked(shared: &Arc<Shared>, batch: ParkedBatch, id: FrameId, settling: &mut Settling) {
    let messages = batch.messages.len();
    shared.messages.fetch_add(messages as u64, Ordering::Relaxed);
    let slots = batch.messages.into_iter().map(|message| message.slot);
    settling.settle_all(slots, Outcome::Parked, &batch.account);
    shared.index.lock().give_back(id, message_set(0..messages));
    shared.parked.notify_one();
}

/// A batch is durable: its messages are settled and its lines go on their way.
fn tell(
    shared: &Arc<Shared>,
    delivery: &dyn Delivery,
    batch: CheckedBatch,
    database: DatabaseName,
    (id, standing, synced): (FrameId, Standing, &Synced),
    settling: &mut Settling,
) {
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
    settling.settle_all(slots, Outcome::Lines, &account);
    for (slot, outcome) in batch.kept.into_iter().flat_map(|kept| kept.messages) {
        settling.settle_all([slot], outcome, &account);
    }
    match standing {
        Standing::Hot { overtakes, returns } => {
            let receipt = receipt(shared, id, &account);
            let frame = FrameLines {
                database,
                tenant: batch.tenant.id.clone(),
                guest: batch.guest,
                lines: batch.lines,
                wanted: message_set(0..messages.len()),
                messages,
                overtakes,
                arrived: Instant::now(),
                account,
            };
            let position = StreamPosition { stream: id.stream, number: id.seq, returns, is_last: false };
            delivery.deliver(Durable::new(position, frame, receipt, synced));
        }
        Standing::Waits { first: true } => delivery.waits(&database),
        Standing::Waits { first: false } => {}
    }
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
