//! The status of the spool, for the admin interface.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::handle::Spool;
use crate::index::Index;
use crate::parked::ParkedStatus;

/// The spool at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct SpoolStatus {
    /// On disk.
    pub bytes: u64,
    /// Bytes of frames that are still needed.
    pub live_bytes: u64,
    /// Bytes of frames that are in memory too.
    pub memory_bytes: u64,
    pub segments: u64,
    pub lines: u64,
    /// Messages a tenant that wait unacknowledged because its share is full.
    pub waiting_messages: BTreeMap<String, u64>,
    /// Messages a tenant that are parked: acknowledged, and to be admitted once that can be.
    pub parked: BTreeMap<String, ParkedStatus>,
    /// The reason why nothing can be written.
    pub fault: Option<String>,
    #[serde(skip)]
    pub backlogs: Vec<BacklogStatus>,
}

/// The backlog of one tenant in one database.
#[derive(Clone, Debug, Serialize)]
pub struct BacklogStatus {
    pub database: String,
    /// The tenant at whose own output it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_of: Option<String>,
    pub tenant: String,
    pub lines: u64,
    pub bytes: u64,
    pub oldest_age_s: u64,
}

impl Spool {
    /// Messages a tenant that wait for room in its share.
    pub fn waiting_messages(&self) -> BTreeMap<String, u64> {
        let quotas = self.shared.quotas.lock();
        quotas.held.messages().map(|(tenant, messages)| (tenant.to_string(), messages)).collect()
    }

    /// The files that the disk does not give back, each with its error. Their lines wait, and no others of
    /// the same database overtake them.
    pub fn unreadable(&self) -> Vec<String> {
        self.shared.unreadable()
    }

    pub fn status(&self) -> SpoolStatus {
        let shared = &self.shared;
        let held = self.waiting_messages();
        let now = shared.settings.age_clock.now();
        let index = shared.index.lock();
        SpoolStatus {
            bytes: index.disk_bytes(),
            live_bytes: index.live_bytes(),
            memory_bytes: index.memory_bytes(),
            segments: index.segments() as u64,
            lines: index.lines(),
            waiting_messages: held,
            parked: parked_of(&index, now),
            fault: shared.fault.lock().clone(),
            backlogs: backlogs(&index, now),
        }
    }
}

/// `now`: of the age clock.
pub fn parked_of(index: &Index, now: Duration) -> BTreeMap<String, ParkedStatus> {
    index.parked(now).into_iter().map(|(tenant, parked)| (tenant.to_string(), parked)).collect()
}

/// `now`: of the age clock.
pub fn backlogs(index: &Index, now: Duration) -> Vec<BacklogStatus> {
    let now_s = now.as_secs();
    let mut all: Vec<_> = index
        .backlogs()
        .into_iter()
        .map(|(tenant, database, backlog)| BacklogStatus {
            database: database.to_string(),
            output_of: database.output_of().map(ToString::to_string),
            tenant: tenant.to_string(),
            lines: backlog.lines,
            bytes: backlog.bytes,
            oldest_age_s: backlog.oldest_s.map_or(0, |oldest_s| now_s.saturating_sub(u64::from(oldest_s))),
        })
        .collect();
    all.sort_by(|a, b| (&a.database, &a.tenant).cmp(&(&b.database, &b.tenant)));
    all
}
