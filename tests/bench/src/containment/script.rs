//! A decoder in JavaScript beside one in Rust.

use std::fs;
use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tidegate::decode::sandbox::cpu_clock::thread_cpu;

use crate::gateway::resident_of;
use crate::{Paths, decode};

/// The decoder in JavaScript beside the one in Rust that makes the same lines.
pub fn script(paths: &Paths) -> Result<()> {
    let folder = paths.scratch.join("script-guests");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(folder.join("acme"))?;
    for (name, place) in [("json", "rust"), ("flat", "script")] {
        fs::copy(paths.guests.join(format!("{name}.wasm")), folder.join(format!("acme/{place}.wasm")))
            .context("cargo xtask guests and cargo xtask guests --js build them")?;
        fs::write(folder.join(format!("acme/{place}.toml")), "[options]\nmeasurement = \"m\"\n")?;
    }
    let began = Instant::now();
    let guests = decode::open(paths, &folder, &[("acme", "script")])?;
    let cold = began.elapsed();
    println!(
        "A decoder in JavaScript (flat) beside the one in Rust (json) that makes the same lines of the pulse payload\n"
    );
    println!("| messages a call | Rust, us a message | JavaScript | ratio |\n|---|---|---|---|");
    for size in [64, 1] {
        let texts = decode::payloads();
        let payloads: Vec<&[u8]> = texts.iter().take(size).map(|payload| payload.as_bytes()).collect();
        let batch = decode::batch(&payloads);
        let mut us = Vec::new();
        let mut made = Vec::new();
        for place in ["rust", "script"] {
            let mut instance = decode::instance_of(&guests, "acme", place)?;
            let answer = instance.decode(&batch).0.map_err(|fault| anyhow::anyhow!("{fault:?}"))?;
            made.push(answer.lines);
            // The deadline of a call is not for 64 messages of a script: parts of a batch.
            let calls = 6_400 / size;
            let mut best = Duration::MAX;
            for _ in 0..7 {
                let began = thread_cpu();
                for _ in 0..calls {
                    black_box(instance.decode(black_box(&batch)).0.expect("it decoded a moment ago"));
                }
                best = best.min(thread_cpu() - began);
            }
            us.push(best.as_secs_f64() * 1e6 / (calls * size) as f64);
        }
        ensure!(made[0] == made[1], "both make the same lines");
        println!("| {size} | {:.2} | {:.1} | {:.0} |", us[0], us[1], us[1] / us[0]);
    }
    println!("\n| | Rust | JavaScript |\n|---|---|---|");
    let size = |name: &str| Ok::<_, anyhow::Error>(fs::metadata(paths.guests.join(name))?.len() as f64 / 1e6);
    println!("| component, MB | {:.2} | {:.1} |", size("json.wasm")?, size("flat.wasm")?);
    let mut starts = Vec::new();
    for place in ["rust", "script"] {
        let mut best = Duration::MAX;
        for _ in 0..20 {
            let began = thread_cpu();
            drop(decode::instance_of(&guests, "acme", place)?);
            best = best.min(thread_cpu() - began);
        }
        starts.push(best.as_secs_f64() * 1e3);
    }
    println!("| starting an instance, ms of CPU | {:.2} | {:.2} |", starts[0], starts[1]);
    let mut resident = Vec::new();
    for place in ["rust", "script"] {
        let texts = decode::payloads();
        let payloads: Vec<&[u8]> = texts.iter().take(1).map(|payload| payload.as_bytes()).collect();
        let batch = decode::batch(&payloads);
        let before = resident_of("self")?;
        let mut kept = Vec::new();
        for _ in 0..4 {
            let mut instance = decode::instance_of(&guests, "acme", place)?;
            for _ in 0..50 {
                instance.decode(&batch).0.map_err(|fault| anyhow::anyhow!("{fault:?}"))?;
            }
            kept.push(instance);
        }
        resident.push((resident_of("self")? - before) / 4.0 / 1e6);
    }
    println!("| resident an instance, MB | {:.2} | {:.1} |", resident[0], resident[1]);
    println!("\nCompiling both, once: {:.1} s by the clock\n", cold.as_secs_f64());
    Ok(())
}
