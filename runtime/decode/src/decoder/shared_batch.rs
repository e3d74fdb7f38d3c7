//! Calls of shared decoders with messages of many tenants.
//!
//! - Such a call has little CPU time. If it fails, or the decoder logs in it, its result is dropped, and each tenant's
//!   messages are decoded apart: so a fault, a deadline and a text belong to the tenant whose message it was.
//! - The time of a call is charged to its tenants by the size of their messages; that of a call that failed by the
//!   time that their messages took apart.
//! - A tenant whose messages are dear, fail or log has calls of its own for a while (`schedule/standing.rs`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::decoder::Decoder;
use crate::decoder::answer::Answer;
use crate::decoder::route_context::RouteMessages;
use crate::limits::{
    DECODE_BATCH_MESSAGES_MAX, OWN_CALL_MESSAGES, SHARED_CALL_CPU_MS, SHARED_CALL_USUAL_US,
    SHARED_MESSAGE_BYTES,
};
use crate::route::version::RouteVersion;
use crate::sandbox::abi::host_state::{HostState, MessageContext};
use crate::schedule::cpu_quota::TenantCpuUsage;
use crate::sink::DecodeSink;
use tidegate_core::message::Admitted;

/// The part of one tenant in the CPU time of a call.
struct CpuPart {
    tenant: Option<Arc<TenantCpuUsage>>,
    weight: u64,
}

impl Decoder {
    /// True if messages may be decoded in one call with those of other tenants.
    pub(super) fn may_share(&mut self, group: &RouteMessages) -> bool {
        let RouteMessages { context, messages } = group;
        context.route.version.is_shared()
            && context.route.version.guest.messages_a_call > 1
            && messages.len() < OWN_CALL_MESSAGES
            && !context.standing.is_apart()
            && context.route.rolled_back_to().is_none()
            && self.slow_lane(context).is_none()
            && !(context.route.version.guest.imports_state
                && messages.iter().any(|message| message.token.may_be_duplicate()))
    }

    /// Decodes messages that may share calls: those of one route together.
    pub(super) fn decode_shared(&mut self, mut groups: Vec<RouteMessages>, sink: &dyn DecodeSink) {
        let version = |group: &RouteMessages| Arc::as_ptr(&group.context.route.version) as usize;
        groups.sort_by(|a, b| {
            version(a).cmp(&version(b)).then_with(|| a.context.message_type.cmp(&b.context.message_type))
        });
        let mut call: Vec<RouteMessages> = Vec::new();
        let mut messages = 0;
        for group in groups {
            let goes_along = call.last().is_some_and(|last| {
                version(last) == version(&group)
                    && last.context.message_type == group.context.message_type
                    && messages + group.messages.len() <= messages_max(&group.context.route.version)
            });
            if !goes_along {
                messages = 0;
                self.decode_together(std::mem::take(&mut call), sink);
            }
            messages += group.messages.len();
            call.push(group);
        }
        self.decode_together(call, sink);
    }

    /// Decodes messages of one route in one call; when that fails, those of each tenant apart.
    fn decode_together(&mut self, mut groups: Vec<RouteMessages>, sink: &dyn DecodeSink) {
        if groups.len() < 2 {
            return groups.into_iter().for_each(|group| self.decode_group(group, sink));
        }
        let first = &groups[0].context;
        let version = first.route.version.clone();
        let Ok(mut instance) = self.instances.take(first) else {
            let spent = self.instances.start_cpu();
            return self.decode_apart(groups, spent, sink);
        };
        let messages = groups.iter().flat_map(|group| &group.messages);
        self.fill_batch(messages, version.rules.prefers_object);
        self.set_contexts(instance.state(), &groups);
        instance.state().set_log_owner(None);
        let (answer, took) = instance.decode_within(&self.batch, SHARED_CALL_CPU_MS);
        let spent = took + self.instances.start_cpu();
        version.activity.stats.record_cpu(spent);
        // They are counted where they are decoded apart.
        let _ = instance.state().take_log_dropped();
        let decoded = match answer {
            Ok(decoded) if !instance.state().logged() => decoded,
            answer => {
                match answer {
                    Ok(_) => self.instances.keep(first, instance),
                    // Whatever it was, this instance is not to be trusted any more.
                    Err(_) => drop(instance),
                }
                return self.decode_apart(groups, spent, sink);
            }
        };
        instance.state().record_reports();
        let calls = std::mem::take(&mut instance.state().state_calls);
        self.instances.keep(first, instance);
        let parts: Vec<CpuPart> = groups.iter().map(RouteMessages::cpu_part).collect();
        self.record_call(&version, &groups, &parts, (took, spent));
        let mut answer = Answer::new(decoded);
        let mut changes = calls.into_iter().map(|mut call| call.take());
        for group in &mut groups {
            let messages = std::mem::take(&mut group.messages);
            self.check(&group.context, messages, &mut answer, changes.next(), sink);
        }
        self.record_held_together(&groups, &parts);
        if let Some(probation) = &groups[0].context.route.probation {
            probation.end_if_enough();
        }
    }

    /// Counts for how long the messages of a call held this thread, by their size.
    fn record_held_together(&mut self, groups: &[RouteMessages], parts: &[CpuPart]) {
        let Some(lane) = &self.lane else { return };
        let now = Instant::now();
        let held_ns = (now - self.held_until).as_nanos() as u64;
        self.held_until = now;
        let all = parts.iter().map(|part| part.weight).sum::<u64>().max(1);
        for (group, part) in groups.iter().zip(parts) {
            let held = Duration::from_nanos(held_ns / all * part.weight);
            lane.record_held(&group.context, held);
        }
    }

    /// Sets the answers of the host about the messages of a call.
    fn set_contexts(&mut self, state: &mut HostState, groups: &[RouteMessages]) {
        let guest = &groups[0].context.route.version.guest;
        if guest.imports_envelope {
            let messages = groups.iter().flat_map(|group| &group.messages);
            state.set_tapes(messages.map(|message| &*message.tape));
        }
        if guest.imports_context || guest.imports_state {
            let contexts = groups.iter().enumerate().flat_map(|(place, group)| {
                group.messages.iter().map(move |message| MessageContext::new(message, place))
            });
            state.messages = contexts.collect();
        }
        if guest.imports_state {
            state.state_calls = groups.iter().map(|group| self.state_call(&group.context)).collect();
        }
    }

    /// Counts a call that gave something: `took` is the time of the call, `spent` with the start of the instance.
    fn record_call(
        &mut self,
        version: &RouteVersion,
        groups: &[RouteMessages],
        parts: &[CpuPart],
        (took, spent): (Duration, Duration),
    ) {
        let messages = groups.iter().map(|group| group.messages.len()).sum();
        groups[0].context.record_messages(messages);
        version.standing.cost.record(messages as u64, took);
        if let Some(mut recent) = version.activity.recent.try_lock() {
            groups.iter().for_each(|group| recent.record(&group.messages));
        }
        let charged = self.charge(parts, spent);
        for (group, cpu) in groups.iter().zip(charged) {
            group.context.standing.cost.record(group.messages.len() as u64, cpu);
        }
        if version.usual.is_unusual(messages, took) {
            groups.iter().for_each(|group| group.context.standing.set_apart());
        }
        version.usual.record(messages, took);
    }

    /// Decodes the messages of each tenant apart, after a call that gave nothing and took `spent`. That time is
    /// charged by what the messages of each take now.
    fn decode_apart(&mut self, groups: Vec<RouteMessages>, spent: Duration, sink: &dyn DecodeSink) {
        let mut parts = Vec::new();
        // The call that gave nothing is nobody's: the first of them has not held the thread for it.
        self.held_until = Instant::now();
        for group in groups {
            let CpuPart { tenant, weight } = group.cpu_part();
            let before = self.recorded_cpu;
            self.decode_group(group, sink);
            let took = (self.recorded_cpu - before).as_nanos() as u64;
            // A nanosecond for each byte, where messages went on to the slow lane.
            parts.push(CpuPart { tenant, weight: took.max(weight) });
        }
        self.charge(&parts, spent);
    }

    /// Charges CPU time by weights; gives the part of each.
    fn charge(&mut self, parts: &[CpuPart], spent: Duration) -> Vec<Duration> {
        let all = parts.iter().map(|part| part.weight).sum::<u64>().max(1);
        let spent_ns = spent.as_nanos() as u64;
        let charged = parts.iter().map(|part| {
            let ns = u128::from(spent_ns) * u128::from(part.weight) / u128::from(all);
            let cpu = Duration::from_nanos(ns as u64);
            self.record_cpu(part.tenant.as_ref(), cpu);
            cpu
        });
        charged.collect()
    }
}

impl RouteMessages {
    fn cpu_part(&self) -> CpuPart {
        let bytes = |message: &Admitted| message.payload.len() as u64 + SHARED_MESSAGE_BYTES;
        CpuPart { tenant: self.context.cpu.clone(), weight: self.messages.iter().map(bytes).sum() }
    }
}

/// Messages that one shared call may have: so many as usually fit its time.
fn messages_max(version: &RouteVersion) -> usize {
    let usual_ns = version.usual.average_ns().max(1);
    ((SHARED_CALL_USUAL_US * 1_000 / usual_ns) as usize).min(DECODE_BATCH_MESSAGES_MAX)
}
