//! The settings of quarantine.

use std::sync::Arc;
use std::time::Duration;

use tidegate_core::age_clock::AgeClock;
use tidegate_core::disk_reserve::DiskReserve;
use tidegate_core::tenant::table::Tenants;
use tidegate_core::topic::TopicTemplates;

/// The bounds of the ring, and the reading of topics.
#[derive(Clone, Debug)]
pub struct QuarantineSettings {
    pub bytes_max: u64,
    pub days_max: u32,
    /// The first wait after a write failed; it doubles up to 30 times.
    pub retry: Duration,
    /// The forms of topics, for the type of entries.
    pub topics: Option<Arc<TopicTemplates>>,
    /// Entries expire by it.
    pub age_clock: Arc<AgeClock>,
    /// While the disk is low, the ring does not grow.
    pub disk_reserve: Arc<DiskReserve>,
    /// The tenants whose disk budgets are charged; `None`: none are.
    pub tenants: Option<Arc<Tenants>>,
}

impl QuarantineSettings {
    pub fn new(bytes_max: u64, days_max: u32) -> Self {
        Self {
            bytes_max,
            days_max,
            retry: Duration::from_secs(1),
            topics: None,
            age_clock: Arc::default(),
            disk_reserve: Arc::default(),
            tenants: None,
        }
    }
}
