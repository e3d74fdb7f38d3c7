//! A JavaScript codec in the sandbox beside node, the time from `put` to its first message, and 10,000 routes.

use std::fs;
use std::hint::black_box;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use tidegate::core::tenant::budget::Budget;
use tidegate::core::tenant::budget_kind::Resource;
use tidegate::decode::sandbox::abi::MessageContext;
use tidegate::decode::sandbox::cpu_clock::thread_cpu;
use tidegate::decode::sandbox::instance::{CallFault, Instance};
use tidegate::rollout::{GuestStore, PutAuthor, PutFile, PutRequest};

use crate::formats::Sender;
use crate::gateway::resident_of;
use crate::{Paths, decode};

const CODEC: &str = include_str!("codec.js");

/// Battery, temperature, humidity and a door.
const PAYLOAD: [u8; 13] = [0x01, 0x75, 92, 0x03, 0x67, 0x10, 0x01, 0x04, 0x68, 0x71, 0x05, 0x00, 0x00];

/// Messages of a call: as many as usually fit its time.
const MESSAGES: usize = 16;

const ROUTES: usize = 10_000;

const CODECS: usize = 100;

/// The times of a decode in node, in microseconds: with the compilers of V8 after so many calls that they have done
/// their work, and in its interpreter.
const IN_NODE: &str = r#"
const vm = require('vm'), fs = require('fs');
const [file, hex, mode] = process.argv.slice(2);
const text = fs.readFileSync(file, 'utf8');
const bytes = Array.from(Buffer.from(hex, 'hex'));
const context = vm.createContext({});
vm.runInContext(text, context);
const decode = vm.runInContext('decodeUplink', context);
let best = Infinity;
for (let round = 0; round < 15; round++) {
  const began = process.cpuUsage(), count = 20000;
  for (let i = 0; i < count; i++) decode({ bytes: bytes.slice(), fPort: 1, recvTime: new Date(0), variables: {} });
  const took = process.cpuUsage(began);
  best = Math.min(best, (took.user + took.system) / count);
}
console.log(best);
"#;

fn node_us(paths: &Paths, flags: &[&str]) -> Result<f64> {
    let script = paths.scratch.join("in-node.js");
    let codec = paths.scratch.join("codec.js");
    fs::write(&script, IN_NODE)?;
    fs::write(&codec, CODEC)?;
    let hex: String = PAYLOAD.iter().map(|byte| format!("{byte:02x}")).collect();
    let output = Command::new("node").args(flags).arg(&script).arg(&codec).arg(hex).output();
    let output = output.context("node is needed for the comparison")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}

/// The route `acme/up` with the codec.
fn store(paths: &Paths) -> Result<GuestStore> {
    let folder = paths.scratch.join("js-guests");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(folder.join("acme"))?;
    fs::write(folder.join("acme/up.js"), CODEC)?;
    decode::open(paths, &folder, &[])
}

/// Microseconds of CPU a message, in calls of so many.
fn sandbox_us(instance: &mut Instance, messages: usize) -> Result<f64> {
    let batch = decode::batch(&vec![&PAYLOAD[..]; messages]);
    let message = Sender::new().message("up/d", 0..2, &PAYLOAD);
    instance.state().messages = (0..messages).map(|_| MessageContext::new(&message, 0)).collect();
    let calls = 3_200 / messages;
    let mut best = Duration::MAX;
    for _ in 0..15 {
        let began = thread_cpu();
        for _ in 0..calls {
            black_box(instance.decode(black_box(&batch)).0.map_err(|fault| anyhow!("{fault:?}"))?);
        }
        best = best.min(thread_cpu() - began);
    }
    Ok(best.as_secs_f64() * 1e6 / (calls * messages) as f64)
}

/// All but the routes, or these alone.
pub fn measure(paths: &Paths, part: Option<&str>) -> Result<()> {
    let guests = store(paths)?;
    if part == Some("routes") {
        return routes(&guests);
    }
    let mut instance = decode::instance_of(&guests, "acme", "up")?;
    let (mut ours, mut alone) = (f64::MAX, f64::MAX);
    let (mut compiled, mut interpreted) = (f64::MAX, f64::MAX);
    for _ in 0..2 {
        ours = ours.min(sandbox_us(&mut instance, MESSAGES)?);
        alone = alone.min(sandbox_us(&mut instance, 1)?);
        compiled = compiled.min(node_us(paths, &[])?);
        // V8 without its compilers is an interpreter as QuickJS is.
        interpreted = interpreted.min(node_us(paths, &["--jitless"])?);
    }
    println!("A JavaScript codec of four fields; CPU of one thread, least of the rounds\n");
    println!("| what | us a message |\n|---|---|");
    println!("| the decoder js, {MESSAGES} messages a call, its heap put back after each | {ours:.1} |");
    println!("| the same, a message alone | {alone:.1} |");
    println!("| node, after 20,000 calls | {compiled:.2} |");
    println!("| node without its compilers (--jitless) | {interpreted:.2} |\n");
    put(paths)
}

/// From `put` of a script to its first message.
fn put(paths: &Paths) -> Result<()> {
    let guests = store(paths)?;
    let place = ("acme".to_owned(), "up".to_owned());
    let mut times = Vec::new();
    for round in 0..30 {
        let text = format!("{CODEC}\n// {round}\n");
        let file = PutFile::new("js", text.into_bytes()).map_err(anyhow::Error::msg)?;
        let request = PutRequest { file, ..PutRequest::new(place.clone(), Vec::new(), PutAuthor::Operator) };
        let began = Instant::now();
        guests.put_now(request)?;
        let mut instance = decode::instance_of(&guests, "acme", "up")?;
        let answer = instance.decode(&decode::batch(&[&PAYLOAD])).0.map_err(|fault| anyhow!("{fault:?}"))?;
        times.push(began.elapsed().as_secs_f64() * 1e3);
        ensure!(answer.lines.starts_with(b"up battery=92"), "{}", String::from_utf8_lossy(&answer.lines));
    }
    times.sort_by(f64::total_cmp);
    println!("From put of a codec to the lines of its first message, 30 puts, by the clock\n");
    println!("| ms, median | most | asked |\n|---|---|---|");
    println!("| {:.1} | {:.1} | at most 50 |\n", times[times.len() / 2], times[times.len() - 1]);
    Ok(())
}

/// Instances of as many routes of some codecs, each of which has decoded a message.
fn routes(guests: &GuestStore) -> Result<()> {
    let budget = Budget::unlimited(Resource::Memory);
    let route = guests.host().table().route("acme", "up").context("the route is there")?;
    let versions: Vec<_> = (0..CODECS)
        .map(|number| {
            let mut rules = route.version.rules.clone();
            for (key, value) in &mut rules.options {
                if key == "script" {
                    value.push_str(&format!("\nvar codec = {number};\n"));
                }
            }
            let activity = tidegate::decode::route::stats::RouteActivity::of_trial();
            let guest = route.version.guest.clone();
            tidegate::decode::route::version::RouteVersion::new(guest, rules, number.to_string(), activity)
        })
        .collect();
    let before = resident_of("self")?;
    let batch = decode::batch(&[&PAYLOAD]);
    let (mut kept, began) = (Vec::new(), Instant::now());
    for number in 0..ROUTES {
        let started = guests.host().start(&versions[number % CODECS], ("acme", &budget), "up");
        let mut instance = match started {
            Ok(Ok(instance)) => instance,
            Ok(Err(refusal)) => anyhow::bail!(refusal),
            // The pool has a number of instances: more would push out others.
            Err(CallFault::Host(_)) => break,
            Err(CallFault::Guest(reason, what)) => anyhow::bail!("{reason}: {what}"),
        };
        instance.decode(&batch).0.map_err(|fault| anyhow!("{fault:?}"))?;
        kept.push(instance);
    }
    let resident = resident_of("self")? - before;
    let (count, mb) = (kept.len(), resident / 1e6);
    let a_route = resident / count as f64;
    println!("Instances of {CODECS} codecs, each of which has decoded a message\n");
    println!(
        "| at once | started in, s | resident, MB | kB each | {ROUTES} of them, GiB | asked |\n|---|---|---|---|---|---|"
    );
    println!(
        "| {count} | {:.1} | {mb:.0} | {:.0} | {:.2} | at most 10 |\n",
        began.elapsed().as_secs_f64(),
        a_route / 1e3,
        a_route * ROUTES as f64 / (1_u64 << 30) as f64
    );
    Ok(())
}
