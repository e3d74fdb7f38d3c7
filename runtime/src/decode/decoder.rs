//! What one decode thread does: messages in, checked lines and refusals out. `explain` and `test`
//! own one too, so what they show is what happens.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::DecodeSink;
use super::abi::{Batch, Message, MessageContext, Outcome, Refusal, cut};
use super::engine::thread_cpu;
use super::instance::{CallFault, Instance};
use super::probation::Probation;
use super::routes::Route;
use super::slow::{SlowLane, SlowRoute};
use super::store::GuestStore;
use crate::domain::books::Account;
use crate::domain::ids::{DatabaseName, GuestTag, TenantId};
use crate::domain::limits::{
    DECODE_BATCH_MESSAGES_MAX, INSTANCES_MAX, OUTPUT_BYTES_A_MESSAGE_MAX, REFUSAL_CODE_BYTES_MAX,
    REFUSAL_DETAIL_BYTES_MAX,
};
use crate::domain::line::{LineChecker, LineFault, Stamp};
use crate::domain::message::{Admitted, CheckedBatch, CheckedMessage, Refused, Tenant};
use crate::domain::reason::Reason;
use crate::domain::slot::Slot;

/// The routes of one tenant, by message type.
type Types = HashMap<Box<str>, Served, foldhash::fast::RandomState>;

/// A route of one tenant as this thread knows it.
#[derive(Default)]
struct Served {
    /// The table that `route` was looked up in.
    generation: u64,
    route: Option<Arc<Route>>,
    /// Of `route`, and while that is on probation of the version before it.
    instances: [Option<(Arc<Route>, Instance)>; 2],
    last_used: u64,
    /// Whether `route` was started before.
    was_started: bool,
    slow: Option<Arc<SlowRoute>>,
}

impl Served {
    /// Drops the instances of versions that do not serve any more; gives how many.
    fn drop_others(&mut self) -> usize {
        let fallback = self.route.as_ref().and_then(|route| route.probation.as_ref()?.fallback());
        let mut dropped = 0;
        for place in &mut self.instances {
            let stays = place.as_ref().is_some_and(|(of, _)| {
                [self.route.as_ref(), fallback.as_ref()]
                    .into_iter()
                    .flatten()
                    .any(|route| Arc::ptr_eq(route, of))
            });
            if !stays && place.take().is_some() {
                dropped += 1;
            }
        }
        dropped
    }
}

/// Decodes on the thread that owns it.
pub struct Decoder {
    guests: Arc<GuestStore>,
    served: HashMap<TenantId, Types, foldhash::fast::RandomState>,
    /// Live instances of this thread, and how many it may have.
    instances: usize,
    instances_max: usize,
    calls: u64,
    /// CPU time that starting an instance for the batch at hand took; that of the first of a route is
    /// not held against it.
    start_cpu: Duration,
    checker: LineChecker,
    batch: Batch,
    /// Where routes go that are slow, and the number of this thread there.
    lane: Option<(Arc<SlowLane>, usize)>,
}

impl Decoder {
    pub fn new(guests: Arc<GuestStore>) -> Self {
        // One thread's share, the slow lane's threads among them; what is left over is for trying
        // out new guests.
        let instances_max = (INSTANCES_MAX / (2 * guests.settings().threads + 1)).max(1);
        Self {
            guests,
            served: HashMap::default(),
            instances: 0,
            instances_max,
            calls: 0,
            start_cpu: Duration::ZERO,
            checker: LineChecker::default(),
            batch: Batch { payloads: Vec::new(), messages: Vec::new() },
            lane: None,
        }
    }

    /// One that hands slow routes to a lane of their own.
    pub fn with_lane(guests: Arc<GuestStore>, lane: Arc<SlowLane>, number: usize) -> Self {
        Self { lane: Some((lane, number)), ..Self::new(guests) }
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
        let database = match &tenant.database {
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
        let mut work = Work { tenant, message_type, database, route, fallback };
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
            self.decode_batch(&work, batch, sink, true);
            if let Some(probation) = &work.route.probation {
                probation.end_if_enough();
            }
        }
    }

    /// The lane for the messages of a slow route; also while some of this thread wait there, so that
    /// a device's messages stay in order.
    fn slow_lane(&mut self, work: &Work) -> Option<(LaneOfThread, Arc<SlowRoute>)> {
        let (lane, number) = self.lane.as_ref()?;
        let served = self.served.get_mut(&work.tenant.id)?.get_mut(&work.message_type)?;
        let is_slow = work.route.pace.is_slow();
        if let Some(slow) = &served.slow {
            slow.note_pace(is_slow);
            if !is_slow && slow.waits_of(*number) == 0 {
                served.slow = None;
                return None;
            }
        } else if !is_slow {
            return None;
        }
        let slow = served.slow.get_or_insert_with(|| lane.route(&work.tenant.id, &work.message_type)).clone();
        Some((LaneOfThread(lane.clone(), *number), slow))
    }

    /// The route of a tenant's message type by the table that holds now.
    fn route(&mut self, tenant: &TenantId, message_type: &str) -> Option<Arc<Route>> {
        let generation = self.guests.generation();
        let types = match self.served.get_mut(tenant) {
            Some(types) => types,
            None => self.served.entry(tenant.clone()).or_default(),
        };
        let served = match types.get_mut(message_type) {
            Some(served) => served,
            None => types.entry(message_type.into()).or_default(),
        };
        if served.generation != generation {
            let route = self.guests.table().route(tenant.as_str(), message_type);
            let same = match (&route, &served.route) {
                (Some(new), Some(old)) => Arc::ptr_eq(new, old),
                _ => false,
            };
            served.was_started &= same;
            served.route = route;
            served.generation = generation;
            self.instances -= served.drop_others();
        }
        // The table follows within a moment; until then nothing more is decoded by what has failed.
        let came_back = served.route.as_ref().and_then(|route| route.probation.as_ref()?.came_back());
        if came_back.is_some() {
            served.route = came_back;
        }
        if served.instances[1].is_some() {
            self.instances -= served.drop_others();
        }
        self.calls += 1;
        served.last_used = self.calls;
        served.route.clone()
    }

    /// Decodes messages of one route in one call; when that fails and it may, one by one.
    fn decode_batch(&mut self, work: &Work, messages: Vec<Admitted>, sink: &dyn DecodeSink, may_split: bool) {
        let mut instance = match self.take_instance(work) {
            Ok(instance) => instance,
            Err(NoInstance(reason, detail)) => {
                work.route.pace.note(messages.len() as u64, self.start_cpu);
                work.note_messages(messages.len());
                for message in messages {
                    self.fail(work, message, (reason, detail.clone()), sink);
                }
                return;
            }
        };
        self.fill_batch(&messages);
        if work.route.guest.imports_context {
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
        let refused = instance.state().take_log_dropped();
        work.route.state.log.note_dropped(refused);
        match answer {
            Ok(decoded) => {
                work.note_messages(messages.len());
                if !work.route.rules.fresh_instance {
                    self.keep_instance(work, instance);
                }
                self.check(work, messages, &decoded.lines, decoded.outcomes, sink);
            }
            Err(fault) => {
                // Whatever it was, this instance is not to be trusted any more.
                drop(instance);
                if !may_split || messages.len() == 1 {
                    work.note_messages(messages.len());
                    for message in messages {
                        self.fail(work, message, fault.clone(), sink);
                    }
                    return;
                }
                let mut messages = messages.into_iter();
                while let Some(message) = messages.next() {
                    self.decode_batch(work, vec![message], sink, false);
                    // What burns its time in every message does not do so on this thread.
                    if let Some((lane, slow)) = self.slow_lane(work) {
                        return lane.send(&slow, messages.collect(), sink);
                    }
                }
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
        let (Some(previous), Some(probation)) = (&work.fallback, &work.route.probation) else {
            return sink.refused(vec![message.refused(reason, detail, Some(tag.clone()))]);
        };
        let again = Work {
            tenant: work.tenant.clone(),
            message_type: work.message_type.clone(),
            database: work.database.clone(),
            route: previous.clone(),
            fallback: None,
        };
        let retried = Retried { sink, verdict: (reason, &detail, tag), failed: Cell::new(false) };
        self.decode_batch(&again, vec![message], &retried, false);
        if !retried.failed.get() {
            probation.note_failure(|| format!("{reason}: {detail}"));
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

    /// The instance that this thread has of a route, or a new one.
    fn take_instance(&mut self, work: &Work) -> Result<Instance, NoInstance> {
        self.start_cpu = Duration::ZERO;
        let mut counts = true;
        if let Some(served) = self.served.get_mut(&work.tenant.id)
            && let Some(served) = served.get_mut(&work.message_type)
        {
            counts = std::mem::replace(&mut served.was_started, true);
            for place in &mut served.instances {
                if let Some((_, instance)) = place.take_if(|(of, _)| Arc::ptr_eq(of, &work.route)) {
                    self.instances -= 1;
                    return Ok(instance);
                }
            }
        }
        while self.instances >= self.instances_max && self.evict() {}
        let tenant = work.tenant.id.as_str();
        loop {
            let began = thread_cpu();
            let started = self.guests.start(&work.route, tenant, &work.message_type);
            if counts {
                self.start_cpu += thread_cpu().saturating_sub(began);
            }
            match started {
                Ok(Ok(instance)) => return Ok(instance),
                Ok(Err(refusal)) => {
                    let detail = format!(
                        "the guest does not serve this route: {}",
                        cut(&refusal, REFUSAL_DETAIL_BYTES_MAX)
                    );
                    return Err(NoInstance(Reason::NoGuest, detail));
                }
                Err(CallFault::Guest(reason, detail)) => {
                    return Err(NoInstance(reason, format!("while it started: {detail}")));
                }
                // The pool is shared: another thread or a trial has the last slot. Ours go first,
                // then theirs come free.
                Err(CallFault::Host(what)) => {
                    if !self.evict() {
                        tracing::debug!(what, "waiting for a free instance");
                        std::thread::sleep(std::time::Duration::from_millis(1));
                    }
                }
            }
        }
    }

    fn keep_instance(&mut self, work: &Work, instance: Instance) {
        let served = self.served.get_mut(&work.tenant.id).and_then(|types| types.get_mut(&work.message_type));
        if let Some(served) = served
            && let Some(place) = served.instances.iter_mut().find(|place| place.is_none())
        {
            *place = Some((work.route.clone(), instance));
            self.instances += 1;
        }
    }

    /// Drops the instances of this thread that were idle for longest. False when there are none.
    fn evict(&mut self) -> bool {
        let oldest = self
            .served
            .values_mut()
            .flat_map(|types| types.values_mut())
            .filter(|served| served.instances.iter().any(Option::is_some))
            .min_by_key(|served| served.last_used);
        let Some(oldest) = oldest else { return false };
        for place in &mut oldest.instances {
            self.instances -= usize::from(place.take().is_some());
        }
        true
    }

    /// Checks the lines of each message and hands on what became of it.
    fn check(
        &mut self,
        work: &Work,
        messages: Vec<Admitted>,
        lines: &[u8],
        outcomes: Vec<Outcome>,
        sink: &dyn DecodeSink,
    ) {
        let mut made = Made::new(work, lines.len() + messages.len() * 80);
        let mut start = 0;
        for (message, outcome) in messages.into_iter().zip(outcomes) {
            let verdict = match outcome {
                Outcome::Lines(end) => {
                    let own = &lines[start..end as usize];
                    start = end as usize;
                    self.check_one(work, &message, own, &mut made.checked.lines)
                }
                Outcome::Refused(refusal) => Err((Reason::GuestRefused, refusal_detail(&refusal))),
            };
            match verdict {
                Ok(0) => made.empty.push(message.slot),
                Ok(line_count) => made.checked.messages.push(CheckedMessage {
                    topic: message.topic,
                    received_ns: message.received_ns,
                    lines_end: made.checked.lines.len() as u32,
                    line_count,
                    affinity: (message.device.affinity ^ (message.device.affinity >> 32)) as u32,
                    slot: message.slot,
                }),
                Err(fault) if work.fallback.is_some() => {
                    // What stands before it goes first.
                    std::mem::replace(&mut made, Made::new(work, 0)).hand_on(work, sink);
                    self.fail(work, message, fault, sink);
                }
                Err((reason, detail)) => {
                    work.route.state.stats.note_failure(reason);
                    let tag = work.route.guest.tag.clone();
                    made.refused.push(message.refused(reason, detail, Some(tag)));
                }
            }
        }
        made.hand_on(work, sink);
    }

    /// Checks the lines of one message; gives how many there are.
    fn check_one(
        &mut self,
        work: &Work,
        message: &Admitted,
        own: &[u8],
        into: &mut Vec<u8>,
    ) -> Result<u32, (Reason, String)> {
        if own.len() > OUTPUT_BYTES_A_MESSAGE_MAX {
            let detail = format!("made {} bytes of lines; at most {OUTPUT_BYTES_A_MESSAGE_MAX}", own.len());
            return Err((Reason::GuestOutput, detail));
        }
        let identity_tags = message.device.identity_tags.as_deref().unwrap_or_default();
        let dialect = self.guests.settings().dialect;
        let stamp = Stamp { identity_tags, received_ns: message.received_ns, dialect };
        let verdict = |fault: LineFault| (fault.kind.reason(), fault.to_string());
        if !work.route.rules.keep_rest {
            return self.checker.check(own, stamp, into).map_err(verdict);
        }
        let mut faults = Vec::new();
        let count = self.checker.check_keeping_rest(own, stamp, into, &mut faults).map_err(verdict)?;
        let guest = &work.route.guest.tag;
        for fault in &faults {
            tracing::debug!(target: "guest", %guest, topic = message.topic, %fault, "a line was left out");
        }
        match faults.into_iter().next() {
            Some(fault) if count == 0 => Err(verdict(fault)),
            _ => Ok(count),
        }
    }
}

/// What one call came to, on its way out.
struct Made {
    checked: CheckedBatch,
    empty: Vec<Slot>,
    refused: Vec<Refused>,
}

impl Made {
    fn new(work: &Work, bytes: usize) -> Self {
        let checked = CheckedBatch {
            database: work.database.clone(),
            tenant: work.tenant.clone(),
            guest: work.route.guest.tag.clone(),
            lines: Vec::with_capacity(bytes),
            messages: Vec::new(),
        };
        Self { checked, empty: Vec::new(), refused: Vec::new() }
    }

    fn hand_on(self, work: &Work, sink: &dyn DecodeSink) {
        if !self.checked.messages.is_empty() {
            sink.lines(self.checked);
        }
        if !self.empty.is_empty() {
            sink.empty(self.empty, &work.tenant.account);
        }
        if !self.refused.is_empty() {
            sink.refused(self.refused);
        }
    }
}

/// The slow lane as one thread sees it.
struct LaneOfThread(Arc<SlowLane>, usize);

impl LaneOfThread {
    fn send(&self, slow: &Arc<SlowRoute>, messages: Vec<Admitted>, sink: &dyn DecodeSink) {
        // Lines of the same devices must not wait here while the lane makes later ones.
        sink.hand_on();
        self.0.send(self.1, slow, messages);
    }
}

/// Where a message ends that a version on probation failed on: as the version before it says, or, if
/// that fails too, with the first verdict.
struct Retried<'a> {
    sink: &'a dyn DecodeSink,
    verdict: (Reason, &'a str, &'a GuestTag),
    failed: Cell<bool>,
}

impl DecodeSink for Retried<'_> {
    fn lines(&self, batch: CheckedBatch) {
        self.sink.lines(batch);
    }

    fn hand_on(&self) {
        self.sink.hand_on();
    }

    fn empty(&self, messages: Vec<Slot>, account: &Arc<Account>) {
        self.sink.empty(messages, account);
    }

    fn refused(&self, messages: Vec<Refused>) {
        self.failed.set(true);
        let (reason, detail, tag) = self.verdict;
        let messages = messages.into_iter().map(|message| Refused {
            reason,
            detail: detail.to_owned(),
            guest: Some(tag.clone()),
            ..message
        });
        self.sink.refused(messages.collect());
    }
}

/// What the batches of one group share.
struct Work {
    tenant: Arc<Tenant>,
    message_type: Box<str>,
    database: DatabaseName,
    route: Arc<Route>,
    /// While `route` is on probation, the version before it.
    fallback: Option<Arc<Route>>,
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

/// Why a guest could not be started for a route.
struct NoInstance(Reason, String);

/// `CODE: detail`, each within its bound, and the code of the form that machines rely on.
fn refusal_detail(refusal: &Refusal) -> String {
    let mut code: String = cut(&refusal.code, REFUSAL_CODE_BYTES_MAX)
        .chars()
        .map(|c| match c.to_ascii_uppercase() {
            c if c.is_ascii_alphanumeric() => c,
            _ => '_',
        })
        .collect();
    if code.is_empty() {
        code.push_str("REFUSED");
    }
    format!("{code}: {}", cut(&refusal.detail, REFUSAL_DETAIL_BYTES_MAX))
}

fn refuse_all(
    messages: Vec<Admitted>,
    reason: Reason,
    detail: &str,
    guest: Option<&GuestTag>,
) -> Vec<Refused> {
    messages.into_iter().map(|message| message.refused(reason, detail.to_owned(), guest.cloned())).collect()
}

/// Parts from the rest what has an identity that no line can carry.
fn nameable(messages: Vec<Admitted>) -> (Vec<Admitted>, Vec<Refused>) {
    if messages.iter().all(|message| message.device.identity_tags.is_ok()) {
        return (messages, Vec::new());
    }
    let (good, bad): (Vec<_>, Vec<_>) =
        messages.into_iter().partition(|message| message.device.identity_tags.is_ok());
    let refused = bad.into_iter().map(|message| {
        let detail = message.device.identity_tags.clone().unwrap_err();
        message.refused(Reason::BadLine, detail, None)
    });
    (good, refused.collect())
}

/// Parts messages by tenant and type; within a part they keep their order.
fn group(messages: Vec<Admitted>) -> Vec<Vec<Admitted>> {
    let key = |message: &Admitted| (Arc::as_ptr(&message.tenant) as usize, message.message_type.len());
    let same = |a: &Admitted, b: &Admitted| {
        Arc::ptr_eq(&a.tenant, &b.tenant) && a.message_type() == b.message_type()
    };
    let first = &messages[0];
    if messages.iter().all(|message| same(first, message)) {
        return vec![messages];
    }
    let mut messages = messages;
    // Stable, so the order within a tenant and type stays.
    messages.sort_by(|a, b| key(a).cmp(&key(b)).then_with(|| a.message_type().cmp(b.message_type())));
    let mut groups: Vec<Vec<Admitted>> = Vec::new();
    for message in messages {
        match groups.last_mut() {
            Some(group) if same(&group[0], &message) => group.push(message),
            _ => groups.push(vec![message]),
        }
    }
    groups
}
