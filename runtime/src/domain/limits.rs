//! Every ceiling that is not configuration, each with the reason for its number.

use super::rate::Rate;

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

/// Tenants with a label of their own in the metrics: a label is a time series in the operator's
/// monitoring for ever, so what is beyond is counted together.
pub const METRIC_TENANTS_MAX: usize = 1_000;

/// The largest segment of the spool in bytes: small enough that a database that is dead holds back
/// little beside its own, large enough that a segment a second is a lot.
pub const SPOOL_SEGMENT_BYTES_MAX: u64 = 16 << 20;

/// The least that the spool and a tenant's share of it can be configured to, in bytes: with less it
/// would be full of its own marks, or of a single batch.
pub const SPOOL_BYTES_MIN: u64 = 256 << 10;
pub const SPOOL_TENANT_BYTES_MIN: u64 = 16 << 10;

/// Into so many segments at least the bytes of the spool are divided, so that room comes back in
/// small steps.
pub const SPOOL_SEGMENTS_MIN: u64 = 32;

/// Bytes kept free behind the end of each segment of the spool: the marks by which old segments go
/// must find room on a full disk.
pub const SPOOL_MARKS_RESERVE_BYTES: u64 = 256 << 10;

/// Bytes that the spool writes in one group before it syncs: 4 ms at 2 GB/s.
pub const SPOOL_GROUP_BYTES: u64 = 8 << 20;

/// From one sync of the spool to the next while a trickle is gathered, in milliseconds: a sync costs
/// 200 us of CPU, and 200 of them a second are 4 % of a core.
pub const SPOOL_GATHER_MS: u64 = 5;

/// How long a sync waits at most, in microseconds, for messages of a trickle that are just being
/// decoded: several times what that takes.
pub const SPOOL_KNOWN_WAIT_US: u64 = 1_000;

/// From one read of a socket to the next while a trickle is gathered, in milliseconds: so much
/// later at most a message is acknowledged, and never where its sender waits for that.
pub const SOURCE_GATHER_MS: u64 = 20;

/// How often the spool notes what is released, in milliseconds: so much of what was written is
/// written again after a crash.
pub const SPOOL_MARK_INTERVAL_MS: u64 = 1_000;

/// The wait before a failed write of the spool is tried again, in milliseconds.
pub const SPOOL_RETRY_MS: u64 = 500;

/// Bytes of frames that the writer holds of each database in any case, whatever others hold: four
/// ordinary requests.
pub const SPOOL_HOT_DATABASE_BYTES_MIN: u64 = 256 << 10;

/// Bytes that are read at once when lines are fetched from the disk.
pub const SPOOL_READ_BYTES: usize = 256 << 10;

/// For how long the spool tries to read back from a segment while the disk answers with I/O errors, in
/// seconds, before what it does not give counts as damaged: longer than a controller takes to come back.
pub const SPOOL_READ_PATIENCE_S: u64 = 30;

/// Messages of one connection that may wait for room in the spool before its socket is not read any
/// more: more than clients send ahead, so that a PINGREQ behind them is still read.
pub const HELD_MESSAGES_A_CONNECTION: u64 = 128;

/// Messages of a tenant that may wait for room in the spool, each unacknowledged: two for each device
/// of ten thousand. From half of it on its devices are not read any more.
pub const DEFERRED_MESSAGES_A_TENANT_MAX: u64 = 20_000;

/// Bytes of lines and what belongs to them that may wait for room, of a tenant and of all: a quarter,
/// and all, of the bytes that are unsettled by default. Beyond the latter each tenant has an even share.
pub const DEFERRED_BYTES_A_TENANT_MAX: u64 = 16 << 20;
pub const DEFERRED_BYTES_MAX: u64 = 64 << 20;

/// Bytes that a message that waits for room counts as beside its lines and its topic.
pub const DEFERRED_OVERHEAD_BYTES: u64 = 256;

/// Tenants that `/readyz` names which wait for room: as many as a line of a terminal shows.
pub const SHOWN_WAITING_TENANTS: usize = 8;

/// How often a device that is not read, because its messages wait for room, is looked after, in
/// milliseconds: whether it is still there, and whether its keep-alive is over.
pub const HELD_LOOK_MS: u64 = 1_000;

/// Bytes of lines in one request while catching up: InfluxDB 3 takes 10 MiB before it unzips.
pub const BATCH_BYTES_MAX: usize = 8 << 20;

/// Requests under way to one endpoint, of all databases that are well: an InfluxDB 3 answers a write
/// a second later, so this is how many databases can be written to in a second there.
pub const ENDPOINT_REQUESTS_MAX: usize = 512;

/// Requests under way of databases whose last one failed: apart, so that the dead ones, however
/// many, take no place of the others.
pub const ENDPOINT_PROBES_MAX: usize = 64;

/// A request that takes longer than this, in milliseconds, gives its place to others: a healthy
/// InfluxDB 3 answers within one.
pub const SLOW_REQUEST_MS: u64 = 2_000;

/// Requests that gave their place away; each is a socket and a body in memory.
pub const ENDPOINT_SLOW_REQUESTS_MAX: usize = 1_024;

/// Connections kept open to an endpoint while nothing is under way.
pub const ENDPOINT_IDLE_CONNECTIONS_MAX: usize = 64;

/// Bytes of lines that a database in trouble keeps in memory beside what it tries; the rest goes
/// back to the spool.
pub const TROUBLE_BYTES_MAX: usize = 64 << 10;

/// Bytes of lines that are fetched from the spool at once, and below which more are: two requests
/// of a catch-up.
pub const FETCH_BYTES: usize = 8 << 20;
pub const FETCH_LOW_BYTES: usize = 4 << 20;

/// Bytes read of a database's answer: 10,000 refused lines of 200 bytes each make 2 MB.
pub const ANSWER_BYTES_MAX: usize = 4 << 20;

/// Characters kept of a database's answer where it is shown or logged.
pub const ANSWER_SHOWN_CHARS: usize = 400;

/// How much before its flush interval is over a batch may go along with others that are due, in
/// milliseconds: so many databases share one wake-up, and nobody sees a hundredth of a second.
pub const FLUSH_EARLY_MS_MAX: u64 = 10;

/// How long the writer's thread rests, in milliseconds, before it looks for answers that nobody
/// waits for: at a thousand small requests a second five are handled at once.
pub const WRITER_REST_MS: u64 = 5;

/// Seconds after which an idle connection to an endpoint is closed: servers close theirs after some
/// minutes.
pub const ENDPOINT_IDLE_S: u64 = 90;

/// The first and the longest wait before a request is tried again, in milliseconds.
pub const RETRY_MIN_MS: u64 = 1_000;
pub const RETRY_MAX_MS: u64 = 60_000;

/// How long a request waits whose fault only a person can mend (token, database, product), in
/// milliseconds: it is asked again at a random time between the two.
pub const PAUSE_MIN_MS: u64 = 30_000;
pub const PAUSE_MAX_MS: u64 = 60_000;

/// The longest wait that a `Retry-After` may ask for, in milliseconds: a proxy that names next
/// year must not stop the gateway until then.
pub const RETRY_AFTER_MAX_MS: u64 = 300_000;

/// So many single lines refused with the same unspecific words, and none accepted between them,
/// mean that the request is at fault and not the lines.
pub const SAME_REFUSALS_MAX: u32 = 3;

/// A connection that breaks twice while more than this many bytes are sent is a server that takes
/// no body of this size: the batch is split.
pub const SUSPECT_BODY_BYTES: usize = 1 << 20;

/// Bodies above this size are compressed off the async threads: 64 KiB take about a millisecond.
pub const GZIP_INLINE_BYTES_MAX: usize = 64 << 10;

/// Line files held open by the file output; each costs a file descriptor, and the usual limit of
/// a process is 1,024.
pub const LINE_FILES_OPEN_MAX: usize = 128;

/// Entries a second and reason that quarantine keeps of what was refused before authentication:
/// anybody who may publish can cause them.
pub const STRANGER_ENTRIES_PER_S: u32 = 10;

/// Bytes that quarantine keeps of a payload refused before authentication.
pub const STRANGER_PAYLOAD_KEPT_BYTES: usize = 1024;

/// The share of quarantine's bytes for what was refused before authentication: one in this many.
pub const STRANGER_SHARE: u64 = 10;

/// The largest quarantine segment in bytes: the ring forgets one segment at a time.
pub const QUARANTINE_SEGMENT_BYTES_MAX: u64 = 16 << 20;

/// Into so many segments at least the bytes of quarantine are divided, so that what the ring
/// forgets at a time stays a small share.
pub const QUARANTINE_SEGMENTS_MIN: u64 = 16;

/// Payload bytes that quarantine writes in one group before it syncs.
pub const QUARANTINE_GROUP_BYTES: u64 = 4 << 20;

/// Entries that one replay takes at most: with their places it holds 5 MB, and what is left is told.
pub const REPLAY_ENTRIES_MAX: usize = 100_000;

/// Entries that a replay reads and hands on at once.
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

/// Lines of one message: what a guest may make of one payload. A day of minute values is 1,440, but
/// such a payload is rare, and one message must not fill a batch ten times over.
pub const LINES_A_MESSAGE_MAX: u32 = 1_000;

/// From the stamp of one message to that of the next, in nanoseconds: each line of a message can have a
/// time of its own in between, and a million messages a second keep step with the clock.
pub const RECEIVE_STAMP_GAP_NS: i64 = LINES_A_MESSAGE_MAX as i64;

/// How far ahead the mark of the receive clock is moved, in nanoseconds: a busy gateway writes it every
/// two seconds, and after a crash the first stamps are ahead of the clock by no more.
pub const RECEIVE_MARK_LEAD_NS: i64 = 2_000_000_000;

/// How far stamps may be ahead of the wall clock after it was set back, in nanoseconds: a day, which no
/// time zone and no drift comes near. Beyond it the clock had been wrong before.
pub const RECEIVE_CLOCK_AHEAD_MAX_NS: i64 = 86_400_000_000_000;

/// A wall clock before this, in nanoseconds since the epoch, was never set: the first of January 2026,
/// before this program was.
pub const CLOCK_SET_AFTER_NS: i64 = 1_767_225_600_000_000_000;

/// Bytes of one line: databases take a request of 10 MiB, and 500 columns of 2 KiB fit.
pub const LINE_BYTES_MAX: usize = 1 << 20;

/// Bytes of a measurement, a key or a tag value: what InfluxDB 3 takes.
pub const NAME_BYTES_MAX: usize = 65_536;

/// Bytes of a string value: what InfluxDB 3 takes.
pub const STRING_BYTES_MAX: usize = 65_536;

/// Rate buckets of devices: about 100 bytes each. Strangers can name devices that do not exist, so
/// beyond this the idle ones go, and at worst all of them.
pub const BUCKETS_MAX: usize = 500_000;

/// How often, in seconds, a full table of buckets is searched for idle ones.
pub const BUCKET_SWEEP_S: f64 = 1.0;

/// Tenants kept ready. More are served, each made anew a message.
pub const TENANTS_MAX: usize = 100_000;

/// One tick of the clock that ends long calls, in milliseconds: a call overruns by at most one.
pub const EPOCH_TICK_MS: u64 = 1;

/// CPU time of one call of a guest, in milliseconds, however many messages it carries: so long may
/// the others of its thread wait for it.
pub const CALL_CPU_MS_MAX: u64 = 20;

/// CPU time in which a guest must start and configure itself, in milliseconds: tables of a codec
/// are built there, once an instance.
pub const CONFIGURE_CPU_MS: u64 = 100;

/// Stack of a guest in bytes: deep enough for a parser of nested JSON, small beside a thread's.
pub const GUEST_STACK_BYTES: usize = 256 << 10;

/// CPU time of compiling one component, in seconds: a decoder of 150 kB takes a tenth of one, a
/// megabyte of functions three.
pub const COMPILE_CPU_S: u64 = 10;

/// Address space of the compiler beyond what the program has when it starts: a megabyte of functions
/// took 445 MiB.
pub const COMPILE_MEMORY_BYTES_MAX: u64 = 1 << 30;

/// Bytes of machine code of one component: about five times the largest component.
pub const COMPILE_OUTPUT_BYTES_MAX: u64 = 64 << 20;

/// Seconds by the clock for compiling one component: three times its CPU time, for it runs at the
/// lowest priority, and whoever put it there waits.
pub const COMPILE_WALL_S: u64 = 30;

/// Bytes of compiled guests kept on disk: a thousand decoders of a megabyte each.
pub const COMPILE_CACHE_BYTES_MAX: u64 = 1 << 30;

/// Elements of a guest's tables: a large Rust program has a few thousand functions in them.
pub const GUEST_TABLE_ELEMENTS_MAX: usize = 10_000;

/// The same for the class large: the JavaScript engine SpiderMonkey has 13,000 functions in its own.
pub const LARGE_TABLE_ELEMENTS_MAX: usize = 100_000;

/// Bytes of machine code of one component of the class large: a JavaScript engine of 12 MB makes 40.
pub const LARGE_COMPILE_OUTPUT_BYTES_MAX: u64 = 256 << 20;

/// Memories, tables and core instances of one guest of the class large, where no pool counts them: a
/// component as tools make them has one memory, two or three tables and four instances.
pub const LARGE_MEMORIES_MAX: usize = 1;
pub const LARGE_TABLES_MAX: usize = 8;
pub const LARGE_CORE_INSTANCES_MAX: usize = 32;

/// Stack of a guest of the class large in bytes: an interpreter recurses where its script does. Half of
/// a thread's, so that the host's own frames have room behind it.
pub const LARGE_STACK_BYTES: usize = 1 << 20;

/// Instances of the class large that trying out new versions may take beside those that serve: a
/// shadow run has two.
pub const LARGE_TRIAL_INSTANCES: usize = 2;

/// Components of the class large that wait to be judged: each may have tens of megabytes.
pub const LARGE_PUTS_WAITING_MAX: usize = 4;

/// Bytes of memory that an instance keeps resident when its slot is used again: clearing them is
/// cheaper than faulting them in.
pub const INSTANCE_KEPT_BYTES: usize = 1 << 20;

/// Instances at once, of all threads. Each takes a few memory mappings, and Linux gives a process
/// 65,530.
pub const INSTANCES_MAX: usize = 4_000;

/// Bytes of lines of one message.
pub const OUTPUT_BYTES_A_MESSAGE_MAX: usize = 1 << 20;

/// Bytes of an answer beside the lines: an outcome, a refusal's code and detail.
pub const OUTPUT_OVERHEAD_BYTES_A_MESSAGE: usize = 4 << 10;

/// Calls of `context` a message of a batch: there are three things to ask about each, and a decoder
/// that asks anew for every line asks a thousand times.
pub const GUEST_CONTEXT_CALLS_A_MESSAGE_MAX: u32 = 4 * LINES_A_MESSAGE_MAX;

/// Bytes of an answer of `configure`: words for the person who shipped it.
pub const CONFIGURE_OUTPUT_BYTES_MAX: usize = 64 << 10;

/// Calls of `log` in a batch: what is over is dropped and counted.
pub const GUEST_LOG_CALLS_MAX: u32 = 16;

/// Bytes of one log text of a guest.
pub const GUEST_LOG_BYTES_MAX: usize = 1_024;

/// Texts a second of a route's guests that reach the operator's log, and at once: enough to follow
/// a fault, too little to hide others in.
pub const GUEST_LOG_RATE: Rate = Rate { per_s: 10.0, burst: 100.0 };

/// The same for all guests that decode one tenant's messages: a tenant may have any number of routes.
pub const GUEST_LOG_TENANT_RATE: Rate = Rate { per_s: 10.0, burst: 100.0 };

/// Tenants that this rate is kept for; those who said nothing lately are forgotten first.
pub const GUEST_LOG_TENANTS_MAX: usize = 10_000;

/// Texts kept a route for `guest log`: 100 KiB at most.
pub const GUEST_LOG_KEPT: usize = 100;

/// Bytes of a key of a guest's state, and of a value: a name, and some numbers or a small record.
pub const STATE_KEY_BYTES_MAX: usize = 64;
pub const STATE_VALUE_BYTES_MAX: usize = 1_024;

/// Keys of one partition: one for each counter of a large meter.
pub const STATE_KEYS_MAX: usize = 32;

/// Different keys that one message may set or remove: every key of a partition once, and as many anew.
pub const STATE_WRITES_A_MESSAGE_MAX: usize = 64;

/// Bytes of one tenant's state, with what holds it: 100,000 devices with a counter each. It is in memory
/// twice, as decoders see it and as the disk has it.
pub const STATE_TENANT_BYTES_MAX: u64 = 32 << 20;

/// Bytes of the state of all tenants. From three quarters on only tenants below their even share may
/// grow.
pub const STATE_BYTES_MAX: u64 = 128 << 20;

/// Partitions that one answer shows: more is for whoever names one.
pub const STATE_LISTED_MAX: usize = 1_000;

/// Sessions of the listener that are remembered after their connection has ended, and unacknowledged
/// messages of each: 40 MB. What is over may be decoded again.
pub const LISTENER_SESSIONS_MAX: usize = 10_000;
pub const LISTENER_SESSION_IDS_MAX: usize = 1_024;

/// Unacknowledged messages of a broker's session: all packet ids there are.
pub const BROKER_SESSION_IDS_MAX: usize = 65_535;

/// Versions a route that are remembered, with copies to go back to.
pub const GUEST_VERSIONS_KEPT: usize = 5;

/// Messages and seconds for which a new version is watched: a day's worth of a slow fleet would be
/// too long to keep the old one at hand, a few messages too little to judge by.
pub const PROBATION_MESSAGES: u64 = 1_000;
pub const PROBATION_S: u64 = 300;

/// The most of both that a route may ask for.
pub const PROBATION_MESSAGES_MAX: u64 = 1_000_000;
pub const PROBATION_S_MAX: u64 = 86_400;

/// Failures in a hundred messages that a new version may have where the one before has none: a
/// stricter decoder refuses some, a wrong one most.
pub const FAILURES_PERCENT_MAX: u64 = 5;

/// Failures are judged as if so many messages had come at least: two stray ones among the first
/// are no verdict.
pub const PROBATION_MESSAGES_MIN: u64 = 40;

/// Messages of a route that are remembered to try its next version on, and their payload bytes: a
/// thousand routes of large messages take 64 MB.
pub const RECENT_MESSAGES: usize = 64;
pub const RECENT_BYTES_MAX: usize = 64 << 10;

/// How many messages of a route are remembered: all of a quiet one, of a busy one so few that the
/// copies cost a ten-thousandth of a core.
pub const RECENT_RATE: Rate = Rate { per_s: 640.0, burst: RECENT_MESSAGES as f64 };

/// Seconds that trying out a version on recent messages or on its cases may take.
pub const TRIAL_S_MAX: u64 = 20;

/// Bytes of a file of cases, and cases in it.
pub const CASES_BYTES_MAX: u64 = 4 << 20;
pub const CASES_MAX: usize = 1_000;

/// Bytes of a route's TOML file.
pub const ROUTE_FILE_BYTES_MAX: u64 = 64 << 10;

/// Changes of one tenant's guests over HTTP, a second and at once: a deployment of all of them passes,
/// a loop that never ends does not take the loader for itself.
pub const GUEST_CHANGES_RATE: Rate = Rate { per_s: 10.0, burst: 100.0 };

/// Components that wait to be judged, in all and of one tenant: each may be as large as a component.
pub const GUEST_PUTS_WAITING_MAX: usize = 32;
pub const GUEST_PUTS_WAITING_A_TENANT_MAX: usize = 4;

/// CPU time a message, in microseconds, above which a route goes to the slow lane, and below which
/// it comes back: a decoder of some kilobytes of JSON takes 20.
pub const SLOW_ABOVE_US: u64 = 1_000;
pub const SLOW_BELOW_US: u64 = 500;

/// Messages over which the CPU time a message is averaged.
pub const PACE_MESSAGES: u64 = 16;

/// Messages of one route that wait in the slow lane before the sources that bring more wait.
pub const SLOW_WAITING_MAX: u64 = 256;

/// Bytes of a guest's code of a refusal that are kept.
pub const REFUSAL_CODE_BYTES_MAX: usize = 64;

/// Bytes of the detail of any refusal: some sentences and an excerpt. Strangers cause details, and each
/// one is masked, stored and sent.
pub const REFUSAL_DETAIL_BYTES_MAX: usize = 1_024;

/// Bytes of a stranger's text that a detail quotes: a whole name of a topic.
pub const QUOTED_BYTES_MAX: usize = 256;

/// Bytes of the names of tenant, device and message type in a topic: the longest name of a file, and
/// ten times a UUID. Names are keys of caches, accounts, metrics and rows.
pub const TOPIC_NAME_BYTES_MAX: usize = 255;

/// Messages that a decode thread takes at once from what waits: enough to fill batches of several
/// tenants, little enough that the first is not kept for long.
pub const DECODE_GATHER_MESSAGES: usize = 512;

/// Groups of messages that wait for one decode thread before sources wait for it.
pub const DECODE_QUEUE_GROUPS: usize = 256;

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
/// one half packet each. Only bytes that came count, and the next step.
pub const LISTENER_BUFFER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// One address, and one tenant, may hold one part in this many of it: 64 packets of 256 KiB under way,
/// and three quarters are left to the others.
pub const LISTENER_BUFFER_ADDRESS_SHARE: usize = 4;
pub const LISTENER_BUFFER_TENANT_SHARE: usize = 4;

/// Bytes of a CONNECT: a client id, a user name and a password of a kilobyte each, and five for a will
/// and properties. Who sends it has proved nothing yet.
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

/// Bytes that the kernel queues towards one device: 8,000 PUBACKs, and what a peer that never reads
/// can make us hold is this and no more.
pub const LISTENER_SEND_BUFFER_BYTES: usize = 32 * 1024;

/// Seconds for TCP, TLS, CONNECT and CONNACK together.
pub const BROKER_CONNECT_TIMEOUT_S: u64 = 10;

/// Seconds for a broker to close the connection after our DISCONNECT. Until then it may have PUBACKs
/// of ours to read, and one that keeps its queue on disk reads a few in a second.
pub const BROKER_GOODBYE_S: u64 = 5;

/// Seconds that a broker is to keep our session while we are gone: for ever, as MQTT 3.1.1 has it. Any
/// shorter one would lose what waits in it when an outage lasts longer; a broker may lower it.
pub const BROKER_SESSION_EXPIRY_S: u32 = u32::MAX;

/// Messages that a broker may have under way to us: all packet ids there are, as in MQTT 3.1.1. What we
/// cannot take we do not read, and the broker has a bound of its own.
pub const BROKER_RECEIVE_MAXIMUM: u16 = u16::MAX;

/// Bytes of the name of a group that shares a subscription: as much as a name of a tenant may have.
pub const SHARE_GROUP_BYTES_MAX: usize = 255;

/// Seconds of keep-alive that the broker session asks for: half of it is how long the output may
/// be blocked before the broker sees us leave, and all of it how long a dead link goes unnoticed.
pub const BROKER_KEEP_ALIVE_S: u16 = 30;

/// Devices in the authentication cache where the operator asked for no bound.
pub const CACHE_ENTRIES_UNBOUNDED: usize = 1_000_000;

/// Refusals that `/api/v1/quarantine` shows, newest first.
pub const LATEST_REFUSALS_SHOWN: usize = 20;

/// Bytes of measurement and tags together: what InfluxDB 1 and 2 take as a series.
pub const SERIES_BYTES_MAX: usize = 65_535;

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

/// Of each tenant's share of the spool, and of the whole of it, one part in this many may be parked
/// messages: anybody who may publish can cause them while the registry is away, and the lines of known
/// devices go on.
pub const PARKED_TENANT_SHARE: u64 = 2;
pub const PARKED_SPOOL_SHARE: u64 = 4;

/// Tenants that nobody has vouched for of which messages are parked: anybody can invent names, and each
/// is remembered until a restart.
pub const PARKED_STRANGERS_MAX: usize = 1_000;

/// Devices of which messages are parked, at some 30 bytes: their later ones must queue behind.
pub const PARKED_DEVICES_MAX: usize = 1_000_000;

/// Bytes of messages in one frame of parked ones, but for a single larger one: it is read back whole.
pub const PARKED_FRAME_BYTES: usize = 64 << 10;

/// Of what waits for the disk, so many frames are looked at for one that a parked message may join.
pub const PARKED_FRAMES_LOOKED_AT: usize = 32;

/// Messages that were parked and are on their way again, and their bytes: little beside the window
/// that the sources need. They are read back so many bytes at once.
pub const TAKEN_UP_MESSAGES_MAX: u64 = 4_096;
pub const TAKEN_UP_BYTES_MAX: u64 = 16 << 20;
pub const TAKEN_UP_READ_BYTES: u64 = 256 << 10;

/// How often it is looked whether what is parked can be taken up, in milliseconds.
pub const TAKE_UP_LOOK_MS: u64 = 100;

/// The cache of unknown devices is this part of the whole: strangers can name devices without end,
/// and must not push known ones out.
pub const ABSENT_SHARE: usize = 10;

/// Seconds that an unknown device is believed to be unknown where the registry tells of changes, and
/// where it does not.
pub const ABSENT_TTL_S: f64 = 10.0;
pub const ABSENT_TTL_UNTOLD_S: f64 = 0.5;

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

/// Payload bytes that sources keep whole where a settings table may raise the ceiling while we run.
pub const PAYLOAD_BYTES_LIVE_MAX: u64 = 1 << 20;

/// Bytes of a refusal's detail that travel with a PUBACK of MQTT 5: a sentence. So much waits for each
/// refused message behind one that is not settled.
pub const TOLD_BYTES_MAX: usize = 256;

/// Bytes of the properties of one MQTT 5 PUBLISH: some dozen user properties. Nothing here reads them,
/// and they lie in memory beside the payload.
pub const PROPERTIES_BYTES_MAX: usize = 8 * 1024;

/// Seconds for a TLS handshake: two round trips of a poor mobile link, and our own CPU when a site
/// full of devices comes back at once.
pub const TLS_HANDSHAKE_TIMEOUT_S: u64 = 10;

/// Seconds that a CONNECT waits for the registry before it is told to come again: as long as a
/// message waits before it is parked, and shorter than clients wait for a CONNACK.
pub const CONNECT_REGISTRY_WAIT_S: u64 = 5;

/// Seconds after the registry went down in which devices that connect still wait for it; those that
/// come later are answered at once, by what is known of them.
pub const CALLERS_PATIENCE_S: u64 = 2;

/// CONNECTs that wait for the registry at once, each of an open connection; one more is told to come
/// again.
pub const CONNECTS_WAITING_MAX: usize = 20_000;

/// Milliseconds that a connection which was refused or ended by us is read on, so that the last packet
/// to it is not lost to a reset.
pub const LINGER_MS: u64 = 500;

/// Bytes of a user name and of a password in a CONNECT.
pub const USERNAME_BYTES_MAX: usize = 1024;
pub const PASSWORD_BYTES_MAX: usize = 1024;

/// Addresses, or addresses and names, that a ceiling of the listener remembers: what is full again is
/// forgotten first. An entry is about 60 bytes.
pub const DOOR_BUCKETS_MAX: usize = 50_000;

/// One address may fail at CONNECT so many times as often as one name from there: a site of several
/// devices with an old password is no guesser.
pub const FAILED_CONNECTS_ADDRESS_FACTOR: u32 = 20;

/// Tenants that the listener counts by name: each is one that the registry knows, and goes with its
/// last connection.
pub const DOOR_TENANTS_MAX: usize = 100_000;

/// Answers on the refused topic that wait for the broker session; more are dropped and counted.
pub const ANSWERS_WAITING_MAX: usize = 256;

/// Answers on the refused topic, to one device and in total: a device that is wrong is wrong in every
/// message, and its owner needs the reason once.
pub const ANSWERS_A_DEVICE_RATE: Rate = Rate { per_s: 0.1, burst: 5.0 };
pub const ANSWERS_RATE: Rate = Rate { per_s: 50.0, burst: 200.0 };

/// Devices that those rates are kept for.
pub const ANSWER_DEVICES_MAX: usize = 10_000;
/// Bytes of a prefix of a tenant's tables, and of the name of the tag that carries the tenant: names of
/// tenants are short, and every line carries them.
pub const TABLE_PREFIX_BYTES_MAX: usize = 128;
pub const TENANT_TAG_BYTES_MAX: usize = 64;

/// Bytes of one tenant's settings in the table of a PostgreSQL registry: some hundred fields by name.
pub const TENANT_SETTINGS_BYTES_MAX: usize = 64 << 10;

/// Rows of that table that are read: as many tenants as are kept ready.
pub const TENANT_ROWS_MAX: i64 = TENANTS_MAX as i64;

/// The window, in milliseconds, in which the CPU time of tenants is compared, and into how many parts
/// it moves: long enough that a burst of a second is no hog, short enough that a hog stands in front
/// of the others for no longer.
pub const CPU_WINDOW_MS: u64 = 1_000;
pub const CPU_WINDOW_PARTS: usize = 8;

/// Messages of one route that wait in the slow lane because their tenant is over its share of the CPU,
/// before the sources that bring more wait: a twelfth of the window of unsettled messages, so that
/// a broker session goes on with the others for a while.
pub const OVER_SHARE_WAITING_MAX: u64 = 8_192;

/// Bytes of lines that one tenant may have in the writer's hands of a database that it shares with
/// others, so that a line of another waits behind seconds of it and not behind all that fits the memory.
pub const SPOOL_HOT_SHARED_BYTES_MAX: u64 = 8 << 20;
