//! A component that somebody puts, and the outcome of it.

use std::fmt;

use serde::Serialize;

use crate::comparison::Comparison;
use crate::error::RolloutError;
use tidegate_core::route_key::RouteKey;

/// The one who puts a component.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PutAuthor {
    Operator,
    /// A tenant with its own token, under which limits hold.
    Tenant(String),
}

impl fmt::Display for PutAuthor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operator => f.write_str("operator"),
            Self::Tenant(tenant) => write!(f, "tenant {tenant}"),
        }
    }
}

/// A component for a place in the guests folder.
#[derive(Clone, Debug)]
pub struct PutRequest {
    pub route_key: RouteKey,
    pub component: Vec<u8>,
    /// Cases that take the place of those beside the component. None: those stay.
    pub cases: Option<String>,
    pub author: PutAuthor,
    /// Refuses a version that decodes a remembered message differently.
    pub expect_same: bool,
}

impl PutRequest {
    /// A component alone.
    pub fn new(route_key: RouteKey, component: Vec<u8>, author: PutAuthor) -> Self {
        Self { route_key, component, cases: None, author, expect_same: false }
    }
}

/// The outcome for a component that was put in place.
#[derive(Clone, Debug, Serialize)]
pub struct PutResult {
    pub guest: String,
    pub digest: String,
    /// `serving`, or `unchanged`: it served already.
    pub state: &'static str,
    /// The trial run on remembered messages, where another version served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
}

/// Called with the outcome for a component.
pub type PutReply = Box<dyn FnOnce(Result<PutResult, RolloutError>) + Send>;
