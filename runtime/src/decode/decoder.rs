//! What one decode thread does: messages in, checked lines and refusals out. `explain` and `test`
//! own one too, so what they show is what happens.

use std::collections::HashMap;
use std::sync::Arc;

use super::DecodeSink;
use super::abi::{Batch, Message, MessageContext, Outcome, Refusal, cut};
use super::instance::{CallFault, Instance};
use super::routes::{GuestStore, Route};
use crate::domain::ids::{DatabaseName, TenantId};
use crate::domain::limits::{
    DECODE_BATCH_MESSAGES_MAX, INSTANCES_MAX, OUTPUT_BYTES_A_MESSAGE_MAX, REFUSAL_CODE_BYTES_MAX,
    REFUSAL_DETAIL_BYTES_MAX,
};
use crate::domain::line::{LineChecker, Stamp};
use crate::domain::message::{Admitted, CheckedBatch, CheckedMessage, Refused, Tenant};
use crate::domain::reason::Reason;

/// The routes of one tenant, by message type.
type Types = HashMap<Box<str>, Served, foldhash::fast::RandomState>;

/// A route of one tenant as this thread knows it.
#[derive(Default)]
struct Served {
    /// The table that `route` was looked up in.
    generation: u64,
    route: Option<Arc<Route>>,
    instance: Option<Instance>,
    last_used: u64,
}

/// Decodes on the thread that owns it.
pub struct Decoder {
    guests: Arc<GuestStore>,
    served: HashMap<TenantId, Types, foldhash::fast::RandomState>,
    /// Live instances of this thread, and how many it may have.
    instances: usize,
    instances_max: usize,
    calls: u64,
    checker: LineChecker,
    batch: Batch,
}

impl Decoder {
    pub fn new(guests: Arc<GuestStore>) -> Self {
        // One thread's share; what is left over is for trying out new guests.
        let instances_max = (INSTANCES_MAX / (guests.settings().threads + 1)).max(1);
        Self {
            guests,
            served: HashMap::default(),
            instances: 0,
            instances_max,
            calls: 0,
            checker: LineChecker::default(),
            batch: Batch { payloads: Vec::new(), messages: Vec::new() },
        }
    }

    /// Decodes messages of any tenants; those of one device and type in their order.
    pub fn decode(&mut self, messages: Vec<Admitted>, sink: &impl DecodeSink) {
        for group in group(messages) {
            self.decode_group(group, sink);
        }
    }

    fn decode_group(&mut self, messages: Vec<Admitted>, sink: &impl DecodeSink) {
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
        let work = Work { tenant, message_type, database, route };
        let mut messages = messages.into_iter();
        loop {
            let batch: Vec<Admitted> = messages.by_ref().take(DECODE_BATCH_MESSAGES_MAX).collect();
            if batch.is_empty() {
                return;
            }
            self.decode_batch(&work, batch, sink, true);
        }
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
            if !same && served.instance.take().is_some() {
                self.instances -= 1;
            }
            served.route = route;
            served.generation = generation;
        }
        self.calls += 1;
        served.last_used = self.calls;
        served.route.clone()
    }

    /// Decodes messages of one route in one call; when that fails and it may, one by one.
    fn decode_batch(
        &mut self,
        work: &Work,
        messages: Vec<Admitted>,
        sink: &impl DecodeSink,
        may_split: bool,
    ) {
        let mut instance = match self.take_instance(work) {
            Ok(instance) => instance,
            Err(NoInstance(reason, detail)) => {
                work.route.stats.note_failure(reason);
                let tag = Some(&work.route.guest.tag);
                return sink.refused(refuse_all(messages, reason, &detail, tag));
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
        match instance.decode(&self.batch) {
            Ok((decoded, took)) => {
                work.route.stats.note_call(messages.len() as u64, took);
                if !work.route.rules.fresh_instance {
                    self.keep_instance(work, instance);
                }
                self.check(work, messages, &decoded.lines, decoded.outcomes, sink);
            }
            Err((reason, detail)) => {
                // Whatever it was, this instance is not to be trusted any more.
                drop(instance);
                if may_split && messages.len() > 1 {
                    for message in messages {
                        self.decode_batch(work, vec![message], sink, false);
                    }
                    return;
                }
                work.route.stats.note_call(messages.len() as u64, std::time::Duration::ZERO);
                work.route.stats.note_failure(reason);
                sink.refused(refuse_all(messages, reason, &detail, Some(&work.route.guest.tag)));
            }
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
        let served = self.served.get_mut(&work.tenant.id).and_then(|types| types.get_mut(&work.message_type));
        if let Some(instance) = served.and_then(|served| served.instance.take()) {
            self.instances -= 1;
            return Ok(instance);
        }
        while self.instances >= self.instances_max && self.evict() {}
        let tenant = work.tenant.id.as_str();
        loop {
            match self.guests.start(&work.route.guest, &work.route.rules, tenant, &work.message_type) {
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
            && served.route.as_ref().is_some_and(|route| Arc::ptr_eq(route, &work.route))
        {
            served.instance = Some(instance);
            self.instances += 1;
        }
    }

    /// Drops the instance of this thread that was idle for longest. False when there is none.
    fn evict(&mut self) -> bool {
        let oldest = self
            .served
            .values_mut()
            .flat_map(|types| types.values_mut())
            .filter(|served| served.instance.is_some())
            .min_by_key(|served| served.last_used);
        let Some(oldest) = oldest else { return false };
        oldest.instance = None;
        self.instances -= 1;
        true
    }

    /// Checks the lines of each message and hands on what became of it.
    fn check(
        &mut self,
        work: &Work,
        messages: Vec<Admitted>,
        lines: &[u8],
        outcomes: Vec<Outcome>,
        sink: &impl DecodeSink,
    ) {
        let tag = &work.route.guest.tag;
        let dialect = self.guests.settings().dialect;
        let mut checked = CheckedBatch {
            database: work.database.clone(),
            tenant: work.tenant.clone(),
            guest: tag.clone(),
            lines: Vec::with_capacity(lines.len() + messages.len() * 80),
            messages: Vec::with_capacity(messages.len()),
        };
        let (mut empty, mut refused) = (Vec::new(), Vec::new());
        let mut start = 0;
        for (message, outcome) in messages.into_iter().zip(outcomes) {
            let end = match outcome {
                Outcome::Lines(end) => end as usize,
                Outcome::Refused(refusal) => {
                    work.route.stats.note_failure(Reason::GuestRefused);
                    let detail = refusal_detail(&refusal);
                    refused.push(message.refused(Reason::GuestRefused, detail, Some(tag.clone())));
                    continue;
                }
            };
            let own = &lines[start..end];
            start = end;
            if own.len() > OUTPUT_BYTES_A_MESSAGE_MAX {
                let detail =
                    format!("made {} bytes of lines; at most {OUTPUT_BYTES_A_MESSAGE_MAX}", own.len());
                work.route.stats.note_failure(Reason::GuestOutput);
                refused.push(message.refused(Reason::GuestOutput, detail, Some(tag.clone())));
                continue;
            }
            let identity_tags = message.device.identity_tags.as_deref().unwrap_or_default();
            let stamp = Stamp { identity_tags, received_ns: message.received_ns, dialect };
            let mut faults = Vec::new();
            let count = if work.route.rules.keep_rest {
                self.checker.check_keeping_rest(own, stamp, &mut checked.lines, &mut faults)
            } else {
                self.checker.check(own, stamp, &mut checked.lines)
            };
            for fault in &faults {
                tracing::debug!(target: "guest", guest = %tag, topic = message.topic, %fault, "a line was left out");
            }
            match count {
                Ok(0) => match faults.into_iter().next() {
                    None => empty.push(message.slot),
                    Some(fault) => {
                        refused.push(message.refused(
                            fault.kind.reason(),
                            fault.to_string(),
                            Some(tag.clone()),
                        ));
                    }
                },
                Ok(line_count) => checked.messages.push(CheckedMessage {
                    topic: message.topic,
                    received_ns: message.received_ns,
                    lines_end: checked.lines.len() as u32,
                    line_count,
                    affinity: (message.device.affinity ^ (message.device.affinity >> 32)) as u32,
                    slot: message.slot,
                }),
                Err(fault) => {
                    refused.push(message.refused(fault.kind.reason(), fault.to_string(), Some(tag.clone())));
                }
            }
        }
        if !checked.messages.is_empty() {
            sink.lines(checked);
        }
        if !empty.is_empty() {
            sink.empty(empty, &work.tenant.account);
        }
        if !refused.is_empty() {
            sink.refused(refused);
        }
    }
}

/// What the batches of one group share.
struct Work {
    tenant: Arc<Tenant>,
    message_type: Box<str>,
    database: DatabaseName,
    route: Arc<Route>,
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
    guest: Option<&crate::domain::ids::GuestTag>,
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
