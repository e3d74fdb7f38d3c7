//! Families about decoders: their CPU time, faults, changes and state.

use super::Family;
use crate::telemetry::handles::Handles;
use crate::telemetry::sample::Sample;

pub fn families(handles: &Handles) -> Vec<Family> {
    let (mut cpu, mut failures, mut ignored) = (Vec::new(), Vec::new(), Vec::new());
    for guest in handles.guests.list() {
        let labels = vec![("tenant", guest.tenant), ("type", guest.message_type)];
        let by_kind = |(kind, count): (&'static str, u64)| {
            let labels = [labels.clone(), vec![("kind", kind.to_owned())]].concat();
            Sample::new(labels, count as f64)
        };
        failures.extend(guest.failures.into_iter().map(by_kind));
        ignored.extend(guest.ignored.into_iter().map(by_kind));
        cpu.push(Sample::new(labels, guest.cpu_seconds));
    }
    let swaps = handles.guests.swaps().into_iter().map(|(tenant, message_type, outcome, count)| {
        let labels = vec![("tenant", tenant), ("type", message_type), ("outcome", outcome.to_owned())];
        Sample::new(labels, count as f64)
    });
    let state = handles.guests.host().state();
    vec![
        Family::counter(
            "tidegate_guest_cpu_seconds",
            "CPU time of decoders in seconds, by place in the guests folder",
            cpu,
        ),
        Family::counter(
            "tidegate_guest_failures",
            "Messages that decoders did not decode, by kind of failure",
            failures,
        ),
        Family::counter(
            "tidegate_guest_ignored",
            "Values that decoders left out and reported, by kind",
            ignored,
        ),
        Family::counter(
            "tidegate_guest_swaps",
            "New decoder files by place in the guests folder and outcome",
            swaps.collect(),
        ),
        Family::counter(
            "tidegate_messages_passed_over",
            "Repeated messages that were not decoded again, of routes with state",
            Sample::bare(state.skipped() as f64),
        ),
        Family::gauge(
            "tidegate_state_bytes",
            "Bytes of state that decoders keep between messages",
            Sample::bare(state.bytes() as f64),
        ),
    ]
}
