//! The class large: guests beyond the ceilings that hold for everybody, as one that brings a whole
//! JavaScript engine.
//!
//! - The operator grants it, route by route, in the gateway's configuration. A route's file may only
//!   say that it needs it, or go without: what a tenant could write would be the tenant's to grant.
//! - Large guests have a sandbox of their own: an engine without the pool of instances (theirs would
//!   have to be as large as the largest guest, for all), a compiler with its own limits and turn, and
//!   places for so many instances, each counted at the most that it may grow to. So all of them
//!   together never take more than `instances_max` times `memory_bytes_max`.
//! - Their messages are decoded on the threads of the slow lane from the first one on: they stand
//!   before nobody else's.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde::{Deserialize, Serialize};

use super::DecodeSettings;
use super::compile::CompileLimits;
use super::history::Place;
use crate::domain::limits::{GUEST_TABLE_ELEMENTS_MAX, LARGE_TABLE_ELEMENTS_MAX, LARGE_TRIAL_INSTANCES};

/// Which ceilings hold for a route's guests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    #[default]
    Normal,
    Large,
}

impl Class {
    pub fn table_elements_max(self) -> usize {
        match self {
            Self::Normal => GUEST_TABLE_ELEMENTS_MAX,
            Self::Large => LARGE_TABLE_ELEMENTS_MAX,
        }
    }
}

/// What the operator grants to guests of the class large.
#[derive(Clone, Debug)]
pub struct LargeSettings {
    /// The places in the guests folder whose guests may be large.
    pub routes: BTreeSet<Place>,
    pub deadline_ms: u64,
    pub memory_bytes_max: u64,
    pub component_bytes_max: u64,
    /// At once, of all threads; more than `LARGE_TRIAL_INSTANCES`.
    pub instances_max: usize,
    pub compiling: CompileLimits,
}

impl LargeSettings {
    /// How many of the slow lane's threads decode for them: each can keep an instance at least, so that
    /// they need not take one from another.
    pub fn threads(&self, slow: usize) -> usize {
        slow.min(self.serving()).max(1)
    }

    /// How many instances one of those threads may keep.
    pub fn instances_a_thread(&self, slow: usize) -> usize {
        (self.serving() / self.threads(slow)).max(1)
    }

    fn serving(&self) -> usize {
        self.instances_max.saturating_sub(LARGE_TRIAL_INSTANCES)
    }
}

/// What a guest at one place may use at most; its route file may lower it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ceilings {
    pub class: Class,
    pub deadline_ms: u64,
    pub memory_bytes_max: u64,
    pub component_bytes_max: u64,
}

impl DecodeSettings {
    /// The ceilings of a class. Those of the large one are the normal ones where nobody has it.
    pub fn ceilings(&self, class: Class) -> Ceilings {
        match (&self.large, class) {
            (Some(large), Class::Large) => Ceilings {
                class,
                deadline_ms: large.deadline_ms,
                memory_bytes_max: large.memory_bytes_max,
                component_bytes_max: large.component_bytes_max,
            },
            _ => Ceilings {
                class: Class::Normal,
                deadline_ms: self.deadline_ms,
                memory_bytes_max: self.memory_bytes_max,
                component_bytes_max: self.component_bytes_max,
            },
        }
    }

    /// The class that the operator grants to a place.
    pub fn granted(&self, place: &Place) -> Class {
        match &self.large {
            Some(large) if large.routes.contains(place) => Class::Large,
            _ => Class::Normal,
        }
    }
}

/// What the operator writes to grant the class to a place.
pub fn grant((tenant, stem): &Place) -> String {
    format!("guests.large.routes = [\"{tenant}/{stem}\"]")
}

/// Places for instances: a bound on those that are there at once.
#[derive(Debug)]
pub struct Places {
    taken: AtomicUsize,
    most: usize,
    /// Somebody was refused one.
    wanted: AtomicBool,
}

impl Places {
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { taken: AtomicUsize::new(0), most, wanted: AtomicBool::new(false) })
    }

    /// A place, if one is free.
    pub fn take(self: &Arc<Self>) -> Option<TakenPlace> {
        let more = |taken: usize| (taken < self.most).then_some(taken + 1);
        if self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_err() {
            self.wanted.store(true, Ordering::Release);
            return None;
        }
        Some(TakenPlace(self.clone()))
    }

    /// Whether somebody was refused a place since this was last asked: whoever keeps an idle one gives
    /// it back.
    pub fn are_wanted(&self) -> bool {
        self.wanted.load(Ordering::Acquire) && self.wanted.swap(false, Ordering::AcqRel)
    }

    pub fn most(&self) -> usize {
        self.most
    }
}

/// An instance's place; free again when this is dropped.
pub struct TakenPlace(Arc<Places>);

impl fmt::Debug for TakenPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TakenPlace")
    }
}

impl Drop for TakenPlace {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_never_more_instances_than_places_and_each_comes_free_again() {
        let places = Places::new(2);
        let first = places.take().unwrap();
        let _second = places.take().unwrap();
        assert!(!places.are_wanted());
        assert!(places.take().is_none());
        assert!(places.are_wanted() && !places.are_wanted());
        drop(first);
        assert!(places.take().is_some());
    }

    #[test]
    fn threads_and_what_they_keep_never_pass_the_instances_that_there_are() {
        for instances_max in LARGE_TRIAL_INSTANCES + 1..40 {
            for slow in 1..70 {
                let large = LargeSettings {
                    routes: BTreeSet::new(),
                    deadline_ms: 1,
                    memory_bytes_max: 1,
                    component_bytes_max: 1,
                    instances_max,
                    compiling: CompileLimits::default(),
                };
                let kept = large.threads(slow) * large.instances_a_thread(slow);
                assert!(kept + LARGE_TRIAL_INSTANCES <= instances_max, "{instances_max} {slow}");
            }
        }
    }
}
