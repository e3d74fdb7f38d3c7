//! The time from PUBLISH to PUBACK at half of the full load, beside one fsync of the same disk.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::Paths;
use crate::end_to_end;
use crate::gateway::{Gateway, Setup};
use crate::load::{Load, Plan};
use crate::sink::Sink;

const SECONDS: f64 = 6.0;

/// Bytes of one append: what the spool writes for some hundred messages.
const APPEND_BYTES: usize = 64 << 10;

const APPENDS: usize = 200;

/// The median time of an append to a file in `folder` with its fdatasync, on a machine that does nothing else.
pub fn one_sync(folder: &Path) -> Result<Duration> {
    fs::create_dir_all(folder)?;
    let path = folder.join("sync");
    let mut file = fs::File::create(&path)?;
    let bytes = vec![b'x'; APPEND_BYTES];
    let mut times = Vec::with_capacity(APPENDS);
    for _ in 0..APPENDS {
        let began = Instant::now();
        file.write_all(&bytes)?;
        file.sync_data()?;
        times.push(began.elapsed());
    }
    fs::remove_file(path)?;
    times.sort_unstable();
    Ok(times[APPENDS / 2])
}

/// Measures the full load, then half of it.
///
/// # Errors
/// A run fails.
pub fn measure(paths: &Paths) -> Result<()> {
    let full = end_to_end::listener_run(paths, &paths.binary, 10, 600_000)?.per_second();
    let sync = one_sync(&paths.scratch.join("sync"))?;
    let per_second = full / 2.0;
    let messages = (per_second * SECONDS) as usize / 8 * 8;
    let plan = Plan { name: "tenant", tenants: 10, devices: 1_000, connections: 8, messages, window: 2_000 };
    let sink = Sink::start(Duration::ZERO)?;
    let plans = [&plan];
    let gateway = Gateway::start(&Setup::new(paths, "gateway", &plans, &sink))?;
    let paced = Load::prepare(&plan, &gateway.listener)?.run_at(per_second)?;
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    println!("From PUBLISH to PUBACK at {per_second:.0} messages a second, half of the full load\n");
    println!("| | ms |\n|---|---|");
    println!(
        "| one fdatasync behind {} KiB, median of {APPENDS}, nothing else running | {:.2} |",
        APPEND_BYTES >> 10,
        ms(sync)
    );
    for (name, share) in [("median", 0.5), ("p90", 0.9), ("p99", 0.99)] {
        println!("| PUBLISH to PUBACK, {name} | {:.2} |", ms(paced.percentile(share)));
    }
    println!("\n| ratio | measured | asked |\n|---|---|---|");
    println!("| p99 / one fdatasync | {:.1} | at most 3 |\n", ms(paced.percentile(0.99)) / ms(sync));
    Ok(())
}
