//! Ceilings of the writer, each with the reason for its number.

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

/// Bytes that every database may have in hand while large holders have used up what is for all: a
/// fourth of the default ceiling is enough for a hundred of them at once.
pub const LITTLE_BYTES: usize = 128 << 10;

/// Memory of a pending batch beside its lines: its tenant, names and counts.
pub const PENDING_OVERHEAD_BYTES: usize = 256;

/// Bytes of lines of one database that wait apart, because they meet a ceiling of the server or
/// were refused once: some thousands. With more the database waits as a whole, in the spool.
pub const DELAYED_BYTES_MAX: usize = 1 << 20;

/// Memory of a delayed line beside its bytes.
pub const DELAYED_OVERHEAD_BYTES: usize = 160;

/// Answers 500 to one body before smaller ones are tried: two may be a restart of the server.
pub const SERVER_ERRORS_MAX: u32 = 3;

/// Refusals of one line alone before they are believed, the first included: a broken answer does not
/// come twice, seconds apart. An answer 500 speaks of the server, so it must come once more.
pub const REFUSALS_BELIEVED: u32 = 2;

pub const SERVER_ERRORS_BELIEVED: u32 = 3;

/// Bytes of lines that a database in trouble keeps in memory beside its tries; the rest goes
/// back to the spool.
pub const TROUBLE_BYTES_MAX: usize = 64 << 10;

/// Bytes of lines that are fetched from the spool at once, and below which more are: two requests
/// of a catch-up.
pub const FETCH_BYTES: usize = 8 << 20;

pub const FETCH_LOW_BYTES: usize = 4 << 20;

/// A fetch of less would cost more than it brings.
pub const FETCH_BYTES_MIN: usize = 4 << 10;

/// Bytes read of a database's answer: 10,000 refused lines of 200 bytes each make 2 MB.
pub const RESPONSE_BYTES_MAX: usize = 4 << 20;

/// Characters kept of a database's answer where it is shown or logged.
pub const RESPONSE_SHOWN_CHARS: usize = 400;

/// The time before the end of its flush interval at which a batch may go along with others, in
/// milliseconds: so many databases share one wake-up, and nobody sees a hundredth of a second.
pub const FLUSH_EARLY_MS_MAX: u64 = 10;

/// The time between two looks at the memory of lines that wait longer than the flush interval, in
/// milliseconds: meanwhile those that were let go are written.
pub const RELIEF_INTERVAL_MS: u64 = 20;

/// The sleep of the writer's thread, in milliseconds, before it looks for answers that nobody
/// waits for: at a thousand small requests a second five are handled at once.
pub const WRITER_IDLE_DELAY_MS: u64 = 5;

/// Seconds after which an idle connection to an endpoint is closed: servers close theirs after some
/// minutes.
pub const ENDPOINT_IDLE_S: u64 = 90;

/// Seconds after which a connection to an endpoint is not used again: a host's name that moves to another
/// address is followed within some minutes.
pub const CONNECTION_AGE_MAX_S: u64 = 300;

/// The first and the longest wait before a request is tried again, in milliseconds.
pub const RETRY_MIN_MS: u64 = 1_000;

pub const RETRY_MAX_MS: u64 = 60_000;

/// The wait of a request whose fault only a person can mend (token, database, product), in
/// milliseconds: it is asked again at a random time between the two.
pub const PAUSE_MIN_MS: u64 = 30_000;

pub const PAUSE_MAX_MS: u64 = 60_000;

/// The longest wait that a `Retry-After` may ask for, in milliseconds: a proxy that names next
/// year must not stop the gateway until then.
pub const RETRY_AFTER_MAX_MS: u64 = 300_000;

/// Single lines that are refused with the same unspecific words, and none accepted between them,
/// mean that the request is at fault and not the lines.
pub const SAME_REFUSALS_MAX: u32 = 3;

/// A connection that breaks twice while more than this many bytes are sent is a server that takes
/// no body of this size: the batch is split.
pub const SUSPECT_BODY_BYTES: usize = 1 << 20;

/// The least that a body limit falls to: no proxy takes less, and requests would be too many.
pub const BODY_LIMIT_BYTES_MIN: usize = 64 << 10;

/// Bodies of about the limit that have to pass before the next may be an eighth larger. It doubles with
/// each refusal, so a proxy that stays costs about one body in hundreds.
pub const BODY_LIMIT_PASSES: u32 = 32;

pub const BODY_LIMIT_PASSES_MAX: u32 = 4_096;

/// Seconds between two questions for a server's version, and after one without an answer.
pub const VERSION_INTERVAL_S: u64 = 3_600;

pub const VERSION_RETRY_S: u64 = 60;

/// Seconds between two log lines about refused lines of one database.
pub const REFUSED_LOG_INTERVAL_S: u64 = 60;

/// The least time between two tries to create a database, in milliseconds: a server may say each time
/// that it did.
pub const CREATE_DATABASE_MS: u64 = 10_000;

/// Bodies above this size are compressed off the async threads: 64 KiB take about a millisecond.
pub const GZIP_INLINE_BYTES_MAX: usize = 64 << 10;

/// Line files held open by the file output; each costs a file descriptor, and the usual limit of
/// a process is 1,024.
pub const LINE_FILES_OPEN_MAX: usize = 128;
