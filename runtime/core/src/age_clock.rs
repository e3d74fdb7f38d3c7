//! The age clock: the age of what is kept is counted by it and not by the wall clock.
//!
//! - It runs as the time since the boot of the machine does, so no step of the wall clock touches it, in
//!   either direction.
//! - It is kept over restarts, in a file of the data folder. After a restart in the same boot it is exact.
//!   After another boot it goes on above what was kept, by the time that the wall clock says has passed,
//!   but by `DOWNTIME_COUNTED_MAX_S` at most: a wall clock that is wrong at the start of the machine makes
//!   nothing old.
//! - It began as the wall clock, so times that earlier versions kept by that compare with it.
//!
//! It says nothing of the date: where a clock was never set, or is set in the end, the two differ for good.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::atomic_file::{self, STAGING};
use crate::limits::{AGE_KEPT_INTERVAL_S, DOWNTIME_COUNTED_MAX_S};
use crate::receive_clock::{is_set, wall_ns};

/// The clock of one gateway.
#[derive(Debug)]
pub struct AgeClock {
    source: Source,
    path: Option<PathBuf>,
}

#[derive(Debug)]
enum Source {
    /// The age at the machine's boot.
    Boot { at_boot: i128, boot_id: String },
    /// Milliseconds, set by hand.
    Manual(AtomicU64),
}

/// The file's content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct AgeRecord {
    age_ms: u64,
    boot_id: String,
    since_boot_ms: u64,
    wall_ms: u64,
}

/// The clocks of the machine at one moment.
struct Reading {
    boot_id: String,
    since_boot_ms: u64,
    wall_ms: u64,
}

impl Reading {
    fn now() -> Self {
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let wall_ms = (wall_ns() / 1_000_000).max(0) as u64;
        Self { boot_id: boot_id.trim().to_owned(), since_boot_ms: since_boot_ms(), wall_ms }
    }
}

fn since_boot_ms() -> u64 {
    let since = clock_gettime(ClockId::Boottime);
    since.tv_sec as u64 * 1_000 + since.tv_nsec as u64 / 1_000_000
}

impl AgeClock {
    /// The file in the data folder.
    pub const NAME: &'static str = "age-clock";

    /// Goes on from the file in `data_dir`. One that is missing or damaged means that the clock begins as
    /// the wall clock.
    pub fn open(data_dir: &Path) -> Self {
        let path = data_dir.join(Self::NAME);
        let record = std::fs::read(&path).ok().and_then(|bytes| {
            let record = serde_json::from_slice::<AgeRecord>(&bytes);
            record.inspect_err(|error| {
                tracing::warn!(%error, path = %path.display(), "the age clock's file is damaged; it begins as the wall clock");
            }).ok()
        });
        Self { path: Some(path), ..Self::from_record(record.as_ref(), Reading::now()) }
    }

    fn from_record(record: Option<&AgeRecord>, now: Reading) -> Self {
        let at_boot = i128::from(age_ms(record, &now)) - i128::from(now.since_boot_ms);
        Self { source: Source::Boot { at_boot, boot_id: now.boot_id }, path: None }
    }

    /// One that stands still but for `advance`.
    pub fn manual(now: Duration) -> Self {
        Self { source: Source::Manual(AtomicU64::new(now.as_millis() as u64)), path: None }
    }

    /// Moves a manual clock on. Any other moves by itself.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(now) = &self.source {
            now.fetch_add(by.as_millis() as u64, Ordering::Relaxed);
        }
    }

    /// Time since about the Unix epoch.
    pub fn now(&self) -> Duration {
        Duration::from_millis(match &self.source {
            Source::Boot { at_boot, .. } => (at_boot + i128::from(since_boot_ms())).max(0) as u64,
            Source::Manual(now) => now.load(Ordering::Relaxed),
        })
    }

    /// Seconds, as frames of the spool hold them.
    pub fn now_s(&self) -> u32 {
        u32::try_from(self.now().as_secs()).unwrap_or(u32::MAX)
    }

    /// Keeps the clock for the next start. To be called every `AGE_KEPT_INTERVAL_S` seconds, and at the end.
    pub fn persist(&self) {
        let (Some(path), Source::Boot { boot_id, .. }) = (&self.path, &self.source) else { return };
        let now = Reading::now();
        let record = AgeRecord {
            age_ms: self.now().as_millis() as u64,
            boot_id: boot_id.clone(),
            since_boot_ms: now.since_boot_ms,
            wall_ms: now.wall_ms,
        };
        let text = serde_json::to_vec(&record).expect("a record is numbers and a text");
        if let Err(error) = atomic_file::replace(&path.with_file_name(STAGING), path, &text) {
            tracing::warn!(%error, path = %path.display(), "the age clock cannot be kept for the next start");
        }
    }
}

impl Default for AgeClock {
    /// One that begins as the wall clock, and is not kept.
    fn default() -> Self {
        Self::from_record(None, Reading::now())
    }
}

/// The age of now, by what was kept.
fn age_ms(record: Option<&AgeRecord>, now: &Reading) -> u64 {
    let is_set_ms =
        |wall_ms: u64| is_set(i64::try_from(wall_ms).unwrap_or(i64::MAX).saturating_mul(1_000_000));
    let Some(kept) = record else {
        return if is_set_ms(now.wall_ms) {
            now.wall_ms
        } else {
            crate::limits::CLOCK_SET_AFTER_NS as u64 / 1_000_000
        };
    };
    if !kept.boot_id.is_empty() && kept.boot_id == now.boot_id && now.since_boot_ms >= kept.since_boot_ms {
        return kept.age_ms + (now.since_boot_ms - kept.since_boot_ms);
    }
    let passed = match is_set_ms(kept.wall_ms) && is_set_ms(now.wall_ms) {
        true => now.wall_ms.saturating_sub(kept.wall_ms),
        false => 0,
    };
    // The machine has been up for so long in any case. What ran after the file was last written is below it.
    let passed = passed.max(now.since_boot_ms).min(DOWNTIME_COUNTED_MAX_S * 1_000);
    kept.age_ms + AGE_KEPT_INTERVAL_S * 1_000 + passed
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: u64 = 86_400_000;
    /// In 2027.
    const THEN: u64 = 1_800_000_000_000;

    fn record(age_ms: u64, wall_ms: u64) -> AgeRecord {
        AgeRecord { age_ms, boot_id: "one".into(), since_boot_ms: 1_000, wall_ms }
    }

    fn reading(boot_id: &str, since_boot_ms: u64, wall_ms: u64) -> Reading {
        Reading { boot_id: boot_id.into(), since_boot_ms, wall_ms }
    }

    #[test]
    fn within_a_boot_no_step_of_the_wall_clock_touches_it() {
        for wall in [0, 5_000, THEN - DAY_MS, THEN + 400 * DAY_MS] {
            let now = reading("one", 61_000, wall);
            assert_eq!(age_ms(Some(&record(THEN, THEN)), &now), THEN + 60_000, "wall {wall}");
        }
    }

    #[test]
    fn another_boot_goes_on_above_what_was_kept_and_a_wrong_wall_clock_makes_nothing_old() {
        let kept = record(THEN, THEN);
        let least = THEN + AGE_KEPT_INTERVAL_S * 1_000;
        let age = |wall| age_ms(Some(&kept), &reading("two", 9_000, wall)) - least;
        assert_eq!(age(THEN + 3_600_000), 3_600_000, "an hour off");
        assert_eq!(age(5_000), 9_000, "1970");
        assert_eq!(age(THEN - DAY_MS), 9_000, "set back");
        assert_eq!(age(THEN + 4_000 * DAY_MS), DOWNTIME_COUNTED_MAX_S * 1_000, "far ahead");
        // The clock had never been set, and is now.
        assert_eq!(age_ms(Some(&record(THEN, 5_000)), &reading("two", 9_000, THEN)), least + 9_000);
    }

    #[test]
    fn it_begins_as_the_wall_clock_and_not_in_1970() {
        assert_eq!(age_ms(None, &reading("one", 9_000, THEN)), THEN);
        assert!(is_set(age_ms(None, &reading("one", 9_000, 5_000)) as i64 * 1_000_000));
    }

    #[test]
    fn a_restart_goes_on_from_the_file_whatever_it_holds() {
        let folder = tempfile::tempdir().unwrap();
        let first = AgeClock::open(folder.path());
        first.persist();
        let second = AgeClock::open(folder.path());
        assert!(second.now() >= first.now() && second.now() - first.now() < Duration::from_secs(600));
        for rubbish in ["", "{", "{\"age_ms\":1}"] {
            std::fs::write(folder.path().join(AgeClock::NAME), rubbish).unwrap();
            assert!(AgeClock::open(folder.path()).now() > Duration::from_millis(THEN / 2));
        }
    }
}
