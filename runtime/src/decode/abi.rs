//! The guest interface `tidegate:ingest` on the host's side, in every version that was ever released,
//! and what a store holds.
//!
//! A guest's exports are the same in all of them so far, and bare functions: what is called is looked up
//! without a version. What a guest imports carries the version that it was built for, and all of them
//! are offered side by side.

use std::sync::Arc;
use std::time::Duration;

use wasmtime::ResourceLimiter;
use wasmtime::component::{HasSelf, Linker};

use super::engine::thread_cpu;
use super::guest_log::Level;
use super::large::Class;
use super::routes::RouteState;
use super::state::{Fault, StateCall};
use crate::domain::limits::{
    GUEST_CONTEXT_CALLS_A_MESSAGE_MAX, GUEST_LOG_CALLS_MAX, LARGE_CORE_INSTANCES_MAX, LARGE_MEMORIES_MAX,
    LARGE_TABLES_MAX,
};
use crate::domain::message::Device;

mod v1_0 {
    wasmtime::component::bindgen!({
        path: "../wit/tidegate-ingest-1.0.0",
        world: "decoder",
        imports: { default: trappable },
    });
}

mod v0_1;

pub use v1_0::tidegate::ingest::types::{Batch, Decoded, Message, Outcome, Refusal, Route};
use v1_0::tidegate::ingest::{context, log, state, types};
pub use v1_0::{Decoder as Exports, DecoderPre as ExportsPre};

/// The interfaces that a component may import.
pub const OFFERED: [&str; 7] = [
    "tidegate:ingest/types@1.0.0",
    "tidegate:ingest/context@1.0.0",
    STATE,
    "tidegate:ingest/log@1.0.0",
    "tidegate:ingest/types@0.1.0",
    "tidegate:ingest/context@0.1.0",
    "tidegate:ingest/log@0.1.0",
];

/// The one that asks about messages, whatever its version; what it tells is gathered only for guests
/// that import it.
pub const CONTEXT: &str = "tidegate:ingest/context@";

/// The one that keeps values between messages.
pub const STATE: &str = "tidegate:ingest/state@1.0.0";

/// Memory and tables of one store.
#[derive(Debug)]
pub struct Limiter {
    class: Class,
    memory_bytes_max: usize,
    /// What was asked for beyond a limit, in words.
    pub denied: Option<String>,
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        if desired <= self.memory_bytes_max {
            return Ok(true);
        }
        let denied = format!("asked for {desired} bytes of memory; it may have {}", self.memory_bytes_max);
        self.denied = Some(denied.clone());
        Err(wasmtime::Error::msg(denied))
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let most = self.class.table_elements_max();
        if desired <= most {
            return Ok(true);
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

impl Limiter {
    fn count(&self, large: usize) -> usize {
        match self.class {
            Class::Normal => 10_000,
            Class::Large => large,
        }
    }
}

/// What `context` tells of one message.
#[derive(Clone, Debug)]
pub struct MessageContext {
    pub device: Arc<Device>,
    pub topic: String,
}

/// What a store holds beside the guest.
#[derive(Debug)]
pub struct HostState {
    pub limiter: Limiter,
    /// The messages of the batch that is being decoded; empty for guests that do not ask.
    pub messages: Vec<MessageContext>,
    /// Who logs, as tenant/type, and into which log.
    route: String,
    state: Arc<RouteState>,
    log_calls: u32,
    log_dropped: u64,
    context_calls: u32,
    /// The thread's CPU time at which the call must have ended.
    pub cpu_ends: Duration,
    pub deadline_passed: bool,
    /// Of a guest that keeps values.
    pub kept: Option<Box<StateCall>>,
}

impl HostState {
    pub fn new(
        route: String,
        state: Arc<RouteState>,
        class: Class,
        memory_bytes_max: u64,
        kept: Option<Box<StateCall>>,
    ) -> Self {
        Self {
            limiter: Limiter { class, memory_bytes_max: memory_bytes_max as usize, denied: None },
            messages: Vec::new(),
            route,
            state,
            log_calls: 0,
            log_dropped: 0,
            context_calls: 0,
            cpu_ends: Duration::ZERO,
            deadline_passed: false,
            kept,
        }
    }

    /// Starts a call that may take `budget` of this thread's CPU time.
    pub fn begin_call(&mut self, now: Duration, budget: Duration) {
        self.cpu_ends = now + budget;
        self.deadline_passed = false;
        self.log_calls = 0;
        self.context_calls = 0;
        if let Some(kept) = &mut self.kept {
            kept.begin();
        }
    }

    /// How much CPU time is left; None when there is none. Wall time that the thread did not run
    /// does not count, so a busy host fails no healthy guest.
    pub fn cpu_left(&mut self) -> Option<Duration> {
        let left = self.cpu_ends.checked_sub(thread_cpu()).filter(|left| !left.is_zero());
        self.deadline_passed = left.is_none();
        left
    }

    /// How many texts were over the limit of their batch, since this was last asked.
    pub fn take_log_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.log_dropped)
    }

    /// A guest asks about a message, which it may do so often a batch.
    fn note_asked(&mut self) -> wasmtime::Result<()> {
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

    fn message(&mut self, index: u32) -> wasmtime::Result<&MessageContext> {
        self.note_asked()?;
        message(&self.messages, index)
    }

    fn kept(&mut self, index: u32) -> wasmtime::Result<(&mut StateCall, &MessageContext)> {
        self.note_asked()?;
        let message = message(&self.messages, index)?;
        let kept = self.kept.as_deref_mut();
        // There is one for every guest that imports the interface.
        let kept = kept.ok_or_else(|| wasmtime::Error::msg("this decoder has no state"))?;
        Ok((kept, message))
    }
}

fn message(messages: &[MessageContext], index: u32) -> wasmtime::Result<&MessageContext> {
    messages.get(index as usize).ok_or_else(|| {
        let count = messages.len();
        wasmtime::Error::msg(format!("asked about message {index} of a batch of {count}"))
    })
}

impl types::Host for HostState {}

impl context::Host for HostState {
    fn device(&mut self, index: u32) -> wasmtime::Result<String> {
        Ok(self.message(index)?.device.id.as_str().to_owned())
    }

    fn site(&mut self, index: u32) -> wasmtime::Result<String> {
        Ok(self.message(index)?.device.site.clone())
    }

    fn topic(&mut self, index: u32) -> wasmtime::Result<String> {
        Ok(self.message(index)?.topic.clone())
    }

    fn attribute(&mut self, index: u32, _name: String) -> wasmtime::Result<Option<String>> {
        self.message(index)?;
        // MQTT 3.1.1 tells nothing beside topic and payload.
        Ok(None)
    }
}

impl state::Host for HostState {
    fn get(&mut self, index: u32, key: String) -> wasmtime::Result<Option<Vec<u8>>> {
        let (kept, message) = self.kept(index)?;
        Ok(kept.get(index, message.device.id.as_str(), &message.topic, &key))
    }

    fn set(
        &mut self,
        index: u32,
        key: String,
        value: Option<Vec<u8>>,
    ) -> wasmtime::Result<Result<(), state::Fault>> {
        let (kept, message) = self.kept(index)?;
        let set = kept.set(index, message.device.id.as_str(), &message.topic, key, value);
        Ok(set.map_err(|fault| match fault {
            Fault::BadKey => state::Fault::BadKey,
            Fault::ValueTooLarge => state::Fault::ValueTooLarge,
            Fault::TooManyKeys => state::Fault::TooManyKeys,
            Fault::NoRoom => state::Fault::NoRoom,
        }))
    }
}

impl log::Host for HostState {
    fn write(&mut self, level: log::Level, text: String) -> wasmtime::Result<()> {
        if self.log_calls >= GUEST_LOG_CALLS_MAX {
            self.log_dropped += 1;
            return Ok(());
        }
        self.log_calls += 1;
        let level = match level {
            log::Level::Debug => Level::Debug,
            log::Level::Info => Level::Info,
            log::Level::Warn => Level::Warn,
            log::Level::Error => Level::Error,
        };
        self.state.log.write(level, &self.route, &text);
        Ok(())
    }
}

/// The beginning of a text, at most so many bytes, never half a character.
pub fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

/// Offers the interface, in every version.
///
/// # Errors
/// Never in practice: names are defined once.
pub fn offer(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    v1_0::Decoder::add_to_linker::<_, HasSelf<_>>(linker, |state| state)?;
    v0_1::offer(linker)
}
