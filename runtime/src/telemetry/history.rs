//! The last hour, sampled: for the charts of the console. It survives nothing.
//!
//! A sample holds rates, not totals. The gateway has one every few seconds, each tenant fewer, and tenants beyond a
//! bound have none. All samples together take less than 2 MB.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use parking_lot::Mutex;

use crate::core::books::TenantBooks;
use crate::core::histogram::HistogramSnapshot;
use crate::limits::{
    HISTORY_SAMPLES, HISTORY_STEP_S, HISTORY_TENANTS_MAX, TENANT_HISTORY_SAMPLES, TENANT_HISTORY_STEP_S,
};

/// One moment of the gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GatewaySample {
    /// Seconds since the epoch.
    pub at_s: u64,
    pub messages_per_s: f32,
    /// Lines made durable.
    pub lines_per_s: f32,
    /// Lines that databases accepted.
    pub written_per_s: f32,
    pub refused_per_s: f32,
    /// Milliseconds from receipt to PUBACK; `None`: there was none.
    pub ack_p50_ms: Option<f32>,
    pub ack_p99_ms: Option<f32>,
    /// Lines that wait for their database, and the age of the oldest in seconds.
    pub backlog_lines: u64,
    pub backlog_age_s: u32,
}

/// One moment of a tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TenantSample {
    pub at_s: u32,
    pub messages_per_s: f32,
    pub lines_per_s: f32,
    pub refused_per_s: f32,
}

/// The totals of one moment, from which a sample is made.
#[derive(Clone, Debug)]
pub struct Totals {
    pub at: Instant,
    pub at_s: u64,
    pub tenants: Vec<(String, TenantBooks)>,
    pub ack_latency: HistogramSnapshot,
    pub backlog_age_s: u64,
}

/// Messages, durable lines, written lines and refusals.
#[derive(Clone, Copy, Debug, Default)]
struct Counts([u64; 4]);

impl Counts {
    fn of(books: &TenantBooks) -> Self {
        let (messages, lines) = (&books.messages, &books.lines);
        Self([messages.received, lines.spooled, lines.written, messages.quarantined])
    }

    fn add(&mut self, other: Self) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, more)| *sum += more);
    }

    fn rates_since(self, before: Self, seconds: f64) -> [f32; 4] {
        std::array::from_fn(|part| (self.0[part].saturating_sub(before.0[part]) as f64 / seconds) as f32)
    }
}

#[derive(Debug, Default)]
struct Rings {
    gateway: VecDeque<GatewaySample>,
    before: Option<(Instant, Counts, HistogramSnapshot)>,
    tenants: HashMap<String, VecDeque<TenantSample>>,
    tenants_before: Option<(Instant, HashMap<String, Counts>)>,
}

/// The samples.
#[derive(Debug, Default)]
pub struct History(Mutex<Rings>);

/// The latency below which a part of the observations between two snapshots lies, in milliseconds: the upper bound of
/// its bucket.
fn quantile_ms(before: &HistogramSnapshot, now: &HistogramSnapshot, part: f64) -> Option<f32> {
    let counts: Vec<u64> = now
        .buckets
        .iter()
        .zip(&before.buckets)
        .map(|((_, now), (_, before))| now.saturating_sub(*before))
        .collect();
    let all: u64 = counts.iter().sum();
    let rank = (all as f64 * part).ceil() as u64;
    let mut seen = 0;
    let place = counts.iter().position(|count| {
        seen += count;
        seen >= rank && seen > 0
    })?;
    // Above the last bound nothing is known but that.
    let bound = now.buckets.get(place)?.0;
    let bound = if bound.is_finite() { bound } else { now.buckets.get(place.checked_sub(1)?)?.0 };
    Some((bound * 1_000.0) as f32)
}

fn push<T>(ring: &mut VecDeque<T>, sample: T, most: usize) {
    if ring.len() >= most {
        ring.pop_front();
    }
    ring.push_back(sample);
}

impl History {
    /// Adds the samples of a moment. To be called every `HISTORY_STEP_S`.
    pub fn record(&self, totals: Totals) {
        let Totals { at, at_s, tenants, ack_latency, backlog_age_s } = totals;
        let (mut sum, mut backlog_lines) = (Counts::default(), 0);
        for (_, books) in &tenants {
            sum.add(Counts::of(books));
            backlog_lines += books.lines.pending;
        }
        let rings = &mut *self.0.lock();
        if let Some((before_at, before, latency)) = &rings.before {
            let seconds = at.duration_since(*before_at).as_secs_f64().max(0.001);
            let [messages_per_s, lines_per_s, written_per_s, refused_per_s] =
                sum.rates_since(*before, seconds);
            let sample = GatewaySample {
                at_s,
                messages_per_s,
                lines_per_s,
                written_per_s,
                refused_per_s,
                ack_p50_ms: quantile_ms(latency, &ack_latency, 0.5),
                ack_p99_ms: quantile_ms(latency, &ack_latency, 0.99),
                backlog_lines,
                backlog_age_s: backlog_age_s.min(u64::from(u32::MAX)) as u32,
            };
            push(&mut rings.gateway, sample, HISTORY_SAMPLES);
        }
        rings.before = Some((at, sum, ack_latency));
        rings.record_tenants(at, at_s, &tenants);
    }

    /// Oldest first.
    pub fn gateway(&self) -> Vec<GatewaySample> {
        self.0.lock().gateway.iter().copied().collect()
    }

    /// The samples of a tenant, oldest first; none of one that sent nothing, or that is beyond the bound.
    pub fn tenant(&self, name: &str) -> Vec<TenantSample> {
        self.0.lock().tenants.get(name).map(|ring| ring.iter().copied().collect()).unwrap_or_default()
    }
}

impl Rings {
    fn record_tenants(&mut self, at: Instant, at_s: u64, tenants: &[(String, TenantBooks)]) {
        let step_s = TENANT_HISTORY_STEP_S as f64 - HISTORY_STEP_S as f64 / 2.0;
        let since = self.tenants_before.as_ref().map(|(before, _)| at.duration_since(*before).as_secs_f64());
        if since.is_some_and(|since| since < step_s) {
            return;
        }
        let now: HashMap<String, Counts> =
            tenants.iter().map(|(name, books)| (name.clone(), Counts::of(books))).collect();
        if let (Some(seconds), Some((_, before))) = (since, &self.tenants_before) {
            for (name, counts) in &now {
                if !self.tenants.contains_key(name) && self.tenants.len() >= HISTORY_TENANTS_MAX {
                    continue;
                }
                let before = before.get(name).copied().unwrap_or_default();
                let [messages_per_s, lines_per_s, _, refused_per_s] = counts.rates_since(before, seconds);
                let at_s = at_s.min(u64::from(u32::MAX)) as u32;
                let sample = TenantSample { at_s, messages_per_s, lines_per_s, refused_per_s };
                push(self.tenants.entry(name.clone()).or_default(), sample, TENANT_HISTORY_SAMPLES);
            }
        }
        self.tenants_before = Some((at, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::histogram::Histogram;
    use std::time::Duration;

    fn totals(began: Instant, second: u64, received: u64, latency: &Histogram) -> Totals {
        let mut books = TenantBooks::default();
        (books.messages.received, books.messages.quarantined) = (received, received / 10);
        (books.lines.spooled, books.lines.pending) = (2 * received, 7);
        Totals {
            at: began + Duration::from_secs(second),
            at_s: 1_000_000 + second,
            tenants: vec![("acme".into(), books)],
            ack_latency: latency.snapshot(),
            backlog_age_s: 3,
        }
    }

    #[test]
    fn a_sample_holds_the_rates_and_latencies_since_the_one_before() {
        let (history, latency, began) = (History::default(), Histogram::default(), Instant::now());
        latency.observe(Duration::from_secs(10), 1_000);
        history.record(totals(began, 0, 1_000, &latency));
        assert_eq!(history.gateway(), []);
        latency.observe(Duration::from_micros(900), 90);
        latency.observe(Duration::from_millis(40), 10);
        history.record(totals(began, 5, 1_500, &latency));
        let sample = history.gateway()[0];
        assert_eq!((sample.messages_per_s, sample.lines_per_s, sample.refused_per_s), (100.0, 200.0, 10.0));
        assert_eq!((sample.ack_p50_ms, sample.ack_p99_ms), (Some(1.0), Some(50.0)));
        assert_eq!((sample.backlog_lines, sample.backlog_age_s, sample.at_s), (7, 3, 1_000_005));
        history.record(totals(began, 10, 1_500, &latency));
        assert_eq!(history.gateway()[1].ack_p99_ms, None);
    }

    #[test]
    fn an_hour_is_kept_and_tenants_have_their_own_in_larger_steps() {
        let (history, latency, began) = (History::default(), Histogram::default(), Instant::now());
        for step in 0..=2 * HISTORY_SAMPLES as u64 {
            history.record(totals(began, step * HISTORY_STEP_S, step * 50, &latency));
        }
        let (gateway, tenant) = (history.gateway(), history.tenant("acme"));
        assert_eq!((gateway.len(), tenant.len()), (HISTORY_SAMPLES, TENANT_HISTORY_SAMPLES));
        assert_eq!(gateway.last().unwrap().at_s, 1_000_000 + 2 * 3_600);
        assert!(tenant.iter().all(|sample| sample.messages_per_s == 10.0), "{tenant:?}");
        assert_eq!(history.tenant("globex"), []);
    }

    #[test]
    fn all_samples_together_take_less_than_two_megabytes() {
        let gateway = HISTORY_SAMPLES * size_of::<GatewaySample>();
        let tenant = TENANT_HISTORY_SAMPLES * size_of::<TenantSample>() + 128;
        assert!(gateway + HISTORY_TENANTS_MAX * tenant < 2_000_000);
        let (history, latency, began) = (History::default(), Histogram::default(), Instant::now());
        for step in 0..3 {
            let mut all = totals(began, step * TENANT_HISTORY_STEP_S, 1, &latency);
            let (_, books) = all.tenants[0].clone();
            all.tenants = (0..2 * HISTORY_TENANTS_MAX).map(|n| (format!("t{n}"), books)).collect();
            history.record(all);
        }
        assert_eq!(history.0.lock().tenants.len(), HISTORY_TENANTS_MAX);
    }
}
