//! The ceiling of one database's requests under way, by how soon they are answered. Pure: time is
//! passed in.
//!
//! InfluxDB 3 answers a write at its next WAL flush, a second later by default, whatever its size:
//! there only requests beside each other carry a backlog. A server that is busy answers the later the
//! more it is asked, and gains nothing from them. So the limit grows while answers take about as
//! long as the quickest ones did, shrinks when they take several times that, and is halved by a
//! failure.

use std::time::{Duration, Instant};

/// Times the quickest answer, up to which the server is not busy, and from which on it is.
const NOT_BUSY: f64 = 1.5;

const BUSY: f64 = 4.0;

/// An answer quicker than this tells of no wait that more requests could share.
const QUICK: Duration = Duration::from_millis(5);

/// The first size.
const START: u32 = 4;

/// After so many rounds it begins anew: a server that has become slower has a new quickest answer.
const ROUNDS: u32 = 200;

#[derive(Debug)]
pub struct ConcurrencyLimit {
    size: u32,
    max: u32,
    /// Answers of the round that runs, and how long they took together.
    answers: u32,
    took: Duration,
    /// A request was ready and the limit was reached.
    limited: bool,
    quickest: Option<Duration>,
    doubling: bool,
    rounds: u32,
}

impl ConcurrencyLimit {
    pub fn new(max: u32) -> Self {
        let max = max.max(1);
        Self {
            size: max.min(START),
            max,
            answers: 0,
            took: Duration::ZERO,
            limited: false,
            quickest: None,
            doubling: true,
            rounds: 0,
        }
    }

    pub fn size(&self) -> u32 {
        self.size
    }

    /// Records that a request was ready and had to wait for another's answer.
    pub fn record_limited(&mut self) {
        self.limited = true;
    }

    /// Records a good answer to a request that was sent at `began`.
    pub fn succeed(&mut self, now: Instant, began: Instant) {
        let took = now.saturating_duration_since(began);
        self.quickest = Some(self.quickest.map_or(took, |quickest| quickest.min(took)));
        self.answers += 1;
        self.took += took;
        if self.answers < self.size {
            return;
        }
        let mean = self.took / self.answers;
        (self.answers, self.took) = (0, Duration::ZERO);
        let quickest = self.quickest.expect("just set").max(QUICK);
        let times = mean.as_secs_f64() / quickest.as_secs_f64();
        if times <= NOT_BUSY {
            // There is nothing to gain while requests do not wait for each other.
            if std::mem::take(&mut self.limited) {
                self.size = if self.doubling { self.size * 2 } else { self.size + 1 }.min(self.max);
            }
        } else {
            self.doubling = false;
            if times >= BUSY {
                self.size = (self.size - 1).max(2.min(self.max));
            }
        }
        self.rounds += 1;
        if self.rounds >= ROUNDS {
            *self = Self::new(self.max);
        }
    }

    /// Records a failed request.
    pub fn fail(&mut self) {
        let size = (self.size / 2).max(1);
        *self = Self { size, ..Self::new(self.max) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    /// Runs rounds of as many requests as allowed against a server that takes `lines_per_s` at most and answers after
    /// `latency`; gives the size at the end.
    fn after(rounds: u32, lines_per_s: f64, latency: f64) -> u32 {
        let mut limit = ConcurrencyLimit::new(32);
        let mut now = Instant::now();
        for _ in 0..rounds {
            let size = limit.size();
            let busy = f64::from(size) * 10_000.0 / lines_per_s;
            let began = now;
            now += Duration::from_secs_f64(latency.max(busy));
            for _ in 0..size {
                limit.record_limited();
                limit.succeed(now, began);
            }
        }
        limit.size()
    }

    #[test]
    fn it_grows_against_a_server_that_answers_late_and_not_against_one_that_is_busy() {
        assert_eq!(after(6, 1e9, 1.0), 32);
        assert!(after(100, 50_000.0, 0.001) <= 8, "{}", after(100, 50_000.0, 0.001));
        assert!((8..=32).contains(&after(60, 100_000.0, 1.0)), "{}", after(60, 100_000.0, 1.0));
    }

    #[test]
    fn a_failure_halves_it_and_it_comes_back() {
        let mut limit = ConcurrencyLimit::new(32);
        let now = Instant::now();
        for _ in 0..100 {
            limit.record_limited();
            limit.succeed(now + Duration::from_secs(1), now);
        }
        let before = limit.size();
        limit.fail();
        assert_eq!(limit.size(), (before / 2).max(1));
        for _ in 0..20 {
            limit.fail();
        }
        assert_eq!(limit.size(), 1);
    }

    #[test]
    fn it_stays_where_nothing_waits_for_it() {
        let mut limit = ConcurrencyLimit::new(32);
        let now = Instant::now();
        for _ in 0..100 {
            limit.succeed(now + Duration::from_secs(1), now);
        }
        assert_eq!(limit.size(), START);
    }
}
