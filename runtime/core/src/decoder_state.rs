//! State of decoders between messages: small values for each tenant, message type and partition. Pure.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::ack::token::AckToken;
use crate::books::Outcome;
use crate::ids::TenantId;

/// The owner of values: a tenant with one message type.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StateScope {
    pub tenant: TenantId,
    pub message_type: Arc<str>,
}

/// A value that was set, or, without one, removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateWrite {
    pub partition: Arc<str>,
    pub key: Box<str>,
    pub value: Option<Box<[u8]>>,
}

/// The changes of state by a batch, for a route that keeps state. They become durable together with its
/// lines, or not at all.
#[derive(Debug)]
pub struct StateDelta {
    pub message_type: Arc<str>,
    /// In the order in which they are to be applied.
    pub writes: Vec<StateWrite>,
    /// Messages without lines. They are settled once the writes are durable, together with all earlier
    /// batches of their tenant.
    pub messages: Vec<(AckToken, Outcome)>,
}

impl StateDelta {
    pub fn new(message_type: Arc<str>) -> Self {
        Self { message_type, writes: Vec::new(), messages: Vec::new() }
    }
}

/// Overhead of the tables around values: bytes of a value beside itself and its key, and of a partition
/// beside its name.
const VALUE_OVERHEAD_BYTES: u64 = 64;

const PARTITION_OVERHEAD_BYTES: u64 = 128;

/// Bytes that a value counts as.
pub fn value_bytes(key: &str, value: &[u8]) -> u64 {
    (key.len() + value.len()) as u64 + VALUE_OVERHEAD_BYTES
}

/// Bytes that a partition counts as, beside its values.
pub fn partition_bytes(partition: &str) -> u64 {
    partition.len() as u64 + PARTITION_OVERHEAD_BYTES
}

/// Bytes of a partition's table in memory beside those that it counts as: it has places for eleven values
/// at once.
const PARTITION_TABLE_BYTES: u64 = 352;

/// Bytes in memory by which a new partition is more than its values, beside its name.
pub fn partition_memory_bytes(partition: &str) -> u64 {
    partition_bytes(partition) + PARTITION_TABLE_BYTES
}

/// The values of one partition.
pub type Values = BTreeMap<Box<str>, Box<[u8]>>;

/// The values of one scope.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteValues {
    partitions: HashMap<Arc<str>, Values, foldhash::fast::RandomState>,
    bytes: u64,
}

impl RouteValues {
    pub fn get(&self, partition: &str, key: &str) -> Option<&[u8]> {
        self.partitions.get(partition)?.get(key).map(|value| &**value)
    }

    pub fn partition(&self, partition: &str) -> Option<&Values> {
        self.partitions.get(partition)
    }

    pub fn partitions(&self) -> impl ExactSizeIterator<Item = (&Arc<str>, &Values)> {
        self.partitions.iter()
    }

    /// The bytes that it counts as against the bounds.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The bytes that it takes in memory.
    pub fn memory_bytes(&self) -> u64 {
        self.bytes + self.partitions.len() as u64 * PARTITION_TABLE_BYTES
    }

    pub fn is_empty(&self) -> bool {
        self.partitions.is_empty()
    }

    /// Applies a write; an empty partition is removed.
    pub fn apply(&mut self, write: StateWrite) {
        let StateWrite { partition, key, value } = write;
        let Some(value) = value else {
            let Some(values) = self.partitions.get_mut(&partition) else { return };
            if let Some(gone) = values.remove(&key) {
                self.bytes -= value_bytes(&key, &gone);
            }
            if values.is_empty() {
                self.partitions.remove(&partition);
                self.bytes -= partition_bytes(&partition);
            }
            return;
        };
        self.bytes += value_bytes(&key, &value);
        let values = match self.partitions.get_mut(&partition) {
            Some(values) => values,
            None => {
                self.bytes += partition_bytes(&partition);
                self.partitions.entry(partition).or_default()
            }
        };
        match values.get_mut(&key) {
            Some(place) => {
                let gone = std::mem::replace(place, value);
                self.bytes -= value_bytes(&key, &gone);
            }
            None => drop(values.insert(key, value)),
        }
    }
}

/// All values. Cheap to clone: unchanged scopes are shared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateSnapshot {
    routes: BTreeMap<StateScope, Arc<RouteValues>>,
}

impl StateSnapshot {
    pub fn routes(&self) -> impl ExactSizeIterator<Item = (&StateScope, &Arc<RouteValues>)> {
        self.routes.iter()
    }

    pub fn route(&self, scope: &StateScope) -> Option<&Arc<RouteValues>> {
        self.routes.get(scope)
    }

    pub fn apply(&mut self, scope: &StateScope, writes: impl IntoIterator<Item = StateWrite>) {
        let values = match self.routes.get_mut(scope) {
            Some(values) => values,
            None => self.routes.entry(scope.clone()).or_default(),
        };
        let values = Arc::make_mut(values);
        writes.into_iter().for_each(|write| values.apply(write));
        if values.is_empty() {
            self.routes.remove(scope);
        }
    }

    /// The bytes that it counts as against the bounds.
    pub fn bytes(&self) -> u64 {
        self.routes.values().map(|values| values.bytes()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn it_counts_what_it_holds_and_nothing_is_left_of_what_was_removed(
            writes in proptest::collection::vec((0u8..3, 0u8..4, proptest::option::of(0usize..20)), 0..60)
        ) {
            let scope = StateScope { tenant: "acme".into(), message_type: "meter".into() };
            let (mut image, mut model) = (StateSnapshot::default(), BTreeMap::new());
            for (partition, key, len) in writes {
                let (partition, key) = (format!("p{partition}"), format!("k{key}"));
                let value = len.map(|len| vec![7; len].into_boxed_slice());
                match &value {
                    Some(value) => drop(model.insert((partition.clone(), key.clone()), value.clone())),
                    None => drop(model.remove(&(partition.clone(), key.clone()))),
                }
                let before = image.clone();
                image.apply(&scope, [StateWrite { partition: partition.as_str().into(), key: key.into(), value }]);
                // A clone stays as it was.
                prop_assert!(before.bytes() == before.clone().bytes());
            }
            let mut partitions: Vec<&String> = model.keys().map(|(partition, _)| partition).collect();
            partitions.dedup();
            let bytes = partitions.iter().map(|name| partition_bytes(name)).sum::<u64>()
                + model.iter().map(|((_, key), value)| value_bytes(key, value)).sum::<u64>();
            prop_assert_eq!(image.bytes(), bytes);
            prop_assert_eq!(image.route(&scope).is_none(), model.is_empty());
            for ((partition, key), value) in &model {
                prop_assert_eq!(image.route(&scope).unwrap().get(partition, key), Some(&**value));
            }
        }
    }
}
