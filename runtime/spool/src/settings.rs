//! The settings of the spool.

use crate::limits;
use tidegate_core::device_hash::SeedTag;
use tidegate_core::tenant::settings::WhenFull;

/// Settings of the spool.
#[derive(Clone, Debug)]
pub struct SpoolSettings {
    /// Bytes on disk.
    pub bytes_max: u64,
    pub tenant_bytes_max: u64,
    pub when_full: WhenFull,
    /// Bytes of lines that are kept in memory beside the disk.
    pub memory_bytes_max: u64,
    /// False: nothing is synced, and a power cut loses what was acknowledged.
    pub sync: bool,
    /// The seed with which devices are hashed.
    pub device_seed: SeedTag,
}

impl SpoolSettings {
    pub(crate) fn segment_bytes(&self) -> u64 {
        (self.bytes_max / limits::SPOOL_SEGMENTS_MIN).min(limits::SPOOL_SEGMENT_BYTES_MAX)
    }

    pub(crate) fn hot(&self) -> MemoryLimits {
        MemoryLimits {
            bytes_max: self.memory_bytes_max,
            database_bytes_min: limits::SPOOL_MEMORY_DATABASE_BYTES_MIN.min(self.memory_bytes_max),
        }
    }
}

/// Bytes of recent lines that the writer may hold.
#[derive(Clone, Copy, Debug)]
pub struct MemoryLimits {
    pub bytes_max: u64,
    /// Bytes that each database may hold in any case.
    pub database_bytes_min: u64,
}

impl MemoryLimits {
    /// Bytes that one database may hold at most: a fourth is left for the others.
    pub(crate) fn database_bytes_max(&self) -> u64 {
        self.bytes_max / 4 * 3
    }
}
