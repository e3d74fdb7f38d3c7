//! The decode stage by the number of tenants, and the start of an instance.

use std::fs;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use tidegate::core::books::Account;
use tidegate::core::device::{Device, make_device};
use tidegate::core::device_hash::DeviceHasher;
use tidegate::core::ids::TenantId;
use tidegate::core::message::Admitted;
use tidegate::core::tenant::Tenant;
use tidegate::core::tenant::settings::TenantSettings;
use tidegate::decode::Decoder;
use tidegate::decode::sandbox::cpu_clock::thread_cpu;
use tidegate::decode::schedule::cpu_quota::CpuQuotas;
use tidegate::decode::schedule::slow_lane::SlowLane;
use tidegate::rollout::GuestStore;

use crate::{Paths, decode};

/// Messages that a decode thread takes at once when it is busy.
const GROUP: usize = 512;
const ROUNDS: usize = 4;

/// A device of each tenant.
fn devices(tenants: usize) -> Vec<(Arc<Tenant>, Arc<Device>)> {
    let hasher = DeviceHasher::new(1);
    let devices = (0..tenants).map(|number| {
        let id = TenantId::new(&format!("tenant-{number:05}"));
        let account = Arc::new(Account::new(id.clone()));
        let device = make_device("dev-00001", "lab-1", hasher.hash(id.as_str(), "dev-00001"));
        let tenant = Tenant::new(id, account, TenantSettings::plain(Ok("telemetry".into())));
        (Arc::new(tenant), Arc::new(device))
    });
    devices.collect()
}

fn guests(paths: &Paths, shared: bool) -> Result<GuestStore> {
    let folder = paths.scratch.join("tenants-guests");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(folder.join("_default"))?;
    fs::copy(paths.guests.join("pulse.wasm"), folder.join("_default/telemetry.wasm"))
        .context("cargo xtask guests builds it")?;
    if shared {
        fs::write(folder.join("_default/telemetry.toml"), "isolation = \"route\"\n")?;
    }
    decode::open(paths, &folder, &[])
}

/// Nanoseconds of CPU a message of the decode stage, with messages of tenants in turn.
fn stage(guests: &GuestStore, tenants: usize) -> f64 {
    let devices = devices(tenants);
    let payloads: Vec<Bytes> = decode::payloads().into_iter().map(Bytes::from).collect();
    let quotas = Arc::new(CpuQuotas::new(1));
    let lane = SlowLane::new(1, 1, &quotas);
    let mut decoder = Decoder::with_lane(guests.host().clone(), lane, 0);
    let mut best = Duration::MAX;
    let messages = decode::MESSAGES_A_ROUND.max(2 * tenants) / GROUP * GROUP;
    let mut next = 0;
    for _ in 0..ROUNDS {
        let mut took = Duration::ZERO;
        for _ in 0..messages / GROUP {
            let group: Vec<Admitted> = (0..GROUP)
                .map(|_| {
                    next += 1;
                    let (tenant, device) = &devices[next % tenants];
                    let payload = payloads[next % payloads.len()].clone();
                    let topic = format!("tenant/{}/device/dev-00001/telemetry", tenant.id);
                    let begin = topic.len() - "telemetry".len();
                    let end = topic.len();
                    tenant.account.receive(1);
                    Admitted::for_trial(topic, begin..end, payload, 1, tenant.clone(), device.clone())
                })
                .collect();
            let began = thread_cpu();
            decoder.decode(group, &decode::Sink);
            took += thread_cpu() - began;
        }
        best = best.min(took);
    }
    best.as_nanos() as f64 / messages as f64
}

/// The decode stage by the number of tenants whose messages come in turn.
pub fn measure(paths: &Paths) -> Result<()> {
    println!("The decode stage by tenants: messages come in turn, {GROUP} at once; ns of CPU a message\n");
    println!("| tenants | a decoder shared by all | ratio | an instance a tenant | ratio |");
    println!("|---|---|---|---|---|");
    let (shared, own) = (guests(paths, true)?, paths);
    let of_shared: Vec<f64> = COUNTS.iter().map(|tenants| stage(&shared, *tenants)).collect();
    drop(shared);
    let own = guests(own, false)?;
    let of_own: Vec<f64> = COUNTS.iter().map(|tenants| stage(&own, *tenants)).collect();
    for (place, tenants) in COUNTS.iter().enumerate() {
        let (shared, own) = (of_shared[place], of_own[place]);
        println!(
            "| {tenants} | {shared:.0} | {:.2} | {own:.0} | {:.2} |",
            shared / of_shared[0],
            own / of_own[0]
        );
    }
    println!();
    Ok(())
}

const COUNTS: [usize; 5] = [10, 100, 1_000, 4_000, 10_000];

/// The start of an instance, and its end.
pub fn measure_start(paths: &Paths) -> Result<()> {
    let guests = guests(paths, false)?;
    let texts = decode::payloads();
    let payloads: Vec<&[u8]> = texts.iter().take(1).map(|payload| payload.as_bytes()).collect();
    let batch = decode::batch(&payloads);
    let starts = 20_000;
    let us = |decodes: bool| -> Result<f64> {
        let mut best = Duration::MAX;
        for _ in 0..5 {
            let began = thread_cpu();
            for _ in 0..starts {
                let mut instance = decode::instance(&guests)?;
                if decodes {
                    black_box(instance.decode(&batch).0.expect("pulse decodes"));
                }
            }
            best = best.min(thread_cpu() - began);
        }
        Ok(best.as_secs_f64() * 1e6 / f64::from(starts))
    };
    println!("An instance of pulse: CPU of one thread\n");
    println!("| what | us | asked |\n|---|---|---|");
    println!("| started, configured and dropped | {:.1} | at most 8 |", us(false)?);
    println!("| the same, with one message between | {:.1} | |", us(true)?);
    println!();
    Ok(())
}

/// Starts and drops instances, for counting instructions.
pub fn run_start(paths: &Paths, starts: usize) -> Result<()> {
    let guests = guests(paths, false)?;
    for _ in 0..starts {
        black_box(decode::instance(&guests)?);
    }
    Ok(())
}
