//! Pauses of tenants whose components were ended by a limit of the compiler. Each is twice as long as the one
//! before: a compiler's CPU time is for all.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::limits::{PENALTY_FIRST, PENALTY_FORGOTTEN_AFTER, PENALTY_MAX};

#[derive(Debug)]
struct Penalty {
    pause: Duration,
    ends: Instant,
}

/// The pauses, by tenant. Only tenants with a token of their own are among them.
#[derive(Debug, Default)]
pub struct Penalties(Mutex<HashMap<String, Penalty>>);

impl Penalties {
    /// Begins the next pause of a tenant, longer than the one before if `grows`.
    pub fn record(&self, tenant: &str, grows: bool, now: Instant) {
        let mut penalties = self.0.lock();
        penalties.retain(|_, penalty| now < penalty.ends + PENALTY_FORGOTTEN_AFTER);
        let factor = if grows { 2 } else { 1 };
        let before = penalties.get(tenant).map(|penalty| penalty.pause * factor);
        let pause = before.unwrap_or(PENALTY_FIRST).min(PENALTY_MAX);
        penalties.insert(tenant.to_owned(), Penalty { pause, ends: now + pause });
    }

    /// The rest of a tenant's pause.
    pub fn left(&self, tenant: &str, now: Instant) -> Option<Duration> {
        let ends = self.0.lock().get(tenant)?.ends;
        ends.checked_duration_since(now).filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pause_is_longer_than_the_one_before_and_all_are_forgotten() {
        let penalties = Penalties::default();
        let mut now = Instant::now();
        assert_eq!(penalties.left("acme", now), None);
        let mut pauses = Vec::new();
        for _ in 0..12 {
            penalties.record("acme", true, now);
            let pause = penalties.left("acme", now).unwrap();
            pauses.push(pause.as_secs());
            now += pause;
            assert_eq!(penalties.left("acme", now), None);
        }
        assert_eq!(pauses[..4], [10, 20, 40, 80]);
        assert_eq!(*pauses.last().unwrap(), 3_600);
        assert_eq!(penalties.left("globex", now), None);
        now += PENALTY_FORGOTTEN_AFTER;
        for _ in 0..3 {
            penalties.record("acme", false, now);
            assert_eq!(penalties.left("acme", now), Some(PENALTY_FIRST));
        }
    }
}
