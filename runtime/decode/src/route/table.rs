//! The routing table: it finds the route of a message.
//!
//! Looked up in this order: `tenant/type`, `tenant/_any`, `_default/type`, `_default/_any`.

use std::collections::HashMap;
use std::sync::Arc;

use crate::route::probation::Probation;
use crate::route::version::RouteVersion;
use tidegate_core::route_key::{ANY, DEFAULT, RouteKey, file_name};

/// The version that serves at a place in the folder, and its probation over the one before it.
#[derive(Clone, Debug)]
pub struct Route {
    pub version: Arc<RouteVersion>,
    pub probation: Option<Arc<Probation>>,
}

impl Route {
    /// A version that is not on probation.
    pub fn new(version: Arc<RouteVersion>) -> Self {
        Self { version, probation: None }
    }

    /// While the probation runs, the version that decodes the messages that this one fails on.
    pub fn fallback(&self) -> Option<Arc<RouteVersion>> {
        self.probation.as_ref()?.fallback()
    }

    /// The version that serves in this one's place, once its probation has failed.
    pub fn rolled_back_to(&self) -> Option<Arc<RouteVersion>> {
        self.probation.as_ref()?.rolled_back_to()
    }
}

/// The folder of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteFolder {
    /// The tenant's own.
    Own,
    /// `_default`.
    Default,
}

/// The routes at one moment.
#[derive(Debug, Default)]
pub struct RoutingTable {
    routes: HashMap<RouteKey, Route>,
    /// The reasons why files do not serve, for places at which nothing serves.
    idle: HashMap<RouteKey, IdleFile>,
}

/// A file at a place at which nothing serves, and the reason why it does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdleFile {
    pub file: String,
    pub why: String,
}

impl FromIterator<(RouteKey, Route)> for RoutingTable {
    fn from_iter<I: IntoIterator<Item = (RouteKey, Route)>>(routes: I) -> Self {
        Self { routes: routes.into_iter().collect(), idle: HashMap::new() }
    }
}

impl RoutingTable {
    /// The route that decodes a message type of a tenant.
    pub fn route(&self, tenant: &str, message_type: &str) -> Option<Route> {
        self.find(tenant, message_type).map(|(route, _)| route)
    }

    /// The route that decodes a message type of a tenant, and its folder.
    pub fn find(&self, tenant: &str, message_type: &str) -> Option<(Route, RouteFolder)> {
        places(tenant, message_type).iter().find_map(|key| {
            let folder = if key.0 == DEFAULT { RouteFolder::Default } else { RouteFolder::Own };
            Some((self.routes.get(key)?.clone(), folder))
        })
    }

    /// The place of the route that decodes a message type of a tenant.
    pub fn place(&self, tenant: &str, message_type: &str) -> Option<RouteKey> {
        places(tenant, message_type).into_iter().find(|place| self.routes.contains_key(place))
    }

    /// The route that decodes a message type of the tenants without a decoder of their own.
    pub fn find_of_all(&self, message_type: &str) -> Option<Route> {
        let stems = [file_name(message_type), ANY.to_owned()];
        stems.into_iter().find_map(|stem| self.routes.get(&(DEFAULT.to_owned(), stem)).cloned())
    }

    /// Adds the files that do not serve, and the reasons.
    pub fn with_idle(self, idle: impl IntoIterator<Item = (RouteKey, IdleFile)>) -> Self {
        Self { idle: idle.into_iter().collect(), ..self }
    }

    /// The first file at the places of a message type that does not serve, and the reason.
    pub fn idle_file(&self, tenant: &str, message_type: &str) -> Option<(String, &str)> {
        places(tenant, message_type).iter().find_map(|place| {
            let IdleFile { file, why } = self.idle.get(place)?;
            Some((format!("{}/{file}", place.0), &**why))
        })
    }
}

/// The places at which a message type is looked up, in order.
pub fn places(tenant: &str, message_type: &str) -> Vec<RouteKey> {
    let (tenant, message_type) = (file_name(tenant), file_name(message_type));
    let mut places = vec![
        (tenant.clone(), message_type.clone()),
        (tenant, ANY.to_owned()),
        (DEFAULT.to_owned(), message_type),
        (DEFAULT.to_owned(), ANY.to_owned()),
    ];
    // An empty name is no file's.
    places.retain(|(folder, stem)| !folder.is_empty() && !stem.is_empty());
    places
}
