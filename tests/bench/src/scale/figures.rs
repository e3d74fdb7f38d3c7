//! The figures of tables, as they are printed, drawn and kept in a file.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::statistics::median;

/// The figures of one run, by name: `cpu_us`, `acknowledged_per_s` and so on.
pub type Figures = BTreeMap<String, f64>;

/// All tables by name.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Report {
    pub tables: BTreeMap<String, Table>,
}

/// One table.
#[derive(Debug, Serialize, Deserialize)]
pub struct Table {
    /// The command that measures it again.
    pub command: String,
    pub cores: usize,
    /// The load average of the machine before the first run: 0 if nobody else used it.
    pub load_average: f64,
    pub rows: Vec<Row>,
}

/// One subject at one point.
#[derive(Debug, Serialize, Deserialize)]
pub struct Row {
    pub point: f64,
    pub subject: String,
    /// One for each round, in order.
    pub runs: Vec<Figures>,
}

impl Row {
    /// The median of a figure; nothing if a run lacks it.
    pub fn median(&self, figure: &str) -> Option<f64> {
        let values: Vec<f64> = self.runs.iter().filter_map(|run| run.get(figure).copied()).collect();
        (!values.is_empty() && values.len() == self.runs.len()).then(|| median(values))
    }

    /// The median of the ratios of each round.
    pub fn ratio(&self, other: &Row, figure: &str) -> Option<f64> {
        let ratio = |(own, other): (&Figures, &Figures)| Some(own.get(figure)? / other.get(figure)?);
        let ratios: Vec<f64> = self.runs.iter().zip(&other.runs).filter_map(ratio).collect();
        (!ratios.is_empty()).then(|| median(ratios))
    }
}

impl Table {
    pub fn new(command: String) -> Self {
        let load = fs::read_to_string("/proc/loadavg").ok();
        let load_average = load.and_then(|text| text.split(' ').next()?.parse().ok()).unwrap_or(0.0);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { command, cores, load_average, rows: Vec::new() }
    }

    /// Adds a run to the row of its point and subject.
    pub fn add(&mut self, point: f64, subject: &str, figures: Figures) {
        match self.rows.iter_mut().find(|row| row.point == point && row.subject == subject) {
            Some(row) => row.runs.push(figures),
            None => self.rows.push(Row { point, subject: subject.to_owned(), runs: vec![figures] }),
        }
    }

    pub fn row(&self, point: f64, subject: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.point == point && row.subject == subject)
    }

    /// The points, in the order in which they were measured.
    pub fn points(&self) -> Vec<f64> {
        let mut points = Vec::new();
        for row in &self.rows {
            if !points.contains(&row.point) {
                points.push(row.point);
            }
        }
        points
    }

    pub fn subjects(&self) -> Vec<&str> {
        let mut subjects: Vec<&str> = Vec::new();
        for row in &self.rows {
            if !subjects.contains(&row.subject.as_str()) {
                subjects.push(&row.subject);
            }
        }
        subjects
    }
}

impl Report {
    /// The report of a file; an empty one if there is none.
    pub fn read(path: &Path) -> Result<Self> {
        if !path.exists() {
            return Ok(Self::default());
        }
        let text = fs::read_to_string(path)?;
        serde_json::from_str(&text).with_context(|| format!("{} is no report of scale", path.display()))
    }

    pub fn write(&self, path: &Path) -> Result<()> {
        fs::write(path, serde_json::to_string_pretty(self)? + "\n")
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(runs: &[(f64, f64)]) -> Table {
        let mut table = Table::new(String::new());
        for (own, other) in runs {
            table.add(10.0, "own", Figures::from([("cpu_us".into(), *own)]));
            table.add(10.0, "other", Figures::from([("cpu_us".into(), *other)]));
        }
        table
    }

    #[test]
    fn a_ratio_is_the_median_of_those_of_the_rounds() {
        let table = table(&[(1.0, 1.0), (20.0, 10.0), (6.0, 2.0)]);
        let (own, other) = (table.row(10.0, "own").unwrap(), table.row(10.0, "other").unwrap());
        assert_eq!(own.median("cpu_us"), Some(6.0));
        assert_eq!(own.ratio(other, "cpu_us"), Some(2.0));
        assert_eq!(own.ratio(other, "nothing"), None);
        assert_eq!((table.points(), table.subjects()), (vec![10.0], vec!["own", "other"]));
    }

    #[test]
    fn a_report_comes_back_from_its_file() {
        let path = std::env::temp_dir().join(format!("tidegate-bench-{}.json", std::process::id()));
        let mut report = Report::default();
        report.tables.insert("tenants".into(), table(&[(1.5, 3.0)]));
        report.write(&path).unwrap();
        let read = Report::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(read.tables["tenants"].rows[0].runs, report.tables["tenants"].rows[0].runs);
    }
}
