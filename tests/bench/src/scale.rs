//! The gateway at full load by tenants, databases, devices, connections, bytes and cores, beside another build and
//! beside other programs.

mod case;
mod contention;
mod cores;
pub mod figures;
mod latency;
mod options;
mod peers;
mod print;
mod subjects;
mod sweep;

use std::path::PathBuf;

use anyhow::Result;

use crate::Paths;
use figures::Report;
use options::Options;
pub use print::thousands;
use sweep::{SWEEPS, Sweep};

/// Tables that are not sweeps.
const OTHERS: [&str; 3] = ["latency", "cores", "peers"];

/// The file of the figures, unless an option names another.
pub fn file(paths: &Paths) -> PathBuf {
    paths.scratch.with_file_name("bench-scale.json")
}

/// Measures the tables that the arguments ask for, prints each, and keeps their figures.
pub fn measure(paths: &Paths, arguments: &[String]) -> Result<()> {
    let names: Vec<&str> = SWEEPS.iter().map(|sweep| sweep.name).chain(OTHERS).collect();
    let Some(options) = Options::parse(arguments, &names)? else {
        println!("{}", options::HELP);
        return Ok(());
    };
    let file = options.json.clone().unwrap_or_else(|| file(paths));
    for name in &options.tables {
        let table = match (name.as_str(), Sweep::named(name)) {
            (_, Some(sweep)) => sweep.measure(paths, &options)?,
            ("latency", _) => latency::measure(paths, &options)?,
            ("cores", _) => cores::measure(paths, &options)?,
            _ => peers::measure(paths, &options)?,
        };
        // Read again: another bench may have written a table of its own meanwhile.
        let mut report = Report::read(&file)?;
        report.tables.insert(name.clone(), table);
        report.write(&file)?;
    }
    println!("The figures are in {}.", file.display());
    Ok(())
}
