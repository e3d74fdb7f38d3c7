//! What a route is, and the table that finds the one for a message.
//!
//! Looked up in this order: `tenant/type`, `tenant/_any`, `_default/type`, `_default/_any`.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::guest::Guest;
use super::guest_log::GuestLog;
use super::history::Place;
use super::large::Class;
use super::probation::Probation;
use super::recent::Recent;
use super::route_file::RouteRules;
use super::slow::Pace;
use crate::domain::guest_path::file_name;
use crate::domain::reason::Reason;

/// What a route has done.
#[derive(Debug, Default)]
pub struct RouteStats {
    pub messages: AtomicU64,
    cpu_ns: AtomicU64,
    failures: [AtomicU64; 5],
}

/// The kinds of failures that are counted, with the reasons they stand for.
pub const FAILURES: [(Reason, &str); 5] = [
    (Reason::GuestRefused, "refused"),
    (Reason::GuestTrap, "trap"),
    (Reason::GuestDeadline, "deadline"),
    (Reason::GuestMemory, "memory"),
    (Reason::GuestOutput, "output"),
];

impl RouteStats {
    pub fn note_messages(&self, messages: u64) {
        self.messages.fetch_add(messages, Ordering::Relaxed);
    }

    pub fn note_cpu(&self, cpu: Duration) {
        self.cpu_ns.fetch_add(cpu.as_nanos() as u64, Ordering::Relaxed);
    }

    pub fn note_failure(&self, reason: Reason) {
        if let Some(place) = FAILURES.iter().position(|(known, _)| *known == reason) {
            self.failures[place].fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn cpu(&self) -> Duration {
        Duration::from_nanos(self.cpu_ns.load(Ordering::Relaxed))
    }

    /// (kind, messages) of those that failed.
    pub fn failures(&self) -> impl Iterator<Item = (&'static str, u64)> {
        FAILURES.iter().zip(&self.failures).map(|((_, kind), count)| (*kind, count.load(Ordering::Relaxed)))
    }
}

/// What all versions of a route share.
#[derive(Debug, Default)]
pub struct RouteState {
    pub stats: RouteStats,
    /// The last messages, for trying out the next version.
    pub recent: Mutex<Recent>,
    pub log: GuestLog,
}

impl RouteState {
    /// Of a trial: nothing that it does is seen.
    pub fn of_trial() -> Arc<Self> {
        Arc::new(Self { log: GuestLog::silent(), ..Self::default() })
    }
}

/// A version of a guest at its place in the folder, with the rules of that place.
#[derive(Debug)]
pub struct Route {
    pub guest: Arc<Guest>,
    pub rules: RouteRules,
    /// The digest of the component, with that of the route's file where there is one.
    pub version: String,
    pub state: Arc<RouteState>,
    pub pace: Pace,
    pub probation: Option<Probation>,
}

impl Route {
    /// Whether it is decoded on the slow lane: by its pace, or from the first message on.
    pub fn is_slow(&self) -> bool {
        self.rules.class == Class::Large || self.pace.is_slow()
    }

    /// This version as something apart, to be tried out.
    pub fn for_trial(&self) -> Arc<Self> {
        Arc::new(Self {
            guest: self.guest.clone(),
            rules: self.rules.clone(),
            version: self.version.clone(),
            state: RouteState::of_trial(),
            pace: Pace::default(),
            probation: None,
        })
    }
}

/// The routes at one moment.
#[derive(Debug, Default)]
pub struct RoutingTable {
    routes: HashMap<Place, Arc<Route>>,
}

impl FromIterator<(Place, Arc<Route>)> for RoutingTable {
    fn from_iter<I: IntoIterator<Item = (Place, Arc<Route>)>>(routes: I) -> Self {
        Self { routes: routes.into_iter().collect() }
    }
}

impl RoutingTable {
    /// The route that decodes a message type of a tenant.
    pub fn route(&self, tenant: &str, message_type: &str) -> Option<Arc<Route>> {
        let (tenant, message_type) = (file_name(tenant), file_name(message_type));
        let places = [
            (tenant.clone(), message_type.clone()),
            (tenant, ANY.to_owned()),
            (DEFAULT.to_owned(), message_type),
            (DEFAULT.to_owned(), ANY.to_owned()),
        ];
        // An empty name is no file's.
        places
            .iter()
            .filter(|(folder, stem)| !folder.is_empty() && !stem.is_empty())
            .find_map(|place| self.routes.get(place).cloned())
    }
}

pub const DEFAULT: &str = "_default";
pub const ANY: &str = "_any";
