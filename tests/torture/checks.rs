//! The checks: at each sample while it runs, and of the databases at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::devices::{Device, FIRST_NS, Fate, Kind, Reading, point_ns};
use super::watch::Watch;
use super::world::{MEMORY_BYTES_MAX, World};
use crate::harness::gateway::{Gateway, get};

const SAMPLE_MS: u64 = 50;

/// The samples between two looks at the books.
const BOOKS_EVERY: u64 = 6;

/// The time for what is spooled to be written once every database is well.
const WRITTEN_PATIENCE: Duration = Duration::from_secs(180);

/// Descriptors and threads that a process of some age may have more than a new one: idle connections to
/// databases, and threads of pools.
const GROWTH_MAX: usize = 24;

/// Takes samples until the run ends.
pub fn start(watch: &Arc<Watch>) -> std::thread::JoinHandle<()> {
    let watch = watch.clone();
    std::thread::spawn(move || {
        let mut number = 0;
        while !watch.is_stopped() {
            std::thread::sleep(Duration::from_millis(SAMPLE_MS));
            number += 1;
            let pid = watch.pid.load(Ordering::SeqCst);
            if pid == 0 {
                continue;
            }
            if !watch.is_disturbed() {
                watch.add_quiet_ms(SAMPLE_MS);
            }
            if number % BOOKS_EVERY == 0 {
                sample(&watch, pid);
            }
        }
    })
}

fn sample(watch: &Watch, pid: u32) {
    let (status, books) = get(&watch.admin, "/api/v1/books");
    if status == 200 && !books.contains("\"balanced\":true") {
        watch.fail(format!("the books do not balance: {books}"));
    }
    let peak = Figures::of(pid).map_or(0, |figures| figures.peak_bytes);
    if peak > MEMORY_BYTES_MAX {
        watch.fail(format!("{peak} bytes were resident, above {MEMORY_BYTES_MAX}"));
    }
}

/// Figures of a process, from proc(5).
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    pub peak_bytes: u64,
    pub threads: usize,
    pub descriptors: usize,
}

impl Figures {
    /// The figures; none if the process is gone.
    pub fn of(pid: u32) -> Option<Self> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let number = |name: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().trim_end_matches(" kB").parse().ok()
        };
        Some(Self {
            peak_bytes: number("VmHWM:")? << 10,
            threads: number("Threads:")? as usize,
            descriptors: std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count(),
        })
    }
}

/// Asserts that a process that nobody uses has no more than a new one.
pub fn assert_no_growth(old: u32, new: Figures) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let Some(figures) = Figures::of(old) else { return };
        let grown = |old: usize, new: usize| old > new + GROWTH_MAX;
        if !grown(figures.threads, new.threads) && !grown(figures.descriptors, new.descriptors) {
            return;
        }
        assert!(Instant::now() < deadline, "grown: {figures:?}, as a new process: {new:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Lines of all tenants together.
fn sum(gateway: &Gateway<'_>, key: &str) -> u64 {
    let books = gateway.json("/api/v1/books");
    let tenants = books["tenants"].as_object().unwrap();
    tenants.values().map(|tenant| tenant["lines"][key].as_u64().unwrap_or(0)).sum()
}

/// Waits until nothing is pending.
pub fn assert_all_written(gateway: &Gateway<'_>) {
    gateway.wait_for(WRITTEN_PATIENCE, "all written", |gateway| sum(gateway, "pending") == 0);
    gateway.assert_balanced();
}

/// Asserts that no line was given up.
pub fn assert_nothing_given_up(gateway: &Gateway<'_>) {
    for key in ["damaged", "dropped", "refused"] {
        let books = gateway.json("/api/v1/books");
        assert_eq!(sum(gateway, key), 0, "{key} lines\n{books:#}");
    }
}

/// Rows of a device in its database: time in nanoseconds, value.
fn rows(world: &World<'_>, device: &Device) -> Vec<(i64, i64)> {
    let (tenant, name, kind) = (device.tenant, &device.name, device.message_type());
    let field = if device.kind == Kind::Timeless { "v" } else { "seq" };
    if tenant == "victoria" {
        let selector = format!("{{__name__=\"{kind}_{field}\",device_id=\"{name}\"}}");
        let samples = world.runtime.block_on(world.victoria.samples(&selector));
        return samples.into_iter().map(|(ms, value)| (ms * 1_000_000, value as i64)).collect();
    }
    let database = if ["backlog", "rewrite"].contains(&tenant) { tenant } else { "common" };
    let statement =
        format!("SELECT \"{field}\" FROM \"{kind}\" WHERE device_id = '{name}' AND tenant = '{tenant}'");
    let answer = world.runtime.block_on(world.influxdb.ask(database, &statement));
    let rows = answer["results"][0]["series"][0]["values"].as_array().cloned().unwrap_or_default();
    let number = |value: &Value| value.as_i64().or_else(|| value.as_f64().map(|float| float as i64)).unwrap();
    rows.iter().map(|row| (number(&row[0]), number(&row[1]))).collect()
}

/// Readings by the broker that the gateway has acknowledged to it.
fn acknowledged_to_broker(world: &World<'_>) -> BTreeSet<i64> {
    let number = |end: &[u8]| -> Option<i64> {
        let text = std::str::from_utf8(end).ok()?;
        text.rsplit_once(':')?.1.strip_suffix('}')?.parse().ok()
    };
    let mut numbers = BTreeSet::new();
    for record in world.proxy.records() {
        record.assert_ordered();
        for end in record.ends.iter().take(record.acknowledged.len()) {
            numbers.insert(number(end).expect("the end of a reading"));
        }
    }
    numbers
}

/// Numbers as ranges, the first of them.
fn shown(numbers: &[i64]) -> String {
    let mut ranges: Vec<(i64, i64)> = Vec::new();
    for &number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    let text: Vec<String> = ranges.iter().take(20).map(|(first, last)| format!("{first}..={last}")).collect();
    format!("{} in {} ranges: {}", numbers.len(), ranges.len(), text.join(", "))
}

/// Compares a device's rows with what it remembers; gives each difference.
fn compare(world: &World<'_>, device: &Device) -> Vec<String> {
    let readings = device.readings();
    let rows = rows(world, device);
    let mut wrong = Vec::new();
    let acknowledged: BTreeSet<i64> = if device.broker.is_some() {
        acknowledged_to_broker(world)
    } else {
        let numbers = readings.iter().enumerate().filter(|(_, reading)| reading.fate == Fate::Acknowledged);
        numbers.map(|(index, _)| index as i64 + 1).collect()
    };
    let count = acknowledged.len();
    println!(
        "{}/{}: {} sent, {count} acknowledged, {} rows",
        device.tenant,
        device.name,
        readings.len(),
        rows.len()
    );
    if count == 0 {
        wrong.push("nothing was acknowledged".to_owned());
    }
    let unsent: Vec<_> =
        rows.iter().filter(|(_, value)| *value < 1 || *value > readings.len() as i64).collect();
    if !unsent.is_empty() {
        wrong.push(format!("values that were never sent: {unsent:?}"));
    }
    if device.kind == Kind::Rewriting {
        wrong.extend(wrong_points(world, &readings, &rows));
        return wrong;
    }
    let stored: BTreeSet<i64> = rows.iter().map(|(_, value)| *value).collect();
    let missing: Vec<i64> = acknowledged.difference(&stored).copied().collect();
    if !missing.is_empty() {
        wrong.push(format!("acknowledged and not stored: {}", shown(&missing)));
    }
    if device.kind == Kind::Timed {
        let other: Vec<_> = rows.iter().filter(|(at, value)| *at != FIRST_NS + value * 1_000_000).collect();
        if !other.is_empty() {
            wrong.push(format!("values at another time than theirs: {:?}", &other[..other.len().min(20)]));
        }
    }
    wrong
}

/// Points that hold another value than the last one that was sent for them and acknowledged.
fn wrong_points(world: &World<'_>, readings: &[Reading], rows: &[(i64, i64)]) -> Vec<String> {
    // By point: the first value, the last acknowledged one, and the last.
    let mut points: BTreeMap<u64, (i64, i64, i64)> = BTreeMap::new();
    for (value, reading) in (1..).zip(readings) {
        let (_, last_acknowledged, last) = points.entry(reading.point).or_insert((value, 0, 0));
        *last = value;
        if reading.fate == Fate::Acknowledged {
            *last_acknowledged = value;
        }
    }
    let overtaken = world.watch.overtaken_points.lock();
    let mut wrong = Vec::new();
    for (point, (first, last_acknowledged, last)) in points {
        let stored = rows.iter().find(|(at, _)| *at == point_ns(point)).map(|(_, value)| *value);
        // A reading may be stored twice, the second time for the next point.
        let at_least = if overtaken.contains(&point) { first } else { last_acknowledged };
        if last_acknowledged > 0 && !stored.is_some_and(|stored| (at_least..=last).contains(&stored)) {
            let words = format!("acknowledged was {last_acknowledged} of {first}..={last}");
            wrong.push(format!("point {point}: {stored:?} is stored, {words}"));
        }
    }
    wrong
}

/// Asserts that everything acknowledged is stored, and stored right.
pub fn assert_all_stored(world: &World<'_>) {
    let compared: Vec<String> = world
        .devices
        .iter()
        .flat_map(|device| {
            let differences = compare(world, device).into_iter();
            differences.map(|words| format!("{}/{}: {words}", device.tenant, device.name)).collect::<Vec<_>>()
        })
        .collect();
    assert!(compared.is_empty(), "{}", compared.join("\n"));
}
