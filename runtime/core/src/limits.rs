//! Bounds that two parts share, each with the reason for its number.

/// Tenants that were named in a topic but never admitted get accounts of their own up to here:
/// anybody who may publish can invent names, and an account is about 300 bytes.
pub const STRANGER_ACCOUNTS_MAX: usize = 1_000;

/// Lines of one message: the most that a guest may make of one payload. A day of minute values is 1,440, but
/// such a payload is rare, and one message must not fill a batch ten times over.
pub const LINES_A_MESSAGE_MAX: u32 = 1_000;

/// From the stamp of one message to that of the next, in nanoseconds: each line of a message can have a
/// time of its own in between, and a million messages a second keep step with the clock.
pub const RECEIVE_STAMP_GAP_NS: i64 = LINES_A_MESSAGE_MAX as i64;

/// The distance by which the mark of the receive clock is ahead, in nanoseconds: a busy gateway writes it every
/// two seconds, and after a crash the first stamps are ahead of the clock by no more.
pub const RECEIVE_MARK_LEAD_NS: i64 = 2_000_000_000;

/// The distance by which stamps may be ahead of the wall clock after it was set back, in nanoseconds: a day, which no
/// time zone and no drift comes near. Beyond it the clock had been wrong before.
pub const RECEIVE_CLOCK_AHEAD_MAX_NS: i64 = 86_400_000_000_000;

/// A wall clock before this, in nanoseconds since the epoch, was never set: the first of January 2026,
/// before this program was.
pub const CLOCK_SET_AFTER_NS: i64 = 1_767_225_600_000_000_000;

/// The interval at which the age clock is kept for the next start, in seconds: after another boot of the machine, ages
/// are too high by no more.
pub const AGE_KEPT_INTERVAL_S: u64 = 60;

/// The part of the time between two boots that counts for the age of what is kept, in seconds: a day. What was
/// off for longer stays longer, which the bounds in bytes bear; a wrong clock must not make all of it old.
pub const DOWNTIME_COUNTED_MAX_S: u64 = 86_400;

/// Bytes of one line: databases take a request of 10 MiB, and 500 columns of 2 KiB fit.
pub const LINE_BYTES_MAX: usize = 1 << 20;

/// Bytes of lines of one message, as its guest gives them.
pub const OUTPUT_BYTES_A_MESSAGE_MAX: usize = 1 << 20;

/// Bytes of lines of one message with what the gateway adds to each: 256 bytes of identity and time for as
/// many lines as there may be. A name of 255 bytes in a message of 36 kB made 70 MB otherwise.
pub const CHECKED_BYTES_A_MESSAGE_MAX: usize = OUTPUT_BYTES_A_MESSAGE_MAX + (256 << 10);

/// Bytes of a measurement, a key or a tag value: the limit of InfluxDB 3.
pub const NAME_BYTES_MAX: usize = 65_536;

/// Bytes of a string value: the limit of InfluxDB 3.
pub const STRING_BYTES_MAX: usize = 65_536;

/// Tenants kept ready. More are served, each made anew a message.
pub const TENANTS_MAX: usize = 100_000;

/// Budgets of tenants that are kept by name before unused ones are forgotten: two budgets are 400 bytes.
pub const BUDGETS_MIN: usize = 2_000;

/// Bytes of the detail of any refusal: some sentences and an excerpt. Strangers cause details, and each
/// one is masked, stored and sent.
pub const REFUSAL_DETAIL_BYTES_MAX: usize = 1_024;

/// Bytes of a stranger's text that a detail quotes: a whole name of a topic.
pub const QUOTED_BYTES_MAX: usize = 256;

/// Bytes of the names of tenant, device and message type in a topic: the longest name of a file, and
/// ten times a UUID. Names are keys of caches, accounts, metrics and rows.
pub const TOPIC_NAME_BYTES_MAX: usize = 255;

/// Captures of one topic template: tenant, device, type and site, and as many more.
pub const TOPIC_CAPTURES_MAX: usize = 8;

/// Topic templates: a bit stands for each, and each is a subscription.
pub const TOPIC_TEMPLATES_MAX: usize = 64;

/// Bytes of measurement and tags together: the limit of a series in InfluxDB 1 and 2.
pub const SERIES_BYTES_MAX: usize = 65_535;

/// Bytes of a refusal's detail that travel with a PUBACK of MQTT 5: a sentence. So much waits for each
/// refused message behind one that is not settled.
pub const REFUSAL_NOTICE_BYTES_MAX: usize = 256;

/// Bytes of a prefix of a tenant's tables, and of the name of the tag that carries the tenant: names of
/// tenants are short, and every line carries them.
pub const TABLE_PREFIX_BYTES_MAX: usize = 128;

pub const TENANT_TAG_BYTES_MAX: usize = 64;
