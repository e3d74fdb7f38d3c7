//! Reads what lies in quarantine, from the files alone: so a stopped gateway's can be read too.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::QuarantineError;
use super::entry::Entry;
use super::ring::segments_of;

/// Which entries are asked for; a part that is `None` excludes nothing.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub id: Option<String>,
    pub tenant: Option<String>,
    pub device: Option<String>,
    pub reason: Option<String>,
}

impl Filter {
    fn takes(&self, entry: &Entry) -> bool {
        let is = |wanted: &Option<String>, got: Option<&str>| {
            wanted.as_deref().is_none_or(|want| got == Some(want))
        };
        is(&self.id, Some(&entry.id))
            && is(&self.tenant, entry.tenant.as_deref())
            && is(&self.device, entry.device.as_deref())
            && is(&self.reason, Some(&entry.reason))
    }
}

/// Entries as they lie on disk, credentials included: mask them before anybody sees them.
///
/// A segment that expires while it is read is passed over; damaged entries too.
pub struct Entries {
    dir: PathBuf,
    filter: Filter,
    listed: bool,
    segments: VecDeque<PathBuf>,
    reader: Option<BufReader<File>>,
    line: Vec<u8>,
}

impl Entries {
    pub(super) fn new(dir: &Path, filter: Filter) -> Self {
        Self {
            dir: dir.to_owned(),
            filter,
            listed: false,
            segments: VecDeque::new(),
            reader: None,
            line: Vec::new(),
        }
    }

    fn next_entry(&mut self) -> Result<Option<Entry>, QuarantineError> {
        if !self.listed {
            self.listed = true;
            let all = segments_of(&self.dir).map_err(QuarantineError::of("read", &self.dir))?;
            self.segments = all.into_iter().map(|(_, _, path)| path).collect();
        }
        loop {
            let Some(reader) = &mut self.reader else {
                let Some(path) = self.segments.pop_front() else { return Ok(None) };
                self.open(&path)?;
                continue;
            };
            self.line.clear();
            let read =
                reader.read_until(b'\n', &mut self.line).map_err(QuarantineError::of("read", &self.dir))?;
            // A line without an end is still being written.
            if read == 0 || self.line.last() != Some(&b'\n') {
                self.reader = None;
                continue;
            }
            match serde_json::from_slice::<Entry>(&self.line) {
                Ok(entry) if self.filter.takes(&entry) => return Ok(Some(entry)),
                _ => {}
            }
            if self.filter.id.is_some() {
                // The id said where it would stand.
                self.reader = None;
            }
        }
    }

    fn open(&mut self, path: &Path) -> Result<(), QuarantineError> {
        let mut offset = 0;
        if let Some(id) = &self.filter.id {
            let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            match id.rsplit_once('-').and_then(|(segment, at)| Some((segment, at.parse().ok()?))) {
                Some((segment, at)) if segment == stem => offset = at,
                _ => return Ok(()),
            }
        }
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(QuarantineError::of("read", path)(error)),
        };
        file.seek(SeekFrom::Start(offset)).map_err(QuarantineError::of("read", path))?;
        self.reader = Some(BufReader::new(file));
        Ok(())
    }
}

impl Iterator for Entries {
    type Item = Result<Entry, QuarantineError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_entry().transpose()
    }
}
