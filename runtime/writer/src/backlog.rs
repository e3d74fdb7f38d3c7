//! The backlog of one database, and the choice of lines for the next request. Pure: time is passed in.
//!
//! - Devices are spread over shards. A request takes shards, and until it is answered no other
//!   request carries lines of them: so a device's lines are written in order, however many
//!   requests are under way, and a corrected value wins over the one it corrects.
//! - A request is due when `lines` lines wait, or `interval` after its first line came, or when the
//!   lines are flushed. It grows with the lines that wait, up to `lines_max`, once they are more
//!   than a few of them.
//! - A message is never split, unless it alone has more lines than a request may carry.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::pending_lines::PendingLines;
use tidegate_core::line_protocol::split_checked;

/// Shards of a database, and so the most requests that can be under way.
pub const SHARDS: usize = 64;

/// With more batches than this waiting a database is behind, and requests grow.
const BATCHES_BEHIND: u64 = 8;

/// A set of shards, one bit each.
pub type ShardSet = u64;

/// The sizes of a batch.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimits {
    pub lines: u32,
    pub interval: Duration,
    /// A batch may go along with others this long before the interval is over.
    pub early: Duration,
    /// Lines of a batch while catching up.
    pub lines_max: u32,
    pub bytes_max: usize,
}

/// Consecutive lines of one `PendingLines` and one shard.
#[derive(Clone)]
pub struct BatchPart {
    pub pending: Arc<PendingLines>,
    pub messages: Range<usize>,
    pub bytes: Range<usize>,
    pub lines: u32,
    /// True if all lines of its messages are in it; else it is a part of one message.
    pub whole: bool,
    /// The rank of its `PendingLines` among those of the database.
    order: u64,
}

impl BatchPart {
    /// One line of a message.
    pub fn of_line(pending: Arc<PendingLines>, message: usize, bytes: Range<usize>) -> Self {
        Self { pending, messages: message..message + 1, bytes, lines: 1, whole: false, order: 0 }
    }
}

/// The time of the next request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    Never,
    At(Instant),
    Now,
}

#[derive(Default)]
struct Shard {
    queue: VecDeque<BatchPart>,
    lines: u64,
}

/// Lines of one database, each shard's in the order in which they came.
#[derive(Default)]
pub struct Backlog {
    /// Empty until the first lines come.
    shards: Vec<Shard>,
    /// Shards with lines that wait.
    filled: ShardSet,
    /// Shards with lines under way.
    busy: ShardSet,
    lines: u64,
    bytes: usize,
    /// Lines of shards that have none under way, and the arrival of the oldest of them.
    free_lines: u64,
    oldest_free: Option<Instant>,
    pushed: u64,
    /// The number of the oldest lines that are due at once.
    flush_lines: u64,
}

impl Backlog {
    pub fn push(&mut self, pending: &Arc<PendingLines>) {
        if self.shards.is_empty() {
            self.shards.resize_with(SHARDS, Shard::default);
        }
        self.pushed += 1;
        let shard_of = |message: usize| pending.messages[message].affinity as usize % SHARDS;
        let mut next = 0;
        while next < pending.messages.len() {
            if !pending.wants(next) {
                next += 1;
                continue;
            }
            let (first, shard) = (next, shard_of(next));
            let mut lines = 0;
            while next < pending.messages.len() && pending.wants(next) && shard_of(next) == shard {
                lines += pending.messages[next].line_count;
                next += 1;
            }
            let bytes = pending.lines_begin(first)..pending.messages[next - 1].lines_end as usize;
            self.lines += u64::from(lines);
            self.bytes += bytes.len();
            self.filled |= 1 << shard;
            if self.busy & (1 << shard) == 0 {
                self.free_lines += u64::from(lines);
                let arrived = pending.arrived;
                self.oldest_free = Some(self.oldest_free.map_or(arrived, |oldest| oldest.min(arrived)));
            }
            let of = &mut self.shards[shard];
            of.lines += u64::from(lines);
            let pending = pending.clone();
            of.queue.push_back(BatchPart {
                pending,
                messages: first..next,
                bytes,
                lines,
                whole: true,
                order: self.pushed,
            });
        }
    }

    pub fn lines(&self) -> u64 {
        self.lines
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.lines == 0
    }

    /// All parts that wait.
    pub fn parts(&self) -> impl Iterator<Item = &BatchPart> {
        self.shards.iter().flat_map(|shard| &shard.queue)
    }

    fn free(&self) -> impl Iterator<Item = (usize, &Shard)> {
        let mut left = self.filled & !self.busy;
        std::iter::from_fn(move || {
            let place = left.trailing_zeros() as usize;
            // Clears the lowest bit; the empty set stays empty.
            left &= left.wrapping_sub(1);
            Some((place, self.shards.get(place)?))
        })
    }

    /// Counts what could go now, after shards became busy or free, or lost lines.
    fn count_free(&mut self) {
        self.free_lines = self.free().map(|(_, shard)| shard.lines).sum();
        let fronts = self.free().filter_map(|(_, shard)| shard.queue.front());
        self.oldest_free = fronts.map(|part| part.pending.arrived).min();
    }

    /// Makes all lines that wait now due at once.
    pub fn flush_now(&mut self) {
        self.flush_lines = self.lines;
    }

    pub fn due(&self, now: Instant, limits: &BatchLimits) -> Due {
        if self.lines == 0 {
            return Due::Never;
        }
        match self.oldest_free {
            // All waiting lines stand behind lines under way.
            None => Due::Never,
            Some(_) if self.flush_lines > 0 || self.free_lines >= u64::from(limits.lines) => Due::Now,
            Some(oldest) if now + limits.early >= oldest + limits.interval => Due::Now,
            Some(oldest) => Due::At(oldest + limits.interval),
        }
    }

    /// Takes the oldest lines that fit one request, and marks their shards as busy. `catch_up`: after a
    /// failed try.
    pub fn take(&mut self, now: Instant, limits: &BatchLimits, catch_up: bool) -> (Vec<BatchPart>, ShardSet) {
        let late = self.oldest_free.is_some_and(|oldest| now > oldest + 2 * limits.interval);
        let lines_max = limits.lines_max.max(limits.lines);
        let free_lines = self.free_lines;
        let lines_max = match catch_up || late {
            true => lines_max,
            false if free_lines <= u64::from(limits.lines) * BATCHES_BEHIND => limits.lines,
            // Half of the lines that wait, so that two requests carry it all.
            false => (free_lines / 2).clamp(u64::from(limits.lines), u64::from(lines_max)) as u32,
        };
        let mut heads: Vec<(u64, usize)> =
            self.free().map(|(place, shard)| (shard.queue[0].order, place)).collect();
        heads.sort_unstable();
        let mut batch = Vec::new();
        let (mut lines, mut bytes, mut shards) = (0, 0, 0);
        'shards: for (_, place) in heads {
            let shard = &mut self.shards[place];
            while let Some(front) = shard.queue.front_mut() {
                let (lines_left, bytes_left) = (lines_max - lines, limits.bytes_max.saturating_sub(bytes));
                let fits = front.lines <= lines_left && front.bytes.len() <= bytes_left;
                let taken = if fits { shard.queue.pop_front() } else { cut(front, lines_left, bytes_left) };
                let part = match taken {
                    Some(part) => part,
                    None if batch.is_empty() => {
                        cut_message(&mut shard.queue, lines_max, limits.bytes_max).expect("it has a front")
                    }
                    // The message does not fit the rest of this batch; it may fit the next.
                    None => break 'shards,
                };
                shards |= 1 << place;
                shard.lines -= u64::from(part.lines);
                lines += part.lines;
                bytes += part.bytes.len();
                batch.push(part);
                if shard.queue.is_empty() {
                    self.filled &= !(1 << place);
                }
                if lines >= lines_max {
                    break 'shards;
                }
            }
        }
        self.lines -= u64::from(lines);
        self.bytes -= bytes;
        self.flush_lines = self.flush_lines.saturating_sub(u64::from(lines));
        self.busy |= shards;
        self.count_free();
        (batch, shards)
    }

    /// Frees shards whose lines under way are answered.
    pub fn release(&mut self, shards: ShardSet) {
        self.busy &= !shards;
        self.count_free();
    }

    /// Takes out all that waits, except for the rest of a message that is partly under way.
    pub fn evict(&mut self) -> Vec<BatchPart> {
        let mut all = Vec::new();
        for (place, shard) in self.shards.iter_mut().enumerate() {
            let (whole, rest) =
                std::mem::take(&mut shard.queue).into_iter().partition(|part: &BatchPart| part.whole);
            shard.queue = rest;
            all.extend::<VecDeque<BatchPart>>(whole);
            shard.lines = shard.queue.iter().map(|part| u64::from(part.lines)).sum();
            if shard.queue.is_empty() {
                self.filled &= !(1 << place);
            }
        }
        for part in &all {
            self.lines -= u64::from(part.lines);
            self.bytes -= part.bytes.len();
        }
        self.flush_lines = self.flush_lines.min(self.lines);
        self.count_free();
        all
    }
}

/// Takes off the front of a part that does not fit the longest run of whole messages that does. `None`: not even
/// the first.
fn cut(front: &mut BatchPart, lines_left: u32, bytes_left: usize) -> Option<BatchPart> {
    if !front.whole {
        return None;
    }
    let (mut end, mut lines, mut byte) = (front.messages.start, 0, front.bytes.start);
    while end < front.messages.end {
        let message = &front.pending.messages[end];
        let fits = lines + message.line_count <= lines_left
            && message.lines_end as usize - front.bytes.start <= bytes_left;
        if !fits {
            break;
        }
        (lines, byte, end) = (lines + message.line_count, message.lines_end as usize, end + 1);
    }
    (lines > 0).then(|| shorten(front, end, byte, lines))
}

/// Takes lines off the front message, which alone is too large for any batch; at least one.
fn cut_message(queue: &mut VecDeque<BatchPart>, lines_max: u32, bytes_max: usize) -> Option<BatchPart> {
    let mut front = queue.pop_front()?;
    let message = front.messages.start;
    if front.messages.len() > 1 {
        let own = &front.pending.messages[message];
        let (end, lines) = (own.lines_end as usize, own.line_count);
        let alone = shorten(&mut front, message + 1, end, lines);
        queue.push_front(front);
        front = alone;
    }
    let (mut lines, mut byte) = (0, front.bytes.start);
    for line in split_checked(&front.pending.lines[front.bytes.clone()]) {
        let next = byte + line.len() + 1;
        if lines == lines_max || (next - front.bytes.start > bytes_max && lines > 0) {
            break;
        }
        (lines, byte) = (lines + 1, next);
    }
    front.whole = false;
    let mut taken = shorten(&mut front, message, byte, lines);
    taken.messages = message..message + 1;
    if front.lines > 0 {
        queue.push_front(front);
    }
    Some(taken)
}

/// Takes off the messages before `end`, and the bytes before `byte`.
fn shorten(front: &mut BatchPart, end: usize, byte: usize, lines: u32) -> BatchPart {
    let taken = BatchPart {
        messages: front.messages.start..end,
        bytes: front.bytes.start..byte,
        lines,
        ..front.clone()
    };
    front.messages.start = end;
    front.bytes.start = byte;
    front.lines -= lines;
    taken
}
