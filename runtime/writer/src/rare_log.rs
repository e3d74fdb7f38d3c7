//! Events that are logged at most once a minute, with their number. Pure: time is passed in.

use std::time::{Duration, Instant};

use crate::limits;

#[derive(Debug, Default)]
pub struct RareLog {
    count: u64,
    logged: Option<Instant>,
}

impl RareLog {
    /// Counts events. `Some`: a line is to be logged now, for so many.
    #[must_use]
    pub fn add(&mut self, events: u64, now: Instant) -> Option<u64> {
        self.count += events;
        let interval = Duration::from_secs(limits::REFUSED_LOG_INTERVAL_S);
        let is_due = self.logged.is_none_or(|logged| now.duration_since(logged) >= interval);
        if self.count == 0 || !is_due {
            return None;
        }
        self.logged = Some(now);
        Some(std::mem::take(&mut self.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_logged_at_once_and_the_others_once_a_minute_with_their_number() {
        let (mut log, now) = (RareLog::default(), Instant::now());
        assert_eq!(log.add(0, now), None);
        assert_eq!(log.add(1, now), Some(1));
        assert_eq!(log.add(2, now + Duration::from_secs(1)), None);
        assert_eq!(log.add(3, now + Duration::from_secs(59)), None);
        assert_eq!(log.add(0, now + Duration::from_secs(60)), Some(5));
        assert_eq!(log.add(0, now + Duration::from_secs(200)), None);
    }
}
