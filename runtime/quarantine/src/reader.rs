//! Reads the entries of quarantine from the files alone, so those of a stopped gateway can be read, too.

use std::collections::{BinaryHeap, HashSet, VecDeque};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::entry::Entry;
use crate::error::QuarantineError;
use crate::filter::Filter;
use crate::segment::{EntryId, EntryLocation, SegmentLines, id_of, is_line_of, segment_name, segments_of};

/// The entries on disk, credentials included: mask them before they are shown.
///
/// A segment that expires while it is read is skipped; an entry that was copied forward from it is found
/// at its new location, and given once. Damaged entries are skipped.
pub struct Entries {
    dir: PathBuf,
    filter: Filter,
    listed: HashSet<PathBuf>,
    segments: VecDeque<(u64, PathBuf)>,
    /// A segment was gone: list the folder again at the end of the list.
    list_again: bool,
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
            list_again: false,
            open: None,
            given: HashSet::new(),
            began: false,
        }
    }

    /// The next entry and its location.
    pub(super) fn next_entry(&mut self) -> Result<Option<(EntryLocation, Entry)>, QuarantineError> {
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
                            None => self.list_again = true,
                        }
                        continue;
                    }
                    None if self.list_again => {
                        self.list_again = false;
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
                    let error = QuarantineError::failed_to("read", path)(error);
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
        for (_, seq, path) in segments_of(&self.dir).map_err(QuarantineError::failed_to("read", &self.dir))? {
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
        self.next_entry().map(|found| found.map(|(_, entry)| entry)).transpose()
    }
}

/// Opens a segment; `None` if it is gone.
pub(super) fn open(path: &Path, from: u64) -> Result<Option<SegmentLines>, QuarantineError> {
    match SegmentLines::open(path, from) {
        Ok(lines) => Ok(Some(lines)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(QuarantineError::failed_to("read", path)(error)),
    }
}

fn parse(line: &[u8]) -> Option<(EntryId, Entry)> {
    let entry: Entry = serde_json::from_slice(line).ok()?;
    Some((EntryId::parse(&entry.id)?, entry))
}

/// The first entries by `order`, at most `max`, and the number of further ones.
pub(super) fn first_by<O: Ord>(
    dir: &Path,
    filter: Filter,
    max: usize,
    order: impl Fn(&EntryLocation, &Entry) -> O,
) -> Result<(Vec<EntryLocation>, u64), QuarantineError> {
    let mut entries = Entries::new(dir, filter);
    let mut first = BinaryHeap::new();
    let mut more = 0;
    while let Some((location, entry)) = entries.next_entry()? {
        first.push((order(&location, &entry), location));
        if first.len() > max {
            first.pop();
            more += 1;
        }
    }
    Ok((first.into_sorted_vec().into_iter().map(|(_, location)| location).collect(), more))
}

/// The entries that are still there. Each is looked for at its last location, then in all later segments.
pub(super) fn find(
    dir: &Path,
    wanted: &[EntryLocation],
) -> Result<Vec<(EntryLocation, Entry)>, QuarantineError> {
    let mut found = Vec::new();
    locate(dir, wanted, |location, line| {
        if let Some((_, entry)) = parse(line) {
            found.push((location, entry));
        }
    })?;
    Ok(found)
}

/// Calls `with` for each entry that is still there, with its location and its line.
pub(super) fn locate(
    dir: &Path,
    wanted: &[EntryLocation],
    mut with: impl FnMut(EntryLocation, &[u8]),
) -> Result<(), QuarantineError> {
    let mut missing = HashSet::new();
    for location in wanted {
        let path = dir.join(format!("{}.jsonl", segment_name(location.id.series, location.seq)));
        let line = open(&path, location.offset)?
            .map(|mut lines| {
                let line = lines.next_line().map_err(QuarantineError::failed_to("read", &path))?;
                // Blanked lines are skipped: the line may then be another entry's.
                Ok(line
                    .filter(|&(at, line)| at == location.offset && is_line_of(line, location.id))
                    .map(|(_, line)| line.to_vec()))
            })
            .transpose()?
            .flatten();
        match line {
            Some(line) => with(*location, &line),
            None => drop(missing.insert(location.id)),
        }
    }
    let Some(first) = missing.iter().map(|id| id.seq).min() else { return Ok(()) };
    // An entry is copied only to later segments.
    for (series, seq, path) in segments_of(dir).map_err(QuarantineError::failed_to("read", dir))? {
        if missing.is_empty() {
            break;
        }
        if seq <= first || missing.iter().all(|id| id.series != series) {
            continue;
        }
        let Some(mut lines) = open(&path, 0)? else { continue };
        while let Some((offset, line)) =
            lines.next_line().map_err(QuarantineError::failed_to("read", &path))?
        {
            if let Some(id) = id_of(line)
                && missing.remove(&id)
            {
                with(EntryLocation { id, seq, offset }, line);
            }
        }
    }
    Ok(())
}
