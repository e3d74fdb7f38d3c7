//! The class large: guests beyond the ceilings that hold for everybody, as one that brings a whole
//! JavaScript engine.
//!
//! - The operator grants it, route by route, in the gateway's configuration. A route's file may only
//!   say that it needs it, or go without: a tenant could grant itself what its own file grants.
//! - Large guests have a sandbox of their own: an engine without the pool of instances (theirs would
//!   have to be as large as the largest guest, for all), a compiler with its own limits and turn, and
//!   a fixed number of slots for instances, each counted at the most that it may grow to. So all of them
//!   together never take more than `instances_max` times `memory_bytes_max`.
//! - Their messages are decoded on the threads of the slow lane from the first one on, and
//!   so delay no others.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde::{Deserialize, Serialize};

use crate::limits::{GUEST_TABLE_ELEMENTS_MAX, LARGE_TABLE_ELEMENTS_MAX};
use tidegate_core::route_key::RouteKey;

/// The class of a route's guests, and so their ceilings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GuestClass {
    #[default]
    Normal,
    Large,
}

impl GuestClass {
    pub fn table_elements_max(self) -> usize {
        match self {
            Self::Normal => GUEST_TABLE_ELEMENTS_MAX,
            Self::Large => LARGE_TABLE_ELEMENTS_MAX,
        }
    }
}

/// The line of the configuration that grants the class to a place.
pub fn grant((tenant, stem): &RouteKey) -> String {
    format!("guests.large.routes = [\"{tenant}/{stem}\"]")
}

/// InstanceSlots for instances: a bound on those that are there at once.
#[derive(Debug)]
pub struct InstanceSlots {
    taken: AtomicUsize,
    most: usize,
    /// Somebody was refused one.
    wanted: AtomicBool,
}

impl InstanceSlots {
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { taken: AtomicUsize::new(0), most, wanted: AtomicBool::new(false) })
    }

    /// A slot, if one is free.
    pub fn take(self: &Arc<Self>) -> Option<InstanceSlot> {
        let more = |taken: usize| (taken < self.most).then_some(taken + 1);
        if self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_err() {
            self.wanted.store(true, Ordering::Release);
            return None;
        }
        Some(InstanceSlot(self.clone()))
    }

    /// True if a slot was refused since this was last asked: a thread that keeps an idle instance gives
    /// it back.
    pub fn are_wanted(&self) -> bool {
        self.wanted.load(Ordering::Acquire) && self.wanted.swap(false, Ordering::AcqRel)
    }

    pub fn most(&self) -> usize {
        self.most
    }
}

/// The slot of one instance; free again when this is dropped.
pub struct InstanceSlot(Arc<InstanceSlots>);

impl fmt::Debug for InstanceSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InstanceSlot")
    }
}

impl Drop for InstanceSlot {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_never_more_instances_than_places_and_each_comes_free_again() {
        let slots = InstanceSlots::new(2);
        let first = slots.take().unwrap();
        let _second = slots.take().unwrap();
        assert!(!slots.are_wanted());
        assert!(slots.take().is_none());
        assert!(slots.are_wanted() && !slots.are_wanted());
        drop(first);
        assert!(slots.take().is_some());
    }
}
