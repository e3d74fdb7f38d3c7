//! One viewer: its filter, its rates, and its queue of events.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::core::token_bucket::{Rate, TokenBucket};
use crate::limits::{TAP_EVENTS_A_SECOND, TAP_PROBES_A_SECOND};
use crate::pipeline::tap::event::TapEvent;
use crate::pipeline::tap::filter::TapFilter;

/// A token bucket with its rate.
#[derive(Debug)]
pub(super) struct RateBucket {
    rate: Rate,
    bucket: TokenBucket,
}

impl RateBucket {
    fn new(rate: Rate, now_s: f64) -> Self {
        Self { rate, bucket: TokenBucket::full(rate, now_s) }
    }

    pub fn take(&mut self, now_s: f64) -> bool {
        self.bucket.take(self.rate, now_s)
    }
}

/// The sending side of a viewer.
#[derive(Debug)]
pub struct Viewer {
    pub(super) number: u32,
    /// The tenant that looks.
    pub(super) owner: Option<String>,
    pub(super) filter: TapFilter,
    /// Probes that may be put on for it.
    pub(super) probes: Mutex<RateBucket>,
    shown: Mutex<RateBucket>,
    events: mpsc::Sender<Arc<TapEvent>>,
    passed_over: AtomicU64,
    dropped: AtomicU64,
}

impl Viewer {
    pub(super) fn new(
        number: u32,
        owner: Option<String>,
        filter: TapFilter,
        events: mpsc::Sender<Arc<TapEvent>>,
        now_s: f64,
    ) -> Self {
        let probes = if filter.selects_outcomes() { TAP_PROBES_A_SECOND } else { TAP_EVENTS_A_SECOND };
        Self {
            number,
            owner,
            filter,
            probes: Mutex::new(RateBucket::new(probes, now_s)),
            shown: Mutex::new(RateBucket::new(TAP_EVENTS_A_SECOND, now_s)),
            events,
            passed_over: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }
    }

    pub(super) fn bit(&self) -> u32 {
        1 << self.number
    }

    pub(super) fn pass_over(&self, messages: usize) {
        self.passed_over.fetch_add(messages as u64, Ordering::Relaxed);
    }

    /// True if the event was marked for it and passes its filter. The mark alone does not count: another viewer may
    /// have had its number before.
    pub(super) fn takes(&self, event: &TapEvent) -> bool {
        event.viewers & self.bit() != 0 && self.filter.takes(event)
    }

    /// Takes one of the events that it may be shown this second.
    pub(super) fn may_show(&self, now_s: f64) -> bool {
        let may = self.shown.lock().take(now_s);
        if !may {
            self.pass_over(1);
        }
        may
    }

    pub(super) fn send(&self, event: Arc<TapEvent>) {
        if self.events.try_send(event).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn counts(&self) -> TapCounts {
        TapCounts {
            passed_over: self.passed_over.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
        }
    }
}

/// The messages that a viewer did not see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TapCounts {
    /// Messages beyond the rate; its filter may not have taken all of them.
    pub passed_over: u64,
    /// Events that found its queue full.
    pub dropped: u64,
}
