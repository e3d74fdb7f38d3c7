//! One view as text or as JSON, for pipes and scripts.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::cli::spool;
use crate::cli::top::answers::Answers;
use crate::cli::top::figures::{COLUMNS, Counts, mebibytes, shown};
use crate::core::detail::printable;

/// The view in the form of scripts.
pub fn json(before: &Counts, now: &Counts, took: Duration, answers: &Answers) -> Value {
    let tenants: Map<String, Value> = shown(before, now, took)
        .into_iter()
        .map(|(tenant, numbers)| {
            let columns = COLUMNS.iter().map(|(_, _, name)| (*name).to_owned());
            let numbers: Map<_, _> = columns.zip(numbers.map(Value::from)).collect();
            (tenant.clone(), numbers.into())
        })
        .collect();
    let gateway = &answers.budgets["gateway"];
    json!({"tenants": tenants, "gateway": gateway, "spool": answers.spool, "balanced": answers.books["balanced"]})
}

/// The view as text.
pub fn text(before: &Counts, now: &Counts, took: Duration, answers: &Answers) -> String {
    let mut text = table(before, now, took);
    text += "\n";
    text += &budget_line(&answers.budgets["gateway"]);
    text += &spool::table(&answers.spool);
    let is_balanced = answers.books["balanced"] == true;
    text += if is_balanced { "the books balance\n" } else { "THE BOOKS DO NOT BALANCE\n" };
    text
}

/// The use of the gateway's budgets, in words.
fn budget_line(gateway: &Value) -> String {
    let part = |resource: &str| {
        let budget = &gateway[resource];
        format!("{resource} {} of {} MiB", mebibytes(&budget["used"]), mebibytes(&budget["max"]))
    };
    format!("all tenants: {}, {}\n", part("memory"), part("disk"))
}

fn table(before: &Counts, now: &Counts, took: Duration) -> String {
    let mut text = format!("{:<24}", "tenant");
    for (_, _, name) in COLUMNS {
        text += &format!("{name:>13}");
    }
    text += "\n";
    let rows = shown(before, now, took);
    for (tenant, shown) in rows.iter().take(40) {
        text += &format!("{:<24}", printable(tenant));
        for number in shown {
            text += &format!("{number:>13}");
        }
        text += "\n";
    }
    if rows.len() > 40 {
        text += &format!("and {} more\n", rows.len() - 40);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::top::figures::counts;

    #[test]
    fn budgets_are_shown_in_mebibytes_of_which_the_least_is_one() {
        let books = json!({"tenants": {"a": {"messages": {"received": 5}}, "b": {}}});
        let budgets = json!({
            "gateway": {"memory": {"used": 3 << 20, "max": 1 << 30}, "disk": {"used": 1, "max": 1_u64 << 31}},
            "tenants": {"a": {"memory": {"used": 1}, "disk": {"used": 5 << 20}}},
        });
        let counts = counts(&books, &budgets);
        assert_eq!((counts["a"][0], &counts["a"][7..], &counts["b"][7..]), (5, &[1, 5][..], &[0, 0][..]));
        let line = budget_line(&budgets["gateway"]);
        assert_eq!(line, "all tenants: memory 3 of 1024 MiB, disk 1 of 2048 MiB\n");
    }

    #[test]
    fn rates_are_a_second_and_the_busiest_come_first() {
        let before = Counts::from([("a".into(), [10, 0, 10, 0, 0, 0, 0, 0, 0]), ("b".into(), [0; 9])]);
        let now = Counts::from([
            ("a".into(), [30, 0, 20, 3, 4, 7, 1, 2, 3]),
            ("b".into(), [2000, 0, 0, 0, 0, 0, 0, 0, 0]),
        ]);
        let text = table(&before, &now, Duration::from_secs(2));
        let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[1], ["b", "1000", "0", "0", "0", "0", "0", "0", "0", "0"]);
        assert_eq!(rows[2], ["a", "10", "0", "5", "3", "4", "7", "1", "2", "3"]);
    }
}
