//! Medians, and the cost of this thread.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::load::Paced;

/// The middle value; of an even number the upper of the two in the middle.
///
/// # Panics
/// There is none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

pub fn p99_ms(paced: &Paced) -> f64 {
    paced.percentile(0.99).as_secs_f64() * 1e3
}

/// CPU time that this thread has used, from /proc (proc_pid_schedstat).
pub fn thread_cpu() -> Result<Duration> {
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds = schedstat.split(' ').next().and_then(|field| field.parse().ok());
    Ok(Duration::from_nanos(nanoseconds.context("schedstat begins with a time")?))
}
