//! One instance of a guest, and the faults of its calls.

use std::sync::Arc;
use std::time::Duration;

use wasmtime::{Store, Trap, UpdateDeadline};

use crate::limits::{
    CALL_CPU_MS_MAX, CONFIGURE_CPU_MS, CONFIGURE_OUTPUT_BYTES_MAX, EPOCH_TICK_MS, INSTANCE_OVERHEAD_BYTES,
    LARGE_CORE_INSTANCES_MAX, LARGE_MEMORIES_MAX, LARGE_TABLES_MAX, OUTPUT_OVERHEAD_BYTES_A_MESSAGE,
};
use crate::route::version::RouteVersion;
use crate::sandbox::abi::host_state::{HostState, LogOwner, StoreLimiter};
use crate::sandbox::abi::v1_0::bindings::Decoder as Exports;
use crate::sandbox::abi::v1_0::bindings::tidegate::ingest::types::{Batch, Decoded, Outcome, Route};
use crate::sandbox::class::InstanceSlot;
use crate::sandbox::cpu_clock::{EpochClock, thread_cpu_about};
use crate::sandbox::instance_memory::InstanceMemory;
use crate::sandbox::sandboxes::Sandbox;
use crate::sandbox::wasi::fault::WasiFault;
use crate::state::{StateCall, StateStore};
use tidegate_core::detail::{Detail, truncate};
use tidegate_core::ids::TenantId;
use tidegate_core::limits::OUTPUT_BYTES_A_MESSAGE_MAX;
use tidegate_core::limits::QUOTED_BYTES_MAX;
use tidegate_core::reason::Reason;
use tidegate_core::tenant::budget::Budget;
use tidegate_core::tenant::over_budget::OverBudget;

/// The reason why a call gave nothing.
#[derive(Debug, PartialEq, Eq)]
pub enum CallFault {
    /// The guest's fault: the reason and a detail, for the person who shipped it.
    Guest(Reason, String),
    /// Ours: no instance is free, or no memory.
    Host(String),
}

/// A guest that is ready for batches.
pub struct Instance {
    store: Store<HostState>,
    exports: Exports,
    clock: Arc<EpochClock>,
    deadline_ms: u64,
    /// Free again once the store is gone.
    _slot: Option<InstanceSlot>,
}

impl Instance {
    /// Instantiates and configures a guest for one tenant's route. Its memory is charged to `budget`.
    ///
    /// The inner error is the guest's own refusal of this route.
    ///
    /// # Errors
    /// The guest faults, or no instance is free.
    pub fn new(
        sandbox: &Sandbox,
        state: &Arc<StateStore>,
        version: &RouteVersion,
        (tenant, budget): (&str, &Budget),
        message_type: &str,
    ) -> Result<Result<Self, String>, CallFault> {
        let (guest, rules) = (&version.guest, &version.rules);
        let slot = match &sandbox.slots {
            None => None,
            Some(slots) => Some(slots.take().ok_or_else(|| {
                CallFault::Host(format!("all {} instances of the class large are in use", slots.most()))
            })?),
        };
        let pooled = slot.is_none();
        let mut memory = InstanceMemory::new(budget, &sandbox.memory, rules.memory_bytes_max, pooled);
        let over = |error: OverBudget| CallFault::Guest(Reason::GuestMemory, error.to_string());
        memory.grow(INSTANCE_OVERHEAD_BYTES).map_err(over)?;
        let mut state_calls = Vec::new();
        // A shared instance has the state of other tenants in each call.
        if guest.imports_state && !version.is_shared() {
            let route_state = state.route_state(&tenant.into(), message_type);
            state_calls.push(StateCall::new(route_state, rules.partition.clone()));
        }
        let owner = LogOwner { tenant: TenantId::new(tenant), message_type: message_type.into() };
        let state = HostState::new(
            Some(owner),
            version.activity.clone(),
            sandbox.log_rates.clone(),
            StoreLimiter::new(rules.class, rules.memory_bytes_max, memory),
            state_calls,
        );
        let clock = &sandbox.clock;
        let mut store = Store::new(&sandbox.engine, state);
        store.set_hostcall_fuel(CONFIGURE_OUTPUT_BYTES_MAX);
        store.limiter(|state| &mut state.limiter);
        store.epoch_deadline_callback(|mut store| {
            Ok(match store.data_mut().cpu_left() {
                None => UpdateDeadline::Interrupt,
                Some(left) => UpdateDeadline::Continue(ticks(left)),
            })
        });
        let budget = Duration::from_millis(CONFIGURE_CPU_MS);
        let _ticking = clock.run();
        begin(&mut store, budget);
        let exports = match guest.exports.instantiate(&mut store) {
            Ok(exports) => exports,
            Err(error) => return Err(end(&mut store, &error, budget)),
        };
        let route = Route {
            tenant: tenant.to_owned(),
            message_type: message_type.to_owned(),
            options: rules.options.clone(),
        };
        begin(&mut store, budget);
        match exports.call_configure(&mut store, &route) {
            Ok(Ok(())) => {
                store.data_mut().log_output();
                let (clock, deadline_ms) = (clock.clone(), rules.deadline_ms);
                guest.record_started(store.data().limiter.memory.bytes());
                Ok(Ok(Self { store, exports, clock, deadline_ms, _slot: slot }))
            }
            Ok(Err(refusal)) => Ok(Err(Detail::new(&refusal).into())),
            Err(error) => Err(end(&mut store, &error, budget)),
        }
    }

    /// The host's side of the store; takes the batch before a call.
    pub fn state(&mut self) -> &mut HostState {
        self.store.data_mut()
    }

    /// Charges its memory to its tenant, so that it may be kept.
    ///
    /// # Errors
    /// There is no room.
    pub fn settle_memory(&mut self) -> Result<(), OverBudget> {
        self.state().limiter.memory.settle()
    }

    /// Decodes a batch; gives the answer, checked to be of the form that the interface says, or the
    /// reason why there is none, and the CPU time that it took. After a fault the instance must be
    /// dropped.
    pub fn decode(&mut self, batch: &Batch) -> (Result<Decoded, (Reason, String)>, Duration) {
        self.decode_within(batch, CALL_CPU_MS_MAX.max(self.deadline_ms))
    }

    /// Decodes a batch in at most so many milliseconds of CPU time, or fewer if the deadlines of its messages
    /// are fewer together.
    pub fn decode_within(
        &mut self,
        batch: &Batch,
        call_ms_max: u64,
    ) -> (Result<Decoded, (Reason, String)>, Duration) {
        let messages = batch.messages.len();
        let budget = Duration::from_millis((self.deadline_ms * messages as u64).min(call_ms_max));
        let output = messages * (OUTPUT_BYTES_A_MESSAGE_MAX + OUTPUT_OVERHEAD_BYTES_A_MESSAGE);
        self.store.set_hostcall_fuel(output);
        let clock = self.clock.clone();
        let _ticking = clock.run();
        let began = begin(&mut self.store, budget);
        if let [message] = &batch.messages[..] {
            self.store.data_mut().begin_message(message.received_ns, &batch.payloads);
        }
        let answer = self.exports.call_decode(&mut self.store, batch);
        let took = thread_cpu_about().saturating_sub(began);
        let answer = match answer {
            Ok(decoded) => {
                self.store.data_mut().log_output();
                check_form(&decoded, messages).map(|()| decoded).map_err(|what| (Reason::GuestOutput, what))
            }
            Err(error) => Err(match end(&mut self.store, &error, budget) {
                CallFault::Guest(reason, what) => (reason, what),
                // Instances are taken before a call, never in one; a fault of ours here is a trap
                // that no guest is named for.
                CallFault::Host(what) => (Reason::GuestTrap, format!("the host could not go on: {what}")),
            }),
        };
        (answer, took)
    }
}

fn ticks(time: Duration) -> u64 {
    (time.as_millis() as u64).div_ceil(EPOCH_TICK_MS).max(1)
}

fn begin(store: &mut Store<HostState>, budget: Duration) -> Duration {
    let now = thread_cpu_about();
    store.data_mut().begin_call(now, budget);
    store.set_epoch_deadline(ticks(budget));
    now
}

/// The answer must have an outcome for each message, and ends that rise and fit.
fn check_form(decoded: &Decoded, messages: usize) -> Result<(), String> {
    if decoded.outcomes.len() != messages {
        return Err(format!("answered {} outcomes for {messages} messages", decoded.outcomes.len()));
    }
    let mut last = 0;
    for (index, outcome) in decoded.outcomes.iter().enumerate() {
        if let Outcome::Lines(end) = outcome {
            if *end < last || *end as usize > decoded.lines.len() {
                let bytes = decoded.lines.len();
                return Err(format!(
                    "the lines of message {index} end at {end}: expected {last} to {bytes}, where the lines end"
                ));
            }
            last = *end;
        }
    }
    if last as usize != decoded.lines.len() {
        return Err(format!("{} bytes of lines belong to no message", decoded.lines.len() - last as usize));
    }
    Ok(())
}

/// The fault of a call, with the last words of the guest, and its output in its log.
fn end(store: &mut Store<HostState>, error: &wasmtime::Error, budget: Duration) -> CallFault {
    let said = store.data().world.output.last_line();
    store.data_mut().log_output();
    match (classify(store, error, budget), said) {
        (CallFault::Guest(reason, what), Some(said)) => {
            let said = truncate(&said, QUOTED_BYTES_MAX);
            CallFault::Guest(reason, format!("{what}; it wrote: {said}"))
        }
        (fault, _) => fault,
    }
}

fn classify(store: &Store<HostState>, error: &wasmtime::Error, budget: Duration) -> CallFault {
    let state = store.data();
    if state.deadline_passed {
        return CallFault::Guest(Reason::GuestDeadline, format!("ran for more than {budget:?} of CPU time"));
    }
    if let Some(denied) = &state.limiter.denied {
        return CallFault::Guest(Reason::GuestMemory, denied.clone());
    }
    if error.is::<wasmtime::PoolConcurrencyLimitError>() {
        return CallFault::Host(format!("{error:#}"));
    }
    if let Some(fault) = error.downcast_ref::<WasiFault>() {
        return CallFault::Guest(Reason::GuestTrap, fault.to_string());
    }
    if let Some(trap) = error.downcast_ref::<Trap>() {
        let place = error.downcast_ref::<wasmtime::WasmBacktrace>().and_then(|backtrace| {
            backtrace.frames().iter().find_map(|frame| {
                frame.func_name().map(|name| format!(" in {}", truncate(name, QUOTED_BYTES_MAX)))
            })
        });
        return CallFault::Guest(Reason::GuestTrap, format!("{trap}{}", place.unwrap_or_default()));
    }
    let text = error.to_string();
    let counts = [
        ("instance count", "core instances", LARGE_CORE_INSTANCES_MAX),
        ("memory count", "memories", LARGE_MEMORIES_MAX),
        ("table count", "tables", LARGE_TABLES_MAX),
    ];
    for (said, what, most) in counts {
        if text.contains(said) && text.contains("too high") {
            let detail = format!("it has too many {what}: the class large allows {most}");
            return CallFault::Guest(Reason::GuestMemory, detail);
        }
    }
    // A text of the runtime may hold one of the guest's, of any length.
    let text = String::from(Detail::new(&format!("{error:#}")));
    // A host call that a guest used wrongly traps; everything else is an answer that cannot be read.
    if text.contains("asked about message") {
        return CallFault::Guest(Reason::GuestTrap, text);
    }
    CallFault::Guest(Reason::GuestOutput, text)
}
