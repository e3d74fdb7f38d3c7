//! The answer of a call, taken message by message.

use crate::sandbox::abi::v1_0::bindings::tidegate::ingest::types::{Decoded, Outcome, Refusal};

/// Lines and outcomes that a guest gave, checked to be of the form that the interface says.
pub(super) struct Answer {
    lines: Vec<u8>,
    outcomes: std::vec::IntoIter<Outcome>,
    /// The index of the next message.
    next: u32,
    /// The begin of its lines.
    begin: usize,
}

impl Answer {
    pub(super) fn new(decoded: Decoded) -> Self {
        Self { lines: decoded.lines, outcomes: decoded.outcomes.into_iter(), next: 0, begin: 0 }
    }

    /// The index of the next message in the call, with its lines or its refusal.
    pub(super) fn next(&mut self) -> Option<(u32, Result<&[u8], Refusal>)> {
        let outcome = self.outcomes.next()?;
        let index = self.next;
        self.next += 1;
        match outcome {
            Outcome::Refused(refusal) => Some((index, Err(refusal))),
            Outcome::Lines(end) => {
                let own = self.begin..end as usize;
                self.begin = own.end;
                Some((index, Ok(&self.lines[own])))
            }
        }
    }

    /// Bytes of the lines of the next messages.
    pub(super) fn lines_of(&self, messages: usize) -> usize {
        let ends = self.outcomes.as_slice().iter().take(messages).filter_map(|outcome| match outcome {
            Outcome::Lines(end) => Some(*end as usize),
            Outcome::Refused(_) => None,
        });
        ends.last().map_or(0, |end| end - self.begin)
    }
}
