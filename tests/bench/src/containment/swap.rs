//! The first message after a replacement.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use tidegate::core::ack::tracker::AckTracker;
use tidegate::core::ack::window::ReceiveWindow;
use tidegate::decode::Decoder;
use tidegate::decode::sandbox::cpu_clock::thread_cpu;
use tidegate::rollout::{PutAuthor, PutRequest};

use super::variant;
use crate::{Paths, decode};

/// The delay of the first message after a swap, compared with the others.
pub fn swap(paths: &Paths) -> Result<()> {
    let guests = decode::guests(paths)?;
    let component = fs::read(paths.guests.join("pulse.wasm"))?;
    let place = ("_default".to_owned(), "telemetry".to_owned());
    let texts = decode::payloads();
    let payloads: Vec<&[u8]> = texts.iter().take(1).map(|payload| payload.as_bytes()).collect();
    let connection = AckTracker::new(Arc::new(ReceiveWindow::new(u64::MAX, u64::MAX)));
    let gate = decode::admission(paths, 1, 1)?;
    let mut decoder = Decoder::new(guests.host().clone());
    let mut one = || {
        let admitted = gate.admit(decode::received(&connection, &payloads, 0)).admitted;
        let began = (Instant::now(), thread_cpu());
        decoder.decode(admitted, &decode::Sink);
        (began.0.elapsed(), thread_cpu() - began.1)
    };
    let (mut usual, mut first) = (Vec::new(), Vec::new());
    for round in 0..60 {
        for _ in 0..200 {
            usual.push(one());
        }
        let put = variant(&component, &format!("v{round}"));
        guests.put_now(PutRequest::new(place.clone(), put, PutAuthor::Operator))?;
        first.push(one());
    }
    let median = |of: &mut Vec<(Duration, Duration)>, cpu: bool| {
        let mut times: Vec<Duration> = of.iter().map(|(wall, own)| if cpu { *own } else { *wall }).collect();
        times.sort_unstable();
        (times[times.len() / 2].as_secs_f64() * 1e3, times[times.len() - 1].as_secs_f64() * 1e3)
    };
    println!("The first message after each of 60 swaps, by a component that was compiled before\n");
    println!("| | usual, ms | first after a swap | later by | asked |\n|---|---|---|---|---|");
    for (name, cpu) in [("by the clock", false), ("CPU", true)] {
        let (usual, _) = median(&mut usual, cpu);
        let (middle, most) = median(&mut first, cpu);
        println!("| {name}, median | {usual:.3} | {middle:.3} | {:.3} | at most 2 |", middle - usual);
        println!("| {name}, most | | {most:.3} | {:.3} | |", most - usual);
    }
    println!();
    Ok(())
}
