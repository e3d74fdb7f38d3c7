//! One batch on its way through the answers of a database: sent whole, and in parts where the
//! answer tells neither all good nor which line is bad. Pure.
//!
//! Every line ends in exactly one of: written, refused, handed back as limited. Re-sending lines
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
    /// Places in the line table, ascending.
    Lines(Vec<u32>),
}

#[derive(Clone, Debug)]
struct LinePosition {
    segment: usize,
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

/// What a step of the work brought about.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct BatchProgress {
    pub written: u64,
    pub refused: u64,
    /// Every single line is refused with the same words: it is the request that is at fault.
    pub request_at_fault: Option<String>,
}

/// A batch that is being written.
pub struct Batch {
    segments: Vec<BatchPart>,
    /// The parts still to be sent, the next first.
    parts: VecDeque<BatchRange>,
    /// Made when the batch must be taken apart; most never are.
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

/// To whom the fate of lines is told.
pub struct RefusedSink<'a> {
    pub sink: &'a RefusedLinesSink,
    pub database: &'a DatabaseName,
}

impl Batch {
    /// # Panics
    /// Without lines.
    pub fn new(segments: Vec<BatchPart>) -> Self {
        assert!(!segments.is_empty(), "a batch has lines");
        Self {
            segments,
            parts: VecDeque::from([BatchRange::Whole]),
            table: Vec::new(),
            body: None,
            accepted: false,
            probed: false,
            suspects: Vec::new(),
            plain: false,
        }
    }

    pub fn is_done(&self) -> bool {
        self.parts.is_empty()
    }

    pub fn segments(&self) -> &[BatchPart] {
        &self.segments
    }

    /// Whose lines it carries, each once.
    pub fn tenants(&self) -> Vec<TenantId> {
        let first = &self.segments[0].load.tenant;
        if self.segments.iter().all(|segment| segment.load.tenant == *first) {
            return vec![first.clone()];
        }
        let tenants: HashSet<&TenantId> = self.segments.iter().map(|segment| &segment.load.tenant).collect();
        tenants.into_iter().cloned().collect()
    }

    /// Whether nothing is known of any of its lines, and all messages are whole.
    pub fn is_untouched(&self) -> bool {
        let whole = self.parts.len() == 1 && matches!(self.parts.front(), Some(BatchRange::Whole));
        whole && self.segments.iter().all(|segment| segment.whole)
    }

    /// Lines whose fate is not known yet.
    pub fn lines_left(&self) -> u64 {
        let parts: u64 = self.parts.iter().map(|part| self.lines_of(part)).sum();
        parts + self.suspects.len() as u64
    }

    fn lines_of(&self, part: &BatchRange) -> u64 {
        match part {
            BatchRange::Whole => self.segments.iter().map(|segment| u64::from(segment.lines)).sum(),
            BatchRange::Lines(lines) => lines.len() as u64,
        }
    }

    /// The body of the next request, each line ended by a newline, and its lines. The same bytes
    /// until an answer is told.
    ///
    /// # Panics
    /// When the work is done.
    pub fn body(&mut self) -> (Bytes, u32) {
        if let Some(body) = &self.body {
            return body.clone();
        }
        let part = self.parts.front().expect("work that is not done has a next part");
        let lines = self.lines_of(part) as u32;
        let mut bytes;
        match part {
            BatchRange::Whole => {
                bytes = Vec::with_capacity(self.segments.iter().map(|segment| segment.bytes.len()).sum());
                for segment in &self.segments {
                    bytes.extend_from_slice(&segment.load.lines[segment.bytes.clone()]);
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
        &self.segments[at.segment].load.lines[at.bytes.clone()]
    }

    /// Takes the part whose answer came, as lines.
    fn take_part(&mut self) -> Vec<u32> {
        self.body = None;
        match self.parts.pop_front().expect("an answer is to a part") {
            BatchRange::Lines(lines) => lines,
            BatchRange::Whole => {
                self.make_table();
                (0..self.table.len() as u32).collect()
            }
        }
    }

    fn make_table(&mut self) {
        self.table.clear();
        for (place, segment) in self.segments.iter().enumerate() {
            let mut message = segment.messages.start;
            let mut begin = segment.bytes.start;
            for line in split_checked(&segment.load.lines[segment.bytes.clone()]) {
                let end = begin + line.len();
                while end >= segment.load.messages[message].lines_end as usize {
                    message += 1;
                }
                self.table.push(LinePosition { segment: place, message, bytes: begin..end });
                begin = end + 1;
            }
        }
    }

    /// All lines of the part are written.
    pub fn accept(&mut self, outlet: &RefusedSink, strikes: &mut RepeatedRefusals) -> BatchProgress {
        strikes.clear();
        if matches!(self.parts.front(), Some(BatchRange::Whole)) {
            self.body = None;
            self.parts.pop_front();
            let mut written = 0;
            for segment in &self.segments {
                written += u64::from(segment.lines);
                if segment.whole {
                    segment.load.written(segment.messages.clone(), u64::from(segment.lines));
                } else {
                    let message = segment.messages.start;
                    segment.load.note(message, segment.lines, None, outlet.sink, outlet.database);
                }
            }
            return BatchProgress { written, ..BatchProgress::default() };
        }
        let lines = self.take_part();
        let mut progress = BatchProgress::default();
        self.accept_lines(&lines, outlet, &mut progress);
        progress
    }

    fn accept_lines(&mut self, lines: &[u32], outlet: &RefusedSink, progress: &mut BatchProgress) {
        if lines.is_empty() {
            return;
        }
        self.accepted = true;
        for &line in lines {
            let at = &self.table[line as usize];
            self.segments[at.segment].load.note(at.message, 1, None, outlet.sink, outlet.database);
        }
        progress.written += lines.len() as u64;
        for suspect in std::mem::take(&mut self.suspects) {
            self.refuse(suspect, outlet, progress);
        }
    }

    fn refuse(&self, fault: LineRefusal, outlet: &RefusedSink, progress: &mut BatchProgress) {
        let at = &self.table[fault.line as usize];
        let refused = RefusedLine { line: self.line(fault.line).to_vec(), answer: fault.words };
        self.segments[at.segment].load.note(at.message, 0, Some(refused), outlet.sink, outlet.database);
        progress.refused += 1;
    }

    /// The `refused` lines of the part are bad, the `limited` ones come back as work of their own,
    /// the others are written. Places count from 0 in the part.
    pub fn accept_partly(
        &mut self,
        refused: Vec<LineRefusal>,
        limited: Vec<LineRefusal>,
        outlet: &RefusedSink,
        strikes: &mut RepeatedRefusals,
    ) -> (BatchProgress, Option<Batch>) {
        strikes.clear();
        let lines = self.take_part();
        let mut progress = BatchProgress::default();
        let mut written = vec![true; lines.len()];
        for fault in refused {
            written[fault.line as usize] = false;
            self.refuse(LineRefusal { line: lines[fault.line as usize], ..fault }, outlet, &mut progress);
        }
        let mut kept: Vec<u32> = Vec::new();
        for fault in limited {
            written[fault.line as usize] = false;
            kept.push(lines[fault.line as usize]);
        }
        kept.sort_unstable();
        let rest: Vec<u32> =
            lines.iter().zip(&written).filter(|&(_, &written)| written).map(|(&line, _)| line).collect();
        self.accept_lines(&rest, outlet, &mut progress);
        self.settle_suspects(outlet, &mut progress);
        let limited = (!kept.is_empty()).then(|| Batch {
            segments: self.segments.clone(),
            parts: VecDeque::from([BatchRange::Lines(kept)]),
            table: self.table.clone(),
            body: None,
            accepted: true,
            probed: true,
            suspects: Vec::new(),
            plain: self.plain,
        });
        (progress, limited)
    }

    /// One line of the part is bad, nothing was written: the others go again.
    pub fn resend_without(&mut self, fault: LineRefusal, outlet: &RefusedSink) -> BatchProgress {
        let mut lines = self.take_part();
        let mut progress = BatchProgress::default();
        let line = lines.remove(fault.line as usize);
        self.refuse(LineRefusal { line, ..fault }, outlet, &mut progress);
        self.push_front(lines);
        self.settle_suspects(outlet, &mut progress);
        progress
    }

    fn push_front(&mut self, lines: Vec<u32>) {
        if !lines.is_empty() {
            self.parts.push_front(BatchRange::Lines(lines));
        }
    }

    /// The part is too large: halves of it go; one line alone is refused.
    pub fn split(&mut self, words: String, outlet: &RefusedSink) -> BatchProgress {
        let lines = self.take_part();
        let mut progress = BatchProgress::default();
        match lines.as_slice() {
            &[line] => self.refuse(LineRefusal { line, words }, outlet, &mut progress),
            _ => self.push_halves(lines),
        }
        self.settle_suspects(outlet, &mut progress);
        progress
    }

    fn push_halves(&mut self, mut lines: Vec<u32>) {
        let second = lines.split_off(lines.len() / 2);
        self.push_front(second);
        self.push_front(lines);
    }

    /// Something in the part is bad. `explained`: the words speak of lines.
    pub fn bisect(
        &mut self,
        explained: bool,
        words: String,
        answer: &[u8],
        outlet: &RefusedSink,
        strikes: &mut RepeatedRefusals,
    ) -> BatchProgress {
        let lines = self.take_part();
        let mut progress = BatchProgress::default();
        if explained {
            strikes.clear();
        }
        match *lines.as_slice() {
            [line] if explained || self.accepted => {
                self.refuse(LineRefusal { line, words }, outlet, &mut progress)
            }
            [line] => self.suspect(LineRefusal { line, words }, outlet, strikes, &mut progress),
            _ if explained => self.refuse_quoted(lines, answer, outlet, &mut progress),
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
        self.settle_suspects(outlet, &mut progress);
        progress
    }

    /// Where the batch ends, lines that were refused alone are bad: the request as such was not, for then
    /// the batch would have begun again.
    fn settle_suspects(&mut self, outlet: &RefusedSink, progress: &mut BatchProgress) {
        if self.parts.is_empty() {
            for suspect in std::mem::take(&mut self.suspects) {
                self.refuse(suspect, outlet, progress);
            }
        }
    }

    /// Three lines that may be written before the others: no other of their devices stands in front of
    /// them. Far apart, where there are that many devices.
    fn probes(&self, lines: &[u32]) -> [u32; 3] {
        let affinity = |line: u32| {
            let at = &self.table[line as usize];
            self.segments[at.segment].load.messages[at.message].affinity
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
        outlet: &RefusedSink,
        progress: &mut BatchProgress,
    ) {
        // The answer is JSON: what is quoted in it is escaped once more.
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
            self.refuse(fault, outlet, progress);
        }
        self.push_front(rest);
    }

    /// A single line was refused, but nothing shows yet that it is the line's fault.
    fn suspect(
        &mut self,
        fault: LineRefusal,
        outlet: &RefusedSink,
        strikes: &mut RepeatedRefusals,
        progress: &mut BatchProgress,
    ) {
        let words = fault.words.clone();
        self.suspects.push(fault);
        let blurred = without_numbers(&words);
        let same =
            self.suspects.iter().filter(|suspect| without_numbers(&suspect.words) == blurred).count() as u32;
        if same == self.suspects.len() as u32 && same + strikes.same(&words) >= limits::SAME_REFUSALS_MAX {
            self.start_again();
            progress.request_at_fault = Some(words);
        } else if self.parts.is_empty() {
            for suspect in std::mem::take(&mut self.suspects) {
                strikes.add(&suspect.words);
                self.refuse(suspect, outlet, progress);
            }
        }
    }

    /// Puts all lines whose fate is unknown back into one part.
    fn start_again(&mut self) {
        let mut lines: Vec<u32> =
            std::mem::take(&mut self.suspects).into_iter().map(|fault| fault.line).collect();
        for part in std::mem::take(&mut self.parts) {
            match part {
                BatchRange::Lines(part) => lines.extend(part),
                BatchRange::Whole => unreachable!("a batch in parts has no whole"),
            }
        }
        lines.sort_unstable();
        self.probed = false;
        self.push_front(lines);
    }
}
