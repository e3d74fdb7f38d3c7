//! The clock of the system: readings without a time get its time.

use std::time::{Duration, SystemTime};

use crate::doctor::finding::{Finding, Level};
use crate::limits::CLOCK_SET_AFTER_S;

const CHECK: &str = "clock";

pub fn check() -> Finding {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    judge(now, kernel())
}

/// The kernel's word on the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Discipline {
    Synchronised { error: Duration },
    Unsynchronised,
    Unknown,
}

fn kernel() -> Discipline {
    // SAFETY: all zero is a valid `timex`, and with modes = 0 nothing is set.
    let (state, time) = unsafe {
        let mut time: libc::timex = std::mem::zeroed();
        (libc::adjtimex(&mut time), time)
    };
    if state < 0 {
        return Discipline::Unknown;
    }
    if state == libc::TIME_ERROR || time.status & libc::STA_UNSYNC != 0 {
        return Discipline::Unsynchronised;
    }
    Discipline::Synchronised { error: Duration::from_micros(time.maxerror.unsigned_abs()) }
}

fn judge(now: Duration, discipline: Discipline) -> Finding {
    if now.as_secs() < CLOCK_SET_AFTER_S {
        let state = format!("The clock is not set: it shows {} s after 1970.", now.as_secs());
        return Finding::new(
            CHECK,
            Level::Error,
            state,
            "Set the clock, and start a time service before the gateway.",
        );
    }
    match discipline {
        Discipline::Synchronised { error } => Finding::ok(
            CHECK,
            format!("The clock is set and synchronised, with an error of at most {} ms.", error.as_millis()),
        ),
        Discipline::Unsynchronised => Finding::new(
            CHECK,
            Level::Warning,
            "The clock is set, but no time service synchronises it.",
            "Start chrony or systemd-timesyncd: readings without a time of their own get this clock's time.",
        ),
        Discipline::Unknown => Finding::new(
            CHECK,
            Level::Note,
            "The clock is set; the system does not say whether it is synchronised.",
            "Check the time service of the host.",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_not_set_or_not_synchronised_is_found() {
        let now = Duration::from_secs(CLOCK_SET_AFTER_S + 1);
        let good = Discipline::Synchronised { error: Duration::from_millis(3) };
        assert_eq!(judge(now, good).level, Level::Ok);
        assert_eq!(judge(now, Discipline::Unsynchronised).level, Level::Warning);
        assert_eq!(judge(now, Discipline::Unknown).level, Level::Note);
        assert_eq!(judge(Duration::from_secs(7_200), good).level, Level::Error);
        let _ = kernel();
    }
}
