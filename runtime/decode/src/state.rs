//! The values that guests keep, as they are seen by the next batch.
//!
//! - Decoding runs ahead of the disk: the next message sees at once the values that a message set. If
//!   they never become durable, neither do its lines, and the message comes again to the state before it.
//! - During a call writes are only collected. They are applied or dropped once the lines are checked.
//! - A copy reads missing values from its base and never writes there: trials change nothing.

pub mod partition;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::limits::{
    STATE_BYTES_MAX, STATE_COPIES, STATE_KEY_BYTES_MAX, STATE_KEYS_MAX, STATE_ROUTES_SWEPT_ABOVE,
    STATE_SCOPE_BYTES, STATE_TENANT_BYTES_MAX, STATE_VALUE_BYTES_MAX, STATE_WRITES_A_MESSAGE_MAX,
};
use crate::state::partition::PartitionTemplate;
use tidegate_core::decoder_state::{
    RouteValues, StateScope, StateSnapshot, StateWrite, partition_bytes, partition_memory_bytes, value_bytes,
};
use tidegate_core::ids::TenantId;
use tidegate_core::tenant::budget::{Budget, Charge};
use tidegate_core::tenant::budget_kind::{BudgetKind, Resource};
use tidegate_core::tenant::table::Tenants;

/// Bytes of all, and of how many tenants.
#[derive(Debug, Default)]
struct StateUsage {
    bytes: AtomicU64,
    tenants: AtomicU64,
}

/// Bytes of one tenant.
#[derive(Debug)]
struct TenantStateUsage {
    bytes: AtomicU64,
    total: Arc<StateUsage>,
    /// The bytes in memory, of all copies.
    memory: Mutex<Charge>,
}

impl TenantStateUsage {
    fn new(total: &Arc<StateUsage>, budget: &Budget) -> Arc<Self> {
        total.tenants.fetch_add(1, Ordering::Relaxed);
        let memory = Mutex::new(budget.empty(BudgetKind::State));
        Arc::new(Self { bytes: AtomicU64::new(0), total: total.clone(), memory })
    }

    /// True if it may grow by so much. Threads that ask at the same moment may both be let in: each is
    /// over by one batch at most.
    fn has_room(&self, more: u64, more_memory: u64) -> bool {
        if !self.memory.lock().budget().has_room(BudgetKind::State, more_memory) {
            return false;
        }
        let own = self.bytes.load(Ordering::Relaxed) + more;
        let all = self.total.bytes.load(Ordering::Relaxed) + more;
        let wide = STATE_BYTES_MAX / 4 * 3;
        let even = wide / self.total.tenants.load(Ordering::Relaxed).max(1);
        own <= STATE_TENANT_BYTES_MAX && all <= STATE_BYTES_MAX && (all <= wide || own <= even)
    }

    fn record(&self, before: StateSize, after: StateSize) {
        // Most writes replace a value by one of the same size.
        if before == after {
            return;
        }
        // Wraps around where it shrinks.
        let grown = after.bytes.wrapping_sub(before.bytes);
        self.bytes.fetch_add(grown, Ordering::Relaxed);
        self.total.bytes.fetch_add(grown, Ordering::Relaxed);
        let mut memory = self.memory.lock();
        match after.memory.checked_sub(before.memory) {
            Some(more) => memory.grow(more),
            None => memory.shrink(before.memory - after.memory),
        }
    }
}

impl Drop for TenantStateUsage {
    fn drop(&mut self) {
        self.total.tenants.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The size of a message type's values: the bytes that they count as, and those in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct StateSize {
    bytes: u64,
    memory: u64,
}

#[derive(Debug, Default)]
struct PartitionState {
    values: RouteValues,
    /// Partitions that a copy has taken from its base.
    copied: HashSet<Arc<str>>,
}

/// The values of one tenant's message type.
#[derive(Debug)]
pub struct RouteStateView {
    pub scope: StateScope,
    usage: Arc<TenantStateUsage>,
    base: Option<Arc<StateStore>>,
    partitions: Mutex<PartitionState>,
}

impl RouteStateView {
    /// Bytes in memory of a message type that has values, beside the values.
    fn scope_bytes(&self) -> u64 {
        STATE_SCOPE_BYTES + self.scope.message_type.len() as u64
    }

    fn size(&self, values: &RouteValues) -> StateSize {
        let scope = if values.is_empty() { 0 } else { self.scope_bytes() };
        StateSize { bytes: values.bytes(), memory: (values.memory_bytes() + scope) * STATE_COPIES }
    }

    /// Passes the values to `use_state`; a copy takes those of `partition` from its base first.
    fn with<T>(&self, partition: &Arc<str>, use_state: impl FnOnce(&mut PartitionState) -> T) -> T {
        let mut partitions = self.partitions.lock();
        if let Some(base) = &self.base
            && !partitions.copied.contains(partition)
        {
            partitions.copied.insert(partition.clone());
            for write in base.values(&self.scope, partition) {
                partitions.values.apply(write);
            }
        }
        use_state(&mut partitions)
    }

    fn get(&self, partition: &Arc<str>, key: &str) -> Option<Vec<u8>> {
        self.with(partition, |partitions| partitions.values.get(partition, key).map(<[u8]>::to_vec))
    }

    /// True if a partition has a value of this key.
    pub fn has(&self, partition: &Arc<str>, key: &str) -> bool {
        self.with(partition, |partitions| partitions.values.get(partition, key).is_some())
    }

    /// Applies a write, so that the next message sees it.
    pub fn apply(&self, write: StateWrite) {
        self.with(&write.partition.clone(), |partitions| {
            let before = self.size(&partitions.values);
            partitions.values.apply(write);
            self.usage.record(before, self.size(&partitions.values));
        });
    }
}

/// The values of all scopes, or a copy of them.
#[derive(Debug, Default)]
pub struct StateStore {
    base: Option<Arc<StateStore>>,
    /// The tenants whose budgets are charged; `None`: there are no bounds.
    tenants: Option<Arc<Tenants>>,
    route_states: Mutex<HashMap<StateScope, Arc<RouteStateView>>>,
    usages: Mutex<HashMap<TenantId, Arc<TenantStateUsage>>>,
    total: Arc<StateUsage>,
    /// Message types at which those without values are dropped.
    sweep_at: AtomicUsize,
    skipped: AtomicU64,
}

impl StateStore {
    /// A store of the values that the disk had, charged to their tenants.
    pub fn from_snapshot(snapshot: &StateSnapshot, tenants: Arc<Tenants>) -> Arc<Self> {
        let store = Arc::new(Self { tenants: Some(tenants), ..Self::default() });
        store.fill(snapshot);
        store
    }

    /// Takes the values that are on disk, before anything is decoded.
    pub fn fill(&self, snapshot: &StateSnapshot) {
        for (scope, values) in snapshot.routes() {
            let route_state = self.route_state(&scope.tenant, &scope.message_type);
            route_state.usage.record(StateSize::default(), route_state.size(values));
            route_state.partitions.lock().values = RouteValues::clone(values);
        }
    }

    /// A copy that changes nothing but itself. It has each partition as it is at the first use.
    pub fn copy(self: &Arc<Self>) -> Arc<Self> {
        Arc::new(Self { base: Some(self.clone()), ..Self::default() })
    }

    /// The values of a tenant's message type.
    pub fn route_state(&self, tenant: &TenantId, message_type: &str) -> Arc<RouteStateView> {
        let scope = StateScope { tenant: tenant.clone(), message_type: message_type.into() };
        let mut route_states = self.route_states.lock();
        if let Some(route_state) = route_states.get(&scope) {
            return route_state.clone();
        }
        let mut usages = self.usages.lock();
        // Publishers choose the types' names, so those without values are dropped, once they may be many.
        if route_states.len() >= self.sweep_at.load(Ordering::Relaxed).max(STATE_ROUTES_SWEPT_ABOVE) {
            route_states.retain(|_, route_state| {
                Arc::strong_count(route_state) > 1 || !route_state.partitions.lock().values.is_empty()
            });
            usages.retain(|_, usage| Arc::strong_count(usage) > 1);
            self.sweep_at.store(2 * route_states.len(), Ordering::Relaxed);
        }
        let usage = {
            let new = || TenantStateUsage::new(&self.total, &self.budget(tenant));
            usages.entry(tenant.clone()).or_insert_with(new).clone()
        };
        let base = self.base.clone();
        let route_state =
            Arc::new(RouteStateView { scope: scope.clone(), usage, base, partitions: Mutex::default() });
        route_states.insert(scope, route_state.clone());
        route_state
    }

    fn budget(&self, tenant: &TenantId) -> Budget {
        match &self.tenants {
            Some(tenants) => tenants.budgets_of(tenant.as_str()).memory,
            None => Budget::unlimited(Resource::Memory),
        }
    }

    /// The values that a copy takes of a partition.
    fn values(&self, scope: &StateScope, partition: &Arc<str>) -> Vec<StateWrite> {
        let route_state = self.route_states.lock().get(scope).cloned();
        let writes = |partitions: &mut PartitionState| {
            let values = partitions.values.partition(partition).into_iter().flatten();
            let writes = values.map(|(key, value)| StateWrite {
                partition: partition.clone(),
                key: key.clone(),
                value: Some(value.clone()),
            });
            writes.collect()
        };
        match (route_state, &self.base) {
            (Some(route_state), _) => route_state.with(partition, writes),
            (None, Some(base)) => base.values(scope, partition),
            (None, None) => Vec::new(),
        }
    }

    /// A message that came again is not decoded again.
    pub fn record_skipped(&self) {
        self.skipped.fetch_add(1, Ordering::Relaxed);
    }

    pub fn skipped(&self) -> u64 {
        self.skipped.load(Ordering::Relaxed)
    }

    /// Bytes that all values count as.
    pub fn bytes(&self) -> u64 {
        self.total.bytes.load(Ordering::Relaxed)
    }
}

/// The reason why a value is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateError {
    BadKey,
    ValueTooLarge,
    TooManyKeys,
    NoRoom,
}

/// A write for one message of the batch at hand.
#[derive(Debug)]
struct PendingWrite {
    message: u32,
    write: StateWrite,
}

/// A partition that the call has to do with.
#[derive(Debug)]
struct TouchedPartition {
    name: Arc<str>,
    /// The last write of each key, as its index in `pending`.
    latest: HashMap<Box<str>, usize, foldhash::fast::RandomState>,
    /// The number of its keys, pending ones included; read once.
    keys: Option<usize>,
}

/// One guest's view of its state, during a call.
#[derive(Debug)]
pub struct StateCall {
    pub route_state: Arc<RouteStateView>,
    template: Arc<PartitionTemplate>,
    touched: Vec<TouchedPartition>,
    /// The index in `touched` of each message's partition.
    partitions: HashMap<u32, usize, foldhash::fast::RandomState>,
    /// The number of keys that were set for each message.
    counts: HashMap<u32, usize, foldhash::fast::RandomState>,
    pending: Vec<PendingWrite>,
    /// Bytes by which the pending writes would grow the route's state, and in memory those beside them.
    grown: i64,
    tables: u64,
}

impl StateCall {
    pub fn new(route_state: Arc<RouteStateView>, template: Arc<PartitionTemplate>) -> Self {
        Self {
            route_state,
            template,
            touched: Vec::new(),
            partitions: HashMap::default(),
            counts: HashMap::default(),
            pending: Vec::new(),
            grown: 0,
            tables: 0,
        }
    }

    /// Begins a call: forgets all pending writes.
    pub fn begin(&mut self) {
        self.touched.clear();
        self.partitions.clear();
        self.counts.clear();
        self.pending.clear();
        (self.grown, self.tables) = (0, 0);
    }

    fn partition(&mut self, message: u32, device: &str, topic: &str) -> usize {
        if let Some(place) = self.partitions.get(&message) {
            return *place;
        }
        let name = self.template.partition(device, &self.route_state.scope.message_type, topic);
        let known = self.touched.iter().position(|touched| *touched.name == *name);
        let place = known.unwrap_or_else(|| {
            let name = name.into();
            self.touched.push(TouchedPartition { name, latest: HashMap::default(), keys: None });
            self.touched.len() - 1
        });
        self.partitions.insert(message, place);
        place
    }

    pub fn get(&mut self, message: u32, device: &str, topic: &str, key: &str) -> Option<Vec<u8>> {
        let partition = self.partition(message, device, topic);
        let touched = &self.touched[partition];
        match touched.latest.get(key) {
            Some(&index) => self.pending[index].write.value.as_ref().map(|value| value.to_vec()),
            None => self.route_state.get(&touched.name, key),
        }
    }

    /// Notes a value, if it is within the limits.
    ///
    /// # Errors
    /// It is over a limit; the write is dropped.
    pub fn set(
        &mut self,
        message: u32,
        device: &str,
        topic: &str,
        key: String,
        value: Option<Vec<u8>>,
    ) -> Result<(), StateError> {
        if !(1..=STATE_KEY_BYTES_MAX).contains(&key.len()) {
            return Err(StateError::BadKey);
        }
        if value.as_ref().is_some_and(|value| value.len() > STATE_VALUE_BYTES_MAX) {
            return Err(StateError::ValueTooLarge);
        }
        let partition = self.partition(message, device, topic);
        let touched = &mut self.touched[partition];
        let name = &touched.name;
        let earlier = touched.latest.get(&*key).copied();
        let again = earlier.filter(|&index| self.pending[index].message == message);
        let count = self.counts.entry(message).or_default();
        if again.is_none() && *count >= STATE_WRITES_A_MESSAGE_MAX {
            return Err(StateError::TooManyKeys);
        }
        let there = |partitions: &mut PartitionState| {
            let values = partitions.values.partition(name);
            let len = values.and_then(|values| values.get(&*key)).map(|value| value.len());
            (len, values.map_or(0, |values| values.len()), partitions.values.is_empty())
        };
        let (len_there, keys_there, is_empty) = self.route_state.with(name, there);
        let before = match earlier {
            Some(index) => self.pending[index].write.value.as_ref().map(|value| value.len()),
            None => len_there,
        };
        let keys = touched.keys.get_or_insert(keys_there);
        let size = |len: usize| value_bytes(&key, &[]) as i64 + len as i64;
        let mut grown = value.as_ref().map_or(0, |value| size(value.len())) - before.map_or(0, size);
        let is_new = value.is_some() && before.is_none();
        if is_new && *keys >= STATE_KEYS_MAX {
            return Err(StateError::TooManyKeys);
        }
        let mut tables = 0;
        if is_new && *keys == 0 {
            grown += partition_bytes(name) as i64;
            tables = partition_memory_bytes(name) - partition_bytes(name);
            if is_empty && self.tables == 0 {
                tables += self.route_state.scope_bytes();
            }
        }
        let bytes = (self.grown + grown).max(0) as u64;
        if grown > 0 && !self.route_state.usage.has_room(bytes, (bytes + self.tables + tables) * STATE_COPIES)
        {
            return Err(StateError::NoRoom);
        }
        self.grown += grown;
        self.tables += tables;
        *keys = *keys + usize::from(is_new) - usize::from(value.is_none() && before.is_some());
        let (key, value) = (key.into_boxed_str(), value.map(Vec::into_boxed_slice));
        match again {
            Some(index) => self.pending[index].write.value = value,
            None => {
                *count += 1;
                touched.latest.insert(key.clone(), self.pending.len());
                self.pending.push(PendingWrite {
                    message,
                    write: StateWrite { partition: name.clone(), key, value },
                });
            }
        }
        Ok(())
    }

    /// Takes the pending writes: the changes of each message, in the order of the messages.
    pub fn take(&mut self) -> StateChanges {
        let mut pending = std::mem::take(&mut self.pending);
        pending.sort_by_key(|write| write.message);
        StateChanges { route_state: self.route_state.clone(), pending: pending.into_iter().peekable() }
    }
}

/// The changes of one call, message by message.
#[derive(Debug)]
pub struct StateChanges {
    pub route_state: Arc<RouteStateView>,
    pending: std::iter::Peekable<std::vec::IntoIter<PendingWrite>>,
}

impl StateChanges {
    /// The changes of a message; earlier messages' changes that were not taken are dropped.
    pub fn take(&mut self, message: u32) -> Vec<StateWrite> {
        while self.pending.next_if(|write| write.message < message).is_some() {}
        let own = std::iter::from_fn(|| self.pending.next_if(|write| write.message == message));
        own.map(|write| write.write).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{STATE_KEYS_MAX, STATE_TENANT_BYTES_MAX};
    use std::sync::Arc;

    fn call(store: &Arc<StateStore>, tenant: &str) -> StateCall {
        StateCall::new(store.route_state(&tenant.into(), "meter"), Arc::default())
    }

    fn set(
        call: &mut StateCall,
        message: u32,
        device: &str,
        key: &str,
        value: &[u8],
    ) -> Result<(), StateError> {
        call.set(message, device, "t", key.into(), Some(value.to_vec()))
    }

    /// All messages were good.
    fn commit(call: &mut StateCall, messages: u32) {
        let mut changes = call.take();
        for message in 0..messages {
            changes.take(message).into_iter().for_each(|write| changes.route_state.apply(write));
        }
        call.begin();
    }

    #[test]
    fn what_is_set_is_seen_at_once_and_kept_only_where_it_is_taken() {
        let store = Arc::new(StateStore::default());
        let mut own = call(&store, "acme");
        set(&mut own, 0, "d", "n", b"1").unwrap();
        set(&mut own, 1, "d", "n", b"2").unwrap();
        set(&mut own, 2, "e", "n", b"9").unwrap();
        assert_eq!(own.get(0, "d", "t", "n").as_deref(), Some(&b"2"[..]));
        assert_eq!(call(&store, "acme").get(0, "d", "t", "n"), None, "nothing is kept before the call's end");
        let mut changes = own.take();
        changes.take(0).into_iter().for_each(|write| changes.route_state.apply(write));
        // The others were refused.
        own.begin();
        assert_eq!(own.get(0, "d", "t", "n").as_deref(), Some(&b"1"[..]));
        assert_eq!(own.get(1, "e", "t", "n"), None);
        assert_eq!(call(&store, "globex").get(0, "d", "t", "n"), None);
    }

    #[test]
    fn a_copy_sees_its_base_and_changes_nothing_there() {
        let store = Arc::new(StateStore::default());
        let mut own = call(&store, "acme");
        set(&mut own, 0, "d", "n", b"1").unwrap();
        commit(&mut own, 1);
        let copy = store.copy();
        let mut other = call(&copy, "acme");
        assert_eq!(other.get(0, "d", "t", "n").as_deref(), Some(&b"1"[..]));
        other.set(0, "d", "t", "n".into(), None).unwrap();
        set(&mut other, 1, "e", "m", b"2").unwrap();
        commit(&mut other, 2);
        assert_eq!((other.get(0, "d", "t", "n"), other.get(1, "e", "t", "m").is_some()), (None, true));
        assert_eq!(own.get(0, "d", "t", "n").as_deref(), Some(&b"1"[..]));
        assert_eq!(own.get(1, "e", "t", "m"), None);
        // A copy of a copy sees the first copy's changes.
        assert_eq!(call(&copy.copy(), "acme").get(0, "d", "t", "n"), None);
    }

    #[test]
    fn keys_and_values_end_at_their_limits() {
        let store = Arc::new(StateStore::default());
        let mut own = call(&store, "acme");
        assert_eq!(set(&mut own, 0, "d", "", b""), Err(StateError::BadKey));
        assert_eq!(set(&mut own, 0, "d", &"k".repeat(65), b""), Err(StateError::BadKey));
        assert_eq!(set(&mut own, 0, "d", "k", &[0; 1_025]), Err(StateError::ValueTooLarge));
        for n in 0..STATE_KEYS_MAX {
            set(&mut own, 0, "d", &format!("k{n}"), b"x").unwrap();
        }
        assert_eq!(set(&mut own, 1, "d", "more", b"x"), Err(StateError::TooManyKeys));
        set(&mut own, 2, "e", "more", b"x").unwrap();
        own.set(1, "d", "t", "k3".into(), None).unwrap();
        set(&mut own, 1, "d", "more", b"x").unwrap();
        let mut changes = own.take();
        for message in 0..3 {
            changes.take(message).into_iter().for_each(|write| changes.route_state.apply(write));
        }
        own.begin();
        assert_eq!(set(&mut own, 0, "d", "k3", b"x"), Err(StateError::TooManyKeys));
        // One message cannot set and remove without end.
        let fault = (0..1_000).find_map(|n| {
            let key = format!("x{n}");
            set(&mut own, 3, "f", &key, b"x").and_then(|()| own.set(3, "f", "t", key, None)).err()
        });
        assert_eq!(fault, Some(StateError::TooManyKeys));
    }

    #[test]
    fn a_tenant_that_fills_its_share_leaves_the_others_theirs() {
        let store = Arc::new(StateStore::default());
        let mut greedy = call(&store, "greedy");
        let fault = (0..100_000).find_map(|n| {
            for key in 0..STATE_KEYS_MAX {
                if let Err(fault) = set(&mut greedy, 0, &format!("d{n}"), &format!("k{key}"), &[1; 1_000]) {
                    return Some(fault);
                }
            }
            commit(&mut greedy, 1);
            None
        });
        assert_eq!(fault, Some(StateError::NoRoom));
        assert!(store.bytes() <= STATE_TENANT_BYTES_MAX && store.bytes() > STATE_TENANT_BYTES_MAX / 10 * 9);
        set(&mut call(&store, "modest"), 0, "d", "k", b"x").unwrap();
        // Values that are there may still change and be removed, which makes room.
        greedy.begin();
        set(&mut greedy, 0, "d0", "k0", &[2; 1_000]).unwrap();
        greedy.set(0, "d0", "t", "k1".into(), None).unwrap();
        commit(&mut greedy, 1);
        set(&mut greedy, 0, "d0", "k1", &[1; 900]).unwrap();
    }
}
