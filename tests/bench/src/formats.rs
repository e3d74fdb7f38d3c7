//! Decoders of the field's formats in the sandbox beside the same code compiled natively.

use std::fs;
use std::hint::black_box;
use std::ops::Range;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, ensure};
use bytes::Bytes;
use tidegate::core::books::Account;
use tidegate::core::device::{Device, make_device};
use tidegate::core::device_hash::DeviceHasher;
use tidegate::core::ids::TenantId;
use tidegate::core::message::Admitted;
use tidegate::core::tenant::Tenant;
use tidegate::core::tenant::settings::TenantSettings;
use tidegate::decode::Decoder as HostDecoder;
use tidegate::decode::sandbox::abi::MessageContext;
use tidegate_guest::testing::{self, BenchDecoder};
use tidegate_guest::{Decoder, Route};

use crate::decode::{BATCH, MESSAGES_A_ROUND, least};
use crate::{Paths, decode};

/// Messages of one format: those that come before the others, and the others.
struct Messages {
    /// A birth, with its topic.
    first: Option<(&'static str, Vec<u8>)>,
    topic: &'static str,
    /// One batch or more. Natively they follow one another; in the sandbox, where nothing of a call is kept here, the
    /// first batch is decoded again and again.
    all: Vec<Vec<u8>>,
}

/// Nanoseconds a message, natively and in the sandbox.
pub fn measure(paths: &Paths) -> Result<()> {
    println!("Formats of the field, {BATCH} messages a call; CPU of one thread, least of the rounds\n");
    println!(
        "| decoder | bytes | native, ns a message | in the sandbox | ratio | asked |\n|---|---|---|---|---|---|"
    );
    row::<sparkplug::Sparkplug>(paths, "sparkplug", "sparkplug, NDATA of ten aliased metrics", &node())?;
    row::<lpp::Lpp>(paths, "lpp", "lpp, ten values", &climate())?;
    row::<senml::Senml>(paths, "senml", "senml, JSON of ten records", &pack())?;
    println!();
    Ok(())
}

fn row<D: Decoder>(paths: &Paths, name: &str, title: &str, messages: &Messages) -> Result<()> {
    let Messages { topic, first, all } = messages;
    // The first level is the message type.
    let stem = topic.split('/').next().unwrap_or(topic);
    let payloads: Vec<&[u8]> = all.iter().map(Vec::as_slice).collect();
    let route = Route { tenant: "acme".into(), message_type: stem.into(), options: Vec::new() };
    let new = || -> Result<BenchDecoder<D>> {
        let mut context = testing::Context::default();
        if let Some((topic, payload)) = first {
            (*topic).clone_into(&mut context.topic);
            let mut decoder = D::configure(&route).map_err(|why| anyhow!(why))?;
            context
                .decode_one(payload, &mut |message, lines| decoder.decode(message, lines))
                .map_err(|refusal| anyhow!("{refusal}"))?;
        }
        (*topic).clone_into(&mut context.topic);
        Ok(BenchDecoder::new(&route).map_err(|why| anyhow!(why))?.with_context(context))
    };

    let folder = paths.scratch.join("format-guests");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(folder.join("acme"))?;
    fs::copy(paths.guests.join(format!("{name}.wasm")), folder.join(format!("acme/{stem}.wasm")))
        .context("cargo xtask guests builds it")?;
    let guests = decode::open(paths, &folder, &[])?;
    let sender = Sender::new();
    let admitted = |topic: &str, payload: &[u8]| sender.message(topic, 0..stem.len(), payload);
    if let Some((topic, payload)) = first {
        sender.account.receive(1);
        HostDecoder::new(guests.host().clone()).decode(vec![admitted(topic, payload)], &decode::Sink);
    }
    let mut sandboxed = decode::instance_of(&guests, "acme", stem)?;
    sandboxed.state().messages =
        payloads[..BATCH].iter().map(|payload| MessageContext::new(&admitted(topic, payload), 0)).collect();
    let batch = decode::batch(&payloads[..BATCH]);
    let answer = sandboxed.decode(&batch).0.map_err(|fault| anyhow!("{fault:?}"))?;
    ensure!(answer.lines == new()?.decode_batch(&payloads[..BATCH]), "the sandbox changes nothing");

    let (mut native_ns, mut guest_ns) = (f64::MAX, f64::MAX);
    for _ in 0..3 {
        let mut native = new()?;
        native_ns = native_ns.min(least(|| {
            for batch in payloads.chunks(BATCH).cycle().take(MESSAGES_A_ROUND / BATCH) {
                black_box(native.decode_batch(black_box(batch)));
            }
        }));
        guest_ns = guest_ns.min(least(|| {
            for _ in 0..MESSAGES_A_ROUND / BATCH {
                black_box(sandboxed.decode(black_box(&batch)).0.expect("it decoded a moment ago"));
            }
        }));
    }
    let bytes = payloads.iter().map(|payload| payload.len()).sum::<usize>() / payloads.len();
    println!(
        "| {title} | {bytes} | {native_ns:.0} | {guest_ns:.0} | {:.2} | at most 2 |",
        guest_ns / native_ns
    );
    Ok(())
}

/// A device of `acme`, whose messages an instance takes without a gateway.
pub struct Sender {
    account: Arc<Account>,
    tenant: Arc<Tenant>,
    device: Arc<Device>,
}

impl Sender {
    pub fn new() -> Self {
        let id = TenantId::new("acme");
        let account = Arc::new(Account::new(id.clone()));
        let tenant = Tenant::new(id, account.clone(), TenantSettings::plain(Ok("telemetry".into())));
        let device = make_device("d", "", DeviceHasher::new(1).hash("acme", "d"));
        Self { account, tenant: Arc::new(tenant), device: Arc::new(device) }
    }

    /// A message of it. `message_type`: the place of the type in the topic.
    pub fn message(&self, topic: &str, message_type: Range<usize>, payload: &[u8]) -> Admitted {
        Admitted::for_trial(
            topic.to_owned(),
            message_type,
            Bytes::copy_from_slice(payload),
            testing::RECEIVED_NS,
            self.tenant.clone(),
            self.device.clone(),
        )
    }
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

const TIME_MS: u64 = 1_700_000_000_000;

/// A metric as Protocol Buffers have it, with a name or without.
fn metric(name: Option<&str>, alias: u64, value: f64, out: &mut Vec<u8>) {
    let mut metric = Vec::new();
    if let Some(name) = name {
        metric.extend([0x0a, name.len() as u8]);
        metric.extend(name.as_bytes());
    }
    metric.push(0x10);
    varint(alias, &mut metric);
    metric.push(0x18);
    varint(TIME_MS, &mut metric);
    if name.is_some() {
        // Double.
        metric.extend([0x20, 10]);
    }
    metric.push(0x69);
    metric.extend(value.to_le_bytes());
    out.push(0x12);
    varint(metric.len() as u64, out);
    out.extend(metric);
}

/// The birth of a node, and data that go round the sequence numbers.
fn node() -> Messages {
    let payload = |seq: u64, names: bool| {
        let mut out = vec![0x08];
        varint(TIME_MS, &mut out);
        if names {
            // bdSeq, an Int64.
            out.extend([0x12, 11, 0x0a, 5]);
            out.extend(b"bdSeq");
            out.extend([0x20, 4, 0x58, 0]);
        }
        for number in 0..10_u64 {
            let name = names.then(|| format!("Line {number}/Temperature"));
            metric(name.as_deref(), number, 20.5 + number as f64 + seq as f64 / 8.0, &mut out);
        }
        out.push(0x18);
        varint(seq, &mut out);
        out
    };
    // A round has a whole number of all of them, so no sequence number is missing.
    assert_eq!(MESSAGES_A_ROUND % 256, 0);
    Messages {
        first: Some(("spBv1.0/plant/NBIRTH/edge1", payload(0, true))),
        topic: "spBv1.0/plant/NDATA/edge1",
        all: (1..=256).map(|seq| payload(seq % 256, false)).collect(),
    }
}

/// Ten values of a climate sensor.
fn climate() -> Messages {
    let payload = |seq: usize| {
        let mut out = Vec::new();
        for channel in 0..5 {
            let value = (200 + seq + channel) as i16;
            out.extend([channel as u8, 103]);
            out.extend(value.to_be_bytes());
            out.extend([channel as u8, 104, (90 + channel) as u8]);
        }
        out
    };
    Messages { first: None, topic: "t", all: (0..BATCH).map(payload).collect() }
}

/// Ten records of one device.
fn pack() -> Messages {
    let payload = |seq: usize| {
        let records = (0..10).map(|number| match number {
            0 => format!(r#"{{"bn":"urn:dev:1:","bt":1700000000,"n":"s0","u":"Cel","v":{seq}.5}}"#),
            number => format!(r#"{{"n":"s{number}","u":"%RH","v":{}.25,"t":-{number}}}"#, seq + number),
        });
        format!("[{}]", records.collect::<Vec<_>>().join(",")).into_bytes()
    };
    Messages { first: None, topic: "t", all: (0..BATCH).map(payload).collect() }
}
