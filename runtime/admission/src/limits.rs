//! The ceilings of admission, each with the reason for its number.

use std::time::Duration;

use tidegate_core::limits::TENANTS_MAX;

/// `REGISTRY_RETRY_MIN_MS`.
pub(crate) const RETRY_MIN: Duration = Duration::from_millis(REGISTRY_RETRY_MIN_MS);

/// `CONNECT_LOOKUP_PATIENCE_S`.
pub(crate) const CONNECT_LOOKUP_PATIENCE: Duration = Duration::from_secs(CONNECT_LOOKUP_PATIENCE_S);

/// `REGISTRY_PROBE_MS`.
pub(crate) const PROBE: Duration = Duration::from_millis(REGISTRY_PROBE_MS);

/// Rate buckets of devices, about 100 bytes each. Strangers can name devices that do not exist: beyond
/// this number the idle ones are dropped, at worst all of them.
pub const BUCKETS_MAX: usize = 500_000;

/// Bytes of one record of a registry file: four names of the longest topic. A quote without an end must
/// not take the rest of the file into memory.
pub const CSV_RECORD_BYTES_MAX: usize = 256 << 10;

/// Bytes of one piece of the devices of a registry file: a change of the file costs the pieces that it
/// touches, and what is not full of the last one is little beside a million devices.
pub const DEVICE_CHUNK_BYTES: usize = 1 << 20;

/// Seconds between two searches of a full table of buckets for idle ones.
pub const BUCKET_SWEEP_S: f64 = 1.0;

/// Seconds that a message may wait at the listener for its device's rate: a usual keep-alive. With a rate
/// that is slower still, it is refused.
pub const RATE_WAIT_MAX_S: f64 = 60.0;

/// Seconds of a rate that a connection over it waits for at once: a fast rate then wakes it some twenty
/// times a second and not for each message.
pub const RATE_WAIT_STEP_S: f64 = 0.05;

/// Seconds after a reconnect, beyond the time offline, in which a backlog is granted. By then the
/// broker has sent its stored messages.
pub const BACKLOG_GRANT_S: f64 = 60.0;

/// Keys of one look-up in a PostgreSQL registry: a cold start of 10,000 devices is 20 queries, and
/// one query stays far below the time that a lock or a plan may cost.
pub const LOOKUP_KEYS_MAX: usize = 500;

/// Look-ups under way at once in a PostgreSQL registry, each on a connection of its own: one that
/// hangs leaves the other.
pub const LOOKUPS_AT_ONCE: usize = 2;

/// Milliseconds that messages of a device with a stale entry wait for a slow registry.
pub const SLOW_LOOKUP_MS: u64 = 300;

/// Milliseconds that a message waits for the registry before it is parked: a restart of the database
/// server is shorter. When the registry has been down for so long, messages are parked at once.
pub const REGISTRY_WAIT_MS: u64 = 5_000;

/// Seconds to connect to the registry: TCP, TLS and login together.
pub const REGISTRY_CONNECT_TIMEOUT_S: u64 = 3;

/// Milliseconds between two probes of an idle registry, and the longest pause between two tries while
/// it is down.
pub const REGISTRY_PROBE_MS: u64 = 2_000;

/// The first pause after a failed try, in milliseconds; it doubles.
pub const REGISTRY_RETRY_MIN_MS: u64 = 100;

/// Devices with parked messages, some 30 bytes each: their later messages must queue behind.
pub const PARKED_DEVICES_MAX: usize = 1_000_000;

/// The divisor that gives the room for unknown devices in the cache. Strangers can name devices without
/// end, and must not evict known ones.
pub const NEGATIVE_ENTRIES_SHARE: usize = 10;

/// Seconds that an unknown device stays in the cache if the registry notifies of changes.
pub const NEGATIVE_TTL_S: f64 = 10.0;

/// Seconds that an unknown device stays in the cache if the registry does not notify.
pub const NEGATIVE_TTL_WITHOUT_NOTIFY_S: f64 = 0.5;

/// Changes of the registry that wait to be applied to open connections. With more, all are checked.
pub const REGISTRY_CHANGES_QUEUED_MAX: usize = 1_024;

/// The largest part by which an entry's `cache_ttl_s` is shortened, so that devices that came together
/// are not looked up together.
pub const CACHE_TTL_JITTER: f64 = 0.1;

/// Rows of refusals that wait to be written to a PostgreSQL registry. More are dropped and counted:
/// quarantine has the messages all the same.
pub const EVENTS_WAITING_MAX: usize = 2_000;

/// Bytes of those rows.
pub const EVENT_BYTES_WAITING_MAX: usize = 8 << 20;

/// Counters (minute, tenant, reason) that wait to be written: strangers can invent tenants.
pub const COUNTERS_WAITING_MAX: usize = 10_000;

/// Milliseconds between two writes of refusals.
pub const REFUSALS_WRITTEN_EVERY_MS: u64 = 500;

/// Seconds between two log events about dropped rows: strangers can cause them.
pub const REFUSALS_DROPPED_SAID_EVERY_S: u64 = 60;

/// Seconds after the registry went down in which devices that connect still wait for it. Later ones are
/// answered at once from the cache.
pub const CONNECT_LOOKUP_PATIENCE_S: u64 = 2;

/// CONNECTs that wait for the registry at once, each of an open connection. One more is refused, and
/// the device may try again.
pub const CONNECTS_WAITING_MAX: usize = 20_000;

/// Rows of the table tenants that are read: as many as there may be tenants.
pub const TENANT_ROWS_MAX: i64 = TENANTS_MAX as i64;

/// Bytes of a message that waits for the registry beside its topic and payload: its token, and its places
/// in queues.
pub const PENDING_OVERHEAD_BYTES: u64 = 384;

/// Misses of which one makes an entry in a cache of devices that is full, where a file is the registry: rare enough
/// that its entries are hit before they are evicted, often enough that a busy device has one soon.
pub const TAKEN_OF_MISSES: u64 = 16;

/// Tokens that are remembered beside the hash that they proved, and the most bytes of one: 400 KiB for all. A
/// gateway with more devices at once hashes the tokens of some again.
pub const PROVEN_TOKENS_MAX: usize = 4_096;

pub const PROVEN_TOKEN_BYTES_MAX: usize = 64;

/// Entries of a tape that are not charged to the receive window: 160 bytes, which are part of what each message may
/// take beside its payload.
pub const TAPE_ENTRIES_UNCHARGED: usize = 20;

/// Bytes of a text that a network server gives about a message: as of a name in a topic. Its own names have at most 36,
/// and tags are for people.
pub const UPLINK_TEXT_BYTES_MAX: usize = tidegate_core::limits::TOPIC_NAME_BYTES_MAX;

/// Tags of a device in ChirpStack: each is kept with its message.
pub const UPLINK_TAGS_MAX: usize = 64;
