//! The wall clock under watch: the log says when it was never set, and when it is set to another time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::core::age_clock::AgeClock;
use crate::core::limits::AGE_KEPT_INTERVAL_S;
use crate::core::receive_clock::{is_set, wall_ns};

/// A step of the wall clock that the log names, in milliseconds: less is how clocks are kept right.
const STEP_MS: i128 = 10_000;

/// The wall clock as it was at the last look, against the age clock, which has no steps.
pub(crate) struct WallClockWatch {
    is_set: bool,
    /// Wall clock less age clock, in milliseconds.
    ahead_ms: i128,
    persisted: Instant,
}

impl WallClockWatch {
    pub(crate) fn new(age_clock: &AgeClock) -> Self {
        let wall_ns = wall_ns();
        if !is_set(wall_ns) {
            tracing::error!("{}", unset(wall_ns).unwrap_or_default());
        }
        Self {
            is_set: is_set(wall_ns),
            ahead_ms: ahead_ms(wall_ns, age_clock.now()),
            persisted: Instant::now(),
        }
    }

    /// Logs a step, and keeps the age clock for the next start now and then.
    pub(crate) async fn check(&mut self, age_clock: &Arc<AgeClock>) {
        for line in self.observe(wall_ns(), age_clock.now()) {
            tracing::warn!("{line}");
        }
        if self.persisted.elapsed() >= Duration::from_secs(AGE_KEPT_INTERVAL_S) {
            self.persisted = Instant::now();
            let age_clock = age_clock.clone();
            // It is written to the disk.
            let _ = tokio::task::spawn_blocking(move || age_clock.persist()).await;
        }
    }

    /// Lines for the log about the wall clock at `wall_ns`.
    fn observe(&mut self, wall_ns: i64, age: Duration) -> Vec<String> {
        let mut lines = Vec::new();
        let (ahead_ms, is_set) = (ahead_ms(wall_ns, age), is_set(wall_ns));
        let step_ms = ahead_ms - self.ahead_ms;
        if step_ms.abs() >= STEP_MS {
            let way = if step_ms > 0 { "forward" } else { "back" };
            let step_s = step_ms.abs() / 1_000;
            lines.push(format!(
                "the wall clock was set {way} by {step_s} s; ages of what is kept do not change by it"
            ));
        }
        match (self.is_set, is_set) {
            (true, false) => lines.extend(unset(wall_ns)),
            (false, true) => lines.push("the wall clock is set now".into()),
            _ => {}
        }
        (self.ahead_ms, self.is_set) = (ahead_ms, is_set);
        lines
    }
}

fn ahead_ms(wall_ns: i64, age: Duration) -> i128 {
    i128::from(wall_ns) / 1_000_000 - age.as_millis() as i128
}

/// The fault of a wall clock that was never set; `None` for one that was.
pub(crate) fn unset(wall_ns: i64) -> Option<String> {
    let time = jiff::Timestamp::from_nanosecond(i128::from(wall_ns)).ok()?;
    (!is_set(wall_ns)).then(|| {
        format!(
            "the wall clock is not set: it says {time:.0}, which is before this version was built; \
                 times of receipt are wrong until it is set"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON_NS: i64 = 1_800_000_000_000_000_000;

    #[test]
    fn an_unset_clock_and_its_setting_are_named_once_and_small_steps_are_not() {
        let age = |s: u64| Duration::from_secs(1_767_225_600 + s);
        let mut watch =
            WallClockWatch { is_set: false, ahead_ms: ahead_ms(0, age(0)), persisted: Instant::now() };
        assert_eq!(watch.observe(1_000_000_000, age(1)), Vec::<String>::new());
        let set = watch.observe(NOON_NS, age(2));
        assert!(set.len() == 2 && set[0].contains("forward") && set[1].contains("is set now"), "{set:?}");
        assert_eq!(watch.observe(NOON_NS + 6_000_000_000, age(3)), Vec::<String>::new());
        let back = watch.observe(NOON_NS - 3_600_000_000_000, age(4));
        assert!(back.len() == 1 && back[0].contains("back by 3607 s"), "{back:?}");
        let lost = watch.observe(5_000_000_000, age(5));
        assert!(lost.len() == 2 && lost[1].contains("1970-01-01T00:00:05Z"), "{lost:?}");
    }
}
