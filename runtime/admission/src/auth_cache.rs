//! What is believed of devices for a while, so that the registry is not asked for every message.
//!
//! - An entry's age counts from when it was asked for; a hit does not renew it. At the ceiling the
//!   oldest tenth goes.
//! - Unknown devices are kept apart, in a tenth of the room: strangers can name devices without end.
//! - `expire_all` makes every entry old without forgetting it: it is asked about anew, and serves on
//!   only while the registry cannot be asked. What is known to have changed is forgotten.

use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use dashmap::mapref::one::Ref;
use parking_lot::Mutex;

use crate::limits::{CACHE_TTL_JITTER, NEGATIVE_ENTRIES_SHARE};
use crate::registry::TokenHash;
use tidegate_core::device::Device;
use tidegate_core::ids::{DeviceId, TenantId};
use tidegate_core::tenant::Tenant;

/// What is kept of a device's row.
#[derive(Clone, Debug)]
pub struct CachedDevice {
    pub tenant: Arc<Tenant>,
    pub device: Arc<Device>,
    pub active: bool,
    pub status: String,
    pub site: String,
    pub token: TokenHash,
}

/// What an entry is of. Two devices may share a key by chance, so the names are compared.
trait CacheKey {
    fn is_of(&self, tenant: &str, device: &str) -> bool;
}

impl CacheKey for CachedDevice {
    fn is_of(&self, tenant: &str, device: &str) -> bool {
        self.device.id.as_str() == device && self.tenant.id.as_str() == tenant
    }
}

/// A device that the registry does not have.
#[derive(Debug)]
struct NegativeEntry {
    tenant: TenantId,
    device: DeviceId,
}

impl CacheKey for NegativeEntry {
    fn is_of(&self, tenant: &str, device: &str) -> bool {
        self.device.as_str() == device && self.tenant.as_str() == tenant
    }
}

/// When something was asked, to be given back with the answer.
#[derive(Clone, Copy, Debug)]
pub struct LookupStamp {
    at_s: f64,
    epoch: u64,
}

#[derive(Debug)]
struct CacheEntry<T> {
    known: T,
    asked: LookupStamp,
    ttl_s: f64,
}

/// Entries by key, and the order in which they were asked for.
#[derive(Debug)]
struct TtlMap<T> {
    entries: DashMap<u64, CacheEntry<T>, foldhash::fast::RandomState>,
    /// (asked, key); an entry that was asked for again since is passed over.
    order: Mutex<VecDeque<(f64, u64)>>,
    /// 0: no bound.
    entries_max: usize,
}

impl<T: CacheKey> TtlMap<T> {
    fn new(entries_max: usize) -> Self {
        Self { entries: DashMap::default(), order: Mutex::default(), entries_max }
    }

    fn get(&self, key: u64, tenant: &str, device: &str) -> Option<Ref<'_, u64, CacheEntry<T>>> {
        self.entries.get(&key).filter(|entry| entry.known.is_of(tenant, device))
    }

    fn insert(&self, key: u64, entry: CacheEntry<T>) {
        let at_s = entry.asked.at_s;
        let mut order = self.order.lock();
        let size = self.entries.len();
        if self.entries_max > 0 && size >= self.entries_max {
            self.evict(&mut order, (size / 10).max(1));
        }
        self.entries.insert(key, entry);
        order.push_back((at_s, key));
        if order.len() > 2 * self.entries.len() + 1_024 {
            order.retain(|&(at_s, key)| self.is_current(at_s, key));
        }
    }

    fn is_current(&self, at_s: f64, key: u64) -> bool {
        self.entries.get(&key).is_some_and(|entry| entry.asked.at_s == at_s)
    }

    fn evict(&self, order: &mut VecDeque<(f64, u64)>, mut entries: usize) {
        while entries > 0
            && let Some((at_s, key)) = order.pop_front()
        {
            if self.entries.remove_if(&key, |_, entry| entry.asked.at_s == at_s).is_some() {
                entries -= 1;
            }
        }
    }

    fn clear(&self) {
        let mut order = self.order.lock();
        self.entries.clear();
        order.clear();
    }
}

/// An entry while it is looked at.
#[derive(Debug)]
pub struct Hit<'a>(Ref<'a, u64, CacheEntry<CachedDevice>>);

impl Deref for Hit<'_> {
    type Target = CachedDevice;

    fn deref(&self) -> &CachedDevice {
        &self.0.known
    }
}

/// The cache.
#[derive(Debug)]
pub struct AuthCache {
    known: TtlMap<CachedDevice>,
    absent: TtlMap<NegativeEntry>,
    ttl_s: f64,
    /// The part of the time that entries may be believed for less; 0: all alike.
    jitter: f64,
    epoch: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
    absent_hits: AtomicU64,
    stale_hits: AtomicU64,
}

impl AuthCache {
    pub fn new(ttl_s: f64, entries_max: usize) -> Self {
        Self {
            known: TtlMap::new(entries_max),
            absent: TtlMap::new((entries_max / NEGATIVE_ENTRIES_SHARE).max(1)),
            ttl_s,
            jitter: 0.0,
            epoch: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            absent_hits: AtomicU64::new(0),
            stale_hits: AtomicU64::new(0),
        }
    }

    /// Lets entries age at slightly different speeds.
    pub fn with_jitter(self) -> Self {
        Self { jitter: CACHE_TTL_JITTER, ..self }
    }

    /// The moment of a question to the registry; its answer is as old as this.
    pub fn ask(&self, now_s: f64) -> LookupStamp {
        LookupStamp { at_s: now_s, epoch: self.epoch.load(Ordering::Acquire) }
    }

    /// Whether everything was expired since this was asked.
    pub fn is_outdated(&self, asked: LookupStamp) -> bool {
        asked.epoch != self.epoch.load(Ordering::Acquire)
    }

    fn is_fresh<T>(&self, entry: &CacheEntry<T>, now_s: f64) -> bool {
        now_s - entry.asked.at_s < entry.ttl_s && !self.is_outdated(entry.asked)
    }

    /// What is known of a device, if it is still believed.
    pub fn get(&self, key: u64, tenant: &str, device: &str, now_s: f64) -> Option<Hit<'_>> {
        let hit = self.known.get(key, tenant, device).filter(|entry| self.is_fresh(entry, now_s));
        let counter = if hit.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        hit.map(Hit)
    }

    /// Whether the registry said a moment ago that there is no such device.
    pub fn is_absent(&self, key: u64, tenant: &str, device: &str, now_s: f64) -> bool {
        let entry = self.absent.get(key, tenant, device);
        let absent = entry.is_some_and(|entry| self.is_fresh(&entry, now_s));
        self.absent_hits.fetch_add(u64::from(absent), Ordering::Relaxed);
        absent
    }

    /// What was known of a device not longer than `stale_max_s` ago, whether it is believed or not:
    /// for while the registry cannot be asked.
    pub fn stale(
        &self,
        key: u64,
        tenant: &str,
        device: &str,
        now_s: f64,
        stale_max_s: f64,
    ) -> Option<Hit<'_>> {
        let entry = self.known.get(key, tenant, device)?;
        if now_s - entry.asked.at_s >= stale_max_s {
            return None;
        }
        Some(Hit(entry))
    }

    /// Messages passed by what is no longer believed.
    pub fn record_stale(&self, messages: u64) {
        self.stale_hits.fetch_add(messages, Ordering::Relaxed);
    }

    /// Keeps what the registry has just said.
    pub fn insert(&self, key: u64, known: CachedDevice, now_s: f64) {
        self.insert_asked(key, known, self.ask(now_s));
    }

    /// Keeps what the registry answered to a question.
    pub fn insert_asked(&self, key: u64, known: CachedDevice, asked: LookupStamp) {
        self.absent.entries.remove(&key);
        let ttl_s = self.ttl_s * (1.0 - self.jitter * part_of(key, asked.at_s));
        self.known.insert(key, CacheEntry { known, asked, ttl_s });
    }

    /// Keeps that the registry has no such device.
    pub fn insert_absent(&self, key: u64, tenant: &str, device: &str, asked: LookupStamp, ttl_s: f64) {
        self.known.entries.remove(&key);
        let known = NegativeEntry { tenant: TenantId::new(tenant), device: DeviceId::new(device) };
        self.absent.insert(key, CacheEntry { known, asked, ttl_s: ttl_s.min(self.ttl_s) });
    }

    /// Forgets one device: it has changed.
    pub fn forget(&self, key: u64) {
        self.known.entries.remove(&key);
        self.absent.entries.remove(&key);
    }

    /// Believes nothing any more until it was asked about anew.
    pub fn expire_all(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// Forgets everything: the registry has changed.
    pub fn clear(&self) {
        // What is being asked now is no answer any more either.
        self.expire_all();
        self.known.clear();
        self.absent.clear();
    }

    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    /// Look-ups that found nothing, or nothing that is still believed.
    pub fn misses(&self) -> u64 {
        self.misses.load(Ordering::Relaxed)
    }

    /// Messages of devices that were known to be unknown.
    pub fn absent_hits(&self) -> u64 {
        self.absent_hits.load(Ordering::Relaxed)
    }

    /// Messages that passed by what was known before the registry could not be asked.
    pub fn stale_hits(&self) -> u64 {
        self.stale_hits.load(Ordering::Relaxed)
    }

    pub fn entries(&self) -> usize {
        self.known.entries.len()
    }
}

/// A part of one, different for each key and moment.
fn part_of(key: u64, at_s: f64) -> f64 {
    let mixed = (key ^ at_s.to_bits()).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::TokenHash;
    use std::sync::Arc;
    use tidegate_core::books::Account;
    use tidegate_core::device::Device;
    use tidegate_core::device_hash::DeviceHasher;
    use tidegate_core::tenant::Tenant;
    use tidegate_core::tenant::settings::TenantSettings;

    fn known() -> CachedDevice {
        let account = Arc::new(Account::new("acme".into()));
        let tenant = Tenant::new("acme".into(), account, TenantSettings::plain(Ok("db".into())));
        let device = Device {
            id: "d".into(),
            site: String::new(),
            identity_tags: Ok(Box::default()),
            affinity: DeviceHasher::new(1).hash("acme", "d"),
        };
        CachedDevice {
            tenant: Arc::new(tenant),
            device: Arc::new(device),
            active: true,
            status: "ACTIVE".into(),
            site: String::new(),
            token: TokenHash::NotSet,
        }
    }

    #[test]
    fn what_is_expired_serves_only_as_stale_and_what_is_forgotten_not_at_all() {
        let cache = AuthCache::new(60.0, 100);
        cache.insert(1, known(), 0.0);
        assert!(cache.get(1, "acme", "d", 1.0).is_some());
        cache.expire_all();
        assert!(cache.get(1, "acme", "d", 1.0).is_none());
        assert!(cache.stale(1, "acme", "d", 1.0, 10.0).is_some());
        assert!(cache.stale(1, "acme", "d", 10.0, 10.0).is_none(), "too old");
        cache.forget(1);
        assert!(cache.stale(1, "acme", "d", 1.0, 10.0).is_none());
    }

    #[test]
    fn an_answer_to_a_question_from_before_an_expiry_is_not_believed() {
        let cache = AuthCache::new(60.0, 100);
        let asked = cache.ask(0.0);
        cache.expire_all();
        cache.insert_asked(1, known(), asked);
        assert!(cache.get(1, "acme", "d", 0.0).is_none());
    }

    #[test]
    fn unknown_devices_push_no_known_one_out() {
        let cache = AuthCache::new(60.0, 100);
        cache.insert(1, known(), 0.0);
        for key in 2..10_000 {
            cache.insert_absent(key, "acme", "x", cache.ask(1.0), 5.0);
        }
        assert!(cache.get(1, "acme", "d", 2.0).is_some());
        assert!(cache.absent.entries.len() <= 10);
        assert!(cache.is_absent(9_999, "acme", "x", 2.0) && !cache.is_absent(9_999, "acme", "x", 7.0));
        assert!(!cache.is_absent(9_999, "acme", "y", 2.0), "the names are compared");
    }

    #[test]
    fn jitter_only_ever_shortens_and_by_no_more_than_its_part() {
        let cache = AuthCache::new(100.0, 0).with_jitter();
        for key in 0..1_000 {
            cache.insert(key, known(), 0.0);
        }
        let ttls: Vec<f64> = cache.known.entries.iter().map(|entry| entry.ttl_s).collect();
        assert!(ttls.iter().all(|ttl| (90.0..=100.0).contains(ttl)));
        assert!(ttls.iter().any(|ttl| *ttl < 92.0) && ttls.iter().any(|ttl| *ttl > 98.0));
    }
}
