//! How many requests of one database may be under way. Pure: time is passed in.
//!
//! InfluxDB 3 answers a write at its next WAL flush, a second later by default, whatever its size:
//! there only requests beside each other carry a backlog. A server that answers at once gains
//! nothing from them. So the window doubles while that raises the rate, then feels its way one by
//! one, and is halved by a failure.

use std::time::{Duration, Instant};

/// Rounds at one size before the next larger one is tried again.
const HOLD_ROUNDS: u32 = 8;

/// A larger window must raise the rate by so much to be kept.
const GAIN: f64 = 1.1;

#[derive(Debug)]
pub struct RequestWindow {
    size: u32,
    max: u32,
    /// Since when answers are counted for the rate, their lines and their number.
    round: Option<(Instant, u64, u32)>,
    /// A request was ready and the window was full.
    limited: bool,
    /// Lines a second at the size before the last change.
    rate_before: f64,
    doubling: bool,
    /// The size was raised for the round that runs.
    grown: bool,
    held: u32,
}

impl RequestWindow {
    pub fn new(max: u32) -> Self {
        let max = max.max(1);
        Self {
            size: max.min(2),
            max,
            round: None,
            limited: false,
            rate_before: 0.0,
            doubling: true,
            grown: false,
            held: 0,
        }
    }

    pub fn size(&self) -> u32 {
        self.size
    }

    /// A request was ready and had to wait for another's answer.
    pub fn note_limited(&mut self) {
        self.limited = true;
    }

    /// A request of `lines` was answered well, which was sent at `began`.
    pub fn succeed(&mut self, now: Instant, began: Instant, lines: u64) {
        let (since, sum, answers) = self.round.unwrap_or((began, 0, 0));
        let (sum, answers) = (sum + lines, answers + 1);
        if answers < self.size {
            self.round = Some((since, sum, answers));
            return;
        }
        self.round = Some((now, 0, 0));
        if !std::mem::take(&mut self.limited) {
            // There is nothing to learn while requests do not wait for each other.
            self.round = None;
            return;
        }
        let took = now.saturating_duration_since(since).max(Duration::from_micros(1));
        let rate = sum as f64 / took.as_secs_f64();
        if rate > self.rate_before * GAIN {
            self.grow();
            self.rate_before = rate;
        } else if std::mem::take(&mut self.grown) {
            // It brought nothing.
            self.size = if std::mem::take(&mut self.doubling) { self.size / 2 } else { self.size - 1 }.max(1);
            self.held = 0;
        } else {
            self.held += 1;
            if self.held > HOLD_ROUNDS {
                self.held = 0;
                self.rate_before = rate;
                self.grow();
            }
        }
    }

    fn grow(&mut self) {
        self.held = 0;
        let before = self.size;
        self.size = if self.doubling { self.size * 2 } else { self.size + 1 }.min(self.max);
        self.grown = self.size > before;
    }

    /// A request failed.
    pub fn fail(&mut self) {
        let max = self.max;
        let size = (self.size / 2).max(1);
        *self = Self { size, ..Self::new(max) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs full windows against a server that takes `lines_per_s` at most and answers after
    /// `latency`; gives the size at the end.
    fn after(rounds: u32, lines_per_s: f64, latency: f64) -> u32 {
        let mut window = RequestWindow::new(32);
        let mut now = Instant::now();
        for _ in 0..rounds {
            let size = window.size();
            let busy = f64::from(size) * 10_000.0 / lines_per_s;
            let began = now;
            now += Duration::from_secs_f64(latency.max(busy));
            for _ in 0..size {
                window.note_limited();
                window.succeed(now, began, 10_000);
            }
        }
        window.size()
    }

    #[test]
    fn it_grows_against_a_server_that_answers_late_and_not_against_one_that_is_busy() {
        assert_eq!(after(6, 1e9, 1.0), 32);
        assert!(after(100, 50_000.0, 0.001) <= 16);
        assert!((6..=24).contains(&after(60, 100_000.0, 1.0)));
    }

    #[test]
    fn a_failure_halves_it_and_it_comes_back() {
        let mut window = RequestWindow::new(32);
        let now = Instant::now();
        for _ in 0..100 {
            window.note_limited();
            window.succeed(now + Duration::from_secs(1), now, 100);
        }
        let before = window.size();
        window.fail();
        assert_eq!(window.size(), (before / 2).max(1));
        for _ in 0..20 {
            window.fail();
        }
        assert_eq!(window.size(), 1);
    }

    #[test]
    fn it_stays_where_nothing_waits_for_it() {
        let mut window = RequestWindow::new(32);
        let now = Instant::now();
        for _ in 0..100 {
            window.succeed(now + Duration::from_secs(1), now, 100);
        }
        assert_eq!(window.size(), 2);
    }
}
