//! Each tenant's share of the CPU time of guests.
//!
//! The time that a tenant's guests use is counted over a window that moves. While messages wait for the decode
//! threads, a tenant that has used more than its share goes by way of the slow lane: its threads have a
//! lower priority, so that it takes what the others leave, and theirs are decoded first. Nothing of it
//! is lost or refused.
//!
//! A share is an even one among the tenants that used anything in the window, unless the operator has
//! named another.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use parking_lot::{Mutex, RwLock};

use super::cpu_window::CpuWindow;
use crate::domain::ids::TenantId;
use crate::domain::limits::CPU_WINDOW_MS;

/// Parts of the CPU time of all decode threads, 0 to 1; 0: an even share.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CpuQuotaSettings {
    pub common: f64,
    /// Tenants with shares of their own.
    pub own: HashMap<String, f64>,
}

/// The CPU time of one tenant's guests.
#[derive(Debug, Default)]
pub struct TenantCpuUsage {
    window: Mutex<CpuWindow>,
    /// As `CpuQuotaSettings`, in bits.
    share: AtomicU64,
}

impl TenantCpuUsage {
    fn share(&self) -> f64 {
        f64::from_bits(self.share.load(Ordering::Relaxed))
    }
}

/// All tenants' shares. Shared by the decode threads and the slow lane.
#[derive(Debug)]
pub struct CpuQuotas {
    began: Instant,
    threads: f64,
    settings: RwLock<CpuQuotaSettings>,
    tenants: DashMap<TenantId, Arc<TenantCpuUsage>, foldhash::fast::RandomState>,
    /// Tenants that used anything in the window, as counted last, and when that was.
    active: AtomicUsize,
    counted_ms: AtomicU64,
    /// Messages that wait for a decode thread.
    waiting: AtomicUsize,
}

/// Pause between two counts of the active tenants.
const COUNT_EVERY_MS: u64 = 100;

impl CpuQuotas {
    pub fn new(threads: usize, settings: CpuQuotaSettings) -> Self {
        Self {
            began: Instant::now(),
            threads: threads as f64,
            settings: RwLock::new(settings),
            tenants: DashMap::default(),
            active: AtomicUsize::new(0),
            counted_ms: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
        }
    }

    /// From now on these hold.
    pub fn set(&self, settings: CpuQuotaSettings) {
        let mut held = self.settings.write();
        for tenant in &self.tenants {
            tenant.share.store(share_of(&settings, tenant.key()).to_bits(), Ordering::Relaxed);
        }
        *held = settings;
    }

    fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    pub fn of(&self, tenant: &TenantId) -> Arc<TenantCpuUsage> {
        if let Some(known) = self.tenants.get(tenant) {
            return known.clone();
        }
        let settings = self.settings.read();
        let fresh = || {
            let cpu = TenantCpuUsage::default();
            cpu.share.store(share_of(&settings, tenant).to_bits(), Ordering::Relaxed);
            Arc::new(cpu)
        };
        self.tenants.entry(tenant.clone()).or_insert_with(fresh).clone()
    }

    /// A tenant's guest has used so much.
    pub fn record(&self, tenant: &TenantCpuUsage, used: Duration) {
        self.record_at(self.now_ms(), tenant, used);
    }

    fn record_at(&self, now_ms: u64, tenant: &TenantCpuUsage, used: Duration) {
        tenant.window.lock().record(now_ms, used);
        if now_ms >= self.counted_ms.load(Ordering::Relaxed) + COUNT_EVERY_MS {
            self.count(now_ms);
        }
    }

    /// Counts who is active, and forgets who is not.
    fn count(&self, now_ms: u64) {
        self.counted_ms.store(now_ms, Ordering::Relaxed);
        let mut active = 0;
        self.tenants.retain(|_, tenant| {
            let used = !tenant.window.lock().used(now_ms).is_zero();
            active += usize::from(used);
            used || Arc::strong_count(tenant) > 1
        });
        self.active.store(active, Ordering::Relaxed);
    }

    /// Messages came for the decode threads.
    pub fn arrived(&self, messages: usize) {
        self.waiting.fetch_add(messages, Ordering::Relaxed);
    }

    /// A decode thread has taken them.
    pub fn taken(&self, messages: usize) {
        self.waiting.fetch_sub(messages, Ordering::Relaxed);
    }

    /// The time that a tenant has used, as a part of its share: above 1 it is over its share.
    pub fn pressure(&self, tenant: &TenantCpuUsage) -> f64 {
        self.pressure_at(self.now_ms(), tenant)
    }

    fn pressure_at(&self, now_ms: u64, tenant: &TenantCpuUsage) -> f64 {
        let share = match tenant.share() {
            share if share > 0.0 => share,
            _ => 1.0 / self.active.load(Ordering::Relaxed).max(1) as f64,
        };
        let used = tenant.window.lock().used(now_ms);
        let all = Duration::from_millis(CPU_WINDOW_MS).as_secs_f64() * self.threads;
        used.as_secs_f64() / (share * all)
    }

    /// True if others are to go first: messages wait, and this tenant is over its share.
    pub fn is_over(&self, tenant: &TenantCpuUsage) -> bool {
        self.is_over_at(self.now_ms(), tenant)
    }

    fn is_over_at(&self, now_ms: u64, tenant: &TenantCpuUsage) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0 && self.pressure_at(now_ms, tenant) > 1.0
    }
}

fn share_of(settings: &CpuQuotaSettings, tenant: &TenantId) -> f64 {
    settings.own.get(tenant.as_str()).copied().unwrap_or(settings.common)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_uses_more_than_its_share_while_others_wait_is_over_it() {
        let shares = CpuQuotas::new(2, CpuQuotaSettings::default());
        let (heavy, light) = (shares.of(&"heavy".into()), shares.of(&"light".into()));
        shares.record_at(0, &light, Duration::from_millis(1));
        shares.record_at(0, &heavy, Duration::from_millis(1_500));
        shares.count(0);
        assert!(!shares.is_over_at(0, &heavy), "nobody waits");
        shares.arrived(3);
        // Two threads, two tenants: a second each.
        assert!(shares.is_over_at(0, &heavy) && !shares.is_over_at(0, &light));
        shares.set(CpuQuotaSettings { common: 0.0, own: HashMap::from([("heavy".into(), 0.9)]) });
        assert!(!shares.is_over_at(0, &heavy), "its own share is larger");
        shares.set(CpuQuotaSettings { common: 0.5, own: HashMap::from([("light".into(), 0.0001)]) });
        assert!(shares.is_over_at(0, &heavy) && shares.is_over_at(0, &light));
        shares.taken(3);
        assert!(!shares.is_over_at(0, &heavy));
    }

    #[test]
    fn a_tenant_alone_has_all() {
        let shares = CpuQuotas::new(1, CpuQuotaSettings::default());
        let only = shares.of(&"only".into());
        shares.record_at(0, &only, Duration::from_millis(900));
        shares.count(0);
        shares.arrived(1);
        assert!(!shares.is_over_at(0, &only));
    }
}
