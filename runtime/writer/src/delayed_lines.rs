//! Lines of one database that wait apart from the others: they meet a ceiling of the server, were refused
//! once alone, or are later values of a point of such a line. Pure.
//!
//! Each is tried again at its time, together with the others, in the order in which they came. A line of
//! the same device and time as one of them joins them, so that the last value of a point stays the last.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use crate::limits;
use crate::pending_lines::PendingLines;
use tidegate_core::line_protocol::line_time;

/// Names what two lines have in common that may be the same point: the hash of the device, and the time.
pub type PointKey = (u32, i64);

/// The key of a line of a message.
pub fn point_key(affinity: u32, line: &[u8]) -> PointKey {
    // A checked line has a time.
    (affinity, line_time(line).unwrap_or(i64::MIN))
}

/// A line that was refused alone, with words that do not speak of lines.
#[derive(Clone, Debug)]
pub struct Suspicion {
    pub words: String,
    /// Refusals so far.
    pub refusals: u32,
    /// The time of the first.
    pub since: Instant,
    /// The answers were 500, which speaks of the server.
    pub server_error: bool,
    /// The next refusal is believed.
    pub is_last_try: bool,
}

/// The reason of a line to wait.
#[derive(Clone, Debug)]
pub enum DelayReason {
    Limited,
    Suspect(Suspicion),
    /// It is a later value of a line that waits.
    Behind,
}

/// A line that waits apart.
pub struct DelayedLine {
    pub pending: Arc<PendingLines>,
    pub message: usize,
    /// Its place in `pending`, without the newline.
    pub bytes: Range<usize>,
    pub reason: DelayReason,
}

impl DelayedLine {
    pub fn point(&self) -> PointKey {
        point_key(self.pending.messages[self.message].affinity, &self.pending.lines[self.bytes.clone()])
    }

    fn memory_bytes(&self) -> usize {
        self.bytes.len() + limits::DELAYED_OVERHEAD_BYTES
    }
}

#[derive(Default)]
pub struct DelayedLines {
    lines: Vec<(Instant, DelayedLine)>,
    bytes: usize,
    /// The points of all of them and of those under way, with the number of lines of each.
    points: HashMap<PointKey, u32>,
    /// The points of the lines under way.
    under_way: Option<Vec<PointKey>>,
    /// The time of the first that can go.
    next_due: Option<Instant>,
}

impl DelayedLines {
    /// The time of the next try.
    pub fn due(&self) -> Option<Instant> {
        self.next_due.filter(|_| self.under_way.is_none())
    }

    /// A line goes no earlier than the one that it stands behind.
    fn schedule(&mut self) {
        let mut of_point: HashMap<PointKey, Instant> = HashMap::new();
        for (due, line) in &mut self.lines {
            let last = of_point.entry(line.point()).or_insert(*due);
            let behind = matches!(line.reason, DelayReason::Behind);
            *due = if behind { *last } else { (*due).max(*last) };
            *last = *due;
        }
        self.next_due = self.lines.iter().map(|(due, _)| *due).min();
    }

    /// Lines that wait and are not under way.
    pub fn count(&self) -> u64 {
        self.lines.len() as u64
    }

    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// True if a line with this key would have to wait behind one of them.
    pub fn holds(&self, point: &PointKey) -> bool {
        self.points.contains_key(point)
    }

    pub fn holds_any(&self) -> bool {
        !self.points.is_empty()
    }

    /// True if the database must wait as a whole until some of them are written.
    pub fn is_full(&self) -> bool {
        self.bytes >= limits::DELAYED_BYTES_MAX
    }

    /// Bytes that may be added.
    pub fn room(&self) -> usize {
        limits::DELAYED_BYTES_MAX.saturating_sub(self.bytes)
    }

    /// Makes all due now.
    pub fn try_now(&mut self, now: Instant) {
        self.lines.iter_mut().for_each(|(due, _)| *due = (*due).min(now));
        self.schedule();
    }

    /// Adds lines, each with the time of its next try.
    pub fn add(&mut self, lines: Vec<(Instant, DelayedLine)>) {
        for (due, line) in lines {
            self.count_in(&line);
            self.lines.push((due, line));
        }
        self.schedule();
    }

    fn count_in(&mut self, line: &DelayedLine) {
        self.bytes += line.memory_bytes();
        *self.points.entry(line.point()).or_default() += 1;
    }

    /// Takes those that are due, up to `lines_max`, for a request. Of lines with one key none goes before
    /// an earlier one.
    pub fn take(&mut self, now: Instant, lines_max: usize) -> Vec<DelayedLine> {
        let mut left_out = HashSet::new();
        let (mut taken, mut kept) = (Vec::new(), Vec::new());
        for (due, line) in std::mem::take(&mut self.lines) {
            let point = line.point();
            if due <= now && taken.len() < lines_max && !left_out.contains(&point) {
                self.bytes -= line.memory_bytes();
                taken.push(line);
            } else {
                left_out.insert(point);
                kept.push((due, line));
            }
        }
        self.lines = kept;
        self.schedule();
        self.under_way = Some(taken.iter().map(DelayedLine::point).collect());
        taken
    }

    /// Ends a request of theirs. `again`: those that wait on, which stand before all that came since.
    pub fn put_back(&mut self, again: Vec<(Instant, DelayedLine)>) {
        for point in self.under_way.take().unwrap_or_default() {
            if let Some(count) = self.points.get_mut(&point) {
                *count -= 1;
                if *count == 0 {
                    self.points.remove(&point);
                }
            }
        }
        again.iter().for_each(|(_, line)| self.count_in(line));
        self.lines.splice(0..0, again);
        self.schedule();
    }

    /// All lines that wait.
    pub fn iter(&self) -> impl Iterator<Item = &DelayedLine> {
        self.lines.iter().map(|(_, line)| line)
    }
}
