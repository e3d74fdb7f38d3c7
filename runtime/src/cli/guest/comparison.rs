//! The changes of a new decoder as text: on remembered messages, and the lines of one message.

use serde_json::Value;

use crate::core::detail::{printable, printable_lines};

/// Prints the trial run on remembered messages, where there was one.
pub fn print(comparison: &Value) {
    let (Some(compared), Some(different)) =
        (comparison["compared"].as_u64(), comparison["different"].as_u64())
    else {
        return;
    };
    match (compared, different) {
        (0, _) => println!("no message is remembered to compare it on"),
        (_, 0) => println!("the last {compared} messages decode to the same lines"),
        _ => println!("{different} of the last {compared} messages decode differently"),
    }
    let differences = comparison["differences"].as_array().map(Vec::as_slice).unwrap_or_default();
    for difference in differences {
        println!("{}", in_words(difference));
    }
    match different.saturating_sub(differences.len() as u64) {
        0 => {}
        more if differences.is_empty() => {
            // A gateway of an earlier version, or one long message.
            let first = comparison["first"].as_str().unwrap_or_default();
            println!("the first of {more}: {}", printable_lines(first));
        }
        more => println!("and {more} more messages"),
    }
}

/// One message: its topic and time, and the lines that go and come.
fn in_words(difference: &Value) -> String {
    let text = |key: &str| printable(difference[key].as_str().unwrap_or_default());
    let lines = |key: &str| -> Vec<&str> {
        difference[key].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
    };
    let changes = printable_lines(&lines_of_changes(&lines("removed"), &lines("added")));
    let more = match difference["more"].as_u64() {
        Some(more @ 1..) => format!("\n  and {more} more lines"),
        _ => String::new(),
    };
    format!("{} at {}\n{changes}{more}", text("topic"), text("received_at"))
}

/// The lines that go, after `-`, and those that come, after `+`.
pub fn lines_of_changes(removed: &[&str], added: &[&str]) -> String {
    let removed = removed.iter().map(|line| format!("  - {line}"));
    let text: Vec<String> = removed.chain(added.iter().map(|line| format!("  + {line}"))).collect();
    if text.is_empty() {
        return "  the same lines in another order, or another number of times".into();
    }
    text.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_message_is_shown_by_the_lines_that_go_and_come() {
        let difference = json!({
            "topic": "t/\u{1b}", "received_at": "2026-12-01T11:50:01Z", "removed": ["a f=1"], "added": ["a f=2", "b f=1"],
            "more": 3,
        });
        let text = in_words(&difference);
        assert!(
            text.ends_with(" at 2026-12-01T11:50:01Z\n  - a f=1\n  + a f=2\n  + b f=1\n  and 3 more lines"),
            "{text}"
        );
        assert!(!text.contains('\u{1b}'), "{text}");
        assert!(lines_of_changes(&[], &[]).contains("another order"));
    }
}
