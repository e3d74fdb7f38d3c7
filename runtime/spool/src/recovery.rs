//! Recovery of the index from the disk after whatever happened. Every segment is scanned, good frames are
//! taken, damage is named by file and offset, and the accounts say how many lines it cost.
//!
//! # Numbers
//!
//! A frame's number is used once in its stream, whichever segments are missing at a start and there again
//! at a later one. Otherwise a mark that releases the one frame would release the other.
//!
//! - All numbers in segments up to `n` are below `(n + 1) << 32`. A run whose first segment is `n` gives a
//!   stream numbers from `n << 32` on, or the ones behind those it knows, and a segment holds fewer than
//!   2^32 frames.
//! - The first segment of a run is behind all that ever held a frame: behind those that are there and
//!   behind the newest that was ever noted. So `n << 32` is a number that no stream has reached.
//! - A run names every stream that it knows in the marks that each of its segments begins with, and a
//!   stream that it does not know begins at `n << 32`. So where a stream is named in the newest segment, its
//!   numbers there are the highest that it ever had, if that segment is whole.
//! - A stream that the newest segment does not name was unknown to the run that wrote it. It is there
//!   again from older segments, and others that held more of it may still be missing. It goes on from
//!   `n << 32` of this run; so do all streams where the newest segment is missing or damaged.
//! - The numbers that are passed over count as lost, not as released. Where a frame comes back that has one
//!   of them, it is in force again.
//!
//! # Segments that come back
//!
//! The marks that a segment begins with list the others in force. One that is older than such a list, and
//! not on it, was missing then. It is put on no later list either, so that every later start knows; and it
//! is renamed in the end, not removed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use crate::disk::{Disk, RetiredLines};
use crate::error::SpoolError;
use crate::frame::{FrameHeader, FrameKind};
use crate::ids::{FrameId, FrameLocation, NO_DATABASE};
use crate::index::Index;
use crate::index::segment::RetainReason;
use crate::range_set::RangeSet;
use crate::recovered_frame::{FrameList, RecoveredFrame};
use crate::recovered_totals::RecoveredTotals;
use crate::release_marks::{LineTotals, StreamMark};
use crate::segment_scan::{DamagedRange, SEGMENT_HEADER_BYTES, read_segment_header, scan};
use crate::settings::MemoryLimits;
use crate::state_log::StateLog;
use tidegate_core::books::{Books, LineBooks};
use tidegate_core::device_hash::SeedTag;
use tidegate_core::durable::MessageSet;
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

/// A run that begins with segment `n` has the numbers from `n << 32` on for itself: no segment holds as
/// many frames.
const NUMBERS_OF_A_RUN: u32 = 32;

/// Takes out the frames whose number is not theirs alone, in the order of the log.
fn take_twins(frames: &mut Vec<RecoveredFrame>) -> Vec<RecoveredFrame> {
    let is_twin = |at: usize, frames: &[RecoveredFrame]| {
        let seq = |at: usize| frames.get(at).map(|frame| frame.seq);
        seq(at + 1) == seq(at) || (at > 0 && seq(at - 1) == seq(at))
    };
    let twin: Vec<bool> = (0..frames.len()).map(|at| is_twin(at, frames)).collect();
    let mut at = 0;
    let mut twins: Vec<_> = frames
        .extract_if(.., |_| {
            at += 1;
            twin[at - 1]
        })
        .collect();
    twins.sort_by_key(RecoveredFrame::place);
    twins
}

/// Reads the header of a frame that was good when its segment was read.
fn read_header(disk: &dyn Disk, place: FrameLocation) -> Result<FrameHeader, SpoolError> {
    let fault = |error| SpoolError { doing: "read", path: disk.path(place.segment), error };
    let mut segment = vec![0; SEGMENT_HEADER_BYTES];
    disk.read_at(place.segment, 0, &mut segment).map_err(fault)?;
    let mut frame = vec![0; place.len as usize];
    disk.read_at(place.segment, place.offset, &mut frame).map_err(fault)?;
    let header =
        read_segment_header(place.segment, &segment).and_then(|salt| FrameHeader::read(salt, &frame));
    header.ok_or_else(|| fault(std::io::ErrorKind::InvalidData.into()))
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

#[derive(Default)]
struct RecoveredStream {
    mark: Option<StreamMark>,
    frames: FrameList,
    /// The latest time of any line.
    last_ns: i64,
    /// Sequence numbers of frames of parked messages that cannot be read, and their messages.
    unreadable: BTreeMap<u64, u16>,
    /// The newest segment that names it.
    named_in: u64,
}

impl RecoveredStream {
    /// Nothing of it is here, and nothing is lost either.
    fn is_empty(&self) -> bool {
        let all_released = self.mark.as_ref().is_none_or(|mark| {
            let mut open = RangeSet::from(mark.base..mark.next_seq);
            mark.holes.iter().for_each(|hole| open.remove_range(hole.clone()));
            open.is_empty() && mark.lost.is_empty()
        });
        self.frames.is_empty() && self.unreadable.is_empty() && all_released
    }
}

/// Reads all segments into an index. `seed`: with which devices are hashed from now on.
///
/// # Errors
/// A segment is there and cannot be read.
pub fn recover(
    disk: &dyn Disk,
    limits: &MemoryLimits,
    seed: SeedTag,
) -> Result<(Index, RecoveryReport), SpoolError> {
    let folder = disk.path(0).parent().map(std::path::Path::to_owned).unwrap_or_default();
    let segments = disk.list().map_err(|error| SpoolError { doing: "read", path: folder, error })?;
    let newest = disk.newest().unwrap_or(None);
    let state = checkpoint(disk)?;
    // What a checkpoint covers comes before everything that is written from now on.
    let next_segment = segments.last().copied().max(newest).max(state.covered_segment()).unwrap_or(0) + 1;
    let first_new = next_segment << NUMBERS_OF_A_RUN;
    let mut index = Index::with_state(state, first_new, seed);
    let mut recovered = RecoveryReport {
        next_segment,
        newest_missing: newest.is_some_and(|newest| segments.binary_search(&newest).is_err()),
        ..RecoveryReport::default()
    };
    let mut streams: HashMap<(String, String), RecoveredStream> = HashMap::new();
    let mut totals = RecoveredTotals::default();
    let (mut listed, mut listed_by) = (Vec::new(), 0);
    let mut was_missing = BTreeSet::new();
    let mut has_lost_streams = false;
    let mut ends = Vec::new();
    let mut told = Instant::now();
    for (number, &segment) in segments.iter().enumerate() {
        let path = disk.path(segment);
        let read = disk.read_all(segment);
        let bytes = read.map_err(|error| SpoolError { doing: "read", path: path.clone(), error })?;
        if told.elapsed() >= Duration::from_secs(1) {
            told = Instant::now();
            info!(segments = number, of = segments.len(), bytes = recovered.bytes, "reading the spool");
        }
        // Nothing was acknowledged in one behind the newest that was noted: that came to nothing, and the
        // end of the one in front of it is the end.
        let is_last = number + 1 == segments.len() || newest.is_some_and(|newest| segment >= newest);
        let scan = scan(segment, &bytes);
        // It was noted as the newest once its marks were durable.
        let is_noted = newest == Some(segment);
        recovered.newest_damaged |= is_noted && scan.others.is_none();
        if scan.is_foreign {
            move_aside(disk, segment, &bytes, is_last && !is_noted);
            if bytes.len() > SEGMENT_HEADER_BYTES {
                recovered.newest_damaged |= is_last;
                let gap = DamagedRange { offset: 0, bytes: bytes.len() as u64, torn: false };
                recovered.gaps.push((segment, gap));
            }
            continue;
        }
        if is_last {
            ends.push(segment);
        }
        recovered.bytes += bytes.len() as u64;
        let mut len = bytes.len() as u64;
        let mut damaged_here = false;
        for gap in scan.gaps {
            // Only the newest can end in the middle of a write.
            if !gap.torn || !is_last {
                recovered.gaps.push((segment, gap));
                damaged_here = true;
                continue;
            }
            info!(file = %path.display(), offset = gap.offset, bytes = gap.bytes,
                  "cut an unfinished write off the spool; what it held was not acknowledged");
            let cut = disk.truncate(segment, gap.offset);
            cut.map_err(|error| SpoolError { doing: "cut the end of", path: path.clone(), error })?;
            len = gap.offset;
        }
        index.record_segment(segment, len);
        if damaged_here {
            index.keep_segment(segment, RetainReason::Damaged);
            recovered.newest_damaged |= is_last;
        }
        for (number_of_marks, marks) in scan.marks.into_iter().enumerate() {
            for mark in marks.streams {
                let key = (mark.tenant.clone(), mark.database.clone());
                let found = streams.entry(key).or_default();
                (found.mark, found.named_in) = (Some(mark), segment);
            }
            let told: BTreeMap<String, LineTotals> = marks.tenants.into_iter().collect();
            if number_of_marks == 0 && scan.others.is_some() {
                totals.begin_segment(&told);
            }
            told.into_iter().for_each(|(tenant, told)| totals.record(tenant, told));
            has_lost_streams |= marks.has_lost_streams;
        }
        if let Some(others) = scan.others {
            // An older segment that is not on the list was missing when that was written.
            let earlier = segments[..number].iter();
            was_missing.extend(earlier.filter(|earlier| others.binary_search(earlier).is_err()));
            (listed, listed_by) = (others, segment);
        }
        for (place, tenant, state) in scan.states {
            // Its checksum was good: it is of another version, or there is a fault of ours.
            if !index.state.apply(&tenant, place, &bytes[state]) {
                error!(file = %path.display(), offset = place.offset, tenant,
                       "changes of the state cannot be read; those before and behind are kept");
            }
        }
        let headers = scan.frames.iter().chain(&scan.bad_bodies).map(|(_, header)| header);
        for header in headers {
            totals.record_spooled(&header.tenant, header.spooled);
        }
        for (place, header) in scan.frames {
            let key = (header.tenant.clone(), header.database.clone());
            let found = streams.entry(key).or_default();
            found.frames.push(RecoveredFrame::new(place, &header));
            found.last_ns = found.last_ns.max(header.last_ns);
            found.named_in = segment;
        }
        for (_, header) in scan.bad_bodies.into_iter().filter(|(_, header)| header.kind == FrameKind::Parked)
        {
            let found = streams.entry((header.tenant, header.database)).or_default();
            found.unreadable.insert(header.seq, header.messages);
            found.named_in = segment;
        }
    }
    // What was read need not be durable: its run may have ended between a write and its sync. In front of
    // later segments its loss would be damage.
    for last in ends.into_iter().filter(|segment| index.has_segment(*segment)) {
        if let Err(error) = disk.sync(last) {
            warn!(%error, file = %disk.path(last).display(), "the newest segment of the spool cannot be synced");
        }
    }
    recovered.returned = was_missing.into_iter().filter(|segment| index.has_segment(*segment)).collect();
    recovered.returned.iter().for_each(|segment| index.keep_segment(*segment, RetainReason::Returned));
    listed.extend(newest);
    recovered.missing =
        listed.into_iter().filter(|segment| segments.binary_search(segment).is_err()).collect();
    // Numbers that nothing here speaks of may have been used where the end is missing.
    let end_is_lost = recovered.newest_missing || recovered.newest_damaged;
    let something_is_lost =
        has_lost_streams || end_is_lost || !recovered.missing.is_empty() || !recovered.gaps.is_empty();
    if has_lost_streams || end_is_lost {
        index.lose_streams();
    }
    let mut returned_lines: HashMap<TenantId, u64> = HashMap::new();
    let mut twin_lines: HashMap<TenantId, u64> = HashMap::new();
    for (tenant, totals) in totals.totals() {
        index.restore_totals(&TenantId::new(tenant), totals);
    }
    let mut all: Vec<_> = streams.into_iter().collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    for ((tenant, database), mut found) in all {
        if database == NO_DATABASE && found.is_empty() {
            // Anybody can name tenants: what has nothing parked any more is forgotten. Its old marks do not
            // speak of the numbers that a new one of that name begins with.
            continue;
        }
        let numbers = found.frames.numbers().chain(found.unreadable.keys().copied());
        let (first, last) = numbers.fold((None, None), |(first, last): (Option<u64>, Option<u64>), seq| {
            (Some(first.map_or(seq, |first| first.min(seq))), last.max(Some(seq)))
        });
        let first = first.unwrap_or(1);
        let mut mark = found.mark.unwrap_or(StreamMark {
            tenant,
            database,
            next_seq: first,
            base: first,
            holes: Vec::new(),
            lost: if something_is_lost { std::iter::once(0..first).collect() } else { Vec::new() },
        });
        mark.next_seq = last.map_or(mark.next_seq, |last| mark.next_seq.max(last + 1));
        let lost = RangeSet::from_iter(mark.lost.iter().cloned());
        let holes = RangeSet::from_iter(mark.holes.iter().cloned());
        let is_released = |seq| !lost.contains(seq) && (seq < mark.base || holes.contains(seq));
        // Of a frame that was being copied both copies may be there.
        let mut frames = found.frames.into_frames(|seq| {
            found.unreadable.remove(&seq);
            !is_released(seq)
        });
        if !frames.is_sorted_by_key(|frame| (frame.seq, frame.place())) {
            frames.sort_unstable_by_key(|frame| (frame.seq, frame.place()));
        }
        frames.dedup_by(|later, first| later.is_copy_of(first));
        let twins = take_twins(&mut frames);
        let stream = index.restore_stream(&mark, frames.iter().map(|frame| frame.seq));
        for frame in twins {
            let lines = u64::from(frame.lines);
            *twin_lines.entry(TenantId::new(&mark.tenant)).or_default() += lines;
            if lost.contains(frame.seq) {
                *returned_lines.entry(TenantId::new(&mark.tenant)).or_default() += lines;
            }
            let header = read_header(disk, frame.place())?;
            recovered.twins.push((stream, frame.place(), header));
        }
        index.reserve_frames(stream, frames.len());
        for frame in frames {
            if lost.contains(frame.seq) {
                *returned_lines.entry(TenantId::new(&mark.tenant)).or_default() += u64::from(frame.lines);
            }
            index.insert(stream, &frame.header(found.last_ns), frame.place(), limits);
            recovered.frames += 1;
            recovered.lines += u64::from(frame.lines);
            if frame.kind == FrameKind::Parked {
                index.return_messages(FrameId { stream, seq: frame.seq }, MessageSet::MAX);
                recovered.parked += u64::from(frame.messages);
            }
        }
        // Known losses were counted when they were found.
        let newly = found.unreadable.iter().filter(|(seq, _)| !is_released(**seq) && !lost.contains(**seq));
        let lost: u64 = newly.map(|(_, messages)| u64::from(*messages)).sum();
        if lost > 0 {
            recovered.parked_lost.insert(TenantId::new(&mark.tenant), lost);
        }
        let is_known_whole = found.named_in >= listed_by && !end_is_lost;
        index.restore_next_seq(stream, mark.next_seq, if is_known_whole { 0 } else { first_new });
    }
    let retired = disk.retired_lines().unwrap_or_default();
    balance(&mut index, &totals, (&returned_lines, &twin_lines), retired, &mut recovered);
    Ok((index, recovered))
}

/// Whatever was spooled and is neither done with nor here was lost to damage, but for `retired` lines:
/// those were done with when there was no room to note it.
fn balance(
    index: &mut Index,
    recovered_totals: &RecoveredTotals,
    (returned, twins): (&HashMap<TenantId, u64>, &HashMap<TenantId, u64>),
    mut retired: RetiredLines,
    recovered: &mut RecoveryReport,
) {
    let all: Vec<_> =
        index.totals().map(|(tenant, totals, pending)| (tenant.clone(), totals, pending)).collect();
    for (tenant, mut totals, pending) in all {
        // They are about to be written anew.
        let pending = pending + twins.get(&tenant).copied().unwrap_or(0);
        totals.spooled = totals.spooled.max(recovered_totals.spooled(tenant.as_str()));
        // What came back counted as damaged, as far as it was known.
        let back = (totals.done() + pending).saturating_sub(totals.spooled);
        let back = back.min(returned.get(&tenant).copied().unwrap_or(0)).min(totals.damaged);
        totals.damaged -= back;
        let known = totals.done() + pending;
        if totals.spooled > known {
            let missing = totals.spooled - known;
            let written = retired.take(tenant.as_str(), missing);
            let lost = missing - written;
            totals.written += written;
            totals.damaged += lost;
            if lost > 0 {
                recovered.damaged.insert(tenant.clone(), lost);
            }
        } else {
            totals.spooled = known;
        }
        index.restore_totals(&tenant, totals);
    }
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

impl RecoveryReport {
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

/// The accounts of lines as the spool knows them, and what is parked, put into the books.
pub fn restore_books(index: &Index, books: &Books) {
    for (tenant, totals, pending) in index.totals() {
        let LineTotals { spooled, written, refused, dropped, damaged } = totals;
        let lines = LineBooks { spooled, written, refused, dropped, damaged, pending };
        // A tenant that has only messages parked may be nobody's.
        if lines != LineBooks::default() {
            books.of_known(tenant.as_str()).restore_lines(lines);
        }
    }
    for (tenant, parked) in index.parked(Duration::ZERO) {
        books.of_known(tenant.as_str()).restore_parked(parked.messages);
    }
}
