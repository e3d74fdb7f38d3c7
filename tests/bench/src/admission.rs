//! Admission: the cost of a known device, and a registry in PostgreSQL that does not know all of
//! them: a cache that is too small, and a cold start.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::Paths;
use crate::decode;
use crate::gateway::{Gateway, Setup};
use crate::load::{Load, Plan};
use crate::postgres::Postgres;
use crate::sink::Sink;
use crate::statistics::median;

const DEVICES: usize = 100_000;
const CACHE_ENTRIES: usize = 10_000;
const MESSAGES: usize = 400_000;
const COLD_DEVICES: usize = 10_000;
/// Messages at once after the cold start.
const COLD_CHUNK: usize = 100_000;

fn plan(devices: usize, messages: usize) -> Plan {
    Plan { name: "tenant", tenants: 10, devices, connections: 8, messages, window: 2_000 }
}

/// A gateway whose devices are in PostgreSQL.
fn start(
    paths: &Paths,
    binary: &Path,
    sink: &Sink,
    postgres: &Postgres,
    cache_entries: usize,
) -> Result<Gateway> {
    let more = format!(
        "[registry]\nkind = \"postgres\"\nurl = \"{}\"\ncache_entries_max = {cache_entries}\n",
        postgres.url()
    );
    // Its devices are not in a file.
    Gateway::start(&Setup { binary, more: &more, ..Setup::new(paths, "admission", &[], sink) })
}

/// Messages acknowledged a second, once every device has sent one.
fn rate(paths: &Paths, postgres: &Postgres, cache_entries: usize) -> Result<(f64, Lookups)> {
    let sink = Sink::start(Duration::ZERO)?;
    let gateway = start(paths, &paths.binary, &sink, postgres, cache_entries)?;
    Load::prepare(&plan(DEVICES, DEVICES), &gateway.listener)?.run()?;
    let load = Load::prepare(&plan(DEVICES, MESSAGES), &gateway.listener)?;
    let before = Lookups::of(&gateway)?;
    let took = load.run()?;
    let lookups = Lookups::of(&gateway)?.since(&before);
    let books = gateway.get("/api/v1/books")?;
    ensure!(books.contains("\"balanced\":true"), "the books do not balance: {books}");
    Ok((MESSAGES as f64 / took.as_secs_f64(), lookups))
}

/// The gateway's counts of look-ups.
struct Lookups {
    hits: f64,
    misses: f64,
    queries: f64,
}

impl Lookups {
    fn of(gateway: &Gateway) -> Result<Self> {
        let of = |result: &str| {
            gateway.metric(&format!("tidegate_auth_cache_lookups_total{{result=\"{result}\"}}"))
        };
        Ok(Self {
            hits: of("hit")?,
            misses: of("miss")?,
            queries: gateway.metric("tidegate_registry_queries_total")?,
        })
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            hits: self.hits - before.hits,
            misses: self.misses - before.misses,
            queries: self.queries - before.queries,
        }
    }

    fn hit_percent(&self) -> f64 {
        100.0 * self.hits / (self.hits + self.misses)
    }
}

/// Ten thousand devices that are not in the cache, all at once.
struct ColdStart {
    took: Duration,
    queries: f64,
    /// Messages a second of each interval after the start, with the end of the interval.
    after: Vec<(Duration, f64)>,
}

fn cold_start(paths: &Paths, postgres: &Postgres) -> Result<ColdStart> {
    let cold = plan(COLD_DEVICES, COLD_DEVICES);
    postgres.register(&cold)?;
    let sink = Sink::start(Duration::ZERO)?;
    let gateway = start(paths, &paths.binary, &sink, postgres, 2 * COLD_DEVICES)?;
    let before = Lookups::of(&gateway)?;
    let all_at_once = Load::prepare(&Plan { window: COLD_DEVICES, ..cold }, &gateway.listener)?;
    let took = all_at_once.run()?;
    let queries = Lookups::of(&gateway)?.since(&before).queries;
    let (mut after, mut since) = (Vec::new(), took);
    for _ in 0..12 {
        let load = Load::prepare(&plan(COLD_DEVICES, COLD_CHUNK), &gateway.listener)?;
        let chunk = load.run()?;
        since += chunk;
        after.push((since, COLD_CHUNK as f64 / chunk.as_secs_f64()));
    }
    Ok(ColdStart { took, queries, after })
}

impl ColdStart {
    /// The speed with all devices in the cache: the median of the last eight.
    fn full_speed(&self) -> f64 {
        median(self.after[4..].iter().map(|(_, rate)| *rate).collect())
    }

    /// The end of the first interval with 90 % of the full speed; two such runs differ by a tenth.
    fn reached(&self) -> Option<Duration> {
        let reached = self.after.iter().find(|(_, rate)| *rate >= 0.9 * self.full_speed());
        reached.map(|(since, _)| *since)
    }
}

/// Makes the tables as the gateway wants them.
fn make_tables(paths: &Paths, postgres: &Postgres) -> Result<()> {
    let configuration = paths.scratch.join("admission.toml");
    let text = format!(
        "[listen]\naddress = \"127.0.0.1:0\"\n[registry]\nkind = \"postgres\"\nurl = \"{}\"\n",
        postgres.url()
    );
    fs::write(&configuration, text)?;
    let made = Command::new(&paths.binary)
        .args(["registry", "--config"])
        .arg(&configuration)
        .arg("init")
        .output()
        .context("cannot run the gateway's binary")?;
    ensure!(made.status.success(), "registry init: {}", String::from_utf8_lossy(&made.stderr));
    Ok(())
}

/// A PostgreSQL with the devices of a plan; its folder is one that every user may enter, for the server
/// runs as one of its own.
fn with_devices(paths: &Paths, devices: usize) -> Result<(Postgres, PathBuf)> {
    let folder = std::env::temp_dir().join(format!("tidegate-bench-postgres-{}", std::process::id()));
    let postgres = Postgres::start(&folder)?;
    make_tables(paths, &postgres)?;
    postgres.register(&plan(devices, 0))?;
    Ok((postgres, folder))
}

/// The highest and the last resident bytes of a gateway that has so many devices in its cache.
pub fn memory_of_cached(paths: &Paths, binary: &Path, devices: usize) -> Result<(f64, f64)> {
    let (postgres, folder) = with_devices(paths, devices)?;
    let sink = Sink::start(Duration::ZERO)?;
    let gateway = start(paths, binary, &sink, &postgres, devices)?;
    for _ in 0..3 {
        Load::prepare(&plan(devices, devices), &gateway.listener)?.run()?;
    }
    std::thread::sleep(Duration::from_secs(2));
    let memory = (gateway.peak()?, gateway.resident()?);
    drop(postgres);
    fs::remove_dir_all(&folder)?;
    Ok(memory)
}

/// `part`: `cache` for the first table alone.
pub fn measure(paths: &Paths, part: Option<&str>) -> Result<()> {
    println!("Admission of devices of a file; CPU of one thread\n");
    println!("| devices that take turns | entries of the cache | ns a message | asked |\n|---|---|---|---|");
    let cases = [
        (64, 64, "under 1,000"),
        (CACHE_ENTRIES, CACHE_ENTRIES, "under 1,000"),
        (DEVICES, DEVICES, ""),
        (DEVICES, CACHE_ENTRIES, ""),
    ];
    for (devices, entries, asked) in cases {
        let ns = decode::measure_turns(paths, devices, entries)?;
        println!("| {devices} | {entries} | {ns:.0} | {asked} |");
    }
    if part == Some("cache") {
        return Ok(());
    }

    let (postgres, folder) = with_devices(paths, DEVICES)?;
    let mut rates = [Vec::new(), Vec::new()];
    let mut thrashing = None;
    for _ in 0..3 {
        rates[0].push(rate(paths, &postgres, 2 * DEVICES)?.0);
        let (rate, lookups) = rate(paths, &postgres, CACHE_ENTRIES)?;
        rates[1].push(rate);
        thrashing = Some(lookups);
    }
    let [hits, misses] = rates.map(median);
    let lookups = thrashing.context("there were turns")?;
    println!(
        "\n{DEVICES} devices that take turns, in PostgreSQL on the same machine; medians of three turns\n"
    );
    println!("| cache_entries_max | acknowledged messages/s | hits | devices a query |\n|---|---|---|---|");
    println!("| {} | {hits:.0} | 100 % | |", 2 * DEVICES);
    println!(
        "| {CACHE_ENTRIES} | {misses:.0} | {:.0} % | {:.0} |",
        lookups.hit_percent(),
        lookups.misses / lookups.queries
    );
    println!("\n| ratio | measured | asked |\n|---|---|---|");
    println!("| thrashing / all known | {:.2} | at least 0.3 |", misses / hits);

    let cold = cold_start(paths, &postgres)?;
    println!("\n{COLD_DEVICES} devices that nobody has heard of, all at once\n");
    println!("| | measured | asked |\n|---|---|---|");
    println!("| all acknowledged, and so known, after | {:.2} s | |", cold.took.as_secs_f64());
    println!("| queries, of at most 500 devices each | {} | batched |", cold.queries);
    println!("| queries a device | {:.4} | at most 1 |", cold.queries / COLD_DEVICES as f64);
    let reached = cold.reached().context("half of them were faster than the median")?;
    println!("| at full speed, of messages after the start, by | {:.2} s | 3 s |", reached.as_secs_f64());
    let chunks: Vec<String> = cold.after.iter().map(|(_, rate)| format!("{:.0}", rate / 1e3)).collect();
    println!("\nThousand messages/s, of each {COLD_CHUNK} that followed: {}\n", chunks.join(", "));
    drop(postgres);
    fs::remove_dir_all(&folder)?;
    Ok(())
}
