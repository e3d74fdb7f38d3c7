//! Copying of live frames out of sparse segments, and checkpoints of the state, so that segments can go.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use tracing::warn;

use crate::disk::Disk;
use crate::error::SpoolError;
use crate::frame::{FrameHeader, IS_COPY};
use crate::ids::{FrameId, FrameLocation};
use crate::index::Index;
use crate::index::segment::SegmentUsage;
use crate::log::FrameCopy;
use crate::shared::Shared;
use crate::{limits, segment_scan};

/// Looks for segments worth copying out of, beside the committer: reading is no work for the
/// thread that everybody's acknowledgement waits for.
pub fn compact(shared: &Arc<Shared>) {
    let every = Duration::from_millis(limits::SPOOL_MARK_INTERVAL_MS);
    let mut found = false;
    loop {
        {
            let mut queue = shared.queue.lock();
            // One after the other while there is any, and then a look each second.
            while !queue.closed && (!found || !queue.copies.is_empty()) {
                if shared.copied.wait_for(&mut queue, every).timed_out() && queue.copies.is_empty() {
                    break;
                }
                if found && queue.copies.is_empty() {
                    break;
                }
            }
            if queue.closed {
                return;
            }
        }
        let current = Some(shared.current.load(Ordering::Relaxed));
        let settings = &shared.settings;
        let wanted = wants_checkpoint(&shared.index.lock(), current, settings.bytes_max);
        if wanted && let Err(error) = checkpoint(&*shared.disk, &shared.index) {
            warn!(%error, "segments of the spool stay until the state can be written down");
        }
        let now_s = settings.age_clock.now_s();
        let victim =
            to_copy(&shared.index.lock(), current, settings.segment_bytes(), settings.bytes_max, now_s);
        found = victim.is_some();
        let Some(segment) = victim else { continue };
        match live_frames(&*shared.disk, &shared.index, segment) {
            Ok((copies, damaged)) => {
                for (id, place) in damaged {
                    shared.damaged(id, place, "its checksum is wrong");
                }
                found = !copies.is_empty();
                shared.queue.lock().copies = copies;
                shared.more.notify_one();
            }
            Err(error) => {
                warn!(%error, "a segment could not be tidied");
                found = false;
            }
        }
    }
}

/// Frames to copy, and those that cannot be read.
pub type LiveFrames = (Vec<FrameCopy>, Vec<(FrameId, FrameLocation)>);

/// The frames of a segment that are in force there. Those that cannot be read are named.
///
/// # Errors
/// The segment cannot be read.
pub fn live_frames(disk: &dyn Disk, index: &Mutex<Index>, segment: u64) -> Result<LiveFrames, SpoolError> {
    let read = disk.read_all(segment);
    let bytes = read.map_err(|error| SpoolError { doing: "read", path: disk.path(segment), error })?;
    let (mut copies, mut damaged) = (Vec::new(), Vec::new());
    let scan = segment_scan::scan(segment, &bytes);
    let index = index.lock();
    for (place, header) in scan.frames {
        let found = index.is_live_at(&header.tenant, &header.database, header.seq, place);
        if let Some(id) = found {
            let end = place.offset as usize + place.len as usize;
            let body = bytes[end - header.body_len as usize..end].to_vec();
            let header = FrameHeader { flags: header.flags | IS_COPY, ..header };
            copies.push(FrameCopy { id, from: place, header, body });
        }
    }
    for (place, header) in scan.bad_bodies {
        damaged.extend(
            index.is_live_at(&header.tenant, &header.database, header.seq, place).map(|id| (id, place)),
        );
    }
    Ok((copies, damaged))
}

/// The segment to copy out of, if one should be: the emptiest, when less than a quarter of it is
/// alive, or when disk is short, or when it is a small one that a restart left. Unless disk is short it is
/// not one of the last seconds: most of its lines are on their way to their databases. `now_s`: the second of
/// the age clock.
pub fn to_copy(
    index: &Index,
    current: Option<u64>,
    segment_bytes: u64,
    bytes_max: u64,
    now_s: u32,
) -> Option<u64> {
    let short = index.disk_bytes() > bytes_max - bytes_max / 8;
    // The clock of earlier versions may have been ahead.
    let is_young =
        |of: &SegmentUsage| (now_s.saturating_sub(limits::SPOOL_COPY_AGE_S)..=now_s).contains(&of.newest_s);
    let (segment, of) = index.emptiest_segment(current, |of| short || !is_young(of))?;
    let sparse = of.live_bytes * 4 < of.len;
    let wasteful = short && of.live_bytes + of.len / 16 < of.len;
    let small = index.segments() > 8 && of.len < segment_bytes / 8;
    (sparse || wasteful || small).then_some(segment)
}

/// Writes the state down, where segments wait for that. Off the commit path: it is written beside the
/// segments.
///
/// # Errors
/// It cannot be written: those segments stay.
pub fn checkpoint(disk: &dyn Disk, index: &Mutex<Index>) -> Result<(), SpoolError> {
    let snapshot = index.lock().state.snapshot();
    let written = disk.replace_state(&snapshot.bytes());
    written.map_err(|error| {
        let folder = disk.path(0).parent().map(std::path::Path::to_owned).unwrap_or_default();
        SpoolError { doing: "write the state into", path: folder, error }
    })?;
    index.lock().state.cover(snapshot.covers);
    Ok(())
}

/// True if the state should be written down: as much can go then as has to be written, or disk is short.
pub fn wants_checkpoint(index: &Index, current: Option<u64>, bytes_max: u64) -> bool {
    let pinned = index.pinned_bytes(current);
    let short = index.disk_bytes() > bytes_max / 4 * 3;
    pinned > 0 && (short || pinned >= index.state.image().bytes())
}
