//! The log of guests: to the operator, under the target `guest`, and the last of it kept a route.

use std::collections::VecDeque;
use std::time::Instant;

use parking_lot::Mutex;
use serde::Serialize;

use crate::limits::{
    GUEST_LOG_BYTES_MAX, GUEST_LOG_KEPT, GUEST_LOG_OVERHEAD_BYTES, GUEST_LOG_RATE, GUEST_LOG_TENANT_RATE,
    GUEST_LOG_TENANTS_MAX,
};
use tidegate_core::detail::is_unsafe_to_show;
use tidegate_core::detail::truncate as cut;
use tidegate_core::ids::TenantId;
use tidegate_core::keyed_buckets::KeyedTokenBuckets;
use tidegate_core::tenant::budget::{Budget, Charge};
use tidegate_core::tenant::budget_kind::BudgetKind;
use tidegate_core::token_bucket::TokenBucket;

/// The level of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum GuestLogLevel {
    Debug,
    Info,
    Warn,
    Error,
}

/// One text of a guest.
#[derive(Clone, Debug, Serialize)]
pub struct LogLine {
    /// RFC 3339.
    pub time: String,
    pub level: GuestLogLevel,
    /// Tenant and type of the messages that it was about.
    pub route: String,
    pub text: String,
}

impl LogLine {
    fn memory_bytes(&self) -> u64 {
        (self.route.len() + self.text.len()) as u64 + GUEST_LOG_OVERHEAD_BYTES
    }
}

/// The log of one route.
#[derive(Debug)]
pub struct GuestLog(Option<Mutex<RecentLines>>);

#[derive(Debug)]
struct RecentLines {
    lines: VecDeque<LogLine>,
    began: Instant,
    bucket: TokenBucket,
    dropped: u64,
    /// The bytes of `lines`, charged to the route's tenant.
    charge: Charge,
}

/// The log rate of each tenant's guests, over all its routes.
#[derive(Debug)]
pub struct TenantLogRates {
    began: Instant,
    buckets: Mutex<KeyedTokenBuckets<TenantId>>,
}

impl Default for TenantLogRates {
    fn default() -> Self {
        let buckets = KeyedTokenBuckets::new(GUEST_LOG_TENANT_RATE, GUEST_LOG_TENANTS_MAX);
        Self { began: Instant::now(), buckets: Mutex::new(buckets) }
    }
}

impl TenantLogRates {
    /// Counts one text of a tenant's guest; false if the tenant is over its rate.
    pub fn take(&self, tenant: &TenantId) -> bool {
        self.buckets.lock().take(tenant.clone(), self.began.elapsed().as_secs_f64())
    }
}

impl GuestLog {
    /// A log that is charged to a tenant.
    pub fn new(memory: &Budget) -> Self {
        let (lines, bucket) = (VecDeque::new(), TokenBucket::full(GUEST_LOG_RATE, 0.0));
        let charge = memory.empty(BudgetKind::Routes);
        Self(Some(Mutex::new(RecentLines { lines, began: Instant::now(), bucket, dropped: 0, charge })))
    }

    /// One that forgets everything: of trials.
    pub fn silent() -> Self {
        Self(None)
    }

    /// Takes a text, while the route has not said too much lately.
    pub fn write(&self, level: GuestLogLevel, route: &str, text: &str) {
        let Some(kept) = &self.0 else { return };
        let mut kept = kept.lock();
        let now_s = kept.began.elapsed().as_secs_f64();
        if !kept.bucket.take(GUEST_LOG_RATE, now_s) {
            kept.dropped += 1;
            return;
        }
        let text = plain(cut(text, GUEST_LOG_BYTES_MAX));
        if kept.lines.len() >= GUEST_LOG_KEPT
            && let Some(oldest) = kept.lines.pop_front()
        {
            kept.charge.shrink(oldest.memory_bytes());
        }
        let time = jiff::Timestamp::now().to_string();
        let line = LogLine { time, level, route: route.to_owned(), text: text.clone() };
        // At most a hundred texts a route: they are kept in any case.
        kept.charge.grow(line.memory_bytes());
        kept.lines.push_back(line);
        drop(kept);
        match level {
            GuestLogLevel::Debug => tracing::debug!(target: "guest", route, "{text}"),
            GuestLogLevel::Info => tracing::info!(target: "guest", route, "{text}"),
            GuestLogLevel::Warn => tracing::warn!(target: "guest", route, "{text}"),
            // An error of a tenant's decoder is not one of ours.
            GuestLogLevel::Error => tracing::warn!(target: "guest", route, error = true, "{text}"),
        }
    }

    /// True if it forgets everything.
    pub fn is_silent(&self) -> bool {
        self.0.is_none()
    }

    /// `texts` were dropped before they came here.
    pub fn record_dropped(&self, texts: u64) {
        if let Some(kept) = &self.0 {
            kept.lock().dropped += texts;
        }
    }

    /// The lines that are kept, oldest first, and the number of texts that were dropped.
    pub fn lines(&self) -> (Vec<LogLine>, u64) {
        let Some(kept) = &self.0 else { return Default::default() };
        let kept = kept.lock();
        (kept.lines.iter().cloned().collect(), kept.dropped)
    }
}

/// Without characters that steer a terminal or reorder a line: a guest writes no lines of its own into the
/// log, and moves no cursor.
fn plain(text: &str) -> String {
    text.chars().map(|c| if is_unsafe_to_show(c) { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{GUEST_LOG_KEPT, GUEST_LOG_RATE, GUEST_LOG_TENANT_RATE};
    use tidegate_core::ids::TenantId;
    use tidegate_core::tenant::budget_kind::Resource;

    #[test]
    fn a_flood_is_cut_off_and_counted_and_the_last_texts_are_kept() {
        let log = GuestLog::new(&Budget::unlimited(Resource::Memory));
        for n in 0..10_000 {
            log.write(GuestLogLevel::Debug, "acme/x", &format!("text {n}"));
        }
        let (lines, dropped) = log.lines();
        assert_eq!(lines.len(), GUEST_LOG_KEPT.min(GUEST_LOG_RATE.burst as usize));
        assert!(dropped > 9_000, "{dropped}");
    }

    #[test]
    fn no_text_makes_a_line_of_its_own() {
        let log = GuestLog::new(&Budget::unlimited(Resource::Memory));
        log.write(GuestLogLevel::Info, "acme/x", "a\nERROR forged\x1b[2J");
        assert_eq!(log.lines().0[0].text, "a\u{fffd}ERROR forged\u{fffd}[2J");
        log.write(GuestLogLevel::Info, "acme/x", "\u{202e}a\u{2028}b");
        assert_eq!(log.lines().0[1].text, "\u{fffd}a\u{fffd}b");
    }

    #[test]
    fn a_tenant_that_says_too_much_takes_nothing_of_another() {
        let rates = TenantLogRates::default();
        let (loud, other) = (TenantId::new("acme"), TenantId::new("umbrella"));
        let said = (0..10_000).filter(|_| rates.take(&loud)).count();
        assert!((GUEST_LOG_TENANT_RATE.burst as usize..9_000).contains(&said), "{said}");
        assert!(rates.take(&other));
    }
}
