//! The ceilings of the sources, each with the reason for its number.

/// Bytes of a refused payload that quarantine keeps when it was over the size limit.
pub const OVERSIZE_PAYLOAD_KEPT_BYTES: usize = 1024;

/// The largest MQTT packet that the protocol can name (MQTT 3.1.1 section 2.2.3).
pub const MQTT_PACKET_BYTES_MAX: usize = 268_435_455;

/// Messages of one connection that may wait for room in the spool before its socket is not read any
/// more: more than clients send ahead, so that a PINGREQ behind them is still read.
pub const DEFERRED_MESSAGES_A_CONNECTION: u64 = 128;

/// Messages of one connection that wait for its device's rate before its socket is not read any more. For
/// the same reason.
pub const RATE_QUEUE_MESSAGES: usize = DEFERRED_MESSAGES_A_CONNECTION as usize;

/// Milliseconds between two checks of a device that is not read because its messages wait for room: it may
/// have left, or its keep-alive may be over.
pub const DEFERRED_POLL_MS: u64 = 1_000;

/// Sessions of the listener that are remembered after their connection has ended, and unacknowledged
/// messages of each: 40 MB. Messages beyond that may be decoded again.
pub const LISTENER_SESSIONS_MAX: usize = 10_000;

/// Unacknowledged messages of one such session.
pub const LISTENER_SESSION_IDS_MAX: usize = 1_024;

/// Unacknowledged messages of a broker's session: all packet ids there are.
pub const BROKER_SESSION_IDS_MAX: usize = 65_535;

/// Bytes asked of a socket at once: some hundred messages of a sensor, so that a system call is
/// shared by all of them, and small enough to stay in a core's cache.
pub const SOCKET_READ_BYTES: usize = 64 * 1024;

/// Bytes asked of a device's socket until it has shown that it sends more: ten messages. The
/// buffer exists only between the first byte of a packet and its last.
pub const LISTENER_FIRST_READ_BYTES: usize = 4 * 1024;

/// Messages of one group that a source submits: more would only make the first of them wait.
pub const GROUP_MESSAGES_MAX: usize = 256;

/// Bytes of a packet that is not a PUBLISH. A CONNECT carries a client id, a will and credentials;
/// nothing that anybody sends on purpose comes near.
pub const CONTROL_PACKET_BYTES_MAX: usize = 64 * 1024;

/// The multiple of `payload_bytes_max` that a device may announce before its connection is closed: up to
/// here the rest is read and thrown away, so that it learns of its fault from a PUBACK and a
/// quarantine entry instead of a connection that breaks for ever.
pub const LISTENER_OVERSIZE_FACTOR: usize = 16;

/// Bytes that all connections of the listener together may hold in unfinished packets beyond their
/// first `LISTENER_FIRST_READ_BYTES`: without it ten thousand strangers could pin gigabytes with
/// one half packet each. Only bytes that came count, and the next step.
pub const LISTENER_BUFFER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// One address, and one tenant, may hold one part in this many of it: 64 packets of 256 KiB under way,
/// and three quarters are left to the others.
pub const LISTENER_BUFFER_ADDRESS_SHARE: usize = 4;

/// The same for one tenant.
pub const LISTENER_BUFFER_TENANT_SHARE: usize = 4;

/// Bytes of a CONNECT: a client id, a user name and a password of a kilobyte each, and five for a will
/// and properties. Its sender has proved nothing yet.
pub const LISTENER_CONNECT_BYTES_MAX: usize = 8 * 1024;

/// PUBLISHes of one device that wait for their PUBACK; its socket is not read beyond. Far more
/// than clients send ahead (20 to 100), far less than the packet ids there are (65,535), and one
/// device cannot fill the window alone.
pub const LISTENER_UNACKNOWLEDGED_MAX: usize = 10_000;

/// Bytes of a client id: the protocol asks for 23, people use host names and UUIDs.
pub const CLIENT_ID_BYTES_MAX: usize = 1024;

/// Seconds from accepting a connection to its whole CONNECT.
pub const LISTENER_CONNECT_TIMEOUT_S: u64 = 5;

/// Seconds from the first byte of a packet to its last: 256 KiB at the 4.4 kB/s of a poor mobile
/// link.
pub const PACKET_TIMEOUT_S: u64 = 60;

/// Seconds that a peer may leave PUBACKs lying in its socket before it is given up.
pub const SOCKET_WRITE_TIMEOUT_S: u64 = 10;

/// Bytes that the kernel queues towards one device: 8,000 PUBACKs. A peer that never reads can make us hold
/// no more.
pub const LISTENER_SEND_BUFFER_BYTES: usize = 32 * 1024;

/// Seconds for TCP, TLS, CONNECT and CONNACK together.
pub const BROKER_CONNECT_TIMEOUT_S: u64 = 10;

/// Seconds for a broker to close the connection after our DISCONNECT. Until then it may have PUBACKs
/// of ours to read, and one that keeps its queue on disk reads a few in a second.
pub const BROKER_DISCONNECT_S: u64 = 5;

/// Seconds that a broker is to keep our session while we are gone: for ever, as MQTT 3.1.1 has it. Any
/// shorter one would lose the messages in it when an outage lasts longer; a broker may lower it.
pub const BROKER_SESSION_EXPIRY_S: u32 = u32::MAX;

/// Messages that a broker may have under way to us: all packet ids there are, as in MQTT 3.1.1. We do not
/// read messages that we cannot take, and the broker has a bound of its own.
pub const BROKER_RECEIVE_MAXIMUM: u16 = u16::MAX;

/// Bytes of the name of a group that shares a subscription: as much as a name of a tenant may have.
pub const SHARE_GROUP_BYTES_MAX: usize = 255;

/// Bytes of the id of a primary host of Sparkplug: as much as the name of an edge node may have.
pub const SPARKPLUG_HOST_ID_BYTES_MAX: usize = 255;

/// Milliseconds for which no connection is accepted after one that could not be: descriptors are short, and
/// others must leave first.
pub const ACCEPT_PAUSE_MS: u64 = 500;

/// Seconds of keep-alive that the broker session asks for: half of it is how long the output may
/// be blocked before the broker sees us leave, and all of it how long a dead link goes unnoticed.
pub const BROKER_KEEP_ALIVE_S: u16 = 30;

/// Bytes of the properties of one MQTT 5 PUBLISH: some dozen user properties. Nothing here reads them,
/// and they lie in memory beside the payload.
pub const PROPERTIES_BYTES_MAX: usize = 8 * 1024;

/// Seconds for a TLS handshake: two round trips of a poor mobile link, and our own CPU when a site
/// full of devices comes back at once.
pub const TLS_HANDSHAKE_TIMEOUT_S: u64 = 10;

/// Seconds that a CONNECT waits for the registry before it is refused as unavailable: as long as a
/// message waits before it is parked, and shorter than clients wait for a CONNACK.
pub const CONNECT_REGISTRY_WAIT_S: u64 = 5;

/// Milliseconds that a connection which was refused or ended by us is read on, so that the last packet
/// to it is not lost to a reset.
pub const CLOSE_DRAIN_MS: u64 = 500;

/// Bytes of a user name in a CONNECT.
pub const USERNAME_BYTES_MAX: usize = 1024;

/// The same for its password.
pub const PASSWORD_BYTES_MAX: usize = 1024;

/// Milliseconds between two checks of the certificates of open connections.
pub const REVOCATION_POLL_MS: u64 = 500;

/// Connections that are checked against the registry at once after it has changed: as many as one query of
/// PostgreSQL asks about.
pub const RECHECKS_AT_ONCE: usize = 500;

/// Seconds between two log lines about strangers with one reason, and about a fault that lasts.
pub const STRANGERS_SAID_EVERY_S: u64 = 60;

/// Addresses, or addresses and names, that a limit of the listener remembers: full buckets are forgotten
/// first. An entry is about 60 bytes.
pub const CONNECT_BUCKETS_MAX: usize = 50_000;

/// One address may fail at CONNECT so many times as often as one name from there: a site of several
/// devices with an old password is no guesser.
pub const FAILED_CONNECTS_ADDRESS_FACTOR: u32 = 20;

/// Tenants that the listener counts by name: each is one that the registry knows, and goes with its
/// last connection.
pub const CONNECT_TENANTS_MAX: usize = 100_000;

/// Bytes of memory of a connection that sends nothing: its task and its places in tables.
pub const CONNECTION_BYTES: u64 = 8 << 10;

/// The same with TLS, whose session keeps buffers and keys.
pub const TLS_CONNECTION_BYTES: u64 = 48 << 10;

/// Bytes of a PROXY header of version 1, its line end included (HAProxy, doc/proxy-protocol.txt section 2.1).
pub const PROXY_LINE_BYTES_MAX: usize = 107;

/// Bytes of the addresses and additions of a PROXY header of version 2: 36 for addresses, and what balancers tell
/// beside them of TLS and of a cloud's network.
pub const PROXY_HEADER_BYTES_MAX: usize = 2_048;

/// Parts of the listener's connections that a drain ends one after the other: of 10,000 devices 160 at a time.
pub const LISTENER_DRAIN_PARTS: usize = 64;
