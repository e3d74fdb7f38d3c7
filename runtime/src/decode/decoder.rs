//! What one decode thread does: messages in, checked lines and refusals out. `explain` and `test`
//! own one too, so what they show is what happens.

mod instances;
mod lane;
mod grouping;
mod checking;
mod retried;

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::DecodeSink;
use super::abi::{Batch, Message, MessageContext};
use super::probation::Probation;
use super::routes::Route;
use super::shares::{CpuShares, TenantCpu};
use super::slow::SlowLane;
use super::store::GuestStore;
use crate::domain::ids::{DatabaseName, TenantId};
use crate::domain::limits::{DECODE_BATCH_MESSAGES_MAX, INSTANCES_MAX};
use crate::domain::line::LineChecker;
use crate::domain::message::{Admitted, Tenant};
use crate::domain::reason::Reason;
use crate::domain::secrets::mask_detail;
use crate::domain::tenancy::TenantRules;
use checking::Made;
use grouping::{group, nameable, refuse_all};
use instances::{Live, NoInstance, Types};
use retried::Retried;

/// Decodes on the thread that owns it.
pub struct Decoder {
    guests: Arc<GuestStore>,
    served: HashMap<TenantId, Types, foldhash::fast::RandomState>,
    kept: Live,
    calls: u64,
    /// CPU time that starting an instance for the batch at hand took; that of the first of a route is
    /// not held against it.
    start_cpu: Duration,
    checker: LineChecker,
    batch: Batch,
    /// Where routes go that are slow, and the number of this thread there.
    lane: Option<(Arc<SlowLane>, usize)>,
    /// Where the CPU time of tenants is counted.
    shares: Option<Arc<CpuShares>>,
}

impl Decoder {
    pub fn new(guests: Arc<GuestStore>) -> Self {
        // One thread's share, the slow lane's threads among them; what is left over is for trying
        // out new guests.
        let settings = guests.settings();
        let kept = Live {
            normal: 0,
            normal_max: (INSTANCES_MAX / (2 * settings.threads + 1)).max(1),
            large: 0,
            large_max: settings.large.as_ref().map_or(0, |large| large.instances_a_thread(settings.threads)),
        };
        Self {
            guests,
            served: HashMap::default(),
            kept,
            calls: 0,
            start_cpu: Duration::ZERO,
            checker: LineChecker::default(),
            batch: Batch { payloads: Vec::new(), messages: Vec::new() },
            lane: None,
            shares: None,
        }
    }

    /// One that hands slow routes to a lane of their own.
    pub fn with_lane(guests: Arc<GuestStore>, lane: Arc<SlowLane>, number: usize) -> Self {
        let shares = Some(lane.shares.clone());
        Self { lane: Some((lane, number)), shares, ..Self::new(guests) }
    }

    /// One that counts the CPU time of tenants.
    pub fn with_shares(self, shares: Arc<CpuShares>) -> Self {
        Self { shares: Some(shares), ..self }
    }

    /// Decodes messages of any tenants; those of one device and type in their order.
    pub fn decode(&mut self, messages: Vec<Admitted>, sink: &dyn DecodeSink) {
        for group in group(messages) {
            self.decode_group(group, sink);
        }
    }

    fn decode_group(&mut self, messages: Vec<Admitted>, sink: &dyn DecodeSink) {
        let tenant = messages[0].tenant.clone();
        let message_type: Box<str> = messages[0].message_type().into();
        let rules = tenant.rules();
        let database = match &rules.database {
            Ok(database) => database.clone(),
            Err(fault) => return sink.refused(refuse_all(messages, Reason::BadDatabaseName, fault, None)),
        };
        let (messages, unnameable) = nameable(messages);
        if !unnameable.is_empty() {
            sink.refused(unnameable);
        }
        if messages.is_empty() {
            return;
        }
        let Some(route) = self.route(&tenant.id, &message_type) else {
            let detail = format!("no guest decodes {message_type:?} of {:?}", tenant.id.as_str());
            return sink.refused(refuse_all(messages, Reason::NoGuest, &detail, None));
        };
        let fallback = route.probation.as_ref().and_then(Probation::fallback);
        let cpu = self.shares.as_ref().map(|shares| shares.of(&tenant));
        let mut work = Work { tenant, message_type, rules, database, route, fallback, cpu };
        let mut messages = messages.into_iter();
        loop {
            // Asked before each batch: the one before it may have shown that the route is slow.
            if let Some((lane, slow)) = self.slow_lane(&work) {
                return lane.send(&slow, messages.collect(), sink);
            }
            let batch: Vec<Admitted> = messages.by_ref().take(DECODE_BATCH_MESSAGES_MAX).collect();
            if batch.is_empty() {
                break;
            }
            if let Some(previous) = work.route.probation.as_ref().and_then(Probation::came_back) {
                (work.route, work.fallback) = (previous, None);
            }
            // Another thread remembers its own; one is enough.
            if let Some(mut recent) = work.route.state.recent.try_lock() {
                recent.remember(&batch);
            }
            if work.route.guest.imports_state && batch.iter().any(|message| message.slot.may_be_known()) {
                self.decode_unknown(&work, batch, sink);
            } else {
                self.decode_batch(&work, batch, sink, Pass::Batch);
            }
            if let Some(probation) = &work.route.probation {
                probation.end_if_enough();
            }
        }
    }

    /// Decodes messages some of which come again, but for those that were decoded before, though their
    /// acknowledgement was lost: to a guest that counts they would be new ones.
    fn decode_unknown(&mut self, work: &Work, messages: Vec<Admitted>, sink: &dyn DecodeSink) {
        let mut unknown = Vec::new();
        let mut messages = messages.into_iter().peekable();
        while let Some(message) = messages.next() {
            let known = match message.slot.may_be_known() {
                true => message.slot.decoded_before(&message.topic, &message.payload),
                false => None,
            };
            if let Some(outcome) = known {
                self.guests.kept().note_passed_over();
                // Acknowledged when what it came to is durable, which was handed on before.
                let mut made = Made::new(work, 0);
                made.kept(work).messages.push((message.slot, outcome));
                made.hand_on(work, sink);
            } else {
                unknown.push(message);
            }
            // The next may be one of those that were just taken.
            let next = messages.peek().is_none_or(|next| next.slot.may_be_known());
            if next && !unknown.is_empty() {
                self.decode_batch(work, std::mem::take(&mut unknown), sink, Pass::Batch);
                if let Some((lane, slow)) = self.slow_lane(work) {
                    return lane.send(&slow, messages.collect(), sink);
                }
            }
        }
    }

    /// Decodes messages of one route in one call; when that fails and it may, one by one.
    fn decode_batch(&mut self, work: &Work, messages: Vec<Admitted>, sink: &dyn DecodeSink, pass: Pass) {
        let mut instance = match self.take_instance(work) {
            Ok(instance) => instance,
            Err(NoInstance(reason, detail)) => {
                work.route.pace.note(messages.len() as u64, self.start_cpu);
                self.note_cpu(work, self.start_cpu);
                if pass != Pass::Again {
                    work.note_messages(messages.len());
                }
                for message in messages {
                    self.fail(work, message, (reason, detail.clone()), sink);
                }
                return;
            }
        };
        self.fill_batch(&messages);
        if work.route.guest.imports_context || work.route.guest.imports_state {
            instance.state().messages = messages
                .iter()
                .map(|message| MessageContext {
                    device: message.device.clone(),
                    topic: message.topic.clone(),
                })
                .collect();
        }
        let (answer, took) = instance.decode(&self.batch);
        let took = took + self.start_cpu;
        work.route.pace.note(messages.len() as u64, took);
        work.route.state.stats.note_cpu(took);
        self.note_cpu(work, took);
        let refused = instance.state().take_log_dropped();
        work.route.state.log.note_dropped(refused);
        match answer {
            Ok(decoded) => {
                if pass != Pass::Again {
                    work.note_messages(messages.len());
                }
                let changes = instance.state().kept.as_mut().map(|kept| kept.take());
                match work.route.rules.fresh_instance {
                    // Before another one may be needed.
                    true => drop(instance),
                    false => self.keep_instance(work, instance),
                }
                self.check(work, messages, &decoded.lines, decoded.outcomes, changes, sink);
            }
            Err(fault) => {
                // Whatever it was, this instance is not to be trusted any more.
                drop(instance);
                if pass != Pass::Batch || messages.len() == 1 {
                    if pass != Pass::Again {
                        work.note_messages(messages.len());
                    }
                    for message in messages {
                        self.fail(work, message, fault.clone(), sink);
                    }
                    return;
                }
                self.decode_each(work, messages, sink, Pass::Alone);
            }
        }
    }

    /// Decodes messages one by one.
    fn decode_each(&mut self, work: &Work, messages: Vec<Admitted>, sink: &dyn DecodeSink, pass: Pass) {
        let mut messages = messages.into_iter();
        while let Some(message) = messages.next() {
            self.decode_batch(work, vec![message], sink, pass);
            // What burns its time in every message does not do so on this thread.
            if let Some((lane, slow)) = self.slow_lane(work) {
                return lane.send(&slow, messages.collect(), sink);
            }
        }
    }

    /// A message that a guest made nothing of. While the guest is on probation the version before it
    /// decodes the message, at once, so that a device's lines stay in order; where that one fails
    /// too, the message is at fault and not the guest.
    fn fail(
        &mut self,
        work: &Work,
        message: Admitted,
        (reason, detail): (Reason, String),
        sink: &dyn DecodeSink,
    ) {
        work.route.state.stats.note_failure(reason);
        let tag = &work.route.guest.tag;
        // Probation and the version before speak of it too.
        let detail = mask_detail(&message.payload, detail);
        let (Some(previous), Some(probation)) = (&work.fallback, &work.route.probation) else {
            return sink.refused(vec![message.refused(reason, detail, Some(tag.clone()))]);
        };
        let again = Work {
            tenant: work.tenant.clone(),
            message_type: work.message_type.clone(),
            rules: work.rules.clone(),
            database: work.database.clone(),
            route: previous.clone(),
            fallback: None,
            cpu: work.cpu.clone(),
        };
        let retried = Retried { sink, verdict: (reason, &detail, tag), failed: Cell::new(false) };
        self.decode_batch(&again, vec![message], &retried, Pass::Alone);
        if !retried.failed.get() {
            probation.note_failure(|| format!("{reason}: {detail}"));
        }
    }

    fn note_cpu(&self, work: &Work, took: Duration) {
        if let (Some(shares), Some(cpu)) = (&self.shares, &work.cpu) {
            shares.note(cpu, took);
        }
    }

    fn fill_batch(&mut self, messages: &[Admitted]) {
        self.batch.payloads.clear();
        self.batch.messages.clear();
        for message in messages {
            self.batch.payloads.extend_from_slice(&message.payload);
            self.batch.messages.push(Message {
                received_ns: message.received_ns,
                payload_end: self.batch.payloads.len() as u32,
            });
        }
    }
}

/// Which try at a message it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    /// With others; if that fails, one by one.
    Batch,
    /// The last.
    Alone,
    /// The last, of messages that are counted already.
    Again,
}

/// What the batches of one group share.
struct Work {
    tenant: Arc<Tenant>,
    message_type: Box<str>,
    rules: Arc<TenantRules>,
    database: DatabaseName,
    route: Arc<Route>,
    /// While `route` is on probation, the version before it.
    fallback: Option<Arc<Route>>,
    cpu: Option<Arc<TenantCpu>>,
}

impl Work {
    /// `messages` are decoded by this version, whatever comes of it.
    fn note_messages(&self, messages: usize) {
        self.route.state.stats.note_messages(messages as u64);
        if let Some(probation) = &self.route.probation {
            probation.note_messages(messages as u64);
        }
    }
}
