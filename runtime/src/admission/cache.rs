//! What is believed of devices for a while, so that the registry is not asked for every message.

use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use dashmap::mapref::one::Ref;
use parking_lot::Mutex;

use super::registry::TokenHash;
use crate::domain::message::{Device, Tenant};

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

#[derive(Debug)]
struct Entry {
    known: CachedDevice,
    fetched_s: f64,
}

/// An entry while it is looked at.
#[derive(Debug)]
pub struct Hit<'a>(Ref<'a, u64, Entry>);

impl Deref for Hit<'_> {
    type Target = CachedDevice;

    fn deref(&self) -> &CachedDevice {
        &self.0.known
    }
}

/// The cache. An entry's age counts from when it was fetched; a hit does not renew it. Unknown
/// devices are not kept. At the ceiling the oldest tenth goes.
#[derive(Debug)]
pub struct AuthCache {
    entries: DashMap<u64, Entry, foldhash::fast::RandomState>,
    /// (fetched, key) in the order of fetching; an entry that was fetched again since is passed over.
    order: Mutex<VecDeque<(f64, u64)>>,
    ttl_s: f64,
    /// 0: no bound.
    entries_max: usize,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl AuthCache {
    pub fn new(ttl_s: f64, entries_max: usize) -> Self {
        Self {
            entries: DashMap::default(),
            order: Mutex::default(),
            ttl_s,
            entries_max,
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    /// What is known of a device, if it is still believed.
    pub fn get(&self, key: u64, tenant: &str, device: &str, now_s: f64) -> Option<Hit<'_>> {
        let hit = self.entries.get(&key).filter(|entry| {
            now_s - entry.fetched_s < self.ttl_s
                && entry.known.device.id.as_str() == device
                && entry.known.tenant.id.as_str() == tenant
        });
        let counter = if hit.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        hit.map(Hit)
    }

    /// Keeps what the registry has just said.
    pub fn insert(&self, key: u64, known: CachedDevice, now_s: f64) {
        let mut order = self.order.lock();
        let size = self.entries.len();
        if self.entries_max > 0 && size >= self.entries_max {
            self.evict(&mut order, (size / 10).max(1));
        }
        self.entries.insert(key, Entry { known, fetched_s: now_s });
        order.push_back((now_s, key));
        if order.len() > 2 * self.entries.len() + 1_024 {
            order.retain(|&(fetched_s, key)| self.is_current(fetched_s, key));
        }
    }

    fn is_current(&self, fetched_s: f64, key: u64) -> bool {
        self.entries.get(&key).is_some_and(|entry| entry.fetched_s == fetched_s)
    }

    fn evict(&self, order: &mut VecDeque<(f64, u64)>, mut entries: usize) {
        while entries > 0
            && let Some((fetched_s, key)) = order.pop_front()
        {
            if self.entries.remove_if(&key, |_, entry| entry.fetched_s == fetched_s).is_some() {
                entries -= 1;
            }
        }
    }

    /// Forgets everything: the registry has changed.
    pub fn clear(&self) {
        let mut order = self.order.lock();
        self.entries.clear();
        order.clear();
    }

    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    /// Look-ups that found nothing, or nothing that is still believed.
    pub fn misses(&self) -> u64 {
        self.misses.load(Ordering::Relaxed)
    }

    pub fn entries(&self) -> usize {
        self.entries.len()
    }
}
