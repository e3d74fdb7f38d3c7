//! A token bucket. Pure: the time is passed in, in seconds of a monotonic clock.

/// The permitted rate of messages.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Tokens a second.
    pub per_s: f64,
    /// The greatest number of tokens in a bucket. Below 1 nothing ever passes.
    pub burst: f64,
}

/// One bucket: a message takes a token.
#[derive(Clone, Copy, Debug)]
pub struct TokenBucket {
    tokens: f64,
    /// Granted once after an absence of the gateway; used when there are no tokens, never refilled.
    backlog: f64,
    last_s: f64,
}

impl TokenBucket {
    /// A full bucket.
    #[inline]
    pub fn full(rate: Rate, now_s: f64) -> Self {
        Self { tokens: rate.burst, backlog: 0.0, last_s: now_s }
    }

    #[inline]
    fn refill(&mut self, rate: Rate, now_s: f64) {
        // A clock that stands still or goes back adds nothing and takes nothing.
        let elapsed = (now_s - self.last_s).max(0.0);
        self.tokens = (self.tokens + elapsed * rate.per_s).min(rate.burst);
        self.last_s = self.last_s.max(now_s);
    }

    /// Takes a token, if there is one.
    #[inline]
    pub fn take(&mut self, rate: Rate, now_s: f64) -> bool {
        self.refill(rate, now_s);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return true;
        }
        if self.backlog >= 1.0 {
            self.backlog -= 1.0;
            return true;
        }
        false
    }

    /// Takes a token that may not be there: what follows waits for so much longer.
    #[inline]
    pub fn owe(&mut self, rate: Rate, now_s: f64) {
        self.refill(rate, now_s);
        self.tokens -= 1.0;
    }

    /// Seconds until the bucket has `tokens`, or as many as it can hold. Infinite for a rate that gives none.
    pub fn wait_s(&self, rate: Rate, tokens: f64) -> f64 {
        let missing = tokens.min(rate.burst) - self.tokens;
        let wait_s = missing.max(0.0) / rate.per_s;
        if rate.per_s > 0.0 && rate.burst >= 1.0 && wait_s.is_finite() { wait_s } else { f64::INFINITY }
    }

    /// Returns a token that was taken for a message which then did not count.
    #[inline]
    pub fn release(&mut self, rate: Rate) {
        self.tokens = (self.tokens + 1.0).min(rate.burst);
    }

    /// Grants the messages that queued up during an absence of the gateway: a backlog is not a burst.
    pub fn grant_backlog(&mut self, messages: f64) {
        self.backlog = messages;
    }

    /// True if it equals a new bucket: forgetting it changes nothing.
    #[inline]
    pub fn is_full(&self, rate: Rate, now_s: f64) -> bool {
        self.tokens + (now_s - self.last_s).max(0.0) * rate.per_s >= rate.burst
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    const SEQUENCES: &str = include_str!("../../../tests/cases/pulse-sequences.jsonl");

    #[test]
    fn every_recorded_sequence_is_allowed_and_limited_as_it_was() {
        let mut sequences = 0;
        for case in SEQUENCES.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
            // `seed_bug`: the Python service's clock could go back; ours is monotonic.
            if case["kind"] != "rate" || !case["seed_bug"].is_null() {
                continue;
            }
            let rate = Rate { per_s: case["rps"].as_f64().unwrap(), burst: case["burst"].as_f64().unwrap() };
            // The service's clock counted from 1970; how its sums round is part of what was recorded.
            let times = case["at_s"].as_array().unwrap().iter().map(|t| 1.7e9 + t.as_f64().unwrap());
            let times: Vec<f64> = times.collect();
            let mut bucket = TokenBucket::full(rate, times[0]);
            let allowed: Vec<Value> = times.iter().map(|&now_s| bucket.take(rate, now_s).into()).collect();
            assert_eq!(&allowed, case["allowed"].as_array().unwrap(), "{}: {}", case["id"], case["note"]);
            sequences += 1;
        }
        assert!(sequences >= 15, "only {sequences}");
    }

    #[test]
    fn a_backlog_passes_beyond_the_burst_once() {
        let rate = Rate { per_s: 1.0, burst: 2.0 };
        let mut bucket = TokenBucket::full(rate, 0.0);
        bucket.grant_backlog(3.0);
        let passed = (0..10).filter(|_| bucket.take(rate, 0.0)).count();
        assert_eq!(passed, 5);
        assert_eq!(
            (0..10).filter(|_| bucket.take(rate, 100.0)).count(),
            2,
            "no more than the burst after it"
        );
    }

    #[test]
    fn a_clock_that_goes_back_blocks_nobody() {
        let rate = Rate { per_s: 1.0, burst: 2.0 };
        let mut bucket = TokenBucket::full(rate, 10.0);
        assert!(bucket.take(rate, 10.0) && bucket.take(rate, 5.0));
        assert!(!bucket.take(rate, 5.0));
        assert!(bucket.take(rate, 11.0));
    }
}
