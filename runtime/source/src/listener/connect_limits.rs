//! The limits of an address and of a tenant: connects a second, failed CONNECTs a minute,
//! connections, messages a second.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::limits;
use tidegate_core::ids::TenantId;
use tidegate_core::keyed_buckets::KeyedTokenBuckets;
use tidegate_core::token_bucket::Rate;

/// The limits that the operator sets.
#[derive(Clone, Copy, Debug)]
pub struct ConnectLimitSettings {
    /// Connects of one address; there is no limit for loopback. None: no limit.
    pub connects: Option<Rate>,
    /// CONNECTs a minute that may fail from one address under one name; 0: no limit.
    pub failed_connects_per_min: u32,
    /// Connections of authenticated devices of one tenant.
    pub connections_per_tenant_max: usize,
    /// Messages a second of these connections; 0: no limit.
    pub messages_per_s_per_tenant: u32,
}

impl Default for ConnectLimitSettings {
    fn default() -> Self {
        Self {
            connects: None,
            failed_connects_per_min: 0,
            connections_per_tenant_max: usize::MAX,
            messages_per_s_per_tenant: 0,
        }
    }
}

/// The prefix that counts as one address: for IPv6 the /64 network, because its owner has any number of
/// addresses in it.
pub fn address_prefix(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            IpAddr::V6(Ipv6Addr::from(u128::from(address) >> 64 << 64))
        }
        other => other,
    }
}

/// CONNECTs that failed, by address and by name.
#[derive(Debug)]
struct FailedConnects {
    by_address: KeyedTokenBuckets<IpAddr>,
    by_name: KeyedTokenBuckets<(IpAddr, u64)>,
}

/// The limits, with their counts.
#[derive(Debug)]
pub struct ConnectLimits {
    settings: ConnectLimitSettings,
    started: Instant,
    /// Hashes names with a random seed, so that nobody can provoke a collision.
    hasher: foldhash::fast::RandomState,
    connects: Option<Mutex<KeyedTokenBuckets<IpAddr>>>,
    failures: Option<Mutex<FailedConnects>>,
    tenants: Mutex<HashMap<TenantId, Arc<TenantConnections>>>,
}

impl ConnectLimits {
    pub fn new(settings: ConnectLimitSettings) -> Self {
        let table = |rate| KeyedTokenBuckets::new(rate, limits::CONNECT_BUCKETS_MAX);
        let failed = settings.failed_connects_per_min;
        let failed_rate = |times: u32| {
            let burst = f64::from(failed) * f64::from(times);
            Rate { per_s: burst / 60.0, burst }
        };
        Self {
            settings,
            started: Instant::now(),
            hasher: foldhash::fast::RandomState::default(),
            connects: settings.connects.map(|rate| Mutex::new(table(rate))),
            failures: (failed > 0).then(|| {
                Mutex::new(FailedConnects {
                    by_address: table(failed_rate(limits::FAILED_CONNECTS_ADDRESS_FACTOR)),
                    by_name: KeyedTokenBuckets::new(failed_rate(1), limits::CONNECT_BUCKETS_MAX),
                })
            }),
            tenants: Mutex::default(),
        }
    }

    fn now_s(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// True if one more connection may come from an address now.
    pub fn may_connect(&self, network: IpAddr) -> bool {
        let Some(connects) = &self.connects else { return true };
        network.is_loopback() || connects.lock().take(network, self.now_s())
    }

    /// Counts an attempt to authenticate as `name` from an address; None if too many have failed of late.
    /// `AuthAttempt::succeeded` takes it back.
    pub fn begin_attempt(&self, network: IpAddr, name: &str) -> Option<AuthAttempt<'_>> {
        use std::hash::BuildHasher;
        let key = (network, self.hasher.hash_one(name));
        if let Some(failures) = &self.failures {
            let mut failures = failures.lock();
            let now_s = self.now_s();
            if !failures.by_name.take(key, now_s) {
                return None;
            }
            if !failures.by_address.take(network, now_s) {
                failures.by_name.release(&key);
                return None;
            }
        }
        Some(AuthAttempt { connect_limits: self, key })
    }

    /// Admits a device of a tenant; None if its tenant has as many connections as it may.
    pub fn admit_tenant(self: &Arc<Self>, tenant: &TenantId) -> Option<TenantConnectionPermit> {
        let mut tenants = self.tenants.lock();
        if tenants.len() >= limits::CONNECT_TENANTS_MAX && !tenants.contains_key(tenant) {
            return None;
        }
        let tenant_connections = tenants.entry(tenant.clone()).or_insert_with(|| {
            Arc::new(TenantConnections {
                connections: Mutex::new(0),
                debt: Mutex::new(MessageRateDebt::new(Instant::now())),
            })
        });
        let mut connections = tenant_connections.connections.lock();
        if *connections >= self.settings.connections_per_tenant_max {
            return None;
        }
        *connections += 1;
        drop(connections);
        Some(TenantConnectionPermit {
            connect_limits: self.clone(),
            tenant: tenant.clone(),
            tenant_connections: tenant_connections.clone(),
        })
    }
}

/// An attempt to authenticate, counted as failed until `succeeded`.
#[derive(Debug)]
pub struct AuthAttempt<'a> {
    connect_limits: &'a ConnectLimits,
    key: (IpAddr, u64),
}

impl AuthAttempt<'_> {
    /// Takes the attempt back: it was no guess, or was never answered.
    pub fn succeeded(self) {
        if let Some(failures) = &self.connect_limits.failures {
            let mut failures = failures.lock();
            failures.by_name.release(&self.key);
            failures.by_address.release(&self.key.0);
        }
    }
}

/// The connections of one tenant.
#[derive(Debug)]
struct TenantConnections {
    connections: Mutex<usize>,
    debt: Mutex<MessageRateDebt>,
}

/// Messages that were taken ahead of their time: a bucket that may owe.
#[derive(Debug)]
struct MessageRateDebt {
    left: f64,
    at: Instant,
}

impl MessageRateDebt {
    fn new(now: Instant) -> Self {
        Self { left: 0.0, at: now }
    }

    /// Charges messages that were read already, and gives the time for which to read no more.
    fn take(&mut self, messages: usize, per_s: u32, now: Instant) -> Duration {
        let per_s = f64::from(per_s);
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = self.at.max(now);
        // A second's worth may come at once.
        self.left = (self.left + elapsed * per_s).min(per_s) - messages as f64;
        Duration::from_secs_f64((-self.left / per_s).max(0.0))
    }
}

/// One connection of a tenant; dropping it uncounts the connection.
#[derive(Debug)]
pub struct TenantConnectionPermit {
    connect_limits: Arc<ConnectLimits>,
    tenant: TenantId,
    tenant_connections: Arc<TenantConnections>,
}

impl TenantConnectionPermit {
    /// The time for which to read nothing after so many messages.
    pub fn delay(&self, messages: usize) -> Duration {
        match self.connect_limits.settings.messages_per_s_per_tenant {
            0 => Duration::ZERO,
            per_s => self.tenant_connections.debt.lock().take(messages, per_s, Instant::now()),
        }
    }
}

impl Drop for TenantConnectionPermit {
    fn drop(&mut self) {
        let mut tenants = self.connect_limits.tenants.lock();
        let mut connections = self.tenant_connections.connections.lock();
        *connections -= 1;
        if *connections == 0 {
            tenants.remove(&self.tenant);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;
    use std::sync::Arc;
    use std::time::{Duration, Instant};
    use tidegate_core::ids::TenantId;
    use tidegate_core::token_bucket::Rate;

    fn address(text: &str) -> IpAddr {
        address_prefix(text.parse().unwrap())
    }

    #[test]
    fn an_address_of_ipv6_is_its_network() {
        assert_eq!(address("2001:db8::1"), address("2001:db8::ffff:1"));
        assert_ne!(address("2001:db8::1"), address("2001:db8:0:1::1"));
        assert_eq!(address("::ffff:10.0.0.1"), address("10.0.0.1"));
        assert!(address("::1").is_loopback());
    }

    #[test]
    fn connects_are_limited_by_address_and_never_on_loopback() {
        let rate = Rate { per_s: 0.001, burst: 2.0 };
        let connect_limits = ConnectLimits::new(ConnectLimitSettings {
            connects: Some(rate),
            ..ConnectLimitSettings::default()
        });
        let (near, far) = (address("10.0.0.1"), address("10.0.0.2"));
        assert!(connect_limits.may_connect(near) && connect_limits.may_connect(near));
        assert!(!connect_limits.may_connect(near) && connect_limits.may_connect(far));
        assert!((0..10).all(|_| connect_limits.may_connect(address("127.0.0.1"))));
    }

    #[test]
    fn a_guesser_is_slowed_down_and_the_device_beside_it_is_not() {
        let connect_limits = ConnectLimits::new(ConnectLimitSettings {
            failed_connects_per_min: 3,
            ..ConnectLimitSettings::default()
        });
        let site = address("10.0.0.1");
        for _ in 0..3 {
            assert!(connect_limits.begin_attempt(site, "acme/broken").is_some());
        }
        assert!(connect_limits.begin_attempt(site, "acme/broken").is_none());
        // Successful attempts cost nothing, however often.
        for _ in 0..100 {
            connect_limits.begin_attempt(site, "acme/good").unwrap().succeeded();
        }
        assert!(connect_limits.begin_attempt(address("10.0.0.2"), "acme/broken").is_some());
        // Many names from one address end at the limit of the address.
        let tried =
            (0..1000).filter(|n| connect_limits.begin_attempt(site, &format!("acme/{n}")).is_some()).count();
        assert!(tried < 60, "{tried}");
    }

    #[test]
    fn a_tenant_has_so_many_connections_and_leaves_nothing_behind() {
        let settings =
            ConnectLimitSettings { connections_per_tenant_max: 2, ..ConnectLimitSettings::default() };
        let connect_limits = Arc::new(ConnectLimits::new(settings));
        let (acme, globex) = (TenantId::new("acme"), TenantId::new("globex"));
        let permits =
            [connect_limits.admit_tenant(&acme).unwrap(), connect_limits.admit_tenant(&acme).unwrap()];
        assert!(
            connect_limits.admit_tenant(&acme).is_none() && connect_limits.admit_tenant(&globex).is_some()
        );
        drop(permits);
        assert!(connect_limits.tenants.lock().is_empty());
        assert!(connect_limits.admit_tenant(&acme).is_some());
    }

    #[test]
    fn a_tenant_over_its_rate_is_read_as_fast_as_its_rate() {
        let start = Instant::now();
        let mut debt = MessageRateDebt::new(start);
        let later = start + Duration::from_secs(10);
        assert_eq!(debt.take(100, 100, later), Duration::ZERO, "a second's worth at once");
        assert_eq!(debt.take(50, 100, later), Duration::from_millis(500));
        assert_eq!(debt.take(50, 100, later + Duration::from_secs(1)), Duration::ZERO);
    }
}
