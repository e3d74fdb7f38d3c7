//! New decoders in other languages, as `guest new` writes them, beside one in Rust.

use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use tidegate::decode::sandbox::abi::Batch;
use tidegate::decode::sandbox::cpu_clock::thread_cpu;
use tidegate::decode::sandbox::instance::Instance;

use crate::gateway::resident_of;
use crate::{Paths, decode};

/// The folder in target/languages, which is the place of the decoder here, and the name of the row.
const LANGUAGES: [(&str, &str); 5] =
    [("c", "C, Debian's clang"), ("zig", "C, zig"), ("go", "Go"), ("python", "Python"), ("js", "JavaScript")];

const JSON: &[u8] = br#"{"temp":71.5,"state":"on"}"#;

/// Four bytes, as the decoder in C takes them.
const BINARY: &[u8] = &[1, 0x02, 0xcb, 1];

/// Size, compilation, start, time and memory of each.
pub fn measure(paths: &Paths) -> Result<()> {
    println!(
        "New decoders of `guest new`, with messages of {} bytes of JSON, in C of {} bytes\n",
        JSON.len(),
        BINARY.len()
    );
    println!(
        "| language | component, MB | compiling, s | start, ms | us a message, 16 a call | alone | resident, MB |\n\
         |---|---|---|---|---|---|---|"
    );
    row(paths, "json", "Rust, guests/json", &paths.guests.join("json.wasm"), JSON)?;
    let languages = paths.guests.parent().context("target")?.join("languages");
    for (folder, name) in LANGUAGES {
        let component = languages.join(folder).join("hot-boiler.wasm");
        // The decoder in C reads bytes.
        let payload = if matches!(folder, "c" | "zig") { BINARY } else { JSON };
        row(paths, folder, name, &component, payload)
            .with_context(|| format!("{folder}: cargo xtask guests --langs builds it"))?;
    }
    // The tests build it where the toolchain has the target.
    let rust = languages.join("rust/wasm32-wasip2/release/worldly.wasm");
    if rust.exists() {
        row(
            paths,
            "worldly",
            "Rust, wasm32-wasip2, with clock, map, sleep and log",
            &rust,
            b"one two three",
        )?;
    }
    Ok(())
}

fn row(paths: &Paths, place: &str, name: &str, component: &Path, payload: &[u8]) -> Result<()> {
    let folder = paths.scratch.join("language-guests").join(place);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(folder.join("acme"))?;
    let bytes = fs::metadata(component).with_context(|| component.display().to_string())?.len();
    fs::copy(component, folder.join(format!("acme/{place}.wasm")))?;
    let began = Instant::now();
    let guests = decode::open(paths, &folder, &[("acme", "python"), ("acme", "js")])?;
    let compiling = began.elapsed();
    let start = || decode::instance_of(&guests, "acme", place);
    let mut started = Duration::MAX;
    for _ in 0..20 {
        let began = thread_cpu();
        drop(start()?);
        started = started.min(thread_cpu() - began);
    }
    let mut instance = start()?;
    let together = us(&mut instance, &decode::batch(&[payload; 16]))?;
    let alone = us(&mut instance, &decode::batch(&[payload]))?;
    drop(instance);
    let before = resident_of("self")?;
    let mut kept = Vec::new();
    for _ in 0..4 {
        let mut instance = start()?;
        us(&mut instance, &decode::batch(&[payload]))?;
        kept.push(instance);
    }
    let resident = (resident_of("self")? - before) / 4.0 / 1e6;
    println!(
        "| {name} | {:.2} | {:.1} | {:.2} | {together:.2} | {alone:.2} | {resident:.2} |",
        bytes as f64 / 1e6,
        compiling.as_secs_f64(),
        started.as_secs_f64() * 1e3,
    );
    Ok(())
}

/// Microseconds of CPU a message: the least of some rounds.
fn us(instance: &mut Instance, batch: &Batch) -> Result<f64> {
    let decoded = instance.decode(batch).0.map_err(|fault| anyhow!("{fault:?}"))?;
    ensure!(!decoded.lines.is_empty(), "it makes no line: {:?}", decoded.outcomes.first());
    let calls = 2_000 / batch.messages.len();
    let mut best = Duration::MAX;
    for _ in 0..7 {
        let began = thread_cpu();
        for _ in 0..calls {
            black_box(instance.decode(black_box(batch)).0.map_err(|fault| anyhow!("{fault:?}"))?);
        }
        best = best.min(thread_cpu() - began);
    }
    Ok(best.as_secs_f64() * 1e6 / (calls * batch.messages.len()) as f64)
}
