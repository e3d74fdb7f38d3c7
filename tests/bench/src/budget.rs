//! A neighbour's acknowledgements beside a tenant that fills its budget of memory.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tidegate_simulator::Device;

use crate::Paths;
use crate::gateway::{Gateway, Setup};
use crate::load::{Load, Plan};
use crate::sink::Sink;
use crate::statistics::{median, p99_ms};

/// The neighbour's messages a second.
const PER_SECOND: f64 = 1_000.0;

/// Message types of the tenant that fills its budget: an instance of some mebibytes for each.
const TYPES: usize = 99;

/// Measures the neighbour alone and beside the other, in turn.
pub fn measure(paths: &Paths) -> Result<()> {
    let quiet =
        Plan { name: "quiet", tenants: 1, devices: 100, connections: 4, messages: 10_000, window: 1_000 };
    let hog = Plan { name: "hog", tenants: 1, devices: 1, connections: 1, messages: 0, window: 1 };
    let sink = Sink::start(Duration::ZERO)?;
    let more = "[budget]\ntenant_memory_bytes_max = 67108864\n";
    let plans = [&quiet, &hog];
    let gateway = Gateway::start(&Setup { more, ..Setup::new(paths, "budget", &plans, &sink) })?;
    let tenant = gateway.folder.join("guests").join(hog.tenant_of(0));
    fs::create_dir_all(&tenant)?;
    let hostile = Path::new(&paths.guests).with_file_name("test-guests").join("hostile.wasm");
    fs::copy(hostile, tenant.join(".new")).context("cargo xtask guests --tests builds it")?;
    fs::rename(tenant.join(".new"), tenant.join("_any.wasm"))?;
    let began = Instant::now();
    while !gateway.get("/api/v1/guests")?.contains("hostile@") {
        ensure!(began.elapsed() < Duration::from_secs(60), "the other tenant's decoder does not serve");
        std::thread::sleep(Duration::from_millis(50));
    }
    let (mut alone, mut beside, mut answered) = (Vec::new(), Vec::new(), 0);
    for _ in 0..5 {
        for fills in [false, true] {
            let ended = Arc::new(AtomicBool::new(false));
            let filling = fills.then(|| fill(&hog, &gateway.listener, ended.clone())).transpose()?;
            let paced = Load::prepare(&quiet, &gateway.listener)?.run_at(PER_SECOND)?;
            ended.store(true, Ordering::Release);
            match filling {
                Some(filling) => {
                    beside.push(p99_ms(&paced));
                    answered +=
                        filling.join().map_err(|_| anyhow::anyhow!("the other tenant panicked"))??;
                }
                None => alone.push(p99_ms(&paced)),
            }
        }
    }
    let (alone, beside) = (median(alone), median(beside));
    println!(
        "A tenant at {PER_SECOND:.0} messages a second beside one that fills its budget of 64 MiB by {TYPES} message \
         types: {answered} messages of it\n"
    );
    println!("| p99 of acknowledgements, ms | |\n|---|---|");
    println!(
        "| alone | {alone:.1} |\n| beside the other | {beside:.1} |\n| ratio | {:.2} |\n",
        beside / alone
    );
    Ok(())
}

/// Publishes message after message of ever other types until the flag is set; gives their number.
fn fill(plan: &Plan, address: &str, ended: Arc<AtomicBool>) -> Result<JoinHandle<Result<u64>>> {
    let mut device = Device::connect(address, "hog")?;
    let (tenant, name) = (plan.tenant_of(0), plan.device_name(0));
    let payload =
        format!(r#"{{"site_id":"lab-1","provision_token":"{}","do":"million-measurements"}}"#, plan.token(0));
    Ok(std::thread::spawn(move || {
        let mut answered = 0;
        while !ended.load(Ordering::Acquire) {
            let topic = format!("tenant/{tenant}/device/{name}/type-{}", answered % TYPES as u64);
            device.publish(&topic, payload.as_bytes())?;
            answered += 1;
        }
        Ok(answered)
    }))
}
