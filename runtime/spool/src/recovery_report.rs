//! The findings of a recovery, and their lines in the log of the gateway.

use std::collections::BTreeMap;
use std::time::Duration;

use tracing::{error, info, warn};

use crate::disk::Disk;
use crate::frame::FrameHeader;
use crate::ids::FrameLocation;
use crate::segment_scan::DamagedRange;
use tidegate_core::ids::TenantId;

/// The findings of a recovery.
#[derive(Debug, Default)]
pub struct RecoveryReport {
    pub next_segment: u64,
    pub bytes: u64,
    pub frames: u64,
    pub lines: u64,
    /// Parked messages.
    pub parked: u64,
    /// Parked messages in frames that cannot be read any more, by tenant.
    pub parked_lost: BTreeMap<TenantId, u64>,
    /// Lines that were acknowledged and cannot be read any more, found out now, by tenant.
    pub damaged: BTreeMap<TenantId, u64>,
    /// Damaged places: segment, offset, bytes.
    pub gaps: Vec<(u64, DamagedRange)>,
    /// Segments that were there once and are not; they may have been done with.
    pub missing: Vec<u64>,
    /// The newest of all is among them: it is never done with.
    pub newest_missing: bool,
    /// Something in the newest of those that are there cannot be read.
    pub newest_damaged: bool,
    /// Segments that were missing before and are there again.
    pub returned: Vec<u64>,
    /// Frames of one number and different content, in the order of the log; none of them is in the index.
    /// They were written by versions that used numbers twice.
    pub twins: Vec<(u32, FrameLocation, FrameHeader)>,
}

impl RecoveryReport {
    /// True if numbers and counts that nothing here speaks of may have been used at the end of the log.
    pub fn is_end_lost(&self) -> bool {
        self.newest_missing || self.newest_damaged
    }

    /// Tells the operator what was found.
    pub fn log(&self, disk: &dyn Disk, took: Duration) {
        for (segment, gap) in &self.gaps {
            error!(file = %disk.path(*segment).display(), offset = gap.offset, bytes = gap.bytes,
                   "the spool is damaged here; what lies before and behind is kept. Check the disk, and keep the file if it may be mended");
        }
        if self.newest_missing
            && let Some(&newest) = self.missing.last()
        {
            error!(file = %disk.path(newest).display(),
                   "the newest segment of the spool is missing: what was acknowledged last is lost with it, unless the file is put back and the gateway started again");
        }
        for segment in &self.returned {
            warn!(file = %disk.path(*segment).display(),
                  "a segment of the spool that was missing is there again; what it holds is in force, and the file stays when all of it is written");
        }
        for (tenant, lines) in &self.damaged {
            let missing: Vec<_> =
                self.missing.iter().map(|&segment| disk.path(segment).display().to_string()).collect();
            error!(%tenant, lines, missing_files = missing.join(" "),
                   "acknowledged lines were lost to damage of the spool; the books count them as damaged");
        }
        for (tenant, messages) in &self.parked_lost {
            error!(%tenant, messages, "parked messages were lost to damage of the spool");
        }
        if self.frames > 0 {
            info!(
                lines = self.lines,
                parked_messages = self.parked,
                frames = self.frames,
                bytes = self.bytes,
                took_ms = took.as_millis() as u64,
                "the spool has a backlog"
            );
        }
    }
}
