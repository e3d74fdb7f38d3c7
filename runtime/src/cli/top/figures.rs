//! Figures of tenants: of the books and the budgets, as totals and as rates.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

/// Section and key of the books, or of the budgets, and the heading, of each column.
pub const COLUMNS: [(&str, &str, &str); 9] = [
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

/// The figures of each tenant, in the order of the columns.
pub type Counts = BTreeMap<String, [u64; COLUMNS.len()]>;

/// The figures of all tenants.
pub fn counts(books: &Value, budgets: &Value) -> Counts {
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
pub fn mebibytes(bytes: &Value) -> u64 {
    bytes.as_u64().unwrap_or(0).div_ceil(1 << 20)
}

/// Tenants with the most messages first; a column whose name says so is a rate.
pub fn shown<'a>(
    before: &Counts,
    now: &'a Counts,
    took: Duration,
) -> Vec<(&'a String, [u64; COLUMNS.len()])> {
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
