//! The segments on disk: which there are, what they hold, and which must go.

use std::collections::{BTreeMap, HashMap};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use tracing::warn;

use crate::domain::books::{Account, Books, NO_TENANT};
use crate::domain::limits;

use super::entry::Entry;
use super::{QuarantineError, QuarantineSettings};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Which of the two rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Series {
    /// Refused after admission.
    Known,
    /// Refused before anybody was authenticated.
    Strangers,
}

impl Series {
    pub const ALL: [Series; 2] = [Series::Known, Series::Strangers];

    fn prefix(self) -> &'static str {
        match self {
            Series::Known => "",
            Series::Strangers => "a-",
        }
    }
}

/// A segment's name, without its ending: `{seq:016}` or `a-{seq:016}`.
pub fn segment_name(series: Series, seq: u64) -> String {
    format!("{}{seq:016}", series.prefix())
}

/// The segments of a folder in order, the known ring before the strangers'.
pub fn segments_of(dir: &Path) -> std::io::Result<Vec<(Series, u64, PathBuf)>> {
    let mut all = Vec::new();
    for file in std::fs::read_dir(dir)? {
        let path = file?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".jsonl")) else {
            continue;
        };
        let (series, digits) = match name.strip_prefix("a-") {
            Some(digits) => (Series::Strangers, digits),
            None => (Series::Known, name),
        };
        if let Ok(seq) = digits.parse() {
            all.push((series, seq, path));
        }
    }
    all.sort();
    Ok(all)
}

/// Entries of one reason and tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Count {
    pub reason: String,
    pub tenant: String,
    pub entries: u64,
}

/// What one entry is counted under.
#[derive(Clone)]
pub struct Tally {
    pub reason: String,
    pub account: Arc<Account>,
}

struct Segment {
    series: Series,
    seq: u64,
    path: PathBuf,
    bytes: u64,
    began: SystemTime,
    last: SystemTime,
    counts: BTreeMap<(String, String), (u64, Arc<Account>)>,
}

impl Segment {
    fn count(&mut self, tally: &Tally) {
        let key = (tally.reason.clone(), tally.account.tenant().to_string());
        self.counts.entry(key).or_insert_with(|| (0, tally.account.clone())).0 += 1;
    }
}

/// An open segment that entries are appended to.
struct Active {
    file: File,
    seq: u64,
    bytes: u64,
}

pub struct Ring {
    dir: PathBuf,
    settings: QuarantineSettings,
    segments: Vec<Segment>,
    active: HashMap<Series, Active>,
    next_seq: u64,
}

impl Ring {
    pub fn open(dir: &Path, settings: QuarantineSettings, books: &Books) -> Result<Self, QuarantineError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(QuarantineError::of("create", dir))?;
        let mut ring =
            Self { dir: dir.to_owned(), settings, segments: Vec::new(), active: HashMap::new(), next_seq: 1 };
        for (series, seq, path) in segments_of(dir).map_err(QuarantineError::of("read", dir))? {
            let segment =
                scan(series, seq, path.clone(), books).map_err(QuarantineError::of("read", &path))?;
            for (count, account) in segment.counts.values() {
                account.quarantine_entries(*count);
            }
            ring.next_seq = ring.next_seq.max(seq + 1);
            ring.segments.push(segment);
        }
        ring.expire(SystemTime::now());
        Ok(ring)
    }

    fn bytes_max(&self, series: Series) -> u64 {
        let strangers = self.settings.bytes_max / limits::STRANGER_SHARE;
        match series {
            Series::Strangers => strangers,
            Series::Known => self.settings.bytes_max - strangers,
        }
    }

    fn segment_bytes_max(&self, series: Series) -> u64 {
        (self.bytes_max(series) / limits::QUARANTINE_SEGMENTS_MIN)
            .clamp(1, limits::QUARANTINE_SEGMENT_BYTES_MAX)
    }

    /// Where the next entries of a series go: the segment's name and offset. A new segment where
    /// the last is full, a day old, or failed.
    pub fn place(&mut self, series: Series, now: SystemTime) -> Result<(String, u64), QuarantineError> {
        if let Some(active) = self.active.get(&series) {
            let segment = self.segments.iter().find(|segment| segment.seq == active.seq);
            let old =
                segment.is_none_or(|segment| now.duration_since(segment.began).is_ok_and(|age| age >= DAY));
            if old || active.bytes >= self.segment_bytes_max(series) {
                self.active.remove(&series);
            }
        }
        if !self.active.contains_key(&series) {
            self.make_segment(series, now)?;
        }
        let active = &self.active[&series];
        Ok((segment_name(series, active.seq), active.bytes))
    }

    fn make_segment(&mut self, series: Series, now: SystemTime) -> Result<(), QuarantineError> {
        let seq = self.next_seq;
        let path = self.dir.join(format!("{}.jsonl", segment_name(series, seq)));
        let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&path);
        // Whatever became of it, its number is used up.
        self.next_seq += 1;
        let file = file.map_err(QuarantineError::of("create", &path))?;
        let synced = File::open(&self.dir).and_then(|dir| dir.sync_all());
        synced.map_err(QuarantineError::of("sync", &self.dir))?;
        self.active.insert(series, Active { file, seq, bytes: 0 });
        let counts = BTreeMap::new();
        self.segments.push(Segment { series, seq, path, bytes: 0, began: now, last: now, counts });
        Ok(())
    }

    /// Appends entries to the place that was given, and syncs.
    pub fn append(
        &mut self,
        series: Series,
        entries: &[u8],
        tallies: &[Tally],
        now: SystemTime,
    ) -> Result<(), QuarantineError> {
        let active = self.active.get_mut(&series).expect("a place was given");
        let segment = self.segments.iter_mut().find(|segment| segment.seq == active.seq);
        let segment = segment.expect("an active segment is listed");
        let written = active.file.write_all(entries).map_err(QuarantineError::of("write to", &segment.path));
        let written = written
            .and_then(|()| active.file.sync_data().map_err(QuarantineError::of("sync", &segment.path)));
        if let Err(error) = written {
            // A failed sync is final for its file: what is written next goes to another.
            let _ = active.file.set_len(active.bytes);
            self.active.remove(&series);
            return Err(error);
        }
        active.bytes += entries.len() as u64;
        segment.bytes = active.bytes;
        segment.last = now;
        for tally in tallies {
            segment.count(tally);
            tally.account.quarantine_entries(1);
        }
        self.expire(now);
        Ok(())
    }

    /// Removes what is too much or too old, the oldest first.
    pub fn expire(&mut self, now: SystemTime) {
        let age_max = DAY * self.settings.days_max;
        for series in Series::ALL {
            loop {
                let of_series =
                    || self.segments.iter().enumerate().filter(|(_, segment)| segment.series == series);
                let bytes: u64 = of_series().map(|(_, segment)| segment.bytes).sum();
                let Some((place, oldest)) = of_series().min_by_key(|(_, segment)| segment.seq) else { break };
                let is_active = self.active.get(&series).is_some_and(|active| active.seq == oldest.seq);
                let too_old =
                    now.duration_since(oldest.last).is_ok_and(|age| age > age_max) && oldest.bytes > 0;
                let too_much = bytes > self.bytes_max(series) && !is_active;
                if !too_old && !too_much {
                    break;
                }
                if let Err(error) = std::fs::remove_file(&oldest.path)
                    && error.kind() != std::io::ErrorKind::NotFound
                {
                    warn!(%error, path = %oldest.path.display(), "cannot remove an expired quarantine segment");
                    break;
                }
                for (count, account) in oldest.counts.values() {
                    account.expire_entries(*count);
                }
                if is_active {
                    self.active.remove(&series);
                }
                self.segments.remove(place);
            }
        }
    }

    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    pub fn counts(&self) -> Vec<Count> {
        let mut all = BTreeMap::<_, u64>::new();
        for segment in &self.segments {
            for (key, (count, _)) in &segment.counts {
                *all.entry(key.clone()).or_default() += count;
            }
        }
        all.into_iter().map(|((reason, tenant), entries)| Count { reason, tenant, entries }).collect()
    }
}

/// Reads what a segment of an earlier run holds. A torn tail is cut off: its message was never
/// acknowledged. Damage elsewhere is skipped.
fn scan(series: Series, seq: u64, path: PathBuf, books: &Books) -> std::io::Result<Segment> {
    let file = OpenOptions::new().read(true).write(true).open(&path)?;
    let metadata = file.metadata()?;
    let written = metadata.modified()?;
    let mut segment =
        Segment { series, seq, path, bytes: 0, began: written, last: written, counts: BTreeMap::new() };
    let mut reader = BufReader::new(&file);
    let mut line = Vec::new();
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        let (path, at) = (segment.path.display().to_string(), segment.bytes);
        if line.last() != Some(&b'\n') {
            warn!(path, at, bytes = line.len(), "cut a torn entry off quarantine; its message comes again");
            file.set_len(segment.bytes)?;
            break;
        }
        segment.bytes += line.len() as u64;
        match serde_json::from_slice::<Entry>(&line) {
            Ok(entry) => {
                let account = match entry.account_name() {
                    None | Some(NO_TENANT) => books.none().clone(),
                    Some(name) => books.of_stranger(name),
                };
                segment.count(&Tally { reason: entry.reason, account });
            }
            Err(error) => warn!(path, at, %error, "skipped a damaged entry of quarantine"),
        }
    }
    Ok(segment)
}
