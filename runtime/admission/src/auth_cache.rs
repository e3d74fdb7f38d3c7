//! The cache of devices, so that the registry is not asked for every message.
//!
//! - An entry's age counts from its look-up; a hit does not renew it. At the ceiling the oldest tenth
//!   is evicted.
//! - Where the registry is a file, a cache that is full takes one of `TAKEN_OF_MISSES` devices that it does not
//!   have. With more devices than entries that send in turn, the oldest is the next one needed: each message would
//!   push one out, which costs more than to look the device up.
//! - Unknown devices have a map of their own, a tenth as large: strangers can name devices without
//!   end.
//! - `expire_all` makes every entry stale without removing it: it is looked up again, and is used only
//!   while the registry cannot be stamp. A device that is known to have changed is removed.

use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use dashmap::DashMap;
use dashmap::mapref::one::Ref;
use parking_lot::Mutex;

use crate::limits::{CACHE_TTL_JITTER, NEGATIVE_ENTRIES_SHARE, TAKEN_OF_MISSES};
use crate::registry::TokenHash;
use tidegate_core::device::Device;
use tidegate_core::ids::{DeviceId, TenantId};
use tidegate_core::tenant::Tenant;

/// The entry of a device: its row, its tenant and its identity.
#[derive(Clone, Debug)]
pub struct CachedDevice {
    pub tenant: Arc<Tenant>,
    pub device: Arc<Device>,
    pub active: bool,
    pub status: String,
    pub site: String,
    pub token: TokenHash,
}

/// The names behind a key. Two devices may share a key by chance, so the names are compared.
trait CacheKey {
    fn matches(&self, tenant: &str, device: &str) -> bool;
}

impl CacheKey for CachedDevice {
    fn matches(&self, tenant: &str, device: &str) -> bool {
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
    fn matches(&self, tenant: &str, device: &str) -> bool {
        self.device.as_str() == device && self.tenant.as_str() == tenant
    }
}

/// The moment of a look-up, stored with its answer.
#[derive(Clone, Copy, Debug)]
pub struct LookupStamp {
    at_s: f64,
    epoch: u64,
}

#[derive(Debug)]
struct CacheEntry<T> {
    known: T,
    stamp: LookupStamp,
    ttl_s: f64,
}

/// Entries by key, and the order of their look-ups.
#[derive(Debug)]
struct TtlMap<T> {
    entries: DashMap<u64, CacheEntry<T>, foldhash::fast::RandomState>,
    /// The number of entries. The map would lock each of its parts to count them.
    count: AtomicUsize,
    /// Moment of the look-up and key; a place whose entry was looked up again since is skipped.
    order: Mutex<VecDeque<(f64, u64)>>,
    /// 0: no bound.
    entries_max: usize,
}

impl<T: CacheKey> TtlMap<T> {
    fn new(entries_max: usize) -> Self {
        Self { entries: DashMap::default(), count: AtomicUsize::new(0), order: Mutex::default(), entries_max }
    }

    fn get(&self, key: u64, tenant: &str, device: &str) -> Option<Ref<'_, u64, CacheEntry<T>>> {
        self.entries.get(&key).filter(|entry| entry.known.matches(tenant, device))
    }

    fn insert(&self, key: u64, entry: CacheEntry<T>) {
        let at_s = entry.stamp.at_s;
        let mut order = self.order.lock();
        let size = self.count();
        if self.entries_max > 0 && size >= self.entries_max {
            self.evict(&mut order, (size / 10).max(1));
        }
        // Counted before it can be removed: the count is never below zero.
        self.count.fetch_add(1, Ordering::Relaxed);
        if self.entries.insert(key, entry).is_some() {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
        order.push_back((at_s, key));
        if order.len() > 2 * self.count() + 1_024 {
            order.retain(|&(at_s, key)| self.is_current(at_s, key));
        }
    }

    /// True with nine tenths of the entries: a tenth is evicted at once.
    fn is_nearly_full(&self) -> bool {
        self.entries_max > 0 && self.count() >= self.entries_max - self.entries_max / 10
    }

    fn is_current(&self, at_s: f64, key: u64) -> bool {
        self.entries.get(&key).is_some_and(|entry| entry.stamp.at_s == at_s)
    }

    fn evict(&self, order: &mut VecDeque<(f64, u64)>, mut entries: usize) {
        while entries > 0
            && let Some((at_s, key)) = order.pop_front()
        {
            if self.remove_if(key, |entry| entry.stamp.at_s == at_s).is_some() {
                entries -= 1;
            }
        }
    }

    fn remove(&self, key: u64) -> Option<CacheEntry<T>> {
        self.remove_if(key, |_| true)
    }

    fn remove_if(&self, key: u64, condition: impl FnOnce(&CacheEntry<T>) -> bool) -> Option<CacheEntry<T>> {
        let (_, removed) = self.entries.remove_if(&key, |_, entry| condition(entry))?;
        self.count.fetch_sub(1, Ordering::Relaxed);
        Some(removed)
    }

    fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    fn clear(&self) {
        let mut order = self.order.lock();
        // One by one: entries that are put in meanwhile are counted.
        self.entries.retain(|_, _| {
            self.count.fetch_sub(1, Ordering::Relaxed);
            false
        });
        order.clear();
    }
}

/// An entry that is read now; it locks a part of the map.
#[derive(Debug)]
pub struct Hit<'a>(Ref<'a, u64, CacheEntry<CachedDevice>>);

impl Deref for Hit<'_> {
    type Target = CachedDevice;

    fn deref(&self) -> &CachedDevice {
        &self.0.known
    }
}

/// Hits, counted in parts: in one number the threads would wait for each other at every message.
#[derive(Debug, Default)]
struct HitCounts([HitCount; 16]);

/// A part of the hits on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct HitCount(AtomicU64);

impl HitCounts {
    fn record(&self, key: u64) {
        self.0[(key >> 60) as usize].0.fetch_add(1, Ordering::Relaxed);
    }

    fn sum(&self) -> u64 {
        self.0.iter().map(|part| part.0.load(Ordering::Relaxed)).sum()
    }
}

/// The cache of known and of unknown devices.
#[derive(Debug)]
pub struct AuthCache {
    known: TtlMap<CachedDevice>,
    absent: TtlMap<NegativeEntry>,
    ttl_s: f64,
    /// The largest part by which an entry's time is shortened; 0: none is.
    jitter: f64,
    /// Takes one of so many devices, where it is full.
    taken_of_misses: u64,
    epoch: AtomicU64,
    hits: HitCounts,
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
            taken_of_misses: 1,
            epoch: AtomicU64::new(0),
            hits: HitCounts::default(),
            misses: AtomicU64::new(0),
            absent_hits: AtomicU64::new(0),
            stale_hits: AtomicU64::new(0),
        }
    }

    /// Shortens the times of entries by different parts.
    pub fn with_jitter(self) -> Self {
        Self { jitter: CACHE_TTL_JITTER, ..self }
    }

    /// Has a full cache take few devices, for a registry that costs less than an entry.
    pub fn with_few_taken(self) -> Self {
        Self { taken_of_misses: TAKEN_OF_MISSES, ..self }
    }

    /// True if a device is worth an entry.
    fn takes(&self, key: u64) -> bool {
        self.misses.load(Ordering::Relaxed).is_multiple_of(self.taken_of_misses)
            || !self.known.is_nearly_full()
            || self.known.entries.contains_key(&key)
    }

    /// The stamp of a look-up that begins now.
    pub fn lookup_stamp(&self, now_s: f64) -> LookupStamp {
        LookupStamp { at_s: now_s, epoch: self.epoch.load(Ordering::Acquire) }
    }

    /// True if everything was expired since this look-up began.
    pub fn is_outdated(&self, stamp: LookupStamp) -> bool {
        stamp.epoch != self.epoch.load(Ordering::Acquire)
    }

    fn is_fresh<T>(&self, entry: &CacheEntry<T>, now_s: f64) -> bool {
        now_s - entry.stamp.at_s < entry.ttl_s && !self.is_outdated(entry.stamp)
    }

    /// The entry of a device, if it is fresh. Counts a hit or a miss.
    pub fn get(&self, key: u64, tenant: &str, device: &str, now_s: f64) -> Option<Hit<'_>> {
        let hit = self.known.get(key, tenant, device).filter(|entry| self.is_fresh(entry, now_s));
        match hit {
            Some(_) => self.hits.record(key),
            None => _ = self.misses.fetch_add(1, Ordering::Relaxed),
        }
        hit.map(Hit)
    }

    /// True if a fresh answer says that there is no such device. Counts it.
    pub fn is_absent(&self, key: u64, tenant: &str, device: &str, now_s: f64) -> bool {
        let absent = self.has_absent(key, tenant, device, now_s);
        self.absent_hits.fetch_add(u64::from(absent), Ordering::Relaxed);
        absent
    }

    /// True if there is an entry of the device, fresh or not. Counts nothing.
    pub fn knows(&self, key: u64, tenant: &str, device: &str) -> bool {
        self.known.get(key, tenant, device).is_some()
    }

    /// The entry of a device, fresh or not. Counts nothing.
    pub fn peek(&self, key: u64, tenant: &str, device: &str) -> Option<Hit<'_>> {
        self.known.get(key, tenant, device).map(Hit)
    }

    /// The same as `is_absent`, without counting.
    pub fn has_absent(&self, key: u64, tenant: &str, device: &str, now_s: f64) -> bool {
        self.absent.get(key, tenant, device).is_some_and(|entry| self.is_fresh(&entry, now_s))
    }

    /// The entry of a device, fresh or not, if it is younger than `stale_max_s`: for use while the
    /// registry cannot be stamp.
    pub fn stale(
        &self,
        key: u64,
        tenant: &str,
        device: &str,
        now_s: f64,
        stale_max_s: f64,
    ) -> Option<Hit<'_>> {
        let entry = self.known.get(key, tenant, device)?;
        if now_s - entry.stamp.at_s >= stale_max_s {
            return None;
        }
        Some(Hit(entry))
    }

    /// Counts messages that were checked by a stale entry.
    pub fn record_stale(&self, messages: u64) {
        self.stale_hits.fetch_add(messages, Ordering::Relaxed);
    }

    /// Stores a device that the registry has given now, where it is worth an entry.
    pub fn insert(&self, key: u64, known: CachedDevice, now_s: f64) {
        if self.takes(key) {
            self.insert_stamped(key, known, self.lookup_stamp(now_s));
        }
    }

    /// Stores a device that a look-up has given.
    pub fn insert_stamped(&self, key: u64, known: CachedDevice, stamp: LookupStamp) {
        self.absent.remove(key);
        if let Some(before) = self.known.get(key, known.tenant.id.as_str(), known.device.id.as_str()) {
            known.device.activity.continue_from(&before.known.device.activity);
        }
        let ttl_s = self.ttl_s * (1.0 - self.jitter * part_of(key, stamp.at_s));
        self.known.insert(key, CacheEntry { known, stamp, ttl_s });
    }

    /// Stores that the registry has no such device, for at most `ttl_s`.
    pub fn insert_absent(&self, key: u64, tenant: &str, device: &str, stamp: LookupStamp, ttl_s: f64) {
        self.known.remove(key);
        let known = NegativeEntry { tenant: TenantId::new(tenant), device: DeviceId::new(device) };
        self.absent.insert(key, CacheEntry { known, stamp, ttl_s: ttl_s.min(self.ttl_s) });
    }

    /// Removes a device that has changed; gives the hash of its token.
    pub fn forget(&self, key: u64) -> Option<TokenHash> {
        self.absent.remove(key);
        self.known.remove(key).map(|entry| entry.known.token)
    }

    /// Makes every entry stale.
    pub fn expire_all(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// Removes everything: the registry has changed.
    pub fn clear(&self) {
        // The answers of look-ups that are on their way are outdated too.
        self.expire_all();
        self.known.clear();
        self.absent.clear();
    }

    pub fn hits(&self) -> u64 {
        self.hits.sum()
    }

    /// Reads that found no entry, or a stale one.
    pub fn misses(&self) -> u64 {
        self.misses.load(Ordering::Relaxed)
    }

    /// Messages of devices whose absence was in the cache.
    pub fn absent_hits(&self) -> u64 {
        self.absent_hits.load(Ordering::Relaxed)
    }

    /// Messages that were checked by a stale entry.
    pub fn stale_hits(&self) -> u64 {
        self.stale_hits.load(Ordering::Relaxed)
    }

    pub fn entries(&self) -> usize {
        self.known.count()
    }

    /// Calls `visit` with each known device, in no order. Locks one part of the map after the other, for readers
    /// too: `visit` must be short.
    pub fn for_each(&self, mut visit: impl FnMut(&CachedDevice)) {
        self.known.entries.iter().for_each(|entry| visit(&entry.known));
    }
}

/// A number from 0 to 1 that differs by key and moment.
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
            activity: Default::default(),
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
        let stamp = cache.lookup_stamp(0.0);
        cache.expire_all();
        cache.insert_stamped(1, known(), stamp);
        assert!(cache.get(1, "acme", "d", 0.0).is_none());
    }

    #[test]
    fn what_was_seen_of_a_device_outlives_another_look_up() {
        let cache = AuthCache::new(60.0, 100);
        cache.insert(1, known(), 0.0);
        cache.get(1, "acme", "d", 0.0).unwrap().device.activity.record(1_000_000_000);
        cache.insert(1, known(), 30.0);
        let mut seen = Vec::new();
        cache
            .for_each(|known| seen.push(known.device.activity.sighting(1_000_000_000).map(|of| of.messages)));
        assert_eq!(seen, [Some(1)]);
    }

    #[test]
    fn unknown_devices_push_no_known_one_out() {
        let cache = AuthCache::new(60.0, 100);
        cache.insert(1, known(), 0.0);
        for key in 2..10_000 {
            cache.insert_absent(key, "acme", "x", cache.lookup_stamp(1.0), 5.0);
        }
        assert!(cache.get(1, "acme", "d", 2.0).is_some());
        assert!(cache.absent.entries.len() <= 10);
        assert!(cache.is_absent(9_999, "acme", "x", 2.0) && !cache.is_absent(9_999, "acme", "x", 7.0));
        assert!(!cache.is_absent(9_999, "acme", "y", 2.0), "the names are compared");
    }

    #[test]
    fn the_count_is_that_of_the_entries_whatever_happens() {
        let cache = AuthCache::new(60.0, 50);
        let check = || assert_eq!(cache.entries(), cache.known.entries.len());
        for key in 0..500_u64 {
            cache.insert(key % 90, known(), key as f64);
            match key % 7 {
                0 => drop(cache.forget(key % 60)),
                1 => drop(cache.forget(1_000)),
                2 => cache.insert_absent(key % 40, "acme", "d", cache.lookup_stamp(key as f64), 5.0),
                _ => {}
            }
            check();
        }
        assert!(cache.entries() > 10, "{}", cache.entries());
        cache.clear();
        check();
        cache.insert(1, known(), 600.0);
        assert_eq!(cache.entries(), 1);
    }

    #[test]
    fn more_devices_than_entries_in_turn_keep_some_of_their_entries() {
        let cache = AuthCache::new(1e9, 1_000).with_few_taken();
        let hits_of_a_turn = |now_s: f64| {
            let before = cache.hits();
            for key in 0..4_003 {
                if cache.get(key << 32, "acme", "d", now_s).is_none() {
                    cache.insert(key << 32, known(), now_s);
                }
            }
            cache.hits() - before
        };
        assert_eq!(hits_of_a_turn(0.0), 0);
        let hits = (1..10).map(|turn| hits_of_a_turn(f64::from(turn))).min().unwrap();
        assert!(hits > 300, "{hits} of 1,000 entries");
        // A new device gets one all the same, and an entry that is too old is replaced.
        let one_of = |key: u64| {
            (0..2 * TAKEN_OF_MISSES).any(|_| {
                let is_there = cache.get(key, "acme", "d", 20.0).is_some();
                cache.insert(key, known(), 20.0);
                is_there
            })
        };
        assert!(one_of(9));
        cache.expire_all();
        assert!(cache.get(9, "acme", "d", 20.0).is_none());
        cache.insert(9, known(), 20.0);
        assert!(cache.get(9, "acme", "d", 20.0).is_some());
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
