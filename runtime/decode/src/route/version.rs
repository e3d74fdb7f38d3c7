//! A version of a route, and the route that it serves.

use std::sync::Arc;

use crate::route::rules::{Isolation, RouteRules};
use crate::route::stats::RouteActivity;
use crate::sandbox::class::GuestClass;
use crate::sandbox::guest::Guest;
use crate::schedule::standing::{Standing, UsualCost};

/// A guest with the rules of its place in the folder.
#[derive(Debug)]
pub struct RouteVersion {
    pub guest: Arc<Guest>,
    pub rules: RouteRules,
    /// The digest of the component, with that of the route's file where there is one.
    pub id: String,
    pub activity: Arc<RouteActivity>,
    /// The standing of the route's tenant; of a route of `_default`, the average of all tenants.
    pub standing: Arc<Standing>,
    /// The usual cost of calls with messages of many tenants.
    pub usual: UsualCost,
}

impl RouteVersion {
    pub fn new(guest: Arc<Guest>, rules: RouteRules, id: String, activity: Arc<RouteActivity>) -> Arc<Self> {
        let (standing, usual) = Default::default();
        Arc::new(Self { guest, rules, id, activity, standing, usual })
    }

    /// True if one instance a thread decodes for all tenants.
    pub fn is_shared(&self) -> bool {
        self.rules.isolation == Isolation::Route
    }

    /// True if it is decoded on the slow lane: by its cost, or from the first message on.
    pub fn is_slow(&self) -> bool {
        self.rules.class == GuestClass::Large || self.standing.cost.is_slow()
    }

    /// The same guest and rules for a trial: its counts are apart, and it logs nothing.
    pub fn for_trial(&self) -> Arc<Self> {
        Self::new(self.guest.clone(), self.rules.clone(), self.id.clone(), RouteActivity::of_trial())
    }
}
