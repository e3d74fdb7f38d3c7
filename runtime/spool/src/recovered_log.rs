//! All segments, read: streams, totals, damage, and what is missing. Damage is named by file and offset.
//!
//! # Segments that come back
//!
//! The marks that a segment begins with list the others in force. One that is older than such a list, and
//! not on it, was missing then. It is put on no later list either, so that every later start knows; and it
//! is renamed in the end, not removed.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use crate::disk::Disk;
use crate::error::SpoolError;
use crate::frame::FrameKind;
use crate::index::Index;
use crate::index::segment::RetainReason;
use crate::recovered_stream::RecoveredStream;
use crate::recovered_totals::RecoveredTotals;
use crate::recovery_report::RecoveryReport;
use crate::release_marks::ReleaseMarks;
use crate::segment_scan::{DamagedRange, SEGMENT_HEADER_BYTES, SegmentScan, scan};
use crate::state_log::StateLog;
use tidegate_core::device_hash::SeedTag;
use tidegate_core::start_progress;

/// A run that begins with segment `n` has the numbers from `n << 32` on for itself: no segment holds as
/// many frames.
const NUMBERS_OF_A_RUN: u32 = 32;

pub struct RecoveredLog {
    /// The segments and the state are in it; streams and totals are not.
    pub index: Index,
    pub report: RecoveryReport,
    /// By tenant and database.
    pub streams: HashMap<(String, String), RecoveredStream>,
    pub totals: RecoveredTotals,
    /// The first number that no run has used.
    pub first_new: u64,
    /// The newest segment that lists the others.
    pub listed_by: u64,
    /// Frames may be lost of streams that are named nowhere.
    pub has_lost_streams: bool,
    segments: Vec<u64>,
    /// The newest that was ever noted.
    newest: Option<u64>,
    listed: Vec<u64>,
    was_missing: BTreeSet<u64>,
    /// Segments at the end of the log.
    ends: Vec<u64>,
}

impl RecoveredLog {
    /// Reads all segments. `seed`: with which devices are hashed from now on.
    ///
    /// # Errors
    /// A segment is there and cannot be read.
    pub fn read(disk: &dyn Disk, seed: SeedTag) -> Result<Self, SpoolError> {
        let mut log = Self::list(disk, seed)?;
        let mut told = Instant::now();
        for (number, segment) in log.segments.clone().into_iter().enumerate() {
            if told.elapsed() >= Duration::from_secs(1) {
                told = Instant::now();
                let of = log.segments.len();
                info!(segments = number, of, bytes = log.report.bytes, "reading the spool");
            }
            start_progress::report(number, log.segments.len());
            log.read_segment(disk, number, segment)?;
        }
        log.sync_ends(disk);
        log.find_missing();
        Ok(log)
    }

    fn list(disk: &dyn Disk, seed: SeedTag) -> Result<Self, SpoolError> {
        let folder = disk.path(0).parent().map(std::path::Path::to_owned).unwrap_or_default();
        let segments = disk.list().map_err(|error| SpoolError { doing: "read", path: folder, error })?;
        let newest = disk.newest().unwrap_or(None);
        let state = checkpoint(disk)?;
        // What a checkpoint covers comes before everything that is written from now on.
        let next_segment = segments.last().copied().max(newest).max(state.covered_segment()).unwrap_or(0) + 1;
        let first_new = next_segment << NUMBERS_OF_A_RUN;
        let newest_missing = newest.is_some_and(|newest| segments.binary_search(&newest).is_err());
        Ok(Self {
            index: Index::with_state(state, first_new, seed),
            report: RecoveryReport { next_segment, newest_missing, ..RecoveryReport::default() },
            streams: HashMap::new(),
            totals: RecoveredTotals::default(),
            first_new,
            listed_by: 0,
            has_lost_streams: false,
            segments,
            newest,
            listed: Vec::new(),
            was_missing: BTreeSet::new(),
            ends: Vec::new(),
        })
    }

    fn read_segment(&mut self, disk: &dyn Disk, number: usize, segment: u64) -> Result<(), SpoolError> {
        let path = disk.path(segment);
        let read = disk.read_all(segment);
        let bytes = read.map_err(|error| SpoolError { doing: "read", path, error })?;
        // Nothing was acknowledged in one behind the newest that was noted: that came to nothing, and the
        // end of the one in front of it is the end.
        let is_last =
            number + 1 == self.segments.len() || self.newest.is_some_and(|newest| segment >= newest);
        let mut scan = scan(segment, &bytes);
        // It was noted as the newest once its marks were durable.
        let is_noted = self.newest == Some(segment);
        self.report.newest_damaged |= is_noted && scan.others.is_none();
        if scan.is_foreign {
            move_aside(disk, segment, &bytes, is_last && !is_noted);
            if bytes.len() > SEGMENT_HEADER_BYTES {
                self.report.newest_damaged |= is_last;
                let gap = DamagedRange { offset: 0, bytes: bytes.len() as u64, torn: false };
                self.report.gaps.push((segment, gap));
            }
            return Ok(());
        }
        if is_last {
            self.ends.push(segment);
        }
        self.report.bytes += bytes.len() as u64;
        let gaps = std::mem::take(&mut scan.gaps);
        self.record_length(disk, segment, bytes.len() as u64, gaps, is_last)?;
        self.record_marks(segment, std::mem::take(&mut scan.marks), scan.others.is_some());
        if let Some(others) = scan.others.take() {
            // An older segment that is not on the list was missing when that was written.
            let earlier = self.segments[..number].iter();
            self.was_missing.extend(earlier.filter(|earlier| others.binary_search(earlier).is_err()));
            (self.listed, self.listed_by) = (others, segment);
        }
        self.record_state(disk, &scan, &bytes);
        self.record_frames(segment, scan);
        Ok(())
    }

    /// Notes how long a segment is, and its damage. An unfinished write is cut off its end.
    fn record_length(
        &mut self,
        disk: &dyn Disk,
        segment: u64,
        mut len: u64,
        gaps: Vec<DamagedRange>,
        is_last: bool,
    ) -> Result<(), SpoolError> {
        let path = disk.path(segment);
        let mut is_damaged = false;
        for gap in gaps {
            // Only the newest can end in the middle of a write.
            if !gap.torn || !is_last {
                self.report.gaps.push((segment, gap));
                is_damaged = true;
                continue;
            }
            info!(file = %path.display(), offset = gap.offset, bytes = gap.bytes,
                  "cut an unfinished write off the spool; what it held was not acknowledged");
            let cut = disk.truncate(segment, gap.offset);
            cut.map_err(|error| SpoolError { doing: "cut the end of", path: path.clone(), error })?;
            len = gap.offset;
        }
        self.index.record_segment(segment, len);
        if is_damaged {
            self.index.keep_segment(segment, RetainReason::Damaged);
            self.report.newest_damaged |= is_last;
        }
        Ok(())
    }

    /// Takes the marks of a segment, in their order. `has_head`: the first of them are those that it begins
    /// with.
    fn record_marks(&mut self, segment: u64, mut all: Vec<ReleaseMarks>, has_head: bool) {
        let head = all.first_mut().filter(|_| has_head);
        self.totals.begin_segment(segment, head.map(|head| std::mem::take(&mut head.epochs)));
        for marks in all {
            for mark in marks.streams {
                let key = (mark.tenant.clone(), mark.database.clone());
                self.streams.entry(key).or_default().record_mark(segment, mark);
            }
            marks.tenants.iter().for_each(|(tenant, told)| self.totals.record(tenant, *told));
            self.has_lost_streams |= marks.has_lost_streams;
        }
    }

    fn record_state(&mut self, disk: &dyn Disk, scan: &SegmentScan, bytes: &[u8]) {
        for (place, tenant, state) in &scan.states {
            // Its checksum was good: it is of another version, or there is a fault of ours.
            if !self.index.state.apply(tenant, *place, &bytes[state.clone()]) {
                error!(file = %disk.path(place.segment).display(), offset = place.offset, tenant,
                       "changes of the state cannot be read; those before and behind are kept");
            }
        }
    }

    fn record_frames(&mut self, segment: u64, scan: SegmentScan) {
        for (_, header) in scan.frames.iter().chain(&scan.bad_bodies) {
            self.totals.record_spooled(&header.tenant, header.spooled);
        }
        for (place, header) in scan.frames {
            let key = (header.tenant.clone(), header.database.clone());
            self.streams.entry(key).or_default().record_frame(place, &header);
        }
        let bad = scan.bad_bodies.into_iter().map(|(_, header)| header);
        for header in bad.filter(|header| header.kind == FrameKind::Parked) {
            let key = (header.tenant.clone(), header.database.clone());
            self.streams.entry(key).or_default().record_unreadable(segment, &header);
        }
    }

    /// Syncs the end of the log. What was read need not be durable: its run may have ended between a write and
    /// its sync. In front of later segments its loss would be damage.
    fn sync_ends(&self, disk: &dyn Disk) {
        for &last in self.ends.iter().filter(|segment| self.index.has_segment(**segment)) {
            if let Err(error) = disk.sync(last) {
                warn!(%error, file = %disk.path(last).display(), "the newest segment of the spool cannot be synced");
            }
        }
    }

    fn find_missing(&mut self) {
        let was_missing = std::mem::take(&mut self.was_missing).into_iter();
        self.report.returned = was_missing.filter(|segment| self.index.has_segment(*segment)).collect();
        for segment in &self.report.returned {
            self.index.keep_segment(*segment, RetainReason::Returned);
        }
        let listed = std::mem::take(&mut self.listed).into_iter().chain(self.newest);
        self.report.missing =
            listed.filter(|segment| self.segments.binary_search(segment).is_err()).collect();
        self.has_lost_streams |= self.report.is_end_lost();
    }

    /// True if frames may be lost of which nothing is left.
    pub fn is_something_lost(&self) -> bool {
        let report = &self.report;
        self.has_lost_streams || !report.missing.is_empty() || !report.gaps.is_empty()
    }
}

/// The state as it was last written down. A damaged one counts as missing: the changes behind it are all
/// that is left.
fn checkpoint(disk: &dyn Disk) -> Result<StateLog, SpoolError> {
    let folder = || disk.path(0).parent().map(std::path::Path::to_owned).unwrap_or_default();
    let read = disk.read_state();
    let read = read.map_err(|error| SpoolError { doing: "read the state in", path: folder(), error })?;
    let Some(bytes) = read else { return Ok(StateLog::default()) };
    StateLog::read(&bytes).or_else(|why| {
        error!(file = %folder().join("state").display(), why,
               "the state of the decoders is damaged: they go on with what changed since it was written, and without the rest");
        Ok(StateLog::default())
    })
}

/// A file that does not begin as a segment: one that was just being made, or a damaged one.
fn move_aside(disk: &dyn Disk, segment: u64, bytes: &[u8], is_last: bool) {
    let path = disk.path(segment);
    if is_last && bytes.len() <= SEGMENT_HEADER_BYTES {
        info!(file = %path.display(), "removed a segment that was only being made");
        let _ = disk.remove(segment);
        return;
    }
    match disk.move_aside(segment, RetainReason::Damaged.extension()) {
        Ok(()) => {
            warn!(file = %path.display(), "not a segment of the spool, or its header is damaged; renamed to .damaged")
        }
        Err(error) => {
            warn!(%error, file = %path.display(), "not a segment of the spool, or its header is damaged")
        }
    }
}
