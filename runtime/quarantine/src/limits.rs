//! The ceilings of quarantine, each with the reason for its number.

/// Entries a second and reason of refused messages whose device the registry does not have: any stranger
/// who may publish can cause them.
pub const STRANGER_ENTRIES_PER_S: u32 = 10;

/// Bytes that quarantine stores of such a payload.
pub const STRANGER_PAYLOAD_KEPT_BYTES: usize = 1024;

/// The share of quarantine's bytes for such messages: one in this many.
pub const STRANGER_SHARE: u64 = 10;

/// The same for messages under the name of a device that the registry has, whose sender proved nothing:
/// who knows a name could send them, and pushes out no message of a device that proved itself.
pub const UNPROVEN_SHARE: u64 = 10;

/// The largest quarantine segment in bytes: the ring forgets one segment at a time.
pub const QUARANTINE_SEGMENT_BYTES_MAX: u64 = 16 << 20;

/// The least number of segments that the bytes of quarantine are divided into, so that one segment, which
/// expires at a time, is a small share.
pub const QUARANTINE_SEGMENTS_MIN: u64 = 16;

/// Bytes that each ring of quarantine may have in any case while the disk is low: refused messages wait for
/// their PUBACK until they are stored.
pub const QUARANTINE_LOW_DISK_BYTES: u64 = 512 << 10;

/// Payload bytes that quarantine writes in one group before it syncs.
pub const QUARANTINE_GROUP_BYTES: u64 = 4 << 20;
