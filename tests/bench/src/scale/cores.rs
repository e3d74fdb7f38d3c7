//! Throughput by cores: load, gateway and sink together on one core, on two, and so on.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::Paths;
use crate::load::{METRICS, Plan};
use crate::scale::case::{self, Case};
use crate::scale::contention::Contention;
use crate::scale::figures::{Figures, Table};
use crate::scale::options::Options;
use crate::scale::print::{self, Column};
use crate::scale::subjects::{self, Subject};

const POINTS: [usize; 5] = [1, 2, 4, 8, 16];

/// Acquisitions of a lock that another thread had.
const CONTENDED: &str = "contended_a_thousand";

const COLUMNS: [Column; 5] = [
    Column { figure: "acknowledged_per_s", heading: "acknowledged/s", decimals: 0 },
    Column { figure: "cpu_us", heading: "us of CPU", decimals: 2 },
    Column { figure: "waits_a_thousand", heading: "waits of threads a 1,000 messages", decimals: 0 },
    Column { figure: CONTENDED, heading: "contended locks a 1,000 messages", decimals: 1 },
    Column { figure: "resident_mb", heading: "MB", decimals: 0 },
];

/// Ten tenants, and enough in flight for many cores.
fn case(cores: usize) -> Case {
    let connections = 8 * cores.max(1);
    let plan = Plan { name: "tenant", tenants: 10, devices: 1_000, connections, messages: 0, window: 2_000 };
    Case { plan, one_database: false, metrics: METRICS }
}

/// Measures the rows in rounds.
pub fn measure(paths: &Paths, options: &Options) -> Result<Table> {
    let all = allowed()?;
    let points = options.points_or(&POINTS);
    let (here, elsewhere): (Vec<usize>, Vec<usize>) = points.iter().partition(|cores| **cores <= all.len());
    ensure!(!here.is_empty(), "this process may use {} cores", all.len());
    let mut subjects = subjects::builds(paths, options);
    let mut table = Table::new(options.command_of("cores"));
    for round in 1..=options.pairs {
        for cores in &here {
            for subject in &subjects {
                eprintln!("cores: round {round} of {}, {cores}, {}", options.pairs, subject.name);
                // The same load for every row: that of the last one.
                let case = case(here[here.len() - 1]);
                let figures = on(&all[..*cores], &all, || run(paths, subject, &case, options))?;
                table.add(*cores as f64, subject.name, figures);
            }
        }
        subjects.reverse();
    }
    println!("Cores on which load, gateway and sink run together\n");
    print::rows(&table, "cores", &COLUMNS);
    print::ratios(&table, "cores", "acknowledged_per_s", "two cores at least 1.85 times one");
    print::ratios(&table, "cores", "cpu_us", "");
    if !elsewhere.is_empty() {
        let missing: Vec<String> = elsewhere.iter().map(usize::to_string).collect();
        println!(
            "Not measured, for this process may use {} cores: {}. On a machine with more:\n\n    {}\n",
            all.len(),
            missing.join(", "),
            command_elsewhere(&points, options)
        );
    }
    Ok(table)
}

/// One run, with the contended locks of all of it where they can be counted.
fn run(paths: &Paths, subject: &Subject, case: &Case, options: &Options) -> Result<Figures> {
    let contention = Contention::watch(&subject.binary);
    let mut figures = case::run(paths, subject, case, options.time)?;
    match contention.and_then(|contention| contention.count()) {
        Ok(count) => {
            let messages = figures.get("all_messages").copied().unwrap_or(f64::NAN);
            figures.insert(CONTENDED.into(), count as f64 * 1e3 / messages);
        }
        Err(error) => eprintln!("contended locks are not counted: {error:#}"),
    }
    Ok(figures)
}

fn command_elsewhere(points: &[usize], options: &Options) -> String {
    let points: Vec<String> = points.iter().map(usize::to_string).collect();
    format!(
        "cargo xtask bench scale --table cores --points {} --pairs {} --seconds 10",
        points.join(","),
        options.pairs
    )
}

/// The cores that this process may use (sched_setaffinity(2)).
fn allowed() -> Result<Vec<usize>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    cores_of(list.context("no Cpus_allowed_list in /proc/self/status")?.trim())
}

/// The cores of a list such as `0-3,8`.
fn cores_of(list: &str) -> Result<Vec<usize>> {
    let mut cores = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        cores.extend(first.parse::<usize>()?..=last.parse()?);
    }
    Ok(cores)
}

/// Runs `run` with this thread, its new threads and processes on some cores.
fn on<T>(cores: &[usize], all: &[usize], run: impl FnOnce() -> Result<T>) -> Result<T> {
    pin(cores)?;
    let result = run();
    pin(all)?;
    result
}

/// Pins the main thread: what it starts inherits that.
fn pin(cores: &[usize]) -> Result<()> {
    let list: Vec<String> = cores.iter().map(usize::to_string).collect();
    let process = std::process::id().to_string();
    let pinned = Command::new("taskset").args(["-cp", &list.join(","), &process]).output();
    ensure!(pinned.context("taskset of util-linux is needed")?.status.success(), "taskset -cp {list:?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_cores_is_read() {
        assert_eq!(cores_of("0-3,8").unwrap(), [0, 1, 2, 3, 8]);
        assert_eq!(cores_of("5").unwrap(), [5]);
        assert!(cores_of("a-b").is_err());
    }
}
