//! CPU quotas: each tenant's share of the CPU time of guests.
//!
//! The time that a tenant's guests use is counted over a window that moves. While messages wait for the decode
//! threads, a tenant that has used more than its share goes to the slow lane: its threads have a lower
//! priority, so that it takes the time that the others leave. None of its messages is lost or refused.
//!
//! A share is an even one among the tenants that used anything in the window, unless the operator has
//! named another.
//!
//! A device's messages all go to one decode thread. So a tenant also goes to the slow lane if it holds one
//! thread for most of the time while messages wait for that thread: a single device can be within its
//! tenant's share and yet stand in front of every other device of its thread. There the time on the wall
//! counts: on a busy machine a thread can be held for all of the time with little CPU time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use parking_lot::Mutex;

use crate::limits::{CPU_WINDOW_MS, THREAD_PART_MAX};
use crate::schedule::cpu_window::CpuWindow;
use crate::schedule::placement::{BucketId, Placements};
use tidegate_core::ids::TenantId;
use tidegate_core::tenant::Tenant;

/// The CPU time of one tenant's guests.
#[derive(Debug)]
pub struct TenantCpuUsage {
    tenant: Arc<Tenant>,
    bucket: BucketId,
    /// Shared by all that were made of one tenant, beyond the table of tenants.
    window: Arc<Mutex<CpuWindow>>,
    /// The time for which it held each decode thread; each is used by its own thread.
    held: Arc<[Mutex<CpuWindow>]>,
}

/// The quotas of all tenants. The decode threads and the slow lane have them in common.
#[derive(Debug)]
pub struct CpuQuotas {
    began: Instant,
    /// The tenants' places, which depend on their use.
    pub placements: Placements,
    tenants: DashMap<TenantId, Arc<TenantCpuUsage>, foldhash::fast::RandomState>,
    /// Tenants that used anything in the window, as counted last, and when that was.
    active: AtomicUsize,
    counted_ms: AtomicU64,
    /// Messages that wait for each decode thread.
    waiting: Box<[AtomicUsize]>,
}

/// Pause between two counts of the active tenants.
const COUNT_EVERY_MS: u64 = 100;

/// Active tenants for which that pause is a millisecond longer: a count looks at each of them.
const COUNTED_A_MS: usize = 20;

impl CpuQuotas {
    pub fn new(threads: usize) -> Self {
        Self {
            began: Instant::now(),
            placements: Placements::new(threads),
            tenants: DashMap::default(),
            active: AtomicUsize::new(0),
            counted_ms: AtomicU64::new(0),
            waiting: (0..threads).map(|_| AtomicUsize::new(0)).collect(),
        }
    }

    fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    pub fn usage(&self, tenant: &Arc<Tenant>) -> Arc<TenantCpuUsage> {
        if let Some(known) = self.tenants.get(&tenant.id)
            && Arc::ptr_eq(&known.tenant, tenant)
        {
            return known.clone();
        }
        let bucket = self.placements.bucket(&tenant.id);
        let new = |window, held| Arc::new(TenantCpuUsage { tenant: tenant.clone(), bucket, window, held });
        let mut entry = self.tenants.entry(tenant.id.clone()).or_insert_with(|| {
            let held = self.waiting.iter().map(|_| Mutex::default()).collect();
            new(Arc::default(), held)
        });
        // A tenant beyond the table is made for each message: its settings may be newer.
        if !Arc::ptr_eq(&entry.tenant, tenant) {
            *entry = new(entry.window.clone(), entry.held.clone());
        }
        entry.clone()
    }

    /// A tenant's guest has used so much.
    pub fn record(&self, tenant: &TenantCpuUsage, used: Duration) {
        self.placements.record(tenant.bucket, used);
        self.record_at(self.now_ms(), tenant, used);
    }

    fn record_at(&self, now_ms: u64, tenant: &TenantCpuUsage, used: Duration) {
        tenant.window.lock().record(now_ms, used);
        let pause_ms = COUNT_EVERY_MS.max((self.active.load(Ordering::Relaxed) / COUNTED_A_MS) as u64);
        if now_ms >= self.counted_ms.load(Ordering::Relaxed) + pause_ms {
            self.count(now_ms);
        }
    }

    /// A tenant's messages have held a decode thread for so long.
    pub fn record_held(&self, tenant: &TenantCpuUsage, thread: usize, time: Duration) {
        tenant.held[thread].lock().record(self.now_ms(), time);
    }

    /// Counts the active tenants, and forgets the others.
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

    /// Messages came for a decode thread.
    pub fn arrived(&self, thread: usize, messages: usize) {
        self.waiting[thread].fetch_add(messages, Ordering::Relaxed);
    }

    /// The thread has taken them.
    pub fn taken(&self, thread: usize, messages: usize) {
        self.waiting[thread].fetch_sub(messages, Ordering::Relaxed);
    }

    fn wait_for(&self, thread: usize) -> bool {
        self.waiting[thread].load(Ordering::Relaxed) > 0
    }

    /// A tenant's part of all CPU time of guests, from 0 to 1.
    pub fn share(&self, tenant: &Tenant) -> f64 {
        let even = || 1.0 / self.active.load(Ordering::Relaxed).max(1) as f64;
        tenant.cpu_share().unwrap_or_else(even)
    }

    /// The time that a tenant has used, as a part of its share: above 1 it is over its share.
    pub fn pressure(&self, tenant: &TenantCpuUsage) -> f64 {
        self.pressure_at(self.now_ms(), tenant)
    }

    fn pressure_at(&self, now_ms: u64, tenant: &TenantCpuUsage) -> f64 {
        let share = self.share(&tenant.tenant);
        let used = tenant.window.lock().used(now_ms);
        let all = Duration::from_millis(CPU_WINDOW_MS).as_secs_f64() * self.waiting.len() as f64;
        used.as_secs_f64() / (share * all)
    }

    /// True if others are to go first on a decode thread: messages wait, and this tenant is over its share, or
    /// holds the thread that they wait for.
    pub fn is_over(&self, tenant: &TenantCpuUsage, thread: usize) -> bool {
        self.is_over_at(self.now_ms(), tenant, thread)
    }

    fn is_over_at(&self, now_ms: u64, tenant: &TenantCpuUsage, thread: usize) -> bool {
        let over_share = || self.pressure_at(now_ms, tenant) > 1.0;
        self.wait_for(thread) && self.holds_at(now_ms, tenant, thread)
            || (0..self.waiting.len()).any(|thread| self.wait_for(thread)) && over_share()
    }

    /// True if a tenant that is not alone holds a decode thread for most of the time, and longer than its share.
    fn holds_at(&self, now_ms: u64, tenant: &TenantCpuUsage, thread: usize) -> bool {
        let share = self.share(&tenant.tenant);
        let most = Duration::from_millis(CPU_WINDOW_MS).mul_f64(share.max(THREAD_PART_MAX));
        share < 1.0 && tenant.held[thread].lock().used(now_ms) > most
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;
    use tidegate_core::books::Account;
    use tidegate_core::tenant::Tenant;
    use tidegate_core::tenant::settings::TenantSettings;

    fn tenant(name: &str) -> Arc<Tenant> {
        Arc::new(Tenant::new(name.into(), Arc::new(Account::new(name.into())), rules(None)))
    }

    fn rules(cpu_share: Option<f64>) -> TenantSettings {
        TenantSettings { cpu_share, ..TenantSettings::plain(Ok("db".into())) }
    }

    #[test]
    fn only_who_uses_more_than_its_share_while_others_wait_is_over_it() {
        let quotas = CpuQuotas::new(2);
        let (of_heavy, of_light) = (tenant("heavy"), tenant("light"));
        let (heavy, light) = (quotas.usage(&of_heavy), quotas.usage(&of_light));
        quotas.record_at(0, &light, Duration::from_millis(1));
        quotas.record_at(0, &heavy, Duration::from_millis(1_500));
        quotas.count(0);
        assert!(!quotas.is_over_at(0, &heavy, 0), "nobody waits");
        quotas.arrived(0, 3);
        // Two threads, two tenants: a second each.
        assert!(quotas.is_over_at(0, &heavy, 0) && !quotas.is_over_at(0, &light, 0));
        of_heavy.set_settings(rules(Some(0.9)));
        assert!(!quotas.is_over_at(0, &heavy, 0), "its own share is larger");
        of_heavy.set_settings(rules(Some(0.5)));
        of_light.set_settings(rules(Some(0.0001)));
        assert!(quotas.is_over_at(0, &heavy, 0) && quotas.is_over_at(0, &light, 0));
        quotas.taken(0, 3);
        assert!(!quotas.is_over_at(0, &heavy, 0));
    }

    #[test]
    fn who_holds_a_thread_that_others_wait_for_is_over_it_there_whatever_its_share() {
        let quotas = CpuQuotas::new(8);
        let (of_heavy, light) = (tenant("heavy"), quotas.usage(&tenant("light")));
        let heavy = quotas.usage(&of_heavy);
        let record = |tenant: &TenantCpuUsage, thread: usize, ms: u64| {
            quotas.record_at(0, tenant, Duration::from_millis(ms / 10));
            tenant.held[thread].lock().record(0, Duration::from_millis(ms));
        };
        record(&heavy, 3, 900);
        record(&light, 3, 90);
        quotas.count(0);
        assert!(!quotas.is_over_at(0, &heavy, 3), "nobody waits");
        quotas.arrived(2, 1);
        assert!(!quotas.is_over_at(0, &heavy, 3), "nobody waits for this thread");
        quotas.arrived(3, 1);
        assert!(quotas.is_over_at(0, &heavy, 3) && !quotas.is_over_at(0, &light, 3));
        assert!(!quotas.is_over_at(0, &heavy, 2), "it does not hold the other one");
        of_heavy.set_settings(rules(Some(0.95)));
        assert!(!quotas.is_over_at(0, &heavy, 3), "its own share is larger");
        of_heavy.set_settings(rules(Some(0.05)));
        assert!(quotas.is_over_at(0, &heavy, 3));
        quotas.taken(3, 1);
        assert!(!quotas.is_over_at(0, &heavy, 3));
    }

    #[test]
    fn a_tenant_alone_has_all() {
        let quotas = CpuQuotas::new(1);
        let only = quotas.usage(&tenant("only"));
        quotas.record_at(0, &only, Duration::from_millis(900));
        quotas.count(0);
        only.held[0].lock().record(0, Duration::from_millis(1_000));
        quotas.arrived(0, 1);
        assert!(!quotas.is_over_at(0, &only, 0));
    }

    #[test]
    fn a_tenant_that_is_made_anew_keeps_what_it_used_and_has_its_new_settings() {
        let quotas = CpuQuotas::new(1);
        quotas.record_at(0, &quotas.usage(&tenant("many")), Duration::from_millis(900));
        quotas.record_at(0, &quotas.usage(&tenant("other")), Duration::from_millis(1));
        quotas.count(0);
        quotas.arrived(0, 1);
        let again = tenant("many");
        assert!(quotas.is_over_at(0, &quotas.usage(&again), 0));
        // The use of an older one counts for all.
        let older = quotas.usage(&again);
        let newest = quotas.usage(&tenant("many"));
        let before = quotas.pressure_at(0, &newest);
        quotas.record_at(0, &older, Duration::from_millis(1));
        assert!(quotas.pressure_at(0, &newest) > before);
        let newer = tenant("many");
        newer.set_settings(rules(Some(0.95)));
        assert!(!quotas.is_over_at(0, &quotas.usage(&newer), 0));
        assert!(Arc::ptr_eq(&quotas.usage(&newer), &quotas.usage(&newer)));
    }
}
