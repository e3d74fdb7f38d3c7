//! The cost of the sandbox, and the cost of a bad decoder to the others.

use std::collections::HashMap;
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tidegate::core::ack::tracker::AckTracker;
use tidegate::core::ack::window::ReceiveWindow;
use tidegate::core::tenant::budget::Budget;
use tidegate::core::tenant::budget_kind::Resource;
use tidegate::decode::route::stats::RouteActivity;
use tidegate::decode::sandbox::abi;
use tidegate::decode::sandbox::abi::{Batch, ExportsPre, HostState, StoreLimiter};
use tidegate::decode::sandbox::cpu_clock::thread_cpu;
use tidegate::decode::sandbox::instance_memory::InstanceMemory;
use tidegate::decode::sandbox::memory::SandboxMemory;
use tidegate::decode::{Decoder, GuestClass};
use tidegate::rollout::{PutAuthor, PutRequest};
use wasmtime::component::{Component, Linker};
use wasmtime::{Config, Engine, OptLevel, Store};

use crate::gateway::{self, From, Gateway};
use crate::load::{Load, Paced, Plan};
use crate::sink::{Manner, Sink};
use crate::{Paths, decode};

/// One of the parts, by name, or all.
pub fn measure(paths: &Paths, part: Option<&str>) -> Result<()> {
    let parts = [
        ("limits", limits as fn(&Paths) -> Result<()>),
        ("script", script),
        ("swap", swap),
        ("routes", routes),
        ("swaps", swaps),
        ("burner", burner),
    ];
    ensure!(
        part.is_none_or(|part| parts.iter().any(|(name, _)| *name == part)),
        "{part:?}: expected {}",
        parts.map(|(name, _)| name).join(", ")
    );
    for (_, run) in parts.iter().filter(|(name, _)| part.is_none_or(|part| part == *name)) {
        run(paths)?;
    }
    Ok(())
}

/// Calls of one instance until it is dropped.
type Call<'a> = Box<dyn FnMut() + 'a>;

/// The guest in an engine without epochs, limiter, fuel and pool.
fn unlimited<'a>(component: &[u8], batch: &'a Batch) -> wasmtime::Result<Call<'a>> {
    let mut config = Config::new();
    config.wasm_component_model(true).concurrency_support(false).cranelift_opt_level(OptLevel::Speed);
    let engine = Engine::new(&config)?;
    let mut linker = Linker::new(&engine);
    abi::offer(&mut linker)?;
    let component = Component::new(&engine, component)?;
    let guest = ExportsPre::new(linker.instantiate_pre(&component)?)?;
    let route = "acme/telemetry".to_owned();
    let (activity, log_rates) = (RouteActivity::of_trial(), Arc::default());
    let budget = Budget::unlimited(Resource::Memory);
    let memory = InstanceMemory::new(&budget, &SandboxMemory::unlimited(), 1 << 32, false);
    let limiter = StoreLimiter::new(GuestClass::Normal, 1 << 32, memory);
    let state = HostState::new(route, "acme".into(), activity, log_rates, limiter, None);
    let mut store = Store::new(&engine, state);
    store.set_hostcall_fuel(usize::MAX);
    let exports = guest.instantiate(&mut store)?;
    let (tenant, message_type) = ("acme".to_owned(), "telemetry".to_owned());
    let route = abi::Route { tenant, message_type, options: Vec::new() };
    exports.call_configure(&mut store, &route)?.map_err(wasmtime::Error::msg)?;
    Ok(Box::new(move || {
        black_box(exports.call_decode(&mut store, black_box(batch)).expect("pulse decodes"));
    }))
}

/// The cost of limits to a call, by the messages in it.
fn limits(paths: &Paths) -> Result<()> {
    let component = fs::read(paths.guests.join("pulse.wasm"))?;
    let guests = decode::guests(paths)?;
    println!("What containment costs: pulse, CPU of one thread\n");
    println!("| messages a call | without limits, ns a message | with every limit | ratio | asked |");
    println!("|---|---|---|---|---|");
    for size in [64, 16, 1] {
        let texts = decode::payloads();
        let payloads: Vec<&[u8]> = texts.iter().take(size).map(|payload| payload.as_bytes()).collect();
        let batch = decode::batch(&payloads);
        let mut bare = unlimited(&component, &batch).map_err(|error| anyhow::anyhow!("{error:#}"))?;
        let mut contained = decode::instance(&guests)?;
        let (mut without, mut with) = (f64::MAX, f64::MAX);
        // In turn, so that a machine that drifts does so for both.
        for _ in 0..5 {
            without =
                without.min(decode::least(|| (0..decode::MESSAGES_A_ROUND / size).for_each(|_| bare())));
            with = with.min(decode::least(|| {
                for _ in 0..decode::MESSAGES_A_ROUND / size {
                    black_box(contained.decode(black_box(&batch)).0.expect("pulse decodes"));
                }
            }));
        }
        let asked = if size == decode::BATCH { "at most 1.30" } else { "" };
        println!("| {size} | {without:.0} | {with:.0} | {:.2} | {asked} |", with / without);
    }
    println!();
    Ok(())
}

/// The decoder in JavaScript beside the one in Rust that makes the same lines.
fn script(paths: &Paths) -> Result<()> {
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
        let before = resident_bytes()?;
        let mut kept = Vec::new();
        for _ in 0..4 {
            let mut instance = decode::instance_of(&guests, "acme", place)?;
            for _ in 0..50 {
                instance.decode(&batch).0.map_err(|fault| anyhow::anyhow!("{fault:?}"))?;
            }
            kept.push(instance);
        }
        resident.push((resident_bytes()? - before) / 4.0 / 1e6);
    }
    println!("| resident an instance, MB | {:.2} | {:.1} |", resident[0], resident[1]);
    println!("\nCompiling both, once: {:.1} s by the clock\n", cold.as_secs_f64());
    Ok(())
}

/// Bytes of this process that are resident (proc_pid_status(5)).
fn resident_bytes() -> Result<f64> {
    Ok(gateway::memory_of("self")?.resident)
}

/// The same component with another digest: a custom section more.
fn variant(component: &[u8], name: &str) -> Vec<u8> {
    let mut bytes = component.to_vec();
    bytes.extend([0, name.len() as u8 + 1, name.len() as u8]);
    bytes.extend(name.as_bytes());
    bytes
}

/// The delay of the first message after a swap, compared with the others.
fn swap(paths: &Paths) -> Result<()> {
    let guests = decode::guests(paths)?;
    let component = fs::read(paths.guests.join("pulse.wasm"))?;
    let place = ("_default".to_owned(), "telemetry".to_owned());
    let texts = decode::payloads();
    let payloads: Vec<&[u8]> = texts.iter().take(1).map(|payload| payload.as_bytes()).collect();
    let connection = AckTracker::new(Arc::new(ReceiveWindow::new(u64::MAX, u64::MAX)));
    let gate = decode::admission(paths, 1)?;
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

const ROUTES: usize = 1_000;
const COMPONENTS: usize = 20;

/// A thousand tenants with a route each.
fn routes(paths: &Paths) -> Result<()> {
    let plan = Plan {
        name: "tenant",
        tenants: ROUTES,
        devices: ROUTES,
        connections: 1,
        messages: 5 * ROUTES,
        window: 100,
    };
    let sink = Sink::start(Duration::ZERO)?;
    let folder = paths.scratch.join("routes");
    let mut gateway =
        Gateway::start(&paths.binary, &paths.guests, &folder, &[&plan], &sink.url, &From::Listener, "")?;
    let load = |gateway: &Gateway| Load::prepare(&plan, &gateway.listener)?.run();
    // What is there with one route, after a start like the one that is measured.
    gateway.kill_and_restart(&paths.binary)?;
    let shared = gateway.memory()?.resident;
    let component = fs::read(paths.guests.join("pulse.wasm"))?;
    for device in 0..ROUTES {
        let tenant = folder.join("guests").join(plan.tenant_of(device));
        fs::create_dir_all(&tenant)?;
        fs::write(tenant.join("telemetry.wasm"), variant(&component, &format!("c{}", device % COMPONENTS)))?;
    }
    let began = Instant::now();
    while gateway.get("/api/v1/guests")?.matches("\"state\":\"serving\"").count() < ROUTES + 1 {
        ensure!(began.elapsed() < Duration::from_secs(300), "a thousand routes do not serve within 300 s");
        std::thread::sleep(Duration::from_millis(200));
    }
    let took = gateway.kill_and_restart(&paths.binary)?;
    let idle = gateway.memory()?.resident;
    load(&gateway)?;
    let busy = gateway.memory()?.resident;
    let a_route = |resident: f64| (resident - shared) / ROUTES as f64 / 1e3;
    println!("{ROUTES} routes of {COMPONENTS} components, each of a tenant of its own\n");
    println!("| | measured | asked |\n|---|---|---|");
    println!("| ready after a start with a warm cache, s | {:.2} | under 3 |", took.as_secs_f64());
    println!("| resident a route, none used yet, kB | {:.0} | |", a_route(idle));
    println!(
        "| resident a route, each used, with its tenant's device, accounts and instance, kB | {:.0} | under 200 |\n",
        a_route(busy)
    );
    Ok(())
}

/// The highest rate of the gateway with this load: the median of five turns, because a machine
/// that others use is free for a moment and then is not.
fn maximum(paths: &Paths, plan: &Plan, name: &str) -> Result<f64> {
    let sink = Sink::start(Duration::ZERO)?;
    let folder = paths.scratch.join(name);
    let gateway =
        Gateway::start(&paths.binary, &paths.guests, &folder, &[plan], &sink.url, &From::Listener, "")?;
    let mut rates = Vec::new();
    for _ in 0..5 {
        let took = Load::prepare(plan, &gateway.listener)?.run()?;
        rates.push(plan.messages as f64 / took.as_secs_f64());
    }
    Ok(median(rates))
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

pub fn p99_ms(paced: &Paced) -> f64 {
    paced.percentile(0.99).as_secs_f64() * 1e3
}

/// A hundred swaps while messages flow.
fn swaps(paths: &Paths) -> Result<()> {
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
    let folder = paths.scratch.join("swaps");
    let gateway =
        Gateway::start(&paths.binary, &paths.guests, &folder, &[&plan], &sink.url, &From::Listener, "")?;
    let component = fs::read(paths.guests.join("pulse.wasm"))?;
    let versions = [variant(&component, "a"), variant(&component, "b")];
    let (swapping, ended) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let swapper = {
        let (swapping, ended, folder) = (swapping.clone(), ended.clone(), folder.join("guests/_default"));
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

/// One tenant whose decoder burns its whole deadline for each message, ten times as often as its fair
/// share of the CPU allows, beside ten others.
fn burner(paths: &Paths) -> Result<()> {
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
    let folder = paths.scratch.join("burner");
    let burner = Plan { name: "burner", tenants: 1, devices: 1, connections: 1, messages: 0, window: 1 };
    let gateway = Gateway::start(
        &paths.binary,
        &paths.guests,
        &folder,
        &[&plan, &burner],
        &sink.url,
        &From::Listener,
        "",
    )?;
    let tenant = folder.join("guests").join(burner.tenant_of(0));
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
) -> Result<std::thread::JoinHandle<Result<u64>>> {
    use std::io::{Read, Write};
    use tidegate_simulator::{Device, packet};
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
