//! The whole gateway: from Mosquitto and through the listener, to a sink that counts.

use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::Paths;
use crate::bare::{self, Work};
use crate::broker::Broker;
use crate::gateway::{Gateway, Setup, Source, Usage};
use crate::load::{Load, Plan};
use crate::sink::Sink;

const TENANTS: usize = 10;
const DEVICES: usize = 1_000;
const BROKER_MESSAGES: usize = 200_000;
const LISTENER_MESSAGES: usize = 1_000_000;

/// One run.
pub struct Run {
    pub messages: usize,
    pub took: Duration,
    pub usage: Usage,
    pub posts: u64,
}

impl Run {
    pub fn per_second(&self) -> f64 {
        self.messages as f64 / self.took.as_secs_f64()
    }

    pub fn cpu_us(&self) -> f64 {
        self.usage.cpu.as_secs_f64() * 1e6 / self.messages as f64
    }
}

/// The runs of one bench.
pub struct Figures {
    bare_per_second: f64,
    broker: Run,
    listener: Run,
    value_us: f64,
}

fn plan(messages: usize, connections: usize, window: usize) -> Plan {
    Plan { name: "tenant", tenants: TENANTS, devices: DEVICES, connections, messages, window }
}

/// A bare client behind the same broker and the same load.
fn bare_run(paths: &Paths) -> Result<f64> {
    let plan = plan(BROKER_MESSAGES, 4, 500);
    Ok(bare::behind_mosquitto(paths, &plan, Work::Acknowledge)?.per_second())
}

/// One run of this build behind a Mosquitto of its own.
pub fn broker_run(paths: &Paths, plan: &Plan) -> Result<Run> {
    let broker = Broker::start(&paths.scratch.join("broker"))?;
    gateway_run(paths, &paths.binary, plan, Some(&broker))
}

/// One run of `binary` through its listener, with so many tenants.
pub fn listener_run(paths: &Paths, binary: &Path, tenants: usize, messages: usize) -> Result<Run> {
    let plan = Plan { tenants, devices: DEVICES.max(tenants), ..plan(messages, 8, 2_000) };
    gateway_run(paths, binary, &plan, None)
}

fn gateway_run(paths: &Paths, binary: &Path, plan: &Plan, broker: Option<&Broker>) -> Result<Run> {
    let sink = Sink::start(Duration::ZERO)?;
    let url = broker.map(|broker| format!("mqtt://{}", broker.address));
    let source = url.as_deref().map_or(Source::Listener, Source::Broker);
    let plans = [plan];
    let gateway = Gateway::start(&Setup { binary, source, ..Setup::new(paths, "gateway", &plans, &sink) })?;
    let address = broker.map_or(gateway.listener.as_str(), |broker| broker.address.as_str());
    let load = Load::prepare(plan, address)?;
    let before = gateway.usage()?;
    let started = Instant::now();
    load.run()?;
    let messages = plan.messages / plan.connections * plan.connections;
    while sink.lines() < messages as u64 {
        ensure!(
            started.elapsed() < Duration::from_secs(120),
            "{} of {messages} lines arrived within 120 s; {}",
            sink.lines(),
            gateway.get("/api/v1/books")?
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    let took = started.elapsed();
    let usage = gateway.usage()?.since(&before);
    let books = gateway.get("/api/v1/books")?;
    ensure!(books.contains("\"balanced\":true"), "the books do not balance: {books}");
    ensure!(sink.lines() == messages as u64, "{} lines for {messages} messages", sink.lines());
    Ok(Run { messages, took, usage, posts: sink.posts() })
}

pub fn measure(paths: &Paths) -> Result<Figures> {
    // The bare client before and after, so that a machine that drifts shows.
    let bare_before = bare_run(paths)?;
    let broker = broker_run(paths, &plan(BROKER_MESSAGES, 4, 500))?;
    let bare_after = bare_run(paths)?;
    let listener = gateway_run(paths, &paths.binary, &plan(LISTENER_MESSAGES, 8, 2_000), None)?;
    Ok(Figures {
        bare_per_second: (bare_before + bare_after) / 2.0,
        broker,
        listener,
        value_us: crate::decode::serde_value_us(),
    })
}

impl Figures {
    pub fn table(&self) -> String {
        let mut text =
            String::from("End to end: 10 tenants, 1,000 devices, QoS 1, to a sink that counts\n\n");
        let _ = writeln!(text, "| what | messages/s | CPU us a message | lines a POST |\n|---|---|---|---|");
        let _ = writeln!(
            text,
            "| bare rumqttc behind Mosquitto, acknowledges only | {:.0} | | |",
            self.bare_per_second
        );
        for (name, run) in
            [("Tidegate behind Mosquitto", &self.broker), ("Tidegate's listener", &self.listener)]
        {
            let lines_a_post = run.messages as f64 / run.posts.max(1) as f64;
            let _ = writeln!(
                text,
                "| {name} | {:.0} | {:.2} | {lines_a_post:.0} |",
                run.per_second(),
                run.cpu_us()
            );
        }
        let _ = writeln!(text, "\n| ratio | measured | asked |\n|---|---|---|");
        let _ = writeln!(
            text,
            "| Tidegate / bare rumqttc, behind Mosquitto | {:.2} | at least 0.8 |",
            self.broker.per_second() / self.bare_per_second
        );
        let _ = writeln!(
            text,
            "| listener / behind Mosquitto | {:.2} | at least 2 |",
            self.listener.per_second() / self.broker.per_second()
        );
        let _ = writeln!(
            text,
            "| CPU us a message through the listener | {:.2} | at most {:.1} (8 where serde_json's Value needs 1.4 us; here {:.2}) |",
            self.listener.cpu_us(),
            8.0 * self.value_us / 1.4,
            self.value_us
        );
        let _ = writeln!(
            text,
            "| resident memory at 10 tenants, 1,000 devices, peak | {:.0} MB | under 150 |",
            self.listener.usage.resident_bytes as f64 / 1e6
        );
        let _ = writeln!(
            text,
            "\nCPU by thread through the listener:\n\n| threads | us a message | share |\n|---|---|---|"
        );
        let mut threads = self.listener.usage.threads.clone();
        threads.sort_by_key(|(_, cpu)| std::cmp::Reverse(*cpu));
        for (name, cpu) in threads.iter().filter(|(_, cpu)| cpu.as_millis() > 0) {
            let us = cpu.as_secs_f64() * 1e6 / self.listener.messages as f64;
            let share = 100.0 * cpu.as_secs_f64() / self.listener.usage.cpu.as_secs_f64();
            let _ = writeln!(text, "| {name} | {us:.2} | {share:.0} % |");
        }
        text
    }

    /// The share of each stage of what a message costs through the listener. Admission and line
    /// check are measured alone, the rest is what their threads used beside them.
    pub fn stages(&self, alone: &crate::decode::Figures) -> String {
        let run = &self.listener;
        let of = |name: &str| {
            let cpu = run
                .usage
                .threads
                .iter()
                .find(|(thread, _)| thread == name)
                .map_or(Duration::ZERO, |(_, cpu)| *cpu);
            cpu.as_secs_f64() * 1e9 / run.messages as f64
        };
        let (io, decode) = (of("io"), of("decode"));
        let stages = [
            ("read, settle and acknowledge, write", io - alone.admit),
            ("admit", alone.admit),
            ("decode: group, call the guest, hand on", decode - alone.check),
            ("check", alone.check),
        ];
        let whole = run.usage.cpu.as_secs_f64() * 1e9 / run.messages as f64;
        let mut text = String::from(
            "Stages, of one message through the listener:\n\n| stage | ns | share |\n|---|---|---|\n",
        );
        for (stage, ns) in stages {
            let _ = writeln!(text, "| {stage} | {ns:.0} | {:.0} % |", 100.0 * ns / whole);
        }
        text
    }
}
