//! Values that a decoder leaves out, so that nobody has to guess where they are. The gateway counts them by route
//! and kind, and `tidegate explain` names them.
//!
//! At the end of a batch the SDK writes one log text at the level debug: `ignored: `, the counts by kind, and
//! then a line for each of the first names. The gateway does not write this text to its log.

use std::cell::RefCell;

/// The kind of a value that is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A time that is missing or cannot be read: the line has the time of receipt.
    Time,
    Text,
    List,
    Object,
    Null,
    /// Nothing was left out: the decoder warns of something.
    Warning,
    Other,
}

/// The names of all kinds, in the order of `Kind`.
const KINDS: [&str; 7] = ["time", "text", "list", "object", "null", "warning", "other"];

/// Names in one batch, and bytes of each: enough to find the value.
const NAMES_MAX: usize = 8;

const NAME_BYTES_MAX: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct Ignored {
    counts: [u32; KINDS.len()],
    names: Vec<String>,
}

/// Replaces all that was recorded; gives what it was.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn replace(with: Ignored) -> Ignored {
    IGNORED.replace(with)
}

std::thread_local! {
    static IGNORED: RefCell<Ignored> = const {
        RefCell::new(Ignored { counts: [0; KINDS.len()], names: Vec::new() })
    };
}

/// Records that a value is left out.
pub fn record(name: &str, kind: Kind) {
    IGNORED.with_borrow_mut(|ignored| {
        ignored.counts[kind as usize] += 1;
        if ignored.names.len() == NAMES_MAX {
            return;
        }
        let mut end = name.len().min(NAME_BYTES_MAX);
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        let shown = format!("{} ({})", name[..end].replace(char::is_control, "?"), KINDS[kind as usize]);
        if !ignored.names.contains(&shown) {
            ignored.names.push(shown);
        }
    });
}

/// The text about all values since the last call; None: there is none.
pub fn take() -> Option<String> {
    IGNORED.with_borrow_mut(|ignored| {
        if ignored.counts == [0; KINDS.len()] {
            return None;
        }
        let counts = KINDS.iter().zip(&ignored.counts).filter(|(_, count)| **count > 0);
        let counts: Vec<_> = counts.map(|(kind, count)| format!("{kind}={count}")).collect();
        let text = format!("ignored: {}\n{}", counts.join(" "), ignored.names.join("\n"));
        ignored.counts = [0; KINDS.len()];
        ignored.names.clear();
        Some(text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_by_kind_and_the_first_are_named() {
        assert_eq!(take(), None);
        for _ in 0..3 {
            record("temp", Kind::Text);
        }
        record("ts", Kind::Time);
        record(&format!("a\n{}", "é".repeat(100)), Kind::List);
        let text = take().unwrap();
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("ignored: time=1 text=3 list=1"));
        assert_eq!(lines.next(), Some("temp (text)"));
        assert_eq!(lines.next(), Some("ts (time)"));
        assert_eq!(lines.next().unwrap(), format!("a?{} (list)", "é".repeat(31)));
        assert_eq!(take(), None);
        (0..1_000).for_each(|n| record(&format!("key_{n}"), Kind::Null));
        assert!(take().unwrap().len() < 1_024);
    }
}
