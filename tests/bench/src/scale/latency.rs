//! The time from PUBLISH to PUBACK by load, beside one fsync of the same disk.

use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::Paths;
use crate::load::{Load, METRICS, Plan};
use crate::scale::case::{self, Case};
use crate::scale::figures::{Figures, Table};
use crate::scale::options::Options;
use crate::scale::print::{self, Column};
use crate::scale::subjects::{self, Subject};
use crate::sink::Sink;
use crate::steady::Steady;

/// Percent of the rate at full load.
const POINTS: [usize; 6] = [2, 10, 25, 50, 70, 90];

/// Fsyncs of which the median is taken.
const SYNCS: usize = 50;

const COLUMNS: [Column; 4] = [
    Column { figure: "p50_ms", heading: "p50, ms", decimals: 1 },
    Column { figure: "p99_ms", heading: "p99, ms", decimals: 1 },
    Column { figure: "sync_ms", heading: "one fsync, ms", decimals: 2 },
    Column { figure: "sync_p99_ms", heading: "fsync, p99", decimals: 2 },
];

fn case(messages: usize) -> Case {
    let plan = Plan { name: "tenant", tenants: 10, devices: 1_000, connections: 8, messages, window: 2_000 };
    Case { plan, one_database: false, metrics: METRICS }
}

/// Measures the rows in rounds. The rates of all subjects are parts of the first one's at full load.
pub fn measure(paths: &Paths, options: &Options) -> Result<Table> {
    let mut subjects = subjects::builds(paths, options);
    let mut table = Table::new(options.command_of("latency"));
    let most = full_rate(paths, &subjects[0], options.time)?;
    for round in 1..=options.pairs {
        for subject in &subjects {
            for percent in options.points_or(&POINTS) {
                eprintln!("latency: round {round} of {}, {percent} %, {}", options.pairs, subject.name);
                let figures = run(paths, subject, most * percent as f64 / 100.0, options.time)?;
                table.add(percent as f64, subject.name, figures);
            }
        }
        subjects.reverse();
    }
    println!(
        "From PUBLISH to PUBACK, 10 tenants, by the share of the rate at full load, {most:.0} messages/s\n"
    );
    print::rows(&table, "% of full load", &COLUMNS);
    for subject in table.subjects() {
        for row in table.rows.iter().filter(|row| row.subject == subject && row.point == 50.0) {
            let ratio = row.median("syncs").unwrap_or(f64::NAN);
            println!("{subject}: p99 at half load is {ratio:.1} fsyncs. Asked: at most 3.");
        }
    }
    println!();
    Ok(table)
}

fn full_rate(paths: &Paths, subject: &Subject, time: Duration) -> Result<f64> {
    let case = case(0);
    let sink = Sink::start(Duration::ZERO)?;
    let gateway = case::start(paths, subject, &case, &sink)?;
    let mut load = Steady::prepare(&case.plan, &gateway.listener, case.metrics)?;
    load.warm_up(time)?;
    let sent = load.run_for(time)?;
    Ok(sent.messages as f64 / sent.took.as_secs_f64())
}

fn run(paths: &Paths, subject: &Subject, per_second: f64, time: Duration) -> Result<Figures> {
    let case = case((per_second * time.as_secs_f64()) as usize / 8 * 8);
    let sink = Sink::start(Duration::ZERO)?;
    let gateway = case::start(paths, subject, &case, &sink)?;
    let mut load = Steady::prepare(&case.plan, &gateway.listener, case.metrics)?;
    let warm = load.warm_up(time)?;
    load.disconnect()?;
    case::drain(&gateway, &sink, warm.messages)?;
    let (sync, sync_p99) = sync_times(&gateway.folder.join("sync-probe"))?;
    let paced = Load::prepare(&case.plan, &gateway.listener)?.run_at(per_second)?;
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let p99 = ms(paced.percentile(0.99));
    Ok(Figures::from([
        ("p50_ms".into(), ms(paced.percentile(0.5))),
        ("p99_ms".into(), p99),
        ("sync_ms".into(), ms(sync)),
        ("sync_p99_ms".into(), ms(sync_p99)),
        ("syncs".into(), p99 / ms(sync)),
        ("messages_per_s".into(), per_second),
    ]))
}

/// The median of the times of a write of 64 KiB at the end of a file with its fdatasync, as the spool
/// does it, and the slowest but one of a hundred.
fn sync_times(path: &std::path::Path) -> Result<(Duration, Duration)> {
    let mut file = File::create(path)?;
    let bytes = vec![0x5a; 64 << 10];
    let mut times = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let began = Instant::now();
        file.write_all(&bytes)?;
        file.sync_data()?;
        times.push(began.elapsed());
    }
    std::fs::remove_file(path)?;
    times.sort_unstable();
    Ok((times[SYNCS / 2], times[SYNCS - 1 - SYNCS / 100]))
}
