//! Who is connected: the ceilings, one connection a client id, and what was counted at the door.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::listener::connect_limits::{ConnectLimitSettings, ConnectLimits, address_prefix};
use crate::listener::packet_memory::{PacketLease, PacketMemory};

macro_rules! endings {
    ($($(#[$doc:meta])* $name:ident = $label:literal,)*) => {
        /// Why a connection ended, or was not taken in the first place.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum CloseReason { $($(#[$doc])* $name,)* }

        impl CloseReason {
            pub const ALL: &'static [CloseReason] = &[$(CloseReason::$name,)*];

            /// The label of metrics.
            pub fn name(self) -> &'static str {
                match self { $(CloseReason::$name => $label,)* }
            }
        }
    };
}

endings! {
    /// It sent DISCONNECT, or closed its socket.
    Left = "left",
    Lost = "lost",
    Stopped = "stopped",
    /// Another connection came with its client id.
    TakenOver = "taken_over",
    KeepAlive = "keep_alive",
    ConnectionsMax = "connections_max",
    AddressMax = "address_max",
    ConnectTimeout = "connect_timeout",
    PacketTimeout = "packet_timeout",
    /// The first packet was no CONNECT, a second CONNECT came, or one that only servers send.
    Unexpected = "unexpected_packet",
    Malformed = "malformed",
    ProtocolLevel = "protocol_level",
    ClientId = "client_id",
    ExactlyOnce = "qos_2",
    SlowReader = "slow_reader",
    /// The TLS handshake failed, or took too long.
    Handshake = "tls_handshake",
    /// An MQTT 5 authentication method, of which there is none here.
    AuthenticationMethod = "authentication_method",
    /// No credentials where they are asked for, or wrong ones.
    BadCredentials = "bad_credentials",
    /// A device that is known and may not come in.
    NotAuthorized = "not_authorized",
    /// The registry could not be asked about it.
    Unavailable = "registry_unavailable",
    /// More connects a second of its address than may be.
    ConnectRate = "connect_rate",
    /// Too many CONNECTs like it have failed: it was not looked at.
    FailedConnects = "failed_connects",
    TenantMax = "tenant_max",
    /// A PUBLISH to another device's topic, in the protocol that has no other answer to it.
    NotOwnTopic = "not_own_topic",
    /// Unfinished packets hold too much memory, and this connection held most of it.
    Buffers = "buffers_max",
    /// A message of it could not be taken, and is to be sent again.
    Unsettled = "unsettled",
}

impl CloseReason {
    /// Whether an operator may want to know.
    pub fn is_fault(self) -> bool {
        !matches!(self, CloseReason::Left | CloseReason::Lost | CloseReason::Stopped | CloseReason::KeepAlive)
    }
}

/// Counted since the start of the process.
#[derive(Debug, Default)]
pub struct ListenerCounters {
    /// Connections that are open now.
    pub connections: AtomicUsize,
    pub accepted: AtomicU64,
    /// QoS 1 messages that came with DUP set.
    pub redelivered: Arc<AtomicU64>,
    /// PUBLISHes to another device's topic.
    pub foreign_publishes: AtomicU64,
    /// Connections that hold a read buffer now; one that is idle holds none.
    pub buffers: AtomicUsize,
    /// Bytes that unfinished packets hold beyond the first small buffer of their connections.
    pub buffer_bytes: AtomicUsize,
    ended: [AtomicU64; CloseReason::ALL.len()],
}

impl ListenerCounters {
    /// Connections that ended so.
    pub fn ended(&self, ending: CloseReason) -> u64 {
        self.ended[ending as usize].load(Ordering::Relaxed)
    }
}

/// One line of log a kind of ending and second: a stranger must not fill the disk.
#[derive(Debug, Default)]
struct LogThrottle {
    last: Option<Instant>,
    withheld: u64,
}

/// The client that holds a client id.
#[derive(Debug)]
struct ClientIdHolder {
    connection: u64,
    taken_over: Arc<Notify>,
}

#[derive(Debug)]
pub struct ConnectionTable {
    connections_max: usize,
    per_address_max: usize,
    addresses: Mutex<HashMap<IpAddr, usize>>,
    clients: Mutex<HashMap<Box<str>, ClientIdHolder>>,
    log_gates: Mutex<[LogThrottle; CloseReason::ALL.len()]>,
    last_connection: AtomicU64,
    pub ceilings: Arc<ConnectLimits>,
    pub counters: Arc<ListenerCounters>,
    memory: Arc<PacketMemory>,
    /// Told when the last connection is gone.
    empty: Notify,
}

/// A connection that was let in; leaving is its Drop.
#[derive(Debug)]
pub struct ConnectionPermit {
    doors: Arc<ConnectionTable>,
    /// What counts as its address.
    pub network: IpAddr,
    pub connection: u64,
}

impl ConnectionTable {
    pub fn new(connections_max: usize, per_address_max: usize, ceilings: ConnectLimitSettings) -> Arc<Self> {
        let counters = Arc::<ListenerCounters>::default();
        Arc::new(Self {
            memory: PacketMemory::new(counters.clone()),
            connections_max,
            per_address_max,
            addresses: Mutex::default(),
            clients: Mutex::default(),
            log_gates: Mutex::default(),
            last_connection: AtomicU64::new(0),
            ceilings: Arc::new(ConnectLimits::new(ceilings)),
            counters,
            empty: Notify::new(),
        })
    }

    /// Lets a connection in. The ceiling an address does not hold for this machine itself.
    ///
    /// # Errors
    /// The ceiling that it would break.
    pub fn enter(self: &Arc<Self>, address: IpAddr) -> Result<ConnectionPermit, CloseReason> {
        let mut addresses = self.addresses.lock();
        if self.counters.connections.load(Ordering::Relaxed) >= self.connections_max {
            return Err(CloseReason::ConnectionsMax);
        }
        let network = address_prefix(address);
        if !self.ceilings.may_connect(network) {
            return Err(CloseReason::ConnectRate);
        }
        let from_there = addresses.entry(network).or_insert(0);
        if *from_there >= self.per_address_max && !network.is_loopback() {
            return Err(CloseReason::AddressMax);
        }
        *from_there += 1;
        self.counters.connections.fetch_add(1, Ordering::Relaxed);
        self.counters.accepted.fetch_add(1, Ordering::Relaxed);
        let connection = self.last_connection.fetch_add(1, Ordering::Relaxed) + 1;
        Ok(ConnectionPermit { doors: self.clone(), network, connection })
    }

    /// Counts how a connection ended. Some where it is to be logged: how many like it were not
    /// since the last one that was.
    pub fn record_close(&self, ending: CloseReason) -> Option<u64> {
        self.counters.ended[ending as usize].fetch_add(1, Ordering::Relaxed);
        if !ending.is_fault() {
            return None;
        }
        let mut gates = self.log_gates.lock();
        let gate = &mut gates[ending as usize];
        if gate.last.is_some_and(|last| last.elapsed() < Duration::from_secs(1)) {
            gate.withheld += 1;
            return None;
        }
        gate.last = Some(Instant::now());
        Some(std::mem::take(&mut gate.withheld))
    }

    /// Waits until nobody is connected.
    pub async fn until_empty(&self) {
        loop {
            let mut empty = std::pin::pin!(self.empty.notified());
            empty.as_mut().enable();
            if self.counters.connections.load(Ordering::Acquire) == 0 {
                return;
            }
            empty.await;
        }
    }
}

impl ConnectionPermit {
    /// The memory for its unfinished packets; `wake` is notified when that is given to others.
    pub fn packet_lease(&self, wake: Arc<Notify>) -> PacketLease {
        self.doors.memory.lease(self.connection, self.network, wake)
    }

    /// Takes `client_id` for this connection, from whoever holds it; `taken_over` is told when
    /// another takes it from us. `scope` keeps the ids of those apart who must not take one
    /// another's connections over.
    pub fn take_client_id(&self, scope: &str, client_id: &str, taken_over: Arc<Notify>) -> ClientIdGuard {
        // Neither part can hold U+0000.
        let client_id: Box<str> = format!("{scope}\0{client_id}").into();
        let holder = ClientIdHolder { connection: self.connection, taken_over };
        let earlier = self.doors.clients.lock().insert(client_id.clone(), holder);
        if let Some(earlier) = earlier {
            earlier.taken_over.notify_one();
        }
        ClientIdGuard { doors: self.doors.clone(), client_id, connection: self.connection }
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut addresses = self.doors.addresses.lock();
        if let Entry::Occupied(mut from_there) = addresses.entry(self.network) {
            *from_there.get_mut() -= 1;
            if *from_there.get() == 0 {
                from_there.remove();
            }
        }
        if self.doors.counters.connections.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.doors.empty.notify_waiters();
        }
    }
}

/// A client id that one connection holds until it ends or loses it.
#[derive(Debug)]
pub struct ClientIdGuard {
    doors: Arc<ConnectionTable>,
    client_id: Box<str>,
    connection: u64,
}

impl Drop for ClientIdGuard {
    fn drop(&mut self) {
        let mut clients = self.doors.clients.lock();
        if clients.get(&self.client_id).is_some_and(|holder| holder.connection == self.connection) {
            clients.remove(&self.client_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listener::connect_limits::ConnectLimitSettings;
    use std::net::IpAddr;
    use std::sync::Arc;
    use std::sync::atomic::Ordering;
    use tokio::sync::Notify;

    #[test]
    fn the_ceilings_hold_and_open_again_when_somebody_leaves() {
        let doors = ConnectionTable::new(3, 2, ConnectLimitSettings::default());
        let (near, far): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let first = doors.enter(near).unwrap();
        let _second = doors.enter(near).unwrap();
        assert_eq!(doors.enter(near).unwrap_err(), CloseReason::AddressMax);
        let _third = doors.enter(far).unwrap();
        assert_eq!(doors.enter(far).unwrap_err(), CloseReason::ConnectionsMax);
        drop(first);
        let _fourth = doors.enter(near).unwrap();
        assert_eq!(doors.counters.connections.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn loopback_has_no_ceiling_of_its_own_even_mapped_into_ipv6() {
        let doors = ConnectionTable::new(10, 1, ConnectLimitSettings::default());
        let passes: Vec<_> = ["127.0.0.1", "127.0.0.1", "::1", "::1", "::ffff:127.0.0.1"]
            .map(|address| doors.enter(address.parse().unwrap()).unwrap())
            .into();
        drop(passes);
        assert!(doors.addresses.lock().is_empty());
    }

    #[tokio::test]
    async fn a_client_id_goes_to_the_newest_connection_and_leaves_with_it() {
        let doors = ConnectionTable::new(10, 10, ConnectLimitSettings::default());
        let address = "10.0.0.1".parse().unwrap();
        let (old, new) = (doors.enter(address).unwrap(), doors.enter(address).unwrap());
        let (told, quiet) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let old_name = old.take_client_id("", "pump", told.clone());
        let new_name = new.take_client_id("", "pump", quiet.clone());
        told.notified().await;
        drop(old_name);
        assert_eq!(doors.clients.lock()["\0pump"].connection, new.connection);
        // Another tenant's device of that name is another's.
        drop(old.take_client_id("globex", "pump", quiet));
        assert_eq!(doors.clients.lock()["\0pump"].connection, new.connection);
        drop(new_name);
        assert!(doors.clients.lock().is_empty());
    }

    #[test]
    fn faults_are_logged_once_a_second_and_counted_always() {
        let doors = ConnectionTable::new(1, 1, ConnectLimitSettings::default());
        assert_eq!(doors.record_close(CloseReason::Malformed), Some(0));
        assert_eq!(doors.record_close(CloseReason::Malformed), None);
        assert_eq!(doors.record_close(CloseReason::ExactlyOnce), Some(0));
        assert_eq!(doors.record_close(CloseReason::Left), None);
        assert_eq!(doors.counters.ended(CloseReason::Malformed), 2);
    }
}
