//! Ceilings of the control plane, each with its reason.

use crate::core::token_bucket::Rate;

/// Tenants with a label of their own in the metrics: a label is a time series in the operator's
/// monitoring for ever, so what is beyond is counted together.
pub const METRIC_TENANTS_MAX: usize = 1_000;

/// Entries of one replay: their locations take 5 MB. The report counts the entries that are left.
pub const REPLAY_ENTRIES_MAX: usize = 100_000;

/// Entries that a replay reads and submits at once.
pub const REPLAY_CHUNK_ENTRIES: usize = 256;

/// Replayed messages on their way at once: enough that a database which answers once a second takes
/// thousands in it, little beside the window that the sources need.
pub const REPLAY_UNSETTLED_MAX: usize = 4_096;

/// Skipped entries that a replay names one by one.
pub const REPLAY_SKIPPED_SHOWN: usize = 100;

/// Entries of quarantine that one request lists, and bytes of its answer: more is for the verb,
/// which reads the files.
pub const QUARANTINE_LISTED_MAX: usize = 1_000;

pub const QUARANTINE_LISTED_BYTES_MAX: usize = 8 << 20;

/// Bytes of a request that names entries: a filter is a few names.
pub const ADMIN_BODY_BYTES_MAX: usize = 64 << 10;

/// Connections to the admin address at once: monitoring and operators need a handful, and a few hundred
/// stalled clients must not keep them out. Each costs some 20 KB; what is beyond waits in the kernel.
pub const ADMIN_CONNECTIONS_MAX: usize = 512;

/// Bytes of log lines that wait for a stderr which is not read: some thousand lines. More are dropped and
/// counted.
pub const LOG_QUEUE_BYTES_MAX: usize = 1 << 20;

/// Open files below which nothing can work: runtime, spool, quarantine and a few connections.
pub const OPEN_FILES_MIN: u64 = 80;

/// Open files that no connection of a device or operator can take: a quarter of the limit, at least so
/// many. The runtime, spool and quarantine have some thirty, and the rest is for databases.
pub const OPEN_FILES_RESERVED_MIN: u64 = 48;

/// And at most so many: 32 requests to each of 100 slow databases.
pub const OPEN_FILES_RESERVED_MAX: u64 = 4_096;

/// Requests without a right token of one address that is not loopback: an operator who mistypes is not
/// locked out, and who guesses gets one try a second.
pub const ADMIN_FAILURES_RATE: Rate = Rate { per_s: 1.0, burst: 20.0 };

/// One address that is not loopback may have one part in this many of the connections to the admin side.
pub const ADMIN_ADDRESS_SHARE: usize = 8;

/// Addresses with such a count; full ones go first.
pub const ADMIN_ADDRESSES_MAX: usize = 10_000;

/// Seconds between two log lines about connections that could not be accepted.
pub const ADMIN_FAULT_SAID_EVERY_S: u64 = 60;

/// Seconds for the head of a request, and for an idle connection: twice the usual interval of a scrape,
/// so that monitoring keeps its connection, and a client that sends half a head goes.
pub const ADMIN_HEADER_TIMEOUT_S: u64 = 30;

/// Seconds for the body of a request that names entries: it is at most `ADMIN_BODY_BYTES_MAX`.
pub const ADMIN_BODY_TIMEOUT_S: u64 = 30;

/// Threads that read files and wait for locks for the admin side. A listing of quarantine keeps one busy for
/// some milliseconds, a rollback that compiles for seconds; requests beyond wait in turn. The runtime of the
/// stream has others.
pub const ADMIN_BLOCKING_THREADS_MAX: usize = 8;

/// Partitions that one answer shows: more is for whoever names one.
pub const STATE_LISTED_MAX: usize = 1_000;

pub const CASES_MAX: usize = 1_000;

/// Changes of one tenant's guests over HTTP, a second and at once: a deployment of all of them passes,
/// a loop that never ends does not take the loader for itself.
pub const GUEST_CHANGES_RATE: Rate = Rate { per_s: 10.0, burst: 100.0 };

/// Devices in the authentication cache where the operator asked for no bound.
pub const CACHE_ENTRIES_UNBOUNDED: usize = 1_000_000;

/// Refusals that `/api/v1/quarantine` shows, newest first.
pub const LATEST_REFUSALS_SHOWN: usize = 20;

/// Unparked messages on their way, and their bytes: little beside the window that the sources need. They
/// are read back so many bytes at once.
pub const UNPARKED_MESSAGES_MAX: u64 = 4_096;

pub const UNPARKED_BYTES_MAX: u64 = 16 << 20;

pub const UNPARK_READ_BYTES: u64 = 256 << 10;

/// The interval of attempts to unpark, in milliseconds.
pub const UNPARK_POLL_MS: u64 = 100;

/// Payload bytes that sources keep whole where a settings table may raise the ceiling while we run.
pub const PAYLOAD_BYTES_LIVE_MAX: u64 = 1 << 20;

/// Answers on the refused topic that wait for the broker session; more are dropped and counted.
pub const REFUSALS_QUEUED_MAX: usize = 256;

/// Answers on the refused topic, to one device and in total: a device that is wrong is wrong in every
/// message, and its owner needs the reason once.
pub const REFUSALS_A_DEVICE_RATE: Rate = Rate { per_s: 0.1, burst: 5.0 };

pub const REFUSALS_RATE: Rate = Rate { per_s: 50.0, burst: 200.0 };

/// Devices with such a rate of their own; the least recent one goes first.
pub const REFUSAL_DEVICES_MAX: usize = 10_000;

/// Bytes of one tenant's settings in the table of a PostgreSQL registry: some hundred fields by name.
pub const TENANT_SETTINGS_BYTES_MAX: usize = 64 << 10;
