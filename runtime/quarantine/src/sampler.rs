//! The sampler of refusals under names that the registry does not have.

use std::time::{Duration, Instant};

use crate::limits;
use tidegate_core::reason::Reason;

/// Keeps the first entries of each second and reason.
#[derive(Default)]
pub(crate) struct Sampler {
    began: Option<Instant>,
    kept: std::collections::HashMap<Reason, u32>,
}

impl Sampler {
    pub(crate) fn keeps(&mut self, reason: Reason, now: Instant) -> bool {
        if self.began.is_none_or(|began| now.duration_since(began) >= Duration::from_secs(1)) {
            self.began = Some(now);
            self.kept.clear();
        }
        let kept = self.kept.entry(reason).or_default();
        *kept += 1;
        *kept <= limits::STRANGER_ENTRIES_PER_S
    }
}
