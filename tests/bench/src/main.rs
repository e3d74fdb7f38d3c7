//! The figures that the documentation quotes, each as a ratio of two things in one run.
//!
//! `cargo xtask bench` builds the release binary and the guests, and runs this.

mod admission;
mod bare;
mod broker;
mod budget;
mod charts;
mod containment;
mod decode;
mod durability;
mod end_to_end;
mod fluent_bit;
mod formats;
mod frames;
mod gateway;
mod half_load;
mod js_codec;
mod languages;
mod load;
mod mapping;
mod memory;
mod native;
mod pairs;
mod postgres;
mod refusals;
mod scale;
mod sink;
mod statistics;
mod steady;
mod tenants;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

/// The paths of the things under test.
pub struct Paths {
    pub binary: PathBuf,
    pub guests: PathBuf,
    pub scratch: PathBuf,
}

const USAGE: &str = "\
cargo xtask bench [PART]      without a part: everything but languages, js routes, memory, pairs, scale and charts

  decode [PART]               the decode path; limits, tenants, start, script, swap, routes, swaps or burner
  end-to-end                  the whole gateway, behind a broker and through the listener
  admission [cache]           the cache of devices, a cache that is too small, a cold start
  mapping [route N | hand N]  ten fields by a mapping, beside a decoder by hand
  formats                     Sparkplug B, Cayenne LPP and SenML in the sandbox, beside the same code natively
  js [routes]                 a JavaScript codec beside node, and from put to its first message; 10,000 routes
  languages                   new decoders in other languages, which cargo xtask guests --langs builds
  memory [PART] [--against FILE]
                              resident memory: load, devices, cost, connections or postgres
  budget                      a neighbour beside a tenant that fills its budget of memory
  half-load                   from PUBLISH to PUBACK at half of the full load, beside one fdatasync
  refusals                    the CPU that a refused message costs, reason by reason
  frames                      a frame in the spool and in the writer, by its messages
  durability [PART]           syncs, late, trickle, dead or recovery
  scale [OPTION…]             cost by tenants, databases, devices, connections, payload, load and cores, and
                              beside other programs; scale --help
  charts                      the charts of docs/PERFORMANCE.md, from the figures of scale
  pairs FILE [PAIRS] [TENANTS] [MESSAGES]
                              the listener beside another build, run by run
  native N, guest N, start N  one decoder alone, for profilers";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (part, rest) = match arguments.split_first() {
        Some((part, rest)) => (part.as_str(), rest),
        None => ("all", &[][..]),
    };
    if matches!(part, "--help" | "-h" | "help") {
        println!("{USAGE}");
        return Ok(());
    }
    let target =
        PathBuf::from(std::env::var_os("BENCH_TARGET").context("cargo xtask bench sets BENCH_TARGET")?);
    let paths = Paths {
        binary: target.join("release/tidegate"),
        guests: target.join("guests"),
        scratch: target.join("bench"),
    };
    std::fs::create_dir_all(&paths.scratch)?;
    run(&paths, part, rest)
}

fn run(paths: &Paths, part: &str, rest: &[String]) -> Result<()> {
    let sub_part = rest.first().map(String::as_str);
    // For `perf record` and `valgrind --tool=callgrind`: one thing alone, so many times.
    let messages = || sub_part.and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    match part {
        "all" => all(paths),
        "decode" => {
            if sub_part.is_none() {
                println!("{}", decode::measure(paths)?.table());
            }
            containment::measure(paths, sub_part)
        }
        "end-to-end" => {
            println!("{}", end_to_end::measure(paths)?.table());
            Ok(())
        }
        "scale" => scale::measure(paths, rest),
        "charts" => charts::draw(paths, rest),
        "pairs" => pairs::measure(paths, rest.iter().cloned()),
        "admission" => admission::measure(paths, sub_part),
        "mapping" => mapping::measure(rest),
        "formats" => formats::measure(paths),
        "js" => js_codec::measure(paths, sub_part),
        "languages" => languages::measure(paths),
        "memory" => memory::measure(paths, rest),
        "budget" => budget::measure(paths),
        "half-load" => half_load::measure(paths),
        "refusals" => refusals::measure(paths),
        "durability" => durability::measure(paths, sub_part),
        "frames" => frames::measure(paths, rest),
        "native" => {
            decode::run_native(messages());
            Ok(())
        }
        "guest" => decode::run_guest(paths, messages()),
        "start" => tenants::run_start(paths, messages()),
        other => bail!("{other:?} is no part of the bench\n\n{USAGE}"),
    }
}

fn all(paths: &Paths) -> Result<()> {
    let decode = decode::measure(paths)?;
    println!("{}", decode.table());
    containment::measure(paths, None)?;
    let end_to_end = end_to_end::measure(paths)?;
    println!("{}", end_to_end.table());
    println!("{}", end_to_end.stages(&decode));
    admission::measure(paths, None)?;
    mapping::measure(&[])?;
    formats::measure(paths)?;
    js_codec::measure(paths, None)?;
    budget::measure(paths)?;
    half_load::measure(paths)?;
    refusals::measure(paths)?;
    durability::measure(paths, None)
}
