//! Families about the broker session and the listener.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Family;
use crate::source::listener::{CloseReason, ListenerCounters};
use crate::telemetry::handles::{Handles, SourceHealth};
use crate::telemetry::sample::Sample;

pub fn families(handles: &Handles) -> Vec<Family> {
    let redelivered: u64 = handles.redelivered.iter().map(|count| count.load(Ordering::Relaxed)).sum();
    let listener = handles.listener.as_ref().map(|listener| &*listener.counters);
    let of_listener = |value: fn(&ListenerCounters) -> u64| match listener {
        Some(counters) => Sample::bare(value(counters) as f64),
        None => Vec::new(),
    };
    vec![
        Family::gauge(
            "tidegate_source_ready",
            "1 if the source can receive messages: the broker session is subscribed, or the listener is open",
            handles.sources.iter().map(readiness).collect(),
        ),
        Family::counter(
            "tidegate_messages_redelivered",
            "QoS 1 messages received with DUP set",
            Sample::bare(redelivered as f64),
        ),
        Family::gauge(
            "tidegate_listener_connections",
            "Open connections of devices",
            of_listener(|counters| counters.connections.load(Ordering::Relaxed) as u64),
        ),
        Family::gauge(
            "tidegate_listener_connections_max",
            "The ceiling of open connections: listen.connections_max, or less where open files are few",
            handles.listener.as_ref().map_or_else(Vec::new, |one| Sample::bare(one.connections_max as f64)),
        ),
        Family::counter(
            "tidegate_listener_connections_ended",
            "Connections of devices that ended or were refused, by reason",
            listener.map(ended).unwrap_or_default(),
        ),
        Family::counter(
            "tidegate_listener_foreign_publishes",
            "PUBLISHes to a topic of another device",
            of_listener(|counters| counters.foreign_publishes.load(Ordering::Relaxed)),
        ),
        Family::counter(
            "tidegate_refusal_answers",
            "Answers on mqtt.refused_topic, sent or dropped",
            answers(handles),
        ),
        Family::counter(
            "tidegate_sparkplug_birth_requests",
            "Births of edge nodes that a decoder wanted: requested, too soon after the last request, or dropped",
            birth_requests(handles),
        ),
    ]
}

fn readiness(source: &SourceHealth) -> Sample {
    let ready = if source.is_ready() { 1.0 } else { 0.0 };
    Sample::new(vec![("source", source.name().to_owned())], ready)
}

/// Closed connections by reason.
fn ended(counters: &ListenerCounters) -> Vec<Sample> {
    let sample = |&ending: &CloseReason| {
        let labels = vec![("reason", ending.name().to_owned())];
        Sample::new(labels, counters.ended(ending) as f64)
    };
    CloseReason::ALL.iter().map(sample).collect()
}

fn answers(handles: &Handles) -> Vec<Sample> {
    let Some(publisher) = &handles.refusal_publisher else { return Vec::new() };
    by_outcome([("sent", &publisher.sent), ("dropped", &publisher.dropped)])
}

fn birth_requests(handles: &Handles) -> Vec<Sample> {
    let Some(births) = &handles.birth_requester else { return Vec::new() };
    by_outcome([("sent", &births.sent), ("repeated", &births.repeated), ("dropped", &births.dropped)])
}

fn by_outcome<const N: usize>(counts: [(&str, &AtomicU64); N]) -> Vec<Sample> {
    let sample = |(outcome, count): (&str, &AtomicU64)| {
        let count = count.load(Ordering::Relaxed) as f64;
        Sample::new(vec![("outcome", outcome.to_owned())], count)
    };
    counts.map(sample).into()
}
