//! The values that the last batch left out, by their names, for `explain`.

use parking_lot::Mutex;

use crate::limits::{IGNORED_A_BATCH_MAX, IGNORED_NAME_BYTES_MAX, IGNORED_NAMES_MAX};
use tidegate_core::detail::truncate;

/// The beginning of a log text, at the level debug, in which the SDK reports values that a decoder leaves out:
/// `ignored: text=12 time=3`, and then a line for each of the first names.
const REPORT: &str = "ignored: ";

/// The names in the last report.
#[derive(Debug, Default)]
pub struct IgnoredNames(Mutex<Vec<String>>);

impl IgnoredNames {
    /// Takes the names in the last report.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock())
    }

    /// True for a text that is a report.
    pub fn is_report(text: &str) -> bool {
        text.starts_with(REPORT)
    }

    /// Reads a report, whose kinds and numbers of values `count` takes; false for another text.
    pub fn read(&self, text: &str, count: impl Fn(&str, u64)) -> bool {
        let Some(report) = text.strip_prefix(REPORT) else { return false };
        let (counts, names) = report.split_once('\n').unwrap_or((report, ""));
        for (kind, values) in counts.split(' ').filter_map(|count| count.split_once('=')) {
            count(kind, values.parse().unwrap_or(0).min(IGNORED_A_BATCH_MAX));
        }
        let names = names.lines().take(IGNORED_NAMES_MAX);
        *self.0.lock() = names.map(|name| truncate(name, IGNORED_NAME_BYTES_MAX).to_owned()).collect();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn a_report_is_counted_and_its_names_are_kept_within_limits() {
        let (names, counts) = (IgnoredNames::default(), RefCell::new(Vec::new()));
        let read =
            |text: &str| names.read(text, |kind, values| counts.borrow_mut().push((kind.to_owned(), values)));
        assert!(!read("ignored nothing"));
        assert!(read("ignored: text=12 time=3 list=x\ntemp (text)\nts (time)"));
        let counted = |kind: &str, values| (kind.to_owned(), values);
        assert_eq!(counts.take(), [counted("text", 12), counted("time", 3), counted("list", 0)]);
        assert_eq!(names.take(), ["temp (text)", "ts (time)"]);
        assert!(names.take().is_empty());
        assert!(read(&format!("ignored: text={}\n{}", u64::MAX, "x\n".repeat(1_000))));
        assert_eq!(counts.take(), [counted("text", IGNORED_A_BATCH_MAX)]);
        assert_eq!(names.take().len(), IGNORED_NAMES_MAX);
    }
}
