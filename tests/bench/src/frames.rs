//! The cost of a frame: spool and writer without anything in front of them, by the messages of a frame, for
//! many tenants with a database each and for as many in one.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tidegate::core::ack::tracker::AckTracker;
use tidegate::core::ack::window::ReceiveWindow;
use tidegate::core::books::Books;
use tidegate::core::device_hash::SeedTag;
use tidegate::core::durable::Handoff;
use tidegate::core::ids::DatabaseName;
use tidegate::core::message::{CheckedBatch, CheckedMessage};
use tidegate::core::tenant::Tenant;
use tidegate::core::tenant::database::{DatabaseTemplate, NameRule};
use tidegate::core::tenant::policy::{TenantPolicies, TenantPolicy};
use tidegate::core::tenant::settings::TenantSettings;
use tidegate::core::tenant::table::Tenants;
use tidegate::spool::{Spool, SpoolSettings, WhenFull};
use tidegate::writer::thread::{IdleDelay, WriterThread};
use tidegate::writer::{
    BackoffLimits, Gzip, HttpSettings, OutputSettings, ServerKind, Writer, WriterParts, WriterSettings,
};

use crate::Paths;
use crate::sink::Sink;

const MESSAGES: usize = 200_000;

/// Messages that are not acknowledged yet.
const WINDOW: u64 = 16_000;

/// Batches that are appended at once, as a decode thread does.
const BATCHES: usize = 64;

/// Measures frames of one message and of 64; or one row, for profilers: TENANTS DATABASES MESSAGES_OF_A_FRAME
/// MESSAGES.
///
/// # Errors
/// The spool cannot be opened.
pub fn measure(paths: &Paths, rest: &[String]) -> Result<()> {
    let numbers: Vec<usize> = rest.iter().filter_map(|text| text.parse().ok()).collect();
    if let [tenants, databases, of_frame, messages] = numbers[..] {
        return run(paths, tenants, databases == 1, of_frame, messages);
    }
    println!("Spool and writer alone: ns of CPU a message\n");
    println!("| tenants | databases | messages a frame | append | spool | writer | lines a POST |");
    println!("|---|---|---|---|---|---|---|");
    for (tenants, shared) in [(10, false), (1_000, false), (1_000, true)] {
        for messages in [1, 64] {
            run(paths, tenants, shared, messages, MESSAGES)?;
        }
    }
    Ok(())
}

/// One run: a row of the table.
///
/// # Errors
/// The spool cannot be opened.
fn run(paths: &Paths, tenants: usize, shared: bool, of_frame: usize, messages: usize) -> Result<()> {
    let folder = paths.scratch.join("frames");
    let _ = fs::remove_dir_all(&folder);
    let sink = Sink::start(Duration::ZERO)?;
    let books = Arc::new(Books::default());
    let policies = TenantPolicies::new(TenantPolicy::plain(DatabaseTemplate::new(
        "telemetry_{tenant}",
        NameRule::InfluxDb3,
    )));
    let table = Arc::new(Tenants::new(policies, books.clone()));
    let settings = SpoolSettings {
        bytes_max: 8 << 30,
        tenant_bytes_max: 8 << 30,
        when_full: WhenFull::Block,
        memory_bytes_max: 64 << 20,
        sync: true,
        device_seed: SeedTag::new(1),
        age_clock: Arc::default(),
    };
    let opened = Spool::open(&folder, settings, None, &books)?;
    let idle_delay = Arc::<IdleDelay>::default();
    let thread = WriterThread::start(idle_delay.clone())?;
    let parts = WriterParts {
        runtime: thread.runtime.clone(),
        idle_delay,
        store: opened.lines(),
        refused_lines: Arc::new(|_| panic!("the sink refuses nothing")),
        observer: Arc::new(()),
        tenants: table,
    };
    let writer = Writer::start(writer_settings(&sink.url), parts)?;
    let handoff: Arc<dyn Handoff> = Arc::new(writer.clone());
    let spool = opened.start(handoff)?;
    let tenant = |number: usize| {
        let name = format!("tenant{number:04}");
        let database = if shared { "common".into() } else { format!("telemetry_{name}") };
        let settings = TenantSettings::plain(Ok(DatabaseName::new(&database)));
        let account = books.of_known(&name);
        Arc::new(Tenant::new(name.as_str().into(), account, settings))
    };
    let tenants_all: Vec<Arc<Tenant>> = (0..tenants).map(tenant).collect();
    let window = Arc::new(ReceiveWindow::new(u64::MAX, u64::MAX));
    let connection = AckTracker::new(window.clone());
    let before = threads()?;
    let mut sent = 0;
    let mut turn = 0;
    while sent < messages {
        let mut batches = Vec::with_capacity(BATCHES);
        for _ in 0..BATCHES.max(of_frame) / of_frame {
            turn += 1;
            batches.push(batch(&tenants_all[turn % tenants], turn, of_frame, &connection));
            sent += of_frame;
        }
        spool.append(batches, false);
        let began = Instant::now();
        while window.messages() > WINDOW {
            ensure!(began.elapsed() < Duration::from_secs(60), "nothing is acknowledged");
            std::thread::sleep(Duration::from_micros(200));
        }
    }
    let began = Instant::now();
    while sink.lines() < sent as u64 {
        ensure!(began.elapsed() < Duration::from_secs(60), "{} of {sent} lines arrived", sink.lines());
        std::thread::sleep(Duration::from_millis(1));
    }
    let after = threads()?;
    let of = |name: &str| {
        let spent = |of: &BTreeMap<String, u64>| of.get(name).copied().unwrap_or(0);
        (spent(&after) - spent(&before)) as f64 / sent as f64
    };
    let databases = if shared { 1 } else { tenants };
    let lines_a_post = sent as f64 / sink.posts() as f64;
    println!(
        "| {tenants} | {databases} | {of_frame} | {:.0} | {:.0} | {:.0} | {lines_a_post:.0} |",
        of("tidegate-bench"),
        of("spool"),
        of("writer"),
    );
    spool.close();
    Ok(())
}

fn writer_settings(url: &str) -> WriterSettings {
    WriterSettings {
        output: OutputSettings::Http(HttpSettings {
            kind: ServerKind::InfluxDb3,
            url: url.into(),
            token: String::new(),
            org: String::new(),
            username: String::new(),
            password: String::new(),
            gzip: Gzip::Never,
            request_timeout: Duration::from_secs(10),
            create_database: false,
        }),
        batch_lines: 500,
        flush_interval: Duration::from_secs(1),
        flush_interval_max: Duration::from_secs(1),
        batch_lines_max: 10_000,
        requests_max: 32,
        waits: BackoffLimits::default(),
        memory_bytes_max: 64 << 20,
    }
}

/// A batch of messages of one line each, as pulse makes them.
fn batch(tenant: &Arc<Tenant>, turn: usize, messages: usize, connection: &Arc<AckTracker>) -> CheckedBatch {
    let mut lines = Vec::with_capacity(messages * 200);
    let mut all = Vec::with_capacity(messages);
    for message in 0..messages {
        let line = format!(
            "telemetry,device_id=dev-00001,site_id=lab-1 temp=21.5,hum=40.25,pres=1013.2,co2=417,lux=120,bat=3.71,rssi=-67,ok=true,fan=false {}\n",
            1_764_500_000_000_000_000_u64 + (turn * messages + message) as u64
        );
        lines.extend_from_slice(line.as_bytes());
        all.push(CheckedMessage {
            topic: format!("tenant/{}/device/dev-00001/telemetry", tenant.id),
            received_ns: 1_764_500_000_000_000_000,
            lines_end: lines.len() as u32,
            line_count: 1,
            affinity: (turn * messages + message) as u32 * 7,
            token: connection.receive_unacknowledged(254),
        });
    }
    tenant.account.receive(messages as u64);
    let database = tenant.database().expect("it was made with one");
    CheckedBatch::new(database, tenant.clone(), "pulse@1#0".into(), lines, all)
}

/// Nanoseconds of CPU of each thread of this process, by name (proc_pid_stat(5), schedstat).
fn threads() -> Result<BTreeMap<String, u64>> {
    let mut all = BTreeMap::new();
    for task in fs::read_dir("/proc/self/task")? {
        let path = task?.path();
        let (Ok(name), Ok(text)) =
            (fs::read_to_string(path.join("comm")), fs::read_to_string(path.join("schedstat")))
        else {
            continue;
        };
        let ns: u64 = text.split(' ').next().and_then(|field| field.parse().ok()).context("schedstat")?;
        *all.entry(name.trim().to_owned()).or_default() += ns;
    }
    Ok(all)
}
