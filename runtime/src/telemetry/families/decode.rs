//! Families about decoders: their CPU time, faults, changes and state.

use std::collections::{BTreeMap, BTreeSet};

use super::Family;
use crate::core::books::OTHER_TENANTS;
use crate::core::route_key::RouteKey;
use crate::limits::METRIC_ROUTES_MAX;
use crate::rollout::GuestInfo;
use crate::telemetry::handles::Handles;
use crate::telemetry::sample::Sample;

/// The label of types whose places are counted together.
const OTHER_TYPES: &str = "_other";

/// The state of the decoder at one place, the worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum DecoderState {
    Serving,
    /// A new version serves, and is watched.
    Probation,
    /// Its file is not checked yet.
    Waiting,
    /// Its new file was refused, and the version before serves.
    Refused,
    /// It was rolled back, and the version before serves.
    RolledBack,
    /// No decoder serves: messages are refused.
    Missing,
}

impl DecoderState {
    const ALL: [DecoderState; 6] = [
        DecoderState::Serving,
        DecoderState::Probation,
        DecoderState::Waiting,
        DecoderState::Refused,
        DecoderState::RolledBack,
        DecoderState::Missing,
    ];

    fn of(guest: &GuestInfo) -> Self {
        match (&guest.error, &guest.guest) {
            (Some(_), None) => DecoderState::Missing,
            (Some(_), Some(_)) if guest.file_state == "set_aside" => DecoderState::RolledBack,
            (Some(_), Some(_)) => DecoderState::Refused,
            (None, None) => DecoderState::Waiting,
            (None, Some(_)) if guest.probation.is_some() => DecoderState::Probation,
            (None, Some(_)) => DecoderState::Serving,
        }
    }

    fn name(self) -> &'static str {
        match self {
            DecoderState::Serving => "serving",
            DecoderState::Probation => "probation",
            DecoderState::Waiting => "waiting",
            DecoderState::Refused => "refused",
            DecoderState::RolledBack => "rolled_back",
            DecoderState::Missing => "missing",
        }
    }
}

/// A further label of a place, or none.
type MoreLabel = Option<(&'static str, &'static str)>;

/// A figure of one place.
type RouteFigure = (RouteKey, MoreLabel, f64);

/// The places with labels of their own.
struct ShownRoutes(BTreeSet<RouteKey>);

impl ShownRoutes {
    /// The samples of a family; those of all other places are added up.
    fn samples(&self, figures: Vec<RouteFigure>) -> Vec<Sample> {
        let mut sums = BTreeMap::new();
        for (route, more, figure) in figures {
            let is_shown = self.0.contains(&route);
            let route = if is_shown { route } else { (OTHER_TENANTS.to_owned(), OTHER_TYPES.to_owned()) };
            *sums.entry((route, more)).or_insert(0.0) += figure;
        }
        let sample = |((route, more), figure): ((RouteKey, MoreLabel), f64)| {
            let more = more.into_iter().map(|(label, value)| (label, value.to_owned()));
            Sample::new(labels(route).into_iter().chain(more).collect(), figure)
        };
        sums.into_iter().map(sample).collect()
    }
}

fn labels((tenant, message_type): RouteKey) -> [(&'static str, String); 2] {
    [("tenant", tenant), ("type", message_type)]
}

pub fn families(handles: &Handles) -> Vec<Family> {
    let (mut cpu, mut messages, mut states) = (Vec::new(), Vec::new(), Vec::new());
    let (mut failures, mut ignored) = (Vec::new(), Vec::new());
    for guest in handles.guests.list() {
        let state = DecoderState::of(&guest);
        let route: RouteKey = (guest.tenant, guest.message_type);
        let by_kind =
            |(kind, count): (&'static str, u64)| (route.clone(), Some(("kind", kind)), count as f64);
        failures.extend(guest.failures.into_iter().map(by_kind));
        ignored.extend(guest.ignored.into_iter().map(by_kind));
        cpu.push((route.clone(), None, guest.cpu_seconds));
        messages.push((route.clone(), None, guest.messages as f64));
        states.push((route, state));
    }
    let swaps: Vec<RouteFigure> = handles
        .guests
        .swaps()
        .into_iter()
        .map(|(tenant, kind, outcome, count)| ((tenant, kind), Some(("outcome", outcome)), count as f64))
        .collect();
    let known = states.iter().map(|(route, _)| route).chain(swaps.iter().map(|(route, ..)| route));
    let routes = ShownRoutes(known.take(METRIC_ROUTES_MAX).cloned().collect());
    let state = handles.guests.host().state();
    vec![
        Family::counter(
            "tidegate_guest_cpu_seconds",
            "CPU time of decoders in seconds, by place in the guests folder",
            routes.samples(cpu),
        ),
        Family::counter(
            "tidegate_guest_messages",
            "Messages that decoders were called with, by place in the guests folder",
            routes.samples(messages),
        ),
        Family::counter(
            "tidegate_guest_failures",
            "Messages that decoders did not decode, by kind of failure",
            routes.samples(failures),
        ),
        Family::counter(
            "tidegate_guest_ignored",
            "Values that decoders left out and reported, by kind",
            routes.samples(ignored),
        ),
        Family::counter(
            "tidegate_guest_swaps",
            "New decoder files by place in the guests folder and outcome",
            routes.samples(swaps),
        ),
        Family::gauge(
            "tidegate_guests",
            "Places in the guests folder by state of their decoder",
            by_state(&states),
        ),
        Family::gauge(
            "tidegate_guest_state",
            "State of each decoder: 0 serving, 1 on probation, 2 waiting to be checked, 3 its new file was refused and the version before serves, 4 it was rolled back and the version before serves, 5 none serves",
            state_samples(states),
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

/// The places by state.
fn by_state(states: &[(RouteKey, DecoderState)]) -> Vec<Sample> {
    let sample = |state: DecoderState| {
        let count = states.iter().filter(|(_, other)| *other == state).count();
        Sample::new(vec![("state", state.name().to_owned())], count as f64)
    };
    DecoderState::ALL.map(sample).into()
}

/// The states of a bounded number of places, the worst first.
fn state_samples(mut states: Vec<(RouteKey, DecoderState)>) -> Vec<Sample> {
    states.sort_by_key(|(_, state)| std::cmp::Reverse(*state));
    states.truncate(METRIC_ROUTES_MAX);
    let sample = |(route, state)| Sample::new(labels(route).into(), f64::from(state as u8));
    states.into_iter().map(sample).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_beyond_the_ceiling_are_one_and_the_worst_states_are_shown() {
        let route = |n: usize| -> RouteKey { (format!("t{n:05}"), "telemetry".into()) };
        let all = METRIC_ROUTES_MAX + 3;
        let routes = ShownRoutes((0..METRIC_ROUTES_MAX).map(route).collect());
        let samples =
            routes.samples((0..all).map(|n| (route(n), Some(("kind", "GUEST_TRAP")), 2.0)).collect());
        assert_eq!(samples.len(), METRIC_ROUTES_MAX + 1);
        let other = samples.iter().find(|sample| sample.labels[0].1 == OTHER_TENANTS).unwrap();
        assert_eq!((other.labels[1].1.as_str(), other.value), (OTHER_TYPES, 6.0));
        assert_eq!(other.labels[2], ("kind", "GUEST_TRAP".to_owned()));

        let state = |n| if n == all - 1 { DecoderState::Missing } else { DecoderState::Serving };
        let states: Vec<_> = (0..all).map(|n| (route(n), state(n))).collect();
        assert_eq!(by_state(&states)[5].value, 1.0);
        let shown = state_samples(states);
        assert_eq!((shown.len(), shown[0].value), (METRIC_ROUTES_MAX, 5.0));
        assert_eq!(shown[0].labels[0].1, route(all - 1).0);
    }
}
