//! The instances that one thread keeps, and how it comes to one for a batch.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::decoder::route_context::RouteContext;
use crate::host::DecodeHost;
use crate::route::table::Route;
use crate::route::version::RouteVersion;
use crate::sandbox::class::GuestClass;
use crate::sandbox::cpu_clock::thread_cpu;
use crate::sandbox::instance::{CallFault, Instance};
use crate::schedule::slow_lane::SlowRoute;
use tidegate_core::ids::TenantId;
use tidegate_core::reason::Reason;

/// The routes of one tenant, by message type.
type RouteCaches = HashMap<Box<str>, RouteCache, foldhash::fast::RandomState>;

/// A route of one tenant as this thread knows it.
#[derive(Default)]
struct RouteCache {
    /// The table that `route` was looked up in.
    generation: u64,
    route: Option<Route>,
    /// Of `route`, and while that is on probation of the version before it.
    instances: [Option<(Arc<RouteVersion>, Instance)>; 2],
    last_used: u64,
    /// True if `route` was started before.
    was_started: bool,
    slow: Option<Arc<SlowRoute>>,
}

impl RouteCache {
    /// Drops the instances of versions that do not serve any more.
    fn drop_others(&mut self, kept: &mut InstanceCounts) {
        let fallback = self.route.as_ref().and_then(Route::fallback);
        for place in &mut self.instances {
            let stays = place.as_ref().is_some_and(|(of, _)| {
                let version = self.route.as_ref().map(|route| &route.version);
                [version, fallback.as_ref()].into_iter().flatten().any(|version| Arc::ptr_eq(version, of))
            });
            if !stays {
                kept.drop(place);
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

    fn drop(&mut self, place: &mut Option<(Arc<RouteVersion>, Instance)>) {
        if let Some((version, _)) = place.take() {
            *self.count(version.rules.class) -= 1;
        }
    }
}

/// A guest could not be started for a route: the reason and the detail.
pub(super) struct InstanceUnavailable(pub(super) Reason, pub(super) String);

/// The instances of one thread, by route.
pub(super) struct InstanceCache {
    host: Arc<DecodeHost>,
    served: HashMap<TenantId, RouteCaches, foldhash::fast::RandomState>,
    kept: InstanceCounts,
    calls: u64,
    start_cpu: Duration,
}

impl InstanceCache {
    pub(super) fn new(host: Arc<DecodeHost>, kept: InstanceCounts) -> Self {
        Self { host, served: HashMap::default(), kept, calls: 0, start_cpu: Duration::ZERO }
    }

    /// CPU time that starting an instance for the batch at hand took; that of the first of a route is
    /// not held against it.
    pub(super) fn start_cpu(&self) -> Duration {
        self.start_cpu
    }

    /// The slow lane's place for a route, as this thread knows it.
    pub(super) fn slow_route(&mut self, work: &RouteContext) -> Option<&mut Option<Arc<SlowRoute>>> {
        let served = self.served.get_mut(&work.tenant.id)?.get_mut(&work.message_type)?;
        Some(&mut served.slow)
    }

    /// Drops the instance of the class large that was idle for longest, if another thread waits for
    /// one.
    pub(super) fn release_idle(&mut self) {
        if self.kept.large > 0 && self.host.wants_large_back() {
            self.evict(GuestClass::Large);
        }
    }

    /// True if it keeps an instance that another thread may come to wait for.
    pub(super) fn keeps_large(&self) -> bool {
        self.kept.large > 0
    }

    /// The route of a tenant's message type by the table that holds now.
    pub(super) fn route(&mut self, tenant: &TenantId, message_type: &str) -> Option<Route> {
        let generation = self.host.generation();
        let types = match self.served.get_mut(tenant) {
            Some(types) => types,
            None => self.served.entry(tenant.clone()).or_default(),
        };
        let served = match types.get_mut(message_type) {
            Some(served) => served,
            None => types.entry(message_type.into()).or_default(),
        };
        if served.generation != generation {
            let route = self.host.table().route(tenant.as_str(), message_type);
            let same = match (&route, &served.route) {
                (Some(new), Some(old)) => Arc::ptr_eq(&new.version, &old.version),
                _ => false,
            };
            served.was_started &= same;
            served.route = route;
            served.generation = generation;
            served.drop_others(&mut self.kept);
        }
        // The table follows within a moment; until then nothing more is decoded by what has failed.
        if let Some(previous) = served.route.as_ref().and_then(Route::rolled_back_to) {
            served.route = Some(Route::new(previous));
        }
        if served.instances[1].is_some() {
            served.drop_others(&mut self.kept);
        }
        self.calls += 1;
        served.last_used = self.calls;
        served.route.clone()
    }

    /// The instance that this thread has of a route, or a new one.
    pub(super) fn take(&mut self, work: &RouteContext) -> Result<Instance, InstanceUnavailable> {
        self.start_cpu = Duration::ZERO;
        let mut counts = true;
        if let Some(served) = self.served.get_mut(&work.tenant.id)
            && let Some(served) = served.get_mut(&work.message_type)
        {
            counts = std::mem::replace(&mut served.was_started, true);
            for place in &mut served.instances {
                if let Some((_, instance)) = place.take_if(|(of, _)| Arc::ptr_eq(of, &work.route.version)) {
                    *self.kept.count(work.route.version.rules.class) -= 1;
                    return Ok(instance);
                }
            }
        }
        let class = work.route.version.rules.class;
        while self.kept.is_full(class) && self.evict(class) {}
        let tenant = work.tenant.id.as_str();
        loop {
            let began = thread_cpu();
            let started = self.host.start(&work.route.version, tenant, &work.message_type);
            if counts {
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

    pub(super) fn keep(&mut self, work: &RouteContext, instance: Instance) {
        let served = self.served.get_mut(&work.tenant.id).and_then(|types| types.get_mut(&work.message_type));
        if let Some(served) = served
            && let Some(place) = served.instances.iter_mut().find(|place| place.is_none())
        {
            *place = Some((work.route.version.clone(), instance));
            *self.kept.count(work.route.version.rules.class) += 1;
        }
    }

    /// Drops the instances of this thread and a class that were idle for longest. False when there
    /// are none.
    fn evict(&mut self, class: GuestClass) -> bool {
        let is_of = |place: &Option<(Arc<RouteVersion>, Instance)>| {
            place.as_ref().is_some_and(|(version, _)| version.rules.class == class)
        };
        let oldest = self
            .served
            .values_mut()
            .flat_map(|types| types.values_mut())
            .filter(|served| served.instances.iter().any(is_of))
            .min_by_key(|served| served.last_used);
        let Some(oldest) = oldest else { return false };
        for place in oldest.instances.iter_mut().filter(|place| is_of(place)) {
            self.kept.drop(place);
        }
        true
    }
}
