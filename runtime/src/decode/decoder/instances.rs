//! The instances that one thread keeps, and how it comes to one for a batch.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Decoder, Work};
use crate::decode::abi::cut;
use crate::decode::engine::thread_cpu;
use crate::decode::instance::{CallFault, Instance};
use crate::decode::large::Class;
use crate::decode::routes::Route;
use crate::decode::slow::SlowRoute;
use crate::domain::ids::TenantId;
use crate::domain::limits::REFUSAL_DETAIL_BYTES_MAX;
use crate::domain::reason::Reason;

/// The routes of one tenant, by message type.
pub(super) type Types = HashMap<Box<str>, Served, foldhash::fast::RandomState>;

/// A route of one tenant as this thread knows it.
#[derive(Default)]
pub(super) struct Served {
    /// The table that `route` was looked up in.
    generation: u64,
    route: Option<Arc<Route>>,
    /// Of `route`, and while that is on probation of the version before it.
    instances: [Option<(Arc<Route>, Instance)>; 2],
    last_used: u64,
    /// Whether `route` was started before.
    was_started: bool,
    pub(super) slow: Option<Arc<SlowRoute>>,
}

impl Served {
    /// Drops the instances of versions that do not serve any more.
    fn drop_others(&mut self, kept: &mut Live) {
        let fallback = self.route.as_ref().and_then(|route| route.probation.as_ref()?.fallback());
        for place in &mut self.instances {
            let stays = place.as_ref().is_some_and(|(of, _)| {
                [self.route.as_ref(), fallback.as_ref()]
                    .into_iter()
                    .flatten()
                    .any(|route| Arc::ptr_eq(route, of))
            });
            if !stays {
                kept.drop(place);
            }
        }
    }
}

/// Live instances that a thread keeps, by class, and how many it may.
#[derive(Clone, Copy)]
pub(super) struct Live {
    pub(super) normal: usize,
    pub(super) normal_max: usize,
    pub(super) large: usize,
    pub(super) large_max: usize,
}

impl Live {
    fn count(&mut self, class: Class) -> &mut usize {
        match class {
            Class::Normal => &mut self.normal,
            Class::Large => &mut self.large,
        }
    }

    fn is_full(&self, class: Class) -> bool {
        match class {
            Class::Normal => self.normal >= self.normal_max,
            Class::Large => self.large >= self.large_max,
        }
    }

    fn drop(&mut self, place: &mut Option<(Arc<Route>, Instance)>) {
        if let Some((route, _)) = place.take() {
            *self.count(route.rules.class) -= 1;
        }
    }
}

/// Why a guest could not be started for a route.
pub(super) struct NoInstance(pub(super) Reason, pub(super) String);

impl Decoder {
    /// Drops the instance of the class large that was idle for longest, if another thread waits for
    /// one.
    pub fn give_back(&mut self) {
        if self.kept.large > 0 && self.guests.wants_large_back() {
            self.evict(Class::Large);
        }
    }

    /// Whether it keeps what another thread may come to wait for.
    pub fn keeps_large(&self) -> bool {
        self.kept.large > 0
    }

    /// The route of a tenant's message type by the table that holds now.
    pub(super) fn route(&mut self, tenant: &TenantId, message_type: &str) -> Option<Arc<Route>> {
        let generation = self.guests.generation();
        let types = match self.served.get_mut(tenant) {
            Some(types) => types,
            None => self.served.entry(tenant.clone()).or_default(),
        };
        let served = match types.get_mut(message_type) {
            Some(served) => served,
            None => types.entry(message_type.into()).or_default(),
        };
        if served.generation != generation {
            let route = self.guests.table().route(tenant.as_str(), message_type);
            let same = match (&route, &served.route) {
                (Some(new), Some(old)) => Arc::ptr_eq(new, old),
                _ => false,
            };
            served.was_started &= same;
            served.route = route;
            served.generation = generation;
            served.drop_others(&mut self.kept);
        }
        // The table follows within a moment; until then nothing more is decoded by what has failed.
        let came_back = served.route.as_ref().and_then(|route| route.probation.as_ref()?.came_back());
        if came_back.is_some() {
            served.route = came_back;
        }
        if served.instances[1].is_some() {
            served.drop_others(&mut self.kept);
        }
        self.calls += 1;
        served.last_used = self.calls;
        served.route.clone()
    }

    /// The instance that this thread has of a route, or a new one.
    pub(super) fn take_instance(&mut self, work: &Work) -> Result<Instance, NoInstance> {
        self.start_cpu = Duration::ZERO;
        let mut counts = true;
        if let Some(served) = self.served.get_mut(&work.tenant.id)
            && let Some(served) = served.get_mut(&work.message_type)
        {
            counts = std::mem::replace(&mut served.was_started, true);
            for place in &mut served.instances {
                if let Some((_, instance)) = place.take_if(|(of, _)| Arc::ptr_eq(of, &work.route)) {
                    *self.kept.count(work.route.rules.class) -= 1;
                    return Ok(instance);
                }
            }
        }
        let class = work.route.rules.class;
        while self.kept.is_full(class) && self.evict(class) {}
        let tenant = work.tenant.id.as_str();
        loop {
            let began = thread_cpu();
            let started = self.guests.start(&work.route, tenant, &work.message_type);
            if counts {
                self.start_cpu += thread_cpu().saturating_sub(began);
            }
            match started {
                Ok(Ok(instance)) => return Ok(instance),
                Ok(Err(refusal)) => {
                    let detail = format!(
                        "the decoder does not serve this route: {}",
                        cut(&refusal, REFUSAL_DETAIL_BYTES_MAX)
                    );
                    return Err(NoInstance(Reason::NoGuest, detail));
                }
                Err(CallFault::Guest(reason, detail)) => {
                    return Err(NoInstance(reason, format!("while it started: {detail}")));
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

    pub(super) fn keep_instance(&mut self, work: &Work, instance: Instance) {
        let served = self.served.get_mut(&work.tenant.id).and_then(|types| types.get_mut(&work.message_type));
        if let Some(served) = served
            && let Some(place) = served.instances.iter_mut().find(|place| place.is_none())
        {
            *place = Some((work.route.clone(), instance));
            *self.kept.count(work.route.rules.class) += 1;
        }
    }

    /// Drops the instances of this thread and a class that were idle for longest. False when there
    /// are none.
    fn evict(&mut self, class: Class) -> bool {
        let is_of = |place: &Option<(Arc<Route>, Instance)>| {
            place.as_ref().is_some_and(|(route, _)| route.rules.class == class)
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
