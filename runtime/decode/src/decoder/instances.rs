//! The instances that one thread keeps, and how it comes to one for a batch.

use std::sync::Arc;
use std::time::Duration;

use crate::decoder::known_routes::{KeptInstance, KnownRoutes, RouteId, RouteOwner};
use crate::decoder::route_context::RouteContext;
use crate::host::DecodeHost;
use crate::route::table::Route;
use crate::sandbox::class::GuestClass;
use crate::sandbox::cpu_clock::thread_cpu_about;
use crate::sandbox::instance::{CallFault, Instance};
use crate::schedule::slow_lane::SlowRoute;
use crate::schedule::standing::Standing;
use crate::state::RouteStateView;
use tidegate_core::ids::TenantId;
use tidegate_core::reason::Reason;
use tidegate_core::route_key::DEFAULT;
use tidegate_core::tenant::budget::Budget;
use tidegate_core::tenant::budget_kind::BudgetKind;
use tidegate_core::tenant::over_budget::{BudgetBound, OverBudget};

/// The instances that a thread keeps, by class, and how many it may.
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

    fn drop(&mut self, slot: &mut Option<KeptInstance>) {
        if let Some((version, _)) = slot.take() {
            *self.count(version.rules.class) -= 1;
        }
    }
}

/// A guest could not be started for a route: the reason and the detail.
pub(super) struct InstanceUnavailable(pub(super) Reason, pub(super) String);

/// A route as a thread knows it at the begin of a batch.
pub(super) struct FoundRoute {
    pub(super) id: RouteId,
    pub(super) message_type: Arc<str>,
    pub(super) route: Route,
    pub(super) standing: Arc<Standing>,
}

/// The instances of one thread, by route.
pub(super) struct InstanceCache {
    host: Arc<DecodeHost>,
    routes: KnownRoutes,
    counts: InstanceCounts,
    start_cpu: Duration,
}

impl InstanceCache {
    pub(super) fn new(host: Arc<DecodeHost>, counts: InstanceCounts) -> Self {
        Self { routes: KnownRoutes::new(host.clone()), host, counts, start_cpu: Duration::ZERO }
    }

    /// Sets the number of instances of the class normal that may be kept.
    pub(super) fn set_normal_max(&mut self, normal_max: usize) {
        self.counts.normal_max = normal_max;
    }

    /// CPU time that starting an instance for the batch at hand took; that of the first of a route is
    /// not counted.
    pub(super) fn start_cpu(&self) -> Duration {
        self.start_cpu
    }

    /// The slow route of a route, if this thread sends its messages to the slow lane.
    pub(super) fn slow_route(&mut self, context: &RouteContext) -> Option<&mut Option<Arc<SlowRoute>>> {
        Some(&mut self.routes.get(context.id)?.slow)
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

    /// Makes room for routes; ids of routes that were found before hold no more.
    pub(super) fn begin(&mut self) {
        self.routes.forget_if_many();
    }

    /// The route of a tenant's message type by the table that holds now.
    pub(super) fn route(&mut self, tenant: &TenantId, message_type: &str) -> Option<FoundRoute> {
        let id = self.routes.find(tenant, message_type, |slot| self.counts.drop(slot))?;
        let known = self.routes.get(id)?;
        Some(FoundRoute {
            id,
            message_type: known.message_type.clone(),
            route: known.route.clone(),
            standing: known.standing.clone(),
        })
    }

    /// The route whose instances decode a batch: of a shared decoder that of all tenants.
    fn instances_of(&mut self, context: &RouteContext) -> Option<RouteId> {
        match context.route.version.is_shared() {
            true => self.routes.find_of_all(&context.message_type, |slot| self.counts.drop(slot)),
            false => Some(context.id),
        }
    }

    /// The values that a shared decoder keeps for the tenant of a batch.
    pub(super) fn state(&mut self, context: &RouteContext) -> Arc<RouteStateView> {
        let new = || self.host.state().route_state(&context.tenant.id, &context.message_type);
        match self.routes.get(context.id) {
            Some(known) => known.state.get_or_insert_with(new).clone(),
            None => new(),
        }
    }

    /// The instance that this thread has of a route, or a new one.
    pub(super) fn take(&mut self, context: &RouteContext) -> Result<Instance, InstanceUnavailable> {
        self.start_cpu = Duration::ZERO;
        let mut counted = true;
        let id = self.instances_of(context);
        if let Some(id) = id {
            self.routes.record_use(id);
        }
        if let Some(known) = id.and_then(|id| self.routes.get(id)) {
            counted = std::mem::replace(&mut known.was_started, true);
            for slot in &mut known.instances {
                if let Some((_, instance)) = slot.take_if(|(of, _)| Arc::ptr_eq(of, &context.route.version)) {
                    *self.counts.count(context.route.version.rules.class) -= 1;
                    return Ok(instance);
                }
            }
        }
        self.start(context, counted)
    }

    /// The tenant that a batch's instance is of, and its budget: `_default` and the gateway's for a shared one.
    fn owner<'a>(&'a self, context: &'a RouteContext) -> (&'a str, &'a Budget) {
        match context.route.version.is_shared() {
            true => (DEFAULT, &self.host.sandbox(context.route.version.rules.class).memory.shared),
            false => (context.tenant.id.as_str(), &context.tenant.memory),
        }
    }

    fn start(&mut self, context: &RouteContext, counted: bool) -> Result<Instance, InstanceUnavailable> {
        let class = context.route.version.rules.class;
        while self.counts.is_full(class) && self.make_room(context) {}
        let started_bytes = context.route.version.guest.started_bytes();
        while let Err(over) = self.owner(context).1.check(BudgetKind::Instances, started_bytes)
            && self.evict_for(context, &over)
        {}
        loop {
            let began = thread_cpu_about();
            let started = self.host.start(&context.route.version, self.owner(context), &context.message_type);
            if counted {
                self.start_cpu += thread_cpu_about().saturating_sub(began);
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
                // The pool is shared: another thread or a trial has the last slot, though each has slots enough
                // beside the others. Ours go first, then theirs come free.
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
        if self.counts.is_full(context.route.version.rules.class) {
            return;
        }
        let id = self.instances_of(context);
        if let Some(known) = id.and_then(|id| self.routes.get(id))
            && let Some(slot) = known.instances.iter_mut().find(|slot| slot.is_none())
        {
            *slot = Some((context.route.version.clone(), instance));
            *self.counts.count(context.route.version.rules.class) += 1;
        }
    }

    /// Makes room for an instance by one whose route was used less. False when there is none: then the batch has an
    /// instance of its own, which is dropped after it.
    fn make_room(&mut self, context: &RouteContext) -> bool {
        let class = context.route.version.rules.class;
        if class == GuestClass::Large || context.route.version.is_shared() {
            return self.evict(class);
        }
        let Some(victim) = self.routes.victim(context.id) else { return false };
        let Some(known) = self.routes.get(victim) else { return false };
        known.instances.iter_mut().for_each(|slot| self.counts.drop(slot));
        true
    }

    /// Makes room in a budget. In its own one, and above its part of the gateway's, a tenant makes it by its
    /// own instances; below that by any that are used less. False when there are none.
    fn evict_for(&mut self, context: &RouteContext, over: &OverBudget) -> bool {
        match over.bound {
            BudgetBound::Gateway => self.make_room(context),
            _ => self.evict_own(&context.tenant.id),
        }
    }

    /// Drops the instances of this thread and a tenant that were idle for longest. False when there are
    /// none.
    fn evict_own(&mut self, tenant: &TenantId) -> bool {
        let ids: Vec<RouteId> = self.routes.ids_of(tenant).collect();
        let used = |id: RouteId| {
            let known = self.routes.get(id)?;
            known.has_instance().then_some((known.last_used, id))
        };
        let oldest = ids.into_iter().filter_map(used).min_by_key(|(last_used, _)| *last_used);
        let Some(known) = oldest.and_then(|(_, id)| self.routes.get(id)) else { return false };
        known.instances.iter_mut().for_each(|slot| self.counts.drop(slot));
        true
    }

    /// Drops the instances of this thread and a class that were idle for longest, those of shared decoders last.
    /// False when there are none.
    fn evict(&mut self, class: GuestClass) -> bool {
        let known = self.routes.iter_mut().filter(|known| known.has_instance_of(class));
        let oldest = known.min_by_key(|known| (known.owner == RouteOwner::All, known.last_used));
        let Some(oldest) = oldest else { return false };
        let is_of = |slot: &KeptInstance| slot.0.rules.class == class;
        for slot in oldest.instances.iter_mut().filter(|slot| slot.as_ref().is_some_and(is_of)) {
            self.counts.drop(slot);
        }
        true
    }
}
