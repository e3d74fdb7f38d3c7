//! The settings of decoding, from the gateway's configuration, and the ceilings that follow from them.

use std::collections::BTreeSet;

use crate::limits::LARGE_TRIAL_INSTANCES;
use crate::sandbox::class::GuestClass;
use tidegate_core::line_protocol::Dialect;
use tidegate_core::route_key::RouteKey;

/// The bounds of every guest; a route file may only lower it, and only the operator grants more.
#[derive(Clone, Debug, PartialEq)]
pub struct DecodeSettings {
    /// OS threads; at least 1.
    pub threads: usize,
    /// CPU time a message, in milliseconds.
    pub deadline_ms: u64,
    /// Linear memory of one instance, in bytes.
    pub memory_bytes_max: u64,
    /// The largest component, in bytes.
    pub component_bytes_max: u64,
    /// The line protocol of the database.
    pub dialect: Dialect,
    /// The operator's grants beyond that; None: nothing to nobody.
    pub large: Option<LargeClassSettings>,
}

/// The operator's grants to guests of the class large.
#[derive(Clone, Debug, PartialEq)]
pub struct LargeClassSettings {
    /// The places in the guests folder whose guests may be large.
    pub routes: BTreeSet<RouteKey>,
    pub deadline_ms: u64,
    pub memory_bytes_max: u64,
    pub component_bytes_max: u64,
    /// At once, of all threads; more than `LARGE_TRIAL_INSTANCES`.
    pub instances_max: usize,
}

impl LargeClassSettings {
    /// The number of the slow lane's threads that decode for them: each can keep an instance at least, so that
    /// they need not take one from another.
    pub fn threads(&self, slow: usize) -> usize {
        slow.min(self.serving()).max(1)
    }

    /// The number of instances that one of those threads may keep.
    pub fn instances_a_thread(&self, slow: usize) -> usize {
        (self.serving() / self.threads(slow)).max(1)
    }

    fn serving(&self) -> usize {
        self.instances_max.saturating_sub(LARGE_TRIAL_INSTANCES)
    }
}

/// The bounds of a guest at one place; its route file may lower it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassLimits {
    pub class: GuestClass,
    pub deadline_ms: u64,
    pub memory_bytes_max: u64,
    pub component_bytes_max: u64,
}

impl DecodeSettings {
    /// The ceilings of a class. Those of the large one are the normal ones where nobody has it.
    pub fn ceilings(&self, class: GuestClass) -> ClassLimits {
        match (&self.large, class) {
            (Some(large), GuestClass::Large) => ClassLimits {
                class,
                deadline_ms: large.deadline_ms,
                memory_bytes_max: large.memory_bytes_max,
                component_bytes_max: large.component_bytes_max,
            },
            _ => ClassLimits {
                class: GuestClass::Normal,
                deadline_ms: self.deadline_ms,
                memory_bytes_max: self.memory_bytes_max,
                component_bytes_max: self.component_bytes_max,
            },
        }
    }

    /// The class that the operator grants to a place.
    pub fn granted(&self, route_key: &RouteKey) -> GuestClass {
        match &self.large {
            Some(large) if large.routes.contains(route_key) => GuestClass::Large,
            _ => GuestClass::Normal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::LARGE_TRIAL_INSTANCES;
    use std::collections::BTreeSet;

    #[test]
    fn threads_and_what_they_keep_never_pass_the_instances_that_there_are() {
        for instances_max in LARGE_TRIAL_INSTANCES + 1..40 {
            for slow in 1..70 {
                let large = LargeClassSettings {
                    routes: BTreeSet::new(),
                    deadline_ms: 1,
                    memory_bytes_max: 1,
                    component_bytes_max: 1,
                    instances_max,
                };
                let kept = large.threads(slow) * large.instances_a_thread(slow);
                assert!(kept + LARGE_TRIAL_INSTANCES <= instances_max, "{instances_max} {slow}");
            }
        }
    }
}
