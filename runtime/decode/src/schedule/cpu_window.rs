//! CPU time of one tenant over a window that moves. Pure: the time is passed in, in milliseconds of a
//! monotonic clock.

use std::time::Duration;

use crate::limits::{CPU_WINDOW_MS, CPU_WINDOW_PARTS};

const PART_MS: u64 = CPU_WINDOW_MS / CPU_WINDOW_PARTS as u64;

/// The CPU time that was used in the window that ends now.
#[derive(Clone, Debug, Default)]
pub struct CpuWindow {
    parts_ns: [u64; CPU_WINDOW_PARTS],
    /// The part that the last use fell into, counted since the clock began.
    last: u64,
}

impl CpuWindow {
    fn move_to(&mut self, now_ms: u64) {
        let now = now_ms / PART_MS;
        if now <= self.last {
            return;
        }
        let parts = CPU_WINDOW_PARTS as u64;
        for part in now.saturating_sub(parts.min(now - self.last)) + 1..=now {
            self.parts_ns[(part % parts) as usize] = 0;
        }
        self.last = now;
    }

    pub fn record(&mut self, now_ms: u64, used: Duration) {
        self.move_to(now_ms);
        self.parts_ns[(self.last % CPU_WINDOW_PARTS as u64) as usize] += used.as_nanos() as u64;
    }

    pub fn used(&mut self, now_ms: u64) -> Duration {
        self.move_to(now_ms);
        Duration::from_nanos(self.parts_ns.iter().sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::CPU_WINDOW_MS;
    use std::time::Duration;

    #[test]
    fn what_was_used_before_the_window_counts_no_more() {
        let mut window = CpuWindow::default();
        let ms = Duration::from_millis;
        window.record(0, ms(10));
        window.record(PART_MS, ms(20));
        assert_eq!(window.used(PART_MS), ms(30));
        assert_eq!(window.used(CPU_WINDOW_MS - 1), ms(30));
        assert_eq!(window.used(CPU_WINDOW_MS), ms(20), "the first part has left the window");
        assert_eq!(window.used(CPU_WINDOW_MS + PART_MS), ms(0));
        window.record(10 * CPU_WINDOW_MS, ms(5));
        assert_eq!(window.used(10 * CPU_WINDOW_MS), ms(5));
        window.record(9 * CPU_WINDOW_MS, ms(1));
        assert_eq!(window.used(9 * CPU_WINDOW_MS), ms(6), "a clock that goes back takes nothing away");
        assert_eq!(window.used(100 * CPU_WINDOW_MS), ms(0));
    }
}
