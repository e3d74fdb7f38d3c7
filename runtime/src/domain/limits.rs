//! Every ceiling that is not configuration, each with the reason for its number.

/// Tenants that were named in a topic but never admitted get accounts of their own up to here:
/// anybody who may publish can invent names, and an account is about 300 bytes.
pub const STRANGER_ACCOUNTS_MAX: usize = 1_000;

/// Messages in one call of a guest: a call costs about 500 ns whatever it carries, 64 pay for it,
/// and more would let one call hold a decode thread for longer.
pub const DECODE_BATCH_MESSAGES_MAX: usize = 64;

/// Bytes of a refused payload that quarantine keeps when it was over the size limit.
pub const OVERSIZE_PAYLOAD_KEPT_BYTES: usize = 1024;

/// The largest MQTT packet that the protocol can name (MQTT 3.1.1 section 2.2.3).
pub const MQTT_PACKET_BYTES_MAX: usize = 268_435_455;

/// Bytes asked of a socket at once: some hundred messages of a sensor, so that a system call is
/// shared by all of them, and small enough to stay in a core's cache.
pub const SOCKET_READ_BYTES: usize = 64 * 1024;

/// Bytes asked of a device's socket until it has shown that it sends more: ten messages. The
/// buffer exists only between the first byte of a packet and its last.
pub const LISTENER_FIRST_READ_BYTES: usize = 4 * 1024;

/// Messages that a source hands on at once: more would only make the first of them wait.
pub const INTAKE_GROUP_MESSAGES_MAX: usize = 256;

/// Bytes of a packet that is not a PUBLISH. A CONNECT carries a client id, a will and credentials;
/// nothing that anybody sends on purpose comes near.
pub const CONTROL_PACKET_BYTES_MAX: usize = 64 * 1024;

/// How many times `payload_bytes_max` a device may announce before its connection is closed: up to
/// here the rest is read and thrown away, so that it learns of its fault from a PUBACK and a
/// quarantine entry instead of a connection that breaks for ever.
pub const LISTENER_OVERSIZE_FACTOR: usize = 16;

/// Bytes that all connections of the listener together may hold in unfinished packets beyond their
/// first `LISTENER_FIRST_READ_BYTES`: without it ten thousand strangers could pin gigabytes with
/// one half packet each.
pub const LISTENER_BUFFER_BYTES_MAX: usize = 64 * 1024 * 1024;

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

/// Connections of one address, unless configured; loopback is exempt. A site of a thousand devices
/// behind one router is one address, and one stranger must not take every place.
pub const LISTENER_CONNECTIONS_PER_ADDRESS_MAX: usize = 1_000;

/// Bytes that the kernel queues towards one device: 8,000 PUBACKs, and what a peer that never reads
/// can make us hold is this and no more.
pub const LISTENER_SEND_BUFFER_BYTES: usize = 32 * 1024;

/// Seconds for TCP, TLS, CONNECT and CONNACK together.
pub const BROKER_CONNECT_TIMEOUT_S: u64 = 10;

/// Seconds of keep-alive that the broker session asks for: half of it is how long the output may
/// be blocked before the broker sees us leave, and all of it how long a dead link goes unnoticed.
pub const BROKER_KEEP_ALIVE_S: u16 = 30;
