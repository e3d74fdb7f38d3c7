//! The charts of docs/PERFORMANCE.md, drawn from the figures of `scale`.

mod bars;
mod canvas;
mod lines;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::scale::figures::{Report, Table};
use bars::{Bar, Bars};
use lines::{Lines, Scale, Series};

const USAGE: &str = "cargo xtask bench charts [--json FILE] [--to FOLDER]";

/// A chart: its file, its table, and the function that draws it.
type Chart = (&'static str, &'static str, fn(&Table) -> String);

const CHARTS: [Chart; 5] = [
    ("cost-by-tenants", "tenants", |table| {
        cost(table, "CPU of a message by tenants", "tenants with 10 devices each, in one database by tag")
    }),
    ("cost-by-devices", "devices", |table| {
        cost(table, "CPU of a message by devices", "devices of 10 tenants")
    }),
    ("cost-by-payload", "payload", |table| {
        cost(table, "CPU of a message by its size", "bytes of the payload")
    }),
    ("latency-by-load", "latency", latency),
    ("beside-others", "peers", peers),
];

/// Draws a chart of each table that the file has.
pub fn draw(paths: &crate::Paths, arguments: &[String]) -> Result<()> {
    let mut json = crate::scale::file(paths);
    let mut to = PathBuf::from("docs/charts");
    let mut rest = arguments.iter();
    while let Some(option) = rest.next() {
        let mut value = || rest.next().map(PathBuf::from).with_context(|| format!("{option} needs a value"));
        match option.as_str() {
            "--json" => json = value()?,
            "--to" => to = value()?,
            "--help" | "-h" => {
                println!("{USAGE}");
                return Ok(());
            }
            other => bail!("{other:?} is no option of charts\n\n{USAGE}"),
        }
    }
    if !json.exists() {
        bail!("there is no {}: cargo xtask bench scale measures it", json.display());
    }
    draw_report(&Report::read(&json)?, &to)
}

fn draw_report(report: &Report, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for (name, table, draw) in CHARTS {
        match report.tables.get(table) {
            Some(table) => {
                let file = to.join(name).with_extension("svg");
                std::fs::write(&file, draw(table))
                    .with_context(|| format!("cannot write {}", file.display()))?;
                println!("{}", file.display());
            }
            None => println!("{name}.svg is left as it was: there are no figures of the table {table}"),
        }
    }
    Ok(())
}

/// The points of a subject with the medians of a figure.
fn points(table: &Table, subject: &str, figure: &str) -> Vec<(f64, f64)> {
    let rows = table.rows.iter().filter(|row| row.subject == subject);
    let mut points: Vec<_> = rows.filter_map(|row| Some((row.point, row.median(figure)?))).collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    points
}

fn cost(table: &Table, title: &str, unit: &str) -> String {
    let series = table
        .subjects()
        .into_iter()
        .map(|subject| Series { name: subject.to_owned(), points: points(table, subject, "cpu_us") });
    let lines = Lines {
        title,
        x: (unit, Scale::Logarithmic),
        y: ("us of CPU a message", Scale::Logarithmic),
        series: series.collect(),
        command: &table.command,
    };
    lines.svg()
}

fn latency(table: &Table) -> String {
    let subjects = table.subjects();
    let line = |subject: &str, name: String, figure| Series { name, points: points(table, subject, figure) };
    let mut series = Vec::new();
    for subject in &subjects {
        series.push(line(subject, format!("{subject}: p50"), "p50_ms"));
        series.push(line(subject, format!("{subject}: p99"), "p99_ms"));
    }
    // The disk is the same for all.
    series.extend(subjects.first().map(|subject| line(subject, "one fsync".into(), "sync_ms")));
    let lines = Lines {
        title: "From PUBLISH to PUBACK by load",
        x: ("% of the rate at full load", Scale::Linear),
        y: ("ms", Scale::Logarithmic),
        series,
        command: &table.command,
    };
    lines.svg()
}

fn peers(table: &Table) -> String {
    let bar = |row: &crate::scale::figures::Row| {
        let (cpu, rate) = (row.median("cpu_us")?, row.median("acknowledged_per_s")?);
        let note = format!("{cpu:.1} us, {} messages/s", crate::scale::thousands(rate));
        Some(Bar { name: row.subject.clone(), value: cpu, note })
    };
    let bars = Bars {
        title: "CPU of a message, beside other programs",
        unit: "us of CPU a message; a broker's own CPU is not counted",
        bars: table.rows.iter().filter_map(bar).collect(),
        command: &table.command,
    };
    bars.svg()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scale::figures::Figures;

    fn report() -> Report {
        let mut report = Report::default();
        for (_, name, _) in CHARTS {
            let mut table = Table::new(format!("cargo xtask bench scale --table {name}"));
            for (point, cpu) in [(10.0, 4.25), (10_000.0, 61.0)] {
                let figures =
                    [("cpu_us", cpu), ("acknowledged_per_s", 2e5), ("p50_ms", 1.0), ("p99_ms", 3.0)];
                let figures: Figures = figures.map(|(name, value)| (name.to_owned(), value)).into();
                table.add(point, "own & <shared>", figures);
            }
            report.tables.insert(name.into(), table);
        }
        report
    }

    /// The names of elements that are open at the end, or closed without being open.
    fn unbalanced(svg: &str) -> Vec<String> {
        let mut open = Vec::new();
        for tag in svg.split('<').skip(1) {
            let (tag, _) = tag.split_once('>').expect("each tag ends");
            let name = tag.split([' ', '/']).find(|name| !name.is_empty()).unwrap_or_default().to_owned();
            if tag.starts_with('/') {
                if open.last() != Some(&name) {
                    return vec![name];
                }
                open.pop();
            } else if !tag.ends_with('/') {
                open.push(name);
            }
        }
        open
    }

    #[test]
    fn each_chart_shows_its_figures_its_unit_and_its_command() {
        let folder = std::env::temp_dir().join(format!("tidegate-charts-{}", std::process::id()));
        draw_report(&report(), &folder).unwrap();
        for (name, table, _) in CHARTS {
            let svg = std::fs::read_to_string(folder.join(name).with_extension("svg")).unwrap();
            assert_eq!(unbalanced(&svg), [""; 0], "{name}");
            assert!(svg.contains(&format!("--table {table}")), "{name}");
            assert!(svg.contains("own &amp; &lt;shared&gt;"), "{name}: {svg}");
            assert!(svg.contains("prefers-color-scheme: dark"), "{name}");
            let value = if table == "latency" { ">3.0</text>" } else { "61" };
            assert!(
                svg.contains(value) && (svg.contains("us of CPU") || svg.contains(">ms<")),
                "{name}: {svg}"
            );
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{name}: {svg}");
        }
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_table_without_figures_leaves_its_chart_as_it_was() {
        let folder = std::env::temp_dir().join(format!("tidegate-no-charts-{}", std::process::id()));
        draw_report(&Report::default(), &folder).unwrap();
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
