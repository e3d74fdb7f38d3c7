//! A thousand routes: ready after a start, and resident.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::variant;
use crate::Paths;
use crate::gateway::{Gateway, Setup};
use crate::load::{Load, Plan};
use crate::sink::Sink;

const ROUTES: usize = 1_000;
const COMPONENTS: usize = 20;

/// A thousand tenants with a route each.
pub fn routes(paths: &Paths) -> Result<()> {
    let plan = Plan {
        name: "tenant",
        tenants: ROUTES,
        devices: ROUTES,
        connections: 1,
        messages: 5 * ROUTES,
        window: 100,
    };
    let sink = Sink::start(Duration::ZERO)?;
    let mut gateway = Gateway::start(&Setup::new(paths, "routes", &[&plan], &sink))?;
    let load = |gateway: &Gateway| Load::prepare(&plan, &gateway.listener)?.run();
    // What is there with one route, after a start like the one that is measured.
    gateway.kill_and_restart(&paths.binary)?;
    let shared = gateway.resident()?;
    let component = fs::read(paths.guests.join("pulse.wasm"))?;
    for device in 0..ROUTES {
        let tenant = gateway.folder.join("guests").join(plan.tenant_of(device));
        fs::create_dir_all(&tenant)?;
        fs::write(tenant.join("telemetry.wasm"), variant(&component, &format!("c{}", device % COMPONENTS)))?;
    }
    let began = Instant::now();
    while gateway.get("/api/v1/guests")?.matches("\"state\":\"serving\"").count() < ROUTES + 1 {
        ensure!(began.elapsed() < Duration::from_secs(300), "a thousand routes do not serve within 300 s");
        std::thread::sleep(Duration::from_millis(200));
    }
    let took = gateway.kill_and_restart(&paths.binary)?;
    let idle = gateway.resident()?;
    load(&gateway)?;
    let busy = gateway.resident()?;
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
