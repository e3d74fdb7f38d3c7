//! The listener beside another build of the gateway: runs in turn, and their ratio pair by pair.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::Paths;
use crate::end_to_end::{self, Run};
use crate::statistics::median;

/// Runs this build and `other` in turn and prints both, with the ratio of this build to `other`.
///
/// `arguments`: the other binary, the number of pairs (4), tenants (10), messages (1,000,000).
///
/// # Errors
/// The other binary is missing, or a run fails.
pub fn measure(paths: &Paths, mut arguments: impl Iterator<Item = String>) -> Result<()> {
    let other = PathBuf::from(arguments.next().context("expected the binary to compare with")?);
    let mut number = |default: usize| -> Result<usize> {
        arguments
            .next()
            .map_or(Ok(default), |text| text.parse().with_context(|| format!("{text:?} is no number")))
    };
    let (pairs, tenants, messages) = (number(4)?, number(10)?, number(1_000_000)?);
    println!("| pair | this: messages/s | other | ratio | this: CPU us | other | ratio | this: MB | other |");
    println!("|---|---|---|---|---|---|---|---|---|");
    let (mut rates, mut costs) = (Vec::new(), Vec::new());
    for pair in 1..=pairs {
        let run = |binary: &Path| end_to_end::listener_run(paths, binary, tenants, messages);
        // The first run of a pair is the dearer one on a machine that has rested: each is first in turn.
        let (this, that) = if pair % 2 == 1 {
            let this = run(&paths.binary)?;
            (this, run(&other)?)
        } else {
            let that = run(&other)?;
            (run(&paths.binary)?, that)
        };
        let (rate, cost) = (this.per_second() / that.per_second(), this.cpu_us() / that.cpu_us());
        let megabytes = |run: &Run| run.usage.resident_bytes as f64 / 1e6;
        println!(
            "| {pair} | {:.0} | {:.0} | {rate:.3} | {:.2} | {:.2} | {cost:.3} | {:.0} | {:.0} |",
            this.per_second(),
            that.per_second(),
            this.cpu_us(),
            that.cpu_us(),
            megabytes(&this),
            megabytes(&that),
        );
        rates.push(rate);
        costs.push(cost);
    }
    println!("\nmedian ratios: {:.3} messages/s, {:.3} CPU a message", median(rates), median(costs));
    Ok(())
}
