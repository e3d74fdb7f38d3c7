//! The search for bad lines that an answer does not name.

use std::collections::HashSet;
use std::time::Instant;

use super::repeats::without_numbers;
use super::{Batch, BatchProgress, BatchRange, RefusedSink, RepeatedRefusals};
use crate::delayed_lines::DelayReason;
use crate::limits;
use crate::verdict::LineRefusal;

/// An answer that refuses a range without naming lines.
pub struct RangeRefusal<'a> {
    pub words: String,
    pub answer: &'a [u8],
    /// The words speak of lines.
    pub explained: bool,
    /// The answer is 500: it may speak of the server alone.
    pub server_error: bool,
    pub now: Instant,
}

impl Batch {
    /// Searches for the bad lines of the range.
    pub fn bisect(
        &mut self,
        refusal: RangeRefusal,
        refused_sink: &RefusedSink,
        repeats: &mut RepeatedRefusals,
    ) -> BatchProgress {
        let lines = self.take_range();
        let mut progress = BatchProgress::default();
        if refusal.explained {
            repeats.clear();
        }
        match *lines.as_slice() {
            [line] if refusal.explained => {
                self.refuse(LineRefusal { line, words: refusal.words }, refused_sink, &mut progress)
            }
            [line] => self.suspect(line, refusal, refused_sink, repeats, &mut progress),
            _ if refusal.explained => self.refuse_quoted(lines, refusal.answer, refused_sink, &mut progress),
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
        progress
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

    /// Keeps a line that was refused alone, until it is refused once more, later. Refuses one of which
    /// that is so.
    fn suspect(
        &mut self,
        line: u32,
        refusal: RangeRefusal,
        refused_sink: &RefusedSink,
        repeats: &mut RepeatedRefusals,
        progress: &mut BatchProgress,
    ) {
        let RangeRefusal { words, server_error, now, .. } = refusal;
        let suspicion = self.suspicion(line, words.clone(), server_error, now);
        // What nothing ever accepted shows the fault of the request.
        let is_at_fault = !self.accepted && repeats.same(&words) >= limits::SAME_REFUSALS_MAX;
        if suspicion.is_last_try && !is_at_fault {
            return self.refuse(LineRefusal { line, words }, refused_sink, progress);
        }
        self.suspects.push((line, suspicion));
        self.delay(line);
        let blurred = without_numbers(&words);
        let alike = self.suspects.iter().filter(|(_, other)| without_numbers(&other.words) == blurred);
        let same = alike.count() as u32;
        let all_same = same == self.suspects.len() as u32;
        let count = same + repeats.same(&words);
        if is_at_fault || (!self.accepted && all_same && count >= limits::SAME_REFUSALS_MAX) {
            self.start_again();
            progress.request_at_fault = Some(words);
        }
    }

    /// Puts all lines that are left back into one range, but for those at a ceiling of the server.
    fn start_again(&mut self) {
        let mut lines: Vec<u32> =
            std::mem::take(&mut self.suspects).into_iter().map(|(line, _)| line).collect();
        for range in std::mem::take(&mut self.ranges) {
            match range {
                BatchRange::Lines(range) => lines.extend(range),
                BatchRange::Whole => unreachable!("a batch in ranges has no whole"),
            }
        }
        let (limited, behind): (Vec<_>, Vec<_>) = std::mem::take(&mut self.delayed)
            .into_iter()
            .partition(|(_, reason)| matches!(reason, DelayReason::Limited));
        self.points.retain(|_, first| *first < 0);
        lines.extend(behind.into_iter().map(|(line, _)| line));
        for (line, _) in &limited {
            let point = self.point(*line);
            let first = self.points.entry(point).or_insert(i64::from(*line));
            *first = (*first).min(i64::from(*line));
        }
        self.delayed = limited;
        lines.sort_unstable();
        let lines = self.without_behind(lines);
        self.probed = false;
        self.push_front(lines);
    }
}
