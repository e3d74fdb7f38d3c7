//! The write side: groups of frames go to the end of the newest segment, and are durable when they
//! are synced. One thread's work; it knows nothing of threads itself.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use tracing::warn;

use crate::disk::{Disk, RetiredLines, SegmentWriter};
use crate::error::SpoolError;
use crate::frame::{FrameDraft, FrameHeader, FrameKind, IS_COPY};
use crate::ids::{FrameId, FrameLocation};
use crate::index::{HandoffState, Index};
use crate::limits;
use crate::segment_scan;
use crate::segment_scan::segment_header;
use crate::settings::MemoryLimits;
use tidegate_core::device_hash::SeedTag;
use tidegate_core::durable::MessageSet;
use tidegate_core::synced::Synced;

/// A batch on its way to the disk.
pub struct Append<'a> {
    pub stream: u32,
    pub draft: &'a FrameDraft,
    pub lines: &'a [u8],
}

/// A frame that is to stand elsewhere, so that its old segment can go.
#[derive(Debug)]
pub struct FrameCopy {
    pub id: FrameId,
    pub from: FrameLocation,
    pub header: FrameHeader,
    pub body: Vec<u8>,
}

/// The result of one `Append`.
#[derive(Clone, Copy, Debug)]
pub enum Appended {
    Lines(FrameId, HandoffState, Synced),
    /// Changes of the state alone: nothing is to be released.
    State,
}

struct CurrentSegment {
    segment: u64,
    salt: u32,
    tail: Box<dyn SegmentWriter>,
    /// Up to here it is known good.
    len: u64,
    /// Up to here it is durable. Only marks are behind it.
    synced_len: u64,
    /// Something was written since the last sync.
    unsynced: bool,
}

/// Counts of what the log did.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogStats {
    pub syncs: u64,
    pub copied_bytes: u64,
}

pub struct SegmentLog {
    disk: Arc<dyn Disk>,
    segment_bytes: u64,
    sync: bool,
    memory: MemoryLimits,
    /// The seed of the affinities in what is appended.
    seed: SeedTag,
    current: Option<CurrentSegment>,
    next_segment: u64,
    buffer: Vec<u8>,
    /// Segments were freed without a mark that says so.
    has_retired: bool,
    /// Bytes of released frames at the last sync of marks.
    marked_bytes: u64,
    pub stats: LogStats,
}

impl SegmentLog {
    pub fn new(
        disk: Arc<dyn Disk>,
        segment_bytes: u64,
        sync: bool,
        memory: MemoryLimits,
        next_segment: u64,
    ) -> Self {
        Self {
            disk,
            segment_bytes,
            sync,
            memory,
            seed: SeedTag::default(),
            current: None,
            next_segment,
            buffer: Vec::new(),
            has_retired: true,
            marked_bytes: 0,
            stats: LogStats::default(),
        }
    }

    /// One in whose frames devices are hashed with this seed.
    pub fn with_seed(self, seed: SeedTag) -> Self {
        Self { seed, ..self }
    }

    /// The segment that is written to.
    pub fn current(&self) -> Option<u64> {
        self.current.as_ref().map(|current| current.segment)
    }

    /// Makes sure that there is a segment to write to, with the marks in force at its beginning.
    ///
    /// # Errors
    /// No segment can be made.
    pub fn ensure_current(&mut self, index: &Mutex<Index>) -> Result<(), SpoolError> {
        if self.current.as_ref().is_some_and(|current| current.len < self.segment_bytes) {
            return Ok(());
        }
        // The old one is whole before anything stands behind it, and stays until there is another:
        // marks still find room in it.
        self.sync_current(index)?;
        let segment = self.next_segment;
        let path = self.disk.path(segment);
        // Whatever becomes of it, its number is used up.
        self.next_segment += 1;
        let made = self.disk.create(segment, self.segment_bytes + limits::SPOOL_MARKS_RESERVE_BYTES);
        let mut tail = made.map_err(|error| SpoolError { doing: "create", path: path.clone(), error })?;
        let salt = random();
        let marks = index.lock().marks(true);
        self.buffer.clear();
        self.buffer.extend(segment_header(segment, salt));
        marks.put(salt, &mut self.buffer);
        let written = tail.append(&self.buffer).and_then(|()| if self.sync { tail.sync() } else { Ok(()) });
        // Noted once it is whole: one that came to nothing must not seem lost.
        let written = written.and_then(|()| self.disk.record_newest());
        let written = written.and_then(|()| if self.sync { self.disk.sync_dir() } else { Ok(()) });
        if let Err(error) = written {
            let _ = self.disk.remove(segment);
            index.lock().unmark(&marks);
            return Err(SpoolError { doing: "write to", path, error });
        }
        let len = self.buffer.len() as u64;
        index.lock().record_segment(segment, len);
        self.current = Some(CurrentSegment { segment, salt, tail, len, synced_len: len, unsynced: false });
        self.forget_retired();
        Ok(())
    }

    /// All marks are durable: what was retired is noted in them.
    fn forget_retired(&mut self) {
        // What stays is forgotten the next time, and harms nobody.
        self.has_retired &= self.disk.forget_retired().is_err();
    }

    /// Gives the current segment up, where it is durable. The marks behind that would read as damage once
    /// there are later segments; the next one begins with all marks.
    fn seal(&mut self, index: &Mutex<Index>, doing: &'static str, error: io::Error) -> SpoolError {
        let mut current = self.current.take().expect("there is a segment to write to");
        let len = if self.sync { current.synced_len } else { current.len };
        // As far as that can be done; recovery passes over what stays.
        let _ = current.tail.truncate(len);
        index.lock().record_segment(current.segment, len);
        SpoolError { doing, path: self.disk.path(current.segment), error }
    }

    fn sync_current(&mut self, index: &Mutex<Index>) -> Result<(), SpoolError> {
        let Some(current) = &mut self.current else { return Ok(()) };
        if !current.unsynced || !self.sync {
            return Ok(());
        }
        self.stats.syncs += 1;
        match current.tail.sync() {
            Ok(()) => {
                current.unsynced = false;
                current.synced_len = current.len;
                Ok(())
            }
            Err(error) => Err(self.seal(index, "sync", error)),
        }
    }

    /// Writes `buffer` to the end of the current segment and syncs it, where anything is synced at all.
    fn write_synced(&mut self, index: &Mutex<Index>) -> Result<Synced, SpoolError> {
        if !self.sync {
            return self.write(index, |_| Ok(Synced::by_setting_never()));
        }
        self.stats.syncs += 1;
        self.write(index, |current| {
            current.unsynced = false;
            Synced::after(|| current.tail.sync())
        })
    }

    /// Writes `buffer` to the end of the current segment, and does then what `sync` does. On a failure the
    /// segment is sealed where it was good: what was not synced is not believed, whatever a later sync
    /// says.
    fn write<T>(
        &mut self,
        index: &Mutex<Index>,
        sync: impl FnOnce(&mut CurrentSegment) -> io::Result<T>,
    ) -> Result<T, SpoolError> {
        let current = self.current.as_mut().expect("there is a segment to write to");
        current.unsynced = true;
        let written = current.tail.append(&self.buffer).map_err(|error| ("write to", error));
        let written = written.and_then(|()| sync(current).map_err(|error| ("sync", error)));
        match written {
            Ok(written) => {
                current.len += self.buffer.len() as u64;
                if !current.unsynced {
                    current.synced_len = current.len;
                }
                index.lock().record_segment(current.segment, current.len);
                Ok(written)
            }
            Err((doing, error)) => Err(self.seal(index, doing, error)),
        }
    }

    /// Makes a group of batches durable: one write, one sync.
    ///
    /// # Errors
    /// Neither the current segment nor a new one takes it; nothing of it is durable.
    pub fn append(
        &mut self,
        index: &Mutex<Index>,
        group: &[Append<'_>],
    ) -> Result<Vec<Appended>, SpoolError> {
        // A failed sync is final for its segment; the group gets one more try in another.
        self.try_append(index, group).or_else(|_| self.try_append(index, group))
    }

    fn try_append(
        &mut self,
        index: &Mutex<Index>,
        group: &[Append<'_>],
    ) -> Result<Vec<Appended>, SpoolError> {
        self.ensure_current(index)?;
        let (segment, salt, begin) = {
            let current = self.current.as_ref().expect("just ensured");
            (current.segment, current.salt, current.len)
        };
        self.buffer.clear();
        let mut frames = Vec::with_capacity(group.len());
        {
            let index = index.lock();
            let mut seqs = HashMap::<u32, u64, foldhash::fast::RandomState>::default();
            let mut totals = HashMap::<u32, u64, foldhash::fast::RandomState>::default();
            for append in group {
                let offset = begin + self.buffer.len() as u64;
                let FrameDraft { header, table, state, .. } = append.draft;
                let len = append.draft.frame_len() as u32;
                let (tenant, database) = index.names(append.stream);
                let (tenant, database) = (tenant.as_str(), database.as_str());
                if header.kind == FrameKind::State {
                    header.put_with_names(tenant, database, salt, &mut self.buffer);
                    self.buffer.extend_from_slice(state);
                    let place = FrameLocation { segment, offset, len };
                    frames.push((append, place, header.numbered(0, 0)));
                    continue;
                }
                let seq = seqs.entry(append.stream).or_insert_with(|| index.next_seq(append.stream));
                let (tenant_number, spooled) = index.spooled(append.stream);
                let spooled = totals.entry(tenant_number).or_insert(spooled);
                *spooled += u64::from(header.lines);
                let header = header.numbered(*seq, *spooled).with_seed(self.seed);
                *seq += 1;
                header.put_with_names(tenant, database, salt, &mut self.buffer);
                self.buffer.extend_from_slice(table);
                self.buffer.extend_from_slice(append.lines);
                self.buffer.extend_from_slice(state);
                frames.push((append, FrameLocation { segment, offset, len }, header));
            }
        }
        let synced = self.write_synced(index)?;
        let mut index = index.lock();
        let appended = frames.into_iter().map(|(append, place, header)| {
            if !append.draft.state.is_empty() {
                let tenant = index.names(append.stream).0.clone();
                let applied = index.state.apply(tenant.as_str(), place, &append.draft.state);
                debug_assert!(applied, "it was written as it is read");
            }
            if header.kind == FrameKind::State {
                return Appended::State;
            }
            let stream = append.stream;
            let handoff_state = index.insert(stream, &header, place, &self.memory);
            Appended::Lines(FrameId { stream, seq: header.seq }, handoff_state, synced)
        });
        Ok(appended.collect())
    }

    /// Writes marks of what has changed, unsynced: a lost mark means a batch that is sent again,
    /// which makes the same points.
    ///
    /// # Errors
    /// They cannot be written; they are due again.
    pub fn mark(&mut self, index: &Mutex<Index>) -> Result<(), SpoolError> {
        let whole = self.current.as_ref().is_none_or(|current| current.len >= self.segment_bytes);
        if whole {
            // A new segment begins with all marks.
            let made = self.ensure_current(index);
            let reserved = self.segment_bytes + limits::SPOOL_MARKS_RESERVE_BYTES / 2;
            if made.is_ok() || self.current.as_ref().is_none_or(|current| current.len > reserved) {
                return made;
            }
        }
        let marks = index.lock().marks(false);
        if marks.is_empty() {
            return Ok(());
        }
        self.buffer.clear();
        marks.put(self.current.as_ref().expect("just seen").salt, &mut self.buffer);
        self.write(index, |_| Ok(())).inspect_err(|_| index.lock().unmark(&marks))
    }

    /// Does the same as `mark`. Where much was released since the last sync, the marks are synced: what is written while
    /// nothing comes in is not written again after a power cut.
    ///
    /// # Errors
    /// The errors of `mark`.
    pub fn mark_durably(&mut self, index: &Mutex<Index>) -> Result<(), SpoolError> {
        self.mark(index)?;
        let released = index.lock().released_bytes();
        if released - self.marked_bytes >= limits::SPOOL_MARK_SYNC_BYTES {
            self.sync_current(index)?;
            self.marked_bytes = released;
        }
        Ok(())
    }

    /// Removes the segments that hold nothing any more. First the marks that say so are synced:
    /// what is gone must not seem lost.
    ///
    /// # Errors
    /// A segment cannot be removed, or marks cannot be written.
    pub fn remove_empty(&mut self, index: &Mutex<Index>) -> Result<(), SpoolError> {
        let mut empty = index.lock().empty_segments(self.current());
        if empty.is_empty() {
            return Ok(());
        }
        let marked = self.mark(index).and_then(|()| self.sync_current(index));
        if let Err(error) = &marked
            && error.error.raw_os_error() != Some(libc::ENOSPC)
        {
            return marked;
        }
        let unmarked = marked.is_err();
        if unmarked && self.current.is_none() {
            // The newest that is whole holds the marks in force. It stays, and what is behind it, but for what
            // it had reserved.
            let Some((newest, len)) = index.lock().newest_whole_segment() else { return marked };
            empty.retain(|&segment| segment < newest);
            let _ = self.disk.truncate(newest, len);
        }
        for segment in empty {
            let kept = index.lock().segment_kept(segment);
            // Renaming it makes no room, and its frames would count as damaged until marks release them.
            if unmarked && kept.is_some() {
                continue;
            }
            // On a full disk retiring is how there is room for marks again.
            let removed = match kept {
                Some(kept) => self.disk.move_aside(segment, kept.extension()),
                None if unmarked => {
                    lines_of(&*self.disk, segment).and_then(|lines| self.disk.retire(segment, &lines))
                }
                None => self.disk.remove(segment),
            };
            match removed {
                Ok(()) => {
                    if let Some(kept) = kept {
                        warn!(file = %self.disk.path(segment).display(), extension = kept.extension(),
                              "a segment of the spool that was damaged or missing is done with as far as it can be read; it is renamed and stays, and may be deleted");
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(SpoolError { doing: "remove", path: self.disk.path(segment), error });
                }
            }
            self.has_retired |= unmarked;
            index.lock().forget_segment(segment);
        }
        if unmarked {
            self.mark(index)?;
            self.sync_current(index)?;
        }
        if self.has_retired {
            self.forget_retired();
        }
        Ok(())
    }

    /// Makes copies of frames durable, and their old places free.
    ///
    /// # Errors
    /// They cannot be written; the old places stay in force.
    pub fn append_copies(&mut self, index: &Mutex<Index>, copies: &[FrameCopy]) -> Result<(), SpoolError> {
        self.ensure_current(index)?;
        let current = self.current.as_ref().expect("just ensured");
        let (segment, salt, begin) = (current.segment, current.salt, current.len);
        self.buffer.clear();
        let mut places = Vec::with_capacity(copies.len());
        for copy in copies {
            let offset = begin + self.buffer.len() as u64;
            copy.header.put(salt, &mut self.buffer);
            self.buffer.extend_from_slice(&copy.body);
            places.push(FrameLocation { segment, offset, len: copy.from.len });
        }
        self.write_synced(index)?;
        self.stats.copied_bytes += self.buffer.len() as u64;
        let mut index = index.lock();
        for (copy, place) in copies.iter().zip(places) {
            if index.place(copy.id) == Some(copy.from) {
                index.relocate(copy.id, place);
            }
        }
        Ok(())
    }
}

impl SegmentLog {
    /// Writes frames anew that share their number with others, each with a number of its own behind all
    /// others of its stream. Their old numbers count as released from then on.
    ///
    /// # Errors
    /// They cannot be read or written; those that are left stay as they are, and as lost.
    pub fn separate(
        &mut self,
        index: &Mutex<Index>,
        twins: &[(u32, FrameLocation, FrameHeader)],
    ) -> Result<(), SpoolError> {
        let no_memory = MemoryLimits { bytes_max: 0, database_bytes_min: 0 };
        let mut written = Vec::with_capacity(twins.len());
        for (stream, from, header) in twins {
            let mut body = vec![0; header.body_len as usize];
            let offset = from.offset + u64::from(from.len) - u64::from(header.body_len);
            let read = self.disk.read_at(from.segment, offset, &mut body);
            read.map_err(|error| SpoolError { doing: "read", path: self.disk.path(from.segment), error })?;
            self.ensure_current(index)?;
            let current = self.current.as_ref().expect("just ensured");
            let place = FrameLocation { segment: current.segment, offset: current.len, len: from.len };
            let salt = current.salt;
            let seq = index.lock().next_seq(*stream);
            let anew = FrameHeader { seq, flags: header.flags | IS_COPY, ..header.clone() };
            self.buffer.clear();
            anew.put(salt, &mut self.buffer);
            self.buffer.extend_from_slice(&body);
            self.write(index, |_| Ok(()))?;
            let mut index = index.lock();
            index.insert(*stream, &anew, place, &no_memory);
            if anew.kind == FrameKind::Parked {
                index.return_messages(FrameId { stream: *stream, seq }, MessageSet::MAX);
            }
            written.push((*stream, header.seq));
        }
        self.sync_current(index)?;
        for (stream, seq) in written {
            index.lock().forget_lost(stream, seq);
        }
        self.mark(index)?;
        self.sync_current(index)
    }
}

/// Lines of all frames that a segment holds.
fn lines_of(disk: &dyn Disk, segment: u64) -> io::Result<RetiredLines> {
    let mut lines = RetiredLines::default();
    for (_, header) in segment_scan::scan(segment, &disk.read_all(segment)?).frames {
        *lines.tenants.entry(header.tenant).or_default() += u64::from(header.lines);
    }
    Ok(lines)
}

/// A number that nobody outside can know.
fn random() -> u32 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish() as u32
}
