//! The decode path: the pulse guest in the sandbox beside its own code compiled natively, beside
//! serde_json; and the host's share around it.

use std::fmt::Write;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use pulse::Pulse;
use tidegate::admission::registry::{FileRegistry, Registry, token_hash};
use tidegate::admission::{Admission, AdmissionSettings, AdmitResult, CredentialSource, OverRate};
use tidegate::core::ack::settle::settle_all;
use tidegate::core::ack::token::AckToken;
use tidegate::core::ack::tracker::AckTracker;
use tidegate::core::ack::window::ReceiveWindow;
use tidegate::core::books::{Account, Books, Outcome};
use tidegate::core::line_protocol::{Dialect, LineChecker, LineContext};
use tidegate::core::message::{CheckedBatch, Received, RefusedMessage, Via};
use tidegate::core::tenant::budget::Budget;
use tidegate::core::tenant::budget_kind::Resource;
use tidegate::core::tenant::database::{DatabaseTemplate, NameRule};
use tidegate::core::tenant::policy::{TenantPolicies, TenantPolicy};
use tidegate::core::tenant::table::Tenants;
use tidegate::core::topic::TopicTemplate;
use tidegate::decode::sandbox::abi::{Batch, Message};
use tidegate::decode::sandbox::cpu_clock::thread_cpu;
use tidegate::decode::sandbox::instance::{CallFault, Instance};
use tidegate::decode::{DecodeHost, DecodeSettings, DecodeSink, Decoder, LargeClassSettings};
use tidegate::rollout::limits::LARGE_COMPILE_OUTPUT_BYTES_MAX;
use tidegate::rollout::{CompileLimits, CompilerSettings, GuestStore, Persistence};
use tidegate_guest::Route;
use tidegate_guest::json::{Tape, TapeWriter};
use tidegate_guest::testing::BenchDecoder;

use crate::{Paths, load, native};

pub const BATCH: usize = 64;
const ROUNDS: usize = 15;
pub const MESSAGES_A_ROUND: usize = 64_000;

/// Nanoseconds of this thread's CPU a message: the least of the rounds, because a disturbance of a
/// round only adds time.
pub fn least(mut round: impl FnMut()) -> f64 {
    let mut best = Duration::MAX;
    for _ in 0..ROUNDS {
        let began = thread_cpu();
        round();
        best = best.min(thread_cpu() - began);
    }
    best.as_nanos() as f64 / MESSAGES_A_ROUND as f64
}

pub fn payloads() -> Vec<String> {
    (0..BATCH).map(|seq| load::payload(seq, "tok-dev-00001")).collect()
}

/// The costs of a message, in nanoseconds.
pub struct Figures {
    native: f64,
    native_with_tapes: f64,
    streaming: f64,
    value: f64,
    guest: f64,
    guest_with_tapes: f64,
    guest_no_check: f64,
    stage: f64,
    pub admit: f64,
    pub check: f64,
    payload_bytes: usize,
}

fn native_pulse() -> BenchDecoder<Pulse> {
    BenchDecoder::new(&Route { message_type: "telemetry".into(), ..Route::default() })
        .expect("pulse decodes telemetry")
}

fn measure_native(payloads: &[&[u8]]) -> f64 {
    let mut pulse = native_pulse();
    assert_eq!(pulse.decode_batch(payloads).iter().filter(|&&byte| byte == b'\n').count(), BATCH);
    least(|| {
        for _ in 0..MESSAGES_A_ROUND / BATCH {
            black_box(pulse.decode_batch(black_box(payloads)));
        }
    })
}

type Yardstick = fn(&[u8], &mut String) -> Result<(), serde_json::Error>;

/// The same, of payloads that admission has read.
fn measure_native_with_tapes(payloads: &[&[u8]]) -> f64 {
    let mut pulse = native_pulse();
    let tapes = tapes(payloads);
    // SAFETY: each was written of the payload at its place.
    let tapes: Vec<_> = payloads
        .iter()
        .zip(&tapes)
        .filter_map(|(payload, tape)| unsafe { Tape::new(payload, tape) })
        .collect();
    assert_eq!(pulse.decode_batch_with_tapes(&tapes).iter().filter(|&&byte| byte == b'\n').count(), BATCH);
    least(|| {
        for _ in 0..MESSAGES_A_ROUND / BATCH {
            black_box(pulse.decode_batch_with_tapes(black_box(&tapes)));
        }
    })
}

/// The tapes of payloads, as admission makes them.
pub fn tapes(payloads: &[&[u8]]) -> Vec<Box<[u64]>> {
    let mut writer = TapeWriter::default();
    let mut tape = |payload: &&[u8]| {
        assert!(writer.write(payload).expect("the bench payload is JSON"));
        writer.entries().into()
    };
    payloads.iter().map(&mut tape).collect()
}

fn measure_serde(payloads: &[&[u8]], decode: Yardstick) -> f64 {
    let mut lines = String::new();
    least(|| {
        for _ in 0..MESSAGES_A_ROUND / BATCH {
            lines.clear();
            for payload in black_box(payloads) {
                decode(payload, &mut lines).expect("the bench payload is JSON");
            }
            black_box(&lines);
        }
    })
}

/// Microseconds that serde_json's Value needs for the bench payload: how fast this machine is.
pub fn serde_value_us() -> f64 {
    let payloads = payloads();
    let payloads: Vec<&[u8]> = payloads.iter().map(|payload| payload.as_bytes()).collect();
    measure_serde(&payloads, native::value) / 1_000.0
}

pub fn guests(paths: &Paths) -> Result<GuestStore> {
    let folder = paths.scratch.join("decode-guests");
    std::fs::create_dir_all(folder.join("_default"))?;
    std::fs::copy(paths.guests.join("pulse.wasm"), folder.join("_default/telemetry.wasm"))
        .context("cargo xtask guests builds it")?;
    open(paths, &folder, &[])
}

/// The guests of a folder, with the class large for some routes.
pub fn open(paths: &Paths, folder: &Path, large: &[(&str, &str)]) -> Result<GuestStore> {
    let host = Arc::new(DecodeHost::new(settings(large), Arc::default())?);
    let compiler = CompilerSettings { program: paths.binary.clone(), ..CompilerSettings::new(None) };
    let limits = CompileLimits {
        cpu_s: 120,
        memory_bytes_max: 2 << 30,
        output_bytes_max: LARGE_COMPILE_OUTPUT_BYTES_MAX,
        wall_s: 360,
        keeps_priority: false,
    };
    Ok(GuestStore::open(folder, Persistence::none(compiler, Some(limits)), host)?.0)
}

/// The defaults, with the class large for some routes.
pub fn settings(large: &[(&str, &str)]) -> DecodeSettings {
    let routes = large.iter().map(|(tenant, stem)| ((*tenant).to_owned(), (*stem).to_owned())).collect();
    DecodeSettings {
        threads: 1,
        deadline_ms: 10,
        memory_bytes_max: 16 << 20,
        component_bytes_max: 10 << 20,
        dialect: Dialect::V3,
        large: Some(LargeClassSettings {
            routes,
            deadline_ms: 50,
            memory_bytes_max: 64 << 20,
            component_bytes_max: 32 << 20,
            instances_max: 8,
        }),
    }
}

pub fn batch(payloads: &[&[u8]]) -> Batch {
    let mut batch = Batch { payloads: Vec::new(), messages: Vec::new() };
    for payload in payloads {
        batch.payloads.extend_from_slice(payload);
        let payload_end = batch.payloads.len() as u32;
        batch.messages.push(Message { received_ns: 1_700_000_000_000_000_000, payload_end });
    }
    batch
}

pub fn instance(guests: &GuestStore) -> Result<Instance> {
    instance_of(guests, "acme", "telemetry")
}

/// A new instance of the guest of a tenant's message type.
pub fn instance_of(guests: &GuestStore, tenant: &str, message_type: &str) -> Result<Instance> {
    let route = guests.host().table().route(tenant, message_type).context("the route is there")?;
    match guests.host().start(&route.version, (tenant, &Budget::unlimited(Resource::Memory)), message_type) {
        Ok(Ok(instance)) => Ok(instance),
        Ok(Err(refusal)) => anyhow::bail!(refusal),
        Err(CallFault::Guest(reason, what)) => anyhow::bail!("{reason}: {what}"),
        Err(CallFault::Host(what)) => anyhow::bail!(what),
    }
}

/// Settles each message that a decoder gives.
pub struct Sink;

impl DecodeSink for Sink {
    fn lines(&self, batches: Vec<CheckedBatch>) {
        for batch in batches {
            black_box(&batch.lines);
            batch.settle();
        }
    }

    fn empty(&self, messages: Vec<AckToken>, account: &Arc<Account>) {
        settle_all(messages, Outcome::Empty, account);
    }

    fn refused(&self, messages: Vec<RefusedMessage>) {
        panic!("{}", messages[0].detail);
    }
}

pub fn admission(paths: &Paths, devices: usize, cache_entries_max: usize) -> Result<Admission> {
    let path = paths.scratch.join("decode-devices.csv");
    let hash = token_hash("tok-dev-00001");
    let mut rows = String::from("tenant_id,device_id,site_id,status,provision_token_hash\n");
    for device in 0..devices {
        let _ = writeln!(rows, "acme,dev-{device:05},lab-1,ACTIVE,{hash}");
    }
    std::fs::write(&path, rows)?;
    let settings = AdmissionSettings {
        topics: Arc::new(TopicTemplate::parse("tenant/{tenant}/device/{device}/{type}")?.into()),
        payload_bytes_max: 1 << 18,
        payload_bytes_kept: 1 << 18,
        over_rate: OverRate::Refuse,
        rate: Some(tidegate::core::token_bucket::Rate { per_s: 1e9, burst: 1e9 }),
        credentials: CredentialSource::Envelope,
        credentials_of_type: std::collections::HashMap::new(),
        require_token: true,
        cache_ttl_s: 3_600.0,
        cache_entries_max,
    };
    let terms = TenantPolicy::plain(DatabaseTemplate::new("telemetry_{tenant}", NameRule::InfluxDb3));
    let tenants = Tenants::new(TenantPolicies::new(terms), Arc::new(Books::default()));
    Ok(Admission::new(settings, Registry::File(FileRegistry::open(&path)?), Arc::new(tenants)))
}

/// A message of each payload, of devices from `first` on.
pub fn received(connection: &Arc<AckTracker>, payloads: &[&[u8]], first: usize) -> Vec<Received> {
    let messages = payloads.iter().enumerate().map(|(place, payload)| Received {
        topic: format!("tenant/acme/device/dev-{:05}/telemetry", first + place),
        payload: payload.to_vec().into(),
        payload_bytes: payload.len(),
        received_ns: 1_700_000_000_000_000_000,
        via: Via::Listener,
        token: connection.receive_unacknowledged(payload.len()),
    });
    messages.collect()
}

pub fn measure(paths: &Paths) -> Result<Figures> {
    let texts = payloads();
    let payloads: Vec<&[u8]> = texts.iter().map(|payload| payload.as_bytes()).collect();
    let guests = guests(paths)?;

    let mut sandboxed = instance(&guests)?;
    let batch = batch(&payloads);
    let answer = sandboxed.decode(&batch).0.map_err(|fault| anyhow::anyhow!("{fault:?}"))?;
    assert_eq!(answer.lines, native_pulse().decode_batch(&payloads), "the sandbox changes nothing");
    // Native and sandboxed in turn, so that a machine that drifts does so for both.
    let (mut native, mut guest) = (f64::MAX, f64::MAX);
    let (mut native_with_tapes, mut guest_with_tapes) = (f64::MAX, f64::MAX);
    let tapes = tapes(&payloads);
    for _ in 0..3 {
        native = native.min(measure_native(&payloads));
        native_with_tapes = native_with_tapes.min(measure_native_with_tapes(&payloads));
        for (with_tapes, least_ns) in [(false, &mut guest), (true, &mut guest_with_tapes)] {
            *least_ns = least_ns.min(least(|| {
                for _ in 0..MESSAGES_A_ROUND / BATCH {
                    if with_tapes {
                        sandboxed.state().set_tapes(tapes.iter().map(|tape| &**tape));
                    }
                    black_box(sandboxed.decode(black_box(&batch)).0.expect("it decoded a moment ago"));
                }
            }));
        }
    }

    let mut checker = LineChecker::default();
    let mut out = Vec::new();
    let stamp = LineContext {
        identity_tags: b",device_id=dev-00001,site_id=lab-1",
        received_ns: 0,
        dialect: Dialect::V3,
        rules: None,
    };
    let lines: Vec<&[u8]> = answer.lines.split_inclusive(|&byte| byte == b'\n').collect();
    let check = least(|| {
        for _ in 0..MESSAGES_A_ROUND / BATCH {
            out.clear();
            for line in &lines {
                checker.check(black_box(line), stamp, &mut out).expect("pulse writes good lines");
            }
            black_box(&out);
        }
    });

    let connection = AckTracker::new(Arc::new(ReceiveWindow::new(u64::MAX, u64::MAX)));
    let gate = admission(paths, BATCH, BATCH)?;
    let mut decoder = Decoder::new(guests.host().clone());
    let (mut admit, mut stage) = (f64::MAX, f64::MAX);
    for _ in 0..ROUNDS {
        let (mut admitting, mut decoding) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..MESSAGES_A_ROUND / BATCH {
            let messages = received(&connection, &payloads, 0);
            let began = thread_cpu();
            let AdmitResult { admitted, refused, .. } = gate.admit(messages);
            let between = thread_cpu();
            assert!(refused.is_empty(), "{refused:?}");
            decoder.decode(admitted, &Sink);
            decoding += thread_cpu() - between;
            admitting += between - began;
        }
        admit = admit.min(admitting.as_nanos() as f64 / MESSAGES_A_ROUND as f64);
        stage = stage.min(decoding.as_nanos() as f64 / MESSAGES_A_ROUND as f64);
    }
    Ok(Figures {
        native,
        native_with_tapes,
        guest,
        guest_with_tapes,
        guest_no_check: stage - check,
        streaming: measure_serde(&payloads, native::streaming),
        value: measure_serde(&payloads, native::value),
        stage,
        admit,
        check,
        payload_bytes: texts[0].len(),
    })
}

/// Nanoseconds that admission takes for a message of one of `devices`, which take turns, with a cache of so many.
pub fn measure_turns(paths: &Paths, devices: usize, cache_entries_max: usize) -> Result<f64> {
    let texts = payloads();
    let payloads: Vec<&[u8]> = texts.iter().map(|payload| payload.as_bytes()).collect();
    let connection = AckTracker::new(Arc::new(ReceiveWindow::new(u64::MAX, u64::MAX)));
    let gate = admission(paths, devices, cache_entries_max)?;
    let mut best = Duration::MAX;
    for round in 0..=ROUNDS {
        let mut took = Duration::ZERO;
        for batch in 0..MESSAGES_A_ROUND / BATCH {
            let first = (round + batch) * BATCH % (devices / BATCH * BATCH);
            let messages = received(&connection, &payloads, first);
            let began = thread_cpu();
            let AdmitResult { admitted, refused, .. } = gate.admit(messages);
            took += thread_cpu() - began;
            assert!(refused.is_empty(), "{refused:?}");
            drop(admitted);
        }
        // The first round fills the cache.
        if round > 0 {
            best = best.min(took);
        }
    }
    Ok(best.as_nanos() as f64 / MESSAGES_A_ROUND as f64)
}

/// The native decoder alone, for counting instructions.
pub fn run_native(messages: usize) {
    let texts = payloads();
    let payloads: Vec<&[u8]> = texts.iter().map(|payload| payload.as_bytes()).collect();
    let mut pulse = native_pulse();
    for _ in 0..messages / BATCH {
        black_box(pulse.decode_batch(&payloads));
    }
}

/// The guest alone, for counting instructions.
pub fn run_guest(paths: &Paths, messages: usize) -> Result<()> {
    let texts = payloads();
    let payloads: Vec<&[u8]> = texts.iter().map(|payload| payload.as_bytes()).collect();
    let guests = guests(paths)?;
    let mut sandboxed = instance(&guests)?;
    let (batch, tapes) = (batch(&payloads), tapes(&payloads));
    for _ in 0..messages / BATCH {
        sandboxed.state().set_tapes(tapes.iter().map(|tape| &**tape));
        let answer = sandboxed.decode(&batch).0.map_err(|fault| anyhow::anyhow!("{fault:?}"))?;
        black_box(answer);
    }
    Ok(())
}

impl Figures {
    pub fn table(&self) -> String {
        let mut text = format!(
            "Decode: the pulse payload of {} bytes, 9 metrics, in batches of {BATCH}; CPU of one thread\n\n",
            self.payload_bytes
        );
        let _ = writeln!(text, "| what | ns a message |\n|---|---|");
        for (name, ns) in [
            ("pulse in the sandbox, every limit on, one call", self.guest_with_tapes),
            ("the same crate compiled natively", self.native_with_tapes),
            ("pulse in the sandbox, of payloads that admission has not read", self.guest),
            ("the same crate compiled natively", self.native),
            ("serde_json, streaming visitor, natively", self.streaming),
            ("serde_json, Value, natively", self.value),
            ("admission: envelope, SHA-256 of the token, cache, rate bucket, books", self.admit),
            ("line check with identity spliced in", self.check),
            ("decode stage whole: grouping, call, line check, settling", self.stage),
            ("decode stage without the line check", self.guest_no_check),
        ] {
            let _ = writeln!(text, "| {name} | {ns:.0} |");
        }
        let _ = writeln!(text, "\n| ratio | measured | asked |\n|---|---|---|");
        for (name, ratio, asked) in [
            ("sandboxed / native", self.guest_with_tapes / self.native_with_tapes, "at most 1.6"),
            ("sandboxed / native, of payloads that admission has not read", self.guest / self.native, ""),
            ("sandboxed / serde_json streaming", self.guest_with_tapes / self.streaming, "at most 1.0"),
        ] {
            let _ = writeln!(text, "| {name} | {ratio:.2} | {asked} |");
        }
        text
    }
}
