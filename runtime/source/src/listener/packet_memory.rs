//! The memory of unfinished packets: one pool for all connections, a share of it for each address and
//! each tenant.
//!
//! - A connection is charged for bytes that came and for the step that it reads next, never for the
//!   length that a packet announces. Its first `LISTENER_FIRST_READ_BYTES` are free.
//! - If a packet finds no room, the connection that holds most of the pool, or of the share that is
//!   full, ends with `CloseReason::Buffers`; that may be the one that asks. A small packet thus always
//!   finds room.
//! - A connection that holds alone in its share is bounded by the pool only: a share never refuses a
//!   packet that the limits allow.
//! - Loopback has no share of its own, as it has no other limit of an address: a proxy may stand there.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::limits::{LISTENER_BUFFER_ADDRESS_SHARE, LISTENER_BUFFER_BYTES_MAX, LISTENER_BUFFER_TENANT_SHARE};
use crate::listener::close::{CloseInfo, CloseReason};
use crate::listener::counters::ListenerCounters;
use tidegate_core::ids::TenantId;
use tidegate_core::tenant::budget::{Budget, Charge};
use tidegate_core::tenant::budget_kind::BudgetKind;
use tidegate_core::tenant::over_budget::OverBudget;

/// The pool of all connections.
#[derive(Debug)]
pub struct PacketMemory {
    bytes_max: usize,
    counters: Arc<ListenerCounters>,
    pool: Mutex<Pool>,
}

#[derive(Debug, Default)]
struct Pool {
    bytes: usize,
    leases: HashMap<u64, Lease>,
    addresses: HashMap<IpAddr, usize>,
    tenants: HashMap<TenantId, usize>,
}

/// The bytes of one connection, as the pool knows them.
#[derive(Debug)]
struct Lease {
    bytes: usize,
    address: IpAddr,
    tenant: Option<TenantId>,
    eviction: Arc<Eviction>,
}

#[derive(Debug)]
struct Eviction {
    evicted: AtomicBool,
    wake: Arc<Notify>,
}

/// A bound that would be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bound {
    Pool,
    Address,
    Tenant,
}

/// There is no room for a packet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PacketMemoryError {
    #[error("unfinished packets of {0} hold as much memory as they may, and this connection holds most")]
    Full(&'static str),
    #[error("unfinished packets need memory, and this connection held most")]
    Evicted,
    #[error("unfinished packets of this tenant have {0}")]
    Budget(Box<OverBudget>),
}

impl From<PacketMemoryError> for CloseInfo {
    fn from(error: PacketMemoryError) -> Self {
        Self::new(CloseReason::Buffers, error.to_string())
    }
}

impl PacketMemory {
    pub fn new(counters: Arc<ListenerCounters>) -> Arc<Self> {
        Self::with_bytes_max(counters, LISTENER_BUFFER_BYTES_MAX)
    }

    fn with_bytes_max(counters: Arc<ListenerCounters>, bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes_max, counters, pool: Mutex::default() })
    }

    /// The memory of a connection from `address`; `wake` is notified when it is taken away.
    pub fn lease(self: &Arc<Self>, connection: u64, address: IpAddr, wake: Arc<Notify>) -> PacketLease {
        PacketLease {
            memory: self.clone(),
            connection,
            address,
            tenant: None,
            bytes: 0,
            charge: None,
            eviction: Arc::new(Eviction { evicted: AtomicBool::new(false), wake }),
        }
    }

    fn bound_broken(&self, pool: &Pool, lease: &PacketLease, bytes: usize) -> Option<Bound> {
        let is_over = |held: Option<&usize>, share: usize| {
            let others = held.map_or(0, |held| held - lease.bytes);
            others > 0 && others + bytes > self.bytes_max / share
        };
        if pool.bytes - lease.bytes + bytes > self.bytes_max {
            Some(Bound::Pool)
        } else if !lease.address.is_loopback()
            && is_over(pool.addresses.get(&lease.address), LISTENER_BUFFER_ADDRESS_SHARE)
        {
            Some(Bound::Address)
        } else if let Some(tenant) = &lease.tenant
            && is_over(pool.tenants.get(tenant), LISTENER_BUFFER_TENANT_SHARE)
        {
            Some(Bound::Tenant)
        } else {
            None
        }
    }
}

impl Bound {
    /// True if the bytes of another connection count against the bound that `lease` would break.
    fn counts(self, other: &Lease, lease: &PacketLease) -> bool {
        match self {
            Bound::Pool => true,
            Bound::Address => other.address == lease.address,
            Bound::Tenant => other.tenant == lease.tenant,
        }
    }

    fn holders(self) -> &'static str {
        match self {
            Bound::Pool => "all connections",
            Bound::Address => "this address",
            Bound::Tenant => "this tenant",
        }
    }
}

impl Pool {
    fn remove(&mut self, connection: u64) -> Option<Lease> {
        let lease = self.leases.remove(&connection)?;
        self.bytes -= lease.bytes;
        subtract(&mut self.addresses, &lease.address, lease.bytes);
        if let Some(tenant) = &lease.tenant {
            subtract(&mut self.tenants, tenant, lease.bytes);
        }
        Some(lease)
    }

    fn insert(&mut self, connection: u64, lease: Lease) {
        self.bytes += lease.bytes;
        *self.addresses.entry(lease.address).or_default() += lease.bytes;
        if let Some(tenant) = &lease.tenant {
            *self.tenants.entry(tenant.clone()).or_default() += lease.bytes;
        }
        self.leases.insert(connection, lease);
    }
}

fn subtract<K: Eq + Hash>(sums: &mut HashMap<K, usize>, key: &K, bytes: usize) {
    if let Some(sum) = sums.get_mut(key) {
        *sum -= bytes;
        if *sum == 0 {
            sums.remove(key);
        }
    }
}

/// The bytes that one connection holds of the pool; they are released when dropped.
#[derive(Debug)]
pub struct PacketLease {
    memory: Arc<PacketMemory>,
    connection: u64,
    address: IpAddr,
    /// The tenant of its device, once that is authenticated.
    tenant: Option<TenantId>,
    bytes: usize,
    /// The same bytes, in its tenant's memory budget.
    charge: Option<Charge>,
    eviction: Arc<Eviction>,
}

impl PacketLease {
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Counts its bytes from now on against its tenant's share and budget, too.
    pub fn set_tenant(&mut self, tenant: &TenantId, budget: Option<&Budget>) {
        self.release();
        self.tenant = Some(tenant.clone());
        self.charge = budget.map(|budget| budget.empty(BudgetKind::Connections));
    }

    /// True if its memory was given to others: the connection must end.
    pub fn is_evicted(&self) -> bool {
        self.eviction.evicted.load(Ordering::Acquire)
    }

    /// Waits until the connection is woken from outside.
    pub async fn woken(&self) {
        self.eviction.wake.notified().await;
    }

    /// Holds `bytes` from now on, more or less than before.
    ///
    /// # Errors
    /// There is no room, and no connection holds more; or its memory was given to others.
    pub fn resize(&mut self, bytes: usize) -> Result<(), PacketMemoryError> {
        if bytes == self.bytes {
            return Ok(());
        }
        let memory = self.memory.clone();
        let mut pool = memory.pool.lock();
        if self.is_evicted() {
            return Err(PacketMemoryError::Evicted);
        }
        while let Some(bound) = memory.bound_broken(&pool, self, bytes).filter(|_| bytes > self.bytes) {
            let others = pool
                .leases
                .iter()
                .filter(|(connection, other)| **connection != self.connection && bound.counts(other, self));
            let largest = others.max_by_key(|(_, other)| other.bytes);
            let Some((&connection, _)) = largest.filter(|(_, other)| other.bytes > bytes) else {
                return Err(PacketMemoryError::Full(bound.holders()));
            };
            if let Some(lease) = pool.remove(connection) {
                lease.eviction.evicted.store(true, Ordering::Release);
                lease.eviction.wake.notify_one();
            }
        }
        if let Some(charge) = &mut self.charge {
            let (before, after) = (charge.bytes(), bytes as u64);
            match after.checked_sub(before) {
                Some(more) => {
                    charge.try_grow(more).map_err(|over| PacketMemoryError::Budget(Box::new(over)))?;
                }
                None => charge.shrink(before - after),
            }
        }
        pool.remove(self.connection);
        self.bytes = bytes;
        if bytes > 0 {
            let (address, tenant) = (self.address, self.tenant.clone());
            pool.insert(self.connection, Lease { bytes, address, tenant, eviction: self.eviction.clone() });
        }
        memory.counters.buffer_bytes.store(pool.bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Gives all bytes back.
    pub fn release(&mut self) {
        // Bytes that were given to others are not counted as its own any more.
        let _ = self.resize(0);
        self.bytes = 0;
        if let Some(charge) = &mut self.charge {
            charge.resize(0);
        }
    }
}

impl Drop for PacketLease {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::Ordering;
    use tidegate_core::ids::TenantId;
    use tidegate_core::tenant::budget_kind::Resource;

    fn memory() -> Arc<PacketMemory> {
        PacketMemory::with_bytes_max(Arc::default(), 100)
    }

    fn lease(memory: &Arc<PacketMemory>, connection: u64, address: &str) -> PacketLease {
        memory.lease(connection, address.parse().unwrap(), Arc::default())
    }

    fn held(memory: &PacketMemory) -> usize {
        memory.counters.buffer_bytes.load(Ordering::Relaxed)
    }

    #[test]
    fn the_largest_goes_and_a_small_packet_always_finds_room() {
        let memory = memory();
        let mut large = lease(&memory, 1, "10.0.0.1");
        let mut middle = lease(&memory, 2, "10.0.0.2");
        let mut small = lease(&memory, 3, "10.0.0.3");
        large.resize(60).unwrap();
        middle.resize(40).unwrap();
        small.resize(5).unwrap();
        assert!(large.is_evicted() && !middle.is_evicted());
        assert_eq!(held(&memory), 45);
        assert_eq!(large.resize(61), Err(PacketMemoryError::Evicted));
        // The one that asks may be the largest.
        assert_eq!(small.resize(70), Err(PacketMemoryError::Full("all connections")));
        drop((large, middle));
        assert_eq!(held(&memory), 5);
        small.resize(70).unwrap();
        small.release();
        assert_eq!(held(&memory), 0);
        assert!(memory.pool.lock().addresses.is_empty());
    }

    #[test]
    fn an_address_and_a_tenant_have_their_share_and_loopback_has_none() {
        let memory = memory();
        let mut leases: Vec<_> = (0..4).map(|n| lease(&memory, n, "10.0.0.1")).collect();
        for lease in &mut leases[..2] {
            lease.resize(12).unwrap();
        }
        assert_eq!(leases[2].resize(13), Err(PacketMemoryError::Full("this address")));
        leases[2].resize(5).unwrap();
        assert_eq!(leases.iter().filter(|lease| lease.is_evicted()).count(), 1);
        assert_eq!(held(&memory), 17);

        let acme = TenantId::new("acme");
        for (n, address) in ["10.0.0.2", "10.0.0.3", "127.0.0.1"].iter().enumerate() {
            let mut lease = lease(&memory, 10 + n as u64, address);
            lease.set_tenant(&acme, None);
            let expected = if n < 2 { Ok(()) } else { Err(PacketMemoryError::Full("this tenant")) };
            assert_eq!(lease.resize(12), expected);
            leases.push(lease);
        }
        let mut near = lease(&memory, 20, "127.0.0.1");
        let mut nearer = lease(&memory, 21, "127.0.0.1");
        near.resize(20).unwrap();
        nearer.resize(20).unwrap();
        drop((leases, near, nearer));
        assert_eq!(held(&memory), 0);
        assert!(memory.pool.lock().tenants.is_empty());
    }

    #[test]
    fn a_tenants_packets_are_charged_to_its_budget_and_end_there() {
        let memory = memory();
        let tenant = Budget::gateway(Resource::Memory, 1_000).of_tenant("acme".into(), 100);
        let acme = TenantId::new("acme");
        let mut lease = lease(&memory, 1, "10.0.0.1");
        lease.set_tenant(&acme, Some(&tenant));
        lease.resize(20).unwrap();
        assert_eq!(tenant.used_by(BudgetKind::Connections), 20);
        // A quarter of the budget is for packets.
        let refusal = CloseInfo::from(lease.resize(26).unwrap_err());
        assert_eq!(refusal.reason, CloseReason::Buffers);
        assert!(refusal.detail.contains("budget.tenant_memory_bytes_max"), "{}", refusal.detail);
        assert_eq!((tenant.used(), lease.bytes()), (20, 20));
        lease.resize(5).unwrap();
        assert_eq!(tenant.used(), 5);
        drop(lease);
        assert_eq!((tenant.used(), held(&memory)), (0, 0));
    }

    #[test]
    fn one_packet_that_is_larger_than_a_share_passes_alone() {
        let memory = memory();
        let mut alone = lease(&memory, 1, "10.0.0.1");
        alone.resize(80).unwrap();
        alone.resize(90).unwrap();
        assert_eq!(held(&memory), 90);
    }

    #[tokio::test]
    async fn the_connection_that_loses_its_memory_is_woken() {
        let memory = memory();
        let mut large = lease(&memory, 1, "10.0.0.1");
        let mut small = lease(&memory, 2, "10.0.0.2");
        large.resize(95).unwrap();
        small.resize(10).unwrap();
        large.woken().await;
        assert!(large.is_evicted());
    }
}
