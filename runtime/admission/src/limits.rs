use std::time::Duration;

use tidegate_core::limits::TENANTS_MAX;

pub(crate) const RETRY_MIN: Duration = Duration::from_millis(REGISTRY_RETRY_MIN_MS);

pub(crate) const CALLERS_PATIENCE: Duration = Duration::from_secs(CONNECT_LOOKUP_PATIENCE_S);

pub(crate) const PROBE: Duration = Duration::from_millis(REGISTRY_PROBE_MS);

/// Rate buckets of devices: about 100 bytes each. Strangers can name devices that do not exist, so
/// beyond this the idle ones go, and at worst all of them.
pub const BUCKETS_MAX: usize = 500_000;

/// How often, in seconds, a full table of buckets is searched for idle ones.
pub const BUCKET_SWEEP_S: f64 = 1.0;

/// How long a backlog is granted for after a reconnect, in seconds beyond the absence itself: until
/// then the broker has sent what it kept, and what comes later is no backlog.
pub const BACKLOG_GRANT_S: f64 = 60.0;

/// Keys of one look-up in a PostgreSQL registry: a cold start of 10,000 devices is 20 queries, and
/// one query stays far below the time that a lock or a plan may cost.
pub const LOOKUP_KEYS_MAX: usize = 500;

/// Look-ups under way at once in a PostgreSQL registry, each on a connection of its own: one that
/// hangs leaves the other.
pub const LOOKUPS_AT_ONCE: usize = 2;

/// How long a device that was believed a moment ago waits for a slow registry before it is believed
/// on, in milliseconds.
pub const SLOW_LOOKUP_MS: u64 = 300;

/// How long a message waits for the registry before it is parked, in milliseconds: a restart of the
/// database server passes unnoticed. Once the registry was away for so long, it is parked at once.
pub const REGISTRY_WAIT_MS: u64 = 5_000;

/// Seconds to connect to the registry: TCP, TLS and login together.
pub const REGISTRY_CONNECT_TIMEOUT_S: u64 = 3;

/// How often the registry is asked whether it is well while nothing else is asked, in milliseconds;
/// while it is not, this is the longest pause between two tries.
pub const REGISTRY_PROBE_MS: u64 = 2_000;

/// The first pause after a failed try, in milliseconds; it doubles.
pub const REGISTRY_RETRY_MIN_MS: u64 = 100;

/// Devices of which messages are parked, at some 30 bytes: their later ones must queue behind.
pub const PARKED_DEVICES_MAX: usize = 1_000_000;

/// The cache of unknown devices is this part of the whole: strangers can name devices without end,
/// and must not push known ones out.
pub const NEGATIVE_ENTRIES_SHARE: usize = 10;

/// Seconds that an unknown device is believed to be unknown where the registry tells of changes, and
/// where it does not.
pub const NEGATIVE_TTL_S: f64 = 10.0;

pub const NEGATIVE_TTL_WITHOUT_NOTIFY_S: f64 = 0.5;

/// What the registry said is believed for up to this part less than `cache_ttl_s`, so that devices
/// that came together are not asked about together.
pub const CACHE_TTL_JITTER: f64 = 0.1;

/// Rows of refusals that wait to be written to a PostgreSQL registry, and their payloads' bytes. What
/// is over is dropped and counted: quarantine has it all the same.
pub const EVENTS_WAITING_MAX: usize = 2_000;

pub const EVENT_BYTES_WAITING_MAX: usize = 8 << 20;

/// Counters (minute, tenant, reason) that wait to be written: strangers can invent tenants.
pub const COUNTERS_WAITING_MAX: usize = 10_000;

/// How often what waits of refusals is written, in milliseconds.
pub const REFUSALS_WRITTEN_EVERY_MS: u64 = 500;

/// How often at most it is logged that such rows were dropped, in seconds: strangers can cause it.
pub const REFUSALS_DROPPED_SAID_EVERY_S: u64 = 60;

/// Seconds after the registry went down in which devices that connect still wait for it; those that
/// come later are answered at once, by what is known of them.
pub const CONNECT_LOOKUP_PATIENCE_S: u64 = 2;

/// CONNECTs that wait for the registry at once, each of an open connection; one more is told to come
/// again.
pub const CONNECTS_WAITING_MAX: usize = 20_000;

/// Rows of that table that are read: as many tenants as are kept ready.
pub const TENANT_ROWS_MAX: i64 = TENANTS_MAX as i64;
