//! Replacements under load, message by message.

use std::collections::HashMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{maximum, variant};
use crate::Paths;
use crate::gateway::{Gateway, Setup};
use crate::load::{Load, Plan};
use crate::sink::{Manner, Sink};
use crate::statistics::{median, p99_ms};

/// A hundred swaps while messages flow.
pub fn swaps(paths: &Paths) -> Result<()> {
    let plan = Plan {
        name: "tenant",
        tenants: 10,
        devices: 1_000,
        connections: 8,
        messages: 200_000,
        window: 2_000,
    };
    let per_second = 0.7 * maximum(paths, &plan, "swaps-maximum")?;
    let sink = Sink::with(Manner { keeps: true, ..Manner::default() })?;
    let gateway = Gateway::start(&Setup::new(paths, "swaps", &[&plan], &sink))?;
    let component = fs::read(paths.guests.join("pulse.wasm"))?;
    let versions = [variant(&component, "a"), variant(&component, "b")];
    let (swapping, ended) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let swapper = {
        let (swapping, ended, folder) =
            (swapping.clone(), ended.clone(), gateway.folder.join("guests/_default"));
        std::thread::spawn(move || -> Result<()> {
            let mut next = 0;
            while !ended.load(Ordering::Acquire) {
                if swapping.load(Ordering::Acquire) {
                    fs::write(folder.join(".new"), &versions[next % 2])?;
                    fs::rename(folder.join(".new"), folder.join("telemetry.wasm"))?;
                    next += 1;
                }
                std::thread::sleep(Duration::from_millis(150));
            }
            Ok(())
        })
    };
    let swapped = |gateway: &Gateway| -> Result<f64> {
        let text = gateway.get("/metrics")?;
        let of = |line: &&str| line.starts_with("tidegate_guest_swaps_total") && line.contains("replaced");
        Ok(text.lines().filter(of).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    };
    let (mut quiet, mut busy) = (Vec::new(), Vec::new());
    let (mut messages, mut lost, mut torn, mut rounds) = (0, 0, 0, 0);
    // In turn; both with the same load, until a hundred swaps were made.
    while swapped(&gateway)? < 100.0 {
        rounds += 1;
        ensure!(rounds < 400, "no hundred swaps in {rounds} rounds");
        for swaps in [false, true] {
            swapping.store(swaps, Ordering::Release);
            sink.kept().clear();
            let before = sink.lines();
            let paced = Load::prepare(&plan, &gateway.listener)?.run_at(per_second)?;
            let began = Instant::now();
            while sink.lines() - before < plan.messages as u64 && began.elapsed() < Duration::from_secs(30) {
                std::thread::sleep(Duration::from_millis(1));
            }
            if swaps {
                busy.push(p99_ms(&paced));
                messages += plan.messages;
                let (missing, different) = audit(&sink.kept(), plan.messages)?;
                lost += missing;
                torn += different;
            } else {
                quiet.push(p99_ms(&paced));
            }
        }
    }
    ended.store(true, Ordering::Release);
    swapper.join().map_err(|_| anyhow::anyhow!("the swapper panicked"))??;
    let books = gateway.get("/api/v1/books")?;
    ensure!(books.contains("\"balanced\":true"), "the books do not balance: {books}");
    println!(
        "{:.0} swaps during {messages} messages at {per_second:.0} a second, 70 % of the maximum\n",
        swapped(&gateway)?
    );
    println!("| | measured | asked |\n|---|---|---|");
    println!("| messages lost | {lost} | 0 |\n| lines of one message that differ | {torn} | 0 |");
    let (quiet, busy) = (median(quiet), median(busy));
    println!("| p99 of acknowledgements without swaps, ms, median of the rounds | {quiet:.1} | |");
    println!("| with swaps | {busy:.1} | |\n| with / without | {:.2} | at most 2 |\n", busy / quiet);
    Ok(())
}

/// The number of messages without a line, and of those whose lines differ.
fn audit(bodies: &[Vec<u8>], messages: usize) -> Result<(usize, usize)> {
    let mut seen: HashMap<(&str, &str), &str> = HashMap::new();
    let mut different = 0;
    for body in bodies {
        for line in std::str::from_utf8(body)?.lines() {
            let part = |from: &str, to: char| {
                line.split_once(from).and_then(|(_, rest)| rest.split_once(to)).map(|(part, _)| part)
            };
            let device = part("device_id=", ',').context("a line names its device")?;
            let seq = part("seq=", 'i').context("a line has its seq")?;
            if let Some(before) = seen.insert((device, seq), line) {
                different += usize::from(before != line);
            }
        }
    }
    Ok((messages - seen.len(), different))
}
