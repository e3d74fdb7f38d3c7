//! The settings of the spool.

use std::sync::Arc;

use crate::limits;
use tidegate_core::age_clock::AgeClock;
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
    /// By it the age of what is kept is counted.
    pub age_clock: Arc<AgeClock>,
}

impl SpoolSettings {
    pub(crate) fn segment_bytes(&self) -> u64 {
        (self.bytes_max / limits::SPOOL_SEGMENTS_MIN).min(limits::SPOOL_SEGMENT_BYTES_MAX)
    }

    pub(crate) fn memory_limits(&self) -> MemoryLimits {
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
    /// Bytes that each of `databases` may hold in any case: together no more than all. One frame is always let in,
    /// where anything is.
    pub(crate) fn least(&self, databases: usize) -> u64 {
        let even = (self.bytes_max / databases.max(1) as u64).max(1);
        self.database_bytes_min.min(even)
    }

    /// Bytes that all backlogs may hold together: a fourth is left for new lines.
    pub(crate) fn backlog_bytes_max(&self) -> u64 {
        self.bytes_max / 4 * 3
    }

    /// Bytes that one database may hold at most: a fourth is left for the others.
    pub(crate) fn database_bytes_max(&self) -> u64 {
        self.bytes_max / 4 * 3
    }
}
