//! The cost of the sandbox, and the cost of a bad decoder to the others.

mod burner;
mod limits;
mod routes;
mod script;
mod swap;
mod swaps;

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::gateway::{Gateway, Setup};
use crate::load::{Load, Plan};
use crate::sink::Sink;
use crate::statistics::median;
use crate::{Paths, tenants};

/// One of the parts, by name, or all.
pub fn measure(paths: &Paths, part: Option<&str>) -> Result<()> {
    let parts = [
        ("limits", limits::limits as fn(&Paths) -> Result<()>),
        ("tenants", tenants::measure),
        ("start", tenants::measure_start),
        ("script", script::script),
        ("swap", swap::swap),
        ("routes", routes::routes),
        ("swaps", swaps::swaps),
        ("burner", burner::burner),
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

/// The same component with another digest: a custom section more.
fn variant(component: &[u8], name: &str) -> Vec<u8> {
    let mut bytes = component.to_vec();
    bytes.extend([0, name.len() as u8 + 1, name.len() as u8]);
    bytes.extend(name.as_bytes());
    bytes
}

/// The highest rate of the gateway with this load: the median of five turns, because a machine
/// that others use is free for a moment and then is not.
fn maximum(paths: &Paths, plan: &Plan, name: &str) -> Result<f64> {
    let sink = Sink::start(Duration::ZERO)?;
    let gateway = Gateway::start(&Setup::new(paths, name, &[plan], &sink))?;
    let mut rates = Vec::new();
    for _ in 0..5 {
        let took = Load::prepare(plan, &gateway.listener)?.run()?;
        rates.push(plan.messages as f64 / took.as_secs_f64());
    }
    Ok(median(rates))
}
