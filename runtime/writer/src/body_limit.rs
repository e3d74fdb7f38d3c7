//! The largest body that an endpoint takes: a proxy before it may take less than the server. Shared by all
//! databases behind it. Pure.

use parking_lot::Mutex;

use crate::limits;

#[derive(Debug)]
pub struct BodyLimit {
    state: Mutex<BodyLimitState>,
}

#[derive(Debug)]
struct BodyLimitState {
    bytes_max: usize,
    /// The largest body that passed since one was refused.
    passed: usize,
    /// Bodies of about the ceiling that have to pass before it grows, and those that passed.
    grows_after: u32,
    passes: u32,
}

impl Default for BodyLimit {
    fn default() -> Self {
        let state = BodyLimitState {
            bytes_max: limits::BATCH_BYTES_MAX,
            passed: 0,
            grows_after: limits::BODY_LIMIT_PASSES,
            passes: 0,
        };
        Self { state: Mutex::new(state) }
    }
}

impl BodyLimit {
    /// Bytes of lines that a body may have now.
    pub fn bytes_max(&self) -> usize {
        self.state.lock().bytes_max
    }

    /// A body of so many bytes was too large. One above what passed before ends there, another at half its
    /// size.
    pub fn refuse(&self, bytes: usize) {
        let mut state = self.state.lock();
        let half = bytes / 2;
        let next = if (half..bytes).contains(&state.passed) { state.passed } else { half };
        if bytes > state.bytes_max && next >= state.bytes_max {
            return;
        }
        state.passed = if state.passed < bytes { state.passed } else { 0 };
        state.bytes_max = next.clamp(limits::BODY_LIMIT_BYTES_MIN, limits::BATCH_BYTES_MAX);
        state.passes = 0;
        state.grows_after = (state.grows_after * 2).min(limits::BODY_LIMIT_PASSES_MAX);
    }

    /// A body of so many bytes was taken.
    pub fn pass(&self, bytes: usize) {
        let mut state = self.state.lock();
        if state.bytes_max >= limits::BATCH_BYTES_MAX {
            return;
        }
        state.passed = state.passed.max(bytes);
        if bytes < state.bytes_max / 4 * 3 {
            return;
        }
        state.passes += 1;
        if state.passes >= state.grows_after {
            state.passes = 0;
            state.bytes_max = (state.bytes_max + state.bytes_max / 8).min(limits::BATCH_BYTES_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_finds_what_a_proxy_takes_and_rarely_asks_for_more() {
        let (limit, proxy) = (BodyLimit::default(), 1_000_000);
        let (mut refused, mut sent) = (0, 0);
        for _ in 0..2_000 {
            let bytes = limit.bytes_max();
            sent += bytes;
            if bytes > proxy {
                refused += bytes;
                limit.refuse(bytes);
            } else {
                limit.pass(bytes);
            }
        }
        assert!(refused * 10 < sent, "{refused} of {sent}");
        assert!(limit.bytes_max() > proxy / 2, "{}", limit.bytes_max());
    }

    #[test]
    fn it_grows_again_where_the_proxy_has_gone_and_never_ends_at_nothing() {
        let limit = BodyLimit::default();
        for _ in 0..40 {
            limit.refuse(limit.bytes_max());
        }
        assert_eq!(limit.bytes_max(), limits::BODY_LIMIT_BYTES_MIN);
        for _ in 0..300_000 {
            limit.pass(limit.bytes_max());
        }
        assert_eq!(limit.bytes_max(), limits::BATCH_BYTES_MAX);
    }
}
