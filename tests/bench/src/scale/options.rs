//! The options of `scale`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

pub const HELP: &str = "\
cargo xtask bench scale [OPTION…]

Measures the listener at full load and prints a table of each question. What is compared runs in turn, round by
round; a figure is the median of the rounds, and a ratio is the median of the ratios of each round.

  --table NAME        one table: tenants, databases, devices, connections, payload, latency, cores or peers
                      (again for one more; all of them if there is none)
  --points A,B,…      only these rows, for one table that has rows by number: 10,1000
  --pairs N           rounds (3)
  --seconds S         time under load of each run (3)
  --against FILE      another build of tidegate, which gets columns of its own
  --fluent-bit FILE   the program of Fluent Bit for the table peers (fluent-bit of the path, if it is there)
  --json FILE         the figures; tables that are measured again are replaced (target/bench-scale.json)
  --help              this

cargo xtask bench charts [--json FILE] [--to FOLDER]   draws the charts of docs/PERFORMANCE.md from the figures

  cargo xtask bench scale --table tenants --points 10,1000 --pairs 3 --against ../old/target/release/tidegate
";

#[derive(Debug)]
pub struct Options {
    pub tables: Vec<String>,
    /// The rows of the only table; empty: its own.
    pub points: Vec<usize>,
    pub pairs: usize,
    pub time: Duration,
    pub against: Option<PathBuf>,
    pub fluent_bit: Option<PathBuf>,
    pub json: Option<PathBuf>,
}

impl Options {
    /// Reads the arguments behind `scale`; nothing if they ask for help. `names` are those of all tables.
    pub fn parse(arguments: &[String], names: &[&str]) -> Result<Option<Self>> {
        let mut options = Self {
            tables: Vec::new(),
            points: Vec::new(),
            pairs: 3,
            time: Duration::from_secs(3),
            against: None,
            fluent_bit: None,
            json: None,
        };
        let mut rest = arguments.iter();
        while let Some(option) = rest.next() {
            if matches!(option.as_str(), "--help" | "-h") {
                return Ok(None);
            }
            let value = || rest.as_slice().first().with_context(|| format!("{option} needs a value"));
            let number = || -> Result<usize> {
                let value = value()?;
                let number = value.parse().ok().filter(|number| *number > 0);
                number.with_context(|| format!("{option} {value:?}: expected a number above 0"))
            };
            match option.as_str() {
                "--table" => options.tables.push(table(value()?, names)?),
                "--points" => options.points = points(value()?)?,
                "--pairs" => options.pairs = number()?,
                "--seconds" => options.time = Duration::from_secs(number()? as u64),
                "--against" => options.against = Some(program(option, value()?)?),
                "--fluent-bit" => options.fluent_bit = Some(program(option, value()?)?),
                "--json" => options.json = Some(value()?.into()),
                other => bail!("{other:?} is no option of scale\n\n{HELP}"),
            }
            rest.next();
        }
        ensure!(
            options.points.is_empty() || options.tables.len() == 1,
            "--points needs the one table whose rows they are: --table NAME"
        );
        if options.tables.is_empty() {
            options.tables = names.iter().map(|name| (*name).to_owned()).collect();
        }
        Ok(Some(options))
    }

    /// The rows to measure: those that were asked for, or `usual`.
    pub fn points_or(&self, usual: &[usize]) -> Vec<usize> {
        if self.points.is_empty() { usual.to_vec() } else { self.points.clone() }
    }

    /// The command that measures one table as these options do, without paths of this machine.
    pub fn command_of(&self, table: &str) -> String {
        let mut command = format!("cargo xtask bench scale --table {table}");
        if !self.points.is_empty() {
            let points: Vec<String> = self.points.iter().map(usize::to_string).collect();
            command += &format!(" --points {}", points.join(","));
        }
        command += &format!(" --pairs {} --seconds {}", self.pairs, self.time.as_secs());
        if self.against.is_some() {
            command += " --against FILE";
        }
        command
    }
}

fn table(name: &str, names: &[&str]) -> Result<String> {
    ensure!(names.contains(&name), "--table {name:?}: expected one of {}", names.join(", "));
    Ok(name.to_owned())
}

fn points(text: &str) -> Result<Vec<usize>> {
    let point = |text: &str| {
        let point = text.parse().ok().filter(|point| *point > 0);
        point.with_context(|| format!("--points: {text:?} is no number above 0"))
    };
    text.split(',').map(point).collect()
}

fn program(option: &str, text: &str) -> Result<PathBuf> {
    let path = PathBuf::from(text);
    ensure!(path.is_file(), "{option} {text:?}: there is no such file");
    Ok(path.canonicalize()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Option<Options>> {
        let arguments: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        Options::parse(&arguments, &["tenants", "databases", "devices"])
    }

    #[test]
    fn options_are_read_and_a_wrong_one_names_itself() {
        let options = parse("--table tenants --points 10,1000 --pairs 5").unwrap().unwrap();
        assert_eq!(
            (options.tables, options.points, options.pairs),
            (vec!["tenants".into()], vec![10, 1_000], 5)
        );
        assert_eq!(parse("").unwrap().unwrap().tables, ["tenants", "databases", "devices"]);
        assert!(parse("--table tenants --help").unwrap().is_none());
        for (wrong, named) in [
            ("--table tenant", "databases"),
            ("--points 10", "--table NAME"),
            ("--table devices --points 10,x", "\"x\""),
            ("--pairs 0", "above 0"),
            ("--pairs", "needs a value"),
            ("--against /nowhere", "/nowhere"),
            ("--pair 3", "no option"),
        ] {
            let error = parse(wrong).unwrap_err().to_string();
            assert!(error.contains(named), "{wrong}: {error}");
        }
    }
}
