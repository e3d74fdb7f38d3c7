//! One batch until all its lines are written or refused: sent whole, and in ranges if the answer does
//! not name the bad lines. Pure.
//!
//! Every line ends in exactly one of: written, refused, returned as limited. Re-sending lines
//! that were written before is harmless, because each carries its own time.

#[cfg(test)]
mod tests;

use std::collections::{HashSet, VecDeque};

use bytes::Bytes;

use crate::backlog::BatchPart;
use crate::limits;
use crate::pending_lines::RefusedLinesSink;
use crate::verdict::LineRefusal;
use tidegate_core::ids::{DatabaseName, TenantId};
use tidegate_core::line_protocol::split_checked;
use tidegate_core::refused_lines::RefusedLine;

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

/// Refusals in a row with the same unspecific words, and nothing accepted between them.
#[derive(Debug, Default)]
pub struct RepeatedRefusals {
    words: String,
    count: u32,
}

impl RepeatedRefusals {
    pub fn clear(&mut self) {
        self.count = 0;
    }

    fn same(&self, words: &str) -> u32 {
        if self.words == without_numbers(words) { self.count } else { 0 }
    }

    fn add(&mut self, words: &str) {
        self.count = self.same(words) + 1;
        self.words = without_numbers(words);
    }
}

/// The words by which two refusals are compared: request ids, ports and times differ each time.
fn without_numbers(words: &str) -> String {
    let blurred = words
        .split_whitespace()
        .map(|word| if word.contains(|c: char| c.is_ascii_digit()) { "#" } else { word });
    blurred.collect::<Vec<_>>().join(" ")
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
    suspects: Vec<LineRefusal>,
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
            plain: false,
        }
    }

    pub fn is_done(&self) -> bool {
        self.ranges.is_empty()
    }

    pub fn parts(&self) -> &[BatchPart] {
        &self.parts
    }

    /// The tenants of its lines, each once.
    pub fn tenants(&self) -> Vec<TenantId> {
        let first = &self.parts[0].pending.tenant;
        if self.parts.iter().all(|part| part.pending.tenant == *first) {
            return vec![first.clone()];
        }
        let tenants: HashSet<&TenantId> = self.parts.iter().map(|part| &part.pending.tenant).collect();
        tenants.into_iter().cloned().collect()
    }

    /// True if no line of it is known to be written or refused, and all messages are whole.
    pub fn is_untouched(&self) -> bool {
        let whole = self.ranges.len() == 1 && matches!(self.ranges.front(), Some(BatchRange::Whole));
        whole && self.parts.iter().all(|part| part.whole)
    }

    /// Lines that are neither written nor refused yet.
    pub fn lines_left(&self) -> u64 {
        let ranges: u64 = self.ranges.iter().map(|range| self.lines_of(range)).sum();
        ranges + self.suspects.len() as u64
    }

    fn lines_of(&self, range: &BatchRange) -> u64 {
        match range {
            BatchRange::Whole => self.parts.iter().map(|part| u64::from(part.lines)).sum(),
            BatchRange::Lines(lines) => lines.len() as u64,
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
                bytes = Vec::with_capacity(self.parts.iter().map(|part| part.bytes.len()).sum());
                for part in &self.parts {
                    bytes.extend_from_slice(&part.pending.lines[part.bytes.clone()]);
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

    /// Records that all lines of the range are written.
    pub fn accept(&mut self, refused_sink: &RefusedSink, repeats: &mut RepeatedRefusals) -> BatchProgress {
        repeats.clear();
        if matches!(self.ranges.front(), Some(BatchRange::Whole)) {
            self.body = None;
            self.ranges.pop_front();
            let mut written = 0;
            for part in &self.parts {
                written += u64::from(part.lines);
                if part.whole {
                    part.pending.written(part.messages.clone(), u64::from(part.lines));
                } else {
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
        for suspect in std::mem::take(&mut self.suspects) {
            self.refuse(suspect, refused_sink, progress);
        }
    }

    fn refuse(&self, fault: LineRefusal, refused_sink: &RefusedSink, progress: &mut BatchProgress) {
        let at = &self.table[fault.line as usize];
        let refused = RefusedLine { line: self.line(fault.line).to_vec(), answer: fault.words };
        self.parts[at.part].pending.record(
            at.message,
            0,
            Some(refused),
            refused_sink.sink,
            refused_sink.database,
        );
        progress.refused += 1;
    }

    /// Refuses the `refused` lines of the range, returns the `limited` ones as a batch of their own, and
    /// records the others as written. Lines count from 0 in the range.
    pub fn accept_partly(
        &mut self,
        refused: Vec<LineRefusal>,
        limited: Vec<LineRefusal>,
        refused_sink: &RefusedSink,
        repeats: &mut RepeatedRefusals,
    ) -> (BatchProgress, Option<Batch>) {
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
        let mut kept: Vec<u32> = Vec::new();
        for fault in limited {
            written[fault.line as usize] = false;
            kept.push(lines[fault.line as usize]);
        }
        kept.sort_unstable();
        let rest: Vec<u32> =
            lines.iter().zip(&written).filter(|&(_, &written)| written).map(|(&line, _)| line).collect();
        self.accept_lines(&rest, refused_sink, &mut progress);
        self.settle_suspects(refused_sink, &mut progress);
        let limited = (!kept.is_empty()).then(|| Batch {
            parts: self.parts.clone(),
            ranges: VecDeque::from([BatchRange::Lines(kept)]),
            table: self.table.clone(),
            body: None,
            accepted: true,
            probed: true,
            suspects: Vec::new(),
            plain: self.plain,
        });
        (progress, limited)
    }

    /// Refuses one line of the range, of which nothing was written; the others go again.
    pub fn resend_without(&mut self, fault: LineRefusal, refused_sink: &RefusedSink) -> BatchProgress {
        let mut lines = self.take_range();
        let mut progress = BatchProgress::default();
        let line = lines.remove(fault.line as usize);
        self.refuse(LineRefusal { line, ..fault }, refused_sink, &mut progress);
        self.push_front(lines);
        self.settle_suspects(refused_sink, &mut progress);
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
        self.settle_suspects(refused_sink, &mut progress);
        progress
    }

    fn push_halves(&mut self, mut lines: Vec<u32>) {
        let second = lines.split_off(lines.len() / 2);
        self.push_front(second);
        self.push_front(lines);
    }

    /// Searches for the bad lines of the range. `explained`: the words speak of lines.
    pub fn bisect(
        &mut self,
        explained: bool,
        words: String,
        answer: &[u8],
        refused_sink: &RefusedSink,
        repeats: &mut RepeatedRefusals,
    ) -> BatchProgress {
        let lines = self.take_range();
        let mut progress = BatchProgress::default();
        if explained {
            repeats.clear();
        }
        match *lines.as_slice() {
            [line] if explained || self.accepted => {
                self.refuse(LineRefusal { line, words }, refused_sink, &mut progress)
            }
            [line] => self.suspect(LineRefusal { line, words }, refused_sink, repeats, &mut progress),
            _ if explained => self.refuse_quoted(lines, answer, refused_sink, &mut progress),
            // Three lines far apart first: if each of them alone gets these words, it is the
            // request, and taking all the lines apart would cost two requests a line.
            [_, _, _, ..] if !self.probed && !self.accepted => {
                self.probed = true;
                let probe = self.probes(&lines);
                self.push_front(lines.into_iter().filter(|line| !probe.contains(line)).collect());
                for line in probe.into_iter().rev() {
                    self.push_front(vec![line]);
                }
            }
            _ => self.push_halves(lines),
        }
        self.settle_suspects(refused_sink, &mut progress);
        progress
    }

    /// Refuses the suspects once the batch has no range left. The request was not at fault, for then the
    /// batch would have begun again.
    fn settle_suspects(&mut self, refused_sink: &RefusedSink, progress: &mut BatchProgress) {
        if self.ranges.is_empty() {
            for suspect in std::mem::take(&mut self.suspects) {
                self.refuse(suspect, refused_sink, progress);
            }
        }
    }

    /// Three lines that may be written before the others: no other of their devices stands in front of
    /// them. Far apart, where there are that many devices.
    fn probes(&self, lines: &[u32]) -> [u32; 3] {
        let affinity = |line: u32| {
            let at = &self.table[line as usize];
            self.parts[at.part].pending.messages[at.message].affinity
        };
        let mut seen = HashSet::new();
        let firsts: Vec<u32> = lines.iter().copied().filter(|&line| seen.insert(affinity(line))).collect();
        match firsts.as_slice() {
            [first, .., last] if firsts.len() >= 3 => [*first, firsts[firsts.len() / 2], *last],
            _ => [lines[0], lines[1], lines[2]],
        }
    }

    /// InfluxDB 1 and 2 quote the lines that they cannot parse: those are refused and the others go
    /// again; where none is found in the answer, the halves go.
    fn refuse_quoted(
        &mut self,
        lines: Vec<u32>,
        answer: &[u8],
        refused_sink: &RefusedSink,
        progress: &mut BatchProgress,
    ) {
        // The answer is JSON: quotations in it are escaped once more.
        let text = serde_json::from_slice::<serde_json::Value>(answer)
            .ok()
            .and_then(|json| {
                Some(json.get("error").or_else(|| json.get("message"))?.as_str()?.as_bytes().to_vec())
            })
            .unwrap_or_else(|| answer.to_vec());
        let mut rest = Vec::with_capacity(lines.len());
        let mut quoted = Vec::new();
        for line in lines {
            let words = [b"unable to parse '", self.line(line), b"': "].concat();
            match memchr::memmem::find(&text, &words) {
                None => rest.push(line),
                Some(at) => {
                    let said = &text[at..];
                    let end =
                        memchr::memchr(b'\n', &said[words.len()..]).map_or(said.len(), |n| words.len() + n);
                    let said = String::from_utf8_lossy(&said[words.len()..end]).into_owned();
                    quoted.push(LineRefusal { line, words: said });
                }
            }
        }
        if quoted.is_empty() {
            return self.push_halves(rest);
        }
        for fault in quoted {
            self.refuse(fault, refused_sink, progress);
        }
        self.push_front(rest);
    }

    /// Keeps a line that was refused alone, while nothing shows yet that it is the line's fault.
    fn suspect(
        &mut self,
        fault: LineRefusal,
        refused_sink: &RefusedSink,
        repeats: &mut RepeatedRefusals,
        progress: &mut BatchProgress,
    ) {
        let words = fault.words.clone();
        self.suspects.push(fault);
        let blurred = without_numbers(&words);
        let same =
            self.suspects.iter().filter(|suspect| without_numbers(&suspect.words) == blurred).count() as u32;
        if same == self.suspects.len() as u32 && same + repeats.same(&words) >= limits::SAME_REFUSALS_MAX {
            self.start_again();
            progress.request_at_fault = Some(words);
        } else if self.ranges.is_empty() {
            for suspect in std::mem::take(&mut self.suspects) {
                repeats.add(&suspect.words);
                self.refuse(suspect, refused_sink, progress);
            }
        }
    }

    /// Puts all lines that are left back into one range.
    fn start_again(&mut self) {
        let mut lines: Vec<u32> =
            std::mem::take(&mut self.suspects).into_iter().map(|fault| fault.line).collect();
        for range in std::mem::take(&mut self.ranges) {
            match range {
                BatchRange::Lines(range) => lines.extend(range),
                BatchRange::Whole => unreachable!("a batch in ranges has no whole"),
            }
        }
        lines.sort_unstable();
        self.probed = false;
        self.push_front(lines);
    }
}
