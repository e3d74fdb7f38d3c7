//! The flush delay of all databases: samples the CPU now and then, and gives the delay to whoever asks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::flush_delay::{CpuSample, FlushDelay, SAMPLE_INTERVAL};

/// Gives the CPU time since it was called last.
pub type CpuSource = Box<dyn FnMut(Instant) -> CpuSample + Send>;

pub struct FlushPacer {
    interval: Duration,
    delay_us: AtomicU64,
    state: Mutex<PacerState>,
}

struct PacerState {
    policy: FlushDelay,
    cpu: CpuSource,
    sampled: Instant,
}

impl FlushPacer {
    pub fn new(interval: Duration, max: Duration, cpu: CpuSource) -> Self {
        let policy = FlushDelay::new(interval, max);
        let state = Mutex::new(PacerState { policy, cpu, sampled: Instant::now() });
        Self { interval, delay_us: AtomicU64::new(interval.as_micros() as u64), state }
    }

    /// The time for which the first line of a batch waits now.
    #[inline]
    pub fn delay(&self) -> Duration {
        Duration::from_micros(self.delay_us.load(Ordering::Relaxed))
    }

    /// The time for which it waits while nothing is short.
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// True while lines wait longer than the interval.
    pub fn is_stretched(&self) -> bool {
        self.delay() > self.interval
    }

    /// Samples the CPU, if the last sample is old enough. Reads some small files of the system.
    pub fn sample(&self, now: Instant) {
        let Some(mut state) = self.state.try_lock() else { return };
        if now.saturating_duration_since(state.sampled) < SAMPLE_INTERVAL {
            return;
        }
        state.sampled = now;
        let sample = (state.cpu)(now);
        state.policy.record(&sample);
        self.delay_us.store(state.policy.delay().as_micros() as u64, Ordering::Relaxed);
    }
}
