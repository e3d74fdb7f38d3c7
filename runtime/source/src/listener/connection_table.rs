//! The table of open connections: limits in total and an address, and one connection a client id.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::limits;
use crate::listener::close::CloseReason;
use crate::listener::connect_limits::{ConnectLimitSettings, ConnectLimits, address_prefix};
use crate::listener::counters::ListenerCounters;
use crate::listener::packet_memory::{PacketLease, PacketMemory};

/// The times of log lines: a stranger must not fill the disk.
#[derive(Debug, Default)]
struct LogThrottle {
    last: Option<Instant>,
    withheld: u64,
}

impl LogThrottle {
    /// Some if a line may be logged now: the number of those that were withheld before it.
    fn record(&mut self, every: Duration) -> Option<u64> {
        if self.last.is_some_and(|last| last.elapsed() < every) {
            self.withheld += 1;
            return None;
        }
        self.last = Some(Instant::now());
        Some(std::mem::take(&mut self.withheld))
    }
}

/// A fault that lasts, with one log line a minute.
#[derive(Debug, Default)]
pub struct FaultLog(LogThrottle);

impl FaultLog {
    /// Some if the fault is to be logged now: how often it was not.
    pub fn record(&mut self) -> Option<u64> {
        self.0.record(Duration::from_secs(limits::STRANGERS_SAID_EVERY_S))
    }
}

/// The client that holds a client id.
#[derive(Debug)]
struct ClientIdHolder {
    connection: u64,
    taken_over: Arc<Notify>,
}

/// The open connections of a listener.
#[derive(Debug)]
pub struct ConnectionTable {
    connections_max: usize,
    per_address_max: usize,
    addresses: Mutex<HashMap<IpAddr, usize>>,
    clients: Mutex<HashMap<Box<str>, ClientIdHolder>>,
    /// By reason: of strangers, and of devices that proved who they are.
    log_throttles: Mutex<[[LogThrottle; 2]; CloseReason::ALL.len()]>,
    last_connection: AtomicU64,
    pub connect_limits: Arc<ConnectLimits>,
    pub counters: Arc<ListenerCounters>,
    memory: Arc<PacketMemory>,
    /// Notified when the last connection is gone.
    empty: Notify,
}

/// The place of a connection among all; dropping it takes the connection out of the table.
#[derive(Debug)]
pub struct ConnectionPlace(Arc<ConnectionTable>);

/// A connection that was admitted; dropping it takes the connection out of the table.
#[derive(Debug)]
pub struct ConnectionPermit {
    place: ConnectionPlace,
    /// The prefix that counts as its address.
    pub network: IpAddr,
    pub connection: u64,
}

impl ConnectionTable {
    pub fn new(
        connections_max: usize,
        per_address_max: usize,
        connect_limits: ConnectLimitSettings,
    ) -> Arc<Self> {
        let counters = Arc::<ListenerCounters>::default();
        Arc::new(Self {
            memory: PacketMemory::new(counters.clone()),
            connections_max,
            per_address_max,
            addresses: Mutex::default(),
            clients: Mutex::default(),
            log_throttles: Mutex::default(),
            last_connection: AtomicU64::new(0),
            connect_limits: Arc::new(ConnectLimits::new(connect_limits)),
            counters,
            empty: Notify::new(),
        })
    }

    /// Takes a place for a connection whose address is still to be told.
    ///
    /// # Errors
    /// There are as many as there may be.
    pub fn reserve(self: &Arc<Self>) -> Result<ConnectionPlace, CloseReason> {
        let taken = self.counters.connections.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |open| {
            (open < self.connections_max).then_some(open + 1)
        });
        taken.map(|_| ConnectionPlace(self.clone())).map_err(|_| CloseReason::ConnectionsMax)
    }

    /// Admits a connection of an address.
    ///
    /// # Errors
    /// The limit that it would break.
    pub fn admit(self: &Arc<Self>, address: IpAddr) -> Result<ConnectionPermit, CloseReason> {
        self.reserve()?.admit(address)
    }

    /// Counts the end of a connection. Some if it is to be logged: the number of ends with this reason that
    /// were not logged since the last one. Strangers make one line a minute and reason, devices that are
    /// `proven` one a second.
    pub fn record_close(&self, reason: CloseReason, proven: bool) -> Option<u64> {
        self.counters.record_close(reason);
        if !reason.is_fault() {
            return None;
        }
        let mut throttles = self.log_throttles.lock();
        let every_s = if proven { 1 } else { limits::STRANGERS_SAID_EVERY_S };
        throttles[reason as usize][usize::from(proven)].record(Duration::from_secs(every_s))
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

impl ConnectionPlace {
    /// Admits the connection. The limit an address does not hold for this machine itself.
    ///
    /// # Errors
    /// The limit that it would break.
    pub fn admit(self, address: IpAddr) -> Result<ConnectionPermit, CloseReason> {
        let connections = self.0.clone();
        let mut addresses = connections.addresses.lock();
        let network = address_prefix(address);
        if !connections.connect_limits.may_connect(network) {
            return Err(CloseReason::ConnectRate);
        }
        let from_there = addresses.entry(network).or_insert(0);
        if *from_there >= connections.per_address_max && !network.is_loopback() {
            return Err(CloseReason::AddressMax);
        }
        *from_there += 1;
        connections.counters.accepted.fetch_add(1, Ordering::Relaxed);
        let connection = connections.last_connection.fetch_add(1, Ordering::Relaxed) + 1;
        Ok(ConnectionPermit { place: self, network, connection })
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        if self.0.counters.connections.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.empty.notify_waiters();
        }
    }
}

impl ConnectionPermit {
    /// The memory for its unfinished packets; `wake` is notified when that is given to others.
    pub fn packet_lease(&self, wake: Arc<Notify>) -> PacketLease {
        self.place.0.memory.lease(self.connection, self.network, wake)
    }

    /// Takes `client_id` for this connection, from its holder if there is one. `taken_over` is notified when
    /// another connection takes it from this one. Connections of different `scope`s do not take over one
    /// another's.
    pub fn take_client_id(&self, scope: &str, client_id: &str, taken_over: Arc<Notify>) -> ClientIdGuard {
        // Neither part can hold U+0000.
        let client_id: Box<str> = format!("{scope}\0{client_id}").into();
        let holder = ClientIdHolder { connection: self.connection, taken_over };
        let connections = &self.place.0;
        let earlier = connections.clients.lock().insert(client_id.clone(), holder);
        if let Some(earlier) = earlier {
            earlier.taken_over.notify_one();
        }
        ClientIdGuard { connections: connections.clone(), client_id, connection: self.connection }
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut addresses = self.place.0.addresses.lock();
        if let Entry::Occupied(mut from_there) = addresses.entry(self.network) {
            *from_there.get_mut() -= 1;
            if *from_there.get() == 0 {
                from_there.remove();
            }
        }
    }
}

/// A client id that one connection holds until it ends or loses it.
#[derive(Debug)]
pub struct ClientIdGuard {
    connections: Arc<ConnectionTable>,
    client_id: Box<str>,
    connection: u64,
}

impl ClientIdGuard {
    /// The client id, without its scope.
    pub fn client_id(&self) -> &str {
        self.client_id.split_once('\0').map_or("", |(_, client_id)| client_id)
    }
}

impl Drop for ClientIdGuard {
    fn drop(&mut self) {
        let mut clients = self.connections.clients.lock();
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
        let connections = ConnectionTable::new(3, 2, ConnectLimitSettings::default());
        let (near, far): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let first = connections.admit(near).unwrap();
        let _second = connections.admit(near).unwrap();
        assert_eq!(connections.admit(near).unwrap_err(), CloseReason::AddressMax);
        let _third = connections.admit(far).unwrap();
        assert_eq!(connections.admit(far).unwrap_err(), CloseReason::ConnectionsMax);
        drop(first);
        let _fourth = connections.admit(near).unwrap();
        assert_eq!(connections.counters.connections.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn a_place_without_an_address_counts_among_all_and_is_free_again_when_it_is_refused() {
        let connections = ConnectionTable::new(2, 1, ConnectLimitSettings::default());
        let near: IpAddr = "10.0.0.1".parse().unwrap();
        let permit = connections.reserve().unwrap().admit(near).unwrap();
        let place = connections.reserve().unwrap();
        assert_eq!(connections.reserve().unwrap_err(), CloseReason::ConnectionsMax);
        assert_eq!(place.admit(near).unwrap_err(), CloseReason::AddressMax);
        assert_eq!(connections.counters.connections.load(Ordering::Relaxed), 1);
        drop(permit);
        assert_eq!(connections.counters.connections.load(Ordering::Relaxed), 0);
        assert!(connections.addresses.lock().is_empty());
    }

    #[test]
    fn loopback_has_no_ceiling_of_its_own_even_mapped_into_ipv6() {
        let connections = ConnectionTable::new(10, 1, ConnectLimitSettings::default());
        let permits: Vec<_> = ["127.0.0.1", "127.0.0.1", "::1", "::1", "::ffff:127.0.0.1"]
            .map(|address| connections.admit(address.parse().unwrap()).unwrap())
            .into();
        drop(permits);
        assert!(connections.addresses.lock().is_empty());
    }

    #[tokio::test]
    async fn a_client_id_goes_to_the_newest_connection_and_leaves_with_it() {
        let connections = ConnectionTable::new(10, 10, ConnectLimitSettings::default());
        let address = "10.0.0.1".parse().unwrap();
        let (old, new) = (connections.admit(address).unwrap(), connections.admit(address).unwrap());
        let (told, quiet) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let old_name = old.take_client_id("", "pump", told.clone());
        let new_name = new.take_client_id("", "pump", quiet.clone());
        told.notified().await;
        drop(old_name);
        assert_eq!(connections.clients.lock()["\0pump"].connection, new.connection);
        // Another tenant's device of that name is another's.
        drop(old.take_client_id("globex", "pump", quiet));
        assert_eq!(connections.clients.lock()["\0pump"].connection, new.connection);
        drop(new_name);
        assert!(connections.clients.lock().is_empty());
    }

    #[test]
    fn faults_of_strangers_are_logged_once_a_minute_and_counted_always() {
        let connections = ConnectionTable::new(1, 1, ConnectLimitSettings::default());
        assert_eq!(connections.record_close(CloseReason::Malformed, false), Some(0));
        assert_eq!(connections.record_close(CloseReason::Malformed, false), None);
        assert_eq!(connections.record_close(CloseReason::ExactlyOnce, false), Some(0));
        assert_eq!(connections.record_close(CloseReason::Left, false), None);
        // A device is not kept silent by strangers.
        assert_eq!(connections.record_close(CloseReason::Malformed, true), Some(0));
        assert_eq!(connections.counters.ended(CloseReason::Malformed), 3);
        let mut throttle = LogThrottle::default();
        assert_eq!(throttle.record(Duration::from_secs(60)), Some(0));
        assert_eq!(throttle.record(Duration::from_secs(60)), None);
        throttle.last = Instant::now().checked_sub(Duration::from_secs(61));
        assert_eq!(throttle.record(Duration::from_secs(60)), Some(1));
    }
}
