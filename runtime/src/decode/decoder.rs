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
use super::large::Class;
use super::probation::Probation;
use super::routes::Route;
use super::shares::{CpuShares, TenantCpu};
use super::slow::{SlowLane, SlowRoute};
use super::state::Changes;
use super::store::GuestStore;
use crate::domain::books::{Account, Outcome as Ended};
use crate::domain::ids::{DatabaseName, GuestTag, TenantId};
use crate::domain::limits::{
    DECODE_BATCH_MESSAGES_MAX, INSTANCES_MAX, OUTPUT_BYTES_A_MESSAGE_MAX, REFUSAL_CODE_BYTES_MAX,
    REFUSAL_DETAIL_BYTES_MAX,
};
use crate::domain::line::{LineChecker, LineFault, Stamp};
use crate::domain::message::{Admitted, CheckedBatch, CheckedMessage, Refused, Tenant};
use crate::domain::reason::Reason;
use crate::domain::slot::Slot;
use crate::domain::state::Kept;
use crate::domain::tenancy::TenantRules;

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
    /// Drops the instances of versions that do not serve any more.
    fn drop_others(&mut self, kept: &mut Live) {
        let fallback = self.route.as_ref().and_then(|route| route.probation.as_ref()?.fallback());
        for place in &mut self.instances {
            let stays = place.as_ref().is_some_and(|(of, _)| {
                [self.route.as_ref(), fallback.as_ref()]
                    .into_iter()
                    .flatten()
                    .any(|route| Arc::ptr_eq(route, of))
            });
            if !stays {
                kept.drop(place);
            }
        }
    }
}

/// Live instances that a thread keeps, by class, and how many it may.
#[derive(Clone, Copy)]
struct Live {
    normal: usize,
    normal_max: usize,
    large: usize,
    large_max: usize,
}

impl Live {
    fn count(&mut self, class: Class) -> &mut usize {
        match class {
            Class::Normal => &mut self.normal,
            Class::Large => &mut self.large,
        }
    }

    fn is_full(&self, class: Class) -> bool {
        match class {
            Class::Normal => self.normal >= self.normal_max,
            Class::Large => self.large >= self.large_max,
        }
    }

    fn drop(&mut self, place: &mut Option<(Arc<Route>, Instance)>) {
        if let Some((route, _)) = place.take() {
            *self.count(route.rules.class) -= 1;
        }
    }
}

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

    /// Drops the instance of the class large that was idle for longest, if another thread waits for
    /// one.
    pub fn give_back(&mut self) {
        if self.kept.large > 0 && self.guests.wants_large_back() {
            self.evict(Class::Large);
        }
    }

    /// Whether it keeps what another thread may come to wait for.
    pub fn keeps_large(&self) -> bool {
        self.kept.large > 0
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
        let cpu = self.shares.as_ref().map(|shares| shares.of(&tenant.id));
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

    /// The lane for the messages of a slow route, and of a tenant that is over its share; also while some of this thread wait there, so that
    /// a device's messages stay in order.
    fn slow_lane(&mut self, work: &Work) -> Option<(LaneOfThread, Arc<SlowRoute>)> {
        let (lane, number) = self.lane.as_ref()?;
        let served = self.served.get_mut(&work.tenant.id)?.get_mut(&work.message_type)?;
        let is_large = [Some(&work.route), work.fallback.as_ref()]
            .into_iter()
            .flatten()
            .any(|route| route.rules.class == Class::Large);
        let is_slow = is_large || work.route.is_slow();
        let is_over = work.cpu.as_ref().is_some_and(|cpu| lane.shares.is_over(cpu));
        if let Some(slow) = &served.slow {
            slow.note_pace(is_slow);
            if !is_slow && !is_over && slow.waits_of(*number) == 0 {
                served.slow = None;
                return None;
            }
        } else if !is_slow && !is_over {
            return None;
        }
        let new = || lane.route(&work.tenant.id, &work.message_type, is_large);
        let slow = served.slow.get_or_insert_with(new).clone();
        slow.note_pace(is_slow);
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
            served.drop_others(&mut self.kept);
        }
        // The table follows within a moment; until then nothing more is decoded by what has failed.
        let came_back = served.route.as_ref().and_then(|route| route.probation.as_ref()?.came_back());
        if came_back.is_some() {
            served.route = came_back;
        }
        if served.instances[1].is_some() {
            served.drop_others(&mut self.kept);
        }
        self.calls += 1;
        served.last_used = self.calls;
        served.route.clone()
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
                    *self.kept.count(work.route.rules.class) -= 1;
                    return Ok(instance);
                }
            }
        }
        let class = work.route.rules.class;
        while self.kept.is_full(class) && self.evict(class) {}
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
                    if !self.evict(class) {
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
            *self.kept.count(work.route.rules.class) += 1;
        }
    }

    /// Drops the instances of this thread and a class that were idle for longest. False when there
    /// are none.
    fn evict(&mut self, class: Class) -> bool {
        let is_of = |place: &Option<(Arc<Route>, Instance)>| {
            place.as_ref().is_some_and(|(route, _)| route.rules.class == class)
        };
        let oldest = self
            .served
            .values_mut()
            .flat_map(|types| types.values_mut())
            .filter(|served| served.instances.iter().any(is_of))
            .min_by_key(|served| served.last_used);
        let Some(oldest) = oldest else { return false };
        for place in oldest.instances.iter_mut().filter(|place| is_of(place)) {
            self.kept.drop(place);
        }
        true
    }

    /// Checks the lines of each message and hands on what became of it. `changes` are what the guest set
    /// in its state: they hold for what is not refused, and the messages of a device behind one that is
    /// are decoded again, for they may have seen what it had set.
    fn check(
        &mut self,
        work: &Work,
        messages: Vec<Admitted>,
        lines: &[u8],
        outcomes: Vec<Outcome>,
        mut changes: Option<Changes>,
        sink: &dyn DecodeSink,
    ) {
        let mut made = Made::new(work, lines.len() + messages.len() * 80);
        let (mut misled, mut again) = (Vec::new(), Vec::new());
        let mut start = 0;
        for (index, (message, outcome)) in messages.into_iter().zip(outcomes).enumerate() {
            if misled.contains(&message.device.affinity) {
                if let Outcome::Lines(end) = outcome {
                    start = end as usize;
                }
                again.push(message);
                continue;
            }
            let writes = changes.as_mut().map(|changes| changes.take(index as u32)).unwrap_or_default();
            let verdict = match outcome {
                Outcome::Lines(end) => {
                    let own = &lines[start..end as usize];
                    start = end as usize;
                    self.check_one(work, &message, own, &mut made.checked.lines)
                }
                Outcome::Refused(refusal) => Err((Reason::GuestRefused, refusal_detail(&refusal))),
            };
            if let Some(changes) = &changes {
                match &verdict {
                    Ok(lines) => {
                        let outcome = if *lines == 0 { Ended::Empty } else { Ended::Lines };
                        message.slot.note_decoded(&message.topic, &message.payload, outcome);
                        writes.iter().for_each(|write| changes.shelf.apply(write.clone()));
                        made.kept(work).writes.extend(writes);
                    }
                    // The version before may set something too.
                    Err(_) if !writes.is_empty() || work.fallback.is_some() => {
                        misled.push(message.device.affinity);
                    }
                    Err(_) => {}
                }
            }
            match verdict {
                Ok(0) if changes.is_some() => made.kept(work).messages.push((message.slot, Ended::Empty)),
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
        if !again.is_empty() {
            self.decode_each(work, again, sink, Pass::Again);
        }
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
        let rules = work.rules.lines.as_ref();
        let stamp = Stamp { identity_tags, received_ns: message.received_ns, dialect, rules };
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
            kept: None,
        };
        Self { checked, empty: Vec::new(), refused: Vec::new() }
    }

    /// What a route that keeps state leaves beside its lines.
    fn kept(&mut self, work: &Work) -> &mut Kept {
        self.checked.kept.get_or_insert_with(|| Box::new(Kept::new((&*work.message_type).into())))
    }

    fn hand_on(self, work: &Work, sink: &dyn DecodeSink) {
        if !self.checked.messages.is_empty() || self.checked.kept.is_some() {
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
