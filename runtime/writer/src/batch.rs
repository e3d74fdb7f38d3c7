//! One batch until all its lines are written, refused or delayed: sent whole, and in ranges if the answer
//! does not name the bad lines. Pure.
//!
//! Every line ends in exactly one of: written, refused, delayed. Re-sending lines that were written
//! before is harmless, because each carries its own time. A line that may be a later value of a delayed
//! one's point is delayed with it.

mod repeats;
pub mod bisect;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use crate::backlog::BatchPart;
use crate::delayed_lines::{DelayReason, DelayedLine, PointKey, Suspicion, point_key};
use crate::lines_budget::DatabaseShare;
use crate::pending_lines::{LinePlace, PendingLines, RefusedLinesSink};
use crate::verdict::LineRefusal;
use tidegate_core::books::Account;
use tidegate_core::ids::DatabaseName;
use tidegate_core::line_protocol::split_checked;
use tidegate_core::refused_lines::RefusedLine;

pub use crate::batch::repeats::RepeatedRefusals;

/// Lines that go in one request.
#[derive(Clone, Debug)]
enum BatchRange {
    Whole,
    /// Indexes in the line table, ascending.
    Lines(Vec<u32>),
}

#[derive(Clone, Debug)]
struct LinePosition {
    part: usize,
    message: usize,
    bytes: std::ops::Range<usize>,
}

/// The progress that one answer made.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct BatchProgress {
    pub written: u64,
    pub refused: u64,
    /// Every single line is refused with the same words: it is the request that is at fault.
    pub request_at_fault: Option<String>,
}

/// A batch that is being written.
pub struct Batch {
    parts: Vec<BatchPart>,
    /// The ranges still to be sent, the next first.
    ranges: VecDeque<BatchRange>,
    /// Filled when the batch must be taken apart; most never are.
    table: Vec<LinePosition>,
    body: Option<(Bytes, u32)>,
    /// Something of this batch was accepted.
    accepted: bool,
    probed: bool,
    /// Single lines that were refused with words that do not speak of lines.
    suspects: Vec<(u32, Suspicion)>,
    /// Lines that wait apart from now on, for other reasons.
    delayed: Vec<(u32, DelayReason)>,
    /// The points of suspects and delayed lines, with the first line of each; -1: it is of another batch.
    points: HashMap<PointKey, i64>,
    /// Suspicions of its lines from earlier tries.
    earlier: HashMap<u32, Suspicion>,
    /// The server reads no compressed body.
    pub plain: bool,
}

/// The destination of a database's refused lines.
pub struct RefusedSink<'a> {
    pub sink: &'a RefusedLinesSink,
    pub database: &'a DatabaseName,
}

impl Batch {
    /// # Panics
    /// `parts` is empty.
    pub fn new(parts: Vec<BatchPart>) -> Self {
        assert!(!parts.is_empty(), "a batch has lines");
        Self {
            parts,
            ranges: VecDeque::from([BatchRange::Whole]),
            table: Vec::new(),
            body: None,
            accepted: false,
            probed: false,
            suspects: Vec::new(),
            delayed: Vec::new(),
            points: HashMap::new(),
            earlier: HashMap::new(),
            plain: false,
        }
    }

    /// A batch of lines that waited apart.
    ///
    /// # Panics
    /// `lines` is empty.
    pub fn of_delayed(lines: Vec<DelayedLine>) -> Self {
        let (mut parts, mut earlier) = (Vec::new(), HashMap::new());
        for (place, line) in lines.into_iter().enumerate() {
            parts.push(BatchPart::of_line(line.pending, line.message, line.bytes));
            if let DelayReason::Suspect(suspicion) = line.reason {
                earlier.insert(place as u32, suspicion);
            }
        }
        Self { earlier, ..Self::new(parts) }
    }

    pub fn is_done(&self) -> bool {
        self.ranges.is_empty()
    }

    pub fn parts(&self) -> &[BatchPart] {
        &self.parts
    }

    /// The accounts of its lines, each once; several if tenants share the database.
    pub fn accounts(&self) -> Vec<&Account> {
        let mut accounts: Vec<&Account> = self.parts.iter().map(|part| &*part.pending.account).collect();
        // A tenant has one account; to compare names would cost more than the lines.
        accounts.sort_unstable_by_key(|account| std::ptr::from_ref(*account).addr());
        accounts.dedup_by(|a, b| std::ptr::eq(*a, *b));
        accounts
    }

    /// True if no line of it is known to be written or refused, and all messages are whole.
    pub fn is_untouched(&self) -> bool {
        let whole = self.ranges.len() == 1 && matches!(self.ranges.front(), Some(BatchRange::Whole));
        whole && self.parts.iter().all(|part| part.whole)
    }

    /// True if something of it was accepted.
    pub fn is_accepted(&self) -> bool {
        self.accepted
    }

    /// Lines that are neither written nor refused yet.
    pub fn lines_left(&self) -> u64 {
        let ranges: u64 = self.ranges.iter().map(|range| self.lines_of(range)).sum();
        ranges + (self.suspects.len() + self.delayed.len()) as u64
    }

    /// Bytes of its lines.
    pub fn bytes(&self) -> usize {
        self.parts.iter().map(|part| part.bytes.len()).sum()
    }

    fn lines_of(&self, range: &BatchRange) -> u64 {
        match range {
            BatchRange::Whole => self.parts.iter().map(|part| u64::from(part.lines)).sum(),
            BatchRange::Lines(lines) => lines.len() as u64,
        }
    }

    /// Halves the next range until its body is at most `bytes_max`, or one line.
    pub fn fit(&mut self, bytes_max: usize) {
        if self.body.is_some() {
            return;
        }
        loop {
            let bytes: usize = match self.ranges.front() {
                None => return,
                Some(BatchRange::Whole) => self.bytes(),
                Some(BatchRange::Lines(lines)) => lines.iter().map(|&line| self.line(line).len() + 1).sum(),
            };
            if bytes <= bytes_max || self.ranges.front().is_some_and(|range| self.lines_of(range) == 1) {
                return;
            }
            let lines = self.take_range();
            self.push_halves(lines);
        }
    }

    /// The body of the next request, each line ended by a newline, and its lines. The same bytes
    /// until an answer is applied.
    ///
    /// # Panics
    /// The batch is done.
    pub fn body(&mut self) -> (Bytes, u32) {
        if let Some(body) = &self.body {
            return body.clone();
        }
        let range = self.ranges.front().expect("a batch that is not done has a next range");
        let lines = self.lines_of(range) as u32;
        let mut bytes;
        match range {
            BatchRange::Whole => {
                // A line that waited apart brings no newline.
                bytes = Vec::with_capacity(self.bytes() + self.parts.len());
                for part in &self.parts {
                    bytes.extend_from_slice(&part.pending.lines[part.bytes.clone()]);
                    if bytes.last() != Some(&b'\n') {
                        bytes.push(b'\n');
                    }
                }
            }
            BatchRange::Lines(lines) => {
                bytes = Vec::new();
                for &line in lines {
                    bytes.extend_from_slice(self.line(line));
                    bytes.push(b'\n');
                }
            }
        }
        let body = (Bytes::from(bytes), lines);
        self.body = Some(body.clone());
        body
    }

    fn line(&self, line: u32) -> &[u8] {
        let at = &self.table[line as usize];
        &self.parts[at.part].pending.lines[at.bytes.clone()]
    }

    /// Takes the range whose answer came, as lines.
    fn take_range(&mut self) -> Vec<u32> {
        self.body = None;
        match self.ranges.pop_front().expect("an answer is to a range") {
            BatchRange::Lines(lines) => lines,
            BatchRange::Whole => {
                self.make_table();
                (0..self.table.len() as u32).collect()
            }
        }
    }

    fn make_table(&mut self) {
        self.table.clear();
        for (place, part) in self.parts.iter().enumerate() {
            let mut message = part.messages.start;
            let mut begin = part.bytes.start;
            for line in split_checked(&part.pending.lines[part.bytes.clone()]) {
                let end = begin + line.len();
                while end >= part.pending.messages[message].lines_end as usize {
                    message += 1;
                }
                self.table.push(LinePosition { part: place, message, bytes: begin..end });
                begin = end + 1;
            }
        }
    }

    fn point(&self, line: u32) -> PointKey {
        let at = &self.table[line as usize];
        point_key(self.parts[at.part].pending.messages[at.message].affinity, self.line(line))
    }

    /// Delays lines of points that `waits` for others, before anything is sent.
    pub fn delay_behind(&mut self, waits: impl Fn(&PointKey) -> bool) {
        let lines = self.take_range();
        let (behind, rest): (Vec<u32>, Vec<u32>) =
            lines.into_iter().partition(|&line| waits(&self.point(line)));
        for &line in &behind {
            self.points.insert(self.point(line), -1);
            self.delayed.push((line, DelayReason::Behind));
        }
        match behind.is_empty() {
            true => self.ranges.push_front(BatchRange::Whole),
            false => self.push_front(rest),
        }
    }

    /// Delays one line, and later lines of its point that are still to be sent.
    fn delay(&mut self, line: u32) {
        let point = self.point(line);
        let first = self.points.entry(point).or_insert(i64::from(line));
        *first = i64::from(line).min(*first);
        for range in std::mem::take(&mut self.ranges) {
            let BatchRange::Lines(lines) = range else { unreachable!("a batch in ranges has no whole") };
            let rest = self.without_behind(lines);
            if !rest.is_empty() {
                self.ranges.push_back(BatchRange::Lines(rest));
            }
        }
    }

    /// Lines that stand behind no delayed one; the others are delayed too.
    fn without_behind(&mut self, lines: Vec<u32>) -> Vec<u32> {
        if self.points.is_empty() {
            return lines;
        }
        let behind = |batch: &Self, line: u32| {
            batch.points.get(&batch.point(line)).is_some_and(|&first| i64::from(line) > first)
        };
        let (behind, rest): (Vec<u32>, Vec<u32>) = lines.into_iter().partition(|&line| behind(self, line));
        self.delayed.extend(behind.into_iter().map(|line| (line, DelayReason::Behind)));
        rest
    }

    /// Records that all lines of the range are written.
    pub fn accept(&mut self, refused_sink: &RefusedSink, repeats: &mut RepeatedRefusals) -> BatchProgress {
        repeats.clear();
        if matches!(self.ranges.front(), Some(BatchRange::Whole)) {
            self.body = None;
            self.ranges.pop_front();
            let mut written = 0;
            record_whole(&self.parts);
            for part in &self.parts {
                written += u64::from(part.lines);
                if !part.whole {
                    let message = part.messages.start;
                    part.pending.record(message, part.lines, None, refused_sink.sink, refused_sink.database);
                }
            }
            return BatchProgress { written, ..BatchProgress::default() };
        }
        let lines = self.take_range();
        let mut progress = BatchProgress::default();
        self.accept_lines(&lines, refused_sink, &mut progress);
        progress
    }

    fn accept_lines(&mut self, lines: &[u32], refused_sink: &RefusedSink, progress: &mut BatchProgress) {
        if lines.is_empty() {
            return;
        }
        self.accepted = true;
        for &line in lines {
            let at = &self.table[line as usize];
            self.parts[at.part].pending.record(at.message, 1, None, refused_sink.sink, refused_sink.database);
        }
        progress.written += lines.len() as u64;
    }

    fn refuse(&self, fault: LineRefusal, refused_sink: &RefusedSink, progress: &mut BatchProgress) {
        let at = &self.table[fault.line as usize];
        let answer = with_way_out(fault.words);
        let refused = RefusedLine { line: self.line(fault.line).to_vec(), answer };
        self.parts[at.part].pending.record(
            at.message,
            0,
            Some(refused),
            refused_sink.sink,
            refused_sink.database,
        );
        progress.refused += 1;
    }

    /// Refuses the `refused` lines of the range, delays the `limited` ones, and records the others as
    /// written. Lines count from 0 in the range. Gives the number of limited lines.
    pub fn accept_partly(
        &mut self,
        refused: Vec<LineRefusal>,
        limited: Vec<LineRefusal>,
        refused_sink: &RefusedSink,
        repeats: &mut RepeatedRefusals,
    ) -> (BatchProgress, u64) {
        repeats.clear();
        let lines = self.take_range();
        let mut progress = BatchProgress::default();
        let mut written = vec![true; lines.len()];
        for fault in refused {
            written[fault.line as usize] = false;
            self.refuse(
                LineRefusal { line: lines[fault.line as usize], ..fault },
                refused_sink,
                &mut progress,
            );
        }
        for fault in &limited {
            written[fault.line as usize] = false;
            let line = lines[fault.line as usize];
            self.delayed.push((line, DelayReason::Limited));
            self.delay(line);
        }
        let rest: Vec<u32> =
            lines.iter().zip(&written).filter(|&(_, &written)| written).map(|(&line, _)| line).collect();
        // A later value of a limited line's point is written, and is to be once more, after that line.
        let rest = self.without_behind(rest);
        self.accept_lines(&rest, refused_sink, &mut progress);
        (progress, limited.len() as u64)
    }

    /// Refuses one line of the range, of which nothing was written; the others go again.
    pub fn resend_without(&mut self, fault: LineRefusal, refused_sink: &RefusedSink) -> BatchProgress {
        let mut lines = self.take_range();
        let mut progress = BatchProgress::default();
        let line = lines.remove(fault.line as usize);
        self.refuse(LineRefusal { line, ..fault }, refused_sink, &mut progress);
        self.push_front(lines);
        progress
    }

    fn push_front(&mut self, lines: Vec<u32>) {
        if !lines.is_empty() {
            self.ranges.push_front(BatchRange::Lines(lines));
        }
    }

    /// Splits a range that is too large into halves; one line alone is refused.
    pub fn split(&mut self, words: String, refused_sink: &RefusedSink) -> BatchProgress {
        let lines = self.take_range();
        let mut progress = BatchProgress::default();
        match lines.as_slice() {
            &[line] => self.refuse(LineRefusal { line, words }, refused_sink, &mut progress),
            _ => self.push_halves(lines),
        }
        progress
    }

    fn push_halves(&mut self, mut lines: Vec<u32>) {
        let second = lines.split_off(lines.len() / 2);
        self.push_front(second);
        self.push_front(lines);
    }

    /// Takes the delayed lines of a batch that is done, in their order. They are copied out of their
    /// frames, which can leave memory.
    pub fn take_delayed(
        &mut self,
        share: &DatabaseShare,
        repeats: &mut RepeatedRefusals,
    ) -> Vec<DelayedLine> {
        let mut lines = std::mem::take(&mut self.delayed);
        for (line, suspicion) in std::mem::take(&mut self.suspects) {
            if !self.accepted && suspicion.refusals == 1 {
                repeats.add(&suspicion.words);
            }
            lines.push((line, DelayReason::Suspect(suspicion)));
        }
        lines.sort_by_key(|(line, _)| *line);
        // One copy of each frame.
        let mut copies: Vec<(Arc<PendingLines>, Vec<LinePlace>)> = Vec::new();
        for (line, _) in &lines {
            let at = &self.table[*line as usize];
            let part = &self.parts[at.part];
            if part.whole && !part.pending.is_excerpt() {
                let place = (at.message, at.bytes.clone());
                match copies.iter_mut().find(|(frame, _)| Arc::ptr_eq(frame, &part.pending)) {
                    Some((_, places)) => places.push(place),
                    None => copies.push((part.pending.clone(), vec![place])),
                }
            }
        }
        let mut excerpts = Vec::new();
        for (frame, mut places) in copies {
            places.sort_by_key(|(_, bytes)| bytes.start);
            excerpts.push((frame.clone(), Arc::new(frame.excerpt(&places, share)), places));
        }
        let delayed = |(line, reason): (u32, DelayReason)| {
            let at = &self.table[line as usize];
            let pending = &self.parts[at.part].pending;
            let copy = excerpts.iter().find(|(frame, ..)| Arc::ptr_eq(frame, pending));
            match copy.filter(|_| self.parts[at.part].whole) {
                Some((_, excerpt, places)) => {
                    let place = places.partition_point(|(_, bytes)| bytes.start < at.bytes.start);
                    let start: usize = places[..place].iter().map(|(_, bytes)| bytes.len() + 1).sum();
                    let mut before = places[..=place].iter().map(|(message, _)| *message).collect::<Vec<_>>();
                    before.dedup();
                    let bytes = start..start + at.bytes.len();
                    DelayedLine { pending: excerpt.clone(), message: before.len() - 1, bytes, reason }
                }
                None => DelayedLine {
                    pending: pending.clone(),
                    message: at.message,
                    bytes: at.bytes.clone(),
                    reason,
                },
            }
        };
        lines.into_iter().map(delayed).collect()
    }

    /// The suspicion of a line that was refused alone at `now`.
    fn suspicion(&self, line: u32, words: String, server_error: bool, now: Instant) -> Suspicion {
        match self.earlier.get(&line) {
            Some(earlier) => Suspicion { words, refusals: earlier.refusals + 1, ..earlier.clone() },
            None => Suspicion { words, refusals: 1, since: now, server_error, is_last_try: false },
        }
    }
}

/// Records the messages of all whole parts as written, many at once.
fn record_whole(parts: &[BatchPart]) {
    let mut written = Vec::with_capacity(parts.len());
    let mut receipts = None;
    for part in parts.iter().filter(|part| part.whole) {
        let own = part.pending.receipts();
        let others = receipts.replace(own).filter(|others| !Arc::ptr_eq(others, own));
        if let Some(others) = others {
            others.written(&written);
            written.clear();
        }
        written.push(part.pending.whole(part.messages.clone()));
    }
    if let Some(receipts) = receipts {
        receipts.written(&written);
    }
}

/// The database's words about a line, with the way out where they speak of a text in a column of numbers.
fn with_way_out(words: String) -> String {
    let is_conflict = words.contains("type conflict") || words.contains("invalid column type");
    if !is_conflict || !words.contains("string") {
        return words;
    }
    format!("{words} (a number that is sent as a text? Send a number, or have the decoder make one of it)")
}
