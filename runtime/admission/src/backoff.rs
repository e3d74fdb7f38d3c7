//! The pauses between tries at the registry.

use std::time::Duration;

use crate::limits::{PROBE, RETRY_MIN};

/// A pause that doubles with each failed try, from `RETRY_MIN` up to that of a probe.
#[derive(Debug)]
pub(crate) struct Backoff {
    pause: Duration,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self { pause: RETRY_MIN }
    }

    /// The pause to make now.
    pub(crate) fn next(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(PROBE);
        pause
    }

    /// Starts from the shortest pause: a try has succeeded.
    pub(crate) fn reset(&mut self) {
        self.pause = RETRY_MIN;
    }
}
