//! One file of a ring: its name, its lines, and their counts.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use std::{fmt, io};

use serde::Deserialize;

use tidegate_core::books::{Account, NO_TENANT};
use tidegate_core::limits::CLOCK_SET_AFTER_NS;
use tidegate_core::message::RefusedMessage;

/// One of the three rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Series {
    /// Refused after admission, or of a sender that proved to be a device which the registry has.
    Known,
    /// Refused under the name of a device that the registry has; its sender proved nothing.
    Unproven,
    /// All others: anybody who may publish can cause them.
    Strangers,
}

impl Series {
    pub const ALL: [Series; 3] = [Series::Known, Series::Unproven, Series::Strangers];

    /// The ring of a refused message.
    pub fn of(refused: &RefusedMessage) -> Self {
        match (refused.was_admitted(), refused.is_known, refused.is_proven) {
            (true, ..) | (_, true, true) => Series::Known,
            (_, true, false) => Series::Unproven,
            (_, false, _) => Series::Strangers,
        }
    }

    /// The label of metrics.
    pub fn name(self) -> &'static str {
        match self {
            Series::Known => "proven",
            Series::Unproven => "unproven",
            Series::Strangers => "unknown",
        }
    }

    fn prefix(self) -> &'static str {
        match self {
            Series::Known => "",
            Series::Unproven => "u-",
            Series::Strangers => "a-",
        }
    }
}

/// A segment's name, without its ending: `{seq:016}`, `u-{seq:016}` or `a-{seq:016}`.
pub fn segment_name(series: Series, seq: u64) -> String {
    format!("{}{seq:016}", series.prefix())
}

fn parse_name(name: &str) -> Option<(Series, u64)> {
    let (series, digits) = if let Some(digits) = name.strip_prefix(Series::Strangers.prefix()) {
        (Series::Strangers, digits)
    } else if let Some(digits) = name.strip_prefix(Series::Unproven.prefix()) {
        (Series::Unproven, digits)
    } else {
        (Series::Known, name)
    };
    Some((series, digits.parse().ok()?))
}

/// The segments of a folder in order, the known ring before the strangers'.
pub fn segments_of(dir: &Path) -> io::Result<Vec<(Series, u64, PathBuf)>> {
    let mut all = Vec::new();
    for file in std::fs::read_dir(dir)? {
        let path = file?.path();
        let name = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".jsonl"));
        if let Some((series, seq)) = name.and_then(parse_name) {
            all.push((series, seq, path));
        }
    }
    all.sort();
    Ok(all)
}

/// The name of an entry, `{segment}-{offset}`, after its first location. It keeps its name when it is
/// copied forward to a later segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    pub series: Series,
    pub seq: u64,
    pub offset: u64,
}

impl EntryId {
    pub fn parse(text: &str) -> Option<Self> {
        let (segment, offset) = text.rsplit_once('-')?;
        let (series, seq) = parse_name(segment)?;
        Some(Self { series, seq, offset: offset.parse().ok()? })
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", segment_name(self.series, self.seq), self.offset)
    }
}

/// An entry, with the location at which it was last seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntryLocation {
    pub id: EntryId,
    pub seq: u64,
    pub offset: u64,
}

/// The fields of an entry that are needed to count it.
#[derive(Debug, Deserialize)]
pub struct EntryHead {
    pub id: String,
    pub time: String,
    #[serde(default)]
    kept_s: Option<u64>,
    pub reason: String,
    #[serde(default)]
    tenant: Option<String>,
    #[serde(default)]
    account: Option<String>,
}

impl EntryHead {
    /// The name of the account that the entry is counted in.
    pub fn account_name(&self) -> &str {
        self.account.as_deref().or(self.tenant.as_deref()).unwrap_or(NO_TENANT)
    }

    /// The key that the entry is counted under.
    pub fn key(&self) -> AccountKey {
        (self.reason.clone(), self.account_name().to_owned())
    }

    /// The time of the refusal by the age clock. Entries of earlier versions have one of the wall clock;
    /// `unknown` if that had not been set, or cannot be read.
    pub fn refused_at(&self, unknown: SystemTime) -> SystemTime {
        if let Some(kept_s) = self.kept_s {
            return SystemTime::UNIX_EPOCH + Duration::from_secs(kept_s);
        }
        let time = self.time.parse::<jiff::Timestamp>().ok();
        time.map(SystemTime::from).filter(|time| was_set(*time)).unwrap_or(unknown)
    }
}

/// True if a time is of a wall clock that had been set.
pub fn was_set(time: SystemTime) -> bool {
    time >= SystemTime::UNIX_EPOCH + Duration::from_nanos(CLOCK_SET_AFTER_NS as u64)
}

/// Reason, and the name of the account.
pub type AccountKey = (String, String);

/// The count of one entry.
#[derive(Clone)]
pub struct Tally {
    pub key: AccountKey,
    pub account: Arc<Account>,
    /// Its line on disk, newline included.
    pub bytes: u64,
    pub time: SystemTime,
}

/// Entries of one reason and account.
#[derive(Clone)]
pub struct HeldEntries {
    pub entries: u64,
    pub bytes: u64,
    pub account: Arc<Account>,
}

/// A segment as the ring knows it.
pub struct QuarantineSegment {
    pub series: Series,
    pub seq: u64,
    pub path: PathBuf,
    /// The size of the file, blanked lines included.
    pub bytes: u64,
    pub began: SystemTime,
    /// The time of its oldest refusal.
    pub oldest: SystemTime,
    /// The time of its newest refusal.
    pub newest: SystemTime,
    pub held: BTreeMap<AccountKey, HeldEntries>,
}

impl QuarantineSegment {
    pub fn new(series: Series, seq: u64, path: PathBuf, began: SystemTime) -> Self {
        let (oldest, newest) = (began, began);
        Self { series, seq, path, bytes: 0, began, oldest, newest, held: BTreeMap::new() }
    }

    pub fn count(&mut self, tally: &Tally) {
        if self.entries() == 0 {
            (self.oldest, self.newest) = (tally.time, tally.time);
        }
        self.oldest = self.oldest.min(tally.time);
        self.newest = self.newest.max(tally.time);
        let new = || HeldEntries { entries: 0, bytes: 0, account: tally.account.clone() };
        let held = self.held.entry(tally.key.clone()).or_insert_with(new);
        held.entries += 1;
        held.bytes += tally.bytes;
    }

    /// Removes one entry from the counts. Gives its account.
    pub fn uncount(&mut self, key: &AccountKey, bytes: u64) -> Option<Arc<Account>> {
        let held = self.held.get_mut(key)?;
        held.entries -= 1;
        held.bytes = held.bytes.saturating_sub(bytes);
        let account = held.account.clone();
        if held.entries == 0 {
            self.held.remove(key);
        }
        Some(account)
    }

    pub fn has_entries_of(&self, tenant: &str) -> bool {
        self.held.keys().any(|(_, other)| other == tenant)
    }

    pub fn entries(&self) -> u64 {
        self.held.values().map(|held| held.entries).sum()
    }
}

/// The lines of a segment, in order. Blanked lines are skipped; a line without an end is left out.
pub struct SegmentLines {
    reader: BufReader<File>,
    line: Vec<u8>,
    next: u64,
    /// Bytes behind the last whole line.
    pub torn_bytes: usize,
}

impl SegmentLines {
    pub fn open(path: &Path, from: u64) -> io::Result<Self> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(from))?;
        Ok(Self { reader: BufReader::new(file), line: Vec::new(), next: from, torn_bytes: 0 })
    }

    /// The offset of the next line and its bytes, its newline included.
    pub fn next_line(&mut self) -> io::Result<Option<(u64, &[u8])>> {
        loop {
            self.line.clear();
            let read = self.reader.read_until(b'\n', &mut self.line)?;
            if self.line.last() != Some(&b'\n') {
                self.torn_bytes = read;
                return Ok(None);
            }
            let at = self.next;
            self.next += read as u64;
            if self.line.iter().any(|byte| !byte.is_ascii_whitespace()) {
                return Ok(Some((at, &self.line)));
            }
        }
    }

    /// The offset behind the last line that was given.
    pub fn end(&self) -> u64 {
        self.next
    }
}

/// True for the line of the entry. Only the name at its beginning is compared.
pub fn is_line_of(line: &[u8], id: EntryId) -> bool {
    id_of(line) == Some(id)
}

/// The name of the entry in a line.
pub fn id_of(line: &[u8]) -> Option<EntryId> {
    let rest = line.strip_prefix(br#"{"id":""#)?;
    let end = memchr::memchr(b'"', rest)?;
    EntryId::parse(std::str::from_utf8(&rest[..end]).ok()?)
}

/// Overwrites lines with spaces, except their newlines, and syncs.
pub fn blank(path: &Path, lines: &[(u64, u64)]) -> io::Result<()> {
    // Not in append mode: there every write goes to the end.
    let file = OpenOptions::new().write(true).open(path)?;
    for &(offset, bytes) in lines {
        file.write_all_at(&vec![b' '; bytes.saturating_sub(1) as usize], offset)?;
    }
    file.sync_data()
}
