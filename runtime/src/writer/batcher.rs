//! The lines of one database that wait, and when which of them become a request. Pure: time is
//! passed in.
//!
//! - A request carries at most `lines` lines, unless a catch-up allows `lines_max`.
//! - It is due when so many wait, or `interval` after its first line came, or when the lines are
//!   pressed for.
//! - A message is never split, unless it alone has more lines than a request may carry.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::load::Load;
use crate::domain::line::split_checked;

/// The sizes of a batch.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimits {
    pub lines: u32,
    pub interval: Duration,
    /// While catching up.
    pub lines_max: u32,
    pub bytes_max: usize,
}

/// Lines of one load that stand in one batch.
#[derive(Clone)]
pub struct Segment {
    pub load: Arc<Load>,
    pub messages: Range<usize>,
    pub bytes: Range<usize>,
    pub lines: u32,
    /// Whether all lines of its messages are in it; else it is a part of one message.
    pub whole: bool,
}

/// When the next request is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    Never,
    At(Instant),
    Now,
}

/// Loads in the order in which they came.
#[derive(Default)]
pub struct Backlog {
    loads: VecDeque<Arc<Load>>,
    /// Where the untaken part of the first load begins: message, lines taken of it, byte.
    message: usize,
    message_lines: u32,
    byte: usize,
    lines: u64,
    bytes: usize,
    /// So many of the oldest lines are wanted at once.
    pressed: u64,
}

impl Backlog {
    pub fn push(&mut self, load: Arc<Load>) {
        self.lines += load.line_count();
        self.bytes += load.lines.len();
        self.loads.push_back(load);
    }

    pub fn lines(&self) -> u64 {
        self.lines
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.loads.is_empty()
    }

    pub fn oldest(&self) -> Option<Instant> {
        self.loads.front().map(|load| load.arrived)
    }

    /// All lines that wait now are wanted at once.
    pub fn press(&mut self) {
        self.pressed = self.lines;
    }

    pub fn due(&self, now: Instant, limits: &BatchLimits) -> Due {
        match self.oldest() {
            None => Due::Never,
            Some(_) if self.pressed > 0 || self.lines >= u64::from(limits.lines) => Due::Now,
            Some(oldest) if now >= oldest + limits.interval => Due::Now,
            Some(oldest) => Due::At(oldest + limits.interval),
        }
    }

    /// Takes the oldest lines that fit one request. `catch_up`: after a failed try.
    pub fn take(&mut self, now: Instant, limits: &BatchLimits, catch_up: bool) -> Vec<Segment> {
        let late = self.oldest().is_some_and(|oldest| now > oldest + 2 * limits.interval);
        let lines_max = if catch_up || late { limits.lines_max.max(limits.lines) } else { limits.lines };
        let mut segments = Vec::new();
        let (mut lines, mut bytes) = (0, 0);
        while let Some(load) = self.loads.front().cloned() {
            let (lines_left, bytes_left) = (lines_max - lines, limits.bytes_max.saturating_sub(bytes));
            let Some(segment) = self.cut(&load, lines_left, bytes_left, segments.is_empty()) else { break };
            lines += segment.lines;
            bytes += segment.bytes.len();
            self.advance(&load, &segment);
            segments.push(segment);
            if lines >= lines_max {
                break;
            }
        }
        self.lines -= u64::from(lines);
        self.bytes -= bytes;
        self.pressed = self.pressed.saturating_sub(u64::from(lines));
        segments
    }

    /// The longest run of whole messages of the first load that fits; a part of a message only
    /// where the batch is still empty and the message does not fit any.
    fn cut(&self, load: &Arc<Load>, lines_left: u32, bytes_left: usize, first: bool) -> Option<Segment> {
        let (mut end, mut lines, mut byte) = (self.message, 0, self.byte);
        // What is left of a message that was begun goes alone, as a part of its own.
        if self.message_lines == 0 {
            while let Some(message) = load.messages.get(end) {
                let fits = lines + message.line_count <= lines_left
                    && message.lines_end as usize - self.byte <= bytes_left;
                if !fits {
                    break;
                }
                lines += message.line_count;
                byte = message.lines_end as usize;
                end += 1;
            }
            if end > self.message {
                let messages = self.message..end;
                return Some(Segment {
                    load: load.clone(),
                    messages,
                    bytes: self.byte..byte,
                    lines,
                    whole: true,
                });
            }
            // The first message does not fit the rest of this batch; it may fit the next.
            if !first {
                return None;
            }
        }
        let message = &load.messages[self.message];
        let rest = &load.lines[self.byte..message.lines_end as usize];
        let (mut lines, mut taken) = (0, 0);
        for line in split_checked(rest) {
            let end = taken + line.len() + 1;
            // One line always goes: a batch is never empty.
            if lines == lines_left || (end > bytes_left && !(first && lines == 0)) {
                break;
            }
            lines += 1;
            taken = end;
        }
        let messages = self.message..self.message + 1;
        let bytes = self.byte..self.byte + taken;
        (lines > 0).then(|| Segment { load: load.clone(), messages, bytes, lines, whole: false })
    }

    fn advance(&mut self, load: &Load, segment: &Segment) {
        self.byte = segment.bytes.end;
        if segment.whole {
            self.message = segment.messages.end;
        } else {
            self.message_lines += segment.lines;
            if self.message_lines == load.messages[self.message].line_count {
                self.message += 1;
                self.message_lines = 0;
            }
        }
        if self.message == load.messages.len() {
            self.loads.pop_front();
            (self.message, self.byte) = (0, 0);
        }
    }
}

#[cfg(test)]
mod tests;
