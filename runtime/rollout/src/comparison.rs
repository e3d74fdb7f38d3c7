//! The difference between the lines of two versions: in numbers, and message by message.

use std::fmt;

use jiff::Timestamp;
use serde::Serialize;

use crate::limits::{
    DIFFERENCE_CHANGES_MAX, DIFFERENCE_LINE_CHARACTERS_MAX, DIFFERENCE_LINES_MAX, DIFFERENCES_BYTES_MAX,
    DIFFERENCES_SHOWN_MAX,
};
use crate::line_changes::LineChanges;

/// The outcome of a trial run: remembered messages, decoded by the version that serves and by the new one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// Messages that both have decoded or refused.
    pub compared: u64,
    /// Messages with other lines than before.
    pub different: u64,
    /// The first of those: its topic, and the lines of both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<String>,
    /// The first of those, as many as a person reads.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<MessageDifference>,
    /// Bytes of those.
    #[serde(skip)]
    bytes: usize,
}

/// A message that both versions decode differently. Long texts are cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MessageDifference {
    pub topic: String,
    /// The time of receipt (RFC 3339).
    pub received_at: String,
    /// Lines that go, or the refusal that goes; the first of them.
    pub removed: Vec<String>,
    /// Lines that come, or the refusal that comes; the first of them.
    pub added: Vec<String>,
    /// Lines that go or come beside those.
    #[serde(skip_serializing_if = "is_zero")]
    pub more: u64,
}

// Serde gives a reference.
#[expect(clippy::trivially_copy_pass_by_ref)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl MessageDifference {
    fn new(topic: &str, received_ns: i64, present: &[String], candidate: &[String]) -> Self {
        let LineChanges { removed, added } = LineChanges::between(present, candidate);
        let some = |lines: &[&str]| lines.iter().take(DIFFERENCE_CHANGES_MAX).map(|line| cut(line)).collect();
        let beyond = |lines: &[&str]| lines.len().saturating_sub(DIFFERENCE_CHANGES_MAX) as u64;
        let received = Timestamp::from_nanosecond(i128::from(received_ns)).unwrap_or(Timestamp::UNIX_EPOCH);
        Self {
            topic: cut(topic),
            received_at: format!("{received:.9}"),
            removed: some(&removed),
            added: some(&added),
            more: beyond(&removed) + beyond(&added),
        }
    }

    fn bytes(&self) -> usize {
        let lines = self.removed.iter().chain(&self.added);
        self.topic.len() + lines.map(String::len).sum::<usize>()
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { compared, different, first, .. } = self;
        write!(f, "{different} of the last {compared} messages decode differently")?;
        match first {
            Some(first) => write!(f, "; the first is {first}"),
            None => Ok(()),
        }
    }
}

impl Comparison {
    /// Counts a message with the output of both versions, line by line.
    pub fn record(&mut self, topic: &str, received_ns: i64, present: &[String], candidate: &[String]) {
        self.compared += 1;
        if present == candidate {
            return;
        }
        self.different += 1;
        self.first.get_or_insert_with(|| difference(topic, present, candidate));
        if self.differences.len() < DIFFERENCES_SHOWN_MAX {
            let difference = MessageDifference::new(topic, received_ns, present, candidate);
            if self.bytes + difference.bytes() <= DIFFERENCES_BYTES_MAX {
                self.bytes += difference.bytes();
                self.differences.push(difference);
            }
        }
    }
}

fn cut(line: &str) -> String {
    line.chars().take(DIFFERENCE_LINE_CHARACTERS_MAX).collect()
}

/// The lines that differ, so many of them.
fn difference(topic: &str, present: &[String], candidate: &[String]) -> String {
    let mut text = vec![format!("{topic}:")];
    let line = |line: Option<&String>| line.map_or_else(|| "(no line)".to_owned(), |line| cut(line));
    let mut shown = 0;
    for index in 0..present.len().max(candidate.len()) {
        let (now, new) = (present.get(index), candidate.get(index));
        if now == new {
            continue;
        }
        if shown == DIFFERENCE_LINES_MAX {
            text.push("  …".into());
            break;
        }
        shown += 1;
        text.push(format!("  serves {}", line(now)));
        text.push(format!("  new    {}", line(new)));
    }
    text.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(lines: &[&str]) -> Vec<String> {
        lines.iter().map(|line| (*line).to_owned()).collect()
    }

    #[test]
    fn the_first_message_that_differs_is_shown_by_its_lines_that_differ() {
        let mut comparison = Comparison::default();
        comparison.record("t/1", 1, &lines(&["a v=1"]), &lines(&["a v=1"]));
        comparison.record("t/2", 2, &lines(&["a v=1", "b v=2"]), &lines(&["a v=1", "b v=20", "c v=3"]));
        comparison.record("t/3", 3, &lines(&["a v=1"]), &[]);
        assert_eq!((comparison.compared, comparison.different), (3, 2));
        let first = comparison.first.as_deref().unwrap();
        assert_eq!(first, "t/2:\n  serves b v=2\n  new    b v=20\n  serves (no line)\n  new    c v=3");
        assert!(comparison.to_string().starts_with("2 of the last 3 messages decode differently"));
        let [second, third] = &comparison.differences[..] else { panic!("{:?}", comparison.differences) };
        assert_eq!((&*second.topic, &*second.received_at), ("t/2", "1970-01-01T00:00:00.000000002Z"));
        assert_eq!((&second.removed, &second.added), (&lines(&["b v=2"]), &lines(&["b v=20", "c v=3"])));
        assert_eq!((&third.removed, third.added.len(), third.more), (&lines(&["a v=1"]), 0, 0));
    }

    #[test]
    fn a_difference_is_of_bounded_length() {
        let long: Vec<String> = (0..1_000).map(|number| format!("{number}{}", "x".repeat(1 << 12))).collect();
        let mut comparison = Comparison::default();
        for _ in 0..1_000 {
            comparison.record("t", 0, &long, &[]);
        }
        assert!(comparison.first.as_ref().unwrap().len() < 10_000);
        let [first, ..] = &comparison.differences[..] else { panic!("none is shown") };
        assert_eq!((first.removed.len(), first.more), (DIFFERENCE_CHANGES_MAX, 992));
        assert!(comparison.differences.len() <= DIFFERENCES_SHOWN_MAX && comparison.different == 1_000);
        assert!(serde_json::to_string(&comparison).unwrap().len() < 2 * DIFFERENCES_BYTES_MAX);
    }
}
