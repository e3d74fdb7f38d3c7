//! The difference between the lines of two versions, in numbers and in the first example.

use std::fmt;

use serde::Serialize;

use crate::limits::{DIFFERENCE_LINE_CHARACTERS_MAX, DIFFERENCE_LINES_MAX};

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
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { compared, different, first } = self;
        write!(f, "{different} of the last {compared} messages decode differently")?;
        match first {
            Some(first) => write!(f, "; the first is {first}"),
            None => Ok(()),
        }
    }
}

impl Comparison {
    /// Counts a message with the output of both versions, line by line.
    pub fn record(&mut self, topic: &str, present: &[String], candidate: &[String]) {
        self.compared += 1;
        if present != candidate {
            self.different += 1;
            self.first.get_or_insert_with(|| difference(topic, present, candidate));
        }
    }
}

/// The lines that differ, so many of them.
fn difference(topic: &str, present: &[String], candidate: &[String]) -> String {
    let mut text = vec![format!("{topic}:")];
    let cut = |line: Option<&String>| match line {
        Some(line) => line.chars().take(DIFFERENCE_LINE_CHARACTERS_MAX).collect(),
        None => "(no line)".to_owned(),
    };
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
        text.push(format!("  serves {}", cut(now)));
        text.push(format!("  new    {}", cut(new)));
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
        comparison.record("t/1", &lines(&["a v=1"]), &lines(&["a v=1"]));
        comparison.record("t/2", &lines(&["a v=1", "b v=2"]), &lines(&["a v=1", "b v=20", "c v=3"]));
        comparison.record("t/3", &lines(&["a v=1"]), &[]);
        assert_eq!((comparison.compared, comparison.different), (3, 2));
        let first = comparison.first.as_deref().unwrap();
        assert_eq!(first, "t/2:\n  serves b v=2\n  new    b v=20\n  serves (no line)\n  new    c v=3");
        assert!(comparison.to_string().starts_with("2 of the last 3 messages decode differently"));
    }

    #[test]
    fn a_difference_is_of_bounded_length() {
        let long = vec!["x".repeat(1 << 20); 1_000];
        let mut comparison = Comparison::default();
        comparison.record("t", &long, &[]);
        assert!(comparison.first.unwrap().len() < 10_000);
    }
}
