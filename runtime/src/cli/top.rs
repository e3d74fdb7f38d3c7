//! `tidegate top`: what a gateway is doing, live.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::cli::{ConfigArgument, Exit, admin_client, spool};
use crate::core::detail::printable;

/// Show a running gateway live: messages and lines a second of each tenant, and the backlogs
///
/// Ctrl-C ends it. If stdout is not a terminal, it prints one view and ends.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tidegate top\n  tidegate top --every 5\n  tidegate top --json")]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// Seconds between two views
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=3600))]
    every: u64,
    /// Print one view as JSON, then end
    #[arg(long)]
    json: bool,
}

/// Section and key of the books, or of the budgets, and the heading, of each column.
const COLUMNS: [(&str, &str, &str); 9] = [
    ("messages", "received", "received/s"),
    ("messages", "quarantined", "refused/s"),
    ("lines", "written", "written/s"),
    ("messages", "in_flight", "in flight"),
    ("messages", "parked", "parked"),
    ("lines", "pending", "pending"),
    ("quarantine", "entries", "quarantine"),
    ("memory", "used", "memory MiB"),
    ("disk", "used", "disk MiB"),
];

type Counts = BTreeMap<String, [u64; COLUMNS.len()]>;

pub fn top(arguments: &Arguments) -> anyhow::Result<Exit> {
    let config = arguments.config.load()?.config;
    let every = Duration::from_secs(arguments.every);
    let live = !arguments.json && std::io::stdout().is_terminal();
    let empty = Value::Null;
    let mut before = counts(&admin_client::get(&config, "/api/v1/books")?, &empty);
    let mut at = Instant::now();
    loop {
        std::thread::sleep(if live { every } else { every.min(Duration::from_secs(1)) });
        let books = admin_client::get(&config, "/api/v1/books")?;
        let backlog = admin_client::get(&config, "/api/v1/spool")?;
        let budgets = admin_client::get(&config, "/api/v1/tenants")?;
        let now = counts(&books, &budgets);
        if arguments.json {
            let tenants: Map<String, Value> = shown(&before, &now, at.elapsed())
                .into_iter()
                .map(|(tenant, numbers)| {
                    let columns = COLUMNS.iter().map(|(_, _, name)| (*name).to_owned());
                    let numbers: Map<_, _> = columns.zip(numbers.map(Value::from)).collect();
                    (tenant.clone(), numbers.into())
                })
                .collect();
            let gateway = &budgets["gateway"];
            println!(
                "{:#}",
                json!({"tenants": tenants, "gateway": gateway, "spool": backlog, "balanced": books["balanced"]})
            );
            return Ok(Exit::Success);
        }
        let mut text = table(&before, &now, at.elapsed());
        text += "\n";
        text += &budget_line(&budgets["gateway"]);
        text += &spool::table(&backlog);
        text += if books["balanced"] == true { "the books balance\n" } else { "THE BOOKS DO NOT BALANCE\n" };
        (before, at) = (now, Instant::now());
        let mut out = std::io::stdout().lock();
        if !live {
            out.write_all(text.as_bytes())?;
            return Ok(Exit::Success);
        }
        // Home, the view with each line's rest cleared, then what is below.
        write!(out, "\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n"))?;
        out.flush()?;
    }
}

fn counts(books: &Value, budgets: &Value) -> Counts {
    let tenants = books["tenants"].as_object().into_iter().flatten();
    tenants
        .map(|(tenant, books)| {
            let budgets = &budgets["tenants"][tenant];
            let numbers = COLUMNS.map(|(section, key, _)| match section {
                "memory" | "disk" => mebibytes(&budgets[section][key]),
                _ => books[section][key].as_u64().unwrap_or(0),
            });
            (tenant.clone(), numbers)
        })
        .collect()
}

/// Whole mebibytes, rounded up: something is never shown as nothing.
fn mebibytes(bytes: &Value) -> u64 {
    bytes.as_u64().unwrap_or(0).div_ceil(1 << 20)
}

/// The use of the gateway's budgets, in words.
fn budget_line(gateway: &Value) -> String {
    let part = |resource: &str| {
        let budget = &gateway[resource];
        format!("{resource} {} of {} MiB", mebibytes(&budget["used"]), mebibytes(&budget["max"]))
    };
    format!("all tenants: {}, {}\n", part("memory"), part("disk"))
}

/// Tenants with the most messages first; a column whose name says so is a rate.
fn shown<'a>(before: &Counts, now: &'a Counts, took: Duration) -> Vec<(&'a String, [u64; COLUMNS.len()])> {
    let zero = [0; COLUMNS.len()];
    let mut rows: Vec<(&String, [u64; COLUMNS.len()])> = now
        .iter()
        .map(|(tenant, counts)| {
            let before = before.get(tenant).unwrap_or(&zero);
            let shown = std::array::from_fn(|column| match COLUMNS[column].2.ends_with("/s") {
                true => {
                    let more = counts[column].saturating_sub(before[column]);
                    (more as f64 / took.as_secs_f64()).round() as u64
                }
                false => counts[column],
            });
            (tenant, shown)
        })
        .collect();
    rows.sort_by(|a, b| b.1[0].cmp(&a.1[0]).then_with(|| a.0.cmp(b.0)));
    rows
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
    use std::time::Duration;

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
