//! The contents of a store beside the guest: limits, the batch at hand, and the state that it may see.

use std::sync::Arc;
use std::time::Duration;

use wasmtime::ResourceLimiter;

use crate::limits::{
    GUEST_CONTEXT_CALLS_A_MESSAGE_MAX, GUEST_LOG_CALLS_MAX, LARGE_CORE_INSTANCES_MAX, LARGE_MEMORIES_MAX,
    LARGE_TABLES_MAX, TABLE_ELEMENT_BYTES,
};
use crate::route::guest_log::{GuestLogLevel, TenantLogRates};
use crate::route::ignored_names::IgnoredNames;
use crate::route::stats::RouteActivity;
use crate::sandbox::class::GuestClass;
use crate::sandbox::cpu_clock::thread_cpu;
use crate::sandbox::instance_memory::InstanceMemory;
use crate::sandbox::wasi::world::{World, message_seed};
use crate::state::StateCall;
use tidegate_core::device::Device;
use tidegate_core::envelope_content::EnvelopeContent;
use tidegate_core::ids::TenantId;
use tidegate_core::message::Admitted;

/// Memory and tables of one store.
#[derive(Debug)]
pub struct StoreLimiter {
    class: GuestClass,
    memory_bytes_max: usize,
    /// The bytes that are charged.
    pub memory: InstanceMemory,
    /// The request beyond a limit, in words.
    pub denied: Option<String>,
}

impl ResourceLimiter for StoreLimiter {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        if desired <= self.memory_bytes_max {
            return self.charge(desired.saturating_sub(current) as u64);
        }
        let denied = format!("asked for {desired} bytes of memory; it may have {}", self.memory_bytes_max);
        self.denied = Some(denied.clone());
        Err(wasmtime::Error::msg(denied))
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let most = self.class.table_elements_max();
        if desired <= most {
            return self.charge(desired.saturating_sub(current) as u64 * TABLE_ELEMENT_BYTES);
        }
        let denied = format!("asked for {desired} table elements; it may have {most}");
        self.denied = Some(denied.clone());
        Err(wasmtime::Error::msg(denied))
    }

    // The pool counts for the normal class, when a component is loaded.

    fn memories(&self) -> usize {
        self.count(LARGE_MEMORIES_MAX)
    }

    fn tables(&self) -> usize {
        self.count(LARGE_TABLES_MAX)
    }

    fn instances(&self) -> usize {
        self.count(LARGE_CORE_INSTANCES_MAX)
    }
}

impl StoreLimiter {
    /// The limits of an instance that may have `memory_bytes_max` of linear memory.
    pub fn new(class: GuestClass, memory_bytes_max: u64, memory: InstanceMemory) -> Self {
        Self { class, memory_bytes_max: memory_bytes_max as usize, memory, denied: None }
    }

    /// Charges bytes to the tenant.
    fn charge(&mut self, bytes: u64) -> wasmtime::Result<bool> {
        let Err(over) = self.memory.grow(bytes) else { return Ok(true) };
        self.denied = Some(over.to_string());
        Err(wasmtime::Error::msg(over.to_string()))
    }

    fn count(&self, large: usize) -> usize {
        match self.class {
            GuestClass::Normal => 10_000,
            GuestClass::Large => large,
        }
    }
}

/// The answers of `context` about one message.
#[derive(Clone, Debug)]
pub struct MessageContext {
    pub device: Arc<Device>,
    pub topic: String,
    /// The content of its envelope, with the attributes.
    pub content: Option<Arc<EnvelopeContent>>,
    /// The index of its tenant's state in `HostState::state_calls`.
    pub state: usize,
}

impl MessageContext {
    /// The answers about a message, whose tenant's state is the one at this index.
    pub fn new(message: &Admitted, state: usize) -> Self {
        let (device, topic) = (message.device.clone(), message.topic.clone());
        Self { device, topic, content: message.content.clone(), state }
    }
}

/// The name under which the guest logs, and the tenant whose log it is.
#[derive(Clone, Debug)]
pub struct LogOwner {
    pub tenant: TenantId,
    pub message_type: Arc<str>,
}

/// The contents of a store beside the guest.
#[derive(Debug)]
pub struct HostState {
    pub limiter: StoreLimiter,
    /// The messages of the batch that is being decoded; empty for guests that do not ask.
    pub messages: Vec<MessageContext>,
    /// The tapes of their payloads, one behind the other, and the end of each; empty for guests that do not ask.
    pub(super) tapes: (Vec<u64>, Vec<u32>),
    /// The tenant of the batch; `None` if it has messages of several, which no text can be told apart by.
    log_owner: Option<LogOwner>,
    /// True if the guest logged in this call anything but reports.
    logged: bool,
    /// Reports of values that were left out, of a batch without an owner.
    reports: Vec<String>,
    activity: Arc<RouteActivity>,
    log_rates: Arc<TenantLogRates>,
    log_calls: u32,
    log_dropped: u64,
    context_calls: u32,
    /// The thread's CPU time at which the call must have ended.
    pub cpu_ends: Duration,
    pub deadline_passed: bool,
    /// The state of each tenant of the batch, for a guest that keeps values.
    pub state_calls: Vec<StateCall>,
    /// The world of a guest that brings WASI.
    pub world: World,
}

impl HostState {
    pub fn new(
        log_owner: Option<LogOwner>,
        activity: Arc<RouteActivity>,
        log_rates: Arc<TenantLogRates>,
        limiter: StoreLimiter,
        state_calls: Vec<StateCall>,
    ) -> Self {
        Self {
            limiter,
            messages: Vec::new(),
            tapes: Default::default(),
            log_owner,
            logged: false,
            reports: Vec::new(),
            activity,
            log_rates,
            log_calls: 0,
            log_dropped: 0,
            context_calls: 0,
            cpu_ends: Duration::ZERO,
            deadline_passed: false,
            state_calls,
            world: World::default(),
        }
    }

    /// Sets the tapes of the batch that is decoded next, one for each message.
    pub fn set_tapes<'a>(&mut self, tapes: impl Iterator<Item = &'a [u64]>) {
        let (mut entries, mut ends) = (Vec::new(), Vec::with_capacity(tapes.size_hint().0));
        for tape in tapes {
            entries.extend_from_slice(tape);
            ends.push(entries.len() as u32);
        }
        self.tapes = (entries, ends);
    }

    /// Starts a call that may take `budget` of this thread's CPU time.
    pub fn begin_call(&mut self, now: Duration, budget: Duration) {
        self.cpu_ends = now + budget;
        self.deadline_passed = false;
        self.log_calls = 0;
        self.context_calls = 0;
        self.logged = false;
        self.reports.clear();
        self.state_calls.iter_mut().for_each(StateCall::begin);
    }

    /// Sets clocks and random numbers of WASI for the message that is decoded next.
    pub fn begin_message(&mut self, received_ns: i64, payload: &[u8]) {
        let route = self.log_owner.as_ref();
        let route = route.map_or(["", ""], |owner| [owner.tenant.as_str(), &owner.message_type]);
        self.world.begin_message(received_ns, message_seed(route, received_ns, payload));
    }

    /// Logs what the guest wrote to its streams in this call.
    pub fn log_output(&mut self) {
        for (level, text) in self.world.output.take() {
            self.log(level, &text);
        }
    }

    /// CPU time that is left; None when there is none. Wall time that the thread did not run
    /// does not count, so a busy host fails no healthy guest.
    pub fn cpu_left(&mut self) -> Option<Duration> {
        let left = self.cpu_ends.checked_sub(thread_cpu()).filter(|left| !left.is_zero());
        self.deadline_passed = left.is_none();
        left
    }

    /// The number of texts over the limit of their batch, since this was last asked.
    pub fn take_log_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.log_dropped)
    }

    /// A guest asks about a message, which it may do so often a batch.
    fn record_call(&mut self) -> wasmtime::Result<()> {
        let count = self.messages.len();
        let most = GUEST_CONTEXT_CALLS_A_MESSAGE_MAX.saturating_mul(count as u32);
        self.context_calls += 1;
        if self.context_calls > most {
            return Err(wasmtime::Error::msg(format!(
                "asked about messages more than {most} times in a batch of {count}"
            )));
        }
        Ok(())
    }

    /// Logs a text, while the call has not logged too many.
    pub(super) fn log(&mut self, level: GuestLogLevel, text: &str) {
        let is_report = level == GuestLogLevel::Debug && IgnoredNames::is_report(text);
        self.logged |= !is_report;
        if self.log_calls >= GUEST_LOG_CALLS_MAX {
            self.log_dropped += 1;
            return;
        }
        self.log_calls += 1;
        let Some(owner) = &self.log_owner else {
            if is_report {
                self.reports.push(text.to_owned());
            }
            return;
        };
        if is_report {
            return self.activity.record_ignored(text);
        }
        if !self.activity.log.is_silent() && !self.log_rates.take(&owner.tenant) {
            self.log_dropped += 1;
            return;
        }
        self.activity.log.write(level, &format!("{}/{}", owner.tenant, owner.message_type), text);
    }

    /// Sets the tenant of the next batch; `None` if it has messages of several.
    pub fn set_log_owner(&mut self, owner: Option<LogOwner>) {
        self.log_owner = owner;
    }

    /// True if the guest logged in this call anything but reports.
    pub fn logged(&self) -> bool {
        self.logged
    }

    /// Counts the values that were left out in a batch without an owner, once its answer is taken.
    pub fn record_reports(&mut self) {
        for report in self.reports.drain(..) {
            self.activity.record_ignored(&report);
        }
    }

    pub(super) fn message(&mut self, index: u32) -> wasmtime::Result<&MessageContext> {
        self.record_call()?;
        message(&self.messages, index)
    }

    pub(super) fn state_call(&mut self, index: u32) -> wasmtime::Result<(&mut StateCall, &MessageContext)> {
        self.record_call()?;
        let message = message(&self.messages, index)?;
        let state_call = self.state_calls.get_mut(message.state);
        // There is one for every tenant of a batch whose guest imports the interface.
        let state_call = state_call.ok_or_else(|| wasmtime::Error::msg("this decoder has no state"))?;
        Ok((state_call, message))
    }
}

fn message(messages: &[MessageContext], index: u32) -> wasmtime::Result<&MessageContext> {
    messages.get(index as usize).ok_or_else(|| {
        let count = messages.len();
        wasmtime::Error::msg(format!("asked about message {index} of a batch of {count}"))
    })
}
