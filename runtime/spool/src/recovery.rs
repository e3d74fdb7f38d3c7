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

use std::collections::HashMap;
use std::time::Duration;

use crate::disk::{Disk, RetiredLines};
use crate::error::SpoolError;
use crate::frame::{FrameHeader, FrameKind};
use crate::ids::{FrameId, FrameLocation, NO_DATABASE};
use crate::index::Index;
use crate::recovered_frame::RecoveredFrame;
use crate::recovered_log::RecoveredLog;
use crate::recovered_stream::{MarkedFrames, RecoveredStream, sort_frames, take_twins};
use crate::recovery_report::RecoveryReport;
use crate::release_marks::LineTotals;
use crate::segment_scan::{SEGMENT_HEADER_BYTES, read_segment_header};
use crate::settings::MemoryLimits;
use tidegate_core::books::{Books, LineBooks};
use tidegate_core::device_hash::SeedTag;
use tidegate_core::durable::MessageSet;
use tidegate_core::ids::TenantId;

/// Reads all segments into an index. `seed`: with which devices are hashed from now on.
///
/// # Errors
/// A segment is there and cannot be read.
pub fn recover(
    disk: &dyn Disk,
    limits: &MemoryLimits,
    seed: SeedTag,
) -> Result<(Index, RecoveryReport), SpoolError> {
    let mut log = RecoveredLog::read(disk, seed)?;
    if log.has_lost_streams {
        log.index.lose_streams();
    }
    let twins = restore_streams(&mut log, disk, limits)?;
    restore_totals(&mut log, &twins, disk.retired_lines().unwrap_or_default());
    Ok((log.index, log.report))
}

/// Lines of each tenant in frames that are about to be written anew.
type TwinLines = HashMap<TenantId, u64>;

/// Puts the frames of all streams into the index.
fn restore_streams(
    log: &mut RecoveredLog,
    disk: &dyn Disk,
    limits: &MemoryLimits,
) -> Result<TwinLines, SpoolError> {
    let mut twins = TwinLines::new();
    let mut all: Vec<_> = std::mem::take(&mut log.streams).into_iter().collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    for (name, found) in all {
        if name.1 == NO_DATABASE && found.is_empty() {
            // Anybody can name tenants: what has nothing parked any more is forgotten. Its old marks do not
            // speak of the numbers that a new one of that name begins with.
            continue;
        }
        restore_stream(log, disk, limits, &mut twins, name, found)?;
    }
    Ok(twins)
}

fn restore_stream(
    log: &mut RecoveredLog,
    disk: &dyn Disk,
    limits: &MemoryLimits,
    twin_lines: &mut TwinLines,
    name: (String, String),
    mut found: RecoveredStream,
) -> Result<(), SpoolError> {
    let mark = found.take_mark(name, log.is_something_lost());
    let marked = MarkedFrames::of(&mark);
    let mut frames = found.frames.into_frames(|seq| {
        found.unreadable.remove(&seq);
        !marked.is_released(seq)
    });
    sort_frames(&mut frames);
    let twins = take_twins(&mut frames);
    let (index, report) = (&mut log.index, &mut log.report);
    let stream = index.restore_stream(&mark, frames.iter().map(|frame| frame.seq));
    for frame in twins {
        *twin_lines.entry(TenantId::new(&mark.tenant)).or_default() += u64::from(frame.lines);
        let header = read_header(disk, frame.place())?;
        report.twins.push((stream, frame.place(), header));
    }
    index.reserve_frames(stream, frames.len());
    for frame in frames {
        insert(index, report, stream, &frame, found.last_ns, limits);
    }
    // Known losses were counted when they were found.
    let newly =
        found.unreadable.iter().filter(|(seq, _)| !marked.is_released(**seq) && !marked.is_lost(**seq));
    let lost: u64 = newly.map(|(_, messages)| u64::from(*messages)).sum();
    if lost > 0 {
        report.parked_lost.insert(TenantId::new(&mark.tenant), lost);
    }
    // Numbers that nothing here speaks of may have been used where the end is missing.
    let is_known_whole = found.named_in >= log.listed_by && !report.is_end_lost();
    index.restore_next_seq(stream, mark.next_seq, if is_known_whole { 0 } else { log.first_new });
    Ok(())
}

fn insert(
    index: &mut Index,
    report: &mut RecoveryReport,
    stream: u32,
    frame: &RecoveredFrame,
    last_ns: i64,
    limits: &MemoryLimits,
) {
    index.insert(stream, &frame.header(last_ns), frame.place(), limits);
    report.frames += 1;
    report.lines += u64::from(frame.lines);
    if frame.kind == FrameKind::Parked {
        index.return_messages(FrameId { stream, seq: frame.seq }, MessageSet::MAX);
        report.parked += u64::from(frame.messages);
    }
}

/// Puts the accounts of lines into the index. Where the end of the log is missing, an epoch begins.
fn restore_totals(log: &mut RecoveredLog, twins: &TwinLines, mut retired: RetiredLines) {
    let anew = log.report.is_end_lost().then_some(log.report.next_segment);
    let totals = std::mem::take(&mut log.totals);
    for (tenant, totals) in totals.totals() {
        log.index.restore_totals(&TenantId::new(tenant), totals, LineTotals::default());
    }
    log.index.epochs = totals.epochs(anew);
    let is_forked = log.index.epochs.current > 0;
    let all: Vec<_> =
        log.index.totals().map(|(tenant, totals, pending)| (tenant.clone(), totals, pending)).collect();
    for (tenant, mut totals, pending) in all {
        let pending = pending + twins.get(&tenant).copied().unwrap_or(0);
        let found =
            balance(&mut totals, pending, is_forked, |missing| retired.take(tenant.as_str(), missing));
        if found.lost > 0 {
            log.report.damaged.insert(tenant.clone(), found.lost);
        }
        log.index.restore_totals(&tenant, totals, found.twice);
    }
}

/// The findings where the totals of a tenant did not balance.
struct Imbalance {
    /// Lost lines that were not known.
    lost: u64,
    /// Lines that count twice in what the segments tell.
    twice: LineTotals,
}

/// Makes the totals of a tenant balance with the lines that are here. Whatever was spooled and is neither done with nor here was lost to damage, but for `retired` lines: those
/// were done with when there was no room to note it. Lines that count as damaged and are here, or were
/// written by a run that had them, are damaged no more.
///
/// `is_forked`: there are runs that did not know of each other. Both may have written the same lines, and
/// those that one has written may be here again: they count once. The segments tell what was done, each time
/// that it was: how many lines that is too many shows anew at each start, by the segments that are here then.
fn balance(
    totals: &mut LineTotals,
    pending: u64,
    is_forked: bool,
    mut retired: impl FnMut(u64) -> u64,
) -> Imbalance {
    let known = std::mem::take(&mut totals.damaged);
    let told = *totals;
    if is_forked {
        totals.count_once((totals.done() + pending).saturating_sub(totals.spooled));
    }
    let twice = told.minus(*totals);
    let lost = totals.spooled.saturating_sub(totals.done() + pending);
    let written = retired(lost.saturating_sub(known));
    totals.written += written;
    totals.damaged = lost - written;
    totals.spooled = totals.done() + pending;
    Imbalance { lost: totals.damaged.saturating_sub(known), twice }
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
