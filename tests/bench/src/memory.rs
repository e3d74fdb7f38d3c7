//! Resident memory, and the time to start, with many devices and connections.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tidegate_simulator::Device;

use crate::Paths;
use crate::admission;
use crate::end_to_end;
use crate::gateway::{Gateway, Setup};
use crate::load::{Load, Plan, payload};
use crate::sink::Sink;

const MANY_DEVICES: usize = 1_000_000;
const FEW_DEVICES: usize = 1_000;
const CONNECTIONS: usize = 10_000;
const CACHED_DEVICES: usize = 100_000;

/// A figure of one binary.
struct Figure {
    name: String,
    value: f64,
    asked: &'static str,
}

fn figure(name: impl Into<String>, value: f64, asked: &'static str) -> Figure {
    Figure { name: name.into(), value, asked }
}

/// Measures a part, or all of them; beside another binary if `--against BINARY` names one.
///
/// # Errors
/// A part is unknown, or a run fails.
pub fn measure(paths: &Paths, arguments: &[String]) -> Result<()> {
    let mut arguments = arguments.to_vec();
    let mut against = None;
    if let Some(place) = arguments.iter().position(|argument| argument == "--against") {
        let named = arguments.drain(place..).nth(1).context("--against: expected a binary")?;
        against = Some(PathBuf::from(named));
    }
    let parts: [(&str, Part); 5] = [
        ("load", load),
        ("devices", devices),
        ("cost", cost),
        ("connections", connections),
        ("postgres", postgres),
    ];
    let named = arguments.first();
    let mut chosen = parts.iter().filter(|(name, _)| named.is_none_or(|named| named == name)).peekable();
    if chosen.peek().is_none() {
        bail!("expected load, devices, cost, connections or postgres; and --against BINARY");
    }
    println!("| | measured | other | ratio | asked |\n|---|---|---|---|---|");
    for (_, part) in chosen {
        let this = part(paths, &paths.binary)?;
        let other = against.as_deref().map(|other| part(paths, other)).transpose()?;
        for (place, Figure { name, value, asked }) in this.iter().enumerate() {
            let beside = match &other {
                Some(other) => format!("{:.2} | {:.2}", other[place].value, value / other[place].value),
                None => " | ".into(),
            };
            println!("| {name} | {value:.2} | {beside} | {asked} |");
        }
    }
    println!();
    Ok(())
}

type Part = fn(&Paths, &Path) -> Result<Vec<Figure>>;

fn start(paths: &Paths, binary: &Path, name: &str, plan: &Plan, sink: &Sink) -> Result<Gateway> {
    Gateway::start(&Setup { binary, ..Setup::new(paths, name, &[plan], sink) })
}

fn megabytes(bytes: f64) -> f64 {
    bytes / 1e6
}

/// Ten tenants, without work and at full load.
fn load(paths: &Paths, binary: &Path) -> Result<Vec<Figure>> {
    let (plan, sink) = (many(FEW_DEVICES), Sink::start(Duration::ZERO)?);
    let gateway = start(paths, binary, "idle", &plan, &sink)?;
    let idle = gateway.resident()?;
    drop(gateway);
    let run = end_to_end::listener_run(paths, binary, 10, 1_000_000)?;
    Ok(vec![
        figure("10 tenants, 1,000 devices without work, resident MB", megabytes(idle), ""),
        figure(
            "10 tenants, 1,000 devices at full load, peak MB",
            megabytes(run.usage.resident_bytes as f64),
            "60",
        ),
        figure("CPU us a message there", run.cpu_us(), ""),
    ])
}

fn many(devices: usize) -> Plan {
    Plan { name: "tenant", tenants: 10, devices, connections: 8, messages: MANY_DEVICES, window: 2_000 }
}

/// A million devices in a file: the start, and a reload.
fn devices(paths: &Paths, binary: &Path) -> Result<Vec<Figure>> {
    let (plan, sink) = (many(MANY_DEVICES), Sink::start(Duration::ZERO)?);
    let mut gateway = start(paths, binary, "devices", &plan, &sink)?;
    let ready = gateway.kill_and_restart(binary)?;
    let (peak, resident) = (gateway.peak()?, gateway.resident()?);
    let mut figures = vec![
        figure("1,000,000 devices in a file: ready after s", ready.as_secs_f64(), "5"),
        figure("peak MB at the start", megabytes(peak), "200"),
        figure("resident MB then", megabytes(resident), ""),
    ];
    let folder = gateway.folder.clone();
    let path = folder.join("devices.csv");
    let text = fs::read_to_string(&path)?;
    let (header, lines) = text.split_once('\n').context("the file has a header")?;
    let places = [("at its end", false), ("at its begin", true)];
    for (number, (name, at_the_begin)) in (MANY_DEVICES..).zip(places) {
        let added = plan_line(&plan, number);
        let changed = if at_the_begin {
            format!("{header}\n{added}{lines}")
        } else {
            format!("{header}\n{lines}{added}")
        };
        gateway.forget_peak()?;
        fs::write(folder.join(".devices"), changed)?;
        fs::rename(folder.join(".devices"), &path)?;
        let began = Instant::now();
        until_it_may_send(&gateway, &sink, &plan, number)?;
        figures.push(figure(
            format!("a device more {name}: s until it may send"),
            began.elapsed().as_secs_f64(),
            "",
        ));
        figures.push(figure("peak MB", megabytes(gateway.peak()?), ""));
    }
    std::thread::sleep(Duration::from_secs(2));
    figures.push(figure("resident MB two seconds later", megabytes(gateway.resident()?), ""));
    Ok(figures)
}

fn plan_line(plan: &Plan, device: usize) -> String {
    let hash = tidegate::admission::registry::token_hash(&plan.token(device));
    format!("{},{},lab-1,ACTIVE,{hash}\n", plan.tenant_of(device), plan.device_name(device))
}

/// Sends messages of a device until one arrives at the database.
fn until_it_may_send(gateway: &Gateway, sink: &Sink, plan: &Plan, number: usize) -> Result<()> {
    let before = sink.lines();
    let mut device = Device::connect(&gateway.listener, "new")?;
    let topic = format!("tenant/{}/device/{}/telemetry", plan.tenant_of(number), plan.device_name(number));
    for _ in 0..6_000 {
        device.publish(&topic, payload(0, &plan.token(number)).as_bytes())?;
        std::thread::sleep(Duration::from_millis(20));
        if sink.lines() > before {
            return Ok(());
        }
    }
    bail!("{} may not send within two minutes", plan.device_name(number))
}

/// The cost of a message of a million devices that take turns, and of a thousand.
fn cost(paths: &Paths, binary: &Path) -> Result<Vec<Figure>> {
    let mut costs = [Vec::new(), Vec::new()];
    let mut peak = 0.0_f64;
    for _ in 0..3 {
        for (costs, devices) in costs.iter_mut().zip([FEW_DEVICES, MANY_DEVICES]) {
            let (us, resident) = cost_of(paths, binary, devices)?;
            costs.push(us);
            peak = peak.max(resident);
        }
    }
    let [few, many] = costs.map(crate::statistics::median);
    Ok(vec![
        figure("CPU us a message, 1,000 devices in turns", few, ""),
        figure("1,000,000 devices in turns", many, ""),
        figure("1,000,000 / 1,000", many / few, "1.3"),
        figure("peak MB then", megabytes(peak), ""),
    ])
}

/// CPU of a message after every device has sent one, and the highest resident memory.
fn cost_of(paths: &Paths, binary: &Path, devices: usize) -> Result<(f64, f64)> {
    let (plan, sink) = (many(devices), Sink::start(Duration::ZERO)?);
    let gateway = start(paths, binary, "cost", &plan, &sink)?;
    send_all(&gateway, &sink, &plan)?;
    let before = gateway.usage()?;
    send_all(&gateway, &sink, &plan)?;
    let used = gateway.usage()?.since(&before);
    Ok((used.cpu.as_secs_f64() * 1e6 / plan.messages as f64, used.resident_bytes as f64))
}

/// Sends a load and waits for its lines.
fn send_all(gateway: &Gateway, sink: &Sink, plan: &Plan) -> Result<()> {
    let before = sink.lines();
    Load::prepare(plan, &gateway.listener)?.run()?;
    let began = Instant::now();
    while sink.lines() - before < plan.messages as u64 {
        ensure!(began.elapsed() < Duration::from_secs(120), "{} lines", sink.lines() - before);
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Connections that have sent a message each and wait.
fn connections(paths: &Paths, binary: &Path) -> Result<Vec<Figure>> {
    let plan = Plan { name: "tenant", tenants: 10, devices: 1, connections: 1, messages: 1, window: 1 };
    let plan = Plan { devices: FEW_DEVICES, ..plan };
    let sink = Sink::start(Duration::ZERO)?;
    let gateway = start(paths, binary, "connections", &plan, &sink)?;
    Load::prepare(&Plan { messages: 10_000, window: 100, ..plan.clone() }, &gateway.listener)?.run()?;
    let before = gateway.resident()?;
    let mut open = Vec::with_capacity(CONNECTIONS);
    for n in 0..CONNECTIONS {
        let connected = Device::connect(&gateway.listener, &format!("idle-{n:05}"));
        let mut device = connected.context("does `ulimit -n` allow 10,000 connections?")?;
        let (of, number) = (n % FEW_DEVICES, n / FEW_DEVICES);
        let topic = format!("tenant/{}/device/{}/telemetry", plan.tenant_of(of), plan.device_name(of));
        device.publish(&topic, payload(number, &plan.token(of)).as_bytes())?;
        open.push(device);
    }
    std::thread::sleep(Duration::from_secs(2));
    let each = (gateway.resident()? - before) / CONNECTIONS as f64;
    Ok(vec![figure("10,000 connections that wait: kB each", each / 1e3, "6")])
}

/// Devices in PostgreSQL, all of them in the cache.
fn postgres(paths: &Paths, binary: &Path) -> Result<Vec<Figure>> {
    let (peak, resident) = admission::memory_of_cached(paths, binary, CACHED_DEVICES)?;
    Ok(vec![
        figure("100,000 devices of PostgreSQL in the cache: peak MB", megabytes(peak), "150"),
        figure("resident MB then", megabytes(resident), ""),
    ])
}
