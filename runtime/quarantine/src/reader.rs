//! Reads what lies in quarantine, from the files alone: so a stopped gateway's can be read too.

use std::collections::{BinaryHeap, HashSet, VecDeque};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::entry::Entry;
use crate::error::QuarantineError;
use crate::filter::Filter;
use crate::segment::{EntryId, EntryLocation, SegmentLines, id_of, is_line_of, segment_name, segments_of};

/// Entries as they lie on disk, credentials included: mask them before anybody sees them.
///
/// A segment that expires while it is read is passed over, but what was carried on from it is found
/// where it stands now, and given once. Damaged entries are passed over.
pub struct Entries {
    dir: PathBuf,
    filter: Filter,
    listed: HashSet<PathBuf>,
    segments: VecDeque<(u64, PathBuf)>,
    /// List the folder again once the list is at its end: a segment was gone.
    look_again: bool,
    open: Option<(u64, PathBuf, SegmentLines)>,
    given: HashSet<EntryId>,
    began: bool,
}

impl Entries {
    pub(super) fn new(dir: &Path, filter: Filter) -> Self {
        Self {
            dir: dir.to_owned(),
            filter,
            listed: HashSet::new(),
            segments: VecDeque::new(),
            look_again: false,
            open: None,
            given: HashSet::new(),
            began: false,
        }
    }

    /// The next entry and where it stands.
    pub(super) fn next_place(&mut self) -> Result<Option<(EntryLocation, Entry)>, QuarantineError> {
        if !self.began {
            self.began = true;
            if let Some(id) = &self.filter.id {
                let Some(id) = EntryId::parse(id) else { return Ok(None) };
                let found = find(&self.dir, &[EntryLocation { id, seq: id.seq, offset: id.offset }])?;
                return Ok(found.into_iter().next().filter(|(_, entry)| self.filter.takes(entry)));
            }
            self.list()?;
        }
        loop {
            let Some((seq, path, lines)) = &mut self.open else {
                match self.segments.pop_front() {
                    Some((seq, path)) => {
                        match open(&path, 0)? {
                            Some(lines) => self.open = Some((seq, path, lines)),
                            None => self.look_again = true,
                        }
                        continue;
                    }
                    None if self.look_again => {
                        self.look_again = false;
                        self.list()?;
                        continue;
                    }
                    None => return Ok(None),
                }
            };
            let (offset, line) = match lines.next_line() {
                Ok(Some(found)) => found,
                Ok(None) => {
                    self.open = None;
                    continue;
                }
                Err(error) => {
                    let error = QuarantineError::of("read", path)(error);
                    // The rest of it will not be better.
                    self.open = None;
                    return Err(error);
                }
            };
            if let Some((id, entry)) = parse(line)
                && self.filter.takes(&entry)
                && self.given.insert(id)
            {
                return Ok(Some((EntryLocation { id, seq: *seq, offset }, entry)));
            }
        }
    }

    /// Lists the segments that were not seen yet.
    fn list(&mut self) -> Result<(), QuarantineError> {
        for (_, seq, path) in segments_of(&self.dir).map_err(QuarantineError::of("read", &self.dir))? {
            if self.listed.insert(path.clone()) {
                self.segments.push_back((seq, path));
            }
        }
        Ok(())
    }
}

impl Iterator for Entries {
    type Item = Result<Entry, QuarantineError>;

    fn next(&mut self) -> Option<Self::Item> {
        // A lookup by name is done with its first answer.
        if self.began && self.filter.id.is_some() {
            return None;
        }
        self.next_place().map(|found| found.map(|(_, entry)| entry)).transpose()
    }
}

/// Opens a segment; `None` when it is gone.
pub(super) fn open(path: &Path, from: u64) -> Result<Option<SegmentLines>, QuarantineError> {
    match SegmentLines::open(path, from) {
        Ok(lines) => Ok(Some(lines)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(QuarantineError::of("read", path)(error)),
    }
}

fn parse(line: &[u8]) -> Option<(EntryId, Entry)> {
    let entry: Entry = serde_json::from_slice(line).ok()?;
    Some((EntryId::parse(&entry.id)?, entry))
}

/// The first entries by `order`, at most `max`, and how many more there are.
pub(super) fn first_by<O: Ord>(
    dir: &Path,
    filter: Filter,
    max: usize,
    order: impl Fn(&EntryLocation, &Entry) -> O,
) -> Result<(Vec<EntryLocation>, u64), QuarantineError> {
    let mut entries = Entries::new(dir, filter);
    let mut first = BinaryHeap::new();
    let mut more = 0;
    while let Some((place, entry)) = entries.next_place()? {
        first.push((order(&place, &entry), place));
        if first.len() > max {
            first.pop();
            more += 1;
        }
    }
    Ok((first.into_sorted_vec().into_iter().map(|(_, place)| place).collect(), more))
}

/// The entries that are still there, each looked for where it was last seen, then everywhere it may
/// have been carried to.
pub(super) fn find(
    dir: &Path,
    wanted: &[EntryLocation],
) -> Result<Vec<(EntryLocation, Entry)>, QuarantineError> {
    let mut found = Vec::new();
    locate(dir, wanted, |place, line| {
        if let Some((_, entry)) = parse(line) {
            found.push((place, entry));
        }
    })?;
    Ok(found)
}

/// Tells `with` where each entry stands now, and its line.
pub(super) fn locate(
    dir: &Path,
    wanted: &[EntryLocation],
    mut with: impl FnMut(EntryLocation, &[u8]),
) -> Result<(), QuarantineError> {
    let mut missing = HashSet::new();
    for place in wanted {
        let path = dir.join(format!("{}.jsonl", segment_name(place.id.series, place.seq)));
        let line = open(&path, place.offset)?
            .map(|mut lines| {
                let line = lines.next_line().map_err(QuarantineError::of("read", &path))?;
                // What was blanked is passed over: then the line is another's.
                Ok(line
                    .filter(|&(at, line)| at == place.offset && is_line_of(line, place.id))
                    .map(|(_, line)| line.to_vec()))
            })
            .transpose()?
            .flatten();
        match line {
            Some(line) => with(*place, &line),
            None => drop(missing.insert(place.id)),
        }
    }
    let Some(first) = missing.iter().map(|id| id.seq).min() else { return Ok(()) };
    // An entry is carried only to later segments.
    for (series, seq, path) in segments_of(dir).map_err(QuarantineError::of("read", dir))? {
        if missing.is_empty() {
            break;
        }
        if seq <= first || missing.iter().all(|id| id.series != series) {
            continue;
        }
        let Some(mut lines) = open(&path, 0)? else { continue };
        while let Some((offset, line)) = lines.next_line().map_err(QuarantineError::of("read", &path))? {
            if let Some(id) = id_of(line)
                && missing.remove(&id)
            {
                with(EntryLocation { id, seq, offset }, line);
            }
        }
    }
    Ok(())
}
