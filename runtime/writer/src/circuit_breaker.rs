use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Whether requests to an endpoint make sense at all. Closed by a fault that concerns every
/// database behind it (a revoked token, another product): one request at a time then probes.
#[derive(Debug, Default)]
pub struct CircuitBreaker {
    state: Mutex<BreakerState>,
}

#[derive(Debug, Default)]
pub(crate) struct BreakerState {
    closed_until: Option<Instant>,
    accepted_at: Option<Instant>,
}

impl CircuitBreaker {
    /// `None`: go. `Some`: not before then. While closed, the first to come after the time is the
    /// probe; the others wait for another `pause`.
    pub fn ask(&self, now: Instant, pause: Duration) -> Option<Instant> {
        let mut state = self.state.lock();
        match state.closed_until {
            None => None,
            Some(until) if now < until => Some(until),
            Some(_) => {
                state.closed_until = Some(now + pause);
                None
            }
        }
    }

    /// A fault of the endpoint showed. Where another request was accepted within `recent`, the
    /// fault is one database's own and the gate stays open.
    pub fn close(&self, now: Instant, pause: Duration, recent: Duration) {
        let mut state = self.state.lock();
        if state.accepted_at.is_none_or(|at| now.duration_since(at) > recent) {
            state.closed_until = Some(now + pause);
        }
    }

    /// A request was answered as by a healthy endpoint, perhaps accepted. True when that opens
    /// the gate.
    pub fn open(&self, now: Instant, accepted: bool) -> bool {
        let mut state = self.state.lock();
        if accepted {
            state.accepted_at = Some(now);
        }
        state.closed_until.take().is_some()
    }
}
