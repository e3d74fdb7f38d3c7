//! A decoder that uses its whole deadline in every message, beside ten tenants.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tidegate_simulator::{Device, packet};

use super::maximum;
use crate::Paths;
use crate::gateway::{Gateway, Setup};
use crate::load::{Load, Plan};
use crate::sink::Sink;
use crate::statistics::{median, p99_ms};

/// One tenant whose decoder burns its whole deadline for each message, ten times as often as its fair
/// share of the CPU allows, beside ten others.
pub fn burner(paths: &Paths) -> Result<()> {
    let plan = Plan {
        name: "tenant",
        tenants: 10,
        devices: 1_000,
        connections: 8,
        messages: 400_000,
        window: 2_000,
    };
    let per_second = 0.7 * maximum(paths, &plan, "burner-maximum")?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    // A message takes 10 ms, and one of eleven tenants may have an eleventh of the cores.
    let burning = 10.0 * cores / 11.0 / 0.010;
    let sink = Sink::start(Duration::ZERO)?;
    let burner = Plan { name: "burner", tenants: 1, devices: 1, connections: 1, messages: 0, window: 1 };
    let plans = [&plan, &burner];
    let gateway = Gateway::start(&Setup::new(paths, "burner", &plans, &sink))?;
    let tenant = gateway.folder.join("guests").join(burner.tenant_of(0));
    fs::create_dir_all(&tenant)?;
    let hostile = Path::new(&paths.guests).with_file_name("test-guests").join("hostile.wasm");
    fs::copy(hostile, tenant.join(".new")).context("cargo xtask guests --tests builds it")?;
    fs::rename(tenant.join(".new"), tenant.join("loop.wasm"))?;
    let began = Instant::now();
    while !gateway.get("/api/v1/guests")?.contains("hostile@") {
        ensure!(began.elapsed() < Duration::from_secs(60), "the burning decoder does not serve");
        std::thread::sleep(Duration::from_millis(50));
    }
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    let mut burned = 0;
    for _ in 0..5 {
        for burns in [false, true] {
            let ended = Arc::new(AtomicBool::new(false));
            let attacker =
                burns.then(|| attack(&burner, &gateway.listener, burning, ended.clone())).transpose()?;
            if burns {
                // Not its beginning, but its course.
                std::thread::sleep(Duration::from_millis(500));
            }
            let load = Load::prepare(&plan, &gateway.listener)?;
            let paced = load.run_at(per_second)?;
            let figures = (plan.messages as f64 / paced.took.as_secs_f64(), p99_ms(&paced));
            ended.store(true, Ordering::Release);
            if let Some(attacker) = attacker {
                burned += attacker.join().map_err(|_| anyhow::anyhow!("the attacker panicked"))??;
                beside.push(figures);
            } else {
                alone.push(figures);
            }
        }
    }
    let of = |figures: &[(f64, f64)]| {
        (median(figures.iter().map(|f| f.0).collect()), median(figures.iter().map(|f| f.1).collect()))
    };
    let (alone, beside) = (of(&alone), of(&beside));
    println!(
        "Ten tenants at {per_second:.0} messages a second, 70 % of the maximum, beside one whose decoder burns its \
         deadline in every message: {burned} of them, {burning:.0} a second offered\n"
    );
    println!("| | messages/s | p99 of acknowledgements, ms |\n|---|---|---|");
    println!(
        "| alone | {:.0} | {:.1} |\n| beside the burner | {:.0} | {:.1} |",
        alone.0, alone.1, beside.0, beside.1
    );
    println!("\n| ratio | measured | asked |\n|---|---|---|");
    println!("| throughput, beside / alone | {:.2} | at least 0.95 |", beside.0 / alone.0);
    println!("| p99, beside / alone | {:.2} | at most 2 |\n", beside.1 / alone.1);
    Ok(())
}

/// Sends messages that burn CPU, at a steady rate, until the flag is set; gives the number of answers.
fn attack(
    plan: &Plan,
    address: &str,
    per_second: f64,
    ended: Arc<AtomicBool>,
) -> Result<JoinHandle<Result<u64>>> {
    let stream = Device::connect(address, "burner")?.stream;
    let topic = format!("tenant/{}/device/{}/loop", plan.tenant_of(0), plan.device_name(0));
    let payload = format!(r#"{{"site_id":"lab-1","provision_token":"{}","do":"loop"}}"#, plan.token(0));
    let mut reading = stream.try_clone()?;
    reading.set_read_timeout(Some(Duration::from_millis(200)))?;
    let counting = {
        let ended = ended.clone();
        std::thread::spawn(move || {
            let (mut bytes, mut answers) = (0_u64, [0; 4096]);
            while !ended.load(Ordering::Acquire) {
                bytes += reading.read(&mut answers).unwrap_or(0) as u64;
            }
            bytes / 4
        })
    };
    Ok(std::thread::spawn(move || {
        let mut stream = stream;
        // The gateway stops reading when it has enough of them: then this waits, and no longer than it must.
        stream.set_write_timeout(Some(Duration::from_millis(200)))?;
        let (began, mut sent) = (Instant::now(), 0_u64);
        let mut packet = Vec::new();
        while !ended.load(Ordering::Acquire) {
            let due = (began.elapsed().as_secs_f64() * per_second) as u64;
            while sent < due && !ended.load(Ordering::Acquire) {
                packet.clear();
                let id = (sent % 65_535 + 1) as u16;
                packet::publish_into(&mut packet, &topic, payload.as_bytes(), Some(id));
                let mut rest = packet.as_slice();
                while !rest.is_empty() && !ended.load(Ordering::Acquire) {
                    rest = &rest[stream.write(rest).unwrap_or(0)..];
                }
                sent += 1;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        counting.join().map_err(|_| anyhow::anyhow!("counting panicked"))
    }))
}
