//! The decoder of one thread: messages in, checked lines and refusals out. `explain` and `test` own
//! one too, so they show the same outcomes.

mod route_context;
mod grouping;
mod replacement;
mod known_routes;
mod instances;
mod lane;
mod line_check;
mod answer;
mod births_wanted;
mod output;
mod fallback;
mod shared_batch;

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::decoder::answer::Answer;
use crate::decoder::births_wanted::{refusal_wants_births, state_wants_births};
use crate::decoder::fallback::FallbackSink;
use crate::decoder::grouping::{MessagesByPayload, by_payload, group, nameable, refuse_all, with_partition};
use crate::decoder::instances::{FoundRoute, InstanceCache, InstanceCounts, InstanceUnavailable};
use crate::decoder::lane::LaneHandle;
use crate::decoder::line_check::{LineCheck, refusal_detail};
use crate::decoder::output::BatchOutput;
use crate::decoder::route_context::{Attempt, RouteContext, RouteMessages};
use crate::host::DecodeHost;
use crate::limits::{DECODE_BATCH_MESSAGES_MAX, DECODE_INSTANCES_MAX, SLOW_INSTANCES_MAX};
use crate::route::rules::Isolation;
use crate::sandbox::abi::host_state::MessageContext;
use crate::sandbox::abi::v1_0::bindings::tidegate::ingest::types::{Batch, Message};
use crate::schedule::cpu_quota::{CpuQuotas, TenantCpuUsage};
use crate::schedule::slow_lane::{SlowLane, SlowRoute};
use crate::sink::DecodeSink;
use crate::state::{StateCall, StateChanges};
use tidegate_core::books::Outcome as Ended;
use tidegate_core::detail::Detail;
use tidegate_core::message::{Admitted, CheckedMessage};
use tidegate_core::reason::Reason;

/// Decodes on the thread that owns it.
pub struct Decoder {
    host: Arc<DecodeHost>,
    instances: InstanceCache,
    line_check: LineCheck,
    batch: Batch,
    /// Takes the messages of slow routes.
    lane: Option<LaneHandle>,
    /// Counts the CPU time of tenants.
    quotas: Option<Arc<CpuQuotas>>,
    /// The CPU time of all tenants that was counted.
    recorded_cpu: Duration,
    /// The time up to which it is counted who held this thread.
    held_until: Instant,
}

impl Decoder {
    pub fn new(host: Arc<DecodeHost>) -> Self {
        let settings = host.settings();
        let counts = InstanceCounts {
            normal: 0,
            normal_max: instances_a_thread(SLOW_INSTANCES_MAX, settings.threads),
            large: 0,
            large_max: settings.large.as_ref().map_or(0, |large| large.instances_a_thread(settings.threads)),
        };
        Self {
            instances: InstanceCache::new(host.clone(), counts),
            line_check: LineCheck::new(settings.dialect),
            batch: Batch { payloads: Vec::new(), messages: Vec::new() },
            lane: None,
            quotas: None,
            recorded_cpu: Duration::ZERO,
            held_until: Instant::now(),
            host,
        }
    }

    /// A decoder that sends messages of slow routes to the slow lane.
    pub fn with_lane(host: Arc<DecodeHost>, lane: Arc<SlowLane>, number: usize) -> Self {
        let quotas = Some(lane.quotas.clone());
        let normal_max = instances_a_thread(DECODE_INSTANCES_MAX, host.settings().threads);
        let mut decoder = Self { lane: Some(LaneHandle::new(lane, number)), quotas, ..Self::new(host) };
        decoder.instances.set_normal_max(normal_max);
        decoder
    }

    /// One that counts the CPU time of tenants.
    pub fn with_quotas(self, quotas: Arc<CpuQuotas>) -> Self {
        Self { quotas: Some(quotas), ..self }
    }

    /// Decodes messages of any tenants; those of one device and type in their order.
    pub fn decode(&mut self, messages: Vec<Admitted>, sink: &dyn DecodeSink) {
        self.instances.begin();
        self.held_until = Instant::now();
        let mut shared = Vec::new();
        for group in group(messages) {
            let Some(group) = self.prepare(group, sink) else { continue };
            match self.may_share(&group) {
                true => shared.push(group),
                false => self.decode_group(group, sink),
            }
        }
        self.decode_shared(shared, sink);
    }

    /// Drops the instance of the class large that was idle for longest, if another thread waits for
    /// one.
    pub fn release_idle(&mut self) {
        self.instances.release_idle();
    }

    /// True if it keeps an instance that another thread may come to wait for.
    pub fn keeps_large(&self) -> bool {
        self.instances.keeps_large()
    }

    /// The lane, and the slow route of these messages, if they leave this thread.
    fn slow_lane(&mut self, context: &RouteContext) -> Option<(LaneHandle, Arc<SlowRoute>)> {
        let lane = self.lane.as_ref()?;
        let slow = lane.slow_route(context, self.instances.slow_route(context)?)?;
        Some((lane.clone(), slow))
    }

    /// Finds the route of messages of one tenant and type; refuses those that have none or cannot take it.
    fn prepare(&mut self, messages: Vec<Admitted>, sink: &dyn DecodeSink) -> Option<RouteMessages> {
        let tenant = messages[0].tenant.clone();
        let rules = tenant.settings();
        let database = match &rules.database {
            Ok(database) => database.clone(),
            Err(fault) => {
                sink.refused(refuse_all(messages, Reason::BadDatabaseName, fault, None));
                return None;
            }
        };
        let (messages, unnameable) = nameable(messages);
        if !unnameable.is_empty() {
            sink.refused(unnameable);
        }
        let message_type = messages.first()?.message_type();
        let Some(found) = self.instances.route(&tenant.id, message_type) else {
            let detail = no_guest(&self.host, tenant.id.as_str(), message_type);
            sink.refused(refuse_all(messages, Reason::NoGuest, &detail, None));
            return None;
        };
        let FoundRoute { id, message_type, route, standing } = found;
        let (messages, unnameable) = with_partition(messages, &route.version);
        if !unnameable.is_empty() {
            sink.refused(unnameable);
        }
        let MessagesByPayload { with_payload: messages, empty, refused } =
            by_payload(messages, &route.version);
        if !empty.is_empty() {
            sink.empty(empty, &tenant.account);
        }
        if !refused.is_empty() {
            sink.refused(refused);
        }
        messages.first()?;
        let fallback = route.fallback();
        let cpu = self.quotas.as_ref().map(|quotas| quotas.usage(&tenant));
        let context =
            RouteContext { id, tenant, message_type, rules, database, route, fallback, cpu, standing };
        Some(RouteMessages { context, messages })
    }

    /// Decodes messages of one tenant and type in batches of their own.
    fn decode_group(&mut self, group: RouteMessages, sink: &dyn DecodeSink) {
        let RouteMessages { mut context, messages } = group;
        let mut messages = messages.into_iter();
        loop {
            // Asked before each batch: the one before it may have shown that the route is slow.
            if let Some((lane, slow)) = self.slow_lane(&context) {
                return lane.send(&slow, messages.collect(), sink);
            }
            let batch: Vec<Admitted> = messages.by_ref().take(DECODE_BATCH_MESSAGES_MAX).collect();
            if batch.is_empty() {
                break;
            }
            if let Some(previous) = context.route.rolled_back_to() {
                context = context.with_version(previous);
            }
            // Another thread remembers its own; one is enough.
            if let Some(mut recent) = context.route.version.activity.recent.try_lock() {
                recent.record(&batch);
            }
            if context.route.version.guest.imports_state
                && batch.iter().any(|message| message.token.may_be_duplicate())
            {
                self.decode_with_redeliveries(&context, batch, sink);
            } else {
                self.decode_batch(&context, batch, sink, Attempt::Batch);
            }
            if let Some(probation) = &context.route.probation {
                probation.end_if_enough();
            }
        }
    }

    /// Decodes messages with redeliveries among them, except for those that were decoded before and whose
    /// acknowledgement was lost: a guest that counts would take them for new ones.
    fn decode_with_redeliveries(
        &mut self,
        context: &RouteContext,
        messages: Vec<Admitted>,
        sink: &dyn DecodeSink,
    ) {
        let mut unknown = Vec::new();
        let mut messages = messages.into_iter().peekable();
        while let Some(message) = messages.next() {
            let known = match message.token.may_be_duplicate() {
                true => message.token.earlier_outcome(&message.topic, &message.payload),
                false => None,
            };
            if let Some(outcome) = known {
                self.host.state().record_skipped();
                // Acknowledged when its outcome is durable, which was sent before.
                let mut output = BatchOutput::new(context, 0);
                output.state_delta(context).messages.push((message.token, outcome));
                output.send(context, sink);
            } else {
                unknown.push(message);
            }
            // The next may be one of those that were just taken.
            let next = messages.peek().is_none_or(|next| next.token.may_be_duplicate());
            if next && !unknown.is_empty() {
                self.decode_batch(context, std::mem::take(&mut unknown), sink, Attempt::Batch);
                if let Some((lane, slow)) = self.slow_lane(context) {
                    return lane.send(&slow, messages.collect(), sink);
                }
            }
        }
    }

    /// Decodes messages of one route in one call; when that fails and it may, one by one. Counts for how long
    /// they held this thread: the call, the check of lines, and all that a failure costs.
    fn decode_batch(
        &mut self,
        context: &RouteContext,
        messages: Vec<Admitted>,
        sink: &dyn DecodeSink,
        attempt: Attempt,
    ) {
        if messages.len() > context.route.version.guest.messages_a_call {
            let attempt = if attempt == Attempt::Again { attempt } else { Attempt::Alone };
            return self.decode_each(context, messages, sink, attempt);
        }
        self.call_and_check(context, messages, sink, attempt);
        if let Some(lane) = &self.lane {
            let now = Instant::now();
            lane.record_held(context, now - self.held_until);
            self.held_until = now;
        }
    }

    fn call_and_check(
        &mut self,
        context: &RouteContext,
        messages: Vec<Admitted>,
        sink: &dyn DecodeSink,
        attempt: Attempt,
    ) {
        let mut instance = match self.instances.take(context) {
            Ok(instance) => instance,
            Err(InstanceUnavailable(reason, detail)) => {
                context.record_cost(messages.len(), self.instances.start_cpu());
                self.record_cpu(context.cpu.as_ref(), self.instances.start_cpu());
                if attempt != Attempt::Again {
                    context.record_messages(messages.len());
                }
                for message in messages {
                    self.fall_back_or_refuse(context, message, (reason, detail.clone()), sink);
                }
                return;
            }
        };
        let version = &context.route.version;
        self.fill_batch(messages.iter(), version.rules.prefers_object);
        if version.guest.imports_envelope {
            instance.state().set_tapes(messages.iter().map(|message| &*message.tape));
        }
        if version.guest.imports_context || version.guest.imports_state {
            instance.state().messages =
                messages.iter().map(|message| MessageContext::new(message, 0)).collect();
        }
        if version.is_shared() {
            instance.state().set_log_owner(Some(context.log_owner()));
            if version.guest.imports_state {
                instance.state().state_calls = vec![self.state_call(context)];
            }
        }
        let (answer, took) = instance.decode(&self.batch);
        let took = took + self.instances.start_cpu();
        context.record_cost(messages.len(), took);
        version.activity.stats.record_cpu(took);
        self.record_cpu(context.cpu.as_ref(), took);
        let refused = instance.state().take_log_dropped();
        version.activity.log.record_dropped(refused);
        if version.is_shared() {
            self.record_standing(context, messages.len(), took, answer.is_ok() && !instance.state().logged());
        }
        match answer {
            Ok(decoded) => {
                if attempt != Attempt::Again {
                    context.record_messages(messages.len());
                }
                let changes = instance.state().state_calls.first_mut().map(|call| call.take());
                match version.rules.isolation {
                    // Before another one may be needed.
                    Isolation::Batch => drop(instance),
                    Isolation::Instance | Isolation::Route => self.instances.keep(context, instance),
                }
                let mut answer = Answer::new(decoded);
                self.check(context, messages, &mut answer, changes, sink);
            }
            Err(fault) => {
                // Whatever it was, this instance is not to be trusted any more.
                drop(instance);
                if attempt != Attempt::Batch || messages.len() == 1 {
                    if attempt != Attempt::Again {
                        context.record_messages(messages.len());
                    }
                    for message in messages {
                        self.fall_back_or_refuse(context, message, fault.clone(), sink);
                    }
                    return;
                }
                self.decode_each(context, messages, sink, Attempt::Alone);
            }
        }
    }

    /// Checks the lines of each message and sends the outcomes. `changes` are the guest's writes to its
    /// state: they are applied for messages that are not refused. A device's messages behind a refused one
    /// are decoded again, for they may have seen its writes.
    fn check(
        &mut self,
        context: &RouteContext,
        messages: Vec<Admitted>,
        answer: &mut Answer,
        mut changes: Option<StateChanges>,
        sink: &dyn DecodeSink,
    ) {
        let mut output = BatchOutput::new(context, answer.lines_of(messages.len()) + messages.len() * 80);
        // A list that grows has room for four, which most tenants of a shared call never need.
        output.checked.messages.reserve_exact(messages.len());
        let (mut misled, mut again) = (Vec::new(), Vec::new());
        let births = sink.birth_requests();
        for message in messages {
            let Some((index, result)) = answer.next() else { break };
            if misled.contains(&message.device.affinity) {
                again.push(message);
                continue;
            }
            let writes = changes.as_mut().map(|changes| changes.take(index)).unwrap_or_default();
            // A message out of quarantine says nothing about its node today.
            let births = births.filter(|_| !message.token.is_replay());
            let mut wants_births = births.is_some() && matches!(&result, Err(it) if refusal_wants_births(it));
            let verdict = match result {
                Ok(own) => self.line_check.check(context, &message, own, &mut output.checked.lines),
                Err(refusal) => Err((Reason::GuestRefused, refusal_detail(&refusal))),
            };
            if let Some(changes) = &changes {
                match &verdict {
                    Ok(lines) => {
                        let outcome = if *lines == 0 { Ended::Empty } else { Ended::Lines };
                        message.token.record_decoded(&message.topic, &message.payload, outcome);
                        writes.iter().for_each(|write| changes.route_state.apply(write.clone()));
                        wants_births |= births.is_some() && state_wants_births(&changes.route_state, &writes);
                        output.state_delta(context).writes.extend(writes);
                    }
                    // The version before may set something too.
                    Err(_) if !writes.is_empty() || context.fallback.is_some() => {
                        misled.push(message.device.affinity);
                    }
                    Err(_) => {}
                }
            }
            // The version before decodes what this one failed on, and wants them itself.
            if let Some(births) = births.filter(|_| wants_births)
                && (verdict.is_ok() || context.fallback.is_none())
            {
                births.request(&message.topic);
            }
            match verdict {
                Ok(0) if changes.is_some() => {
                    output.state_delta(context).messages.push((message.token, Ended::Empty))
                }
                Ok(0) => output.empty.push(message.token),
                Ok(line_count) => output.checked.messages.push(CheckedMessage {
                    topic: message.topic,
                    received_ns: message.received_ns,
                    lines_end: output.checked.lines.len() as u32,
                    line_count,
                    affinity: message.device.affinity.folded(),
                    token: message.token,
                }),
                Err(fault) if context.fallback.is_some() => {
                    // The messages before it go first.
                    std::mem::replace(&mut output, BatchOutput::new(context, 0)).send(context, sink);
                    self.fall_back_or_refuse(context, message, fault, sink);
                }
                Err((reason, detail)) => {
                    context.route.version.activity.stats.record_failure(reason);
                    let tag = context.route.version.guest.tag.clone();
                    output.refused.push(message.refused(reason, detail, Some(tag)));
                }
            }
        }
        output.send(context, sink);
        if !again.is_empty() {
            self.decode_each(context, again, sink, Attempt::Again);
        }
    }

    /// Decodes messages one by one.
    fn decode_each(
        &mut self,
        context: &RouteContext,
        messages: Vec<Admitted>,
        sink: &dyn DecodeSink,
        attempt: Attempt,
    ) {
        let mut messages = messages.into_iter();
        while let Some(message) = messages.next() {
            self.decode_batch(context, vec![message], sink, attempt);
            // A guest that burns its time in every message leaves this thread.
            if let Some((lane, slow)) = self.slow_lane(context) {
                return lane.send(&slow, messages.collect(), sink);
            }
        }
    }

    /// Refuses a message that a guest failed on. While the guest is on probation, the version before it
    /// decodes the message, at once, so that a device's lines stay in order. If that one fails too, the
    /// message is at fault and not the guest.
    fn fall_back_or_refuse(
        &mut self,
        context: &RouteContext,
        message: Admitted,
        (reason, detail): (Reason, String),
        sink: &dyn DecodeSink,
    ) {
        context.route.version.activity.stats.record_failure(reason);
        let tag = &context.route.version.guest.tag;
        // Probation and the version before speak of it too.
        let detail = Detail::redacted(&detail, &message.payload);
        let (Some(previous), Some(probation)) = (&context.fallback, &context.route.probation) else {
            return sink.refused(vec![message.refused_with(reason, detail, Some(tag.clone()))]);
        };
        let again = context.with_version(previous.clone());
        let retried = FallbackSink { sink, verdict: (reason, &detail, tag), failed: Cell::new(false) };
        self.decode_batch(&again, vec![message], &retried, Attempt::Alone);
        if !retried.failed.get() {
            probation.record_failure(|| format!("{reason}: {detail}"));
        }
    }

    /// Counts CPU time of a tenant.
    fn record_cpu(&mut self, tenant: Option<&Arc<TenantCpuUsage>>, took: Duration) {
        self.recorded_cpu += took;
        if let (Some(quotas), Some(tenant)) = (&self.quotas, tenant) {
            quotas.record(tenant, took);
        }
    }

    /// Counts messages of a shared decoder that were decoded apart; one that takes much more than is usual, fails
    /// or logs, keeps its tenant apart.
    fn record_standing(&self, context: &RouteContext, messages: usize, took: Duration, is_plain: bool) {
        if !is_plain || context.route.version.usual.is_unusual(messages, took) {
            context.standing.set_apart();
        } else {
            context.standing.record_apart(messages);
        }
    }

    fn state_call(&mut self, context: &RouteContext) -> StateCall {
        StateCall::new(self.instances.state(context), context.route.version.rules.partition.clone())
    }

    fn fill_batch<'a>(&mut self, messages: impl Iterator<Item = &'a Admitted>, prefers_object: bool) {
        self.batch.payloads.clear();
        self.batch.messages.clear();
        for message in messages {
            self.batch.payloads.extend_from_slice(message.payload_for(prefers_object));
            self.batch.messages.push(Message {
                received_ns: message.received_ns,
                payload_end: self.batch.payloads.len() as u32,
            });
        }
    }
}

/// The instances that one of some threads may keep; each may have one more for the batch at hand.
fn instances_a_thread(all: usize, threads: usize) -> usize {
    (all / threads).saturating_sub(1).max(1)
}

/// The detail of a message that no decoder serves; names the file that would, if it might.
fn no_guest(host: &DecodeHost, tenant: &str, message_type: &str) -> String {
    let detail = format!("no decoder serves {message_type:?} of {tenant:?}");
    match host.table().idle_file(tenant, message_type) {
        Some((file, why)) => format!("{detail}; {file} is there and does not serve: {why}"),
        None => detail,
    }
}
