//! The receive clock: it never gives one time twice, so that readings without a time of their own never
//! fall on the same point of a database.
//!
//! - Stamps grow strictly over all connections and threads, `RECEIVE_STAMP_GAP_NS` from one message
//!   to the next: the lines of one message lie in that gap. While more than a million messages a
//!   second come, stamps run ahead of the wall clock; else they are the wall clock.
//! - A step back of the wall clock is not followed: stamps continue from the last one until the wall
//!   clock has caught up. A step of more than `RECEIVE_CLOCK_AHEAD_MAX_NS` is followed, unless the new
//!   time shows that the clock was never set: a clock that had stood in a wrong year must not leave
//!   its mark on the data for years. What was given before that year is not given again.
//! - A restart continues above every stamp given before. The mark in `mark_file` is above all of them:
//!   it is moved `RECEIVE_MARK_LEAD_NS` ahead before a stamp passes it, and set to the last stamp at a
//!   stop. A killed process loses none of that. After a power cut the mark may be as old as one sync of
//!   a disk: a message of that moment was not acknowledged, and is sent again. After a crash the first
//!   stamps may be ahead of the wall clock by the lead.
//!
//! Deliberately absent: a time for each device apart, which would cost a look-up a message.

pub mod mark_file;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use crate::limits::{
    CLOCK_SET_AFTER_NS, RECEIVE_CLOCK_AHEAD_MAX_NS, RECEIVE_MARK_LEAD_NS, RECEIVE_STAMP_GAP_NS,
};
use crate::receive_clock::mark_file::MarkFile;

pub use crate::receive_clock::mark_file::MarkFileError;

/// Nanoseconds since the Unix epoch by the wall clock; 0 for one that stands before it.
pub fn wall_ns() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

/// True if a wall clock that stands so was ever set.
pub fn is_set(wall_ns: i64) -> bool {
    wall_ns >= CLOCK_SET_AFTER_NS
}

/// The receive clock of one gateway.
#[derive(Debug)]
pub struct ReceiveClock {
    /// The first time that no message was given yet.
    next: AtomicI64,
    /// Above every stamp given before the wall clock went forward by more than
    /// `RECEIVE_CLOCK_AHEAD_MAX_NS`: if it was wrong and is set back, stamps go on from here.
    before_leap: AtomicI64,
    /// Above every stamp given, as the file has it.
    mark: AtomicI64,
    file: Mutex<MarkFile>,
    /// The last write of the mark failed, which was logged.
    failing: AtomicBool,
}

impl ReceiveClock {
    /// Continues from the mark in `path`, or makes the file.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn open(path: &Path) -> Result<Self, MarkFileError> {
        let (file, mark) = MarkFile::open(path)?;
        let mark = mark.unwrap_or(0);
        Ok(Self {
            next: AtomicI64::new(mark),
            before_leap: AtomicI64::new(0),
            mark: AtomicI64::new(mark),
            file: Mutex::new(file),
            failing: AtomicBool::new(false),
        })
    }

    /// Reserves the stamps of `messages` messages and gives the first; the others follow at
    /// `RECEIVE_STAMP_GAP_NS` each.
    pub fn reserve(&self, messages: usize) -> i64 {
        self.reserve_at(wall_ns(), messages)
    }

    fn reserve_at(&self, wall_ns: i64, messages: usize) -> i64 {
        let span = RECEIVE_STAMP_GAP_NS.saturating_mul(messages as i64);
        let mut next = self.next.load(Ordering::Relaxed);
        let (first, end) = loop {
            let first = self.first_stamp(wall_ns, next);
            let end = first.saturating_add(span);
            match self.next.compare_exchange_weak(next, end, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => break (first, end),
                Err(now) => next = now,
            }
        };
        let mark = self.mark.load(Ordering::Acquire);
        if !(end..=end.saturating_add(RECEIVE_CLOCK_AHEAD_MAX_NS)).contains(&mark) {
            self.move_mark(end);
        }
        first
    }

    /// The first stamp that may be given when `next` was not given yet.
    fn first_stamp(&self, wall_ns: i64, next: i64) -> i64 {
        let ahead = next.saturating_sub(wall_ns);
        // Where stamps would go on after the clock was set back from a wrong year. That may be ahead of the wall
        // clock itself: they go on there once, and grow from then on.
        let set_back = wall_ns.max(self.before_leap.load(Ordering::Relaxed));
        if next.saturating_sub(set_back) > RECEIVE_CLOCK_AHEAD_MAX_NS && is_set(wall_ns) {
            return set_back;
        }
        if ahead < -RECEIVE_CLOCK_AHEAD_MAX_NS {
            self.before_leap.store(next, Ordering::Relaxed);
        }
        wall_ns.max(next)
    }

    /// Writes that nothing above `end` and the lead was given.
    fn move_mark(&self, end: i64) {
        let mut file = self.file.lock();
        let mark = self.mark.load(Ordering::Relaxed);
        let wanted = end.saturating_add(RECEIVE_MARK_LEAD_NS);
        if (end..=wanted).contains(&mark) {
            // Another thread was faster.
            return;
        }
        match file.write(wanted) {
            Ok(()) => self.failing.store(false, Ordering::Relaxed),
            Err(error) => {
                if !self.failing.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        %error,
                        "the mark of the receive clock cannot be written; \
                         after a restart the time of receipt may repeat if the clock is set back"
                    );
                }
            }
        }
        // Tried again when the lead is used up, and not at each message.
        self.mark.store(wanted, Ordering::Release);
    }

    /// Sets the mark to the last stamp given, so that the next start needs no lead. To be called after the
    /// last message.
    pub fn close(&self) {
        let mut file = self.file.lock();
        let next = self.next.load(Ordering::Relaxed);
        self.mark.store(next, Ordering::Release);
        if let Err(error) = file.write(next).and_then(|()| file.sync()) {
            tracing::warn!(%error, "the mark of the receive clock cannot be written");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{RECEIVE_MARK_LEAD_NS, RECEIVE_STAMP_GAP_NS};
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    const NOON: i64 = 1_800_000_000_000_000_000;
    const SECOND: i64 = 1_000_000_000;

    fn clock() -> (ReceiveClock, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        (ReceiveClock::open(&folder.path().join("clock")).unwrap(), folder)
    }

    #[test]
    fn stamps_of_many_threads_are_apart_by_the_gap() {
        let (clock, _folder) = clock();
        let clock = Arc::new(clock);
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let clock = clock.clone();
                std::thread::spawn(move || {
                    let mut stamps = Vec::new();
                    for turn in 0..2_000 {
                        // Clocks that stand still, and that disagree.
                        let first = clock.reserve_at(NOON + thread * 50 + turn % 7, 3);
                        stamps.extend((0..3).map(|n| first + n * RECEIVE_STAMP_GAP_NS));
                    }
                    assert!(stamps.is_sorted(), "a thread went back in time");
                    stamps
                })
            })
            .collect();
        let mut stamps: Vec<i64> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        stamps.sort_unstable();
        assert_eq!(stamps.len(), 24_000);
        assert!(stamps.windows(2).all(|pair| pair[1] - pair[0] >= RECEIVE_STAMP_GAP_NS));
    }

    #[test]
    fn a_step_back_of_the_wall_clock_is_not_followed_and_a_wrong_year_is_left() {
        let (clock, _folder) = clock();
        assert_eq!(clock.reserve_at(NOON, 1), NOON);
        assert_eq!(clock.reserve_at(NOON - 3600 * SECOND, 2), NOON + RECEIVE_STAMP_GAP_NS);
        assert_eq!(clock.reserve_at(NOON + 5, 1), NOON + 3 * RECEIVE_STAMP_GAP_NS);
        assert_eq!(clock.reserve_at(NOON + SECOND, 1), NOON + SECOND);
        // A box that forgot the time goes on from what it knew.
        assert_eq!(clock.reserve_at(5 * SECOND, 1), NOON + SECOND + RECEIVE_STAMP_GAP_NS);
        // One that stood in the far future and was set right does not stay there.
        let far = NOON + 400 * 86_400 * SECOND;
        assert_eq!(clock.reserve_at(far, 1), far);
        assert_eq!(clock.reserve_at(NOON + 9 * SECOND, 1), NOON + 9 * SECOND);
        assert!(clock.mark.load(Ordering::Relaxed) < far, "the mark stayed in the far future");
        // Nor does it give a time twice, when it is set to one that was before the leap.
        let far = clock.reserve_at(far, 1);
        assert!(far > NOON + 9 * SECOND + RECEIVE_CLOCK_AHEAD_MAX_NS);
        assert_eq!(clock.reserve_at(NOON + 5 * SECOND, 1), NOON + 9 * SECOND + RECEIVE_STAMP_GAP_NS);
    }

    #[test]
    fn stamps_grow_where_they_go_on_ahead_of_a_clock_that_was_set_back() {
        let (clock, _folder) = clock();
        let day = 86_400 * SECOND;
        // A day ahead, then ten, then set back by an hour.
        assert_eq!(clock.reserve_at(NOON + day, 1), NOON + day);
        assert_eq!(clock.reserve_at(NOON + 10 * day, 1), NOON + 10 * day);
        let first = clock.reserve_at(NOON - 3600 * SECOND, 1);
        let second = clock.reserve_at(NOON - 3599 * SECOND, 1);
        assert_eq!((first, second), (NOON + day + RECEIVE_STAMP_GAP_NS, first + RECEIVE_STAMP_GAP_NS));
    }

    #[test]
    fn a_restart_goes_on_above_every_stamp_after_a_stop_and_after_a_kill() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clock");
        let mut last = 0;
        for (start, stop) in [true, false, true, false].into_iter().enumerate() {
            let clock = ReceiveClock::open(&path).unwrap();
            for n in 0..3_000 {
                // The wall clock stands an hour lower at each start.
                let wall = NOON - start as i64 * 3600 * SECOND + n * SECOND / 100;
                let stamp = clock.reserve_at(wall, 1);
                assert!(stamp > last, "{stamp} after {last}");
                last = stamp;
            }
            if stop {
                clock.close();
                let next = ReceiveClock::open(&path).unwrap().reserve_at(0, 1);
                assert_eq!(next, last + RECEIVE_STAMP_GAP_NS, "a stop leaves no lead");
                last = next;
            }
        }
        let ahead = ReceiveClock::open(&path).unwrap().reserve_at(0, 1) - last;
        assert!((1..=2 * RECEIVE_MARK_LEAD_NS).contains(&ahead), "{ahead} ns ahead");
    }

    #[test]
    fn a_mark_that_is_no_number_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clock");
        for rubbish in ["", "12", "1800000000000000000x", "-000000000000000001\n"] {
            std::fs::write(&path, rubbish).unwrap();
            let clock = ReceiveClock::open(&path).unwrap();
            assert_eq!(clock.reserve_at(NOON, 1), NOON);
            clock.close();
            assert_eq!(
                std::fs::read_to_string(&path).unwrap(),
                format!("{:019}\n", NOON + RECEIVE_STAMP_GAP_NS)
            );
        }
        assert!(ReceiveClock::open(&folder.path().join("nowhere/clock")).is_err());
    }
}
