//! The project's own commands, run as `cargo xtask VERB`.

mod process;
mod packages;
mod guests;
mod js;
mod langs;
mod console;
mod embed;
mod test;
mod fuzz;
mod demo;
mod screenshots;
mod bench;
mod supply;

use anyhow::{Result, bail};

const USAGE: &str = "\
cargo xtask VERB

  demo [--for 10s]    run a gateway with simulated devices and show what happens
  test [FILTER…]      install what is missing, build the decoders, run every test
  torture [--for 10m] [--seed N] [--nice]
                      kills, failing disks, brokers and databases, lost segments, strangers, hostile decoders,
                      clocks that step, by a plan from a seed; checks that nothing acknowledged is lost.
                      --nice: every core is busy beside it
  fuzz [TARGET…] [--seconds N] [--seed N]
                      search for bytes that break a promise of a reader (tests/fuzz)
  bench [PART]        print the figures of docs/PERFORMANCE.md, as ratios of one run; bench --help lists the parts.
                      bench scale: cost by tenants, devices, connections and more, beside another build
  guests [--tests | --js | --langs | --engine | --debian]
                      build the decoders to components in target/guests; --js: those in JavaScript; --langs: a new
                      decoder in C, Go, Python and JavaScript, in target/languages; --engine: the one that runs
                      scripts of JavaScript, which needs clang
  console             build the console, which `cargo build` then takes into the program
  screenshots         make the pictures of docs/pictures: the console of a demo, in headless Chromium
  supply              hold the dependencies against deny.toml: licences, sources, duplicates; advisories if it can
  sbom                write the bill of materials to target/sbom (CycloneDX)
  embed               build the decoders that come with the program, and put them into the source
  ci                  what CI runs: formatting, lints, dependencies, every test, a minute of each fuzz target";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(compiled) = fuzz::rustc(&arguments) {
        return compiled;
    }
    let Some((verb, rest)) = arguments.split_first() else { bail!("no verb given\n\n{USAGE}") };
    match verb.as_str() {
        "demo" => demo::demo(rest),
        "test" => test::test(rest),
        "fuzz" => fuzz::fuzz(rest),
        "torture" => test::torture(rest),
        "ci" => test::ci(),
        "bench" => bench::bench(rest),
        "guests" => guests::main(rest),
        "embed" => embed::embed(),
        "console" => console::build(),
        "screenshots" => screenshots::make(),
        "supply" => supply::check(),
        "sbom" => supply::sbom(),
        "help" | "--help" | "-h" => {
            println!("{USAGE}");
            Ok(())
        }
        other => bail!("unknown verb {other:?}\n\n{USAGE}"),
    }
}
