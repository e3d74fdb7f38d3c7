//! One run at full load: a gateway of a subject, its devices, and what a message cost.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::Paths;
use crate::gateway::{Gateway, Setup, Usage};
use crate::load::Plan;
use crate::scale::figures::Figures;
use crate::scale::subjects::Subject;
use crate::sink::Sink;
use crate::steady::{Sent, Steady};

/// The longest time in which each device is to send once before the clock starts.
const WARM_UP: Duration = Duration::from_secs(10);

/// The longest wait for lines that are acknowledged.
const DRAIN: Duration = Duration::from_secs(180);

const SPOOL: &str = "[spool]\nbytes_max = 4294967296\ntenant_bytes_max = 4294967296\n";

/// The load of a run, and the layout of its databases.
#[derive(Clone, Debug)]
pub struct Case {
    pub plan: Plan,
    /// All tenants in one database, told apart by a tag; else each has its own.
    pub one_database: bool,
    pub metrics: usize,
}

/// A gateway of the subject for the case, with lines going to the sink.
pub fn start(paths: &Paths, subject: &Subject, case: &Case, sink: &Sink) -> Result<Gateway> {
    let plans = [&case.plan];
    let one = "database = \"telemetry\"\ntenant_tag = \"tenant\"\n";
    Gateway::start(&Setup {
        binary: &subject.binary,
        route_file: subject.route_file,
        output: if case.one_database { one } else { "" },
        more: SPOOL,
        ..Setup::new(paths, "scale", &plans, sink)
    })
}

/// Loads a new gateway for `time`, after each device has sent once.
pub fn run(paths: &Paths, subject: &Subject, case: &Case, time: Duration) -> Result<Figures> {
    let sink = Sink::start(Duration::ZERO)?;
    let mut gateway = start(paths, subject, case, &sink)?;
    // The first start compiles; the time of the second one is that of the devices.
    let ready = gateway.kill_and_restart(&subject.binary)?;
    let empty = gateway.resident()?;
    let mut load = Steady::prepare(&case.plan, &gateway.listener, case.metrics)?;
    let connected = gateway.resident()?;
    let warm = load.warm_up(WARM_UP)?;
    drain(&gateway, &sink, warm.messages)?;
    let (before, posts) = (gateway.usage()?, sink.posts());
    let sent = load.run_for(time)?;
    drain(&gateway, &sink, warm.messages + sent.messages)?;
    let usage = gateway.usage()?.since(&before);
    load.disconnect()?;
    let books = gateway.get("/api/v1/books")?;
    ensure!(books.contains("\"balanced\":true"), "the books do not balance: {books}");
    let mut figures = of_usage(&usage, &sent);
    let lines_a_post = sent.messages as f64 / (sink.posts() - posts).max(1) as f64;
    figures.extend([
        ("lines_a_post".into(), lines_a_post),
        ("all_messages".into(), (warm.messages + sent.messages) as f64),
        ("ready_s".into(), ready.as_secs_f64()),
        ("connection_kb".into(), (connected - empty).max(0.0) / 1e3 / case.plan.connections as f64),
    ]);
    Ok(figures)
}

/// The cost of a message, by thread too.
pub fn of_usage(usage: &Usage, sent: &Sent) -> Figures {
    let a_message = |cpu: Duration| cpu.as_secs_f64() * 1e6 / sent.messages as f64;
    let threads = usage.threads.iter().map(|(name, cpu)| (format!("{name}_us"), a_message(*cpu)));
    let mut figures: Figures = threads.filter(|(_, us)| *us >= 0.01).collect();
    figures.extend([
        ("cpu_us".into(), a_message(usage.cpu)),
        ("acknowledged_per_s".into(), sent.messages as f64 / sent.took.as_secs_f64()),
        ("waits_a_thousand".into(), usage.waits as f64 * 1e3 / sent.messages as f64),
        ("resident_mb".into(), usage.resident_bytes as f64 / 1e6),
    ]);
    figures
}

/// Waits until the sink has all lines.
pub fn drain(gateway: &Gateway, sink: &Sink, lines: u64) -> Result<()> {
    let began = Instant::now();
    while sink.lines() < lines {
        ensure!(
            began.elapsed() < DRAIN,
            "{} of {lines} lines arrived within {} s; {}",
            sink.lines(),
            DRAIN.as_secs(),
            gateway.get("/api/v1/spool")?
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
