//! Ceilings of decoding, each with the reason for its number.

use tidegate_core::limits::LINES_A_MESSAGE_MAX;
use tidegate_core::token_bucket::Rate;

/// Messages in one call of a guest: a call costs about 500 ns whatever it carries, 64 pay for it,
/// and more would let one call hold a decode thread for longer.
pub const DECODE_BATCH_MESSAGES_MAX: usize = 64;

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

/// Elements of a guest's tables: a large Rust program has a few thousand functions in them.
pub const GUEST_TABLE_ELEMENTS_MAX: usize = 10_000;

/// The same for the class large: the JavaScript engine SpiderMonkey has 13,000 functions in its own.
pub const LARGE_TABLE_ELEMENTS_MAX: usize = 100_000;

/// Memories, tables and core instances of one guest of the class large, where no pool counts them: a
/// component as tools make them has one memory and two or three tables; a JavaScript engine has four
/// instances, a Python interpreter with its libraries more than 32.
pub const LARGE_MEMORIES_MAX: usize = 1;

pub const LARGE_TABLES_MAX: usize = 8;

pub const LARGE_CORE_INSTANCES_MAX: usize = 64;

/// Core instances of one guest of the class normal: a module, its adapter to WASI and three that join them, as tools
/// make them. The pool only counts them.
pub const CORE_INSTANCES_MAX: u32 = 5;

/// Handles of WASI that an instance holds at once: its three streams, and what one message opens.
pub const WASI_HANDLES_MAX: u32 = 64;

/// Bytes that a guest writes in one call of WASI; runtimes are told so and write in parts.
pub const WASI_WRITE_BYTES_MAX: usize = 4 << 10;

/// Bytes of what a guest writes in one call of it that are kept for its log: a trace of some frames.
pub const WASI_OUTPUT_BYTES_KEPT: usize = 4 << 10;

/// Random bytes in one call of WASI: a runtime seeds its generators with some dozen.
pub const WASI_RANDOM_BYTES_MAX: u64 = 64 << 10;

/// Nanoseconds by which the monotonic clock of WASI moves at each question.
pub const WASI_CLOCK_STEP_NS: u64 = 1_000;

/// The time of WASI before the first message: 1 January 2026.
pub const WASI_START_NS: u64 = 1_767_225_600_000_000_000;

/// Stack of a guest of the class large in bytes: an interpreter recurses where its script does. Half of
/// a thread's, so that the host's own frames have room behind it.
pub const LARGE_STACK_BYTES: usize = 1 << 20;

/// Bytes of memory that an instance keeps resident when its slot is used again: clearing them is
/// cheaper than faulting them in. A decoder touches some 40 KiB, and every slot that was ever used keeps
/// so much for good.
pub const INSTANCE_KEPT_BYTES: usize = 128 << 10;

/// Bytes of an instance beside its linear memory and tables: its store, and the host's tables.
pub const INSTANCE_OVERHEAD_BYTES: u64 = 32 << 10;

/// Bytes of one element of a table.
pub const TABLE_ELEMENT_BYTES: u64 = 16;

/// The longest wait of a call for memory that other calls have, in milliseconds: ten of the longest calls.
pub const CALL_MEMORY_WAIT_MS: u64 = 10 * CALL_CPU_MS_MAX;

/// Routes that one thread remembers, by tenant and message type. Devices choose the types. An entry is
/// some 400 bytes.
pub const CACHED_ROUTES_MAX: usize = 8_192;

/// Uses of a route that are counted, and by how many more than another it makes that one's instance go: tenants that
/// come in turn differ by one.
pub const USES_MAX: u8 = 15;

pub const USES_MARGIN: u8 = 1;

/// Uses a route, on average, after which all counts are halved.
pub const USES_HALVED_AFTER: usize = 8;

/// Instances of which the one that is used least goes: enough for one of the least used quarter, few enough to look
/// at for each instance that is started.
pub const VICTIMS_COMPARED: usize = 8;

/// Instances at once, of all threads. The budget of memory bounds them before, but on a large machine. Each takes
/// two to four memory mappings, of which Linux gives a process 65,530, and reserves 4 GiB of the 128 TiB of addresses.
pub const INSTANCES_MAX: usize = 5_000;

/// The part of the decode threads, and that of the slow lane's threads. The rest is for trials of new versions.
pub const DECODE_INSTANCES_MAX: usize = INSTANCES_MAX / 4 * 3;

pub const SLOW_INSTANCES_MAX: usize = INSTANCES_MAX / 6;

/// Threads that call decoders, for each one that is configured: a decode thread, and one of the slow lane.
pub const INSTANCE_CALLS_PER_THREAD: usize = 2;

/// Bytes of an answer beside the lines: an outcome, a refusal's code and detail.
pub const OUTPUT_OVERHEAD_BYTES_A_MESSAGE: usize = 4 << 10;

/// Calls of `context` a message of a batch: there are three things to ask about each, and a decoder
/// that asks anew for every line asks a thousand times.
pub const GUEST_CONTEXT_CALLS_A_MESSAGE_MAX: u32 = 4 * LINES_A_MESSAGE_MAX;

/// Bytes of an answer of `configure`: words for the person who shipped it.
pub const CONFIGURE_OUTPUT_BYTES_MAX: usize = 64 << 10;

/// Calls of `log` in a batch: more are dropped and counted.
pub const GUEST_LOG_CALLS_MAX: u32 = 16;

/// Bytes of one log text of a guest.
pub const GUEST_LOG_BYTES_MAX: usize = 1_024;

/// Values that one batch may report as left out: 64 messages of 4,096 values. A guest that says more counts so many.
pub const IGNORED_A_BATCH_MAX: u64 = 262_144;

/// Names of such values that are kept for `explain`, and bytes of each.
pub const IGNORED_NAMES_MAX: usize = 8;

pub const IGNORED_NAME_BYTES_MAX: usize = 128;

/// Texts a second of a route's guests that reach the operator's log, and at once: enough to follow
/// a fault, too little to hide others in.
pub const GUEST_LOG_RATE: Rate = Rate { per_s: 10.0, burst: 100.0 };

/// The same for all guests that decode one tenant's messages: a tenant may have any number of routes.
pub const GUEST_LOG_TENANT_RATE: Rate = Rate { per_s: 10.0, burst: 100.0 };

/// Tenants that this rate is kept for; those that logged nothing lately are forgotten first.
pub const GUEST_LOG_TENANTS_MAX: usize = 10_000;

/// Texts kept a route for `guest log`: 100 KiB at most.
pub const GUEST_LOG_KEPT: usize = 100;

/// Bytes of a key of a guest's state, and of a value: a name, and some numbers or a small record.
pub const STATE_KEY_BYTES_MAX: usize = 64;

pub const STATE_VALUE_BYTES_MAX: usize = 1_024;

/// Parts of a partition's template: a device, its type, and some levels of the topic with text between them.
pub const PARTITION_PARTS_MAX: usize = 16;

/// Bytes of a partition's name: it is kept with each value, in memory and on disk, and a device chooses the
/// topic that it is made of.
pub const PARTITION_BYTES_MAX: usize = 1_024;

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

/// Copies of each value in memory: as decoders see it, and as the disk has it.
pub const STATE_COPIES: u64 = 2;

/// Message types of tenants whose values are kept track of before those without values are dropped.
pub const STATE_ROUTES_SWEPT_ABOVE: usize = 64;

/// Bytes in memory of a message type with values, beside its name.
pub const STATE_SCOPE_BYTES: u64 = 256;

/// Failures are judged as if so many messages had come at least: two stray ones among the first
/// are no verdict.
pub const PROBATION_MESSAGES_MIN: u64 = 40;

/// Messages of a route that are remembered to try its next version on, and their payload bytes: a
/// thousand routes of large messages take 64 MB.
pub const RECENT_MESSAGES: usize = 64;

pub const RECENT_BYTES_MAX: usize = 64 << 10;

/// Bytes of a remembered message beside its topic and payload.
pub const RECENT_OVERHEAD_BYTES: usize = 160;

/// The step in which remembered messages are charged to their tenant: some dozen messages.
pub const RECENT_CHARGE_BYTES: usize = 8 << 10;

/// Bytes of a kept text of a decoder beside the text.
pub const GUEST_LOG_OVERHEAD_BYTES: u64 = 128;

/// Messages of a route that are remembered: all of a quiet one, of a busy one so few that the
/// copies cost a ten-thousandth of a core.
pub const RECENT_RATE: Rate = Rate { per_s: 640.0, burst: RECENT_MESSAGES as f64 };

/// CPU time a message, in microseconds, above which a route goes to the slow lane, and below which
/// it comes back: a decoder of some kilobytes of JSON takes 20.
pub const SLOW_ABOVE_US: u64 = 1_000;

pub const SLOW_BELOW_US: u64 = 500;

/// Messages over which the CPU time a message is averaged.
pub const COST_MESSAGES: u64 = 16;

/// Messages of a tenant that are decoded apart after a call that it shared was unusual: as many as a full call
/// has, so that a message in sixty-four that is dear is found.
pub const APART_MESSAGES: u32 = 64;

/// Calls over which the usual cost of a shared decoder is averaged.
pub const COST_SHARED_MESSAGES: u64 = 16;

/// CPU time of a shared call, in microseconds, that is unusual only with as much as `UNUSUAL_TIMES` says on top:
/// memory that is touched for the first time takes some hundred microseconds.
pub const UNUSUAL_CALL_US: u64 = 250;

/// A shared call is unusual above so many times what its messages usually take.
pub const UNUSUAL_TIMES: u64 = 4;

/// CPU time of one call with messages of many tenants, in milliseconds: so long may one message hold up those of
/// others before each tenant's are decoded apart.
pub const SHARED_CALL_CPU_MS: u64 = 4;

/// CPU time that the messages of many tenants in one call usually take together, in microseconds. Above it fewer
/// go into one call: a quarter of the bound, so that only one that is unusual ends at it.
pub const SHARED_CALL_USUAL_US: u64 = 1_000;

/// Messages of one tenant that have calls of their own, because sharing one would save nothing.
pub const OWN_CALL_MESSAGES: usize = 32;

/// Bytes that a message counts as in a shared call, beside its payload.
pub const SHARED_MESSAGE_BYTES: u64 = 256;

/// Standings that are kept before those that no thread has are dropped: two hundred bytes each.
pub const STANDINGS_SWEPT_ABOVE: usize = 1_024;

/// Messages of one route that wait in the slow lane before the sources that bring more wait.
pub const SLOW_WAITING_MAX: u64 = 256;

/// Bytes of a guest's code of a refusal that are kept.
pub const REFUSAL_CODE_BYTES_MAX: usize = 64;

/// Messages that a decode thread takes at once from its queue: enough to fill batches of several
/// tenants, little enough that the first is not kept for long.
pub const DECODE_GROUP_MESSAGES_MAX: usize = 512;

/// Groups of messages that wait for one decode thread before sources wait for it.
pub const DECODE_QUEUE_GROUPS: usize = 256;

/// The window, in milliseconds, in which the CPU time of tenants is compared, and into how many parts
/// it moves: long enough that a burst of a second is no hog, short enough that a hog stands in front
/// of the others for no longer.
pub const CPU_WINDOW_MS: u64 = 1_000;

pub const CPU_WINDOW_PARTS: usize = 8;

/// The part of the window for which a tenant may hold one decode thread that others wait for. Half: where two
/// tenants of equal weight meet on a thread, none of them leaves it.
pub const THREAD_PART_MAX: f64 = 0.5;

/// Messages of one route that wait in the slow lane because their tenant is over its share of the CPU,
/// before the sources that bring more wait: a twelfth of the window of unsettled messages, so that
/// a broker session goes on with the others for a while.
pub const OVER_SHARE_WAITING_MAX: u64 = 8_192;

/// Buckets in which tenants are placed on decode threads: with a thousand tenants one in five shares its bucket. A
/// bucket is 64 bytes.
pub const PLACEMENT_BUCKETS: usize = 4_096;

/// Buckets of a group of messages that are searched for the next message's: a group of one connection has few.
pub const PLACED_BUCKETS_SEARCHED: usize = 16;

/// The time over which a bucket's CPU time is judged, in milliseconds.
pub const PLACEMENT_WINDOW_MS: u64 = 250;

/// Per cent of one thread above which a tenant's devices are spread, and below which it goes to one thread: sixteen
/// small tenants that meet on one thread may fill it, and a tenant that is spread has an instance on each.
pub const SPREAD_ABOVE_PERCENT: u64 = 6;

pub const HOME_BELOW_PERCENT: u64 = 2;

/// The longest wait of new messages for a tenant to move, in milliseconds: threads have some ten milliseconds of
/// messages before them when they are busy.
pub const MOVE_WAIT_MS: u64 = 50;

/// The time before a move that was given up is tried again, in milliseconds.
pub const MOVE_AGAIN_MS: u64 = 1_000;

/// Instances of the class large that trying out new versions may take beside those that serve: a
/// shadow run has two.
pub const LARGE_TRIAL_INSTANCES: usize = 2;
