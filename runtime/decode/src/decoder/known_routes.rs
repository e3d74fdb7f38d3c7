//! The routes that one thread knows, each of a tenant's message type, and those of shared decoders, which belong
//! to all tenants. Only types that a decoder serves are here.

use std::collections::HashMap;
use std::sync::Arc;

use crate::decoder::replacement::Replacement;
use crate::host::DecodeHost;
use crate::limits::CACHED_ROUTES_MAX;
use crate::route::table::{Route, RouteFolder};
use crate::route::version::RouteVersion;
use crate::sandbox::class::GuestClass;
use crate::sandbox::instance::Instance;
use crate::schedule::slow_lane::SlowRoute;
use crate::schedule::standing::Standing;
use crate::state::RouteStateView;
use tidegate_core::ids::TenantId;

/// The place of a route in `KnownRoutes`; it holds until the next `forget_if_many`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RouteId(usize);

/// The messages of a tenant's type, or of a type of all tenants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RouteOwner {
    Tenant(TenantId),
    /// The instances here decode for every tenant.
    All,
}

/// An instance that is kept, and the version that it is of.
pub(super) type KeptInstance = (Arc<RouteVersion>, Instance);

/// A route as one thread knows it.
pub(super) struct KnownRoute {
    pub(super) owner: RouteOwner,
    pub(super) message_type: Arc<str>,
    /// The table that `route` was looked up in.
    generation: u64,
    pub(super) route: Route,
    pub(super) standing: Arc<Standing>,
    /// An instance of `route`, and while that is on probation one of the version before it.
    pub(super) instances: [Option<KeptInstance>; 2],
    pub(super) last_used: u64,
    /// True if `route` was started before.
    pub(super) was_started: bool,
    pub(super) slow: Option<Arc<SlowRoute>>,
    /// The tenant's values, where a shared decoder keeps some.
    pub(super) state: Option<Arc<RouteStateView>>,
}

impl KnownRoute {
    pub(super) fn has_instance(&self) -> bool {
        self.instances.iter().any(Option::is_some)
    }

    pub(super) fn has_instance_of(&self, class: GuestClass) -> bool {
        self.instances.iter().flatten().any(|(version, _)| version.rules.class == class)
    }

    /// The instances of versions that do not serve any more.
    fn outdated(&mut self) -> impl Iterator<Item = &mut Option<KeptInstance>> {
        let fallback = self.route.fallback();
        let serving = self.route.version.clone();
        self.instances.iter_mut().filter(move |slot| {
            slot.as_ref().is_some_and(|(of, _)| {
                !Arc::ptr_eq(of, &serving)
                    && fallback.as_ref().is_none_or(|version| !Arc::ptr_eq(of, version))
            })
        })
    }

    /// True if it may be forgotten: it has no instance, and no messages in the slow lane.
    fn is_forgettable(&self) -> bool {
        // The lane has one, this the other, and each message that waits one more.
        !self.has_instance() && self.slow.as_ref().is_none_or(|slow| Arc::strong_count(slow) <= 2)
    }
}

type ByType = HashMap<Arc<str>, usize, foldhash::fast::RandomState>;

/// The routes of one thread.
pub(super) struct KnownRoutes {
    host: Arc<DecodeHost>,
    routes: Vec<Option<KnownRoute>>,
    free: Vec<usize>,
    by_tenant: HashMap<TenantId, ByType, foldhash::fast::RandomState>,
    of_all: ByType,
    calls: u64,
    replacement: Replacement,
}

impl KnownRoutes {
    pub(super) fn new(host: Arc<DecodeHost>) -> Self {
        Self {
            host,
            routes: Vec::new(),
            free: Vec::new(),
            by_tenant: HashMap::default(),
            of_all: HashMap::default(),
            calls: 0,
            replacement: Replacement::new(),
        }
    }

    pub(super) fn get(&mut self, id: RouteId) -> Option<&mut KnownRoute> {
        self.routes.get_mut(id.0)?.as_mut()
    }

    /// All routes.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut KnownRoute> {
        self.routes.iter_mut().flatten()
    }

    /// The routes of one tenant.
    pub(super) fn ids_of(&self, tenant: &TenantId) -> impl Iterator<Item = RouteId> {
        self.by_tenant.get(tenant).into_iter().flat_map(|types| types.values().copied().map(RouteId))
    }

    /// Finds the route of a tenant's message type by the table that holds now. `drops` takes the instances that
    /// do not serve any more.
    pub(super) fn find(
        &mut self,
        tenant: &TenantId,
        message_type: &str,
        drops: impl FnMut(&mut Option<KeptInstance>),
    ) -> Option<RouteId> {
        self.calls += 1;
        let generation = self.host.generation();
        let Some(&place) = self.by_tenant.get(tenant).and_then(|types| types.get(message_type)) else {
            let (route, place) = self.host.table().find(tenant.as_str(), message_type)?;
            let message_type: Arc<str> = message_type.into();
            let place =
                self.add(RouteOwner::Tenant(tenant.clone()), &message_type, (route, place), generation);
            self.by_tenant.entry(tenant.clone()).or_default().insert(message_type, place);
            return Some(RouteId(place));
        };
        let found = match self.routes[place].as_ref().is_some_and(|known| known.generation == generation) {
            true => None,
            false => Some(self.host.table().find(tenant.as_str(), message_type)),
        };
        self.follow(place, found, generation, drops)
    }

    /// Finds the route of a message type for all tenants, whose decoder is shared.
    pub(super) fn find_of_all(
        &mut self,
        message_type: &Arc<str>,
        drops: impl FnMut(&mut Option<KeptInstance>),
    ) -> Option<RouteId> {
        let generation = self.host.generation();
        let Some(&place) = self.of_all.get(message_type) else {
            let route = self.host.table().find_of_all(message_type)?;
            let place = self.add(RouteOwner::All, message_type, (route, RouteFolder::Default), generation);
            self.of_all.insert(message_type.clone(), place);
            return Some(RouteId(place));
        };
        let found = match self.routes[place].as_ref().is_some_and(|known| known.generation == generation) {
            true => None,
            false => {
                Some(self.host.table().find_of_all(message_type).map(|route| (route, RouteFolder::Default)))
            }
        };
        self.follow(place, found, generation, drops)
    }

    /// Has a known route follow the table: `found` is its route in a new one.
    fn follow(
        &mut self,
        place: usize,
        found: Option<Option<(Route, RouteFolder)>>,
        generation: u64,
        mut drops: impl FnMut(&mut Option<KeptInstance>),
    ) -> Option<RouteId> {
        let calls = self.calls;
        let known = self.routes[place].as_mut()?;
        known.last_used = calls;
        match found {
            None => {}
            Some(None) => {
                known.instances.iter_mut().for_each(drops);
                self.remove(place);
                return None;
            }
            Some(Some((route, folder))) => {
                if !Arc::ptr_eq(&route.version, &known.route.version) {
                    known.was_started = false;
                    known.standing = standing(&self.host, &known.owner, &known.message_type, &route, folder);
                }
                (known.route, known.generation) = (route, generation);
                known.outdated().for_each(&mut drops);
            }
        }
        // The table follows within a moment; until then the failed version decodes nothing more.
        if let Some(previous) = known.route.rolled_back_to() {
            if Arc::ptr_eq(&known.standing, &known.route.version.standing) {
                known.standing = previous.standing.clone();
            }
            known.route = Route::new(previous);
        }
        if known.instances[1].is_some() {
            known.outdated().for_each(&mut drops);
        }
        Some(RouteId(place))
    }

    fn add(
        &mut self,
        owner: RouteOwner,
        message_type: &Arc<str>,
        (mut route, folder): (Route, RouteFolder),
        generation: u64,
    ) -> usize {
        let standing = standing(&self.host, &owner, message_type, &route, folder);
        if let Some(previous) = route.rolled_back_to() {
            route = Route::new(previous);
        }
        let known = KnownRoute {
            owner,
            message_type: message_type.clone(),
            generation,
            route,
            standing,
            instances: [None, None],
            last_used: self.calls,
            was_started: false,
            slow: None,
            state: None,
        };
        let place = match self.free.pop() {
            Some(free) => {
                self.routes[free] = Some(known);
                free
            }
            None => {
                self.routes.push(Some(known));
                self.routes.len() - 1
            }
        };
        self.replacement.add(place);
        place
    }

    /// Counts a batch of a route, which keeps or earns it an instance.
    pub(super) fn record_use(&mut self, id: RouteId) {
        self.replacement.record_use(id.0);
    }

    /// A route with an instance of the class normal that is to make room for one of `candidate`. `None` if none was
    /// used less. A shared one never makes room: all tenants use it.
    pub(super) fn victim(&mut self, candidate: RouteId) -> Option<RouteId> {
        let routes = &self.routes;
        let holds = |place: usize| {
            let known = routes[place].as_ref();
            known.is_some_and(|known| {
                known.owner != RouteOwner::All && known.has_instance_of(GuestClass::Normal)
            })
        };
        let victim = self.replacement.victim(holds)?;
        self.replacement.yields(victim, candidate.0).then_some(RouteId(victim))
    }

    fn remove(&mut self, place: usize) {
        let Some(known) = self.routes[place].take() else { return };
        self.free.push(place);
        match &known.owner {
            RouteOwner::All => _ = self.of_all.remove(&known.message_type),
            RouteOwner::Tenant(tenant) => {
                let Some(types) = self.by_tenant.get_mut(tenant) else { return };
                types.remove(&known.message_type);
                if types.is_empty() {
                    self.by_tenant.remove(tenant);
                }
            }
        }
    }

    /// The number of routes.
    fn len(&self) -> usize {
        self.routes.len() - self.free.len()
    }

    /// Forgets the routes that were not used for longest, up to a half of all, if there are many. Those with an
    /// instance, or with messages in the slow lane, stay.
    pub(super) fn forget_if_many(&mut self) {
        if self.len() >= CACHED_ROUTES_MAX {
            self.forget();
        }
    }

    fn forget(&mut self) {
        let mut used: Vec<u64> = self.routes.iter().flatten().map(|known| known.last_used).collect();
        let middle = used.len() / 2;
        let (_, &mut newest_gone, _) = used.select_nth_unstable(middle);
        for place in 0..self.routes.len() {
            let goes = self.routes[place]
                .as_ref()
                .is_some_and(|known| known.last_used <= newest_gone && known.is_forgettable());
            if goes {
                self.remove(place);
            }
        }
    }
}

/// The standing of a route's owner: of a tenant at a decoder of `_default` its own, else the version's.
fn standing(
    host: &DecodeHost,
    owner: &RouteOwner,
    message_type: &Arc<str>,
    route: &Route,
    folder: RouteFolder,
) -> Arc<Standing> {
    match (owner, folder) {
        (RouteOwner::Tenant(tenant), RouteFolder::Default) => {
            host.standings().get(tenant, message_type, &route.version.id)
        }
        _ => route.version.standing.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::DecodeSettings;
    use tidegate_core::line_protocol::Dialect;

    fn known() -> KnownRoutes {
        let settings = DecodeSettings {
            threads: 1,
            deadline_ms: 1,
            memory_bytes_max: 1 << 16,
            component_bytes_max: 1,
            dialect: Dialect::V3,
            large: None,
        };
        KnownRoutes::new(Arc::new(DecodeHost::new(settings, Arc::default()).unwrap()))
    }

    #[test]
    fn types_without_a_decoder_are_not_remembered() {
        let mut known = known();
        for number in 0..1_000 {
            assert!(known.find(&"acme".into(), &format!("type-{number}"), |_| {}).is_none());
        }
        assert!(known.by_tenant.is_empty() && known.by_tenant.capacity() == 0 && known.routes.is_empty());
    }
}
