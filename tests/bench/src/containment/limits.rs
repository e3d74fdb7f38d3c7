//! The cost of the sandbox limits to a call.

use std::fs;
use std::hint::black_box;
use std::sync::Arc;

use anyhow::Result;
use tidegate::core::tenant::budget::Budget;
use tidegate::core::tenant::budget_kind::Resource;
use tidegate::decode::GuestClass;
use tidegate::decode::route::stats::RouteActivity;
use tidegate::decode::sandbox::abi;
use tidegate::decode::sandbox::abi::{Batch, ExportsPre, HostState, StoreLimiter};
use tidegate::decode::sandbox::instance_memory::InstanceMemory;
use tidegate::decode::sandbox::memory::SandboxMemory;
use wasmtime::component::{Component, Linker};
use wasmtime::{Config, Engine, OptLevel, Store};

use crate::{Paths, decode};

/// Calls of one instance until it is dropped.
type Call<'a> = Box<dyn FnMut() + 'a>;

/// The guest in an engine without epochs, limiter, fuel and pool.
fn unlimited<'a>(component: &[u8], batch: &'a Batch, tapes: &'a [Box<[u64]>]) -> wasmtime::Result<Call<'a>> {
    let mut config = Config::new();
    config.wasm_component_model(true).concurrency_support(false).cranelift_opt_level(OptLevel::Speed);
    let engine = Engine::new(&config)?;
    let mut linker = Linker::new(&engine);
    abi::offer(&mut linker)?;
    let component = Component::new(&engine, component)?;
    let guest = ExportsPre::new(linker.instantiate_pre(&component)?)?;
    let (activity, log_rates) = (RouteActivity::of_trial(), Arc::default());
    let budget = Budget::unlimited(Resource::Memory);
    let memory = InstanceMemory::new(&budget, &SandboxMemory::unlimited(), 1 << 32, false);
    let limiter = StoreLimiter::new(GuestClass::Normal, 1 << 32, memory);
    let state = HostState::new(None, activity, log_rates, limiter, Vec::new());
    let mut store = Store::new(&engine, state);
    store.set_hostcall_fuel(usize::MAX);
    let exports = guest.instantiate(&mut store)?;
    let (tenant, message_type) = ("acme".to_owned(), "telemetry".to_owned());
    let route = abi::Route { tenant, message_type, options: Vec::new() };
    exports.call_configure(&mut store, &route)?.map_err(wasmtime::Error::msg)?;
    Ok(Box::new(move || {
        store.data_mut().set_tapes(tapes.iter().map(|tape| &**tape));
        black_box(exports.call_decode(&mut store, black_box(batch)).expect("pulse decodes"));
    }))
}

/// The cost of limits to a call, by the messages in it.
pub fn limits(paths: &Paths) -> Result<()> {
    let component = fs::read(paths.guests.join("pulse.wasm"))?;
    let guests = decode::guests(paths)?;
    println!("What containment costs: pulse, CPU of one thread\n");
    println!("| messages a call | without limits, ns a message | with every limit | ratio | asked |");
    println!("|---|---|---|---|---|");
    for size in [64, 16, 1] {
        let texts = decode::payloads();
        let payloads: Vec<&[u8]> = texts.iter().take(size).map(|payload| payload.as_bytes()).collect();
        let (batch, tapes) = (decode::batch(&payloads), decode::tapes(&payloads));
        let mut bare = unlimited(&component, &batch, &tapes).map_err(|error| anyhow::anyhow!("{error:#}"))?;
        let mut contained = decode::instance(&guests)?;
        let (mut without, mut with) = (f64::MAX, f64::MAX);
        // In turn, so that a machine that drifts does so for both.
        for _ in 0..5 {
            without =
                without.min(decode::least(|| (0..decode::MESSAGES_A_ROUND / size).for_each(|_| bare())));
            with = with.min(decode::least(|| {
                for _ in 0..decode::MESSAGES_A_ROUND / size {
                    contained.state().set_tapes(tapes.iter().map(|tape| &**tape));
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
