//! A circuit breaker for one endpoint, shared by all databases behind it. Pure: time is passed in.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Tripped by a fault that concerns every database behind the endpoint (a revoked token, another
/// product). One request at a time then probes.
#[derive(Debug, Default)]
pub struct CircuitBreaker {
    state: Mutex<BreakerState>,
}

#[derive(Debug, Default)]
struct BreakerState {
    tripped_until: Option<Instant>,
    accepted_at: Option<Instant>,
}

impl CircuitBreaker {
    /// `None`: the request may go. `Some`: not before then. While the breaker is tripped, the first
    /// request after that time is the probe; the others wait for another `pause`.
    pub fn try_pass(&self, now: Instant, pause: Duration) -> Option<Instant> {
        let mut state = self.state.lock();
        match state.tripped_until {
            None => None,
            Some(until) if now < until => Some(until),
            Some(_) => {
                state.tripped_until = Some(now + pause);
                None
            }
        }
    }

    /// Records a fault of the endpoint. If another request was accepted within `recent`, the fault is
    /// one database's own and nothing changes.
    pub fn trip(&self, now: Instant, pause: Duration, recent: Duration) {
        let mut state = self.state.lock();
        if state.accepted_at.is_none_or(|at| now.duration_since(at) > recent) {
            state.tripped_until = Some(now + pause);
        }
    }

    /// Records an answer as of a healthy endpoint, perhaps an accepting one. True if the breaker was
    /// tripped until now.
    pub fn reset(&self, now: Instant, accepted: bool) -> bool {
        let mut state = self.state.lock();
        if accepted {
            state.accepted_at = Some(now);
        }
        state.tripped_until.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tripped_breaker_lets_one_probe_through_at_a_time() {
        let (breaker, now, pause) = (CircuitBreaker::default(), Instant::now(), Duration::from_secs(30));
        assert_eq!(breaker.try_pass(now, pause), None);
        breaker.trip(now, pause, pause);
        assert_eq!(breaker.try_pass(now, pause), Some(now + pause));
        assert_eq!(breaker.try_pass(now + pause, pause), None);
        assert_eq!(breaker.try_pass(now + pause, pause), Some(now + 2 * pause));
        assert!(breaker.reset(now + pause, false));
        assert_eq!(breaker.try_pass(now + pause, pause), None);
    }

    #[test]
    fn a_breaker_does_not_trip_while_other_databases_are_written() {
        let (breaker, now, pause) = (CircuitBreaker::default(), Instant::now(), Duration::from_secs(30));
        breaker.reset(now, true);
        breaker.trip(now + Duration::from_secs(1), pause, pause);
        assert_eq!(breaker.try_pass(now + Duration::from_secs(1), pause), None);
    }
}
