//! The ceilings of the spool, each with the reason for its number.

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

/// The longest wait of a sync, in microseconds, for messages of a trickle that are just being
/// decoded: several times what that takes.
pub const SPOOL_KNOWN_WAIT_US: u64 = 1_000;

/// The time between two marks of what is released, in milliseconds: so much of what was written is
/// written again after a crash.
pub const SPOOL_MARK_INTERVAL_MS: u64 = 1_000;

/// The interval at which the spool notes it after a start, and for how many seconds: a gateway that is killed again
/// and again while it catches up gets further each time, however soon that is.
pub const SPOOL_MARK_OFTEN_MS: u64 = 100;

pub const SPOOL_MARK_OFTEN_S: u64 = 10;

/// Bytes of written frames from which on the marks of them are synced: some large requests. Less is written
/// again after a power cut.
pub const SPOOL_MARK_SYNC_BYTES: u64 = 4 << 20;

/// Seconds for which no frame is copied out of a segment after its last one came, unless disk is short: three
/// times the longest delay of a batch by default. A copy costs more than to wait for the end of its lines.
pub const SPOOL_COPY_AGE_S: u32 = 30;

/// The wait before a failed write of the spool is tried again, in milliseconds.
pub const SPOOL_RETRY_MS: u64 = 500;

/// Bytes of frames that the writer holds of each database in any case, whatever others hold: four
/// ordinary requests.
pub const SPOOL_MEMORY_DATABASE_BYTES_MIN: u64 = 256 << 10;

/// Bytes that are read at once when lines are fetched from the disk.
pub const SPOOL_READ_BYTES: usize = 256 << 10;

/// The time between two log lines on a segment that the disk does not give, in seconds: it is asked for as long as it
/// takes.
pub const SPOOL_READ_WARNING_INTERVAL_S: u64 = 60;

/// Messages of a tenant that may wait for room in the spool, each unacknowledged: two for each device
/// of ten thousand. From half of it on its devices are not read any more.
pub const DEFERRED_MESSAGES_A_TENANT_MAX: u64 = 20_000;

/// Bytes of lines and what belongs to them that may wait for room, of a tenant and of all: a quarter,
/// and all, of the bytes that are unsettled by default. Beyond the latter each tenant has an even share.
pub const DEFERRED_BYTES_A_TENANT_MAX: u64 = 16 << 20;

pub const DEFERRED_BYTES_MAX: u64 = 64 << 20;

/// Bytes that a message that waits for room counts as beside its lines and its topic.
pub const DEFERRED_OVERHEAD_BYTES: u64 = 256;

/// Bytes of lines from which on a batch is charged for them too, beside its payloads: 64 messages of a
/// kilobyte. A small payload can make a megabyte of lines.
pub const LARGE_BATCH_BYTES: usize = 64 << 10;

/// The step in which a tenant's bytes in the spool are charged to its disk budget: some hundred batches.
pub const QUOTA_CHARGE_BYTES: u64 = 64 << 10;

/// Bytes that a tenant's memory budget must have left before the spool takes another batch: its place
/// in the index, and those of batches until the next look at how large that is.
pub const BACKLOG_ROOM_BYTES: u64 = 64 << 10;

/// Places of frames that a stream keeps in memory when they are free: of a second of a busy tenant.
pub const PLACES_KEPT: usize = 1_024;

/// Tenants that `/readyz` names which wait for room: as many as a line of a terminal shows.
pub const SHOWN_WAITING_TENANTS: usize = 8;

/// Files that `/readyz` names which the disk does not give back: as many as a line of a terminal shows.
pub const SHOWN_UNREADABLE_FILES: usize = 3;

/// One part in this many of each tenant's share, and of the whole spool, may be parked
/// messages: anybody who may publish can cause them while the registry is away, and the lines of known
/// devices go on.
pub const PARKED_TENANT_SHARE: u64 = 2;

pub const PARKED_SPOOL_SHARE: u64 = 4;

/// Tenants that nobody has vouched for of which messages are parked: anybody can invent names, and each
/// is remembered until a restart.
pub const PARKED_STRANGERS_MAX: usize = 1_000;

/// Bytes of messages in one frame of parked ones, but for a single larger one: it is read back whole.
pub const PARKED_FRAME_BYTES: usize = 64 << 10;

/// The frames waiting for the disk that are looked at for one that a parked message may join.
pub const PARKED_FRAMES_SEARCHED: usize = 32;

/// Bytes of lines that one tenant may have in the writer's hands of a database that it shares with
/// others, so that a line of another waits behind seconds of it and not behind all that fits the memory.
pub const SPOOL_MEMORY_SHARED_BYTES_MAX: u64 = 8 << 20;

/// No segment of ours comes to a higher number, which is kept in 32 bits; a file that has one is not
/// ours, and what is counted on from it would not be found again.
pub const SPOOL_SEGMENT_NUMBER_MAX: u64 = u32::MAX as u64 / 2;

/// No frame comes to a higher number: each segment has 2^32 of them. What is counted on from it fits 64 bits.
pub const SPOOL_FRAME_NUMBER_MAX: u64 = (SPOOL_SEGMENT_NUMBER_MAX + 1) << 32;

/// No tenant comes to more lines: a million a second for thirty thousand years. A sum of several such
/// counts fits 64 bits.
pub const SPOOL_LINES_MAX: u64 = 1 << 60;

/// Epochs whose lines are told apart from those of others (`release_marks`): as often may the end of the log
/// go missing before one of them comes back.
pub const SPOOL_EPOCHS_MAX: usize = 16;
