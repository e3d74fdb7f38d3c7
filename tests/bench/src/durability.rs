//! The cost of durability, and the drain of a backlog: syncs, a database that answers late, dead
//! neighbours, many small tenants, recovery.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::Paths;
use crate::gateway::{Gateway, Setup, Usage};
use crate::load::{Load, Paced, Plan};
use crate::sink::{Manner, Sink};
use crate::statistics::{median, p99_ms, thread_cpu};

const NO_CEILING: &str = "[spool]\nbytes_max = 4294967296\ntenant_bytes_max = 4294967296\n";

fn plan(name: &'static str, tenants: usize, messages: usize) -> Plan {
    Plan { name, tenants, devices: tenants.max(200), connections: 8, messages, window: 2_000 }
}

struct Run {
    acknowledged: Duration,
    took: Duration,
    usage: Usage,
    syncs: f64,
    posts: u64,
}

fn start(paths: &Paths, plans: &[&Plan], sink: &Sink, more: &str) -> Result<Gateway> {
    Gateway::start(&Setup { more, ..Setup::new(paths, "durability", plans, sink) })
}

/// Waits until the sink has as many lines as were sent.
fn wait(gateway: &Gateway, sink: &Sink, lines: u64, started: Instant) -> Result<Duration> {
    while sink.lines() < lines {
        ensure!(
            started.elapsed() < Duration::from_secs(180),
            "{} of {lines} lines arrived within 180 s; {}",
            sink.lines(),
            gateway.get("/api/v1/spool")?
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(started.elapsed())
}

fn run(paths: &Paths, plan: &Plan, manner: Manner, more: &str) -> Result<Run> {
    let sink = Sink::with(manner)?;
    let gateway = start(paths, &[plan], &sink, more)?;
    let load = Load::prepare(plan, &gateway.listener)?;
    let before = gateway.usage()?;
    let started = Instant::now();
    let acknowledged = load.run()?;
    let took = wait(&gateway, &sink, plan.messages as u64, started)?;
    let usage = gateway.usage()?.since(&before);
    let syncs = gateway.metric("tidegate_spool_syncs_total")?;
    Ok(Run { acknowledged, took, usage, syncs, posts: sink.posts() })
}

/// QoS 1 with and without syncs, turn by turn.
fn syncs(paths: &Paths) -> Result<()> {
    let plan = plan("tenant", 10, 800_000);
    let mut rates = [Vec::new(), Vec::new()];
    let mut messages_a_sync = 0.0;
    for turn in 0..6 {
        let sync = ["always", "never"][turn % 2];
        let more = format!("{NO_CEILING}sync = \"{sync}\"\n");
        let run = run(paths, &plan, Manner::default(), &more)?;
        rates[turn % 2].push(plan.messages as f64 / run.acknowledged.as_secs_f64());
        if turn % 2 == 0 {
            messages_a_sync = plan.messages as f64 / run.syncs;
        }
    }
    let [always, never] = rates.map(median);
    println!("QoS 1 through the listener, medians of three turns\n");
    println!(
        "| spool.sync | acknowledged messages/s |\n|---|---|\n| always | {always:.0} |\n| never | {never:.0} |"
    );
    println!("\n| ratio | measured | asked |\n|---|---|---|");
    println!("| always / never | {:.2} | at least 0.8 |", always / never);
    println!("| messages a sync | {messages_a_sync:.0} | |\n");
    Ok(())
}

/// One database that answers each write after a second, and one that answers at once.
fn late(paths: &Paths) -> Result<()> {
    let plan = plan("tenant", 1, 1_000_000);
    let at_once = run(paths, &plan, Manner::default(), NO_CEILING)?;
    let late = run(paths, &plan, Manner { delay: Duration::from_secs(1), ..Manner::default() }, NO_CEILING)?;
    let rate = |run: &Run| plan.messages as f64 / run.took.as_secs_f64();
    println!("One database that answers each write after a second\n");
    println!("| answers | lines/s into one database | CPU us a line | lines a POST |\n|---|---|---|---|");
    for (name, run) in [("at once", &at_once), ("after a second", &late)] {
        let cpu_us = run.usage.cpu.as_secs_f64() * 1e6 / plan.messages as f64;
        println!(
            "| {name} | {:.0} | {cpu_us:.2} | {:.0} |",
            rate(run),
            plan.messages as f64 / run.posts as f64
        );
    }
    println!("\n| ratio | measured | asked |\n|---|---|---|");
    println!("| lines/s, answered after a second | {:.0} | at least 50,000 |", rate(&late));
    let cpu = late.usage.cpu.as_secs_f64() / at_once.usage.cpu.as_secs_f64();
    println!("| CPU, after a second / at once | {cpu:.2} | at most 2 |\n");
    Ok(())
}

/// A healthy database alone, and beside fifty dead ones of which half never answer.
fn dead(paths: &Paths) -> Result<()> {
    let most = plan("well", 1, 400_000);
    let fastest = run(paths, &most, Manner::default(), NO_CEILING)?;
    let per_second = 0.7 * most.messages as f64 / fastest.took.as_secs_f64();
    let seconds = 6.0;
    let messages = (per_second * seconds) as usize / 8 * 8;
    let well = Plan { messages, ..most };
    let lost =
        Plan { name: "dead", tenants: 50, devices: 50, connections: 1, messages: 5_000, window: 2_000 };
    let manner = Manner { dead: Some("telemetry_dead"), hang: true, ..Manner::default() };
    let mut results = Vec::new();
    for turn in 0..4 {
        let sink = Sink::with(manner)?;
        let gateway = start(paths, &[&well, &lost], &sink, NO_CEILING)?;
        if turn % 2 == 1 {
            Load::prepare(&lost, &gateway.listener)?.run()?;
            // So that they are known to be dead, and are still tried.
            std::thread::sleep(Duration::from_secs(2));
        }
        let load = Load::prepare(&well, &gateway.listener)?;
        let started = Instant::now();
        let paced = load.run_at(per_second)?;
        let took = wait(&gateway, &sink, well.messages as u64, started)?;
        results.push((well.messages as f64 / took.as_secs_f64(), p99_ms(&paced)));
    }
    let mean = |turn: usize| {
        ((results[turn].0 + results[turn + 2].0) / 2.0, (results[turn].1 + results[turn + 2].1) / 2.0)
    };
    let (alone, beside) = (mean(0), mean(1));
    println!("One healthy database at 70 % of its measured maximum, alone and beside 50 dead ones\n");
    println!("| | lines/s | p99 of acknowledgements, ms |\n|---|---|---|");
    println!(
        "| alone | {:.0} | {:.1} |\n| beside 50 dead | {:.0} | {:.1} |",
        alone.0, alone.1, beside.0, beside.1
    );
    println!("\n| ratio | measured | asked |\n|---|---|---|");
    println!("| throughput, beside / alone | {:.2} | at least 0.95 |", beside.0 / alone.0);
    println!("| p99, beside / alone | {:.2} | at most 1.5 |\n", beside.1 / alone.1);
    Ok(())
}

/// One turn of `trickle`.
struct Turn {
    own: Usage,
    bare: Duration,
    posts: u64,
    syncs: f64,
    latencies: Paced,
}

fn trickle_turn(paths: &Paths) -> Result<Turn> {
    let seconds = 10;
    let plan = Plan {
        name: "tenant",
        tenants: 1_000,
        devices: 1_000,
        connections: 1,
        messages: 1_000 * seconds,
        window: 1,
    };
    let sink = Sink::start(Duration::ZERO)?;
    let gateway = start(paths, &[&plan], &sink, NO_CEILING)?;
    let load = Load::prepare(&plan, &gateway.listener)?;
    let before = gateway.usage()?;
    let started = Instant::now();
    let latencies = load.run_at(1_000.0)?;
    wait(&gateway, &sink, plan.messages as u64, started)?;
    let own = gateway.usage()?.since(&before);
    let posts = sink.posts();
    let syncs = gateway.metric("tidegate_spool_syncs_total")?;
    drop(gateway);
    let line_bytes = sink.counts.bytes.load(std::sync::atomic::Ordering::Relaxed) / posts;
    let per_second = posts as f64 / seconds as f64;
    let bare = bare_posts(&sink.url, posts, line_bytes as usize, per_second)?;
    Ok(Turn { own, bare, posts, syncs, latencies })
}

/// A thousand tenants of one message a second each, against a bare client that sends their POSTs at
/// the same rate. In turns, so that other load of the machine disturbs both.
fn trickle(paths: &Paths) -> Result<()> {
    let mut turns = (0..3).map(|_| trickle_turn(paths)).collect::<Result<Vec<Turn>>>()?;
    let ratio = |turn: &Turn| turn.own.cpu.as_secs_f64() / turn.bare.as_secs_f64();
    turns.sort_by(|a, b| ratio(a).total_cmp(&ratio(b)));
    let (least, most) = (ratio(&turns[0]), ratio(&turns[2]));
    let Turn { own, bare, posts, syncs, latencies } = &turns[1];
    let mut threads = own.threads.clone();
    threads.sort_by_key(|(_, cpu)| std::cmp::Reverse(*cpu));
    println!(
        "1,000 tenants, a message a second each: {posts} POSTs, {syncs} syncs of the spool; the median of three turns\n"
    );
    println!("| | CPU us a POST |\n|---|---|");
    let us = |cpu: Duration| cpu.as_secs_f64() * 1e6 / *posts as f64;
    for (name, cpu) in threads.iter().filter(|(_, cpu)| us(*cpu) >= 1.0) {
        println!("| of that, threads {name} | {:.1} |", us(*cpu));
    }
    println!(
        "| Tidegate, all of it | {:.1} |\n| bare reqwest, the same {posts} POSTs | {:.1} |",
        us(own.cpu),
        us(*bare)
    );
    println!("\n| ratio | measured | asked |\n|---|---|---|");
    println!(
        "| CPU, Tidegate / bare reqwest | {:.2} (turns: {least:.2} to {most:.2}) | at most 1.5 |",
        ratio(&turns[1])
    );
    let ms = |share: f64| latencies.percentile(share).as_secs_f64() * 1e3;
    println!("| PUBLISH to PUBACK, ms, p50 and p99 | {:.1}, {:.1} | |\n", ms(0.5), ms(0.99));
    Ok(())
}

/// CPU of one thread that sends POSTs at a steady rate with reqwest.
fn bare_posts(url: &str, posts: u64, bytes: usize, per_second: f64) -> Result<Duration> {
    let url =
        format!("{url}/api/v3/write_lp?precision=ns&accept_partial=true&no_sync=false&db=telemetry_tenant");
    let thread = std::thread::spawn(move || -> Result<Duration> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let client = reqwest::Client::builder().no_proxy().tcp_nodelay(true).build()?;
            let body = "m".repeat(bytes);
            let mut sending = tokio::task::JoinSet::new();
            let began = Instant::now();
            for post in 0..posts {
                tokio::time::sleep_until((began + Duration::from_secs_f64(post as f64 / per_second)).into())
                    .await;
                let request = client
                    .post(format!("{url}{:03}", post % 1_000))
                    .header("content-type", "text/plain; charset=utf-8")
                    .body(body.clone());
                sending.spawn(async move { Ok::<_, reqwest::Error>(request.send().await?.status()) });
                while let Some(done) = sending.try_join_next() {
                    ensure!(done??.as_u16() == 204, "the sink takes every POST");
                }
            }
            while let Some(done) = sending.join_next().await {
                ensure!(done??.as_u16() == 204, "the sink takes every POST");
            }
            anyhow::Ok(())
        })?;
        thread_cpu()
    });
    thread.join().map_err(|_| anyhow::anyhow!("the bare client panicked"))?
}

/// A kill with 256 MiB in the spool, and the time until it is ready again.
fn recovery(paths: &Paths) -> Result<()> {
    let plan = plan("dead", 10, 1_200_000);
    let sink = Sink::with(Manner { dead: Some("telemetry_dead"), ..Manner::default() })?;
    let mut gateway = start(paths, &[&plan], &sink, NO_CEILING)?;
    Load::prepare(&plan, &gateway.listener)?.run()?;
    let bytes = gateway.metric("tidegate_spool_bytes")?;
    let empty = {
        let plans = [&plan];
        let setup = Setup { more: NO_CEILING, ..Setup::new(paths, "recovery-empty", &plans, &sink) };
        let mut gateway = Gateway::start(&setup)?;
        gateway.kill_and_restart(&paths.binary)?
    };
    let took = gateway.kill_and_restart(&paths.binary)?;
    let resident = gateway.usage()?.resident_bytes as f64 / 1e6;
    println!(
        "Ready after a kill: {:.2} s with {:.0} MiB in the spool ({resident:.0} MB resident), {:.2} s with none\n",
        took.as_secs_f64(),
        bytes / 1048576.0,
        empty.as_secs_f64()
    );
    Ok(())
}

/// One of the parts, by name, or all.
pub fn measure(paths: &Paths, part: Option<&str>) -> Result<()> {
    let parts = [
        ("syncs", syncs as fn(&Paths) -> Result<()>),
        ("late", late),
        ("trickle", trickle),
        ("dead", dead),
        ("recovery", recovery),
    ];
    for (_, run) in parts.iter().filter(|(name, _)| part.is_none_or(|part| part == *name)) {
        run(paths)?;
    }
    Ok(())
}
