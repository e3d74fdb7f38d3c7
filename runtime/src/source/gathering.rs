//! How long a source leaves a steady trickle lying in the socket, so that one read takes several
//! messages: see `domain::pacing`.

use std::time::{Duration, Instant};

use crate::domain::limits;
use crate::domain::pacing::Pacing;

#[derive(Debug)]
pub struct Gathering {
    pacing: Pacing,
    last: Option<Instant>,
    waited: bool,
}

impl Default for Gathering {
    fn default() -> Self {
        let pacing = Pacing::new(Duration::from_millis(limits::SOURCE_GATHER_MS));
        Self { pacing, last: None, waited: false }
    }
}

impl Gathering {
    /// A read brought so many messages.
    pub fn took(&mut self, messages: usize) {
        if messages == 0 {
            return;
        }
        if std::mem::take(&mut self.waited) {
            // The first would have come without the wait.
            self.pacing.waited(messages - 1);
        }
        let now = Instant::now();
        let since = self.last.replace(now).map_or(Duration::MAX, |last| now - last);
        // A pause is no trickle.
        self.pacing.took(messages, since.min(Duration::from_secs(1)));
    }

    /// How long to wait before the next read, if it should be waited for.
    pub fn wait(&mut self) -> Option<Duration> {
        let since = self.last?.elapsed();
        let wait = self.pacing.wait(since, 0);
        self.waited = !wait.is_zero();
        self.waited.then_some(wait)
    }
}
