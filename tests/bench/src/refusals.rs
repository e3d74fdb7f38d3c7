//! The CPU that a refused message costs, reason by reason, at QoS 1 through the listener.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::Paths;
use crate::gateway::{Gateway, Setup};
use crate::load::{Load, Plan, payload};
use crate::sink::Sink;

const PLAN: Plan =
    Plan { name: "tenant", tenants: 10, devices: 1_000, connections: 8, messages: 100_000, window: 2_000 };

/// Topic and payload of a message, from its number and the number of its device.
type Make = fn(usize, usize) -> (String, String);

fn topic(device: usize) -> String {
    format!("tenant/{}/device/{}/telemetry", PLAN.tenant_of(device), PLAN.device_name(device))
}

fn good(message: usize, device: usize) -> String {
    payload(message, &PLAN.token(device))
}

/// The reason whose messages have more bytes than are allowed.
const LARGE: &str = "PAYLOAD_TOO_LARGE";

/// A message that is refused for each reason, and one that is not.
const CASES: [(&str, Make); 12] = [
    ("none: its line is written", |message, device| (topic(device), good(message, device))),
    ("BAD_TOPIC_FORMAT", |message, device| ("elsewhere/x".to_owned(), good(message, device))),
    ("BAD_PAYLOAD", |message, device| (topic(device), good(message, device).replace("true", "yes"))),
    (LARGE, |_, device| (topic(device), format!("\"{}\"", "x".repeat(263_000)))),
    ("TENANT_MISMATCH_TOPIC_VS_PAYLOAD", |message, device| {
        (topic(device), good(message, device).replace("\"q\":1", "\"tenant_id\":\"other\""))
    }),
    ("MISSING_SITE_ID", |message, device| (topic(device), good(message, device).replace("site_id", "place"))),
    ("UNREGISTERED_DEVICE", |message, device| (topic(device).replace("dev-", "no-"), good(message, device))),
    ("SITE_MISMATCH_REGISTRY_VS_PAYLOAD", |message, device| {
        (topic(device), good(message, device).replace("lab-1", "lab-2"))
    }),
    ("TOKEN_MISSING", |message, device| {
        (topic(device), good(message, device).replace("provision_token", "token"))
    }),
    ("TOKEN_INVALID", |message, device| (topic(device), payload(message, "another"))),
    ("NO_GUEST", |message, device| (topic(device).replace("telemetry", "unknown"), good(message, device))),
    ("GUEST_REFUSED", |message, device| {
        (topic(device), good(message, device).replace("\"seq\":", "\"seq\":-0.5,\"n\":"))
    }),
];

/// The CPU of one message of a case, in microseconds.
fn run(paths: &Paths, reason: &str, make: Make) -> Result<f64> {
    let sink = Sink::start(Duration::ZERO)?;
    let more = "[quarantine]\nbytes_max = 1073741824\n";
    let messages = if reason == LARGE { 800 } else { PLAN.messages };
    let plan = Plan { messages, ..PLAN };
    let plans = [&plan];
    let gateway = Gateway::start(&Setup { more, ..Setup::new(paths, "refusals", &plans, &sink) })?;
    let load = Load::prepare_with(&plan, &gateway.listener, &make)?;
    let before = gateway.usage()?;
    load.run()?;
    let usage = gateway.usage()?.since(&before);
    let books = gateway.get("/api/v1/books")?;
    ensure!(books.contains("\"balanced\":true"), "the books do not balance: {books}");
    let summary = gateway.get("/api/v1/quarantine")?;
    ensure!(
        reason.starts_with("none") || summary.contains(&format!("\"{reason}\"")),
        "the messages were to be refused as {reason}: {summary}"
    );
    Ok(usage.cpu.as_secs_f64() * 1e6 / messages as f64)
}

/// Runs every case and prints its cost.
///
/// # Errors
/// A run fails, or its messages end otherwise than they should.
pub fn measure(paths: &Paths) -> Result<()> {
    println!("Refused messages at QoS 1 through the listener, and one that is not refused\n");
    println!("| reason | CPU us a message | asked |\n|---|---|---|");
    for (reason, make) in CASES {
        let cpu_us = run(paths, reason, make)?;
        // Reading a large payload costs more, and is no part of the refusal.
        let asked = if reason.starts_with("none") || reason == LARGE { "" } else { "at most 15" };
        println!("| {reason} | {cpu_us:.2} | {asked} |");
    }
    println!();
    Ok(())
}
