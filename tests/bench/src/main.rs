//! The figures that the documentation quotes, each as a ratio of two things in one run.
//!
//! `cargo xtask bench` builds the release binary and the guests, and runs this.

mod admission;
mod bare;
mod broker;
mod budget;
mod containment;
mod decode;
mod durability;
mod end_to_end;
mod gateway;
mod load;
mod memory;
mod native;
mod pairs;
mod postgres;
mod sink;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

/// The paths of the things under test.
pub struct Paths {
    pub binary: PathBuf,
    pub guests: PathBuf,
    pub scratch: PathBuf,
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let verb = arguments.next().unwrap_or_else(|| "all".into());
    let target =
        PathBuf::from(std::env::var_os("BENCH_TARGET").context("cargo xtask bench sets BENCH_TARGET")?);
    let paths = Paths {
        binary: target.join("release/tidegate"),
        guests: target.join("guests"),
        scratch: target.join("bench"),
    };
    std::fs::create_dir_all(&paths.scratch)?;
    match verb.as_str() {
        "all" => {
            let decode = decode::measure(&paths)?;
            println!("{}", decode.table());
            containment::measure(&paths, None)?;
            let end_to_end = end_to_end::measure(&paths)?;
            println!("{}", end_to_end.table());
            println!("{}", end_to_end.stages(&decode));
            admission::measure(&paths)?;
            budget::measure(&paths)?;
            durability::measure(&paths, None)
        }
        "decode" => {
            let part = arguments.next();
            if part.is_none() {
                println!("{}", decode::measure(&paths)?.table());
            }
            containment::measure(&paths, part.as_deref())
        }
        "end-to-end" => {
            println!("{}", end_to_end::measure(&paths)?.table());
            Ok(())
        }
        "pairs" => pairs::measure(&paths, arguments),
        "admission" => admission::measure(&paths),
        "memory" => memory::measure(&paths, arguments),
        "budget" => budget::measure(&paths),
        "durability" => durability::measure(&paths, arguments.next().as_deref()),
        // For `perf record` and `valgrind --tool=callgrind`: one thing alone, so many times.
        "native" => {
            let messages = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
            decode::run_native(messages);
            Ok(())
        }
        "guest" => {
            let messages = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
            decode::run_guest(&paths, messages)
        }
        other => bail!(
            "{other:?}: expected all, decode [PART], end-to-end, pairs BINARY [PAIRS] [TENANTS] [MESSAGES], admission, \
             memory [PART] [--against BINARY], budget, durability [PART], native N or guest N"
        ),
    }
}
