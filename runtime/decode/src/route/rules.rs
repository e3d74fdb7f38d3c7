//! The rules of a route, made of its file and the gateway's settings. Pure.

use std::sync::Arc;
use std::time::Duration;

use crate::limits::PROBATION_MESSAGES_MIN;
use crate::sandbox::class::GuestClass;
use crate::state::partition::PartitionTemplate;

/// The options and limits of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteRules {
    pub options: Vec<(String, String)>,
    /// The class whose ceilings hold.
    pub class: GuestClass,
    pub deadline_ms: u64,
    pub memory_bytes_max: u64,
    pub component_bytes_max: u64,
    /// Bad lines are left out, and the rest of the message is kept.
    pub keep_rest: bool,
    pub isolation: Isolation,
    /// The decoder takes the object that a network server's codec made, and not the bytes of the device.
    pub prefers_object: bool,
    /// Names the values of its state that a message sees.
    pub partition: Arc<PartitionTemplate>,
    /// The trial and the watch of a new version.
    pub probation: ProbationRules,
}

/// The messages that meet one instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// Messages of one tenant.
    #[default]
    Instance,
    /// Messages of one batch: each has a fresh instance.
    Batch,
    /// Messages of all tenants of the route; only of a decoder in `_default`.
    Route,
}

/// The length of a probation, and the failures that a route allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbationRules {
    pub messages: u64,
    pub duration: Duration,
    /// Failures in a hundred messages that are allowed.
    pub failures_percent_max: u64,
}

impl ProbationRules {
    /// True if so many failures of so many messages are too many. A single stray one among the first
    /// is not, unless none is allowed.
    pub fn is_too_much(&self, failures: u64, messages: u64) -> bool {
        failures * 100 > self.failures_percent_max * messages.max(PROBATION_MESSAGES_MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const RULES: ProbationRules =
        ProbationRules { messages: 1_000, duration: Duration::from_secs(300), failures_percent_max: 5 };

    #[test]
    fn a_stray_failure_among_the_first_is_not_too_much() {
        assert!(!RULES.is_too_much(1, 1));
        assert!(!RULES.is_too_much(2, 2));
        assert!(RULES.is_too_much(3, 3));
        assert!(!RULES.is_too_much(50, 1_000));
        assert!(RULES.is_too_much(51, 1_000));
    }

    #[test]
    fn where_none_is_allowed_the_first_failure_is_too_much() {
        let strict = ProbationRules { failures_percent_max: 0, ..RULES };
        assert!(!strict.is_too_much(0, 100));
        assert!(strict.is_too_much(1, 100));
    }
}
