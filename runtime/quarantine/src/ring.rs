//! The ring of segments on disk: their entries, and the order in which they expire.
//!
//! A tenant has a share of each ring but the strangers', without a file of its own: where the oldest segment must
//! go because of the bytes, the entries of tenants that hold little are copied forward to the newest
//! one, and only the others expire. Copied entries are synced before their old segment goes; an entry
//! that a crash leaves twice is blanked at the next start.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use tracing::warn;

use crate::error::QuarantineError;
use crate::limits;
use crate::reader::locate;
use crate::segment::{
    AccountKey, EntryHead, EntryId, EntryLocation, QuarantineSegment, SegmentLines, Series, Tally, blank,
    segment_name, segments_of, was_set,
};
use crate::settings::QuarantineSettings;
use crate::tenant_bytes::TenantBytes;
use tidegate_core::books::{Account, Books, NO_TENANT, OTHER_TENANTS};

/// The least time between two warnings about a tenant's budget.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Entries in a segment that goes on are looked through for old ones no more often than this.
const PURGE_SLACK: Duration = Duration::from_secs(60 * 60);

/// Entries of one reason and tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReasonCount {
    pub reason: String,
    pub tenant: String,
    pub entries: u64,
}

/// Bytes of one series on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeriesBytes {
    /// `proven`, `unproven` or `unknown`: how much the senders had proved.
    pub series: &'static str,
    pub used: u64,
    pub max: u64,
}

/// The reason for which an entry leaves before it expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemovalReason {
    /// Its replay is settled.
    Replayed,
    /// The operator removed it.
    Removed,
}

/// An open segment that entries are appended to.
struct ActiveSegment {
    file: File,
    seq: u64,
    bytes: u64,
}

/// The segments of all series.
pub struct Ring {
    dir: PathBuf,
    settings: QuarantineSettings,
    segments: Vec<QuarantineSegment>,
    active: HashMap<Series, ActiveSegment>,
    next_seq: u64,
    /// The bytes of each series when the disk became low; `None`: it is not.
    low_bytes: Option<BTreeMap<Series, u64>>,
    /// The bytes of entries, charged to their tenants.
    charges: TenantBytes,
    /// The last warning that a tenant's entries were too many for its budget.
    over_budget_logged: Option<SystemTime>,
}

impl Ring {
    pub fn open(dir: &Path, settings: QuarantineSettings, books: &Books) -> Result<Self, QuarantineError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(QuarantineError::failed_to("create", dir))?;
        let charges = TenantBytes::new(settings.tenants.clone());
        let mut ring = Self {
            dir: dir.to_owned(),
            settings,
            segments: Vec::new(),
            active: HashMap::new(),
            next_seq: 1,
            low_bytes: None,
            charges,
            over_budget_logged: None,
        };
        let mut carried = HashSet::new();
        let now = SystemTime::UNIX_EPOCH + ring.settings.age_clock.now();
        // The newest first: of an entry that stands twice, the later copy stays.
        for (series, seq, path) in
            segments_of(dir).map_err(QuarantineError::failed_to("read", dir))?.into_iter().rev()
        {
            let segment = scan(series, seq, path.clone(), now, &mut carried, books)
                .map_err(QuarantineError::failed_to("read", &path))?;
            for ((_, tenant), held) in &segment.held {
                held.account.quarantine_entries(held.entries);
                ring.charges.add(series, tenant, held.bytes);
            }
            ring.next_seq = ring.next_seq.max(seq + 1);
            ring.segments.push(segment);
        }
        ring.segments.reverse();
        ring.expire(now);
        Ok(ring)
    }

    fn bytes_max(&self, series: Series) -> u64 {
        let strangers = self.settings.bytes_max / limits::STRANGER_SHARE;
        let unproven = self.settings.bytes_max / limits::UNPROVEN_SHARE;
        let configured = match series {
            Series::Strangers => strangers,
            Series::Unproven => unproven,
            Series::Known => self.settings.bytes_max - unproven - strangers,
        };
        match &self.low_bytes {
            // The oldest entries make room for new ones.
            Some(low) => low[&series].max(limits::QUARANTINE_LOW_DISK_BYTES).min(configured),
            None => configured,
        }
    }

    /// Notes if the disk is low, and how much the ring has by then.
    fn follow_disk(&mut self) {
        match (self.settings.disk_reserve.is_low(), &self.low_bytes) {
            (true, None) => {
                let bytes = |series| self.in_series(series).map(|segment| segment.bytes).sum();
                self.low_bytes =
                    Some(Series::ALL.into_iter().map(|series| (series, bytes(series))).collect());
            }
            (false, Some(_)) => self.low_bytes = None,
            _ => {}
        }
    }

    fn segment_bytes_max(&self, series: Series) -> u64 {
        (self.bytes_max(series) / limits::QUARANTINE_SEGMENTS_MIN)
            .clamp(1, limits::QUARANTINE_SEGMENT_BYTES_MAX)
    }

    /// The location of the next entries of a series. It begins a new segment if the last is full, a day
    /// old, or failed.
    pub fn next_location(&mut self, series: Series, now: SystemTime) -> Result<EntryId, QuarantineError> {
        self.follow_disk();
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
        Ok(EntryId { series, seq: active.seq, offset: active.bytes })
    }

    fn make_segment(&mut self, series: Series, now: SystemTime) -> Result<(), QuarantineError> {
        let seq = self.next_seq;
        let path = self.dir.join(format!("{}.jsonl", segment_name(series, seq)));
        let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&path);
        // Its number is used up, also if it could not be created.
        self.next_seq += 1;
        let file = file.map_err(QuarantineError::failed_to("create", &path))?;
        let synced = File::open(&self.dir).and_then(|dir| dir.sync_all());
        synced.map_err(QuarantineError::failed_to("sync", &self.dir))?;
        self.active.insert(series, ActiveSegment { file, seq, bytes: 0 });
        self.segments.push(QuarantineSegment::new(series, seq, path, now));
        Ok(())
    }

    /// Appends entries at the location that was given, and syncs.
    pub fn append(
        &mut self,
        series: Series,
        entries: &[u8],
        tallies: &[Tally],
        now: SystemTime,
    ) -> Result<(), QuarantineError> {
        let new = self.active.get(&series).map_or((0, 0), |active| (active.seq, active.bytes));
        self.write(series, entries, tallies)?;
        for tally in tallies {
            tally.account.quarantine_entries(1);
        }
        self.expire(now);
        if series == Series::Known {
            let tenants: HashSet<&str> = tallies.iter().map(|tally| tally.key.1.as_str()).collect();
            for tenant in tenants {
                if let Err(error) = self.expire_by_budget(tenant, now, new) {
                    warn!(%error, tenant, "quarantine of the tenant stays above its budget");
                }
            }
        }
        Ok(())
    }

    /// Removes the oldest entries of a tenant whose budget is full, but for those from `new` on: segment
    /// and offset.
    fn expire_by_budget(
        &mut self,
        tenant: &str,
        now: SystemTime,
        new: (u64, u64),
    ) -> Result<(), QuarantineError> {
        let Some((excess, over)) = self.charges.excess(tenant) else { return Ok(()) };
        let is_quiet =
            |logged: SystemTime| now.duration_since(logged).is_ok_and(|since| since < LOG_INTERVAL);
        if !self.over_budget_logged.is_some_and(is_quiet) {
            self.over_budget_logged = Some(now);
            warn!(tenant, %over, "the tenant's oldest entries of quarantine expire early");
        }
        let with_entries = self.in_series(Series::Known).filter(|segment| segment.has_entries_of(tenant));
        let segments: Vec<u64> = with_entries.map(|segment| segment.seq).collect();
        let mut freed = 0;
        for seq in segments {
            if freed >= excess {
                break;
            }
            let segment = self.segment_mut(seq).expect("just listed");
            let path = segment.path.clone();
            let failed = |error| QuarantineError::failed_to("read", &path)(error);
            let mut old = Vec::new();
            let mut lines = SegmentLines::open(&path, 0).map_err(failed)?;
            while freed < excess
                && let Some((offset, line)) = lines.next_line().map_err(failed)?
            {
                let Ok(head) = serde_json::from_slice::<EntryHead>(line) else { continue };
                if head.account_name() == tenant && (seq, offset) < new {
                    freed += line.len() as u64;
                    old.push((head.key(), offset, line.len() as u64));
                }
            }
            let spans: Vec<_> = old.iter().map(|&(_, offset, bytes)| (offset, bytes)).collect();
            blank(&path, &spans).map_err(QuarantineError::failed_to("write to", &path))?;
            self.expire_blanked(seq, old);
            let is_empty = self.segment(seq).is_some_and(|segment| segment.entries() == 0);
            if is_empty && self.active.get(&Series::Known).is_none_or(|active| active.seq != seq) {
                self.remove_segment(seq)?;
            }
        }
        Ok(())
    }

    /// Counts entries of a segment as expired, which are blanked: key, offset and bytes.
    fn expire_blanked(&mut self, seq: u64, entries: Vec<(AccountKey, u64, u64)>) {
        for (key, _, bytes) in entries {
            let Some(segment) = self.segments.iter_mut().find(|segment| segment.seq == seq) else { return };
            if let Some(account) = segment.uncount(&key, bytes) {
                account.expire_entries(1);
                self.charges.subtract(segment.series, &key.1, bytes);
            }
        }
    }

    fn write(&mut self, series: Series, entries: &[u8], tallies: &[Tally]) -> Result<(), QuarantineError> {
        let active = self.active.get_mut(&series).expect("a place was given");
        let segment = self.segments.iter_mut().find(|segment| segment.seq == active.seq);
        let segment = segment.expect("an active segment is listed");
        let written =
            active.file.write_all(entries).map_err(QuarantineError::failed_to("write to", &segment.path));
        let written = written.and_then(|()| {
            active.file.sync_data().map_err(QuarantineError::failed_to("sync", &segment.path))
        });
        if let Err(error) = written {
            // A failed sync is final for its file: the next write goes to another.
            let _ = active.file.set_len(active.bytes);
            self.active.remove(&series);
            return Err(error);
        }
        active.bytes += entries.len() as u64;
        segment.bytes = active.bytes;
        for tally in tallies {
            segment.count(tally);
            self.charges.add(series, &tally.key.1, tally.bytes);
        }
        Ok(())
    }

    /// Removes entries that are too old or too many, the oldest first.
    pub fn expire(&mut self, now: SystemTime) {
        for series in Series::ALL {
            for done in [self.expire_by_age(series, now), self.expire_by_bytes(series, now)] {
                if let Err(error) = done {
                    warn!(%error, "quarantine stays above its bounds");
                }
            }
        }
    }

    fn expire_by_age(&mut self, series: Series, now: SystemTime) -> Result<(), QuarantineError> {
        let age_max = DAY * self.settings.days_max;
        let older_than = |time, age| now.duration_since(time).is_ok_and(|is| is > age);
        let seqs: Vec<u64> = self.in_series(series).map(|segment| segment.seq).collect();
        for seq in seqs {
            let segment = self.segment(seq).expect("just listed");
            let is_active = self.active.get(&series).is_some_and(|active| active.seq == seq);
            if segment.entries() == 0 {
                if !is_active {
                    self.remove_segment(seq)?;
                }
            } else if older_than(segment.newest, age_max) {
                self.remove_segment(seq)?;
            } else if older_than(segment.oldest, age_max + PURGE_SLACK) {
                self.purge(seq, now, age_max)?;
            }
        }
        Ok(())
    }

    /// Takes the entries that are too old out of a segment with newer ones.
    fn purge(&mut self, seq: u64, now: SystemTime, age_max: Duration) -> Result<(), QuarantineError> {
        let segment = self.segment_mut(seq).expect("a segment that is listed");
        let failed = |error| QuarantineError::failed_to("read", &segment.path)(error);
        let (mut old, mut oldest) = (Vec::new(), segment.newest);
        let mut lines = SegmentLines::open(&segment.path, 0).map_err(failed)?;
        while let Some((offset, line)) = lines.next_line().map_err(failed)? {
            let Ok(head) = serde_json::from_slice::<EntryHead>(line) else { continue };
            let time = head.refused_at(now);
            if now.duration_since(time).is_ok_and(|age| age > age_max) {
                old.push((head.key(), offset, line.len() as u64));
            } else {
                oldest = oldest.min(time);
            }
        }
        let spans: Vec<_> = old.iter().map(|&(_, offset, bytes)| (offset, bytes)).collect();
        blank(&segment.path, &spans).map_err(QuarantineError::failed_to("write to", &segment.path))?;
        segment.oldest = oldest;
        self.expire_blanked(seq, old);
        Ok(())
    }

    fn expire_by_bytes(&mut self, series: Series, now: SystemTime) -> Result<(), QuarantineError> {
        // Each round drops the oldest segment's share of expired and blanked bytes. Copied entries
        // are less than half of what fits, so going round once is enough.
        for _ in 0..2 * self.segments.len() + 2 {
            let bytes: u64 = self.in_series(series).map(|segment| segment.bytes).sum();
            let Some(oldest) = self.in_series(series).map(|segment| segment.seq).min() else { break };
            let is_active = self.active.get(&series).is_some_and(|active| active.seq == oldest);
            if bytes <= self.bytes_max(series) || is_active {
                break;
            }
            if series != Series::Strangers {
                self.copy_forward(series, oldest, now)?;
            }
            self.remove_segment(oldest)?;
        }
        Ok(())
    }

    /// Appends the entries of tenants below their fair share to the newest segment.
    fn copy_forward(&mut self, series: Series, seq: u64, now: SystemTime) -> Result<(), QuarantineError> {
        let mut bytes_of = BTreeMap::<&str, u64>::new();
        for segment in self.in_series(series) {
            for ((_, tenant), held) in &segment.held {
                *bytes_of.entry(tenant).or_default() += held.bytes;
            }
        }
        let share = self.bytes_max(series) / (2 * bytes_of.len().max(1) as u64);
        let segment = self.segment(seq).expect("a segment that is listed");
        let quiet: HashSet<String> = segment
            .held
            .keys()
            .map(|(_, tenant)| tenant)
            .filter(|tenant| bytes_of[tenant.as_str()] < share)
            .cloned()
            .collect();
        if quiet.is_empty() {
            return Ok(());
        }
        let (carried, tallies) = match lines_of_tenants(segment, &quiet, now) {
            Ok(found) => found,
            Err(error) => {
                // A segment that cannot be read must not make the ring grow without a bound.
                warn!(%error, path = %segment.path.display(), "a quarantine segment expires whole");
                return Ok(());
            }
        };
        self.next_location(series, now)?;
        self.write(series, &carried, &tallies)?;
        let segment = self.segments.iter_mut().find(|segment| segment.seq == seq);
        let segment = segment.expect("a segment that is listed");
        for tally in &tallies {
            if segment.uncount(&tally.key, tally.bytes).is_some() {
                self.charges.subtract(series, &tally.key.1, tally.bytes);
            }
        }
        Ok(())
    }

    /// Removes a segment. The entries that are still counted in it expire with it.
    fn remove_segment(&mut self, seq: u64) -> Result<(), QuarantineError> {
        let Some(index) = self.segments.iter().position(|segment| segment.seq == seq) else { return Ok(()) };
        let segment = &self.segments[index];
        match std::fs::remove_file(&segment.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(QuarantineError::failed_to("remove", &segment.path)(error));
            }
            _ => {}
        }
        // A segment that came back after a power cut would bring back entries that were copied forward and
        // have been replayed since.
        File::open(&self.dir)
            .and_then(|dir| dir.sync_all())
            .map_err(QuarantineError::failed_to("sync", &self.dir))?;
        for ((_, tenant), held) in &segment.held {
            held.account.expire_entries(held.entries);
            self.charges.subtract(segment.series, tenant, held.bytes);
        }
        self.active.retain(|_, active| active.seq != seq);
        self.segments.remove(index);
        Ok(())
    }

    /// Blanks entries in their segments. Gives those that were still there.
    pub fn take_out(
        &mut self,
        wanted: &[EntryLocation],
        why: RemovalReason,
    ) -> Result<Vec<EntryId>, QuarantineError> {
        let mut found = BTreeMap::<u64, Vec<(EntryId, AccountKey, u64, u64)>>::new();
        locate(&self.dir, wanted, |location, line| {
            if let Ok(head) = serde_json::from_slice::<EntryHead>(line) {
                let one = (location.id, head.key(), location.offset, line.len() as u64);
                found.entry(location.seq).or_default().push(one);
            }
        })?;
        let mut out = Vec::new();
        for (seq, entries) in found {
            let Some(segment) = self.segments.iter_mut().find(|segment| segment.seq == seq) else { continue };
            let spans: Vec<_> = entries.iter().map(|&(_, _, offset, bytes)| (offset, bytes)).collect();
            blank(&segment.path, &spans).map_err(QuarantineError::failed_to("write to", &segment.path))?;
            for (id, key, _, bytes) in entries {
                if let Some(account) = segment.uncount(&key, bytes) {
                    match why {
                        RemovalReason::Replayed => account.replay_entries(1),
                        RemovalReason::Removed => account.remove_entries(1),
                    }
                    self.charges.subtract(segment.series, &key.1, bytes);
                }
                out.push(id);
            }
            let (series, is_empty) = (segment.series, segment.entries() == 0);
            if is_empty && self.active.get(&series).is_none_or(|active| active.seq != seq) {
                self.remove_segment(seq)?;
            }
        }
        Ok(out)
    }

    fn in_series(&self, series: Series) -> impl Iterator<Item = &QuarantineSegment> {
        self.segments.iter().filter(move |segment| segment.series == series)
    }

    fn segment(&self, seq: u64) -> Option<&QuarantineSegment> {
        self.segments.iter().find(|segment| segment.seq == seq)
    }

    fn segment_mut(&mut self, seq: u64) -> Option<&mut QuarantineSegment> {
        self.segments.iter_mut().find(|segment| segment.seq == seq)
    }

    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Bytes of each series, and their bound.
    pub fn bytes_of_series(&self) -> [SeriesBytes; 3] {
        Series::ALL.map(|series| SeriesBytes {
            series: series.name(),
            used: self.in_series(series).map(|segment| segment.bytes).sum(),
            max: self.bytes_max(series),
        })
    }

    pub fn counts(&self) -> Vec<ReasonCount> {
        let mut all = BTreeMap::<_, u64>::new();
        for segment in &self.segments {
            for (key, held) in &segment.held {
                *all.entry(key.clone()).or_default() += held.entries;
            }
        }
        all.into_iter().map(|((reason, tenant), entries)| ReasonCount { reason, tenant, entries }).collect()
    }
}

/// The lines of some tenants in a segment, with their tallies.
fn lines_of_tenants(
    segment: &QuarantineSegment,
    tenants: &HashSet<String>,
    now: SystemTime,
) -> std::io::Result<(Vec<u8>, Vec<Tally>)> {
    let (mut found, mut tallies) = (Vec::new(), Vec::new());
    let mut lines = SegmentLines::open(&segment.path, 0)?;
    while let Some((_, line)) = lines.next_line()? {
        let Ok(head) = serde_json::from_slice::<EntryHead>(line) else { continue };
        let key = head.key();
        if let Some(held) = segment.held.get(&key)
            && tenants.contains(&key.1)
        {
            found.extend_from_slice(line);
            let (account, bytes) = (held.account.clone(), line.len() as u64);
            tallies.push(Tally { time: head.refused_at(now), key, account, bytes });
        }
    }
    Ok((found, tallies))
}

/// Reads a segment of an earlier run. A torn tail is cut off: its message was never acknowledged. Damage
/// elsewhere is skipped. An entry that stands in a later segment too is blanked: a crash came between the
/// copy and the removal of this segment.
fn scan(
    series: Series,
    seq: u64,
    path: PathBuf,
    now: SystemTime,
    carried: &mut HashSet<EntryId>,
    books: &Books,
) -> std::io::Result<QuarantineSegment> {
    // By the wall clock: it only counts for entries that say nothing of their age.
    let written = std::fs::metadata(&path)?.modified()?;
    let written = if was_set(written) { written.min(now) } else { now };
    let mut segment = QuarantineSegment::new(series, seq, path.clone(), written);
    let (mut twice, mut here) = (Vec::new(), Vec::new());
    let shown = path.display();
    let mut lines = SegmentLines::open(&path, 0)?;
    while let Some((at, line)) = lines.next_line()? {
        let head: EntryHead = match serde_json::from_slice(line) {
            Ok(head) => head,
            Err(error) => {
                warn!(path = %shown, at, %error, "skipped a damaged entry of quarantine");
                continue;
            }
        };
        let id = EntryId::parse(&head.id);
        if id.is_some_and(|id| carried.contains(&id)) {
            twice.push((at, line.len() as u64));
            continue;
        }
        here.extend(id.filter(|id| id.seq != seq));
        let account = account_of(books, series, head.account_name());
        let (key, bytes) = (head.key(), line.len() as u64);
        segment.count(&Tally { time: head.refused_at(written), key, account, bytes });
    }
    segment.bytes = lines.end();
    if lines.torn_bytes > 0 {
        let (at, bytes) = (segment.bytes, lines.torn_bytes);
        warn!(path = %shown, at, bytes, "cut a torn entry off quarantine; its message comes again");
        OpenOptions::new().write(true).open(&path)?.set_len(segment.bytes)?;
    }
    if !twice.is_empty() {
        blank(&path, &twice)?;
    }
    carried.extend(here);
    Ok(segment)
}

fn account_of(books: &Books, series: Series, name: &str) -> Arc<Account> {
    match name {
        NO_TENANT => books.none().clone(),
        OTHER_TENANTS => books.other().clone(),
        // It was admitted: the registry knew it.
        name if series != Series::Strangers => books.of_known(name),
        name => books.of_stranger(name),
    }
}
