//! The instances that one thread keeps, and how it comes to one for a batch.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::decoder::route_context::RouteContext;
use crate::host::DecodeHost;
use crate::limits::CACHED_ROUTES_MAX;
use crate::route::table::Route;
use crate::route::version::RouteVersion;
use crate::sandbox::class::GuestClass;
use crate::sandbox::cpu_clock::thread_cpu;
use crate::sandbox::instance::{CallFault, Instance};
use crate::schedule::slow_lane::SlowRoute;
use tidegate_core::ids::TenantId;
use tidegate_core::reason::Reason;
use tidegate_core::tenant::budget_kind::BudgetKind;
use tidegate_core::tenant::over_budget::{BudgetBound, OverBudget};

/// The routes of one tenant, by message type. Only types that a decoder serves are here.
type RouteCaches = HashMap<Box<str>, RouteCache, foldhash::fast::RandomState>;

/// A route of one tenant as this thread knows it.
#[derive(Default)]
struct RouteCache {
    /// The table that `route` was looked up in.
    generation: u64,
    route: Option<Route>,
    /// An instance of `route`, and while that is on probation one of the version before it.
    instances: [Option<(Arc<RouteVersion>, Instance)>; 2],
    last_used: u64,
    /// True if `route` was started before.
    was_started: bool,
    slow: Option<Arc<SlowRoute>>,
}

impl RouteCache {
    /// Takes the route of a new table.
    fn follow(&mut self, route: Option<Route>, generation: u64, counts: &mut InstanceCounts) {
        let same = match (&route, &self.route) {
            (Some(new), Some(old)) => Arc::ptr_eq(&new.version, &old.version),
            _ => false,
        };
        self.was_started &= same;
        self.route = route;
        self.generation = generation;
        self.drop_others(counts);
    }

    /// Drops the instances of versions that do not serve any more.
    fn drop_others(&mut self, counts: &mut InstanceCounts) {
        let fallback = self.route.as_ref().and_then(Route::fallback);
        for slot in &mut self.instances {
            let stays = slot.as_ref().is_some_and(|(of, _)| {
                let version = self.route.as_ref().map(|route| &route.version);
                [version, fallback.as_ref()].into_iter().flatten().any(|version| Arc::ptr_eq(version, of))
            });
            if !stays {
                counts.drop(slot);
            }
        }
    }
}

/// InstanceCounts instances that a thread keeps, by class, and how many it may.
#[derive(Clone, Copy)]
pub(super) struct InstanceCounts {
    pub(super) normal: usize,
    pub(super) normal_max: usize,
    pub(super) large: usize,
    pub(super) large_max: usize,
}

impl InstanceCounts {
    fn count(&mut self, class: GuestClass) -> &mut usize {
        match class {
            GuestClass::Normal => &mut self.normal,
            GuestClass::Large => &mut self.large,
        }
    }

    fn is_full(&self, class: GuestClass) -> bool {
        match class {
            GuestClass::Normal => self.normal >= self.normal_max,
            GuestClass::Large => self.large >= self.large_max,
        }
    }

    fn drop(&mut self, slot: &mut Option<(Arc<RouteVersion>, Instance)>) {
        if let Some((version, _)) = slot.take() {
            *self.count(version.rules.class) -= 1;
        }
    }
}

/// A guest could not be started for a route: the reason and the detail.
pub(super) struct InstanceUnavailable(pub(super) Reason, pub(super) String);

/// The instances of one thread, by route.
pub(super) struct InstanceCache {
    host: Arc<DecodeHost>,
    caches: HashMap<TenantId, RouteCaches, foldhash::fast::RandomState>,
    /// Entries of `caches`.
    entries: usize,
    counts: InstanceCounts,
    calls: u64,
    start_cpu: Duration,
}

impl InstanceCache {
    pub(super) fn new(host: Arc<DecodeHost>, counts: InstanceCounts) -> Self {
        Self { host, caches: HashMap::default(), entries: 0, counts, calls: 0, start_cpu: Duration::ZERO }
    }

    /// CPU time that starting an instance for the batch at hand took; that of the first of a route is
    /// not counted.
    pub(super) fn start_cpu(&self) -> Duration {
        self.start_cpu
    }

    /// The slow route of a route, if this thread sends its messages to the slow lane.
    pub(super) fn slow_route(&mut self, context: &RouteContext) -> Option<&mut Option<Arc<SlowRoute>>> {
        let cache = self.caches.get_mut(&context.tenant.id)?.get_mut(&context.message_type)?;
        Some(&mut cache.slow)
    }

    /// Drops the instance of the class large that was idle for longest, if another thread waits for
    /// one.
    pub(super) fn release_idle(&mut self) {
        if self.counts.large > 0 && self.host.wants_large_back() {
            self.evict(GuestClass::Large);
        }
    }

    /// True if it keeps an instance that another thread may come to wait for.
    pub(super) fn keeps_large(&self) -> bool {
        self.counts.large > 0
    }

    /// The route of a tenant's message type by the table that holds now.
    pub(super) fn route(&mut self, tenant: &TenantId, message_type: &str) -> Option<Route> {
        let generation = self.host.generation();
        self.calls += 1;
        let Some(types) = self.caches.get_mut(tenant) else {
            return self.add(tenant, message_type, generation);
        };
        let Some(cache) = types.get_mut(message_type) else {
            return self.add(tenant, message_type, generation);
        };
        if cache.generation != generation {
            let route = self.host.table().route(tenant.as_str(), message_type);
            cache.follow(route, generation, &mut self.counts);
            if cache.route.is_none() {
                types.remove(message_type);
                self.entries -= 1;
                if types.is_empty() {
                    self.caches.remove(tenant);
                }
                return None;
            }
        }
        // The table follows within a moment; until then the failed version decodes nothing more.
        if let Some(previous) = cache.route.as_ref().and_then(Route::rolled_back_to) {
            cache.route = Some(Route::new(previous));
        }
        if cache.instances[1].is_some() {
            cache.drop_others(&mut self.counts);
        }
        cache.last_used = self.calls;
        cache.route.clone()
    }

    /// Remembers a route that this thread did not know. `None`: there is none, and nothing is remembered.
    fn add(&mut self, tenant: &TenantId, message_type: &str, generation: u64) -> Option<Route> {
        let mut route = self.host.table().route(tenant.as_str(), message_type)?;
        if let Some(previous) = route.rolled_back_to() {
            route = Route::new(previous);
        }
        if self.entries >= CACHED_ROUTES_MAX {
            self.forget_routes();
        }
        let (known, last_used) = (Some(route.clone()), self.calls);
        let cache = RouteCache { generation, route: known, last_used, ..RouteCache::default() };
        self.caches.entry(tenant.clone()).or_default().insert(message_type.into(), cache);
        self.entries += 1;
        Some(route)
    }

    /// Forgets the routes that were not used for longest, up to a half of all. Those with an instance, or
    /// with messages in the slow lane, stay.
    fn forget_routes(&mut self) {
        let mut used: Vec<u64> =
            self.caches.values().flat_map(|types| types.values()).map(|cache| cache.last_used).collect();
        let middle = used.len() / 2;
        let (_, &mut newest_gone, _) = used.select_nth_unstable(middle);
        self.caches.retain(|_, types| {
            types.retain(|_, cache| {
                cache.last_used > newest_gone
                    || cache.instances.iter().any(Option::is_some)
                    // The lane has one, this the other, and each message that waits one more.
                    || cache.slow.as_ref().is_some_and(|slow| Arc::strong_count(slow) > 2)
            });
            !types.is_empty()
        });
        self.entries = self.caches.values().map(HashMap::len).sum();
    }

    /// The instance that this thread has of a route, or a new one.
    pub(super) fn take(&mut self, context: &RouteContext) -> Result<Instance, InstanceUnavailable> {
        self.start_cpu = Duration::ZERO;
        let mut counted = true;
        if let Some(cache) = self.caches.get_mut(&context.tenant.id)
            && let Some(cache) = cache.get_mut(&context.message_type)
        {
            counted = std::mem::replace(&mut cache.was_started, true);
            for slot in &mut cache.instances {
                if let Some((_, instance)) = slot.take_if(|(of, _)| Arc::ptr_eq(of, &context.route.version)) {
                    *self.counts.count(context.route.version.rules.class) -= 1;
                    return Ok(instance);
                }
            }
        }
        let class = context.route.version.rules.class;
        while self.counts.is_full(class) && self.evict(class) {}
        let started_bytes = context.route.version.guest.started_bytes();
        while let Err(over) = context.tenant.memory.check(BudgetKind::Instances, started_bytes)
            && self.evict_for(context, &over)
        {}
        let tenant = context.tenant.id.as_str();
        loop {
            let began = thread_cpu();
            let owner = (tenant, &context.tenant.memory);
            let started = self.host.start(&context.route.version, owner, &context.message_type);
            if counted {
                self.start_cpu += thread_cpu().saturating_sub(began);
            }
            match started {
                Ok(Ok(instance)) => return Ok(instance),
                Ok(Err(refusal)) => {
                    let detail = format!("the decoder does not serve this route: {refusal}");
                    return Err(InstanceUnavailable(Reason::NoGuest, detail));
                }
                Err(CallFault::Guest(reason, detail)) => {
                    return Err(InstanceUnavailable(reason, format!("while it started: {detail}")));
                }
                // The pool is shared: another thread or a trial has the last slot. Ours go first,
                // then theirs come free.
                Err(CallFault::Host(what)) => {
                    if !self.evict(class) {
                        tracing::debug!(what, "waiting for a free instance");
                        std::thread::sleep(std::time::Duration::from_millis(1));
                    }
                }
            }
        }
    }

    /// Keeps an instance for the next batch, if there is room in its tenant's budget.
    pub(super) fn keep(&mut self, context: &RouteContext, mut instance: Instance) {
        while let Err(over) = instance.settle_memory() {
            if !self.evict_for(context, &over) {
                return;
            }
        }
        let cache =
            self.caches.get_mut(&context.tenant.id).and_then(|types| types.get_mut(&context.message_type));
        if let Some(cache) = cache
            && let Some(slot) = cache.instances.iter_mut().find(|slot| slot.is_none())
        {
            *slot = Some((context.route.version.clone(), instance));
            *self.counts.count(context.route.version.rules.class) += 1;
        }
    }

    /// Makes room in a budget. In its own one, and above its part of the gateway's, a tenant makes it by its
    /// own instances; below that by any. False when there are none.
    fn evict_for(&mut self, context: &RouteContext, over: &OverBudget) -> bool {
        match over.bound {
            BudgetBound::Gateway => self.evict(context.route.version.rules.class),
            _ => self.evict_own(context),
        }
    }

    /// Drops the instances of this thread and a tenant that were idle for longest. False when there are
    /// none.
    fn evict_own(&mut self, context: &RouteContext) -> bool {
        let Some(types) = self.caches.get_mut(&context.tenant.id) else { return false };
        let idle = types.values_mut().filter(|cache| cache.instances.iter().any(Option::is_some));
        let Some(oldest) = idle.min_by_key(|cache| cache.last_used) else { return false };
        oldest.instances.iter_mut().for_each(|slot| self.counts.drop(slot));
        true
    }

    /// Drops the instances of this thread and a class that were idle for longest. False when there
    /// are none.
    fn evict(&mut self, class: GuestClass) -> bool {
        let is_of = |slot: &Option<(Arc<RouteVersion>, Instance)>| {
            slot.as_ref().is_some_and(|(version, _)| version.rules.class == class)
        };
        let oldest = self
            .caches
            .values_mut()
            .flat_map(|types| types.values_mut())
            .filter(|cache| cache.instances.iter().any(is_of))
            .min_by_key(|cache| cache.last_used);
        let Some(oldest) = oldest else { return false };
        for slot in oldest.instances.iter_mut().filter(|slot| is_of(slot)) {
            self.counts.drop(slot);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::DecodeSettings;
    use tidegate_core::line_protocol::Dialect;

    fn cache() -> InstanceCache {
        let settings = DecodeSettings {
            threads: 1,
            deadline_ms: 1,
            memory_bytes_max: 1 << 16,
            component_bytes_max: 1,
            dialect: Dialect::V3,
            large: None,
        };
        let host = DecodeHost::new(settings, Arc::default()).unwrap();
        let counts = InstanceCounts { normal: 0, normal_max: 1, large: 0, large_max: 0 };
        InstanceCache::new(Arc::new(host), counts)
    }

    #[test]
    fn types_without_a_decoder_are_not_remembered() {
        let mut cache = cache();
        for number in 0..1_000 {
            assert!(cache.route(&"acme".into(), &format!("type-{number}")).is_none());
        }
        assert!(cache.caches.is_empty() && cache.caches.capacity() == 0);
        // One that had a decoder is forgotten with it.
        let known = RouteCache::default();
        cache.caches.entry("acme".into()).or_default().insert("gone".into(), known);
        cache.entries = 1;
        assert!(cache.route(&"acme".into(), "gone").is_none());
        assert!(cache.caches.is_empty() && cache.entries == 0);
    }

    #[test]
    fn the_routes_that_were_not_used_for_longest_are_forgotten_first() {
        let mut cache = cache();
        for number in 0..1_000_u64 {
            let known = RouteCache { last_used: number, ..RouteCache::default() };
            let tenant = TenantId::new(if number % 2 == 0 { "acme" } else { "globex" });
            cache.caches.entry(tenant).or_default().insert(number.to_string().into(), known);
            cache.entries += 1;
        }
        cache.forget_routes();
        let left: Vec<u64> =
            cache.caches.values().flat_map(HashMap::values).map(|known| known.last_used).collect();
        assert_eq!((left.len(), cache.entries, left.iter().min()), (499, 499, Some(&501)));
    }
}
