//! The tap: shows messages to viewers as they pass the joints, and costs one load a group while nobody looks.
//!
//! A viewer gets at most so many messages a second; of more it gets a sample. Ingress puts a probe on a message that
//! some viewer may want, and egress takes it off with the outcome. A viewer of refusals alone needs no probe: a
//! refused message has all that is shown. Nothing here waits: a viewer that reads slowly misses messages, counted.

pub mod event;
pub mod topic_filter;
pub mod filter;
pub mod memory;
pub mod viewer;
pub mod viewers;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::core::ack::tap_probe::{ProbeSink, ProbedMessage, TapProbe};
use crate::core::ack::token::AckToken;
use crate::core::message::{CheckedBatch, Received, RefusedMessage};
use crate::core::topic::TopicTemplates;
use crate::pipeline::tap::event::{TapEvent, TapOutcome};
use crate::pipeline::tap::filter::TapFilter;
use crate::pipeline::tap::viewers::{TapFull, TapReader, Viewers};

/// The tap of a gateway.
#[derive(Debug)]
pub struct Tap {
    topics: Arc<TopicTemplates>,
    started: Instant,
    viewers: Arc<Viewers>,
    last_id: AtomicU64,
}

impl Tap {
    pub fn new(topics: Arc<TopicTemplates>) -> Arc<Self> {
        Arc::new(Self {
            topics,
            started: Instant::now(),
            viewers: Arc::default(),
            last_id: AtomicU64::new(0),
        })
    }

    /// Opens a place for a viewer, until the reader is dropped. `owner`: the tenant that looks; `None` for the
    /// operator.
    ///
    /// # Errors
    /// All places are taken, or all that one tenant may have.
    pub fn open(&self, filter: TapFilter, owner: Option<&str>) -> Result<TapReader, TapFull> {
        self.viewers.open(filter, owner, self.now_s())
    }

    /// The number of viewers.
    pub fn viewers(&self) -> usize {
        self.viewers.count()
    }

    /// A message that a viewer was shown, by its number, while it is remembered.
    pub fn event(&self, id: u64) -> Option<Arc<TapEvent>> {
        self.viewers.event(id)
    }

    #[inline]
    pub fn is_watched(&self) -> bool {
        self.viewers.count() > 0
    }

    fn now_s(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// Puts probes on messages that viewers may want, as many as each viewer may have.
    pub(super) fn probe(self: &Arc<Self>, messages: &mut [Received]) {
        let (viewers, now_s) = (self.viewers.all(), self.now_s());
        for viewer in viewers.iter().filter(|viewer| viewer.filter.needs_probes()) {
            let mut rate = viewer.probes.lock();
            for (index, message) in messages.iter_mut().enumerate() {
                if !viewer.filter.takes_topic(&message.topic, &self.topics) {
                    continue;
                }
                if !rate.take(now_s) {
                    viewer.pass_over(messages.len() - index);
                    break;
                }
                if message.token.probe_mut().is_none() {
                    message.token.set_probe(self.probe_of(message));
                }
                if let Some(probe) = message.token.probe_mut() {
                    probe.add_viewer(viewer.bit());
                }
            }
        }
    }

    fn probe_of(self: &Arc<Self>, message: &Received) -> TapProbe {
        let probed = ProbedMessage {
            topic: message.topic.clone(),
            payload: message.payload.clone(),
            payload_bytes: message.payload_bytes,
            received_ns: message.received_ns,
            via: message.via.name(),
            viewers: 0,
        };
        TapProbe::new(probed, self.clone())
    }

    /// Takes the probes off messages with lines, and off those of the same batches without.
    pub(super) fn lines(&self, batches: &mut [CheckedBatch]) {
        for batch in batches {
            let mut begin = 0;
            for message in &mut batch.messages {
                let own = begin..message.lines_end as usize;
                begin = own.end;
                if let Some(probe) = message.token.take_probe() {
                    let event = TapEvent::of_lines(
                        &probe.finish(),
                        &batch.lines[own],
                        u64::from(message.line_count),
                        (&batch.database, &batch.guest),
                    );
                    self.show(event);
                }
            }
            for (token, _) in batch.state_delta.iter_mut().flat_map(|delta| &mut delta.messages) {
                self.without_lines(token);
            }
        }
    }

    /// Takes the probe off a message that no line was made of.
    pub(super) fn without_lines(&self, token: &mut AckToken) {
        if let Some(probe) = token.take_probe() {
            self.show(TapEvent::without_lines(&probe.finish(), TapOutcome::Empty));
        }
    }

    /// Shows refused messages, with and without a probe.
    pub(super) fn refused(&self, messages: &mut [RefusedMessage]) {
        let mut refusals = self.viewers.all();
        refusals.retain(|viewer| !viewer.filter.needs_probes());
        for message in messages {
            let probe = message.token.take_probe().map(TapProbe::finish);
            let mut bits = probe.as_ref().map_or(0, |probe| probe.viewers);
            for viewer in &refusals {
                if viewer.filter.takes_topic(&message.topic, &self.topics) {
                    bits |= viewer.bit();
                }
            }
            if bits != 0 {
                self.show(TapEvent::of_refusal(message, probe.as_ref(), bits));
            }
        }
    }

    /// Sends an event to its viewers that want it, as many as each may have.
    fn show(&self, mut event: TapEvent) {
        event.name_from(&self.topics);
        let (viewers, now_s) = (self.viewers.all(), self.now_s());
        let takers: Vec<_> = viewers.iter().filter(|one| one.takes(&event) && one.may_show(now_s)).collect();
        if takers.is_empty() {
            return;
        }
        event.id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let event = Arc::new(event);
        self.viewers.remember(event.clone());
        for viewer in takers {
            viewer.send(event.clone());
        }
    }
}

impl ProbeSink for Tap {
    fn unsettled(&self, message: ProbedMessage) {
        if self.is_watched() {
            self.show(TapEvent::without_lines(&message, TapOutcome::Unsettled));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    use crate::core::books::Account;
    use crate::core::detail::Detail;
    use crate::core::message::Via;
    use crate::core::reason::Reason;
    use crate::core::topic::TopicTemplate;
    use crate::limits::{TAP_EVENTS_A_SECOND, TAP_QUEUE_EVENTS, TAP_VIEWERS_A_TENANT_MAX, TAP_VIEWERS_MAX};

    fn tap() -> Arc<Tap> {
        let template = TopicTemplate::parse("tenant/{tenant}/device/{device}/{type}").unwrap();
        Tap::new(Arc::new(TopicTemplates::new(vec![template]).unwrap()))
    }

    fn filter(parts: &[(&str, &str)]) -> TapFilter {
        let mut filter = TapFilter::default();
        for (key, value) in parts {
            filter.set(key, value).unwrap();
        }
        filter
    }

    fn message(tenant: &str, device: &str) -> Received {
        Received {
            topic: format!("tenant/{tenant}/device/{device}/telemetry"),
            payload: Bytes::from_static(b"{}"),
            received_ns: 7,
            via: Via::Listener,
            token: AckToken::trial(),
            payload_bytes: 2,
        }
    }

    fn refused(message: Received) -> RefusedMessage {
        let account = Arc::new(Account::new("acme".into()));
        RefusedMessage::new(message, Reason::BadPayload, Detail::from("no".to_owned()), account)
    }

    fn drain(reader: &mut TapReader) -> Vec<Arc<TapEvent>> {
        std::iter::from_fn(|| reader.try_next()).collect()
    }

    #[test]
    fn a_viewer_sees_what_its_filter_takes_with_the_outcome() {
        let tap = tap();
        let mut all = tap.open(TapFilter::default(), None).unwrap();
        let mut of_device = tap.open(filter(&[("tenant", "acme"), ("device", "d2")]), None).unwrap();
        let mut of_refusals = tap.open(filter(&[("outcome", "quarantined")]), None).unwrap();
        let mut messages = vec![message("acme", "d1"), message("acme", "d2"), message("globex", "d2")];
        tap.probe(&mut messages);
        let mut messages = messages.into_iter();
        tap.without_lines(&mut messages.next().unwrap().token);
        tap.refused(&mut [refused(messages.next().unwrap())]);
        drop(messages);
        let seen = |reader: &mut TapReader| -> Vec<(String, TapOutcome)> {
            drain(reader).iter().map(|event| (event.device().to_owned(), event.outcome)).collect()
        };
        let refusal = ("d2".to_owned(), TapOutcome::Quarantined);
        assert_eq!(
            seen(&mut all),
            [("d1".to_owned(), TapOutcome::Empty), refusal.clone(), ("d2".to_owned(), TapOutcome::Unsettled)]
        );
        assert_eq!(seen(&mut of_device), std::slice::from_ref(&refusal));
        assert_eq!(seen(&mut of_refusals), [refusal]);
    }

    #[test]
    fn beyond_its_rate_a_viewer_gets_a_sample_and_is_told_of_the_rest() {
        let tap = tap();
        let mut reader = tap.open(TapFilter::default(), None).unwrap();
        let mut messages: Vec<_> = (0..10_000).map(|_| message("acme", "d")).collect();
        tap.probe(&mut messages);
        let probed = messages.iter_mut().filter_map(|message| message.token.probe_mut()).count();
        assert!(probed > 0 && probed as f64 <= 2.0 * TAP_EVENTS_A_SECOND.per_s, "{probed}");
        messages.iter_mut().for_each(|message| tap.without_lines(&mut message.token));
        let shown = drain(&mut reader).len();
        assert_eq!(shown, probed);
        assert_eq!(reader.counts().passed_over as usize, 10_000 - probed);
    }

    #[test]
    fn a_viewer_that_reads_slowly_misses_events_and_is_told_how_many() {
        let tap = tap();
        let mut reader = tap.open(filter(&[("outcome", "quarantined")]), None).unwrap();
        let viewer = tap.viewers.all()[0].clone();
        let event = Arc::new(TapEvent::without_lines(&ProbedMessage::default(), TapOutcome::Empty));
        (0..TAP_QUEUE_EVENTS + 7).for_each(|_| viewer.send(event.clone()));
        assert_eq!((drain(&mut reader).len(), reader.counts().dropped), (TAP_QUEUE_EVENTS, 7));
    }

    #[test]
    fn places_are_few_and_free_again_and_nothing_is_remembered_without_a_viewer() {
        let tap = tap();
        let open = |owner: Option<&str>| tap.open(TapFilter::default(), owner);
        let mut readers: Vec<_> =
            (0..TAP_VIEWERS_A_TENANT_MAX).map(|_| open(Some("acme")).unwrap()).collect();
        assert_eq!(open(Some("acme")).unwrap_err(), TapFull::Tenant);
        while let Ok(reader) = open(None) {
            readers.push(reader);
        }
        assert_eq!(readers.len(), TAP_VIEWERS_MAX);
        let mut one = message("acme", "d");
        tap.probe(std::slice::from_mut(&mut one));
        tap.without_lines(&mut one.token);
        assert!(tap.event(1).is_some_and(|event| event.payload == "{}"));
        readers.clear();
        assert!(!tap.is_watched() && tap.event(1).is_none());
    }
}
