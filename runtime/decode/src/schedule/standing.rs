//! The standing of a tenant at a route: its cost, and whether its messages may share a call with those of
//! other tenants.
//!
//! A call of a shared decoder (`Isolation::Route`) may have messages of many tenants. The time of such a call is
//! divided by the size of the messages, so a tenant whose messages are dear would have others pay for it. So a
//! call that takes much more than is usual sets all of its tenants apart: for some messages each has calls of
//! its own, whose time is known to be its own. Those that are as usual come back, and the dear one stays apart.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use parking_lot::Mutex;

use crate::limits::{
    APART_MESSAGES, COST_SHARED_MESSAGES, STANDINGS_SWEPT_ABOVE, UNUSUAL_CALL_US, UNUSUAL_TIMES,
};
use crate::schedule::cost::CostEstimate;
use tidegate_core::ids::TenantId;

/// The cost of one tenant's messages at a route.
#[derive(Debug, Default)]
pub struct Standing {
    pub cost: CostEstimate,
    /// Messages that are still to be decoded apart.
    apart: AtomicU32,
}

impl Standing {
    pub fn is_apart(&self) -> bool {
        self.apart.load(Ordering::Relaxed) > 0
    }

    /// Sets the tenant apart, for its next messages.
    pub fn set_apart(&self) {
        self.apart.store(APART_MESSAGES, Ordering::Relaxed);
    }

    /// Records messages that were decoded apart.
    pub fn record_apart(&self, messages: usize) {
        let left = |apart: u32| Some(apart.saturating_sub(messages as u32));
        let _ = self.apart.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left);
    }
}

/// The usual CPU time a message of a shared decoder, over all tenants.
#[derive(Debug, Default)]
pub struct UsualCost {
    average_ns: AtomicU64,
}

impl UsualCost {
    /// The average, in nanoseconds; 0 before the first call.
    pub fn average_ns(&self) -> u64 {
        self.average_ns.load(Ordering::Relaxed)
    }

    /// Records a call. One call moves the average by a part, and one that took very long by no more than one
    /// that took twice as long as usual: nobody raises it at once.
    pub fn record(&self, messages: usize, cpu: Duration) {
        let sample = (cpu.as_nanos() as u64 / messages.max(1) as u64).max(1);
        let before = self.average_ns();
        let average = match before {
            0 => sample,
            _ => (before * (COST_SHARED_MESSAGES - 1) + sample.min(2 * before + 1)) / COST_SHARED_MESSAGES,
        };
        self.average_ns.store(average.max(1), Ordering::Relaxed);
    }

    /// True if a call took much more than so many messages usually take.
    pub fn is_unusual(&self, messages: usize, cpu: Duration) -> bool {
        let usual_ns = self.average_ns().saturating_mul(messages as u64 * UNUSUAL_TIMES);
        usual_ns > 0 && cpu > Duration::from_micros(UNUSUAL_CALL_US) + Duration::from_nanos(usual_ns)
    }
}

type StandingKey = (TenantId, Arc<str>);

/// The standings of tenants at the routes of `_default`, by tenant and message type. The threads have them in
/// common, each for as long as it remembers the route.
#[derive(Debug, Default)]
pub struct Standings {
    by_route: DashMap<StandingKey, (Arc<str>, Arc<Standing>), foldhash::fast::RandomState>,
    /// The number of standings at which those that nobody has are dropped.
    sweep_at: Mutex<usize>,
}

impl Standings {
    /// The standing of a tenant's message type at a version, which begins anew with each version.
    pub fn get(&self, tenant: &TenantId, message_type: &Arc<str>, version: &str) -> Arc<Standing> {
        self.sweep();
        let new = || (version.into(), Arc::default());
        let mut entry = self.by_route.entry((tenant.clone(), message_type.clone())).or_insert_with(new);
        if *entry.0 != *version {
            *entry = new();
        }
        entry.1.clone()
    }

    fn sweep(&self) {
        let len = self.by_route.len();
        let mut sweep_at = self.sweep_at.lock();
        if len >= (*sweep_at).max(STANDINGS_SWEPT_ABOVE) {
            self.by_route.retain(|_, (_, standing)| Arc::strong_count(standing) > 1);
            *sweep_at = 2 * self.by_route.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_unusual_by_what_calls_usually_take() {
        let usual = UsualCost::default();
        for _ in 0..100 {
            usual.record(64, Duration::from_micros(64));
        }
        assert_eq!(usual.average_ns(), 1_000);
        assert!(!usual.is_unusual(64, Duration::from_micros(200)));
        assert!(usual.is_unusual(64, Duration::from_millis(1)));
        let dear = UsualCost::default();
        dear.record(8, Duration::from_millis(1));
        assert!(!dear.is_unusual(8, Duration::from_millis(2)));
    }

    #[test]
    fn nobody_raises_what_is_usual_at_once() {
        let usual = UsualCost::default();
        usual.record(64, Duration::from_micros(64));
        usual.record(1, Duration::from_millis(10));
        assert!(usual.average_ns() < 1_100, "{}", usual.average_ns());
        for _ in 0..1_000 {
            usual.record(64, Duration::from_micros(64 * 100));
        }
        assert!(usual.average_ns() > 90_000, "what all tenants need becomes usual");
    }

    #[test]
    fn a_tenant_is_apart_for_some_messages_and_a_new_version_begins_anew() {
        let standings = Standings::default();
        let (acme, meter) = (TenantId::new("acme"), Arc::<str>::from("meter"));
        let standing = standings.get(&acme, &meter, "1");
        standing.set_apart();
        assert!(standings.get(&acme, &meter, "1").is_apart());
        assert!(!standings.get(&"globex".into(), &meter, "1").is_apart());
        standing.record_apart(APART_MESSAGES as usize - 1);
        assert!(standing.is_apart());
        standing.record_apart(1);
        assert!(!standing.is_apart());
        standing.set_apart();
        assert!(!standings.get(&acme, &meter, "2").is_apart());
    }

    #[test]
    fn standings_that_nobody_has_are_dropped() {
        let standings = Standings::default();
        let kept = standings.get(&"kept".into(), &"t".into(), "1");
        for number in 0..4 * STANDINGS_SWEPT_ABOVE {
            standings.get(&TenantId::new(&number.to_string()), &"t".into(), "1");
        }
        assert!(standings.by_route.len() <= STANDINGS_SWEPT_ABOVE + 1, "{}", standings.by_route.len());
        assert!(Arc::ptr_eq(&kept, &standings.get(&"kept".into(), &"t".into(), "1")));
    }
}
