//! Tidegate beside other programs that take the same messages.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::Paths;
use crate::bare::{self, Drained, Work};
use crate::end_to_end;
use crate::fluent_bit::{self, FluentBit};
use crate::load::{METRICS, Plan};
use crate::scale::case::{self, Case};
use crate::scale::figures::{Figures, Table};
use crate::scale::options::Options;
use crate::scale::print::{number, thousands};
use crate::scale::subjects;
use crate::sink::Sink;
use crate::steady::Steady;

const LISTENER: &str = "Tidegate's listener";
const FLUENT_BIT: &str = "Fluent Bit's MQTT input";
const BROKER: &str = "Tidegate behind Mosquitto";
const WRITE_FIRST: &str = "write first, as Telegraf does, behind Mosquitto";
const BARE: &str = "bare rumqttc behind Mosquitto";

/// Messages of a run behind the broker, which is the slowest part there.
const BROKER_MESSAGES: usize = 200_000;

fn case() -> Case {
    let plan =
        Plan { name: "tenant", tenants: 10, devices: 1_000, connections: 8, messages: 0, window: 2_000 };
    Case { plan, one_database: false, metrics: METRICS }
}

fn broker_plan() -> Plan {
    Plan { messages: BROKER_MESSAGES, connections: 4, window: 500, ..case().plan }
}

/// Measures each program once a round.
pub fn measure(paths: &Paths, options: &Options) -> Result<Table> {
    let fluent_bit = options.fluent_bit.clone().or_else(fluent_bit::installed);
    let mut table = Table::new(options.command_of("peers"));
    let this = &subjects::builds(paths, options)[0];
    for round in 1..=options.pairs {
        eprintln!("peers: round {round} of {}", options.pairs);
        table.add(1.0, LISTENER, case::run(paths, this, &case(), options.time)?);
        if let Some(program) = &fluent_bit {
            let sink = Sink::start(Duration::ZERO)?;
            let peer = FluentBit::start(program, &paths.scratch.join("fluent-bit"), &sink)?;
            table.add(1.0, FLUENT_BIT, fluent_bit_run(&peer, &sink, options.time)?);
        }
        let behind = end_to_end::broker_run(paths, &broker_plan())?;
        table.add(1.0, BROKER, figures(behind.per_second(), behind.cpu_us()));
        let sink = Sink::start(Duration::ZERO)?;
        for (name, work) in [(WRITE_FIRST, Work::WriteFirst(&sink.url)), (BARE, Work::Acknowledge)] {
            let drained: Drained = bare::behind_mosquitto(paths, &broker_plan(), work)?;
            table.add(1.0, name, figures(drained.per_second(), drained.cpu_us()));
        }
    }
    print(&table);
    match fluent_bit {
        Some(program) => println!("{}\n", fluent_bit::version(&program)?),
        None => println!(
            "Fluent Bit was not run: there is no fluent-bit in the path, and no --fluent-bit FILE.\n"
        ),
    }
    Ok(table)
}

fn figures(per_second: f64, cpu_us: f64) -> Figures {
    Figures::from([("acknowledged_per_s".into(), per_second), ("cpu_us".into(), cpu_us)])
}

/// The same load as the listener's.
fn fluent_bit_run(peer: &FluentBit, sink: &Sink, time: Duration) -> Result<Figures> {
    let mut load = Steady::prepare(&case().plan, &peer.address, METRICS)?;
    let warm = load.warm_up(time)?;
    wait(sink, warm.messages)?;
    let before = peer.usage()?;
    let sent = load.run_for(time)?;
    wait(sink, warm.messages + sent.messages)?;
    Ok(case::of_usage(&peer.usage()?.since(&before), &sent))
}

fn wait(sink: &Sink, lines: u64) -> Result<()> {
    let began = Instant::now();
    while sink.lines() < lines {
        ensure!(
            began.elapsed() < Duration::from_secs(120),
            "{} of {lines} lines of Fluent Bit arrived within 120 s",
            sink.lines()
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn print(table: &Table) {
    println!("The same messages, 10 tenants, 1,000 devices, QoS 1\n");
    println!(
        "| what | us of CPU a message | acknowledged/s | CPU / Tidegate's listener | rate / Tidegate's listener |\n\
         |---|---|---|---|---|"
    );
    let Some(own) = table.row(1.0, LISTENER) else { return };
    for row in &table.rows {
        let median = |figure| row.median(figure).unwrap_or(f64::NAN);
        let ratio = |figure| row.ratio(own, figure).unwrap_or(f64::NAN);
        println!(
            "| {} | {} | {} | {:.2} | {:.2} |",
            row.subject,
            number(median("cpu_us"), 2),
            thousands(median("acknowledged_per_s")),
            ratio("cpu_us"),
            ratio("acknowledged_per_s")
        );
    }
    println!();
}
