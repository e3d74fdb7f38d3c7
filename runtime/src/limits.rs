//! Ceilings of the control plane, each with its reason.

use std::time::Duration;

use crate::core::token_bucket::Rate;

/// Tenants with a label of their own in the metrics: a label is a time series in the operator's
/// monitoring for ever, so what is beyond is counted together.
pub const METRIC_TENANTS_MAX: usize = 1_000;

/// Places in the guests folder with labels of their own in the metrics: some ten series each. What is beyond
/// is counted together; of states the worst are shown.
pub const METRIC_ROUTES_MAX: usize = 2_000;

/// Networks in `listen.proxies`: each is looked at for each connection.
pub const LISTENER_PROXIES_MAX: usize = 64;

/// Bytes of a configuration from afar: ten thousand tenants with settings of their own.
pub const CONFIG_BYTES_MAX: usize = 4 << 20;

/// Seconds for a connection to its address, and for all of it: a start waits so long before it takes the kept one.
pub const CONFIG_CONNECT_TIMEOUT_S: u64 = 5;

pub const CONFIG_FETCH_TIMEOUT_S: u64 = 15;

/// Faults of a version that are said one by one.
pub const CONFIG_FINDINGS_SHOWN: usize = 5;

/// Seconds that a command waits for a drain: a day. A longer one is a mistake.
pub const DRAIN_WAIT_S_MAX: u64 = 86_400;

/// Gateways that are listed, and thereby those of a sum.
pub const FLEET_GATEWAYS_MAX: usize = 1_000;

/// Reports that a gateway may miss before it counts as gone, and its name as free.
pub const FLEET_STALE_REPORTS: i32 = 3;

/// Seconds between the reports of a gateway, at most.
pub const FLEET_REPORT_S_MAX: u64 = 3_600;

/// Milliseconds for a query of the fleet's database.
pub const FLEET_QUERY_TIMEOUT_MS: u64 = 5_000;

/// Milliseconds for the last report at a stop: the data path has ended, and a service manager waits.
pub const FLEET_FINISH_TIMEOUT_MS: u64 = 2_000;

/// Decoders and faults that a report names: it is a row, and 50 gateways are read at once.
pub const FLEET_DECODERS_MAX: usize = 200;

pub const FLEET_ERRORS_MAX: usize = 20;

/// Bytes of the name of a gateway: it is a label of each time series.
pub const FLEET_NAME_BYTES_MAX: usize = 64;

/// Milliseconds between a gateway's clock and the database's that are worth a word.
pub const FLEET_CLOCK_AHEAD_MAX_MS: u64 = 2_000;

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

/// Partitions that one answer shows, and the bytes of their values: more is for whoever names one.
pub const STATE_LISTED_MAX: usize = 1_000;

pub const STATE_LISTED_BYTES_MAX: usize = 2 << 20;

/// Uploads of components at once: of one tenant, of all tenants, and of the operator. Each may be as large as a
/// component; a tenant that stalls keeps no other out.
pub const UPLOADS_A_TENANT_MAX: usize = 2;

pub const UPLOADS_OF_TENANTS_MAX: usize = 32;

pub const UPLOADS_OF_OPERATOR_MAX: usize = 4;

/// Bytes a second that an upload must bring after its first seconds, and the time in which it must end: a slow
/// mobile link does it, a stalled one goes.
pub const UPLOAD_BYTES_A_SECOND_MIN: u64 = 16 << 10;

pub const UPLOAD_GRACE: Duration = Duration::from_secs(5);

pub const UPLOAD_TIMEOUT: Duration = Duration::from_secs(60);

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

/// Answers on the refused topic and requests of births that wait for the broker session; more are dropped and
/// counted.
pub const OUTGOING_QUEUED_MAX: usize = 256;

/// Answers on the refused topic, to one device and in total: a device that is wrong is wrong in every
/// message, and its owner needs the reason once.
pub const REFUSALS_A_DEVICE_RATE: Rate = Rate { per_s: 0.1, burst: 5.0 };

pub const REFUSALS_RATE: Rate = Rate { per_s: 50.0, burst: 200.0 };

/// Devices with such a rate of their own; the least recent one goes first.
pub const REFUSAL_DEVICES_MAX: usize = 10_000;

/// Requests of births to all edge nodes together: a birth of a thousand metrics is 50 kB, and a node that is not asked
/// now is asked by its next message.
pub const BIRTH_REQUESTS_RATE: Rate = Rate { per_s: 10.0, burst: 50.0 };

/// Edge nodes of one topic template that are remembered because they were asked; the least recent one goes first.
pub const BIRTH_REQUEST_NODES_MAX: usize = 10_000;

/// Seconds between two requests of births to one edge node, at most: a day.
pub const REBIRTH_INTERVAL_MAX_S: u32 = 86_400;

/// Bytes of one tenant's settings in the table of a PostgreSQL registry: some hundred fields by name.
pub const TENANT_SETTINGS_BYTES_MAX: usize = 64 << 10;

/// Open files beside the connections of devices: segments, quarantine, databases, the broker, HTTP.
pub const OPEN_FILES_BESIDE_CONNECTIONS: u64 = 256;

/// A clock before 2026 is not set: this program is younger.
pub const CLOCK_SET_AFTER_S: u64 = 1_767_225_600;

/// Syncs that `tidegate doctor` measures: enough for a p99 by its worst one, over in a second on most disks.
pub const DOCTOR_FSYNCS: usize = 50;

/// An fsync that is slow: with it, one connection that waits for each PUBACK sends 20 messages a second.
pub const SLOW_FSYNC_MS: u64 = 50;

/// The part of a ceiling of the spool, in percent, from which it is near: at 75 messages begin to wait, those of
/// tenants above an equal share first.
pub const SPOOL_NEAR_PERCENT: u64 = 60;

/// Databases that refuse lines which `tidegate doctor` names one by one.
pub const DOCTOR_DATABASES_MAX: usize = 5;

/// Days before the end of a certificate from which it is near: time for somebody who reads mail once a week.
pub const CERTIFICATE_NEAR_DAYS: u64 = 14;

/// The time for which `tidegate doctor` looks at a broker, in milliseconds: it shows its figures at once, and
/// a client that loses its session comes back within some seconds.
pub const BROKER_LOOK_MS: u64 = 3_000;

/// Bytes of the audit log's file, and as much of the older one: some 80,000 changes.
pub const AUDIT_FILE_BYTES_MAX: u64 = 16 << 20;

/// Resident memory of the gateway without a message: the program, its threads' stacks, compiled decoders,
/// the metrics, and what the allocator keeps.
pub const BUDGET_BASE_BYTES: u64 = 64 << 20;

/// A device in the authentication cache: two names, a site and a hash in a table that is half full.
pub const CACHE_ENTRY_BYTES: u64 = 256;

/// An unsettled message beside its topic and payload: its token, its places in queues, a short tape of its
/// JSON, and the allocator's rounding.
pub const UNSETTLED_MESSAGE_BYTES: u64 = 448;

/// Bytes of lines that the writer has in hand, over all databases: an eighth of the gateway's memory
/// within these bounds. Four requests of 8 MiB are the least that keeps a database busy, and 64 such
/// databases the most that this program is for.
pub const WRITER_BYTES_MIN: u64 = 32 << 20;

pub const WRITER_BYTES_MAX: u64 = 2 << 30;

/// Bytes on disk that are left for decoders, their copies and histories, beside spool and quarantine.
pub const COMPILED_DISK_BYTES: u64 = 256 << 20;

/// The time that sources have at a stop to send PUBACKs of what has settled, once nothing else can settle, in
/// milliseconds: enough for a device that reads.
pub const STOP_ACKNOWLEDGE_MS: u64 = 500;

/// Levels of folders in which `codecs test` looks for codecs: collections have five.
pub const CODEC_FOLDER_DEPTH_MAX: usize = 16;

/// Bytes of a script or of a file with examples: ten times the largest public one.
pub const CODEC_FILE_BYTES_MAX: u64 = 4 << 20;

/// Viewers of the tap at once: each is a bit of a probe, and ten cost the data path less than 3 %.
pub const TAP_VIEWERS_MAX: usize = 24;

/// Viewers of one tenant: its people, and no place of all others.
pub const TAP_VIEWERS_A_TENANT_MAX: usize = 4;

/// Messages a second that a viewer is shown: more nobody reads.
pub const TAP_EVENTS_A_SECOND: Rate = Rate { per_s: 200.0, burst: 50.0 };

/// Probes a second for a viewer that wants one outcome of several: so rare ones are found among others.
pub const TAP_PROBES_A_SECOND: Rate = Rate { per_s: 5_000.0, burst: 500.0 };

/// Events that wait for a viewer's connection: two seconds of them.
pub const TAP_QUEUE_EVENTS: usize = 400;

/// Bytes of lines, and of a payload, that an event keeps.
pub const TAP_LINES_BYTES_MAX: usize = 4 << 10;

pub const TAP_PAYLOAD_BYTES_MAX: usize = 64 << 10;

/// Events that are remembered for a look at their payloads, and their bytes, while there is a viewer.
pub const TAP_MEMORY_EVENTS_MAX: usize = 2_000;

pub const TAP_MEMORY_BYTES_MAX: usize = 4 << 20;

/// Sessions of browsers, of all and of one token: a token is one tenant's, and people share it.
pub const SESSIONS_MAX: usize = 1_000;

pub const SESSIONS_OF_ONE_MAX: usize = 16;

/// The length of a session: a shift. And the time without a request after which it ends; a page that is open asks
/// every few seconds.
pub const SESSION_LENGTH_MAX: Duration = Duration::from_secs(8 * 3_600);

pub const SESSION_IDLE_MAX: Duration = Duration::from_secs(1_800);

/// Calls of one caller that cost more than a look: a person never makes more.
pub const COSTLY_CALLS_RATE: Rate = Rate { per_s: 5.0, burst: 20.0 };

pub const COSTLY_CALLERS_MAX: usize = 10_000;

/// Seconds between two samples of the history, and the samples of an hour.
pub const HISTORY_STEP_S: u64 = 5;

pub const HISTORY_SAMPLES: usize = 720;

/// The same for each tenant, and the tenants that have a history: 512 of them take 1 MB, those beyond are in the
/// gateway's.
pub const TENANT_HISTORY_STEP_S: u64 = 30;

pub const TENANT_HISTORY_SAMPLES: usize = 120;

pub const HISTORY_TENANTS_MAX: usize = 512;

/// Devices that one answer lists.
pub const DEVICES_LISTED_MAX: usize = 10_000;

/// Refusals that are shown of a device.
pub const DEVICE_REFUSALS_SHOWN: usize = 10;

/// Bytes of a payload in the playground: more no device may send by default.
pub const PLAYGROUND_PAYLOAD_BYTES_MAX: usize = 1 << 20;

/// Values of a mapping that the playground shows, and characters of each: what a person looks through.
pub const PLAYGROUND_VALUES_MAX: usize = 1_000;

pub const PLAYGROUND_VALUE_CHARACTERS_MAX: usize = 200;
